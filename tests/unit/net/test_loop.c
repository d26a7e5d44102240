/* The loop: the mailbox between threads, turns and their hooks, deadlines. Made to run under ThreadSanitizer.
 */
#include "helper_net.h"

#include "base/clock.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { SENDERS = 4, MESSAGES = 2000 };

/* --- mailbox --------------------------------------------------------------------------------------- */

struct mail {
    struct loop_message message; /* first */
    struct net_test *t;
    unsigned sender, number;
};

static unsigned delivered, expected[SENDERS];

static void count_mail(struct loop_message *m)
{
    const struct mail *mail = (const struct mail *)m;
    assert_true(mail->t->loop.in_turn);
    assert_int_equal(mail->number, expected[mail->sender]); /* the order of each sender is kept */
    expected[mail->sender]++;
    delivered++;
    free(m); /* the receiver owns it */
}

static struct mail *new_mail(struct net_test *t, unsigned sender, unsigned number)
{
    struct mail *mail = malloc(sizeof *mail);
    if (!mail) abort();
    *mail = (struct mail){.message.deliver = count_mail, .t = t, .sender = sender, .number = number};
    return mail;
}

struct sender {
    struct net_test *t;
    unsigned index;
    unsigned accepted;
};

static void *send_all(void *arg)
{
    struct sender *s = arg;
    for (unsigned i = 0; i < MESSAGES; i++) {
        if (!loop_post(&s->t->loop, &new_mail(s->t, s->index, i)->message)) abort();
        s->accepted++;
    }
    return NULL;
}

static void reset_counts(void)
{
    delivered = 0;
    for (unsigned i = 0; i < SENDERS; i++)
        expected[i] = 0;
}

static void messages_of_several_threads_arrive_in_order(void **state)
{
    struct net_test *t = *state;
    pthread_t threads[SENDERS];
    struct sender senders[SENDERS];
    reset_counts();
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.t = t, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    RUN_UNTIL(t, delivered == SENDERS * MESSAGES);
    for (unsigned i = 0; i < SENDERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void *send_until_refused(void *arg)
{
    struct sender *s = arg;
    for (;;) {
        struct mail *mail = new_mail(s->t, s->index, s->accepted);
        if (!loop_post(&s->t->loop, &mail->message)) {
            free(mail); /* still ours */
            return NULL;
        }
        s->accepted++;
        if (s->accepted % 64 == 0) (void)sched_yield();
    }
}

/* What was accepted is delivered, what was not is the sender's: nothing is lost, nothing comes twice. */
static void closing_while_others_post_loses_nothing(void **state)
{
    struct net_test *t = *state;
    pthread_t threads[SENDERS];
    struct sender senders[SENDERS];
    unsigned accepted = 0;
    reset_counts();
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.t = t, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_until_refused, &senders[i]), 0);
    }
    RUN_UNTIL(t, delivered >= MESSAGES);
    loop_close(&t->loop);
    for (unsigned i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        accepted += senders[i].accepted;
    }
    assert_int_equal(delivered, accepted);
}

static void closing_delivers_what_was_accepted_and_refuses_the_rest(void **state)
{
    struct net_test *t = *state;
    reset_counts();
    assert_true(loop_post(&t->loop, &new_mail(t, 0, 0)->message));
    loop_close(&t->loop);
    assert_int_equal(delivered, 1);
    struct mail *late = new_mail(t, 0, 1);
    assert_false(loop_post(&t->loop, &late->message));
    free(late);
}

static void post_again(struct loop_message *m)
{
    struct mail *mail = (struct mail *)m;
    struct net_test *t = mail->t;
    free(mail);
    assert_true(loop_post(&t->loop, &new_mail(t, 0, 0)->message));
}

static void a_delivery_may_post(void **state)
{
    struct net_test *t = *state;
    reset_counts();
    struct mail *mail = new_mail(t, 0, 0);
    mail->message.deliver = post_again;
    assert_true(loop_post(&t->loop, &mail->message));
    RUN_UNTIL(t, delivered == 1);
}

static void close_loop(struct loop_message *m)
{
    struct mail *mail = (struct mail *)m;
    loop_close(&mail->t->loop);
    loop_close(&mail->t->loop); /* idempotent */
    free(mail);
}

static void a_delivery_may_close_the_loop(void **state)
{
    struct net_test *t = *state;
    reset_counts();
    struct mail *closing = new_mail(t, 0, 0);
    closing->message.deliver = close_loop;
    assert_true(loop_post(&t->loop, &closing->message));
    assert_true(loop_post(&t->loop, &new_mail(t, 0, 0)->message)); /* was there first: comes all the same */
    loop_run(&t->loop);
    assert_int_equal(delivered, 1);
}

