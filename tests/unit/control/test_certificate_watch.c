/* Ticket keys while the gateway runs: its own ones change by time, those of a file when the file does.
 *
 * The clock is the loop's, and the test moves it: hours pass in no time. */
#include "control/certificate_watch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { BUFFER_BYTES = 64 * 1024, SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR };

struct test {
    struct loop loop;
    struct generation generation;
    struct deployment deployment;
    struct certificate_watch watch;
};

static void on_changed(struct certificate_watch *w)
{
    (void)w;
    fail_msg("no certificate has changed");
}

/* The watch of a gateway with these ticket keys. */
static void begin(struct test *t, const char *file, uint64_t rotate_ms)
{
    struct errmsg why;
    assert_int_equal(tls_tickets_create(file, rotate_ms, t->loop.now_ms, &why, &t->generation.tls.tickets),
                     ERR_OK);
    certificate_watch_open(&t->watch, &t->deployment, on_changed);
}

static int setup(void **state)
{
    struct test *t = calloc(1, sizeof *t);
    assert_non_null(t);
    assert_int_equal(loop_init(&t->loop, BUFFER_BYTES, NULL), ERR_OK);
    t->deployment.loop = &t->loop;
    t->deployment.current = &t->generation;
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    certificate_watch_close(&t->watch);
    assert_int_equal(t->loop.wheel.count, 0);
    tls_contexts_deinit(&t->generation.tls);
    loop_close(&t->loop);
    loop_run(&t->loop);
    loop_deinit(&t->loop);
    free(t);
    return 0;
}

static void pass(struct test *t, uint64_t ms)
{
    for (uint64_t end = t->loop.now_ms + ms; t->loop.now_ms < end;) {
        t->loop.now_ms += WHEEL_TICK_MS;
        wheel_advance(&t->loop.wheel, t->loop.now_ms);
    }
}

static struct tls_ticket_key current_key(struct test *t)
{
    struct tls_ticket_key key;
    tls_tickets_current(t->generation.tls.tickets, &key);
    return key;
}

static bool opens(struct test *t, const struct tls_ticket_key *key)
{
    struct tls_ticket_key found;
    return tls_tickets_find(t->generation.tls.tickets, key->name, &found);
}

/* Time passes until the key to seal with is another one; returns how much. */
static uint64_t until_the_next_key(struct test *t)
{
    struct tls_ticket_key before = current_key(t), now = before;
    uint64_t begin_ms = t->loop.now_ms;
    while (memcmp(now.name, before.name, sizeof now.name) == 0 && t->loop.now_ms < begin_ms + DAY) {
        pass(t, WHEEL_TICK_MS);
        now = current_key(t);
    }
    assert_memory_not_equal(now.aes, before.aes, sizeof now.aes);
    assert_memory_not_equal(now.hmac, before.hmac, sizeof now.hmac);
    assert_true(opens(t, &before));
    return t->loop.now_ms - begin_ms;
}

static void own_keys_change_by_time(void **state)
{
    static const uint64_t periods[] = {MINUTE, MINUTE + 30 * SECOND, HOUR, 12 * HOUR};
    for (size_t i = 0; i < sizeof periods / sizeof *periods; i++) {
        struct test *t = *state;
        begin(t, NULL, periods[i]);
        for (unsigned n = 1; n <= 5; n++) {
            uint64_t passed_ms = until_the_next_key(t);
            uint64_t late_ms = periods[i] > MINUTE ? MINUTE : 0; /* there is one look a minute */
            assert_in_range(passed_ms, periods[i], periods[i] + late_ms + SECOND);
            assert_int_equal(t->watch.status.ticket_changes_total, n);
        }
        certificate_watch_close(&t->watch);
        tls_contexts_deinit(&t->generation.tls);
    }
}

/* Two periods after a session was sealed nobody can open it any more, whoever has the memory of the process.
 */
static void a_key_opens_for_two_periods(void **state)
{
    struct test *t = *state;
    begin(t, NULL, HOUR);
    struct tls_ticket_key first = current_key(t);
    pass(t, 2 * HOUR - SECOND);
    assert_true(opens(t, &first));
    pass(t, 3 * MINUTE);
    assert_false(opens(t, &first));
    assert_int_equal(t->watch.status.ticket_failures_total, 0);
}

static void write_keys(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* A key that begins with this digit, and otherwise has zeros. */
static const char *key_text(char digit)
{
    static char line[162];
    memset(line, '0', 160);
    line[0] = digit;
    line[160] = '\n';
    return line;
}

static void a_file_is_read_each_minute_and_refused_once(void **state)
{
    struct test *t = *state;
    char path[] = "/tmp/proofgw-tickets-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_keys(path, key_text('1'));
    begin(t, path, HOUR);
    pass(t, 3 * HOUR);
    assert_int_equal(t->watch.status.ticket_changes_total, 0); /* time alone changes nothing */
    write_keys(path, key_text('2'));
    pass(t, MINUTE + SECOND);
    assert_int_equal(t->watch.status.ticket_changes_total, 1);
    assert_int_equal(current_key(t).name[0], 0x20);
    write_keys(path, "nonsense\n");
    pass(t, 5 * MINUTE);
    assert_int_equal(t->watch.status.ticket_failures_total, 1);
    assert_int_equal(current_key(t).name[0], 0x20);
    write_keys(path, key_text('3'));
    pass(t, MINUTE + SECOND);
    write_keys(path, "nonsense\n");
    pass(t, 2 * MINUTE);
    assert_int_equal(t->watch.status.ticket_changes_total, 2);
    assert_int_equal(t->watch.status.ticket_failures_total, 2); /* it was good in between */
    assert_int_equal(unlink(path), 0);
}

static void nothing_changes_after_the_close(void **state)
{
    struct test *t = *state;
    begin(t, NULL, MINUTE);
    struct tls_ticket_key before = current_key(t), now;
    certificate_watch_close(&t->watch);
    certificate_watch_close(&t->watch);
    certificate_watch_failed(&t->watch, "late news");
    certificate_watch_follow(&t->watch);
    pass(t, HOUR);
    now = current_key(t);
    assert_memory_equal(&now, &before, sizeof now);
    assert_int_equal(t->watch.state, CERTIFICATE_WATCH_CLOSED);
}

int main(void)
{
#define TICKET_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TICKET_TEST(own_keys_change_by_time),
        TICKET_TEST(a_key_opens_for_two_periods),
        TICKET_TEST(a_file_is_read_each_minute_and_refused_once),
        TICKET_TEST(nothing_changes_after_the_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
