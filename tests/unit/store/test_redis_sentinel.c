/* Asking Sentinels for the master, against Sentinels that the test plays byte by byte, and against a real one
 * (skipped where no redis-server is installed). */
#include "helper_redis_server.h"
#include "helper_wire.h"
#include "store/redis_sentinel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define QUESTION "*3\r\n$8\r\nSENTINEL\r\n$23\r\nget-master-addr-by-name\r\n$8\r\nmymaster\r\n"
#define ANSWER   "*2\r\n$8\r\n10.1.2.3\r\n$4\r\n6380\r\n"

/* What the user of a struct redis_sentinel heard. */
struct told {
    unsigned answers;
    enum err error;
    char master[64]; /* "" = none */
    char cause[REDIS_CAUSE_MAX];
    const struct peer *asks_again; /* asks this one in the callback, once */
    bool closes;                   /* calls redis_sentinel_close() in the callback */
};

static void on_answer(struct redis_sentinel *s, enum err e, const struct socket_address *master,
                      const char *cause, void *user)
{
    struct told *t = user;
    t->answers++;
    t->error = e;
    t->master[0] = '\0';
    assert_true((master != NULL) == (e == ERR_OK));
    if (master) socket_address_format(master, t->master, sizeof t->master);
    (void)snprintf(t->cause, sizeof t->cause, "%s", cause);
    const struct peer *again = t->asks_again;
    t->asks_again = NULL;
    if (again) assert_int_equal(redis_sentinel_ask(s, &again->address, NULL, 1), ERR_OK);
    if (t->closes) redis_sentinel_close(s);
}

/* So long that asking in the wrong order fails the test before the time-out hides it. */
enum { LONG_MS = 30000, SHORT_MS = 100 };

static struct redis_sentinel *open_with(struct wire *w, struct told *t, uint64_t timeout_ms)
{
    const struct redis_sentinel_options o = {.master_name = "mymaster", .timeout_ms = timeout_ms};
    struct redis_sentinel *s;
    assert_int_equal(redis_sentinel_open(&w->loop, &o, on_answer, t, &s), ERR_OK);
    return s;
}

static struct redis_sentinel *open_sentinel(struct wire *w, struct told *t)
{
    return open_with(w, t, LONG_MS);
}

enum { PEERS = 3 };

static void ask_all(struct redis_sentinel *s, const struct peer peers[static PEERS])
{
    struct socket_address addresses[PEERS];
    for (unsigned i = 0; i < PEERS; i++)
        addresses[i] = peers[i].address;
    assert_int_equal(redis_sentinel_ask(s, addresses, NULL, PEERS), ERR_OK);
}

/* The Sentinel is asked, says `answer`, and the connection to it ends. */
static void play(struct wire *w, struct peer *p, const char *answer)
{
    peer_accept(w, p);
    PEER_EXPECT(w, p, QUESTION);
    peer_say(p, answer, strlen(answer));
    peer_expect_end(w, p);
    peer_close(p);
}

static void listen_all(struct peer peers[static PEERS])
{
    for (unsigned i = 0; i < PEERS; i++)
        peer_listen(&peers[i]);
}

static void finish(struct redis_sentinel *s, struct peer peers[static PEERS])
{
    redis_sentinel_close(s);
    for (unsigned i = 0; i < PEERS; i++) {
        peer_close(&peers[i]);
        peer_stop(&peers[i]);
    }
}

static void the_first_one_knows(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer peers[PEERS];
    listen_all(peers);
    struct redis_sentinel *s = open_sentinel(w, &t);
    ask_all(s, peers);
    assert_int_equal(t.answers, 0); /* never before it returns */
    play(w, &peers[0], ANSWER);
    WIRE_UNTIL(w, t.answers);
    assert_int_equal(t.error, ERR_OK);
    assert_string_equal(t.master, "10.1.2.3:6380");
    assert_string_equal(t.cause, "");
    finish(s, peers);
}

static void logs_in_as_a_sentinel_user(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer p;
    char folder[FOLDER_PATH_MAX];
    folder_make(folder);
    folder_write_secret(folder, "password", "pw\n");
    peer_listen(&p);
    const struct redis_sentinel_options o = {.master_name = "mymaster",
                                             .user = "gw",
                                             .password_file = folder_path(folder, "password"),
                                             .client_name = "proofgw",
                                             .timeout_ms = 5000};
    struct redis_sentinel *s;
    assert_int_equal(redis_sentinel_open(&w->loop, &o, on_answer, &t, &s), ERR_OK);
    assert_int_equal(redis_sentinel_ask(s, &p.address, NULL, 1), ERR_OK);
    peer_accept(w, &p);
    PEER_EXPECT(w, &p, "*3\r\n$4\r\nAUTH\r\n$2\r\ngw\r\n$2\r\npw\r\n");
    PEER_SAY(&p, "+OK\r\n");
    PEER_EXPECT(w, &p, "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$7\r\nproofgw\r\n");
    PEER_SAY(&p, "+OK\r\n");
    PEER_EXPECT(w, &p, QUESTION);
    PEER_SAY(&p, ANSWER);
    WIRE_UNTIL(w, t.answers);
    assert_int_equal(t.error, ERR_OK);
    redis_sentinel_close(s);
    peer_close(&p);
    peer_stop(&p);
    folder_remove(folder);
}