static void a_message_on_the_way_may_close_a_closing_loop(void **state)
{
    struct net_test *t = *state;
    struct mail *closing = new_mail(t, 0, 0);
    closing->message.deliver = close_loop;
    assert_true(loop_post(&t->loop, &closing->message));
    loop_close(&t->loop); /* delivers it, from within */
    loop_run(&t->loop);
}

/* --- turns ----------------------------------------------------------------------------------------- */

struct hook_log {
    struct loop loop;
    bool in_turn;
    unsigned begins, ends;
    unsigned deliveries;
};

static struct hook_log hook_log;

static void hook_begin(void *arg)
{
    struct hook_log *h = arg;
    assert_false(h->in_turn);
    h->in_turn = true;
    h->begins++;
}

static void hook_end(void *arg)
{
    struct hook_log *h = arg;
    assert_true(h->in_turn);
    h->in_turn = false;
    h->ends++;
}

static void deliver_in_turn(struct loop_message *m)
{
    (void)m;
    assert_true(hook_log.in_turn);
    hook_log.deliveries++;
}

static void hooks_are_called_in_pairs_around_every_turn(void **state)
{
    (void)state;
    const struct loop_hooks hooks = {.on_turn_begin = hook_begin, .on_turn_end = hook_end, .arg = &hook_log};
    struct loop *l = &hook_log.loop;
    hook_log = (struct hook_log){0};
    assert_int_equal(loop_init(l, 1024, &hooks), ERR_OK);
    assert_int_equal(hook_log.begins, 1); /* whoever sets the loop up is in a turn */
    for (unsigned i = 1; i <= 20; i++) {
        struct loop_message m = {.deliver = deliver_in_turn};
        assert_true(loop_post(l, &m));
        while (hook_log.deliveries < i)
            (void)uv_run(&l->uv, UV_RUN_ONCE);
        assert_int_equal(hook_log.begins, hook_log.ends + 1); /* ends before the next wait */
        (void)uv_run(&l->uv, UV_RUN_NOWAIT);
        assert_int_equal(hook_log.begins, hook_log.ends);
        assert_false(l->in_turn);
    }
    assert_int_equal(hook_log.begins, 21);
    loop_close(l);
    loop_run(l);
    loop_deinit(l);
}

static void a_loop_without_work_has_no_turns(void **state)
{
    struct net_test *t = *state;
    unsigned before = t->turns;
    net_test_settle(t);
    assert_int_equal(t->turns, before);
}

struct clock_mail {
    struct loop_message message;
    struct loop *loop;
    uint64_t now_us, wall_ms;
    bool seen;
};

static void note_clock(struct loop_message *m)
{
    struct clock_mail *c = (struct clock_mail *)m;
    c->now_us = c->loop->now_us;
    c->wall_ms = c->loop->wall_ms;
    assert_int_equal(c->loop->now_ms, c->loop->now_us / 1000);
    uint64_t until = clock_mono_us() + 2000;
    while (clock_mono_us() < until) {
        /* time passes within the turn */
    }
    c->seen = true;
}

static void clocks_stand_still_within_a_turn(void **state)
{
    struct net_test *t = *state;
    struct clock_mail one = {.message.deliver = note_clock, .loop = &t->loop}, two = one, later = one;
    assert_true(loop_post(&t->loop, &one.message));
    assert_true(loop_post(&t->loop, &two.message));
    RUN_UNTIL(t, two.seen);
    assert_int_equal(one.now_us, two.now_us);
    assert_int_equal(one.wall_ms, two.wall_ms);
    assert_true(loop_post(&t->loop, &later.message));
    RUN_UNTIL(t, later.seen);
    assert_true(later.now_us >= two.now_us + 4000); /* read anew in the next */
}

/* --- deadlines ------------------------------------------------------------------------------------- */

struct alarm {
    struct wheel_entry entry; /* first */
    struct net_test *t;
    uint64_t due_ms, fired_ms;
};

static void on_alarm(struct wheel_entry *e)
{
    struct alarm *a = (struct alarm *)e;
    assert_true(a->t->loop.in_turn);
    a->fired_ms = a->t->loop.now_ms;
}

static void alarm_init(struct alarm *a, struct net_test *t)
{
    *a = (struct alarm){.t = t};
    wheel_entry_init(&a->entry, on_alarm);
}

