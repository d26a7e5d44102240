/* epoch.h - quiescent-state reclamation: when may memory that readers could still see be freed?
 *
 *   reader (worker loop)          writer (control)
 *   online  ... turn ... offline  publish the new object; epochs_retire(old)
 *      ^ stores its epoch            -> limbo FIFO, stamped with ++epoch
 *                                 epochs_collect(): frees what every online reader has passed
 *
 * A reader announces once per loop turn, when it holds no pointer; while it sleeps in the kernel it is
 * offline and holds nobody up. Readers never wait, take no lock and do no atomic read-modify-write: an
 * announcement between two turns is one load and one store, coming back from the kernel adds one fence.
 * Reference counts would put a shared, contended line under every look-up instead.
 *
 * Why it is right. A reader that stored epoch e had loaded e before, so it sees all that the writer published
 * before stamp e, and its store (release) comes after its last use of older pointers: an object stamped <= e
 * is out of its reach. A reader that the writer found offline either fences after the writer did, and then
 * sees the new pointers, or it fenced before, and then the writer saw it online.
 *
 * Thread: epoch_online, epoch_offline: the reader. epochs_*: [control, the one writer]; registration
 * included.
 */
#ifndef POLICY_EPOCH_H
#define POLICY_EPOCH_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EPOCH_READERS_MAX = 256 };

struct epochs;

/* One reader's announcement, on a cache line of its own. Lives inside struct epochs. */
struct epoch_reader;

/* NULL when memory is out. */
struct epochs *epochs_create(void);
/* Frees everything in limbo. No reader may be online. */
void epochs_destroy(struct epochs *e);

/* Errors: ERR_LIMIT (too many readers). The reader starts offline. */
enum err epochs_register(struct epochs *e, struct epoch_reader **out);
/* The reader must be offline. */
void epochs_unregister(struct epochs *e, struct epoch_reader *r);

/* From here on pointers may be loaded. Called after the kernel wait, and again as the per-turn announcement.
 */
void epoch_online(struct epoch_reader *r);
/* No pointer is held any more. Called before the kernel wait. */
void epoch_offline(struct epoch_reader *r);

/* `free_fn(p)` is called once no reader can see p; it may retire other things. `bytes` is for the limbo
 * metric. Errors: ERR_NOMEM: then the writer has waited for all readers and freed `p` already (never leaks,
 * never frees early), so a caller may ignore it. A thread that is an online reader itself must not be the
 * writer. */
enum err epochs_retire(struct epochs *e, void *p, size_t bytes, void (*free_fn)(void *p));

/* Frees what can be freed; returns the number of objects still in limbo. Call after changes and from a timer.
 */
size_t epochs_collect(struct epochs *e);

/* Marks this moment. epochs_passed() is true once every reader has been quiescent or offline after it
 * (for slots that are reused in place). */
uint64_t epochs_stamp(struct epochs *e);
bool epochs_passed(struct epochs *e, uint64_t stamp);

/* Bytes that wait to be freed. */
size_t epochs_limbo_bytes(const struct epochs *e);

#endif
