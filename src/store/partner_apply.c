#include "store/partner_apply.h"

#include "base/clock.h"

enum { ENTRIES_PER_CLOCK_READ = 64 };

void partner_apply_begin(struct partner_apply *a, struct policy *policy, struct partner_file *file)
{
    *a = (struct partner_apply){.policy = policy, .entries = file->entries, .nentries = file->nentries};
    policy_sync_begin(policy);
    policy_reserve(policy, file->nentries);
}

static enum err apply_entry(struct partner_apply *a, struct partner_file_entry *entry)
{
    bool is_changed = false;
    enum err e = policy_apply(a->policy, &entry->partner, &is_changed);
    a->changed += is_changed;
    partner_deinit(&entry->partner);
    return e;
}

static enum err apply_until(struct partner_apply *a, uint64_t end_us)
{
    while (a->next < a->nentries) {
        enum err e = apply_entry(a, &a->entries[a->next++]);
        if (e) return e;
        if (a->next % ENTRIES_PER_CLOCK_READ == 0 && clock_mono_us() >= end_us) return ERR_AGAIN;
    }
    return policy_sync_end(a->policy, &a->removed);
}

enum err partner_apply_step(struct partner_apply *a, uint64_t budget_us)
{
    enum err e = apply_until(a, budget_us ? clock_mono_us() + budget_us : UINT64_MAX);
    if (e && e != ERR_AGAIN) policy_sync_abort(a->policy);
    policy_collect(a->policy);
    return e;
}

void partner_apply_abort(struct partner_apply *a)
{
    policy_sync_abort(a->policy);
}
