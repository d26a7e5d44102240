/* What the policy costs on one core: a decision, its parts, a load, a change, and the memory per partner.
 *
 *   micro-policy [PARTNERS ...]        default: 10000 1000000
 *
 * Partners have one token of 43 characters and two IPv4 prefixes for production, sizes as in real allowlists
 * (half of them single addresses). Records are made outside the measured time. Figures are thread CPU time.
 */
#include "policy/decide.h"
#include "policy/key_table.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { QUERIES = 1 << 16, UPDATES = 20000, BATCH = 512, TOKEN_CHARS = 43 };

struct query {
    char value[7 + TOKEN_CHARS];
    struct addr source;
    uint8_t digest[TOKEN_DIGEST_BYTES];
};

static struct token_hasher *hasher;
static struct query hits[QUERIES], misses[QUERIES];
static struct partner batch[BATCH];
static struct cidr batch_cidrs[BATCH][2];
static uint64_t updates_ns[UPDATES];

static uint64_t now_ns(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)) abort();
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* splitmix64: a number for every n, so that nothing need be remembered about a partner. */
static uint64_t scramble(uint64_t n)
{
    n += 0x9e3779b97f4a7c15ULL;
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9ULL;
    n = (n ^ n >> 27) * 0x94d049bb133111ebULL;
    return n ^ n >> 31;
}

static void make_token(uint64_t n, char out[static TOKEN_CHARS])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (uint64_t i = 0; i < TOKEN_CHARS; i++)
        out[i] = alphabet[scramble(n * 64 + i) & 63];
}

static void digest(const char token[static TOKEN_CHARS], uint8_t out[static TOKEN_DIGEST_BYTES])
{
    if (token_digest(hasher, span_of(token, TOKEN_CHARS), out)) abort();
}

static struct cidr make_cidr(uint64_t n)
{
    static const uint8_t lengths[] = {32, 32, 32, 32, 32, 32, 32, 32, 32, 29, 28, 28, 27, 24, 24, 22};
    uint64_t r = scramble(n);
    uint8_t len = lengths[r & 15];
    uint32_t net = (uint32_t)(r >> 32) & UINT32_MAX << (32 - len);
    return (struct cidr){.net = {.family = ADDR_V4, .v4 = net}, .len = len};
}

/* `version` changes the prefixes, not the token. */
static void make_record(uint64_t n, uint64_t version, struct partner *r, struct cidr cidrs[static 2])
{
    char token[TOKEN_CHARS];
    *r = (struct partner){.enabled = true, .has_token = {true, false}};
    (void)snprintf(r->id, sizeof(r->id), "partner-%06u", (unsigned)n);
    memcpy(r->widget_id, &n, sizeof n);
    make_token(n, token);
    digest(token, r->digest[SLOT_CURRENT]);
    cidrs[0] = make_cidr(2 * n + (version << 32));
    cidrs[1] = make_cidr(2 * n + 1 + (version << 32));
    r->cidrs[ENV_PRODUCTION] = cidrs;
    r->ncidrs[ENV_PRODUCTION] = 2;
}

static void prefetch(const struct policy *p, const struct partner *r)
{
    policy_prefetch(p, span_of(r->id, strlen(r->id)), r->digest[SLOT_CURRENT]);
}

/* A full synchronisation of `n` partners; returns its nanoseconds. */
static uint64_t load(struct policy *p, uint64_t n)
{
    uint64_t spent = 0;
    policy_sync_begin(p);
    policy_reserve(p, (uint32_t)n); /* as the stores do */
    for (uint64_t i = 0; i < n;) {
        uint64_t count = n - i < BATCH ? n - i : BATCH;
        for (uint64_t k = 0; k < count; k++)
            make_record(i + k, 0, &batch[k], batch_cidrs[k]);
        uint64_t from = now_ns();
        for (uint64_t k = 0; k < count; k++) {
            bool changed;
            if (k + 1 < count) prefetch(p, &batch[k + 1]);
            if (policy_apply(p, &batch[k], &changed)) abort();
        }
        spent += now_ns() - from;
        i += count;
    }
    uint64_t from = now_ns();
    if (policy_sync_end(p, NULL)) abort();
    return spent + now_ns() - from;
}

static void make_queries(uint64_t n)
{
    for (uint64_t i = 0; i < QUERIES; i++) {
        uint64_t partner = scramble(i) % n;
        memcpy(hits[i].value, "Bearer ", 7);
        make_token(partner, hits[i].value + 7);
        hits[i].source = make_cidr(2 * partner + (i & 1)).net;
        digest(hits[i].value + 7, hits[i].digest);
        misses[i] = hits[i];
        make_token(n + i, misses[i].value + 7);
        digest(misses[i].value + 7, misses[i].digest);
    }
}

