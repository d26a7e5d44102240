#include "net/wheel.h"

#include "base/container.h"

static const uint32_t NO_TICK = UINT32_MAX;

static uint32_t tick_of(uint64_t ms)
{
    return (uint32_t)(ms / WHEEL_TICK_MS);
}

/* The first tick that is not early. */
static uint32_t due_of(uint64_t deadline_ms)
{
    uint64_t tick = deadline_ms / WHEEL_TICK_MS + 1;
    return tick < NO_TICK ? (uint32_t)tick : NO_TICK; /* WHEEL_NEVER, or beyond all time */
}

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    for (unsigned i = 0; i < WHEEL_SLOTS; i++)
        list_init(&w->slots[i]);
    w->tick = tick_of(now_ms);
    w->count = 0;
}

void wheel_entry_init(struct wheel_entry *e, void (*on_due)(struct wheel_entry *e))
{
    *e = (struct wheel_entry){.on_due = on_due, .due = NO_TICK};
}

static void link_entry(struct wheel *w, struct wheel_entry *e)
{
    uint32_t slot = e->due, farthest = w->tick + WHEEL_SLOTS - 1;
    if (slot <= w->tick) slot = w->tick + 1;
    if (slot > farthest) slot = farthest; /* looked at again then */
    e->slot = slot;
    list_append(&w->slots[slot % WHEEL_SLOTS], &e->link);
    w->count++;
}

void wheel_remove(struct wheel *w, struct wheel_entry *e)
{
    if (!list_is_linked(&e->link)) return;
    list_remove(&e->link);
    w->count--;
}

void wheel_set(struct wheel *w, struct wheel_entry *e, uint64_t deadline_ms)
{
    e->due = due_of(deadline_ms);
    if (!list_is_linked(&e->link)) {
        if (e->due != NO_TICK) link_entry(w, e);
        return;
    }
    if (e->due >= e->slot) return;
    wheel_remove(w, e);
    link_entry(w, e);
}

static void run_slot(struct wheel *w, uint32_t tick, uint32_t now)
{
    struct list_link due; /* the slot's list moves here, so that callbacks may link into the slot */
    list_move(&w->slots[tick % WHEEL_SLOTS], &due);
    while (!list_is_empty(&due)) {
        struct wheel_entry *e = CONTAINER_OF(due.next, struct wheel_entry, link);
        wheel_remove(w, e);
        if (e->due == NO_TICK) continue;
        if (e->due <= now)
            e->on_due(e);
        else
            link_entry(w, e);
    }
}

void wheel_advance(struct wheel *w, uint64_t now_ms)
{
    uint32_t now = tick_of(now_ms);
    if (now > w->tick + WHEEL_SLOTS) w->tick = now - WHEEL_SLOTS; /* one full turn sees every entry */
    while (w->tick < now) {
        w->tick++;
        run_slot(w, w->tick, now);
    }
}
