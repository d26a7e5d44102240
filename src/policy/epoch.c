#include "policy/epoch.h"

#include <sched.h>
#include <stdlib.h>

enum { CACHE_LINE = 64, LIMBO_BLOCK_ITEMS = 127 };

static const uint64_t OFFLINE = 0; /* epochs start at 1 */

struct epoch_reader {
    _Alignas(CACHE_LINE) _Atomic uint64_t epoch; /* OFFLINE, or what `now` was at the last announcement */
    const _Atomic uint64_t *now;                 /* set once: the writer's epoch */
    bool is_registered;                          /* writer only */
};

struct limbo_item {
    void *p;
    void (*free_fn)(void *p);
    size_t bytes;
    uint64_t stamp;
};

/* The limbo FIFO is a list of blocks, so that it gives its memory back after a burst. */
struct limbo_block {
    struct limbo_block *next; /* newer */
    struct limbo_item items[LIMBO_BLOCK_ITEMS];
};

struct epochs {
    struct epoch_reader readers[EPOCH_READERS_MAX];
    _Alignas(CACHE_LINE) _Atomic uint64_t now; /* written by the writer, read by all */

    /* writer only */
    _Alignas(CACHE_LINE) uint64_t passed; /* every reader is known to have passed this */
    size_t nreaders;                      /* slots of `readers` ever used */
    struct limbo_block *oldest, *newest;  /* owned; both NULL when limbo is empty */
    size_t oldest_at, newest_end;         /* first item of `oldest`, one past the last item of `newest` */
    size_t nlimbo, limbo_bytes;
};

/* Orders this thread's earlier stores before its later loads. gcc warns that ThreadSanitizer does not model
 * fences; what it needs to see, the release store and acquire load of the reader's epoch, is there besides.
 */
static void full_fence(void)
{
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wtsan"
#endif
    atomic_thread_fence(memory_order_seq_cst);
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
}

struct epochs *epochs_create(void)
{
    struct epochs *e = aligned_alloc(CACHE_LINE, sizeof(*e));
    if (!e) return NULL;
    *e = (struct epochs){0};
    atomic_init(&e->now, OFFLINE + 1);
    e->passed = OFFLINE + 1;
    return e;
}

void epochs_destroy(struct epochs *e)
{
    if (!e) return;
    BUG_IF(epochs_collect(e) != 0, "epochs destroyed under an online reader");
    free(e);
}

enum err epochs_register(struct epochs *e, struct epoch_reader **out)
{
    size_t i = 0;
    while (i < e->nreaders && e->readers[i].is_registered)
        i++;
    if (i == EPOCH_READERS_MAX) return ERR_LIMIT;
    if (i == e->nreaders) e->nreaders++;

    struct epoch_reader *r = &e->readers[i];
    atomic_store_explicit(&r->epoch, OFFLINE, memory_order_relaxed);
    r->now = &e->now;
    r->is_registered = true;
    *out = r;
    return ERR_OK;
}

void epochs_unregister(struct epochs *e, struct epoch_reader *r)
{
    BUG_IF(r < e->readers || r >= e->readers + e->nreaders || !r->is_registered, "not a registered reader");
    BUG_IF(atomic_load_explicit(&r->epoch, memory_order_acquire) != OFFLINE, "an online reader unregistered");
    r->is_registered = false;
}

void epoch_online(struct epoch_reader *r)
{
    bool was_offline = atomic_load_explicit(&r->epoch, memory_order_relaxed) == OFFLINE;
    uint64_t now = atomic_load_explicit(r->now, memory_order_acquire);
    atomic_store_explicit(&r->epoch, now, memory_order_release);
    /* Between two turns the writer still waits for the older epoch until it sees this store: no fence. */
    if (was_offline) full_fence();
}

void epoch_offline(struct epoch_reader *r)
{
    atomic_store_explicit(&r->epoch, OFFLINE, memory_order_release);
}

uint64_t epochs_stamp(struct epochs *e)
{
    uint64_t stamp = atomic_load_explicit(&e->now, memory_order_relaxed) + 1;
    atomic_store_explicit(&e->now, stamp, memory_order_release);
    return stamp;
}

bool epochs_passed(struct epochs *e, uint64_t stamp)
{
    if (stamp <= e->passed) return true;

    full_fence(); /* what was unpublished before the stamp is so for every reader that is found offline */
    uint64_t least = atomic_load_explicit(&e->now, memory_order_relaxed);
    for (size_t i = 0; i < e->nreaders; i++) {
        uint64_t at = atomic_load_explicit(&e->readers[i].epoch, memory_order_acquire);
        if (at != OFFLINE && at < least) least = at;
    }
    if (least > e->passed) e->passed = least;
    return stamp <= e->passed;
}

/* Room for one more item at the end of limbo; NULL when memory is out. */
static struct limbo_item *limbo_push(struct epochs *e)
{
    if (!e->newest || e->newest_end == LIMBO_BLOCK_ITEMS) {
        struct limbo_block *b = malloc(sizeof(*b));
        if (!b) return NULL;
        b->next = NULL;
        if (e->newest) {
            e->newest->next = b;
        } else {
            e->oldest = b;
            e->oldest_at = 0;
        }
        e->newest = b;
        e->newest_end = 0;
    }
    e->nlimbo++;
    return &e->newest->items[e->newest_end++];
}

/* Takes the oldest item out. Limbo is not empty. */
static struct limbo_item limbo_pop(struct epochs *e)
{
    struct limbo_block *b = e->oldest;
    struct limbo_item item = b->items[e->oldest_at++];
    e->nlimbo--;
    e->limbo_bytes -= item.bytes;
    if (e->nlimbo == 0 || e->oldest_at == LIMBO_BLOCK_ITEMS) {
        e->oldest = b->next;
        e->oldest_at = 0;
        if (!e->oldest) e->newest = NULL;
        free(b);
    }
    return item;
}

enum err epochs_retire(struct epochs *e, void *p, size_t bytes, void (*free_fn)(void *p))
{
    uint64_t stamp = epochs_stamp(e);
    struct limbo_item *item = limbo_push(e);
    if (!item) {
        while (!epochs_passed(e, stamp))
            (void)sched_yield(); /* cannot fail on Linux */
        free_fn(p);
        return ERR_NOMEM;
    }
    *item = (struct limbo_item){.p = p, .free_fn = free_fn, .bytes = bytes, .stamp = stamp};
    e->limbo_bytes += bytes;
    return ERR_OK;
}

size_t epochs_collect(struct epochs *e)
{
    while (e->nlimbo > 0 && epochs_passed(e, e->oldest->items[e->oldest_at].stamp)) {
        struct limbo_item item = limbo_pop(e);
        item.free_fn(item.p);
    }
    return e->nlimbo;
}

size_t epochs_limbo_bytes(const struct epochs *e)
{
    return e->limbo_bytes;
}
