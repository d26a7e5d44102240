/* micro-store - how long does a partner file take to load?
 *
 * Prints, for 10,000 and 100,000 generated records, the best of some runs: reading and checking the file
 * (what a thread of its own does), applying it to an empty policy (the first load), and applying an edition
 * in which two records of three have changed (what the control loop does in slices at a reload).
 */
#include "base/clock.h"
#include "helper_records.h"
#include "store/partner_apply.h"

#include <stdlib.h>
#include <unistd.h>

enum { RUNS = 5 };

struct timing {
    uint64_t read_us, apply_us, reload_us;
};

static void keep_best(uint64_t *best, uint64_t started_us)
{
    uint64_t us = clock_mono_us() - started_us;
    if (us < *best) *best = us;
}

static void fail(const char *what)
{
    fprintf(stderr, "micro-store: %s\n", what);
    exit(1);
}

static void read_file(const char *path, struct partner_file *file)
{
    static const atomic_bool never;
    if (partner_file_read(path, NULL, &never, file) != PARTNER_FILE_LOADED)
        fail(file->report.faults.list[0].text);
}

static void apply_file(struct policy *policy, struct partner_file *file)
{
    struct partner_apply apply;
    partner_apply_begin(&apply, policy, file);
    if (partner_apply_step(&apply, 0)) fail("the policy refused the partners");
}

static void run_once(const char *first, const char *second, struct timing *best)
{
    struct policy *policy = policy_create();
    struct partner_file *file = malloc(sizeof *file);
    if (!policy || !file) fail("out of memory");

    uint64_t started_us = clock_mono_us();
    read_file(first, file);
    keep_best(&best->read_us, started_us);
    started_us = clock_mono_us();
    apply_file(policy, file);
    keep_best(&best->apply_us, started_us);
    partner_file_deinit(file);

    read_file(second, file);
    started_us = clock_mono_us();
    apply_file(policy, file);
    keep_best(&best->reload_us, started_us);
    partner_file_deinit(file);
    free(file);
    policy_destroy(policy);
}

/* Writes an edition of `n` records to a temporary file and puts its name in `path`. Returns its size. */
static long write_edition(char *path, unsigned n, unsigned edition)
{
    int fd = mkstemp(path);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!out) fail("cannot write a temporary file");
    records_write(out, n, edition);
    long size = ftell(out);
    if (fclose(out)) fail("cannot write a temporary file");
    return size;
}

static void measure(unsigned n)
{
    char first[] = "/tmp/micro-store-XXXXXX", second[] = "/tmp/micro-store-XXXXXX";
    struct timing best = {UINT64_MAX, UINT64_MAX, UINT64_MAX};
    long size = write_edition(first, n, 0);
    (void)write_edition(second, n, 1);
    for (int i = 0; i < RUNS; i++)
        run_once(first, second, &best);
    (void)unlink(first);
    (void)unlink(second);
    printf(
        "%6u records, %5.1f MB: read %6.1f ms, first apply %6.1f ms, load %6.1f ms, reload apply %6.1f ms\n",
        n, (double)size / 1e6, (double)best.read_us / 1e3, (double)best.apply_us / 1e3,
        (double)(best.read_us + best.apply_us) / 1e3, (double)best.reload_us / 1e3);
}

int main(void)
{
    measure(10000);
    measure(100000);
    return 0;
}
