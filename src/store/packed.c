#include "store/packed.h"

enum { V4_BYTES = 5, V6_BYTES = 17, V6_TAG = 33 };

/* The first bytes of a record as they lie in memory. */
struct head {
    uint32_t bytes;
    uint8_t id_bytes;
    uint8_t flags;
    uint8_t ncertificates;
    uint8_t reserved;
    uint64_t version;
    uint32_t ncidrs[ENV_COUNT];
    uint8_t widget_id[16];
};
_Static_assert(sizeof(struct head) == PACKED_HEAD_BYTES, "the head of a packed record has a hole");

/* --- packing ---------------------------------------------------------------------------------------- */

/* A record being put together at the end of `to`. */
struct packer {
    struct bytes *to;
    size_t begin;
    struct head head;
    unsigned env; /* of the prefixes that come */
    enum err err;
};

static void pack(struct packer *k, const void *p, size_t n)
{
    if (!k->err) k->err = bytes_add(k->to, p, n);
}

static void pack_begin(struct packer *k, struct bytes *to, struct span id)
{
    *k = (struct packer){.to = to, .begin = to->n, .head.id_bytes = (uint8_t)id.n};
    pack(k, &k->head, sizeof k->head);
    pack(k, id.p, id.n);
}

static enum err pack_end(struct packer *k)
{
    if (k->err) {
        k->to->n = k->begin;
        return k->err;
    }
    k->head.bytes = (uint32_t)(k->to->n - k->begin);
    memcpy(k->to->p + k->begin, &k->head, sizeof k->head);
    return ERR_OK;
}

static void write_be(uint8_t *out, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        out[i] = (uint8_t)(v >> 8 * (n - 1 - i));
}

static uint64_t read_be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static void pack_cidr(struct packer *k, const struct cidr *c)
{
    uint8_t text[V6_BYTES];
    bool is_v4 = c->net.family == ADDR_V4;
    text[0] = (uint8_t)(is_v4 ? c->len : V6_TAG + c->len);
    if (is_v4) {
        write_be(text + 1, c->net.v4, 4);
    } else {
        write_be(text + 1, c->net.v6.hi, 8);
        write_be(text + 9, c->net.v6.lo, 8);
    }
    pack(k, text, is_v4 ? V4_BYTES : V6_BYTES);
    k->head.ncidrs[k->env]++;
}

static void pack_digest(struct packer *k, const uint8_t *digest, enum packed_flag flag)
{
    if (!digest) return;
    k->head.flags |= (uint8_t)flag;
    pack(k, digest, TOKEN_DIGEST_BYTES);
}

static void pack_certificates(struct packer *k, const uint8_t *digests, uint8_t n)
{
    k->head.ncertificates = n;
    if (n) pack(k, digests, (size_t)n * CERTIFICATE_DIGEST_BYTES);
}

static uint8_t flags_of(bool enabled, bool off_ramp, unsigned more)
{
    return (uint8_t)((enabled ? PACKED_ENABLED : 0) | (off_ramp ? PACKED_OFF_RAMP : 0) | PACKED_PARTNER |
                     more);
}

enum err packed_add(struct bytes *to, const struct partner *p, uint64_t version, unsigned flags)
{
    struct packer k;
    pack_begin(&k, to, span_str(p->id));
    k.head.version = version;
    k.head.flags = flags_of(p->enabled, p->off_ramp, flags);
    memcpy(k.head.widget_id, p->widget_id, sizeof k.head.widget_id);
    pack_digest(&k, p->has_token[SLOT_CURRENT] ? p->digest[SLOT_CURRENT] : NULL, PACKED_CURRENT);
    pack_digest(&k, p->has_token[SLOT_PREVIOUS] ? p->digest[SLOT_PREVIOUS] : NULL, PACKED_PREVIOUS);
    if (p->has_token[SLOT_PREVIOUS]) pack(&k, &p->previous_expires_ms, sizeof p->previous_expires_ms);
    pack_certificates(&k, p->certificates[0], p->ncertificates);
    for (k.env = 0; k.env < ENV_COUNT; k.env++)
        for (uint32_t i = 0; i < p->ncidrs[k.env]; i++)
            pack_cidr(&k, &p->cidrs[k.env][i]);
    return pack_end(&k);
}

