#include "net/wheel.h"

#include <stddef.h>

void wheel_init(struct wheel *w, uint64_t now_ms)
{
    for (unsigned i = 0; i < WHEEL_SLOTS; i++)
        w->slots[i].prev = w->slots[i].next = &w->slots[i];
    w->tick = now_ms / WHEEL_TICK_MS;
    w->count = 0;
}

void wheel_entry_init(struct wheel_entry *e, void (*on_due)(struct wheel_entry *e))
{
    *e = (struct wheel_entry){.deadline_ms = WHEEL_NEVER, .on_due = on_due};
}

static void link_entry(struct wheel *w, struct wheel_entry *e)
{
    uint64_t due = e->deadline_ms / WHEEL_TICK_MS + 1; /* the first tick that is not early */
    uint64_t farthest = w->tick + WHEEL_SLOTS - 1;
    if (due <= w->tick) due = w->tick + 1;
    if (due > farthest) due = farthest; /* looked at again then */
    e->slot_tick = due;
    struct wheel_entry *head = &w->slots[due % WHEEL_SLOTS];
    e->prev = head->prev;
    e->next = head;
    head->prev->next = e;
    head->prev = e;
    w->count++;
}

void wheel_remove(struct wheel *w, struct wheel_entry *e)
{
    if (!e->next) return;
    e->prev->next = e->next;
    e->next->prev = e->prev;
    e->prev = e->next = NULL;
    w->count--;
}

void wheel_set(struct wheel *w, struct wheel_entry *e, uint64_t deadline_ms)
{
    e->deadline_ms = deadline_ms;
    if (!e->next) {
        if (deadline_ms != WHEEL_NEVER) link_entry(w, e);
        return;
    }
    if (deadline_ms == WHEEL_NEVER || deadline_ms / WHEEL_TICK_MS + 1 >= e->slot_tick) return;
    wheel_remove(w, e);
    link_entry(w, e);
}

static void run_slot(struct wheel *w, uint64_t tick, uint64_t now_ms)
{
    struct wheel_entry *head = &w->slots[tick % WHEEL_SLOTS];
    struct wheel_entry due; /* the slot's list moves here, so that callbacks may link into the slot */
    if (head->next == head) return;
    due.next = head->next;
    due.prev = head->prev;
    due.next->prev = due.prev->next = &due;
    head->next = head->prev = head;
    while (due.next != &due) {
        struct wheel_entry *e = due.next;
        wheel_remove(w, e);
        if (e->deadline_ms == WHEEL_NEVER) continue;
        if (e->deadline_ms <= now_ms)
            e->on_due(e);
        else
            link_entry(w, e);
    }
}

void wheel_advance(struct wheel *w, uint64_t now_ms)
{
    uint64_t target = now_ms / WHEEL_TICK_MS;
    if (target > w->tick + WHEEL_SLOTS) w->tick = target - WHEEL_SLOTS; /* one full turn sees every entry */
    while (w->tick < target) {
        w->tick++;
        run_slot(w, w->tick, now_ms);
    }
}
