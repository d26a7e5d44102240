#include "policy/partner_view.h"

#include <openssl/crypto.h>

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* --- the tail ---------------------------------------------------------------------------------------- */

static size_t has_slot(uint8_t tokens, enum token_slot slot)
{
    return (tokens >> slot) & 1;
}

static size_t expiry_at(uint8_t tokens)
{
    return (has_slot(tokens, SLOT_CURRENT) + has_slot(tokens, SLOT_PREVIOUS)) * TOKEN_DIGEST_BYTES;
}

static size_t certificates_at(uint8_t tokens)
{
    return expiry_at(tokens) + has_slot(tokens, SLOT_PREVIOUS) * sizeof(uint64_t);
}

static size_t lists_at(const struct partner_view *v)
{
    return certificates_at(v->tokens) + (size_t)v->certificates * CERTIFICATE_DIGEST_BYTES;
}

/* Of a list that begins here. Rounded up, so that the next one is aligned. */
static size_t list_bytes(enum partner_list kind, const uint8_t *at)
{
    switch (kind) {
    case PARTNER_LIST_EMPTY: return 0;
    case PARTNER_LIST_SHARED: return PARTNER_LIST_REFERENCE_BYTES;
    case PARTNER_LIST_INSIDE: break;
    }
    size_t n = cidr_set_bytes((const struct cidr_set *)at);
    return (n + CIDR_SET_ALIGNMENT - 1) / CIDR_SET_ALIGNMENT * CIDR_SET_ALIGNMENT;
}

/* Where the list of an environment begins; of ENV_COUNT, where the id does. */
static const uint8_t *list_at(const struct partner_view *v, size_t env)
{
    const uint8_t *at = v->tail + lists_at(v);
    for (size_t i = 0; i < env; i++)
        at += list_bytes((enum partner_list)v->lists[i], at);
    return at;
}

/* What stands in place of a list that is shared. Not aligned. */
struct reference {
    const struct cidr_set *set;
    uint64_t given_hash; /* of the prefixes as the record gave them */
};
_Static_assert(sizeof(struct reference) == PARTNER_LIST_REFERENCE_BYTES, "a reference has a hole");

static struct reference reference_at(const uint8_t *at)
{
    struct reference r;
    memcpy(&r, at, sizeof r);
    return r;
}

struct span partner_view_id(const struct partner_view *v)
{
    return span_of((const char *)list_at(v, ENV_COUNT), v->id_len);
}

const uint8_t *partner_view_digest(const struct partner_view *v, enum token_slot slot)
{
    if (!has_slot(v->tokens, slot)) return NULL;
    return slot == SLOT_PREVIOUS ? v->tail + has_slot(v->tokens, SLOT_CURRENT) * TOKEN_DIGEST_BYTES : v->tail;
}

uint64_t partner_view_previous_expires_ms(const struct partner_view *v)
{
    uint64_t at_ms = 0;
    if (has_slot(v->tokens, SLOT_PREVIOUS)) memcpy(&at_ms, v->tail + expiry_at(v->tokens), sizeof(at_ms));
    return at_ms;
}

const struct cidr_set *partner_view_list(const struct partner_view *v, enum environment env)
{
    switch ((enum partner_list)v->lists[env]) {
    case PARTNER_LIST_EMPTY: break;
    case PARTNER_LIST_INSIDE: return (const struct cidr_set *)list_at(v, env);
    case PARTNER_LIST_SHARED: return reference_at(list_at(v, env)).set;
    }
    return NULL;
}

const uint8_t *partner_view_certificates(const struct partner_view *v)
{
    return v->tail + certificates_at(v->tokens);
}

bool partner_view_takes_certificate(const struct partner_view *v, const uint8_t *certificate)
{
    const uint8_t *own = partner_view_certificates(v);
    for (unsigned i = 0; certificate && i < v->certificates; i++)
        if (memcmp(own + i * CERTIFICATE_DIGEST_BYTES, certificate, CERTIFICATE_DIGEST_BYTES) == 0)
            return true;
    return v->certificates == 0;
}

bool partner_view_allows(const struct partner_view *v, enum environment env, const struct addr *a)
{
    const struct cidr_set *list = partner_view_list(v, env);
    return list && cidr_set_has(list, a);
}

void partner_view_widget_id(const struct partner_view *v, char out[static PARTNER_WIDGET_TEXT_BYTES])
{
    uuid_format(v->widget_id, out);
    out[UUID_LEN] = '\0';
}

/* --- writer ------------------------------------------------------------------------------------------ */

/* Spreads every input bit over all output bits (the finaliser of MurmurHash3, public domain). */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}

/* A hash of a list as it was given, in any order. */
static uint64_t given_hash(const struct cidr *v, uint32_t n)
{
    uint64_t sum = n;
    for (uint32_t i = 0; i < n; i++) {
        const struct addr *a = &v[i].net;
        uint64_t hi = a->family == ADDR_V4 ? a->v4 : a->v6.hi;
        uint64_t lo = a->family == ADDR_V4 ? 0 : a->v6.lo;
        sum += mix(mix(mix((uint64_t)a->family << 8 | v[i].len) + hi) + lo);
    }
    return sum;
}

static uint8_t tokens_of(const struct partner *record)
{
    return (uint8_t)(record->has_token[SLOT_CURRENT] << SLOT_CURRENT | record->has_token[SLOT_PREVIOUS]
                                                                           << SLOT_PREVIOUS);
}

static struct partner_view *drafted(struct partner_draft *d)
{
    return (struct partner_view *)d->bytes;
}