enum err packed_add_view(struct bytes *to, const struct partner_view *v, uint64_t version, unsigned flags)
{
    struct packer k;
    pack_begin(&k, to, partner_view_id(v));
    k.head.version = version;
    k.head.flags = flags_of(v->enabled, v->off_ramp, flags);
    memcpy(k.head.widget_id, v->widget_id, sizeof k.head.widget_id);
    pack_digest(&k, partner_view_digest(v, SLOT_CURRENT), PACKED_CURRENT);
    pack_digest(&k, partner_view_digest(v, SLOT_PREVIOUS), PACKED_PREVIOUS);
    uint64_t expires_ms = partner_view_previous_expires_ms(v);
    if (k.head.flags & PACKED_PREVIOUS) pack(&k, &expires_ms, sizeof expires_ms);
    pack_certificates(&k, partner_view_certificates(v), v->certificates);
    for (k.env = 0; k.env < ENV_COUNT; k.env++) {
        const struct cidr_set *list = partner_view_list(v, (enum environment)k.env);
        if (!list) continue;
        struct cidr_walk w = cidr_walk_of(list);
        for (struct cidr c; cidr_walk_next(&w, &c);)
            pack_cidr(&k, &c);
    }
    return pack_end(&k);
}

enum err packed_add_bare(struct bytes *to, struct span id, uint64_t version, unsigned flags)
{
    struct packer k;
    pack_begin(&k, to, id);
    k.head.version = version;
    k.head.flags = (uint8_t)flags;
    return pack_end(&k);
}

/* --- unpacking -------------------------------------------------------------------------------------- */

/* What lies between the id and the prefixes. */
static size_t fixed_bytes(const struct head *h)
{
    size_t n = (size_t)h->ncertificates * CERTIFICATE_DIGEST_BYTES;
    if (h->flags & PACKED_CURRENT) n += TOKEN_DIGEST_BYTES;
    return h->flags & PACKED_PREVIOUS ? n + TOKEN_DIGEST_BYTES + sizeof(uint64_t) : n;
}

static bool is_plausible(const struct head *h)
{
    size_t n = PACKED_HEAD_BYTES + h->id_bytes + fixed_bytes(h);
    bool fits = h->bytes >= n && h->bytes <= PACKED_BYTES_MAX;
    for (unsigned env = 0; env < ENV_COUNT; env++)
        fits = fits && h->ncidrs[env] <= PARTNER_CIDRS_MAX;
    fits = fits && h->ncertificates <= PARTNER_CERTIFICATES_MAX;
    return fits && h->id_bytes >= 1 && h->id_bytes <= PARTNER_ID_MAX && h->reserved == 0 && h->version > 0;
}

enum err packed_look(struct span bytes, struct packed *out, size_t *need)
{
    struct head h;
    if (need) *need = sizeof h;
    if (bytes.n < sizeof h) return ERR_AGAIN;
    memcpy(&h, bytes.p, sizeof h);
    if (!is_plausible(&h)) return ERR_PARSE;
    if (need) *need = h.bytes;
    if (bytes.n < h.bytes) return ERR_AGAIN;
    *out = (struct packed){.bytes = h.bytes,
                           .flags = h.flags,
                           .version = h.version,
                           .ncertificates = h.ncertificates,
                           .id = {bytes.p + sizeof h, h.id_bytes},
                           .body = bytes.p + sizeof h + h.id_bytes,
                           .ncidrs = {h.ncidrs[0], h.ncidrs[1]}};
    memcpy(out->widget_id, h.widget_id, sizeof out->widget_id);
    return ERR_OK;
}

