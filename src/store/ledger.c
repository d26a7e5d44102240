#include "store/ledger.h"

#include <stdlib.h>

/* An entry is the version, shifted left by MARK_BITS, and two marks. */
enum { MARK_REFUSED = 1, MARK_SEEN = 2, MARK_BITS = 2, ENTRIES_FIRST = 1024 };

void ledger_init(struct ledger *l, struct policy *policy, struct redis_hasher *hasher)
{
    *l = (struct ledger){.policy = policy, .hasher = hasher};
    stage_init(&l->strays, hasher);
}

void ledger_deinit(struct ledger *l)
{
    free(l->entries);
    stage_deinit(&l->strays);
    bytes_deinit(&l->scratch);
    bytes_deinit(&l->lists);
    *l = (struct ledger){0};
}

/* --- entries ---------------------------------------------------------------------------------------- */

static uint64_t entry_at(const struct ledger *l, uint32_t index)
{
    return index < l->nentries ? l->entries[index] : 0;
}

static enum err entries_grow(struct ledger *l, uint32_t index)
{
    uint32_t n = l->nentries ? l->nentries : ENTRIES_FIRST;
    while (n <= index)
        n *= 2;
    uint64_t *larger = realloc(l->entries, n * sizeof *larger);
    if (!larger) return ERR_NOMEM;
    memset(larger + l->nentries, 0, (n - l->nentries) * sizeof *larger);
    l->entries = larger;
    l->nentries = n;
    return ERR_OK;
}

uint64_t ledger_version(const struct ledger *l, struct span id)
{
    uint64_t entry = entry_at(l, policy_find(l->policy, id));
    if (entry) return entry >> MARK_BITS;
    return stage_has(&l->strays, id) ? stage_version(&l->strays, id) : 0;
}

static bool is_refused(const struct ledger *l, struct span id)
{
    return (entry_at(l, policy_find(l->policy, id)) & MARK_REFUSED) || stage_has(&l->strays, id);
}

/* Records a version at the partner's index, or among the strays when it has none. */
static enum err version_put(struct ledger *l, struct span id, uint64_t version, bool refused)
{
    uint32_t index = policy_find(l->policy, id);
    stage_forget(&l->strays, id);
    if (index == PARTNER_INDEX_NONE) {
        l->scratch.n = 0;
        enum stage_change ignored;
        enum err e = packed_add_bare(&l->scratch, id, version, PACKED_REFUSED);
        return e ? e : stage_put(&l->strays, span_of(l->scratch.p, l->scratch.n), &ignored);
    }
    enum err e = index < l->nentries ? ERR_OK : entries_grow(l, index);
    if (e) return e;
    l->entries[index] = version << MARK_BITS | MARK_SEEN | (refused ? MARK_REFUSED : 0);
    return ERR_OK;
}

/* Removes a partner's entry and returns its version, 0 = there was none. */
static uint64_t version_take(struct ledger *l, struct span id)
{
    uint64_t version = ledger_version(l, id);
    uint32_t index = policy_find(l->policy, id);
    if (index < l->nentries) l->entries[index] = 0;
    stage_forget(&l->strays, id);
    return version;
}

/* --- single changes --------------------------------------------------------------------------------- */

/* Brings one record into force. Errors: ERR_NOMEM, ERR_LIMIT; a refusal is in `why`. */
static enum err apply(struct ledger *l, const struct partner *partner, bool *changed, bool *refused,
                      struct errmsg *why)
{
    enum err e = policy_apply(l->policy, partner, changed);
    if (e == ERR_NOMEM || e == ERR_LIMIT) return e;
    *refused = e != ERR_OK;
    if (e) *changed = false;
    if (e == ERR_EXISTS)
        errmsg_set(why, 0, 0, "a token of this partner belongs to another partner already; issue a new one");
    else if (e)
        errmsg_set(why, 0, 0, "the policy refuses it: %s", err_text(e));
    return ERR_OK;
}

enum err ledger_set(struct ledger *l, struct span id, uint64_t version, const struct partner *partner,
                    bool *changed, bool *refused, struct errmsg *why)
{
    uint64_t old = ledger_version(l, id);
    bool was_refused = is_refused(l, id);
    *changed = false;
    *refused = true;
    enum err e = partner ? apply(l, partner, changed, refused, why) : ERR_OK;
    if (!e) e = version_put(l, id, version, *refused);
    if (e) return e;
    if (old) l->digest ^= redis_hasher_record(l->hasher, id, old);
    l->digest ^= redis_hasher_record(l->hasher, id, version);
    l->count += old == 0;
    l->refused += *refused;
    l->refused -= was_refused;
    return ERR_OK;
}

enum err ledger_remove(struct ledger *l, struct span id)
{
    bool was_refused = is_refused(l, id);
    uint64_t old = version_take(l, id);
    enum err e = policy_remove(l->policy, id);
    if (e && e != ERR_NOT_FOUND) return e;
    if (old) l->digest ^= redis_hasher_record(l->hasher, id, old);
    l->count -= old != 0;
    l->refused -= was_refused;
    return ERR_OK;
}

