/* Bytes from socket to socket through the loop's pipe: whole, in order, and only their own. */
#include "base/fd.h"
#include "helper_user.h"
#include "net/splice.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* Two streams; what the first one receives goes to the second. */
struct pump {
    struct user *from, *to;
    int in, out;   /* the other ends */
    bool declines; /* has it read as usual */
    size_t max, spliced;
    enum err e;
};

static struct pump pump;

/* While the receiver is blocked the sender is not read, as the proxy does it. */
static bool splice_now(struct stream *s)
{
    if (pump.declines || !stream_can_splice(s, &pump.to->stream)) return false;
    size_t n = stream_splice_in(s, pump.max);
    if (n == 0) return false;
    pump.spliced += n;
    pump.e = stream_splice_out(&pump.to->stream, n);
    if (stream_is_blocked(&pump.to->stream)) stream_read_pause(s);
    return true;
}

static void go_on(struct stream *s)
{
    user_events.on_drained(s);
    stream_read_resume(&pump.from->stream);
}

static struct stream_events from_events, to_events;

/* `small`: the receiver's socket holds little. */
static void open_pump(struct net_test *t, bool small)
{
    memset(&pump, 0, sizeof pump);
    pump.max = SIZE_MAX;
    from_events = to_events = user_events;
    from_events.on_readable = splice_now;
    to_events.on_drained = go_on;
    pump.from = user_open_tcp(t, &pump.in);
    pump.to = small ? user_open_unix(t, &pump.out) : user_open_tcp(t, &pump.out);
    pump.from->stream.events = &from_events;
    pump.to->stream.events = &to_events;
}

static void close_pump(struct net_test *t)
{
    close(pump.in);
    close(pump.out);
    user_destroy(t, pump.from);
    user_destroy(t, pump.to);
}

/* Sends all of it into the pump and reads what comes out, `step` bytes at a time. */
static void run_pump(struct net_test *t, const char *sent, char *got, size_t n, size_t step)
{
    size_t in = 0, out = 0;
    net_test_watch(t);
    while (out < n) {
        ssize_t w = in < n ? send(pump.in, sent + in, n - in, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        if (w > 0) in += (size_t)w;
        RUN_READY(t);
        long r = test_recv(pump.out, got + out, n - out < step ? n - out : step);
        if (r > 0) out += (size_t)r;
    }
    assert_int_equal(in, n);
}

static void bytes_arrive_whole_and_in_order(void **state)
{
    struct net_test *t = *state;
    const size_t steps[] = {1000, 65536, MUCH};
    char *sent = test_pattern(MUCH), *got = malloc(MUCH);
    for (unsigned small = 0; small < 2; small++) {
        for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
            open_pump(t, small);
            memset(got, 0, MUCH);
            run_pump(t, sent, got, MUCH, steps[i]);
            assert_memory_equal(got, sent, MUCH);
            assert_int_equal(pump.spliced, MUCH);
            assert_int_equal(pump.from->stream.bytes_in, MUCH);
            assert_int_equal(pump.to->stream.bytes_out, MUCH);
            assert_int_equal(pump.from->reads, 0);
            close_pump(t);
        }
    }
    free(sent);
    free(got);
}

static void no_more_than_was_asked_for(void **state)
{
    struct net_test *t = *state;
    char got[16] = {0};
    open_pump(t, false);
    pump.max = 4;
    test_send(pump.in, "head and tail");
    RUN_UNTIL(t, pump.spliced == 4);
    assert_int_equal(stream_waiting(&pump.from->stream), 9);
    pump.declines = true;
    RUN_UNTIL(t, pump.from->ngot == 9);
    assert_string_equal(pump.from->got, " and tail");
    assert_int_equal(stream_waiting(&pump.from->stream), 0);
    assert_int_equal(test_recv(pump.out, got, sizeof got), 4);
    assert_string_equal(got, "head");
    close_pump(t);
}

static void the_end_is_found_by_reading(void **state)
{
    struct net_test *t = *state;
    open_pump(t, false);
    test_send(pump.in, "all");
    RUN_UNTIL(t, pump.spliced == 3);
    shutdown(pump.in, SHUT_WR);
    RUN_UNTIL(t, pump.from->eofs);
    assert_int_equal(pump.spliced, 3);
    assert_int_equal(pump.from->failures, 0);
    close_pump(t);
}

