/* The operators' HTTP server: calls that are answered later, and clients that do not wait for them. */
#include "control/admin.h"
#include "net/socket.h"
#include "net/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { BUFFER_BYTES = 64 * 1024, BACKLOG = 64, PATIENCE_MS = 10000, WAIT_MS = 60000 };

struct server {
    struct loop loop;
    struct admin admin;
    struct socket_address bound;
    struct admin_call *call; /* waits for its answer */
    unsigned ncalls;         /* that were to be answered later */
    uv_timer_t watchdog;
    uv_check_t after_io; /* runs behind the events of a turn, before what they closed is let go */
    bool is_expired, answers_after_io;
};

static unsigned answer_later(void *arg, struct admin_call *call)
{
    struct server *s = arg;
    s->call = call;
    s->ncalls++;
    return ADMIN_LATER;
}

static unsigned answer_now(void *arg, struct admin_call *call)
{
    (void)arg;
    outbuf_str(&call->out, "now\n");
    return 200;
}

static const struct admin_route routes[] = {
    {METHOD_GET, "/later", "text/plain", 64, answer_later, WAIT_MS},
    {METHOD_GET, "/now", "text/plain", 64, answer_now, 0},
    {METHOD_GET, NULL, NULL, 0, NULL, 0},
};

static void on_expired(uv_timer_t *timer)
{
    ((struct server *)timer->data)->is_expired = true;
}

static void answer_call(struct server *s)
{
    outbuf_str(&s->call->out, "later\n");
    admin_answer(s->call, 200);
    s->call = NULL;
}

static void on_after_io(uv_check_t *check)
{
    struct server *s = check->data;
    if (s->answers_after_io && s->call) answer_call(s);
}

static int set_up(void **state)
{
    struct server *s = calloc(1, sizeof *s);
    const struct addr loopback = {.family = ADDR_V4, .v4 = 0x7f000001};
    struct socket_address any = socket_address_ip(&loopback, 0);
    int fd, sys;
    assert_non_null(s);
    assert_int_equal(loop_init(&s->loop, BUFFER_BYTES, NULL), ERR_OK);
    assert_int_equal(socket_listen(&any, BACKLOG, false, false, &fd, &sys), ERR_OK);
    assert_int_equal(socket_local(fd, &s->bound), ERR_OK);
    assert_int_equal(admin_open(&s->admin, &s->loop, fd, routes, s), ERR_OK);
    assert_int_equal(uv_timer_init(&s->loop.uv, &s->watchdog), 0);
    assert_int_equal(uv_check_init(&s->loop.uv, &s->after_io), 0);
    s->watchdog.data = s->after_io.data = s;
    assert_int_equal(uv_timer_start(&s->watchdog, on_expired, PATIENCE_MS, 0), 0);
    assert_int_equal(uv_check_start(&s->after_io, on_after_io), 0);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct server *s = *state;
    uv_close((uv_handle_t *)&s->watchdog, NULL);
    uv_close((uv_handle_t *)&s->after_io, NULL);
    admin_close(&s->admin);
    loop_close(&s->loop);
    loop_run(&s->loop);
    loop_deinit(&s->loop);
    admin_deinit(&s->admin);
    free(s);
    return 0;
}

#define RUN_UNTIL(s, condition)                                                                              \
    while (!(condition)) {                                                                                   \
        assert_false((s)->is_expired);                                                                       \
        (void)uv_run(&(s)->loop.uv, UV_RUN_ONCE); /* says only whether handles are left */                   \
    }

static int client_open(const struct server *s, const char *request)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &s->bound.any, s->bound.len), 0);
    assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
    return fd;
}

/* Reads what there is; true at the end. */
static bool has_ended(int fd, char *text, size_t cap, size_t *n)
{
    ssize_t got;
    while ((got = recv(fd, text + *n, cap - 1 - *n, MSG_DONTWAIT)) > 0)
        *n += (size_t)got;
    text[*n] = '\0';
    return got == 0;
}

/* What the server says until it ends the connection; `left` others stay. */
static void assert_says(struct server *s, int fd, unsigned left, const char *status, const char *body)
{
    char text[1024];
    size_t n = 0;
    (void)shutdown(fd, SHUT_WR); /* fails when both sides have ended already */
    RUN_UNTIL(s, has_ended(fd, text, sizeof text, &n));
    RUN_UNTIL(s, s->admin.nconns == left);
    close(fd);
    assert_non_null(strstr(text, status));
    assert_non_null(strstr(text, body));
}

static void assert_answer(struct server *s, int fd, const char *body)
{
    assert_says(s, fd, 0, "200 OK", body);
}

