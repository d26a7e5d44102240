#include "helper_partner.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct partner partner_make(const char *id)
{
    struct partner r = {.enabled = true};
    assert_true(span_to_cstr(span_str(id), r.id, sizeof(r.id)));
    unsigned sum = 0;
    for (const char *c = id; *c; c++)
        sum = sum * 31 + (unsigned char)*c;
    char widget_id[UUID_LEN + 1];
    (void)snprintf(widget_id, sizeof widget_id, "%08x-aaaa-4bbb-8ccc-0123456789ab", sum);
    assert_true(uuid_parse(widget_id, r.widget_id));
    return r;
}

void digest_of(const char *token, uint8_t out[static TOKEN_DIGEST_BYTES])
{
    struct token_hasher *h = token_hasher_create();
    assert_non_null(h);
    assert_int_equal(token_digest(h, span_str(token), out), ERR_OK);
    token_hasher_destroy(h);
}

void partner_give(struct partner *r, enum token_slot slot, const char *token)
{
    r->has_token[slot] = true;
    digest_of(token, r->digest[slot]);
}

void partner_allow(struct partner *r, enum environment env, const char *prefixes)
{
    while (*prefixes) {
        size_t n = strcspn(prefixes, " ");
        struct cidr *cidrs = realloc(r->cidrs[env], (r->ncidrs[env] + 1) * sizeof(*cidrs));
        assert_non_null(cidrs);
        r->cidrs[env] = cidrs;
        struct errmsg why;
        assert_int_equal(cidr_parse(span_of(prefixes, n), &cidr_rules_default, &cidrs[r->ncidrs[env]], &why),
                         ERR_OK);
        r->ncidrs[env]++;
        prefixes += n + (prefixes[n] == ' ');
    }
}

struct partner partner_with(const char *id, const char *token, const char *prefixes)
{
    struct partner r = partner_make(id);
    partner_give(&r, SLOT_CURRENT, token);
    partner_allow(&r, ENV_PRODUCTION, prefixes);
    return r;
}

bool apply_expect(struct policy *p, struct partner r, enum err want)
{
    bool changed = false;
    assert_int_equal(policy_apply(p, &r, &changed), want);
    partner_deinit(&r);
    return changed;
}

void make_ready(struct policy *p)
{
    policy_sync_begin(p);
    assert_int_equal(policy_sync_end(p, NULL), ERR_OK);
}

struct addr addr_of(const char *text)
{
    struct addr a;
    assert_int_equal(addr_parse(span_str(text), &a), ERR_OK);
    return a;
}

struct decision decide_at(const struct policy *p, enum environment env, const char *token, const char *source,
                          uint64_t wall_ms)
{
    char value[TOKEN_BYTES_MAX + 8];
    int n = snprintf(value, sizeof(value), "Bearer %s", token);
    assert_in_range(n, 1, sizeof(value) - 1);
    struct addr from = addr_of(source);
    struct decide_query q = {.has_route = true,
                             .has_environment = true,
                             .env = env,
                             .nauthorization = 1,
                             .authorization = span_of(value, (size_t)n),
                             .source = &from,
                             .wall_ms = wall_ms};
    struct token_hasher *h = token_hasher_create();
    assert_non_null(h);
    struct decision out;
    decide(p, h, &q, &out);
    token_hasher_destroy(h);
    return out;
}

enum deny deny_of(const struct policy *p, const char *token, const char *source)
{
    return decide_at(p, ENV_PRODUCTION, token, source, 1000).deny;
}

struct policy_stats stats_of(const struct policy *p)
{
    struct policy_stats s;
    policy_stats(p, &s);
    return s;
}

bool is_known(const struct policy *p, enum environment env, const char *source)
{
    struct addr a = addr_of(source);
    return policy_source_known(p, env, &a);
}

const struct partner_view *view_of(const struct policy *p, const char *id)
{
    return policy_view(p, policy_find(p, span_str(id)));
}

uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1dULL;
}

void shuffle(int *list, int n, uint64_t *state)
{
    for (int i = n - 1; i > 0; i--) {
        int k = (int)(next_random(state) % (uint64_t)(i + 1)), t = list[i];
        list[i] = list[k], list[k] = t;
    }
}

int policy_setup(void **state)
{
    *state = policy_create();
    return *state ? 0 : -1;
}

int policy_setup_ready(void **state)
{
    if (policy_setup(state)) return -1;
    make_ready(*state);
    return 0;
}

int policy_teardown(void **state)
{
    policy_destroy(*state);
    return 0;
}
