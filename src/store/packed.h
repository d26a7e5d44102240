/* packed.h - one partner in a few bytes, for what is held or stored by the million: the records of a load
 * that is not in force yet, and the snapshot file.
 *
 *   0        4       5       6    8          16        24           40
 *   +--------+-------+-------+----+----------+---------+------------+------+-----------+--------+----------+
 *   | bytes  | id    | flags | 0  | version  | number  | widget id  | id   | digests   | expiry | prefixes |
 *   | in all | bytes |       |    |          | of pre- | raw        |      | 32 each   | 8, or  | 5 or 17  |
 *   |        |       |       |    |          | fixes x2|            |      |           | none   | each     |
 *   +--------+-------+-------+----+----------+---------+------------+------+-----------+--------+----------+
 *
 * The byte behind the flags is the number of client certificates; their digests, 32 bytes each, stand before
 * the prefixes.
 *
 * A prefix is its length (IPv6: 33 + length) and the network address, high byte first. About 120 bytes for a
 * usual partner. Numbers are in the byte order of the machine; the snapshot file says so in its first bytes.
 *
 * Reading trusts nothing: a packed record may come from a file.
 *
 * Thread: [any, pure].
 */
#ifndef STORE_PACKED_H
#define STORE_PACKED_H

#include "policy/partner_view.h"
#include "store/bytes.h"

enum packed_flag {
    PACKED_ENABLED = 1,
    PACKED_OFF_RAMP = 2,
    PACKED_CURRENT = 4,  /* has a digest of the current token */
    PACKED_PREVIOUS = 8, /* has one of the previous token, and its expiry */
    PACKED_PARTNER = 16, /* has a partner; else only an id and a version */
    PACKED_REFUSED = 32, /* this version was refused by the validator; the partner, if any, is an older one */
    PACKED_DELETED = 64, /* deleted with this version */
};

enum {
    PACKED_HEAD_BYTES = 40,
    PACKED_BYTES_MAX = PACKED_HEAD_BYTES + PARTNER_ID_MAX + 2 * 32 + 8 + PARTNER_CERTIFICATES_MAX * 32 +
                       ENV_COUNT * PARTNER_CIDRS_MAX * 17,
};

/* A packed record, looked at in place: valid as long as its bytes. */
struct packed {
    uint32_t bytes; /* of the record */
    unsigned flags;
    uint64_t version;
    struct span id;
    const char *body; /* what follows the id */
    uint32_t ncidrs[ENV_COUNT];
    uint8_t widget_id[16];
    uint8_t ncertificates;
};

/* Appends a record with a partner. `flags`: PACKED_REFUSED or 0. Errors: ERR_NOMEM (nothing changed). */
enum err packed_add(struct bytes *to, const struct partner *p, uint64_t version, unsigned flags);

/* The same from what the policy holds; the prefixes are then merged ones. */
enum err packed_add_view(struct bytes *to, const struct partner_view *v, uint64_t version, unsigned flags);

/* Appends an id and a version only. `flags`: PACKED_REFUSED or PACKED_DELETED. */
enum err packed_add_bare(struct bytes *to, struct span id, uint64_t version, unsigned flags);

/* Looks at the record at the start of `bytes`. Errors: ERR_AGAIN (cut off: more bytes are needed; `*need`, if
 * not NULL, is how many in all), ERR_PARSE (this is no packed record). */
enum err packed_look(struct span bytes, struct packed *out, size_t *need);

/* The SHA-256 of the token in this slot, in place; NULL when it has none. */
const uint8_t *packed_digest(const struct packed *r, enum token_slot slot);

/* Unpacks the partner. Its lists lie in `room`, whose old contents they replace: it is not for
 * partner_deinit(). Errors: ERR_PARSE, ERR_NOMEM. */
enum err packed_partner(const struct packed *r, struct bytes *room, struct partner *out);

#endif