static void an_ipv6_master(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer peers[PEERS];
    listen_all(peers);
    struct redis_sentinel *s = open_sentinel(w, &t);
    ask_all(s, peers);
    play(w, &peers[0], "*2\r\n$11\r\n2001:db8::7\r\n$4\r\n6379\r\n");
    WIRE_UNTIL(w, t.answers);
    assert_string_equal(t.master, "[2001:db8::7]:6379");
    finish(s, peers);
}

/* Every answer that is of no use: the next Sentinel is asked. */
static void the_next_one_is_asked_when_one_is_of_no_use(void **state)
{
    struct wire *w = *state;
    static const char *const useless[] = {
        "*-1\r\n",
        "$-1\r\n",
        "-NOAUTH Authentication required.\r\n",
        "-ERR unknown command\r\n",
        "$8\r\n10.1.2.3\r\n",
        "*0\r\n",
        "*1\r\n$8\r\n10.1.2.3\r\n",
        "*3\r\n$8\r\n10.1.2.3\r\n$4\r\n6380\r\n$1\r\nx\r\n",
        "*2\r\n$8\r\n10.1.2.3\r\n:6380\r\n",
        "*2\r\n:1\r\n$4\r\n6380\r\n",
        "*2\r\n$8\r\n10.1.2.3\r\n$1\r\n0\r\n",
        "*2\r\n$8\r\n10.1.2.3\r\n$5\r\n65536\r\n",
        "*2\r\n$8\r\n10.1.2.3\r\n$4\r\n63x0\r\n",
        "*2\r\n$8\r\n10.1.2.3\r\n$0\r\n\r\n",
        "*2\r\n$0\r\n\r\n$4\r\n6380\r\n",
        "*2\r\n$13\r\nredis.example\r\n$4\r\n6380\r\n",
        "?garbage\r\n",
    };
    for (size_t i = 0; i < sizeof useless / sizeof *useless; i++) {
        struct told t = {0};
        struct peer peers[PEERS];
        listen_all(peers);
        struct redis_sentinel *s = open_sentinel(w, &t);
        ask_all(s, peers);
        play(w, &peers[0], useless[i]);
        play(w, &peers[1], ANSWER);
        WIRE_UNTIL(w, t.answers);
        assert_string_equal(t.master, "10.1.2.3:6380");
        finish(s, peers);
    }
}

static void one_that_is_down_one_that_is_silent_one_that_knows(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer peers[PEERS];
    listen_all(peers);
    peer_stop(&peers[0]);
    struct redis_sentinel *s = open_with(w, &t, SHORT_MS);
    ask_all(s, peers);
    peer_accept(w, &peers[1]);
    PEER_EXPECT(w, &peers[1], QUESTION);
    play(w, &peers[2], ANSWER);
    WIRE_UNTIL(w, t.answers);
    assert_string_equal(t.master, "10.1.2.3:6380");
    finish(s, peers);
}

static void nobody_knows(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer peers[PEERS];
    listen_all(peers);
    struct redis_sentinel *s = open_sentinel(w, &t);
    ask_all(s, peers);
    play(w, &peers[0], "-NOAUTH Authentication required.\r\n");
    play(w, &peers[1], "*2\r\n$13\r\nredis.example\r\n$4\r\n6380\r\n");
    play(w, &peers[2], "*-1\r\n");
    WIRE_UNTIL(w, t.answers);
    wire_settle(w);
    assert_int_equal(t.answers, 1);
    assert_int_equal(t.error, ERR_NOT_FOUND);
    assert_string_equal(t.master, "");
    char want[REDIS_CAUSE_MAX], name[64];
    socket_address_format(&peers[2].address, name, sizeof name);
    (void)snprintf(want, sizeof want, "Sentinel %s: knows no master named mymaster", name);
    assert_string_equal(t.cause, want);
    finish(s, peers);
}

/* Dialling fails inside the call: the answer comes later all the same. */
static void nobody_can_be_dialled(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct socket_address missing[2];
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(socket_address_unix("/nonexistent/sentinel.sock", &missing[i]), ERR_OK);
    struct redis_sentinel *s = open_sentinel(w, &t);
    assert_int_equal(redis_sentinel_ask(s, missing, NULL, 2), ERR_OK);
    assert_int_equal(t.answers, 0);
    WIRE_UNTIL(w, t.answers);
    assert_int_equal(t.error, ERR_NOT_FOUND);
    assert_int_equal(redis_sentinel_ask(s, missing, NULL, 2), ERR_OK);
    redis_sentinel_close(s); /* with the answer on its way */
    wire_settle(w);
    assert_int_equal(t.answers, 1);
}

