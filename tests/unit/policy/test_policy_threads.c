/* One writer changes partners while readers decide. Run under ThreadSanitizer this proves the ordering; under
 * any build it proves the promises: who is not touched is always let in, a token that was never valid never
 * is, and what policy_apply() or policy_remove() has returned from holds for every decision that starts
 * afterwards. */
#include "policy/decide.h"

#include "helper_partner.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { READERS = 2, CHURNED = 8, CHANGES = 2500, SYNCS = 150, DECISIONS_MIN = 3000 };

#define HOMES "192.0.2.0/24 2001:db8::/48"

/* What the writer promises about a churned partner; the upper bits count the promises. */
enum promise { PROMISE_NONE = 0, PROMISE_ALLOWED = 1, PROMISE_REFUSED = 2 };

struct stage {
    struct policy *policy;
    _Atomic uint64_t promises[CHURNED];
    _Atomic uint64_t ndecisions[READERS];
    _Atomic uint64_t nbroken; /* promises that a reader saw broken */
    _Atomic bool is_done;
    bool all_stay; /* every churned token is valid all the time */
};

struct reader {
    struct stage *stage;
    struct epoch_reader *epoch;
    struct token_hasher *hasher;
    int number;
    pthread_t thread;
};

static void token_name(char out[static 32], int i)
{
    (void)snprintf(out, 32, "token-of-churned-%06d", i); /* fits */
}

static struct decision ask(const struct reader *r, const char *token)
{
    char value[64];
    int n = snprintf(value, sizeof(value), "Bearer %s", token);
    struct addr source = {.family = ADDR_V4, .v4 = 0xc0000207}; /* 192.0.2.7 */
    struct decide_query q = {.has_route = true,
                             .has_environment = true,
                             .nauthorization = 1,
                             .authorization = span_of(value, (size_t)n),
                             .source = &source};
    struct decision out;
    decide(r->stage->policy, r->hasher, &q, &out);
    atomic_fetch_add_explicit(&r->stage->ndecisions[r->number], 1, memory_order_relaxed);
    return out;
}

static void expect(struct stage *s, bool is_true)
{
    if (!is_true) atomic_fetch_add(&s->nbroken, 1);
}

static void check_promise(const struct reader *r, int i, struct decision *remembered)
{
    struct stage *s = r->stage;
    char token[32];
    token_name(token, i);
    uint64_t before = atomic_load_explicit(&s->promises[i], memory_order_acquire);
    bool still_holds = remembered->generation == policy_generation(s->policy);
    struct decision d = ask(r, token);
    uint64_t after = atomic_load_explicit(&s->promises[i], memory_order_acquire);

    enum promise p = (enum promise)(before & 3);
    if (s->all_stay) expect(s, d.deny == DENY_NONE);
    if (p != PROMISE_NONE && before == after) expect(s, (d.deny == DENY_NONE) == (p == PROMISE_ALLOWED));
    /* A verdict that a connection keeps for as long as the generation stays the same. */
    if (p != PROMISE_NONE && still_holds)
        expect(s, (remembered->deny == DENY_NONE) == (p == PROMISE_ALLOWED));
    *remembered = d;
}

/* What a view says must fit together, whichever of its versions it is. */
static void check_view(const struct reader *r, const struct decision *d)
{
    if (d->partner == PARTNER_INDEX_NONE) return;
    const struct partner_view *v = policy_view(r->stage->policy, d->partner);
    if (!v) return; /* removed since */
    char widget[PARTNER_WIDGET_TEXT_BYTES];
    partner_view_widget_id(v, widget);
    expect(r->stage, partner_view_id(v).n > 0 && partner_view_id(v).p[0] == 'p');
    expect(r->stage, strcmp(widget + 8, "-aaaa-4bbb-8ccc-0123456789ab") == 0);
}

static void *read_all_the_time(void *arg)
{
    struct reader *r = arg;
    struct stage *s = r->stage;
    struct decision remembered[CHURNED];
    for (int i = 0; i < CHURNED; i++)
        remembered[i] = (struct decision){.generation = UINT64_MAX};
    uint64_t rng = 99 + (uint64_t)r->number;

    while (!atomic_load_explicit(&s->is_done, memory_order_acquire)) {
        epoch_online(r->epoch);
        for (int k = 0; k < 4; k++) {
            int i = (int)(next_random(&rng) % CHURNED);
            check_promise(r, i, &remembered[i]);
            check_view(r, &remembered[i]);
        }
        struct addr home = {.family = ADDR_V4, .v4 = 0xc0000201};
        expect(s, ask(r, "token-of-the-stable-one").deny == DENY_NONE);
        expect(s, ask(r, "token-that-never-was-good").deny == DENY_TOKEN_UNKNOWN);
        expect(s, policy_source_known(s->policy, ENV_PRODUCTION, &home));
        if (next_random(&rng) % 3 == 0) {
            epoch_offline(r->epoch);
            if (next_random(&rng) % 8 == 0) sched_yield();
        }
    }
    epoch_offline(r->epoch);
    return NULL;
}

static void wait_for_readers(struct stage *s, uint64_t ndecisions)
{
    for (int i = 0; i < READERS; i++)
        while (atomic_load(&s->ndecisions[i]) < ndecisions)
            sched_yield();
}

