/* helper_partner.h - partner records, tokens and decisions in a line each, for the tests of this floor. */
#ifndef HELPER_PARTNER_H
#define HELPER_PARTNER_H

#include "policy/decide.h"
#include "policy/policy.h"

/* An enabled partner with this id, no token and two empty lists. */
struct partner partner_make(const char *id);

/* Gives it SHA-256 of `token` in this slot. */
void partner_give(struct partner *r, enum token_slot slot, const char *token);

/* Adds prefixes, separated by spaces, to a list. */
void partner_allow(struct partner *r, enum environment env, const char *prefixes);

/* partner_make() with a current token and prefixes for production, the usual case. */
struct partner partner_with(const char *id, const char *token, const char *prefixes);

/* Applies the record, expects `want`, frees the record. Returns whether something changed. */
bool apply_expect(struct policy *p, struct partner r, enum err want);

#define TOKEN_A "token-a-aaaaaaaaaaaa"
#define TOKEN_B "token-b-bbbbbbbbbbbb"
#define TOKEN_C "token-c-cccccccccccc"
#define HOME    "192.0.2.0/24"
#define AT_HOME "192.0.2.7"
#define AWAY    "198.51.100.7"

/* cmocka set-up and tear-down: `*state` is an empty policy; or one that is ready. */
int policy_setup(void **state);
int policy_setup_ready(void **state);
int policy_teardown(void **state);

/* begin + end: an empty policy becomes ready. */
void make_ready(struct policy *p);

void digest_of(const char *token, uint8_t out[static TOKEN_DIGEST_BYTES]);

struct addr addr_of(const char *text);

/* decide() on a route and environment of ours for "Bearer <token>" from `source`. */
struct decision decide_at(const struct policy *p, enum environment env, const char *token, const char *source,
                          uint64_t wall_ms);

/* The same for production at instant 1000, only the reason. */
enum deny deny_of(const struct policy *p, const char *token, const char *source);

struct policy_stats stats_of(const struct policy *p);
bool is_known(const struct policy *p, enum environment env, const char *source);
const struct partner_view *view_of(const struct policy *p, const char *id);

/* xorshift64*: the same numbers in every run. */
uint64_t next_random(uint64_t *state);
void shuffle(int *list, int n, uint64_t *state);

#endif
