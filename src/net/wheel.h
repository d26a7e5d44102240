/* wheel.h - deadlines for many objects: a hashed timer wheel with lazy re-arming.
 *
 *   slots[tick % WHEEL_SLOTS] -> entry <-> entry <-> ...      one tick = 100 ms
 *
 * Moving a deadline further away only stores a number; the entry stays where it is and is linked anew when
 * its slot comes round and it is not due yet. A request on a keep-alive connection therefore costs a store,
 * not a list operation and not a libuv timer (55-122 ns each). Deadlines fire up to two ticks late, never
 * early. They are kept in ticks of 32 bits, because every idle connection has one: enough for a machine that
 * has been up for 13 years.
 *
 * Thread: [worker or control] a wheel belongs to one loop.
 */
#ifndef NET_WHEEL_H
#define NET_WHEEL_H

#include "base/list.h"

#include <stdint.h>

enum { WHEEL_TICK_MS = 100, WHEEL_SLOTS = 512 };

#define WHEEL_NEVER UINT64_MAX

struct wheel_entry {
    struct list_link link;
    void (*on_due)(struct wheel_entry *e);
    uint32_t due;  /* the first tick that is not early; UINT32_MAX = none */
    uint32_t slot; /* tick in whose slot it is linked */
};

struct wheel {
    struct list_link slots[WHEEL_SLOTS]; /* heads */
    uint32_t tick;                       /* the last one that was processed */
    uint32_t count;                      /* linked entries */
};

/* `now_ms`: of the clock that wheel_advance() goes by. */
void wheel_init(struct wheel *w, uint64_t now_ms);

/* Not linked. `on_due` runs once for each wheel_set(); the entry is out of the wheel by then. */
void wheel_entry_init(struct wheel_entry *e, void (*on_due)(struct wheel_entry *e));

/* Sets or moves the deadline; WHEEL_NEVER disarms without unlinking. */
void wheel_set(struct wheel *w, struct wheel_entry *e, uint64_t deadline_ms);

/* Takes the entry out; its memory may be freed afterwards. Harmless when it is not linked. */
void wheel_remove(struct wheel *w, struct wheel_entry *e);

/* Calls on_due for every entry that is due at `now_ms`. The entry is unlinked before the call; the callback
 * may set it again, and may remove or free any entry. */
void wheel_advance(struct wheel *w, uint64_t now_ms);

#endif