static void start(struct stage *s, struct reader readers[static READERS])
{
    *s = (struct stage){.policy = policy_create()};
    assert_non_null(s->policy);
    make_ready(s->policy);
    apply_expect(s->policy, partner_with("p-stable", "token-of-the-stable-one", HOMES), ERR_OK);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.stage = s, .number = i, .hasher = token_hasher_create()};
        assert_non_null(readers[i].hasher);
        assert_int_equal(epochs_register(policy_epochs(s->policy), &readers[i].epoch), ERR_OK);
    }
}

static void go(struct stage *s, struct reader readers[static READERS])
{
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_all_the_time, &readers[i]), 0);
    wait_for_readers(s, 1);
}

static void stop(struct stage *s, struct reader readers[static READERS])
{
    wait_for_readers(s, DECISIONS_MIN);
    atomic_store(&s->is_done, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        token_hasher_destroy(readers[i].hasher);
        epochs_unregister(policy_epochs(s->policy), readers[i].epoch);
    }
    policy_collect(s->policy);
    struct policy_stats stats;
    policy_stats(s->policy, &stats);
    policy_destroy(s->policy);
    assert_int_equal(s->nbroken, 0);
    assert_int_equal(stats.limbo_bytes, 0);
}

static void promise(struct stage *s, int i, enum promise p)
{
    uint64_t n = atomic_load_explicit(&s->promises[i], memory_order_relaxed) >> 2;
    atomic_store_explicit(&s->promises[i], (n + 1) << 2 | p, memory_order_release);
}

/* A list that is long enough to be shared; two of `n` networks differ in one prefix, or none. */
static void allow_many(struct partner *r, int n)
{
    for (int i = 0; i < n; i++) {
        char text[24];
        (void)snprintf(text, sizeof(text), "10.%d.0.0/16", 2 * i);
        partner_allow(r, ENV_PRODUCTION, text);
    }
}

/* One of the things that happen to a partner; says what holds from now on. */
static enum promise churn(struct policy *p, int i, uint64_t r)
{
    char id[16], token[32], other[40];
    (void)snprintf(id, sizeof(id), "p-%d", i);
    token_name(token, i);
    (void)snprintf(other, sizeof(other), "%s-new", token);

    if (r % 8 == 0) {
        enum err e = policy_remove(p, span_str(id));
        assert_true(e == ERR_OK || e == ERR_NOT_FOUND);
        return PROMISE_REFUSED;
    }
    bool is_rotated = r % 8 == 1;
    struct partner record = partner_with(id, is_rotated ? other : token, HOMES);
    if (is_rotated) {
        partner_give(&record, SLOT_PREVIOUS, token);
        record.previous_expires_ms = UINT64_MAX;
    }
    record.enabled = r % 8 != 2;
    if (r % 8 == 3) partner_allow(&record, ENV_PRODUCTION, "198.51.100.0/24 10.0.0.0/8 2001:db8:1::/64");
    if (r % 8 == 4) partner_allow(&record, ENV_SANDBOX, "203.0.113.0/25");
    if (r % 8 >= 5) allow_many(&record, r % 8 == 5 ? 20 : 21);
    bool is_enabled = record.enabled;
    apply_expect(p, record, ERR_OK);
    return is_enabled ? PROMISE_ALLOWED : PROMISE_REFUSED;
}

static void test_partners_churn_under_readers(void **state)
{
    (void)state;
    struct stage s;
    struct reader readers[READERS];
    start(&s, readers);
    go(&s, readers);
    uint64_t rng = 4711;
    for (int n = 0; n < CHANGES; n++) {
        uint64_t r = next_random(&rng);
        int i = (int)(r >> 32) & (CHURNED - 1);
        promise(&s, i, PROMISE_NONE);
        promise(&s, i, churn(s.policy, i, r));
        if (n % 16 == 0) policy_collect(s.policy);
    }
    stop(&s, readers);
}

/* Every synchronisation deals the tokens anew, to partners in random order: no reader may find one refused.
 */
static void test_tokens_move_under_readers(void **state)
{
    (void)state;
    struct stage s;
    struct reader readers[READERS];
    start(&s, readers);
    int owner[CHURNED], order[CHURNED];
    for (int i = 0; i < CHURNED; i++)
        owner[i] = order[i] = i;

    uint64_t rng = 815;
    for (int n = 0; n < SYNCS; n++) {
        shuffle(owner, CHURNED, &rng);
        shuffle(order, CHURNED, &rng);
        policy_sync_begin(s.policy);
        apply_expect(s.policy, partner_with("p-stable", "token-of-the-stable-one", HOMES), ERR_OK);
        for (int i = 0; i < CHURNED; i++) {
            char id[24], token[32];
            /* Every third round under new names: all partners are new, all old ones are swept. */
            (void)snprintf(id, sizeof(id), "p-%d-%d", n / 3 % 2, order[i]);
            token_name(token, owner[order[i]]);
            apply_expect(s.policy, partner_with(id, token, HOMES), ERR_OK);
        }
        assert_int_equal(policy_sync_end(s.policy, NULL), ERR_OK);
        policy_collect(s.policy);
        if (n == 0) {
            s.all_stay = true;
            go(&s, readers);
        }
    }
    stop(&s, readers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partners_churn_under_readers),
        cmocka_unit_test(test_tokens_move_under_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