/* Takes one prefix off the front of `from`. */
static bool take_cidr(struct span *from, struct cidr *out)
{
    const uint8_t *p = (const uint8_t *)from->p;
    if (from->n < V4_BYTES) return false;
    bool is_v4 = p[0] < V6_TAG;
    size_t n = is_v4 ? V4_BYTES : V6_BYTES;
    if (from->n < n || p[0] > V6_TAG + 128) return false;
    *out = (struct cidr){.net.family = is_v4 ? ADDR_V4 : ADDR_V6,
                         .len = (uint8_t)(is_v4 ? p[0] : p[0] - V6_TAG)};
    if (is_v4) {
        out->net.v4 = (uint32_t)read_be(p + 1, 4);
    } else {
        out->net.v6.hi = read_be(p + 1, 8);
        out->net.v6.lo = read_be(p + 9, 8);
    }
    *from = span_of(from->p + n, from->n - n);
    return true;
}

/* `out`: room for `n`. */
static enum err take_list(struct span *from, uint32_t n, struct cidr *out)
{
    for (uint32_t i = 0; i < n; i++)
        if (!take_cidr(from, &out[i])) return ERR_PARSE;
    return ERR_OK;
}

static const char *take_digest(const char *at, struct partner *p, enum token_slot slot)
{
    p->has_token[slot] = true;
    memcpy(p->digest[slot], at, TOKEN_DIGEST_BYTES);
    return at + TOKEN_DIGEST_BYTES;
}

const uint8_t *packed_digest(const struct packed *r, enum token_slot slot)
{
    bool has_current = r->flags & PACKED_CURRENT;
    const uint8_t *first = (const uint8_t *)r->body;
    if (slot == SLOT_CURRENT) return has_current ? first : NULL;
    return r->flags & PACKED_PREVIOUS ? first + (has_current ? TOKEN_DIGEST_BYTES : 0) : NULL;
}

enum err packed_partner(const struct packed *r, struct bytes *room, struct partner *out)
{
    struct partner p = {.enabled = r->flags & PACKED_ENABLED, .off_ramp = r->flags & PACKED_OFF_RAMP};
    if (!(r->flags & PACKED_PARTNER) || !span_to_cstr(r->id, p.id, sizeof p.id)) return ERR_PARSE;
    memcpy(p.widget_id, r->widget_id, sizeof p.widget_id);
    const char *at = r->body;
    if (r->flags & PACKED_CURRENT) at = take_digest(at, &p, SLOT_CURRENT);
    if (r->flags & PACKED_PREVIOUS) {
        at = take_digest(at, &p, SLOT_PREVIOUS);
        memcpy(&p.previous_expires_ms, at, sizeof p.previous_expires_ms);
        at += sizeof p.previous_expires_ms;
    }
    p.ncertificates = r->ncertificates;
    memcpy(p.certificates, at, (size_t)p.ncertificates * CERTIFICATE_DIGEST_BYTES);
    at += (size_t)p.ncertificates * CERTIFICATE_DIGEST_BYTES;
    struct span rest = {at, r->bytes - (size_t)(at - (r->id.p - PACKED_HEAD_BYTES))};
    size_t ncidrs = (size_t)r->ncidrs[ENV_PRODUCTION] + r->ncidrs[ENV_SANDBOX];
    room->n = 0;
    enum err e = bytes_reserve(room, ncidrs * sizeof(struct cidr));
    if (e) return e;
    struct cidr *lists = (struct cidr *)room->p;
    for (unsigned env = 0; env < ENV_COUNT; env++) {
        p.ncidrs[env] = r->ncidrs[env];
        if (p.ncidrs[env] > 0) p.cidrs[env] = lists;
        e = take_list(&rest, r->ncidrs[env], lists);
        if (e) return e;
        if (p.ncidrs[env] > 0) lists += p.ncidrs[env]; /* without any, there is no room to point into */
    }
    if (rest.n > 0) return ERR_PARSE;
    *out = p;
    return ERR_OK;
}
