/* key_table.h - 128-bit keys that look random -> a number, one cache line per look-up.
 *
 * Holds the tokens (the first 16 bytes of SHA-256 digest -> partner) and the IPv6 prefixes of the usual
 * lengths (cidr_hash6.h: scrambled address -> how often it was added).
 *
 *   bucket of a key = its first 64 bits * nbuckets >> 64
 *
 *   bucket, 64 bytes: | value[3] | beyond         | key[3][2]   | value: 0 empty, ~0 tombstone, else + 1
 *                     | u32 x 3  | u16 map, count | u64 x 3 x 2 |
 *
 * A key that finds its bucket full goes to the next one. Every bucket that it passed counts it in `beyond`,
 * and sets a bit there that the key chooses: a search ends at the first bucket whose bit is not set, so
 * nearly always at the first. Without the map of bits one search in seven for a key that is not there would
 * go on, and the processor could not foresee which. No power-of-two size, no chain, no pointer: one dependent
 * cache miss. Chaining and SwissTable layouts look faster when warm and cost two misses cold.
 *
 * Single writer, wait-free readers. A removed entry becomes a tombstone at once and its slot is reused only
 * after a grace period (epoch.h); the stamp of that period is kept in the dead entry's key, so removal needs
 * no memory. The table grows by building a new one and swapping the pointer.
 *
 * Thread: key_table_find, key_table_have_any, key_table_prefetch [any reader inside a turn, and the writer];
 * the rest [control, the one writer].
 */
#ifndef POLICY_KEY_TABLE_H
#define POLICY_KEY_TABLE_H

#include "policy/epoch.h"

struct key128 {
    uint64_t part[2]; /* all bits of the first are as good as random: it chooses bucket, tag and bit */
};

enum {
    KEY_TABLE_VALUE_MAX = INT32_MAX - 1,
    KEY_TABLE_ASKED = 4, /* tables that key_table_have_any() asks */
};

struct key_table;

/* `epochs` must outlive the table. NULL when memory is out. */
struct key_table *key_table_create(struct epochs *epochs);
/* No reader may be left. */
void key_table_destroy(struct key_table *t);

/* Makes room, so that the next `n` key_table_add() cannot fail with ERR_NOMEM.
 * Errors: ERR_NOMEM (nothing changed). */
enum err key_table_reserve(struct key_table *t, uint32_t n);

/* Errors: ERR_EXISTS (the key is there), ERR_NOMEM (nothing changed). */
enum err key_table_add(struct key_table *t, struct key128 key, uint32_t value);

/* Gives a key another value: a reader finds the old one or the new one, never none.
 * Errors: ERR_NOT_FOUND. */
enum err key_table_assign(struct key_table *t, struct key128 key, uint32_t value);

/* Visible to readers at once. Errors: ERR_NOT_FOUND. */
enum err key_table_remove(struct key_table *t, struct key128 key);

/* False when the key is not there. */
bool key_table_find(const struct key_table *t, struct key128 key, uint32_t *value);

/* Is keys[i] in tables[i], for any i? The cache misses of all tables overlap. */
bool key_table_have_any(struct key_table *const tables[static KEY_TABLE_ASKED],
                        const struct key128 keys[static KEY_TABLE_ASKED]);

/* Fetches what key_table_find() of this key will look at. */
void key_table_prefetch(const struct key_table *t, struct key128 key);

/* Keys in it; bytes of memory, retired tables not included. */
size_t key_table_count(const struct key_table *t);
size_t key_table_bytes(const struct key_table *t);

#endif