static void answers_at_once(void **state)
{
    struct server *s = *state;
    int fd = client_open(s, "GET /now HTTP/1.1\r\nHost: localhost\r\n\r\n");
    RUN_UNTIL(s, s->admin.nconns == 1);
    assert_answer(s, fd, "\r\n\r\nnow\n");
}

static void answers_later(void **state)
{
    struct server *s = *state;
    int fd = client_open(s, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
    RUN_UNTIL(s, s->call);
    answer_call(s);
    assert_answer(s, fd, "\r\n\r\nlater\n");
}

/* It has said all that it will say while its answer is made: nobody waits for its FIN again. */
static void a_client_that_ends_its_side_while_it_waits(void **state)
{
    struct server *s = *state;
    int fd = client_open(s, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
    RUN_UNTIL(s, s->call);
    const struct stream *stream = (const struct stream *)s->call->conn; /* its first member */
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    RUN_UNTIL(s, stream->eof);
    answer_call(s);
    assert_int_equal(s->loop.wheel.count, 0);
    assert_answer(s, fd, "\r\n\r\nlater\n");
}

static void a_client_that_is_gone_gets_no_answer(void **state)
{
    struct server *s = *state;
    int fd = client_open(s, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
    RUN_UNTIL(s, s->call);
    socket_reset(fd);
    RUN_UNTIL(s, s->admin.nconns == 0);
    assert_non_null(s->call);
    answer_call(s);
    assert_int_equal(s->loop.wheel.count, 0);
}

/* The connection is closed, and not yet let go, when its answer is there: nothing may point to it behind
 * that. */
static void a_client_that_goes_away_in_the_moment_of_its_answer(void **state)
{
    struct server *s = *state;
    int fd = client_open(s, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
    RUN_UNTIL(s, s->call);
    s->answers_after_io = true;
    socket_reset(fd);
    RUN_UNTIL(s, s->admin.nconns == 0);
    assert_null(s->call);
    assert_int_equal(s->loop.wheel.count, 0);
}

/* Nobody answers: the client hears that, and its place is free again. What comes after that is for nobody. */
static void a_call_that_nobody_answers(void **state)
{
    struct server *s = *state;
    int fd = client_open(s, "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n");
    RUN_UNTIL(s, s->call);
    loop_turn(&s->loop);
    wheel_advance(&s->loop.wheel, s->loop.now_ms + WAIT_MS - 1000);
    assert_false(list_is_empty(&s->admin.conns));
    wheel_advance(&s->loop.wheel, s->loop.now_ms + WAIT_MS + 1000);
    assert_says(s, fd, 0, "504 ", "{\"error\":\"there was no answer in time");
    assert_int_equal(s->admin.ncalls, 1);
    answer_call(s);
    assert_int_equal(s->admin.ncalls, 0);
    assert_int_equal(s->loop.wheel.count, 0);
}

static void calls_that_nobody_answers_hold_up_no_others(void **state)
{
    static const char later[] = "GET /later HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct server *s = *state;
    int fds[ADMIN_CALLS_MAX];
    for (unsigned i = 0; i < ADMIN_CALLS_MAX; i++) {
        fds[i] = client_open(s, later);
        RUN_UNTIL(s, s->ncalls == i + 1);
    }
    assert_says(s, client_open(s, "GET /now HTTP/1.1\r\nHost: localhost\r\n\r\n"), ADMIN_CALLS_MAX, "200 OK",
                "now");
    assert_says(s, client_open(s, later), ADMIN_CALLS_MAX, "503 ", "{\"error\":\"too many calls wait");
    loop_turn(&s->loop);
    wheel_advance(&s->loop.wheel, s->loop.now_ms + WAIT_MS + 1000);
    for (unsigned i = 0; i < ADMIN_CALLS_MAX; i++) {
        (void)shutdown(fds[i], SHUT_WR); /* the other side may have ended */
        close(fds[i]);
    }
    RUN_UNTIL(s, s->admin.nconns == 0);
    assert_says(s, client_open(s, later), 0, "503 ", "too many calls wait"); /* they still wait */
    answer_call(s);
    assert_says(s, client_open(s, "GET /now HTTP/1.1\r\nHost: localhost\r\n\r\n"), 0, "200 OK", "now");
    int fd = client_open(s, later);
    RUN_UNTIL(s, s->ncalls == ADMIN_CALLS_MAX + 1);
    answer_call(s);
    assert_answer(s, fd, "later");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(answers_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(answers_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_client_that_ends_its_side_while_it_waits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_client_that_is_gone_gets_no_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_client_that_goes_away_in_the_moment_of_its_answer, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_call_that_nobody_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(calls_that_nobody_answers_hold_up_no_others, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