static void the_one_that_knew_is_asked_first_the_next_time(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer peers[PEERS];
    listen_all(peers);
    struct redis_sentinel *s = open_sentinel(w, &t);
    ask_all(s, peers);
    play(w, &peers[0], "*-1\r\n");
    play(w, &peers[1], ANSWER);
    WIRE_UNTIL(w, t.answers);
    ask_all(s, peers);
    play(w, &peers[1], "*-1\r\n");
    play(w, &peers[2], "*-1\r\n");
    play(w, &peers[0], ANSWER); /* the round goes on from the front */
    WIRE_UNTIL(w, t.answers == 2);
    assert_int_equal(t.error, ERR_OK);
    finish(s, peers);
}

/* A Sentinel that is cut off names the old master for ever. */
static void one_that_was_wrong_is_not_asked_first_again(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer peers[PEERS];
    listen_all(peers);
    struct redis_sentinel *s = open_sentinel(w, &t);
    for (unsigned round = 0; round < PEERS + 1; round++) {
        ask_all(s, peers);
        redis_sentinel_distrust(s); /* of no effect while the round is under way */
        play(w, &peers[round % PEERS], ANSWER);
        WIRE_UNTIL(w, t.answers == round + 1);
        redis_sentinel_distrust(s);
    }
    finish(s, peers);
}

static void the_list_may_change_between_rounds(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer peers[PEERS];
    listen_all(peers);
    struct redis_sentinel *s = open_sentinel(w, &t);
    ask_all(s, peers);
    play(w, &peers[0], "*-1\r\n");
    play(w, &peers[1], "*-1\r\n");
    play(w, &peers[2], ANSWER);
    WIRE_UNTIL(w, t.answers == 1);
    assert_int_equal(redis_sentinel_ask(s, &peers[1].address, NULL, 1),
                     ERR_OK); /* shorter than the last index */
    play(w, &peers[1], ANSWER);
    WIRE_UNTIL(w, t.answers == 2);
    assert_int_equal(t.error, ERR_OK);
    finish(s, peers);
}

static void asking_in_the_answer(void **state)
{
    struct wire *w = *state;
    struct peer peers[PEERS];
    listen_all(peers);
    struct told t = {.asks_again = &peers[2]};
    struct redis_sentinel *s = open_sentinel(w, &t);
    ask_all(s, peers);
    play(w, &peers[0], ANSWER);
    play(w, &peers[2], ANSWER);
    WIRE_UNTIL(w, t.answers == 2);
    finish(s, peers);
}

static void only_one_round_at_a_time(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer peers[PEERS];
    listen_all(peers);
    struct redis_sentinel *s = open_sentinel(w, &t);
    ask_all(s, peers);
    assert_int_equal(redis_sentinel_ask(s, &peers[1].address, NULL, 1), ERR_AGAIN);
    play(w, &peers[0], ANSWER);
    WIRE_UNTIL(w, t.answers == 1);
    finish(s, peers);
}

static void a_list_has_one_to_sixteen_sentinels(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct socket_address many[REDIS_SENTINELS_MAX + 1];
    for (unsigned i = 0; i < sizeof many / sizeof *many; i++)
        assert_int_equal(socket_address_unix("/nonexistent/sentinel.sock", &many[i]), ERR_OK);
    struct redis_sentinel *s = open_sentinel(w, &t);
    assert_int_equal(redis_sentinel_ask(s, many, NULL, 0), ERR_RANGE);
    assert_int_equal(redis_sentinel_ask(s, many, NULL, REDIS_SENTINELS_MAX + 1), ERR_RANGE);
    assert_int_equal(redis_sentinel_ask(s, many, NULL, REDIS_SENTINELS_MAX), ERR_OK);
    WIRE_UNTIL(w, t.answers);
    redis_sentinel_close(s);
}

static void closing_in_the_answer(void **state)
{
    struct wire *w = *state;
    struct told t = {.closes = true};
    struct peer p;
    peer_listen(&p);
    struct redis_sentinel *s = open_sentinel(w, &t);
    assert_int_equal(redis_sentinel_ask(s, &p.address, NULL, 1), ERR_OK);
    play(w, &p, ANSWER);
    WIRE_UNTIL(w, t.answers);
    peer_stop(&p);
}

