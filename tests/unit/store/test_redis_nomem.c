/* Memory runs out at every single place of a conversation, once or for good: every callback still comes once,
 * and nothing leaks (ASan). The sources are compiled into this file, with an allocator that fails on command.
 */
#include "helper_wire.h"
#include "net/stream.h"
#include "store/redis_sentinel.h"
#include "support/failing.h"
#include "support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *auth; /* the AUTH command that lives; NULL = none */
static size_t auth_bytes;
static unsigned wiped;

static int failing_format(char **out, int argc, const char **argv, const size_t *lengths)
{
    int n = fails() ? -1 : (int)redisFormatCommandArgv(out, argc, argv, lengths);
    if (n > 0 && strcmp(argv[0], "AUTH") == 0) {
        auth = *out;
        auth_bytes = (size_t)n;
    }
    return n;
}

static void checking_free(char *command)
{
    if (command == auth) {
        for (size_t i = 0; i < auth_bytes; i++)
            assert_int_equal(command[i], 0);
        auth = NULL;
        wiped++;
    }
    redisFreeCommand(command);
}

static enum err failing_reader_init(struct redis_reader *r)
{
    return fails() ? ERR_NOMEM : redis_reader_init(r);
}

static enum err failing_take(struct redis_reader *r, const char *p, size_t n, redis_reader_fn fn, void *arg)
{
    return fails() ? ERR_NOMEM : redis_reader_take(r, p, n, fn, arg);
}

static enum err failing_connect(struct stream *s, struct loop *l, const struct socket_address *a,
                                const struct stream_events *events)
{
    return fails() ? ERR_NOMEM : stream_connect(s, l, a, events);
}

static enum err failing_write(struct stream *s, struct iovec *iov, unsigned n)
{
    return fails() ? ERR_NOMEM : stream_write(s, iov, n);
}

#undef fail /* cmocka's macro */
#define calloc                 failing_calloc
#define strdup                 failing_strdup
#define redisFormatCommandArgv failing_format
#define redisFreeCommand       checking_free
#define redis_reader_init      failing_reader_init
#define redis_reader_take      failing_take
#define stream_connect         failing_connect
#define stream_write           failing_write
#include "store/redis_conn.c"
#include "store/redis_sentinel.c"
#undef calloc
#undef strdup

/* --- one conversation ------------------------------------------------------------------------------- */

enum { COMMANDS = 3 };

struct talk {
    struct redis_conn *conn;
    unsigned taken, replies, nulls, closed;
};

static void on_talk_reply(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct talk *t = arg;
    if (!reply)
        t->nulls++;
    else if (++t->replies == COMMANDS)
        redis_close(c);
}

static void on_talk_ready(struct redis_conn *c, void *user)
{
    struct talk *t = user;
    const char *const argv[] = {"PING"};
    for (unsigned i = 0; i < COMMANDS; i++)
        if (redis_command(c, 0, on_talk_reply, t, 1, argv, NULL) == ERR_OK) t->taken++;
    if (t->taken < COMMANDS) redis_close(c);
}

static void on_talk_closed(struct redis_conn *c, enum err e, const char *cause, void *user)
{
    (void)c, (void)e;
    struct talk *t = user;
    assert_true(strlen(cause) > 0);
    t->closed++;
}

static const struct redis_events talk_events = {.on_ready = on_talk_ready, .on_closed = on_talk_closed};

/* True when it went well to its end. */
static bool talk(struct wire *w)
{
    struct talk t = {0};
    struct peer p;
    peer_listen(&p);
    const struct redis_options o = {.address = &p.address,
                                    .user = "gw",
                                    .password = "s3cret",
                                    .client_name = "proofgw",
                                    .must_be_master = true,
                                    .connect_timeout_ms = 5000,
                                    .command_timeout_ms = 5000};
    enum err e = redis_open(&w->loop, &o, &talk_events, &t, &t.conn);
    if (!e) {
        peer_accept(w, &p);
        PEER_SAY(&p, "+OK\r\n+OK\r\n*1\r\n$6\r\nmaster\r\n:1\r\n:2\r\n:3\r\n");
        WIRE_UNTIL(w, t.closed);
        peer_close(&p);
    } else {
        assert_int_equal(e, ERR_NOMEM);
    }
    peer_stop(&p);
    wire_settle(w);
    assert_int_equal(t.closed, e ? 0 : 1);
    assert_int_equal(t.replies + t.nulls, t.taken);
    return t.replies == COMMANDS;
}

struct told {
    unsigned answers;
    enum err error;
};

static void on_told(struct redis_sentinel *s, enum err e, const struct socket_address *master,
                    const char *cause, void *user)
{
    (void)s, (void)master, (void)cause;
    struct told *t = user;
    t->answers++;
    t->error = e;
}

static bool ask(struct wire *w)
{
    struct told t = {0};
    struct peer p;
    char folder[FOLDER_PATH_MAX];
    folder_make(folder);
    folder_write_secret(folder, "password", "pw");
    peer_listen(&p);
    const struct redis_sentinel_options o = {.master_name = "m",
                                             .user = "gw",
                                             .password_file = folder_path(folder, "password"),
                                             .client_name = "proofgw",
                                             .timeout_ms = 5000};
    struct redis_sentinel *s;
    enum err e = redis_sentinel_open(&w->loop, &o, on_told, &t, &s);
    if (!e) {
        assert_int_equal(redis_sentinel_ask(s, &p.address, NULL, 1), ERR_OK);
        if (s->conn) {
            peer_accept(w, &p);
            PEER_SAY(&p, "+OK\r\n+OK\r\n*2\r\n$8\r\n10.1.2.3\r\n$4\r\n6380\r\n");
        }
        WIRE_UNTIL(w, t.answers);
        wire_settle(w);
        assert_int_equal(t.answers, 1);
        redis_sentinel_close(s);
        peer_close(&p);
    }
    peer_stop(&p);
    folder_remove(folder);
    return !e && t.error == ERR_OK;
}

/* --- every place ------------------------------------------------------------------------------------ */

static void fail_everywhere(struct wire *w, bool (*conversation)(struct wire *w), long places_at_least)
{
    for (int for_good = 0; for_good < 2; for_good++) {
        long place = 0;
        bool went_well;
        do {
            failing_begin(place++, for_good);
            went_well = conversation(w);
            assert_int_equal(went_well, !failing_end());
        } while (!went_well);
        assert_true(place > places_at_least);
        assert_null(auth); /* the password outlives no conversation */
        assert_true(wiped > 0);
    }
}

static void a_conversation_without_memory(void **state)
{
    fail_everywhere(*state, talk, 15);
}

static void a_question_without_memory(void **state)
{
    fail_everywhere(*state, ask, 15);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, wire_setup, wire_teardown)
    const struct CMUnitTest tests[] = {
        T(a_conversation_without_memory),
        T(a_question_without_memory),
    };
    return cmocka_run_group_tests_name("redis_nomem", tests, NULL, NULL);
}