static void a_reset_is_found_by_reading(void **state)
{
    struct net_test *t = *state;
    open_pump(t, false);
    test_reset(pump.in);
    RUN_UNTIL(t, pump.from->failures);
    assert_int_equal(pump.from->failure, ERR_RESET);
    assert_int_equal(pump.spliced, 0);
    pump.in = dup(pump.out); /* close_pump() closes it */
    close_pump(t);
}

/* What a receiver that is gone left in the pipe must not reach the next one. */
static void a_lost_receiver_leaves_nothing_behind(void **state)
{
    struct net_test *t = *state;
    char got[64] = {0};
    open_pump(t, false);
    stream_read_pause(&pump.to->stream); /* so that only writing notices */
    test_reset(pump.out);
    test_send(pump.in, "not for others");
    RUN_UNTIL(t, pump.spliced);
    assert_int_equal(pump.e, ERR_RESET);
    assert_int_equal(user_write(pump.to, "x", 1), ERR_RESET);
    pump.out = dup(pump.in);
    close_pump(t);

    open_pump(t, false);
    test_send(pump.in, "own");
    RUN_UNTIL(t, pump.spliced);
    assert_int_equal(pump.e, ERR_OK);
    assert_int_equal(test_recv(pump.out, got, sizeof got), 3);
    assert_string_equal(got, "own");
    close_pump(t);
}

static void only_between_open_streams_with_nothing_pending(void **state)
{
    struct net_test *t = *state;
    char *much = test_pattern(MUCH);
    open_pump(t, true);
    struct stream *from = &pump.from->stream, *to = &pump.to->stream;
    assert_true(stream_can_splice(from, to));
    assert_int_equal(user_write(pump.to, much, MUCH), ERR_OK);
    assert_false(stream_can_splice(from, to)); /* it would overtake what waits */
    assert_true(stream_can_splice(to, from));
    stream_shutdown(from);
    assert_false(stream_can_splice(to, from));
    stream_close(from, STREAM_END_CLOSE);
    assert_false(stream_can_splice(from, to));
    assert_false(stream_can_splice(to, from));
    free(much);
    close_pump(t);
}

static void without_descriptors_it_reads_as_usual(void **state)
{
    struct net_test *t = *state;
    struct rlimit before, none;
    open_pump(t, false);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    test_send(pump.in, "still read");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    RUN_UNTIL(t, pump.from->ngot == 10);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(pump.spliced, 0);
    test_send(pump.in, "spliced"); /* and tries again */
    RUN_UNTIL(t, pump.spliced == 7);
    close_pump(t);
}

static void with_the_last_descriptors_it_reads_as_usual(void **state)
{
    struct net_test *t = *state;
    struct rlimit before, few;
    open_pump(t, false);
    int next = dup(pump.in);
    assert_int_equal(close(next), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)next + 2; /* as many as a pipe has, and they are reserved */
    t->loop.leaves_reserve = true;
    test_send(pump.in, "still read");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_false(fd_is_to_be_had()); /* a limit that was lowered counts from this look on */
    RUN_UNTIL(t, pump.from->ngot == 10);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(pump.spliced, 0);
    assert_int_equal(dup(pump.in), next); /* none was kept */
    assert_int_equal(close(next), 0);
    test_send(pump.in, "spliced");
    RUN_UNTIL(t, pump.spliced == 7);
    close_pump(t);
}

#define SPLICE_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SPLICE_TEST(bytes_arrive_whole_and_in_order),
        SPLICE_TEST(no_more_than_was_asked_for),
        SPLICE_TEST(the_end_is_found_by_reading),
        SPLICE_TEST(a_reset_is_found_by_reading),
        SPLICE_TEST(a_lost_receiver_leaves_nothing_behind),
        SPLICE_TEST(only_between_open_streams_with_nothing_pending),
        SPLICE_TEST(without_descriptors_it_reads_as_usual),
        SPLICE_TEST(with_the_last_descriptors_it_reads_as_usual),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
