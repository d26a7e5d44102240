/* The same records give the same policy, whether they come from the partner file, from Redis by a load, from
 * Redis by following, or from a snapshot: the same views, and the same decision for every token from every
 * address that matters. */
#include "helper_records.h"
#include "helper_sync.h"
#include "policy/cidr_set.h"
#include "policy/decide.h"
#include "policy/partner_view.h"
#include "policy/key_table.h"
#include "store/file_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RECORDS = 300, TOKENS_MAX = 2 * RECORDS + 8, ADDRESSES_MAX = 1500 };

/* --- views -------------------------------------------------------------------------------------------- */

struct prefixes {
    char text[8192];
    struct outbuf o;
};

static void add_prefix(struct prefixes *p, const struct cidr *c)
{
    char text[CIDR_TEXT_MAX];
    outbuf_bytes(&p->o, text, cidr_format(c, text));
    outbuf_char(&p->o, ' ');
}

static struct span list_of(const struct partner_view *v, unsigned env, struct prefixes *p)
{
    p->o = outbuf_of(p->text, sizeof p->text);
    const struct cidr_set *list = partner_view_list(v, (enum environment)env);
    if (list) {
        struct cidr_walk w = cidr_walk_of(list);
        for (struct cidr c; cidr_walk_next(&w, &c);)
            add_prefix(p, &c);
    }
    assert_false(p->o.overflow);
    return span_of(p->text, p->o.n);
}

static void assert_same_view(const struct partner_view *a, const struct partner_view *b)
{
    static struct prefixes of_a, of_b;
    assert_non_null(a);
    assert_non_null(b);
    assert_true(span_eq(partner_view_id(a), partner_view_id(b)));
    assert_memory_equal(a->widget_id, b->widget_id, 16);
    assert_true(a->enabled == b->enabled && a->off_ramp == b->off_ramp && a->tokens == b->tokens);
    assert_int_equal(partner_view_previous_expires_ms(a), partner_view_previous_expires_ms(b));
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
        if (partner_view_digest(a, slot))
            assert_memory_equal(partner_view_digest(a, slot), partner_view_digest(b, slot),
                                TOKEN_DIGEST_BYTES);
    for (unsigned env = 0; env < ENV_COUNT; env++)
        assert_true(span_eq(list_of(a, env, &of_a), list_of(b, env, &of_b)));
}

static void assert_same_policy(const struct policy *a, const struct policy *b, unsigned n)
{
    struct policy_stats of_a, of_b;
    policy_stats(a, &of_a);
    policy_stats(b, &of_b);
    assert_int_equal(of_a.partners, of_b.partners);
    assert_int_equal(of_a.tokens, of_b.tokens);
    assert_int_equal(of_a.prefixes, of_b.prefixes);
    for (unsigned i = 0; i < n; i++) {
        struct span id = span_str(partners_id(i));
        assert_same_view(policy_view(a, policy_find(a, id)), policy_view(b, policy_find(b, id)));
    }
}

/* --- decisions ---------------------------------------------------------------------------------------- */

/* Every token of the records and some of nobody; the edges of their prefixes, inside and outside. */
struct questions {
    uint8_t tokens[TOKENS_MAX][TOKEN_DIGEST_BYTES];
    struct addr addresses[ADDRESSES_MAX];
    unsigned ntokens, naddresses;
};

static struct addr moved(struct addr a, int by)
{
    if (a.family == ADDR_V4)
        a.v4 += (uint32_t)by;
    else
        a.v6.lo += (uint64_t)(int64_t)by;
    return a;
}

static void ask_from(struct questions *q, struct addr a)
{
    if (q->naddresses < ADDRESSES_MAX) q->addresses[q->naddresses++] = a;
}

static void ask_around(struct questions *q, const struct cidr *c)
{
    struct addr last = cidr_last(c);
    ask_from(q, moved(c->net, -1));
    ask_from(q, c->net);
    ask_from(q, last);
    ask_from(q, moved(last, 1));
}

static void ask_for(struct questions *q, const struct partner_view *v)
{
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
        if (partner_view_digest(v, slot))
            memcpy(q->tokens[q->ntokens++], partner_view_digest(v, slot), TOKEN_DIGEST_BYTES);
    for (unsigned env = 0; env < ENV_COUNT; env++) {
        const struct cidr_set *list = partner_view_list(v, (enum environment)env);
        if (!list) continue;
        struct cidr_walk w = cidr_walk_of(list);
        for (struct cidr c; cidr_walk_next(&w, &c);)
            ask_around(q, &c);
    }
}