/* --- synchronisation -------------------------------------------------------------------------------- */

void ledger_sync_begin(struct ledger *l, uint64_t records)
{
    policy_sync_begin(l->policy);
    policy_reserve(l->policy, records < UINT32_MAX ? (uint32_t)records : UINT32_MAX);
    if (l->entries) memset(l->entries, 0, l->nentries * sizeof *l->entries);
    stage_deinit(&l->strays);
    l->count = l->digest = l->refused = 0;
}

static enum err put_partner(struct ledger *l, const struct packed *r, bool *changed, bool *in_force)
{
    struct partner partner;
    struct errmsg why;
    bool refused = false;
    enum err e = packed_partner(r, &l->lists, &partner);
    if (e) return e;
    e = apply(l, &partner, changed, &refused, &why);
    explicit_bzero(partner.digest, sizeof partner.digest);
    *in_force = !e && !refused;
    return e;
}

/* Keeps a partner as it is, because its new record was refused. It cannot stay when another partner has its
 * token by now: then it is removed at once, and its version is kept among the strays. */
static enum err keep_old(struct ledger *l, struct span id, bool *changed)
{
    const struct partner_view *view = policy_view(l->policy, policy_find(l->policy, id));
    struct packed r;
    bool in_force = false;
    if (!view) return ERR_OK;
    l->scratch.n = 0;
    enum err e = packed_add_view(&l->scratch, view, 1, 0);
    if (!e) e = packed_look(span_of(l->scratch.p, l->scratch.n), &r, NULL);
    if (!e) e = put_partner(l, &r, changed, &in_force);
    if (e || in_force) return e;
    *changed = true;
    return policy_remove(l->policy, id);
}

enum err ledger_sync_put(struct ledger *l, const struct packed *r, bool *changed)
{
    bool refused = r->flags & PACKED_REFUSED, in_force = false;
    enum err e = ERR_OK;
    *changed = false;
    if (r->flags & PACKED_PARTNER) e = put_partner(l, r, changed, &in_force);
    if (!e && !in_force) {
        refused = true;
        e = keep_old(l, r->id, changed);
    }
    if (!e) e = version_put(l, r->id, r->version, refused);
    if (!e) l->refused += refused;
    return e;
}

void ledger_sync_prefetch(const struct ledger *l, const struct packed *r)
{
    bool has_token = (r->flags & PACKED_PARTNER) && (r->flags & PACKED_CURRENT);
    policy_prefetch(l->policy, r->id, has_token ? packed_digest(r, SLOT_CURRENT) : NULL);
}

enum err ledger_sync_end(struct ledger *l, uint64_t count, uint64_t digest, uint32_t *removed)
{
    enum err e = policy_sync_end(l->policy, removed);
    if (e) return e;
    l->count = count;
    l->digest = digest;
    return ERR_OK;
}

void ledger_sync_abort(struct ledger *l)
{
    policy_sync_abort(l->policy);
}

/* --- snapshot and scrub ----------------------------------------------------------------------------- */

struct stray_packer {
    struct bytes *to;
    enum err err;
};

static void pack_stray(const struct packed *r, void *arg)
{
    struct stray_packer *k = arg;
    if (!k->err) k->err = packed_add_bare(k->to, r->id, r->version, PACKED_REFUSED);
}

enum err ledger_pack(const struct ledger *l, uint32_t *at, struct bytes *to, size_t enough)
{
    for (; *at < l->nentries; ++*at) {
        if (to->n >= enough) return ERR_AGAIN;
        const struct partner_view *view = l->entries[*at] ? policy_view(l->policy, *at) : NULL;
        if (!view) continue;
        unsigned flags = l->entries[*at] & MARK_REFUSED ? PACKED_REFUSED : 0;
        enum err e = packed_add_view(to, view, l->entries[*at] >> MARK_BITS, flags);
        if (e) return e;
    }
    struct stray_packer k = {.to = to};
    stage_each(&l->strays, pack_stray, &k);
    return k.err;
}

void ledger_unmark(struct ledger *l)
{
    for (uint32_t i = 0; i < l->nentries; i++)
        l->entries[i] &= ~(uint64_t)MARK_SEEN;
}

void ledger_mark(struct ledger *l, struct span id)
{
    uint32_t index = policy_find(l->policy, id);
    if (entry_at(l, index)) l->entries[index] |= MARK_SEEN;
}

void ledger_each_unmarked(const struct ledger *l, uint64_t upto, void (*fn)(struct span id, void *arg),
                          void *arg)
{
    for (uint32_t i = 0; i < l->nentries; i++) {
        uint64_t entry = l->entries[i];
        if (entry == 0 || (entry & MARK_SEEN) || entry >> MARK_BITS > upto) continue;
        const struct partner_view *view = policy_view(l->policy, i);
        if (view) fn(partner_view_id(view), arg);
    }
}
