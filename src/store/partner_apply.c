#include "store/partner_apply.h"

#include "base/clock.h"

#include <string.h>

enum { ENTRIES_PER_CLOCK_READ = 64 };

void partner_apply_begin(struct partner_apply *a, struct policy *policy, struct partner_file *file)
{
    *a = (struct partner_apply){.policy = policy, .file = file};
    policy_sync_begin(policy);
    policy_reserve(policy, file->nentries);
}

static void prefetch_entry(const struct partner_apply *a, const struct partner_file_entry *entry)
{
    struct packed r = partner_file_look(entry);
    policy_prefetch(a->policy, r.id, packed_digest(&r, SLOT_CURRENT));
}

static enum err apply_entry(struct partner_apply *a, const struct partner_file_entry *entry)
{
    struct partner partner;
    bool is_changed = false;
    blocks_drop_before(&a->file->records, entry->packed);
    struct packed r = partner_file_look(entry);
    enum err e = packed_partner(&r, &a->lists, &partner);
    if (e) return e;
    e = policy_apply(a->policy, &partner, &is_changed);
    a->changed += is_changed;
    explicit_bzero(partner.digest, sizeof partner.digest);
    return e;
}

static enum err apply_until(struct partner_apply *a, uint64_t end_us)
{
    while (a->next < a->file->nentries) {
        const struct partner_file_entry *entry = &a->file->entries[a->next++];
        if (a->next < a->file->nentries) prefetch_entry(a, entry + 1);
        enum err e = apply_entry(a, entry);
        if (e) return e;
        if (a->next % ENTRIES_PER_CLOCK_READ == 0 && clock_mono_us() >= end_us) return ERR_AGAIN;
    }
    return policy_sync_end(a->policy, &a->removed);
}

enum err partner_apply_step(struct partner_apply *a, uint64_t budget_us)
{
    enum err e = apply_until(a, budget_us ? clock_mono_us() + budget_us : UINT64_MAX);
    if (e && e != ERR_AGAIN) policy_sync_abort(a->policy);
    if (e != ERR_AGAIN) bytes_deinit(&a->lists);
    policy_collect(a->policy);
    return e;
}

void partner_apply_abort(struct partner_apply *a)
{
    policy_sync_abort(a->policy);
    bytes_deinit(&a->lists);
}