static struct questions *questions_about(const struct policy *p)
{
    struct questions *q = calloc(1, sizeof *q);
    assert_non_null(q);
    for (unsigned i = 0; i < 8; i++) /* of nobody */
        memset(q->tokens[q->ntokens++], (int)i, TOKEN_DIGEST_BYTES);
    for (unsigned i = 0; i < RECORDS; i++)
        ask_for(q, policy_view(p, policy_find(p, span_str(partners_id(i)))));
    return q;
}

static struct span id_of(const struct policy *p, uint32_t index)
{
    return index == PARTNER_INDEX_NONE ? span_of(NULL, 0) : partner_view_id(policy_view(p, index));
}

static enum deny assert_same_decision(const struct policy *a, const struct policy *b, const uint8_t *token,
                                      enum environment env, const struct addr *source, uint64_t now_ms)
{
    const struct decide_query q = {.env = env, .digest = token, .source = source, .wall_ms = now_ms};
    struct decision of_a, of_b;
    decide_again(a, &q, &of_a);
    decide_again(b, &q, &of_b);
    assert_int_equal(of_a.deny, of_b.deny);
    assert_int_equal(of_a.valid_until_ms, of_b.valid_until_ms);
    if (of_a.partner != PARTNER_INDEX_NONE) assert_int_equal(of_a.slot, of_b.slot);
    assert_true(span_eq(id_of(a, of_a.partner), id_of(b, of_b.partner)));
    return of_a.deny;
}

static void assert_same_decisions(const struct policy *a, const struct policy *b)
{
    static const uint64_t moments_ms[] = {UINT64_C(1700000000000), UINT64_C(4000000000000)}; /* grace; over */
    struct questions *q = questions_about(a);
    unsigned seen[DENY_COUNT] = {0};
    for (unsigned t = 0; t < q->ntokens; t++)
        for (unsigned i = 0; i < q->naddresses; i++)
            seen[assert_same_decision(a, b, q->tokens[t], (enum environment)(i % ENV_COUNT), &q->addresses[i],
                                      moments_ms[(i / ENV_COUNT + t) % 2])]++;
    assert_int_equal(q->naddresses, ADDRESSES_MAX);
    assert_true(seen[DENY_NONE] > 0 && seen[DENY_ADDRESS] > 0); /* it tests something */
    assert_true(seen[DENY_TOKEN_UNKNOWN] > 0 && seen[DENY_TOKEN_EXPIRED] > 0);
    free(q);
}

/* --- the sources -------------------------------------------------------------------------------------- */

static void on_file_store_closed(void *arg)
{
    *(bool *)arg = true;
}

/* The policy of a partner file with the records; the caller destroys it. */
static struct policy *policy_of_file(struct sync *f)
{
    struct policy *policy = policy_create();
    struct store *store = NULL;
    bool is_closed = false;
    FILE *out = fopen(folder_path(f->folder, "p"), "w");
    assert_non_null(policy);
    assert_non_null(out);
    records_write(out, RECORDS, 0);
    fclose(out);
    assert_int_equal(
        file_store_open(&f->loop.uv, folder_path(f->folder, "p"), policy, &file_store_defaults, &store),
        ERR_OK);
    store->ops->close(store, on_file_store_closed, &is_closed);
    SYNC_UNTIL(f, *(volatile bool *)&is_closed);
    return policy;
}

static void assert_same_as_the_file(struct sync *f)
{
    struct policy *from_file = policy_of_file(f);
    assert_same_policy(f->policy, from_file, RECORDS);
    assert_same_decisions(from_file, f->policy);
    policy_destroy(from_file);
}

static void test_from_redis_by_a_load(void **state)
{
    assert_same_as_the_file(sync_followed(state, RECORDS));
}

static void test_from_redis_by_following(void **state)
{
    struct sync *f = sync_followed(state, 0);
    partners_set_many(&f->redis, 0, RECORDS);
    for (unsigned i = 0; i < RECORDS; i += 7) /* another edition, gone, and back */
        partners_set(&f->redis, i, 1);
    for (unsigned i = 0; i < RECORDS; i += 5)
        partners_del(&f->redis, i);
    sync_catch_up(f);
    for (unsigned i = 0; i < RECORDS; i++)
        if (i % 7 == 0 || i % 5 == 0) partners_set(&f->redis, i, 0);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 1);
    assert_same_as_the_file(f);
}

static void test_from_a_snapshot(void **state)
{
    struct sync *f = sync_of(state);
    f->config.snapshot = strdup(folder_path(f->folder, "s"));
    (void)sync_followed(state, RECORDS);
    SYNC_UNTIL(f, sync_status(f).snapshot_at_ms > 0);
    partners_kill(&f->redis);
    sync_restart(f);
    assert_same_as_the_file(f);
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, sync_setup, sync_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_from_redis_by_a_load),
        SYNC_TEST(test_from_redis_by_following),
        SYNC_TEST(test_from_a_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
