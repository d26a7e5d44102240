/* Asking Sentinels for the master, against Sentinels that the test plays byte by byte, and against a real one
 * (skipped where no redis-server is installed). */
#include "helper_redis_server.h"
#include "helper_wire.h"
#include "store/redis_sentinel.h"
#include "support/skip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
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

enum { PEERS = 3 };

/* A user that asks three Sentinels: the fixture. */
struct asking {
    struct wire *w;
    struct told told;
    struct peer peers[PEERS];
    struct redis_sentinel *s; /* NULL = closed */
};

static void begin(struct asking *a)
{
    a->told = (struct told){0};
    for (unsigned i = 0; i < PEERS; i++)
        peer_listen(&a->peers[i]);
    a->s = open_with(a->w, &a->told, LONG_MS);
}

static void end(struct asking *a)
{
    redis_sentinel_close(a->s);
    for (unsigned i = 0; i < PEERS; i++) {
        peer_close(&a->peers[i]);
        peer_stop(&a->peers[i]);
    }
}

static int asking_setup(void **state)
{
    struct asking *a = calloc(1, sizeof *a);
    void *wire;
    assert_non_null(a);
    wire_setup(&wire);
    a->w = wire;
    begin(a);
    *state = a;
    return 0;
}

static int asking_teardown(void **state)
{
    struct asking *a = *state;
    void *wire = a->w;
    end(a);
    free(a);
    return wire_teardown(&wire);
}

static void ask_all(struct asking *a)
{
    struct socket_address addresses[PEERS];
    for (unsigned i = 0; i < PEERS; i++)
        addresses[i] = a->peers[i].address;
    assert_int_equal(redis_sentinel_ask(a->s, addresses, NULL, PEERS), ERR_OK);
}

static void close_now(struct asking *a)
{
    redis_sentinel_close(a->s);
    a->s = NULL;
}

static void ask_one(struct asking *a, unsigned i)
{
    assert_int_equal(redis_sentinel_ask(a->s, &a->peers[i].address, NULL, 1), ERR_OK);
}

/* Sentinel `i` is asked, says `answer`, and the connection to it ends. */
static void play(struct asking *a, unsigned i, const char *answer)
{
    struct peer *p = &a->peers[i];
    peer_accept(a->w, p);
    PEER_EXPECT(a->w, p, QUESTION);
    peer_say(p, answer, strlen(answer));
    peer_expect_end(a->w, p);
    peer_close(p);
}

static void the_first_one_knows(void **state)
{
    struct asking *a = *state;
    ask_all(a);
    assert_int_equal(a->told.answers, 0); /* never before it returns */
    play(a, 0, ANSWER);
    WIRE_UNTIL(a->w, a->told.answers);
    assert_int_equal(a->told.error, ERR_OK);
    assert_string_equal(a->told.master, "10.1.2.3:6380");
    assert_string_equal(a->told.cause, "");
}

static void logs_in_as_a_sentinel_user(void **state)
{
    struct asking *a = *state;
    struct peer *p = &a->peers[0];
    char folder[FOLDER_PATH_MAX];
    folder_make(folder);
    folder_write_secret(folder, "password", "pw\n");
    close_now(a);
    const struct redis_sentinel_options o = {.master_name = "mymaster",
                                             .user = "gw",
                                             .password_file = folder_path(folder, "password"),
                                             .client_name = "proofgw",
                                             .timeout_ms = 5000};
    assert_int_equal(redis_sentinel_open(&a->w->loop, &o, on_answer, &a->told, &a->s), ERR_OK);
    ask_one(a, 0);
    peer_accept(a->w, p);
    PEER_EXPECT(a->w, p, "*3\r\n$4\r\nAUTH\r\n$2\r\ngw\r\n$2\r\npw\r\n");
    PEER_SAY(p, "+OK\r\n");
    PEER_EXPECT(a->w, p, "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$7\r\nproofgw\r\n");
    PEER_SAY(p, "+OK\r\n");
    PEER_EXPECT(a->w, p, QUESTION);
    PEER_SAY(p, ANSWER);
    WIRE_UNTIL(a->w, a->told.answers);
    assert_int_equal(a->told.error, ERR_OK);
    folder_remove(folder);
}

static void an_ipv6_master(void **state)
{
    struct asking *a = *state;
    ask_all(a);
    play(a, 0, "*2\r\n$11\r\n2001:db8::7\r\n$4\r\n6379\r\n");
    WIRE_UNTIL(a->w, a->told.answers);
    assert_string_equal(a->told.master, "[2001:db8::7]:6379");
}

