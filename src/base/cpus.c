#include "base/cpus.h"

#include "base/outbuf.h"
#include "base/span.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 16 * 1024, DEPTH_MAX = 64 };

static const uint64_t PERIOD_DEFAULT_US = 100000;

/* A small file of the kernel, read whole. */
struct small_file {
    char bytes[FILE_BYTES_MAX];
    size_t n;
};

static bool file_read(struct small_file *f, const char *path)
{
    FILE *in = fopen(path, "re");
    if (!in) return false;
    f->n = fread(f->bytes, 1, sizeof f->bytes, in);
    (void)fclose(in); /* only read from */
    return true;
}

/* The text before `stop`; `s` goes on behind it. Without `stop` everything is taken. */
static struct span token_take(struct span *s, char stop)
{
    struct span token = span_of(s->p, 0);
    while (s->n && s->p[0] != stop)
        s->p++, s->n--, token.n++;
    if (s->n) s->p++, s->n--;
    return token;
}

static unsigned cpus_of_quota(uint64_t quota_us, uint64_t period_us)
{
    if (quota_us == 0 || period_us == 0) return 0;
    uint64_t cpus = quota_us / period_us + (quota_us % period_us != 0);
    return cpus > UINT_MAX ? UINT_MAX : (unsigned)cpus;
}

/* "max 100000" or "150000 100000" (cgroup v2). */
static unsigned v2_quota(const char *folder)
{
    char path[PATH_MAX];
    struct small_file f;
    uint64_t quota, period = PERIOD_DEFAULT_US;
    if (snprintf(path, sizeof path, "%s/cpu.max", folder) >= (int)sizeof path || !file_read(&f, path))
        return 0;
    struct span text = span_of(f.bytes, f.n);
    struct span line = token_take(&text, '\n');
    struct span first = token_take(&line, ' ');
    if (!span_to_u64(first, &quota)) return 0; /* "max" */
    (void)span_to_u64(line, &period);          /* a missing period has its default */
    return cpus_of_quota(quota, period);
}

static bool number_read(const char *folder, const char *name, uint64_t *out)
{
    char path[PATH_MAX];
    struct small_file f;
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path || !file_read(&f, path))
        return false;
    struct span text = span_of(f.bytes, f.n);
    return span_to_u64(token_take(&text, '\n'), out);
}

/* cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us (cgroup v1). */
static unsigned v1_quota(const char *folder)
{
    uint64_t quota, period;
    if (!number_read(folder, "cpu.cfs_quota_us", &quota) ||
        !number_read(folder, "cpu.cfs_period_us", &period))
        return 0;
    return cpus_of_quota(quota, period);
}

static unsigned smaller_quota(unsigned a, unsigned b)
{
    if (a == 0 || b == 0) return a + b;
    return a < b ? a : b;
}

/* Asks `quota_of` for the folder of `cgroup` below `mount` and for every one above it. */
static unsigned quota_upwards(const char *mount, struct span cgroup, unsigned (*quota_of)(const char *))
{
    unsigned quota = 0;
    for (int depth = 0; depth < DEPTH_MAX; depth++) {
        char folder[PATH_MAX];
        struct outbuf o = outbuf_of(folder, sizeof folder - 1);
        outbuf_str(&o, mount);
        outbuf_span(&o, cgroup);
        folder[o.n] = '\0';
        if (!o.overflow) quota = smaller_quota(quota, quota_of(folder));
        if (cgroup.n == 0) break;
        do
            cgroup.n--;
        while (cgroup.n && cgroup.p[cgroup.n] != '/');
    }
    return quota;
}

static bool list_has(struct span list, struct span name)
{
    while (list.n)
        if (span_eq(token_take(&list, ','), name)) return true;
    return false;
}

unsigned cpus_cgroup_quota(const char *root)
{
    char path[PATH_MAX];
    struct small_file f;
    unsigned quota = 0;
    if (snprintf(path, sizeof path, "%s/proc/self/cgroup", root) >= (int)sizeof path || !file_read(&f, path))
        return 0;

    /* Lines "0::/path" (v2) and "4:cpu,cpuacct:/path" (v1); a hybrid system has both. */
    struct span text = span_of(f.bytes, f.n);
    while (text.n) {
        struct span cgroup = token_take(&text, '\n');
        struct span hierarchy = token_take(&cgroup, ':');
        struct span controllers = token_take(&cgroup, ':');
        bool is_v2 = span_eq(hierarchy, SPAN("0")) && controllers.n == 0;
        if (!is_v2 && !list_has(controllers, SPAN("cpu"))) continue;

        struct outbuf o = outbuf_of(path, sizeof path - 1);
        outbuf_str(&o, root);
        outbuf_str(&o, is_v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu");
        path[o.n] = '\0';
        if (!o.overflow)
            quota = smaller_quota(quota, quota_upwards(path, cgroup, is_v2 ? v2_quota : v1_quota));
    }
    return quota;
}

unsigned cpus_available(void)
{
    cpu_set_t mask;
    unsigned quota = cpus_cgroup_quota("");
    /* The mask is too small for machines with more than 1,024 processors; then the online ones count. */
    long allowed =
        sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : sysconf(_SC_NPROCESSORS_ONLN);
    unsigned cpus = allowed > 0 ? (unsigned)allowed : 1;
    return smaller_quota(cpus, quota);
}