static double measure_decide(const struct policy *p, const struct query *queries, enum deny want)
{
    uint64_t from = now_ns();
    for (size_t i = 0; i < QUERIES; i++) {
        struct decide_query q = {.has_route = true,
                                 .has_environment = true,
                                 .nauthorization = 1,
                                 .authorization = span_of(queries[i].value, sizeof(queries[i].value)),
                                 .source = &queries[i].source};
        struct decision d;
        decide(p, hasher, &q, &d);
        if (d.deny != want) abort();
    }
    return (double)(now_ns() - from) / QUERIES;
}

static double measure_digest(void)
{
    uint8_t out[TOKEN_DIGEST_BYTES];
    uint64_t from = now_ns();
    for (size_t i = 0; i < QUERIES; i++)
        digest(hits[i].value + 7, out);
    return (double)(now_ns() - from) / QUERIES;
}

static double measure_find(const struct policy *p, const struct query *queries, bool want)
{
    uint64_t from = now_ns();
    for (size_t i = 0; i < QUERIES; i++) {
        uint32_t partner;
        if (key_table_find(policy_tokens(p), token_key(queries[i].digest), &partner) != want) abort();
    }
    return (double)(now_ns() - from) / QUERIES;
}

static double measure_turn(struct policy *p)
{
    struct epoch_reader *r;
    if (epochs_register(policy_epochs(p), &r)) abort();
    uint64_t from = now_ns();
    for (size_t i = 0; i < QUERIES; i++) {
        epoch_online(r);
        epoch_offline(r);
    }
    double ns = (double)(now_ns() - from) / QUERIES;
    epochs_unregister(policy_epochs(p), r);
    return ns;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* One partner gets two other prefixes; reclamation included. */
static void measure_updates(struct policy *p, uint64_t n)
{
    for (uint64_t i = 0; i < UPDATES; i++) {
        bool changed;
        make_record(scramble(i) % n, 1 + i, &batch[0], batch_cidrs[0]);
        uint64_t from = now_ns();
        if (policy_apply(p, &batch[0], &changed)) abort();
        policy_collect(p);
        updates_ns[i] = now_ns() - from;
    }
    qsort(updates_ns, UPDATES, sizeof(updates_ns[0]), by_size);
}

static void run(uint64_t n)
{
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    struct policy *p = policy_create();
    if (!p) abort();
    uint64_t load_ns = load(p, n);
    policy_collect(p);
    size_t heap = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    struct policy_stats s;
    policy_stats(p, &s);
    uint64_t again_ns = load(p, n);

    make_queries(n);
    double best[6] = {0};
    for (int round = 0; round < 5; round++) {
        double ns[6] = {measure_decide(p, hits, DENY_NONE),
                        measure_decide(p, misses, DENY_TOKEN_UNKNOWN),
                        measure_digest(),
                        measure_find(p, hits, true),
                        measure_find(p, misses, false),
                        measure_turn(p)};
        for (int i = 0; i < 6; i++)
            if (best[i] == 0 || ns[i] < best[i]) best[i] = ns[i];
    }
    measure_updates(p, n);
    policy_destroy(p);

    printf("%8u partners, %llu prefixes\n", s.partners, (unsigned long long)s.prefixes);
    printf("  cold load           %8.1f ms\n", (double)load_ns / 1e6);
    printf("  load, all the same  %8.1f ms\n", (double)again_ns / 1e6);
    printf("  memory per partner  %8.1f bytes, %.1f with the allocator's share\n",
           (double)s.bytes / (double)n, (double)heap / (double)n);
    printf("  decide, let in      %8.1f ns\n", best[0]);
    printf("  decide, unknown     %8.1f ns\n", best[1]);
    printf("  token digest        %8.1f ns\n", best[2]);
    printf("  token table, hit    %8.1f ns\n", best[3]);
    printf("  token table, miss   %8.1f ns\n", best[4]);
    printf("  reader's turn       %8.1f ns\n", best[5]);
    printf("  one partner changed %8.1f us p50, %.1f us p99, %.1f us worst of %d\n",
           (double)updates_ns[UPDATES / 2] / 1e3, (double)updates_ns[UPDATES / 100 * 99] / 1e3,
           (double)updates_ns[UPDATES - 1] / 1e3, UPDATES);
}

int main(int argc, char **argv)
{
    hasher = token_hasher_create();
    if (!hasher) return EXIT_FAILURE;
    for (int i = 1; i < argc; i++) {
        uint64_t n;
        if (!span_to_u64(span_str(argv[i]), &n) || n == 0 || n > 16000000) {
            fprintf(stderr, "usage: micro-policy [PARTNERS ...]\n");
            return EXIT_FAILURE;
        }
        run(n);
    }
    if (argc == 1) {
        run(10000);
        run(1000000);
    }
    token_hasher_destroy(hasher);
    return EXIT_SUCCESS;
}