/* Every answer that is of no use: the next Sentinel is asked. */
static void the_next_one_is_asked_when_one_is_of_no_use(void **state)
{
    struct asking *a = *state;
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
        ask_all(a);
        play(a, 0, useless[i]);
        play(a, 1, ANSWER);
        WIRE_UNTIL(a->w, a->told.answers);
        assert_string_equal(a->told.master, "10.1.2.3:6380");
        end(a);
        begin(a);
    }
}

static void one_that_is_down_one_that_is_silent_one_that_knows(void **state)
{
    struct asking *a = *state;
    close_now(a);
    a->s = open_with(a->w, &a->told, SHORT_MS);
    peer_stop(&a->peers[0]);
    ask_all(a);
    peer_accept(a->w, &a->peers[1]);
    PEER_EXPECT(a->w, &a->peers[1], QUESTION);
    play(a, 2, ANSWER);
    WIRE_UNTIL(a->w, a->told.answers);
    assert_string_equal(a->told.master, "10.1.2.3:6380");
}

static void nobody_knows(void **state)
{
    struct asking *a = *state;
    ask_all(a);
    play(a, 0, "-NOAUTH Authentication required.\r\n");
    play(a, 1, "*2\r\n$13\r\nredis.example\r\n$4\r\n6380\r\n");
    play(a, 2, "*-1\r\n");
    WIRE_UNTIL(a->w, a->told.answers);
    wire_settle(a->w);
    assert_int_equal(a->told.answers, 1);
    assert_int_equal(a->told.error, ERR_NOT_FOUND);
    assert_string_equal(a->told.master, "");
    char want[REDIS_CAUSE_MAX], name[64];
    socket_address_format(&a->peers[2].address, name, sizeof name);
    (void)snprintf(want, sizeof want, "Sentinel %s: knows no master named mymaster", name);
    assert_string_equal(a->told.cause, want);
}

/* Dialling fails inside the call: the answer comes later all the same. */
static void nobody_can_be_dialled(void **state)
{
    struct asking *a = *state;
    struct socket_address missing[2];
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(socket_address_unix("/nonexistent/sentinel.sock", &missing[i]), ERR_OK);
    assert_int_equal(redis_sentinel_ask(a->s, missing, NULL, 2), ERR_OK);
    assert_int_equal(a->told.answers, 0);
    WIRE_UNTIL(a->w, a->told.answers);
    assert_int_equal(a->told.error, ERR_NOT_FOUND);
    assert_int_equal(redis_sentinel_ask(a->s, missing, NULL, 2), ERR_OK);
    close_now(a); /* with the answer on its way */
    wire_settle(a->w);
    assert_int_equal(a->told.answers, 1);
}

static void the_one_that_knew_is_asked_first_the_next_time(void **state)
{
    struct asking *a = *state;
    ask_all(a);
    play(a, 0, "*-1\r\n");
    play(a, 1, ANSWER);
    WIRE_UNTIL(a->w, a->told.answers);
    ask_all(a);
    play(a, 1, "*-1\r\n");
    play(a, 2, "*-1\r\n");
    play(a, 0, ANSWER); /* the round goes on from the front */
    WIRE_UNTIL(a->w, a->told.answers == 2);
    assert_int_equal(a->told.error, ERR_OK);
}

/* A Sentinel that is cut off names the old master for ever. */
static void one_that_was_wrong_is_not_asked_first_again(void **state)
{
    struct asking *a = *state;
    for (unsigned round = 0; round < PEERS + 1; round++) {
        ask_all(a);
        redis_sentinel_distrust(a->s); /* of no effect while the round is under way */
        play(a, round % PEERS, ANSWER);
        WIRE_UNTIL(a->w, a->told.answers == round + 1);
        redis_sentinel_distrust(a->s);
    }
}

static void the_list_may_change_between_rounds(void **state)
{
    struct asking *a = *state;
    ask_all(a);
    play(a, 0, "*-1\r\n");
    play(a, 1, "*-1\r\n");
    play(a, 2, ANSWER);
    WIRE_UNTIL(a->w, a->told.answers == 1);
    ask_one(a, 1); /* shorter than the last index */
    play(a, 1, ANSWER);
    WIRE_UNTIL(a->w, a->told.answers == 2);
    assert_int_equal(a->told.error, ERR_OK);
}

static void asking_in_the_answer(void **state)
{
    struct asking *a = *state;
    a->told.asks_again = &a->peers[2];
    ask_all(a);
    play(a, 0, ANSWER);
    play(a, 2, ANSWER);
    WIRE_UNTIL(a->w, a->told.answers == 2);
}

static void only_one_round_at_a_time(void **state)
{
    struct asking *a = *state;
    ask_all(a);
    assert_int_equal(redis_sentinel_ask(a->s, &a->peers[1].address, NULL, 1), ERR_AGAIN);
    play(a, 0, ANSWER);
    WIRE_UNTIL(a->w, a->told.answers == 1);
}

