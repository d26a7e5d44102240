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

static size_t id_at(uint8_t tokens)
{
    return expiry_at(tokens) + has_slot(tokens, SLOT_PREVIOUS) * sizeof(uint64_t);
}

static size_t own_bytes(uint8_t tokens, size_t id_len)
{
    return offsetof(struct partner_view, tail) + id_at(tokens) + id_len;
}

struct span partner_view_id(const struct partner_view *v)
{
    return span_of((const char *)v->tail + id_at(v->tokens), v->id_len);
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

bool partner_view_allows(const struct partner_view *v, enum environment env, const struct addr *a)
{
    return v->allow[env] && cidr_set_has(v->allow[env], a);
}

/* --- widget id --------------------------------------------------------------------------------------- */

static bool is_uuid_dash(size_t at)
{
    return at == 8 || at == 13 || at == 18 || at == 23;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

static bool uuid_parse(const char text[static PARTNER_WIDGET_TEXT_BYTES], uint8_t out[static 16])
{
    size_t nibble = 0;
    memset(out, 0, 16);
    for (size_t i = 0; i < PARTNER_WIDGET_TEXT_BYTES - 1; i++) {
        if (is_uuid_dash(i)) {
            if (text[i] != '-') return false;
            continue;
        }
        int digit = hex_digit(text[i]);
        if (digit < 0) return false;
        out[nibble / 2] = (uint8_t)(out[nibble / 2] << 4 | digit);
        nibble++;
    }
    return text[PARTNER_WIDGET_TEXT_BYTES - 1] == '\0';
}

void partner_view_widget_id(const struct partner_view *v, char out[static PARTNER_WIDGET_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    size_t nibble = 0;
    for (size_t i = 0; i < PARTNER_WIDGET_TEXT_BYTES - 1; i++) {
        if (is_uuid_dash(i)) {
            out[i] = '-';
            continue;
        }
        uint8_t byte = v->widget_id[nibble / 2];
        out[i] = digits[nibble % 2 ? byte & 15 : byte >> 4];
        nibble++;
    }
    out[PARTNER_WIDGET_TEXT_BYTES - 1] = '\0';
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

static uint64_t prefix_hash(const struct cidr *c, uint64_t seed)
{
    uint64_t hi = c->net.family == ADDR_V4 ? c->net.v4 : c->net.v6.hi;
    uint64_t lo = c->net.family == ADDR_V4 ? 0 : c->net.v6.lo;
    uint64_t shape = (uint64_t)c->net.family << 8 | c->len;
    return mix(mix(mix(seed + shape) + hi) + lo);
}

uint64_t partner_lists_hash(const struct partner *record)
{
    uint64_t sum = 0;
    for (size_t env = 0; env < ENV_COUNT; env++)
        for (uint32_t i = 0; i < record->ncidrs[env]; i++)
            sum += prefix_hash(&record->cidrs[env][i], (env + 1) << 32);
    return sum;
}

static uint8_t tokens_of(const struct partner *record)
{
    return (uint8_t)(record->has_token[SLOT_CURRENT] << SLOT_CURRENT | record->has_token[SLOT_PREVIOUS]
                                                                           << SLOT_PREVIOUS);
}

bool partner_view_matches(const struct partner_view *v, const struct partner *record, uint64_t lists_hash)
{
    uint8_t widget_id[16];
    if (v->lists_hash != lists_hash || v->enabled != record->enabled || v->off_ramp != record->off_ramp ||
        v->tokens != tokens_of(record) || !uuid_parse(record->widget_id, widget_id) ||
        memcmp(v->widget_id, widget_id, sizeof(widget_id)) != 0)
        return false;
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++) {
        const uint8_t *digest = partner_view_digest(v, slot);
        if (digest && memcmp(digest, record->digest[slot], TOKEN_DIGEST_BYTES) != 0) return false;
    }
    return !record->has_token[SLOT_PREVIOUS] ||
           partner_view_previous_expires_ms(v) == record->previous_expires_ms;
}

static enum err build_lists(const struct partner *record, struct partner_view *v)
{
    for (size_t env = 0; env < ENV_COUNT; env++) {
        if (record->ncidrs[env] == 0) continue;
        struct cidr_set *set;
        enum err e = cidr_set_build(record->cidrs[env], record->ncidrs[env], &set);
        if (e) return e;
        v->allow[env] = set;
    }
    return ERR_OK;
}

static void fill_tail(const struct partner *record, struct partner_view *v)
{
    size_t at = 0;
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++) {
        if (!record->has_token[slot]) continue;
        memcpy(v->tail + at, record->digest[slot], TOKEN_DIGEST_BYTES);
        at += TOKEN_DIGEST_BYTES;
    }
    if (record->has_token[SLOT_PREVIOUS])
        memcpy(v->tail + at, &record->previous_expires_ms, sizeof(record->previous_expires_ms));
    memcpy(v->tail + id_at(v->tokens), record->id, v->id_len);
}

enum err partner_view_create(const struct partner *record, uint64_t lists_hash,
                             const struct partner_view *lists_of, struct partner_view **out)
{
    size_t id_len = strnlen(record->id, sizeof(record->id));
    if (id_len == 0 || id_len > PARTNER_ID_MAX) return ERR_PARSE;
    uint8_t tokens = tokens_of(record);
    struct partner_view *v = calloc(1, own_bytes(tokens, id_len));
    if (!v) return ERR_NOMEM;

    v->lists_hash = lists_hash;
    v->enabled = record->enabled;
    v->off_ramp = record->off_ramp;
    v->tokens = tokens;
    v->id_len = (uint8_t)id_len;
    fill_tail(record, v);

    enum err e = uuid_parse(record->widget_id, v->widget_id) ? ERR_OK : ERR_PARSE;
    if (!e && lists_of) {
        memcpy(v->allow, lists_of->allow, sizeof(v->allow));
    } else if (!e) {
        e = build_lists(record, v);
    }
    if (e) {
        partner_view_destroy(v, !lists_of);
        return e;
    }
    *out = v;
    return ERR_OK;
}

void partner_view_destroy(struct partner_view *v, bool with_lists)
{
    if (!v) return;
    if (with_lists) /* The lists are const for everybody but their owner, who ends them here. */
        for (size_t env = 0; env < ENV_COUNT; env++)
            cidr_set_destroy((struct cidr_set *)v->allow[env]);
    OPENSSL_cleanse(v->tail, expiry_at(v->tokens));
    free(v);
}

size_t partner_view_bytes(const struct partner_view *v)
{
    size_t n = own_bytes(v->tokens, v->id_len);
    for (size_t env = 0; env < ENV_COUNT; env++)
        if (v->allow[env]) n += cidr_set_bytes(v->allow[env]);
    return n;
}
