#include "proofctl/claims.h"

#include "proofctl/token_text.h"
#include "store/record_value.h"

#include <stdlib.h>

/* --- collecting ----------------------------------------------------------------------------------- */

static int compare_claims(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;
    return memcmp(x->digest, y->digest, sizeof x->digest);
}

static int compare_ids(const void *a, const void *b)
{
    const struct claimant *x = a, *y = b;
    return strcmp(x->id, y->id);
}

/* Errors: ERR_NOMEM. */
static enum err add_tokens(struct claims *c, const struct backend_change *change, size_t place)
{
    struct partner_record record;
    struct record_report report;
    record_report_init(&report);
    enum err e = record_parse(change->json, 1, &record, &report);
    if (e) return e == ERR_PARSE ? ERR_OK : e; /* the commit says what is wrong with it */
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++) {
        if (!record.partner.has_token[slot]) continue;
        struct claim *claim = &c->list[c->n++];
        memcpy(claim->digest, record.partner.digest[slot], sizeof claim->digest);
        claim->id = change->id;
        claim->place = place;
    }
    record_deinit(&record);
    return ERR_OK;
}

enum err claims_make(const struct backend_change *changes, size_t n, struct claims *c)
{
    enum err e = ERR_OK;
    size_t nforeign = 0;
    *c = (struct claims){0};
    for (size_t i = 0; i < n; i++)
        nforeign += changes[i].has_foreign_tokens;
    if (nforeign == 0) return ERR_OK;
    c->list = calloc(2 * nforeign, sizeof *c->list); /* a record has two tokens at most */
    c->changes = calloc(n, sizeof *c->changes);
    if (!c->list || !c->changes) return ERR_NOMEM;
    for (size_t i = 0; !e && i < n; i++) {
        c->changes[c->nchanges++] = (struct claimant){changes[i].id, i};
        if (changes[i].has_foreign_tokens) e = add_tokens(c, &changes[i], i);
    }
    qsort(c->list, c->n, sizeof *c->list, compare_claims);
    qsort(c->changes, c->nchanges, sizeof *c->changes, compare_ids);
    return e;
}

void claims_deinit(struct claims *c)
{
    free(c->list);
    free(c->changes);
    *c = (struct claims){0};
}

/* --- comparing ------------------------------------------------------------------------------------ */

/* The change of another record than `id` that claims the token; NULL when none does. */
static const struct claim *find_claim(const struct claims *c, const char *id, const uint8_t *digest)
{
    struct claim wanted;
    memcpy(wanted.digest, digest, sizeof wanted.digest);
    const struct claim *found =
        c->n ? bsearch(&wanted, c->list, c->n, sizeof *c->list, compare_claims) : NULL;
    return found && strcmp(found->id, id) != 0 ? found : NULL;
}

bool claims_dispute(const struct claims *c, const char *id, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                    struct record_messages *faults)
{
    char hex[2 * TOKEN_DIGEST_BYTES + 1];
    const struct claim *claim = find_claim(c, id, digest);
    if (!claim) return false;
    token_text_hex(digest, hex);
    record_messages_add(
        faults, 0, 0,
        "%s: its token (fingerprint %.*s) belongs to \"%s\"; each token belongs to one partner: "
        "issue a new one",
        claim->id, TOKEN_FINGERPRINT_CHARS, hex, id);
    return true;
}

/* `own`, a record among the changes, still has the token when a change before its own claims it. */
static void dispute_order(const struct claims *c, const struct claimant *own, const uint8_t *digest,
                          struct record_messages *faults)
{
    const struct claim *claim = find_claim(c, own->id, digest);
    if (!claim || claim->place > own->place) return;
    record_messages_add(
        faults, 0, 0,
        "%s: it gets a token of \"%s\", which gives that up further down only; gateways see one "
        "change after the other: import \"%s\" first, by itself",
        claim->id, own->id, own->id);
}

struct looking {
    const struct claims *claims;
    bool is_in_order; /* one change after the other is seen */
    struct record_messages rivals;
};

/* A record has this token; `own`: it is among the changes; or NULL. */
static void look_at_token(struct looking *l, const char *id, const struct claimant *own,
                          const uint8_t *digest)
{
    if (own)
        dispute_order(l->claims, own, digest, &l->rivals);
    else
        (void)claims_dispute(l->claims, id, digest, &l->rivals); /* it counts them */
}

/* Gateways that have seen it valid keep that in force, as a rule with the tokens that it still names. */
static void look_at_invalid(struct looking *l, const struct backend_record *r, const struct claimant *own)
{
    uint8_t digest[TOKEN_DIGEST_BYTES];
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
        if (record_value_to_digest(r->tokens[slot], digest)) look_at_token(l, r->id, own, digest);
}

static enum err look_at(void *arg, const struct backend_record *r)
{
    struct looking *l = arg;
    struct partner_record record;
    struct record_report report;
    record_report_init(&report);
    const struct claimant wanted = {.id = r->id};
    const struct claimant *own =
        bsearch(&wanted, l->claims->changes, l->claims->nchanges, sizeof wanted, compare_ids);
    if (own && !l->is_in_order) return ERR_OK;
    if (!r->json.p) {
        look_at_invalid(l, r, own);
        return ERR_OK;
    }
    enum err e = record_parse(r->json, 1, &record, &report);
    if (e) return e;
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
        if (record.partner.has_token[slot]) look_at_token(l, r->id, own, record.partner.digest[slot]);
    record_deinit(&record);
    return ERR_OK;
}

enum err claims_check(struct backend *b, const struct claims *c)
{
    struct looking l = {.claims = c, .is_in_order = b->ops->init != NULL};
    enum err e = b->ops->list(b, look_at, &l);
    if (e && e != ERR_PARSE && e != ERR_NOT_FOUND) return e;
    b->faults = l.rivals;
    return l.rivals.total > 0 ? ERR_RANGE : ERR_OK;
}

enum err claims_try(struct backend *b, const struct backend_change *changes, size_t n)
{
    struct claims claims = {0};
    enum err e = claims_make(changes, n, &claims);
    if (!e && claims.n > 0) e = claims_check(b, &claims);
    claims_deinit(&claims);
    return e;
}
