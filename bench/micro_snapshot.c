/* micro-snapshot [PARTNERS [FILE]] - how long does a snapshot take?
 *
 * Makes a policy of generated partners (1,000,000), writes its snapshot and loads it into an empty policy, as
 * the Redis store does, and prints the best of some runs, by the clock and by the processor. Packing happens
 * on the control loop in slices of a megabyte, so the longest slice is printed as well.
 */
#include "base/clock.h"
#include "helper_records.h"
#include "store/ledger.h"
#include "store/record.h"
#include "store/snapshot.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { RUNS = 3, CHUNK_BYTES = 1 << 20 };

static const struct snapshot_head head = {.sequence = 1, .epoch = "bench", .tag = "cfg"};

static void fail(const char *what)
{
    fprintf(stderr, "micro-snapshot: %s\n", what);
    exit(1);
}

struct took {
    uint64_t wall_us, cpu_us;
};

static struct took now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* cannot fail */
    return (struct took){clock_mono_us(), (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000};
}

/* The least of both. */
static void keep_best(struct took *best, struct took began)
{
    struct took end = now();
    if (end.wall_us - began.wall_us < best->wall_us) best->wall_us = end.wall_us - began.wall_us;
    if (end.cpu_us - began.cpu_us < best->cpu_us) best->cpu_us = end.cpu_us - began.cpu_us;
}

static void fill(struct ledger *l, unsigned n)
{
    static struct record_report report;
    ledger_sync_begin(l, n);
    for (unsigned i = 0; i < n; i++) {
        char line[RECORD_LINE_MAX];
        struct partner_record record;
        struct packed r;
        struct bytes b = {0};
        bool changed;
        size_t length = record_line(i, 0, line);
        if (record_parse(span_of(line, length), 1, &record, &report)) fail("a record is refused");
        if (packed_add(&b, &record.partner, i + 1, 0) || packed_look(span_of(b.p, b.n), &r, NULL) ||
            ledger_sync_put(l, &r, &changed))
            fail("out of memory");
        record_deinit(&record);
        bytes_deinit(&b);
    }
    if (ledger_sync_end(l, n, 0, NULL)) fail("out of memory");
}

/* Returns the longest turn of packing. */
static uint64_t write_file(const struct ledger *l, const char *path)
{
    struct snapshot_writer *w;
    struct errmsg why;
    struct bytes chunk = {0};
    uint32_t at = 0;
    uint64_t longest_us = 0;
    enum err e = snapshot_create(path, &head, &w, &why);
    if (e) fail(why.text);
    do {
        uint64_t began_us = clock_mono_us();
        chunk.n = 0;
        e = ledger_pack(l, &at, &chunk, CHUNK_BYTES);
        uint64_t us = clock_mono_us() - began_us;
        if (us > longest_us) longest_us = us;
        if (snapshot_append(w, span_of(chunk.p, chunk.n), &why)) fail(why.text);
    } while (e == ERR_AGAIN);
    bytes_deinit(&chunk);
    if (e || snapshot_commit(w, &(struct snapshot_foot){0}, &why)) fail(why.text);
    return longest_us;
}

struct loading {
    struct ledger *ledger;
    struct redis_hasher *hasher;
    uint64_t count, digest;
};

static void begin(uint64_t nrecords, void *arg)
{
    const struct loading *l = arg;
    ledger_sync_begin(l->ledger, nrecords);
}

static enum err take(const struct packed *r, void *arg)
{
    struct loading *l = arg;
    bool changed;
    l->count++;
    l->digest ^= redis_hasher_record(l->hasher, r->id, r->version);
    if (l->count % 10000 == 0) policy_collect(l->ledger->policy);
    return ledger_sync_put(l->ledger, r, &changed);
}

static void announce(const struct packed *r, void *arg)
{
    const struct loading *l = arg;
    ledger_sync_prefetch(l->ledger, r);
}

static void load_file(const char *path, struct redis_hasher *hasher, uint64_t n, struct took *best)
{
    struct policy *policy = policy_create();
    struct ledger ledger;
    struct loading l = {.ledger = &ledger, .hasher = hasher};
    struct snapshot_head h;
    struct snapshot_foot f;
    struct errmsg why;
    if (!policy) fail("out of memory");
    ledger_init(&ledger, policy, hasher);
    struct took began = now();
    const struct snapshot_sink sink = {.begin = begin, .record = take, .announce = announce, .arg = &l};
    if (snapshot_load(path, "cfg", &sink, &h, &f, &why)) fail(why.text);
    if (ledger_sync_end(&ledger, l.count, l.digest, NULL)) fail("out of memory");
    keep_best(best, began);
    if (l.count != n) fail("partners are missing");
    ledger_deinit(&ledger);
    policy_destroy(policy);
}

int main(int argc, char **argv)
{
    struct took write = {UINT64_MAX, UINT64_MAX}, load = write;
    uint64_t n = 1000000, slice_us = 0;
    const char *path = argc > 2 ? argv[2] : "/tmp/micro-snapshot";
    if (argc > 1 && (!span_to_u64(span_str(argv[1]), &n) || n == 0 || n > 10000000))
        fail("PARTNERS is no number");
    struct policy *policy = policy_create();
    struct redis_hasher *hasher = redis_hasher_create();
    struct ledger ledger;
    if (!policy || !hasher) fail("out of memory");
    ledger_init(&ledger, policy, hasher);
    fill(&ledger, (unsigned)n);
    for (unsigned i = 0; i < RUNS; i++) {
        struct took began = now();
        uint64_t slice = write_file(&ledger, path);
        keep_best(&write, began);
        if (slice > slice_us) slice_us = slice;
    }
    ledger_deinit(&ledger);
    policy_destroy(policy);
    for (unsigned i = 0; i < RUNS; i++)
        load_file(path, hasher, n, &load);
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage); /* cannot fail for the own process */
    printf("%llu partners: write %.3f s (processor %.3f s, longest slice on the loop %.1f ms), load %.3f s "
           "(processor %.3f s), peak memory %ld MiB\n",
           (unsigned long long)n, (double)write.wall_us / 1e6, (double)write.cpu_us / 1e6,
           (double)slice_us / 1e3, (double)load.wall_us / 1e6, (double)load.cpu_us / 1e6,
           usage.ru_maxrss / 1024);
    redis_hasher_destroy(hasher);
    (void)unlink(path); /* our own temporary file */
    return 0;
}
