/* cidr_hash6.h - the IPv6 half of a cidr_tree for the lengths that nearly all prefixes have: /48 (a site),
 * /56 (a home), /64 (a link) and /128 (a host). The other lengths are in chunks of boundaries (cidr_tree6.c).
 *
 *   address --cut to 48, 56, 64, 128 bits--> four keys --> four tables: prefix -> how often it was added
 *
 * Four independent cache lines, fetched at the same time, whatever the number of prefixes; a search tree of a
 * million waits for memory twice in turn, and its writer keeps twice the bytes. It would not do for all
 * lengths: cloud providers publish fifty.
 *
 * Private to cidr_tree. Thread: hash6_has [any reader inside a turn]; everything else [control, the one
 * writer].
 */
#ifndef POLICY_CIDR_HASH6_H
#define POLICY_CIDR_HASH6_H

#include "policy/cidr_sort.h"
#include "policy/key_table.h"

enum { HASH6_TABLES = KEY_TABLE_ASKED };

/* Starts zeroed. */
struct hash6 {
    struct key_table *tables[HASH6_TABLES]; /* owned; of the lengths in ascending order */
};

/* Errors: ERR_NOMEM (then too hash6_deinit() is due). */
enum err hash6_init(struct hash6 *h, struct epochs *epochs);
/* No reader may be left. */
void hash6_deinit(struct hash6 *h);

/* Whether prefixes of this length are kept here. */
bool hash6_takes(unsigned len);

bool hash6_has(const struct hash6 *h, struct key6 a);

/* Adds a prefix, or takes one away that was added; its length is one of the four.
 * Errors: add ERR_NOMEM, remove ERR_NOT_FOUND; nothing changed then. */
enum err hash6_add(struct hash6 *h, const struct cidr_key6 *prefix);
enum err hash6_remove(struct hash6 *h, const struct cidr_key6 *prefix);

/* For a load: makes room for these prefixes, so that hash6_load() of them cannot fail.
 * Errors: ERR_NOMEM (nothing that can be seen changed). */
enum err hash6_reserve(struct hash6 *h, const struct cidr_key6 *v, size_t n);
void hash6_load(struct hash6 *h, const struct cidr_key6 *v, size_t n);

bool hash6_is_empty(const struct hash6 *h);
size_t hash6_bytes(const struct hash6 *h);

#endif