static void deadlines_fire_and_then_the_tick_stops(void **state)
{
    struct net_test *t = *state;
    struct alarm soon, later, never;
    alarm_init(&soon, t);
    alarm_init(&later, t);
    alarm_init(&never, t);
    assert_false(uv_is_active((uv_handle_t *)&t->loop.tick));
    loop_turn(&t->loop);
    soon.due_ms = t->loop.now_ms + 1;
    later.due_ms = t->loop.now_ms + 250;
    loop_deadline(&t->loop, &soon.entry, 1);
    loop_deadline_at(&t->loop, &later.entry, later.due_ms);
    loop_deadline(&t->loop, &never.entry, 100);
    loop_deadline_clear(&t->loop, &never.entry);
    assert_true(uv_is_active((uv_handle_t *)&t->loop.tick));
    RUN_UNTIL(t, soon.fired_ms && later.fired_ms);
    assert_true(soon.fired_ms >= soon.due_ms);
    assert_true(later.fired_ms >= later.due_ms);
    assert_true(soon.fired_ms <= later.fired_ms);
    assert_int_equal(never.fired_ms, 0);
    assert_false(uv_is_active((uv_handle_t *)&t->loop.tick)); /* an idle process sleeps */

    soon.fired_ms = 0;
    loop_deadline(&t->loop, &soon.entry, 1); /* and wakes again */
    RUN_UNTIL(t, soon.fired_ms);
}

static void a_deadline_of_never_starts_no_tick(void **state)
{
    struct net_test *t = *state;
    struct alarm a;
    alarm_init(&a, t);
    loop_deadline_at(&t->loop, &a.entry, WHEEL_NEVER);
    assert_false(uv_is_active((uv_handle_t *)&t->loop.tick));
}

/* --- tasks ----------------------------------------------------------------------------------------- */

struct job {
    struct loop_task task; /* first */
    struct net_test *t;
    struct job *again, *cancels;
    unsigned runs;
};

static void run_job(struct loop_task *task)
{
    struct job *j = (struct job *)task;
    assert_true(j->t->loop.in_turn);
    j->runs++;
    if (j->cancels) loop_soon_cancel(&j->t->loop, &j->cancels->task);
    if (j->again) loop_soon(&j->t->loop, &j->again->task);
}

static void tasks_run_once_and_later(void **state)
{
    struct net_test *t = *state;
    struct job a = {.task.run = run_job, .t = t}, b = a, c = a;
    a.cancels = &b;
    loop_soon(&t->loop, &a.task);
    loop_soon(&t->loop, &a.task);
    loop_soon(&t->loop, &b.task);
    loop_soon(&t->loop, &c.task);
    assert_int_equal(a.runs, 0);
    RUN_UNTIL(t, c.runs);
    assert_int_equal(a.runs, 1);
    assert_int_equal(b.runs, 0); /* taken back by another */
    loop_soon_cancel(&t->loop, &c.task);
    loop_soon(&t->loop, &c.task);
    loop_soon_cancel(&t->loop, &c.task);
    unsigned before = t->turns;
    net_test_settle(t);
    assert_int_equal(c.runs, 1);
    assert_int_equal(t->turns, before);
}

/* A task that asks for itself again does not keep the loop from its other work. */
static void a_task_may_ask_for_itself(void **state)
{
    struct net_test *t = *state;
    struct job a = {.task.run = run_job, .t = t};
    a.again = &a;
    loop_soon(&t->loop, &a.task);
    for (unsigned i = 1; i <= 10; i++) {
        (void)uv_run(&t->loop.uv, UV_RUN_NOWAIT);
        assert_int_equal(a.runs, i);
    }
    a.again = NULL;
    net_test_settle(t);
    assert_int_equal(a.runs, 11);
}

#define LOOP_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(messages_of_several_threads_arrive_in_order),
        LOOP_TEST(closing_while_others_post_loses_nothing),
        LOOP_TEST(closing_delivers_what_was_accepted_and_refuses_the_rest),
        LOOP_TEST(a_delivery_may_post),
        LOOP_TEST(a_delivery_may_close_the_loop),
        LOOP_TEST(a_message_on_the_way_may_close_a_closing_loop),
        cmocka_unit_test(hooks_are_called_in_pairs_around_every_turn),
        LOOP_TEST(a_loop_without_work_has_no_turns),
        LOOP_TEST(clocks_stand_still_within_a_turn),
        LOOP_TEST(deadlines_fire_and_then_the_tick_stops),
        LOOP_TEST(a_deadline_of_never_starts_no_tick),
        LOOP_TEST(tasks_run_once_and_later),
        LOOP_TEST(a_task_may_ask_for_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
