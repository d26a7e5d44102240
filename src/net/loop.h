/* loop.h - one event loop: libuv's, with a mailbox, a timer wheel, a shared read buffer and cached clocks.
 *
 *   other threads -- loop_post() --> mailbox --> run on the loop's thread, in order
 *
 * libuv merges wake-ups, so the mailbox is always drained to empty.
 *
 * A turn is what happens between two kernel waits. libuv has no hook between epoll_wait and the first I/O
 * callback, so every callback that enters from libuv calls loop_turn() first; it costs one test. Clocks
 * are read once per turn, there.
 *
 * Thread: loop_post [any]; the rest on the loop's own thread.
 */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include "base/err.h"
#include "base/list.h"
#include "net/wheel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

/* One message; embedded in what it is about. The receiver owns it from the post on. */
struct loop_message {
    struct loop_message *next;
    void (*deliver)(struct loop_message *m);
};

/* Called at both ends of a turn, for quiescent-state announcements. */
struct loop_hooks {
    void (*on_turn_begin)(void *arg); /* before the first callback after the kernel wait */
    void (*on_turn_end)(void *arg);   /* before the next kernel wait */
    void *arg;
};

/* Work for a moment later in the loop's thread, with no event of the kernel to wait for. Embedded in its
 * owner, who may take it back. */
struct loop_task {
    struct list_link link; /* loop->soon */
    void (*run)(struct loop_task *t);
};

struct tls_buffers;

struct loop {
    uv_loop_t uv;
    struct wheel wheel;
    uv_timer_t tick; /* runs only while the wheel has entries */
    bool tick_running;
    uv_prepare_t prepare; /* ends the turn */
    bool in_turn;
    struct loop_hooks hooks;
    char *read_buffer; /* shared by all streams of the loop; contents die at the end of a callback */
    size_t read_buffer_bytes;
    int pipe_in, pipe_out;   /* owned, by net/splice.c: between two sockets; -1 = not made yet */
    struct tls_buffers *tls; /* owned: shared by the TLS streams of the loop; made for the first one */
    struct list_link soon;   /* head: struct loop_task */
    uv_idle_t idle;          /* runs only while `soon` has entries */
    bool leaves_reserve;     /* set by its owner: the last descriptors are for others (base/fd.h) */
    uint32_t nlookups;       /* of names, that run (resolver.h) */
    uint64_t now_ms;         /* monotonic, of this turn */
    uint64_t now_us;         /* monotonic, of this turn */
    uint64_t wall_ms;        /* wall clock, of this turn */
    uv_async_t wake;         /* shared: any thread */
    uv_mutex_t lock;         /* shared: guards inbox */
    struct loop_message *inbox, **inbox_tail;
    bool inbox_closed; /* shared: lock; messages are refused */
};

/* The rest of loop_turn(): reads the clocks, calls on_turn_begin. */
void loop_turn_begin(struct loop *l);

/* First line of every callback that libuv calls on this loop. */
static inline void loop_turn(struct loop *l)
{
    if (!l->in_turn) loop_turn_begin(l);
}

/* `hooks` may be NULL. Errors: ERR_NOMEM, ERR_IO. */
enum err loop_init(struct loop *l, size_t read_buffer_bytes, const struct loop_hooks *hooks);

/* Frees the loop. Every handle that users put on it must have been closed and the loop run until they
 * were: BUG otherwise. */
void loop_deinit(struct loop *l);

/* Closes the loop's own handles; uv_run() then returns as soon as all other handles are closed as well. */
void loop_close(struct loop *l);

/* Runs until no handle is left. */
void loop_run(struct loop *l);

/* Delivers `m` on the loop's thread. False when the loop is closing: then `m` still belongs to the caller. */
bool loop_post(struct loop *l, struct loop_message *m);

/* Runs `t->run` in the next round of the loop; never after loop_close(). Harmless when it waits already. */
void loop_soon(struct loop *l, struct loop_task *t);
void loop_soon_cancel(struct loop *l, struct loop_task *t);

/* Deadline helpers over the wheel; `after_ms` counts from this turn. */
void loop_deadline(struct loop *l, struct wheel_entry *e, uint64_t after_ms);
void loop_deadline_at(struct loop *l, struct wheel_entry *e, uint64_t deadline_ms);
void loop_deadline_clear(struct loop *l, struct wheel_entry *e);

/* In `on_due`: it comes so much later than it was set for that the whole process must have stood still
 * (SIGSTOP, a machine that was paused). Whatever it was waiting for was stopped as well. */
bool loop_deadline_is_overdue(const struct loop *l, const struct wheel_entry *e);

#endif
