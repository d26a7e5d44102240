#include "net/loop.h"

#include "base/clock.h"
#include "base/container.h"
#include "net/splice.h"
#include "net/tls.h"

#include <stdlib.h>

enum { OVERDUE_MS = 1000 }; /* a loop that is busy is not so late */

void loop_turn_begin(struct loop *l)
{
    l->in_turn = true;
    l->now_us = clock_mono_us();
    l->now_ms = l->now_us / 1000;
    l->wall_ms = clock_wall_ms();
    if (l->hooks.on_turn_begin) l->hooks.on_turn_begin(l->hooks.arg);
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct loop *l = prepare->data;
    if (!l->in_turn) return;
    l->in_turn = false;
    if (l->hooks.on_turn_end) l->hooks.on_turn_end(l->hooks.arg);
}

static void on_tick(uv_timer_t *timer)
{
    struct loop *l = timer->data;
    loop_turn(l);
    wheel_advance(&l->wheel, l->now_ms);
    if (l->wheel.count == 0 && l->tick_running) {
        l->tick_running = false;
        (void)uv_timer_stop(timer); /* cannot fail for an initialised timer */
    }
}

void loop_soon_cancel(struct loop *l, struct loop_task *t)
{
    if (!list_is_linked(&t->link)) return;
    list_remove(&t->link);
    if (list_is_empty(&l->soon)) (void)uv_idle_stop(&l->idle); /* cannot fail for an initialised handle */
}

/* What a task adds waits behind `last` for the next round: two that keep adding each other do not keep the
 * kernel waiting. */
static void on_idle(uv_idle_t *idle)
{
    struct loop *l = idle->data;
    struct loop_task last = {.run = NULL};
    loop_turn(l);
    list_append(&l->soon, &last.link);
    while (l->soon.next != &last.link) {
        struct loop_task *t = CONTAINER_OF(l->soon.next, struct loop_task, link);
        loop_soon_cancel(l, t);
        t->run(t);
    }
    loop_soon_cancel(l, &last);
}

void loop_soon(struct loop *l, struct loop_task *t)
{
    if (list_is_linked(&t->link) || uv_is_closing((uv_handle_t *)&l->idle)) return;
    if (list_is_empty(&l->soon)) (void)uv_idle_start(&l->idle, on_idle);
    list_append(&l->soon, &t->link);
}

static void on_wake(uv_async_t *wake)
{
    struct loop *l = wake->data;
    loop_turn(l);
    uv_mutex_lock(&l->lock);
    struct loop_message *m = l->inbox;
    l->inbox = NULL;
    l->inbox_tail = &l->inbox;
    uv_mutex_unlock(&l->lock);
    while (m) {
        struct loop_message *next = m->next; /* deliver() may free m */
        m->deliver(m);
        m = next;
    }
}

enum err loop_init(struct loop *l, size_t read_buffer_bytes, const struct loop_hooks *hooks)
{
    *l = (struct loop){.read_buffer_bytes = read_buffer_bytes, .pipe_in = -1, .pipe_out = -1};
    if (hooks) l->hooks = *hooks;
    l->read_buffer = malloc(read_buffer_bytes);
    if (!l->read_buffer) return ERR_NOMEM;
    if (uv_mutex_init(&l->lock)) goto fail_lock;
    if (uv_loop_init(&l->uv)) goto fail_loop;
    l->uv.data = l;
    l->inbox_tail = &l->inbox;
    if (uv_async_init(&l->uv, &l->wake, on_wake)) goto fail_async;
    (void)uv_timer_init(&l->uv, &l->tick); /* these three only fill in a struct */
    (void)uv_prepare_init(&l->uv, &l->prepare);
    (void)uv_idle_init(&l->uv, &l->idle); /* and always return 0 */
    l->wake.data = l->tick.data = l->prepare.data = l->idle.data = l;
    list_init(&l->soon);
    (void)uv_prepare_start(&l->prepare, on_prepare);
    uv_unref((uv_handle_t *)&l->prepare);
    loop_turn_begin(l);
    wheel_init(&l->wheel, l->now_ms);
    return ERR_OK;

fail_async:
    (void)uv_loop_close(&l->uv);
fail_loop:
    uv_mutex_destroy(&l->lock);
fail_lock:
    free(l->read_buffer);
    l->read_buffer = NULL;
    return ERR_IO;
}

void loop_deinit(struct loop *l)
{
    BUG_IF(uv_loop_close(&l->uv) != 0, "a handle is still open on a loop that ends");
    uv_mutex_destroy(&l->lock);
    tls_buffers_destroy(l->tls);
    l->tls = NULL;
    splice_pipe_close(l);
    free(l->read_buffer);
    l->read_buffer = NULL;
}

void loop_close(struct loop *l)
{
    if (uv_is_closing((uv_handle_t *)&l->wake)) return;
    uv_mutex_lock(&l->lock);
    l->inbox_closed = true;
    uv_mutex_unlock(&l->lock);
    on_wake(&l->wake); /* what was accepted is delivered; that may close the loop as well */
    if (uv_is_closing((uv_handle_t *)&l->wake)) return;
    uv_close((uv_handle_t *)&l->wake, NULL);
    uv_close((uv_handle_t *)&l->tick, NULL);
    uv_close((uv_handle_t *)&l->prepare, NULL);
    uv_close((uv_handle_t *)&l->idle, NULL);
}

void loop_run(struct loop *l)
{
    (void)uv_run(&l->uv, UV_RUN_DEFAULT); /* non-zero only after uv_stop(), which nobody calls */
}

bool loop_post(struct loop *l, struct loop_message *m)
{
    m->next = NULL;
    uv_mutex_lock(&l->lock);
    bool accepted = !l->inbox_closed;
    if (accepted) {
        *l->inbox_tail = m;
        l->inbox_tail = &m->next;
        (void)uv_async_send(&l->wake); /* under the lock: loop_close() cannot close the handle meanwhile */
    }
    uv_mutex_unlock(&l->lock);
    return accepted;
}

static void start_tick(struct loop *l)
{
    if (l->tick_running) return;
    l->tick_running = true;
    (void)uv_timer_start(&l->tick, on_tick, WHEEL_TICK_MS, WHEEL_TICK_MS);
}

void loop_deadline_at(struct loop *l, struct wheel_entry *e, uint64_t deadline_ms)
{
    /* One that has passed is met at the next tick, also when it is set to `now` with every message. */
    wheel_set(&l->wheel, e, deadline_ms <= l->now_ms ? 0 : deadline_ms);
    if (l->wheel.count) start_tick(l);
}

void loop_deadline(struct loop *l, struct wheel_entry *e, uint64_t after_ms)
{
    loop_deadline_at(l, e, l->now_ms + after_ms);
}

void loop_deadline_clear(struct loop *l, struct wheel_entry *e)
{
    wheel_remove(&l->wheel, e);
}

bool loop_deadline_is_overdue(const struct loop *l, const struct wheel_entry *e)
{
    return l->now_ms > (uint64_t)e->due * WHEEL_TICK_MS + OVERDUE_MS;
}