static void closing_during_a_round(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer p;
    peer_listen(&p);
    struct redis_sentinel *s = open_sentinel(w, &t);
    assert_int_equal(redis_sentinel_ask(s, &p.address, NULL, 1), ERR_OK);
    peer_accept(w, &p);
    PEER_EXPECT(w, &p, QUESTION);
    redis_sentinel_close(s);
    peer_expect_end(w, &p);
    wire_settle(w);
    assert_int_equal(t.answers, 0);
    peer_close(&p);
    peer_stop(&p);
}

static void closing_nothing(void **state)
{
    (void)state;
    redis_sentinel_close(NULL);
}

/* --- a real one ------------------------------------------------------------------------------------- */

/* The rights that the documentation gives to the gateway's user. */
static const char settings[] =
    "user default off\n"
    "user gw on >pw -@all +auth +ping +client|setname +sentinel|get-master-addr-by-name\n"
    "sentinel monitor mymaster 127.0.0.1 6399 1\n";

/* Asks as the user "gw" with the password file that holds `password`; NULL: without a login. */
static void ask_real(struct wire *w, const char *master_name, const char *password, struct told *t)
{
    struct redis_server server;
    struct redis_sentinel *s;
    if (!redis_server_is_installed()) skip();
    redis_server_start_sentinel(&server, settings);
    struct redis_sentinel_options o = {
        .master_name = master_name, .client_name = "proofgw", .timeout_ms = 5000};
    if (password) {
        folder_write_secret(server.folder, "password", password);
        o.user = "gw";
        o.password_file = folder_path(server.folder, "password");
    }
    assert_int_equal(redis_sentinel_open(&w->loop, &o, on_answer, t, &s), ERR_OK);
    assert_int_equal(redis_sentinel_ask(s, &server.address, NULL, 1), ERR_OK);
    WIRE_UNTIL(w, t->answers);
    redis_sentinel_close(s);
    redis_server_remove(&server);
}

static void a_real_sentinel_knows(void **state)
{
    struct told t = {0};
    ask_real(*state, "mymaster", "pw\n", &t);
    assert_string_equal(t.cause, "");
    assert_string_equal(t.master, "127.0.0.1:6399");
}

static void a_real_sentinel_without_that_master(void **state)
{
    struct told t = {0};
    ask_real(*state, "another", "pw\n", &t);
    assert_int_equal(t.error, ERR_NOT_FOUND);
}

static void a_real_sentinel_that_wants_a_password(void **state)
{
    struct told t = {0};
    ask_real(*state, "mymaster", NULL, &t);
    assert_int_equal(t.error, ERR_REFUSED);
    assert_non_null(strstr(t.cause, "NOAUTH"));
}

static void a_real_sentinel_with_another_password(void **state)
{
    struct told t = {0};
    ask_real(*state, "mymaster", "hunter2\n", &t);
    assert_int_equal(t.error, ERR_REFUSED);
    assert_non_null(strstr(t.cause, "WRONGPASS"));
    assert_null(strstr(t.cause, "hunter2"));
}

/* The file is looked at anew for each Sentinel, and nobody is asked without it. */
static void a_password_file_that_cannot_be_used(void **state)
{
    struct wire *w = *state;
    struct told t = {0};
    struct peer peers[PEERS];
    struct redis_sentinel *s;
    const struct redis_sentinel_options o = {
        .master_name = "mymaster", .password_file = "/nonexistent/password", .timeout_ms = LONG_MS};
    listen_all(peers);
    assert_int_equal(redis_sentinel_open(&w->loop, &o, on_answer, &t, &s), ERR_OK);
    ask_all(s, peers);
    WIRE_UNTIL(w, t.answers);
    assert_int_equal(t.error, ERR_REFUSED);
    assert_non_null(strstr(t.cause, "/nonexistent/password"));
    finish(s, peers);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, wire_setup, wire_teardown)
    const struct CMUnitTest tests[] = {
        T(the_first_one_knows),
        T(logs_in_as_a_sentinel_user),
        T(an_ipv6_master),
        T(the_next_one_is_asked_when_one_is_of_no_use),
        T(one_that_is_down_one_that_is_silent_one_that_knows),
        T(nobody_knows),
        T(nobody_can_be_dialled),
        T(the_one_that_knew_is_asked_first_the_next_time),
        T(one_that_was_wrong_is_not_asked_first_again),
        T(the_list_may_change_between_rounds),
        T(asking_in_the_answer),
        T(only_one_round_at_a_time),
        T(a_list_has_one_to_sixteen_sentinels),
        T(closing_in_the_answer),
        T(closing_during_a_round),
        T(closing_nothing),
        T(a_real_sentinel_knows),
        T(a_real_sentinel_without_that_master),
        T(a_real_sentinel_that_wants_a_password),
        T(a_real_sentinel_with_another_password),
        T(a_password_file_that_cannot_be_used),
    };
    return cmocka_run_group_tests_name("redis_sentinel", tests, NULL, NULL);
}