static void append(struct partner_draft *d, const void *p, size_t n)
{
    memcpy(d->bytes + d->n, p, n);
    d->n += n;
}

static void append_tokens(struct partner_draft *d, const struct partner *record)
{
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
        if (record->has_token[slot]) append(d, record->digest[slot], TOKEN_DIGEST_BYTES);
    if (record->has_token[SLOT_PREVIOUS])
        append(d, &record->previous_expires_ms, sizeof record->previous_expires_ms);
}

static void append_certificates(struct partner_draft *d, const struct partner *record)
{
    append(d, record->certificates, (size_t)record->ncertificates * CERTIFICATE_DIGEST_BYTES);
}

/* The set of a large list: one that is there already, where possible. */
static void append_shared(struct partner_draft *d, struct cidr_set *set, uint64_t hash, size_t env,
                          const struct reference *before, const struct cidr_pool *pool)
{
    struct reference r = {.set = cidr_pool_find(pool, set), .given_hash = hash};
    if (r.set)
        cidr_set_destroy(set);
    else
        r.set = d->fresh[env] = set;
    /* Other prefixes that make the same list are no news. */
    append(d, before && before->set == r.set ? before : &r, sizeof r);
    drafted(d)->lists[env] = PARTNER_LIST_SHARED;
}

/* A list that is not longer than a small one needs neither `old` nor `pool`. */
static enum err append_list(struct partner_draft *d, const struct partner *record, size_t env,
                            const struct partner_view *old, const struct cidr_pool *pool)
{
    uint32_t n = record->ncidrs[env];
    if (n == 0) return ERR_OK;
    bool was_shared = old && old->lists[env] == PARTNER_LIST_SHARED && n > CIDR_SET_SMALL_MAX;
    struct reference before = was_shared ? reference_at(list_at(old, env)) : (struct reference){0};
    uint64_t hash = n > CIDR_SET_SMALL_MAX ? given_hash(record->cidrs[env], n) : 0;
    if (was_shared && before.given_hash == hash) { /* saves sorting and merging them again */
        append(d, &before, sizeof before);
        drafted(d)->lists[env] = PARTNER_LIST_SHARED;
        return ERR_OK;
    }
    struct cidr_set *set;
    enum err e = cidr_set_build(record->cidrs[env], n, d->bytes + d->n, &set);
    if (e) return e;
    if (cidr_set_is_large(set)) {
        append_shared(d, set, hash, env, was_shared ? &before : NULL, pool);
        return ERR_OK;
    }
    drafted(d)->lists[env] = PARTNER_LIST_INSIDE;
    size_t used = cidr_set_bytes(set), bytes = list_bytes(PARTNER_LIST_INSIDE, d->bytes + d->n);
    memset(d->bytes + d->n + used, 0, bytes - used);
    d->n += bytes;
    return ERR_OK;
}

enum err partner_draft_begin(struct partner_draft *d, const struct partner *record)
{
    size_t id_len = strnlen(record->id, sizeof(record->id));
    if (id_len == 0 || id_len > PARTNER_ID_MAX) return ERR_PARSE;
    if (record->ncertificates > PARTNER_CERTIFICATES_MAX) return ERR_PARSE;
    d->n = offsetof(struct partner_view, tail);
    memset(d->bytes, 0, d->n);
    for (size_t env = 0; env < ENV_COUNT; env++)
        d->fresh[env] = NULL;
    memcpy(drafted(d)->widget_id, record->widget_id, sizeof record->widget_id);
    drafted(d)->enabled = record->enabled;
    drafted(d)->off_ramp = record->off_ramp;
    drafted(d)->tokens = tokens_of(record) & 3u;
    drafted(d)->id_len = (uint8_t)id_len;
    drafted(d)->certificates = record->ncertificates & 15u;
    append_tokens(d, record);
    append_certificates(d, record);
    for (d->nlists = 0; d->nlists < ENV_COUNT && record->ncidrs[d->nlists] <= CIDR_SET_SMALL_MAX;
         d->nlists++) {
        enum err e = append_list(d, record, d->nlists, NULL, NULL);
        if (e) return e;
    }
    return ERR_OK;
}

enum err partner_draft_finish(struct partner_draft *d, const struct partner *record,
                              const struct partner_view *old, const struct cidr_pool pools[ENV_COUNT])
{
    for (; d->nlists < ENV_COUNT; d->nlists++) {
        enum err e = append_list(d, record, d->nlists, old, &pools[d->nlists]);
        if (!e) continue;
        partner_draft_discard(d);
        return e;
    }
    append(d, record->id, drafted(d)->id_len);
    return ERR_OK;
}

void partner_draft_discard(struct partner_draft *d)
{
    for (size_t env = 0; env < ENV_COUNT; env++) {
        cidr_set_destroy(d->fresh[env]);
        d->fresh[env] = NULL;
    }
    OPENSSL_cleanse(drafted(d)->tail, expiry_at(drafted(d)->tokens));
}

bool partner_draft_matches(const struct partner_draft *d, const struct partner_view *v)
{
    return d->n == partner_view_bytes(v) && memcmp(d->bytes, v, d->n) == 0;
}

struct partner_view *partner_view_create(const struct partner_draft *d)
{
    struct partner_view *v = malloc(d->n);
    if (v) memcpy(v, d->bytes, d->n);
    return v;
}

void partner_view_destroy(struct partner_view *v)
{
    if (!v) return;
    OPENSSL_cleanse(v->tail, expiry_at(v->tokens));
    free(v);
}

size_t partner_view_bytes(const struct partner_view *v)
{
    return (size_t)(list_at(v, ENV_COUNT) + v->id_len - (const uint8_t *)v);
}
