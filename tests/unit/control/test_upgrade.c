/* The old process and the new one: this program starts itself, and is the new process when it has a channel.
 *
 * The word of a new process that comes in the last moment is heard: both are there when the loop looks, its
 * word and the end of its time. */
#include "control/upgrade.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { BUFFER_BYTES = 64 * 1024, LONG_MS = 60000, SILENT = 3 };

static const char silent[] = "PROOFGW_TEST_SILENT";

struct old {
    struct loop loop;
    struct upgrade upgrade;
    unsigned ndone;
    enum upgrade_result result;
};

static void on_done(struct upgrade *u, enum upgrade_result result)
{
    struct old *o = (struct old *)((char *)u - offsetof(struct old, upgrade));
    o->ndone++;
    o->result = result;
}

static struct upgrade_socket *one_socket(void)
{
    struct upgrade_socket *s = calloc(1, sizeof *s);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_non_null(s);
    assert_int_equal(bind(fd, &(struct sockaddr){.sa_family = AF_UNIX}, sizeof(sa_family_t)),
                     0); /* any name */
    assert_int_equal(listen(fd, 1), 0);
    *s = (struct upgrade_socket){.name = "listener one", .fd = fd};
    return s;
}

static int set_up(void **state)
{
    struct old *o = calloc(1, sizeof *o);
    struct errmsg why;
    assert_non_null(o);
    assert_int_equal(loop_init(&o->loop, BUFFER_BYTES, NULL), ERR_OK);
    const struct upgrade_offer offer = {
        .sockets = one_socket(), .n = 1, .is_ready = true, .timeout_ms = LONG_MS};
    assert_int_equal(upgrade_start(&o->upgrade, &o->loop, &offer, on_done, &why), ERR_OK);
    while (o->upgrade.state == UPGRADE_SENDING)
        (void)uv_run(&o->loop.uv, UV_RUN_ONCE); /* says only whether handles are left */
    assert_int_equal(o->upgrade.state, UPGRADE_WAITING);
    *state = o;
    return 0;
}

static int set_up_silent(void **state)
{
    assert_int_equal(setenv(silent, "1", 1), 0);
    int failed = set_up(state);
    assert_int_equal(unsetenv(silent), 0);
    return failed;
}

static int tear_down(void **state)
{
    struct old *o = *state;
    loop_close(&o->loop);
    loop_run(&o->loop);
    assert_int_equal(o->upgrade.state, UPGRADE_IDLE);
    loop_deinit(&o->loop);
    free(o);
    return 0;
}

/* Its time is over now. What the channel has is not looked at by the loop before that. */
static void expire(struct old *o)
{
    loop_turn(&o->loop);
    wheel_advance(&o->loop.wheel, o->loop.now_ms + LONG_MS + 1000);
}

static void a_word_in_the_last_moment_is_heard(void **state)
{
    struct old *o = *state;
    struct pollfd word = {.fd = o->upgrade.channel, .events = POLLIN};
    assert_int_equal(poll(&word, 1, LONG_MS), 1);
    assert_int_equal(o->ndone, 0);
    expire(o);
    assert_int_equal(o->ndone, 1);
    assert_int_equal(o->result, UPGRADE_TAKEN_OVER);
}

static void who_says_nothing_is_killed(void **state)
{
    struct old *o = *state;
    expire(o);
    assert_int_equal(o->upgrade.state, UPGRADE_KILLING);
    while (o->ndone == 0)
        (void)uv_run(&o->loop.uv, UV_RUN_ONCE);
    assert_int_equal(o->result, UPGRADE_TIMED_OUT);
}

/* Takes the socket, says its word or not, and stays until it is killed or the old process has ended. */
static int be_the_new_process(void)
{
    struct inherited in = {0};
    struct upgrade_origin origin;
    if (upgrade_receive(&in, &origin) || !origin.is_ready || inherited_count(&in) != 1) return 1;
    inherited_close(&in, false);
    if (!getenv(silent)) {
        upgrade_report(&origin);
        return 0;
    }
    while (!upgrade_is_orphan(&origin))
        (void)poll(NULL, 0, SILENT);
    return 0;
}

int main(int argc, char **argv)
{
    (void)argc;
    upgrade_remember(argv);
    if (getenv("PROOFGW_UPGRADE_FD")) return be_the_new_process();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_word_in_the_last_moment_is_heard, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_says_nothing_is_killed, set_up_silent, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