static void a_list_has_one_to_sixteen_sentinels(void **state)
{
    struct asking *a = *state;
    struct socket_address many[REDIS_SENTINELS_MAX + 1];
    for (unsigned i = 0; i < sizeof many / sizeof *many; i++)
        assert_int_equal(socket_address_unix("/nonexistent/sentinel.sock", &many[i]), ERR_OK);
    assert_int_equal(redis_sentinel_ask(a->s, many, NULL, 0), ERR_RANGE);
    assert_int_equal(redis_sentinel_ask(a->s, many, NULL, REDIS_SENTINELS_MAX + 1), ERR_RANGE);
    assert_int_equal(redis_sentinel_ask(a->s, many, NULL, REDIS_SENTINELS_MAX), ERR_OK);
    WIRE_UNTIL(a->w, a->told.answers);
}

static void closing_in_the_answer(void **state)
{
    struct asking *a = *state;
    a->told.closes = true;
    ask_one(a, 0);
    play(a, 0, ANSWER);
    WIRE_UNTIL(a->w, a->told.answers);
    a->s = NULL;
}

static void closing_during_a_round(void **state)
{
    struct asking *a = *state;
    struct peer *p = &a->peers[0];
    ask_one(a, 0);
    peer_accept(a->w, p);
    PEER_EXPECT(a->w, p, QUESTION);
    close_now(a);
    peer_expect_end(a->w, p);
    wire_settle(a->w);
    assert_int_equal(a->told.answers, 0);
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
static void ask_real(struct asking *a, const char *master_name, const char *password)
{
    struct redis_server server;
    if (!redis_server_is_installed()) SKIP("there is no redis-server here");
    redis_server_start_sentinel(&server, settings);
    struct redis_sentinel_options o = {
        .master_name = master_name, .client_name = "proofgw", .timeout_ms = 5000};
    if (password) {
        folder_write_secret(server.folder, "password", password);
        o.user = "gw";
        o.password_file = folder_path(server.folder, "password");
    }
    close_now(a);
    assert_int_equal(redis_sentinel_open(&a->w->loop, &o, on_answer, &a->told, &a->s), ERR_OK);
    assert_int_equal(redis_sentinel_ask(a->s, &server.address, NULL, 1), ERR_OK);
    WIRE_UNTIL(a->w, a->told.answers);
    close_now(a);
    redis_server_remove(&server);
}

static void a_real_sentinel_knows(void **state)
{
    struct asking *a = *state;
    ask_real(a, "mymaster", "pw\n");
    assert_string_equal(a->told.cause, "");
    assert_string_equal(a->told.master, "127.0.0.1:6399");
}

static void a_real_sentinel_without_that_master(void **state)
{
    struct asking *a = *state;
    ask_real(a, "another", "pw\n");
    assert_int_equal(a->told.error, ERR_NOT_FOUND);
}

static void a_real_sentinel_that_wants_a_password(void **state)
{
    struct asking *a = *state;
    ask_real(a, "mymaster", NULL);
    assert_int_equal(a->told.error, ERR_REFUSED);
    assert_non_null(strstr(a->told.cause, "NOAUTH"));
}

static void a_real_sentinel_with_another_password(void **state)
{
    struct asking *a = *state;
    ask_real(a, "mymaster", "hunter2\n");
    assert_int_equal(a->told.error, ERR_REFUSED);
    assert_non_null(strstr(a->told.cause, "WRONGPASS"));
    assert_null(strstr(a->told.cause, "hunter2"));
}

/* The file is looked at anew for each Sentinel, and nobody is asked without it. */
static void a_password_file_that_cannot_be_used(void **state)
{
    struct asking *a = *state;
    const struct redis_sentinel_options o = {
        .master_name = "mymaster", .password_file = "/nonexistent/password", .timeout_ms = LONG_MS};
    close_now(a);
    assert_int_equal(redis_sentinel_open(&a->w->loop, &o, on_answer, &a->told, &a->s), ERR_OK);
    ask_all(a);
    WIRE_UNTIL(a->w, a->told.answers);
    assert_int_equal(a->told.error, ERR_REFUSED);
    assert_non_null(strstr(a->told.cause, "/nonexistent/password"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, asking_setup, asking_teardown)
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
        cmocka_unit_test(closing_nothing),
        T(a_real_sentinel_knows),
        T(a_real_sentinel_without_that_master),
        T(a_real_sentinel_that_wants_a_password),
        T(a_real_sentinel_with_another_password),
        T(a_password_file_that_cannot_be_used),
    };
    return cmocka_run_group_tests_name("redis_sentinel", tests, NULL, NULL);
}
