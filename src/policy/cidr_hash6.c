#include "policy/cidr_hash6.h"

/* In ascending order, one table each. */
static const uint8_t lengths[HASH6_TABLES] = {48, 56, 64, 128};

enum { LOAD_AHEAD = 16 }; /* prefixes whose cache lines are on their way during a load */

static unsigned table_of(unsigned len)
{
    unsigned i = 0;
    while (i < HASH6_TABLES && lengths[i] != len)
        i++;
    return i;
}

bool hash6_takes(unsigned len)
{
    return table_of(len) < HASH6_TABLES;
}

/* Spreads addresses, which are far from random, over all bits of the first half. Different addresses have
 * different keys: with the low half, which is kept as it is, each step can be undone. */
static struct key128 key_of(uint64_t hi, uint64_t lo)
{
    const uint64_t x = (hi ^ lo * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (struct key128){{x ^ x >> 32, lo}};
}

static struct key128 key_of_prefix(const struct cidr_key6 *prefix)
{
    return key_of(prefix->hi, prefix->lo);
}

enum err hash6_init(struct hash6 *h, struct epochs *epochs)
{
    for (unsigned i = 0; i < HASH6_TABLES; i++) {
        h->tables[i] = key_table_create(epochs);
        if (!h->tables[i]) return ERR_NOMEM;
    }
    return ERR_OK;
}

void hash6_deinit(struct hash6 *h)
{
    for (unsigned i = 0; i < HASH6_TABLES; i++)
        key_table_destroy(h->tables[i]);
}

bool hash6_has(const struct hash6 *h, struct key6 a)
{
    const struct key128 keys[HASH6_TABLES] = {
        key_of(a.hi & UINT64_MAX << 16, 0),
        key_of(a.hi & UINT64_MAX << 8, 0),
        key_of(a.hi, 0),
        key_of(a.hi, a.lo),
    };
    return key_table_have_any(h->tables, keys);
}

enum err hash6_add(struct hash6 *h, const struct cidr_key6 *prefix)
{
    struct key_table *t = h->tables[table_of(prefix->len)];
    const struct key128 key = key_of_prefix(prefix);
    uint32_t count;
    if (!key_table_find(t, key, &count)) return key_table_add(t, key, 1);
    return key_table_assign(t, key, count + 1);
}

enum err hash6_remove(struct hash6 *h, const struct cidr_key6 *prefix)
{
    struct key_table *t = h->tables[table_of(prefix->len)];
    const struct key128 key = key_of_prefix(prefix);
    uint32_t count;
    if (!key_table_find(t, key, &count)) return ERR_NOT_FOUND;
    return count > 1 ? key_table_assign(t, key, count - 1) : key_table_remove(t, key);
}

enum err hash6_reserve(struct hash6 *h, const struct cidr_key6 *v, size_t n)
{
    uint32_t count[HASH6_TABLES] = {0};
    for (size_t i = 0; i < n; i++)
        count[table_of(v[i].len)]++;
    for (unsigned i = 0; i < HASH6_TABLES; i++)
        if (key_table_reserve(h->tables[i], count[i])) return ERR_NOMEM;
    return ERR_OK;
}

void hash6_load(struct hash6 *h, const struct cidr_key6 *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i + LOAD_AHEAD < n) {
            const struct cidr_key6 *ahead = &v[i + LOAD_AHEAD];
            key_table_prefetch(h->tables[table_of(ahead->len)], key_of_prefix(ahead));
        }
        BUG_IF(hash6_add(h, &v[i]), "no room for a prefix after reserving it");
    }
}

bool hash6_is_empty(const struct hash6 *h)
{
    size_t n = 0;
    for (unsigned i = 0; i < HASH6_TABLES; i++)
        n += key_table_count(h->tables[i]);
    return n == 0;
}

size_t hash6_bytes(const struct hash6 *h)
{
    size_t n = 0;
    for (unsigned i = 0; i < HASH6_TABLES; i++)
        n += key_table_bytes(h->tables[i]);
    return n;
}
