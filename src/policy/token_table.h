/* token_table.h - SHA-256 digest -> partner, one cache line per look-up.
 *
 *   key = first 16 bytes of the digest          bucket = key's first 8 bytes * nbuckets >> 64
 *
 *   bucket, 64 bytes: | owner[3]            | nbeyond | key[3][2]   | owner: 0 empty, ~0 tombstone,
 *                     | u32 x 3             | u32     | u64 x 3 x 2 |        else partner index + 1
 *
 * A key that finds its bucket full goes to the next one, and every bucket that it passed counts it in
 * `nbeyond`: a search ends at the first bucket with nbeyond == 0, so nearly always at the first. No
 * power-of-two size, no chain, no pointer: one dependent cache miss. Chaining and SwissTable layouts look
 * faster when warm and cost two misses cold.
 *
 * Single writer, wait-free readers. A removed entry becomes a tombstone at once and its slot is reused only
 * after a grace period (epoch.h); the stamp of that period is kept in the dead entry's key, so removal needs
 * no memory. The table grows by building a new one and swapping the pointer.
 *
 * Two digests with the same key are the same to this table (2^-107 for a guess against two million tokens).
 * The compare of all 256 bits, in constant time, is done by decide() against the partner's view; so is the
 * question which of the partner's two tokens it is, which lets a token rotate without a change here.
 *
 * Thread: token_table_find [any reader inside a turn, and the writer]; the rest [control, the one writer].
 */
#ifndef POLICY_TOKEN_TABLE_H
#define POLICY_TOKEN_TABLE_H

#include "policy/epoch.h"
#include "policy/partner.h"

enum {
    TOKEN_KEY_BYTES = 16,              /* of the digest */
    TOKEN_PARTNER_MAX = INT32_MAX - 1, /* largest partner index */
};

struct token_table;

/* `epochs` must outlive the table. NULL when memory is out. */
struct token_table *token_table_create(struct epochs *epochs);
/* No reader may be left. */
void token_table_destroy(struct token_table *t);

/* Makes room, so that the next `n` token_table_add() cannot fail with ERR_NOMEM.
 * Errors: ERR_NOMEM (nothing changed). */
enum err token_table_reserve(struct token_table *t, uint32_t n);

/* Errors: ERR_EXISTS (somebody has this key), ERR_NOMEM (nothing changed). */
enum err token_table_add(struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                         uint32_t partner);

/* Gives a token to another partner: a reader finds the old one or the new one, never nobody.
 * Errors: ERR_NOT_FOUND. */
enum err token_table_assign(struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                            uint32_t partner);

/* Visible to readers at once. Errors: ERR_NOT_FOUND. */
enum err token_table_remove(struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES]);

/* False when nobody has this key. */
bool token_table_find(const struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                      uint32_t *partner);

/* Fetches what token_table_find() of this digest will look at. */
void token_table_prefetch(const struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES]);

/* Digests in it; bytes of memory, retired tables not included. */
size_t token_table_count(const struct token_table *t);
size_t token_table_bytes(const struct token_table *t);

#endif
