/* What goes out is what is answered: a change that cannot be sent is not waited for, those before it are. The
 * source is compiled into this file, with a link that the test plays. */
#include "proofctl/redis_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CHANGES = 5 };

static struct {
    unsigned sent, answered;
    unsigned sent_max; /* then nothing goes out any more */
} server;

static enum err fake_begin(struct backend_redis *r)
{
    r->base.ncommitted = 0;
    return ERR_OK;
}

static enum err fake_send(struct redis_link *l, size_t argc, const char *const *argv, const size_t *lengths)
{
    (void)l, (void)argc, (void)argv, (void)lengths;
    if (server.sent == server.sent_max) return ERR_UNREACHABLE;
    server.sent++;
    return ERR_OK;
}

static enum err fake_receive(struct redis_link *l, uint64_t wait_ms, redisReply **out)
{
    static const char answer[] = "*3\r\n$1\r\n7\r\n$1\r\n1\r\n$16\r\n0123456789abcdef\r\n";
    redisReader *reader = redisReaderCreate();
    void *reply;
    (void)l, (void)wait_ms;
    assert_true(server.answered < server.sent); /* or else it would wait in vain */
    server.answered++;
    assert_int_equal(redisReaderFeed(reader, answer, sizeof answer - 1), REDIS_OK);
    assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
    redisReaderFree(reader);
    *out = reply;
    return ERR_OK;
}

static const char *fake_fault(const struct redis_link *l)
{
    (void)l;
    return "the connection broke";
}

static enum err fake_fail_link(struct backend_redis *r, enum err e)
{
    return redis_fail(r, e, "%s", fake_fault(r->link));
}

#undef fail /* cmocka's macro */
#define redis_begin        fake_begin
#define redis_link_send    fake_send
#define redis_link_receive fake_receive
#define redis_link_fault   fake_fault
#define redis_fail_link    fake_fail_link
#include "proofctl/redis_commit.c"

static void commit_of_five(unsigned sent_max, struct backend_redis *r, enum err expected)
{
    static const struct backend_version version = {{'1'}};
    struct backend_change changes[CHANGES];
    for (unsigned i = 0; i < CHANGES; i++)
        changes[i] = (struct backend_change){.id = "acme", .expected = &version, .audit = SPAN("{}")};
    server.sent = server.answered = 0;
    server.sent_max = sent_max;
    *r = (struct backend_redis){.has_schema = true};
    redis_keys_init(&r->keys, "cfg");
    assert_int_equal(redis_commit(&r->base, changes, CHANGES), expected);
}

static void every_change_is_answered(void **state)
{
    struct backend_redis *r = calloc(1, sizeof *r);
    (void)state;
    commit_of_five(CHANGES, r, ERR_OK);
    assert_int_equal(server.answered, CHANGES);
    assert_int_equal(r->base.ncommitted, CHANGES);
    assert_int_equal(r->base.sequence, 7);
    free(r);
}

static void what_was_sent_before_a_failure_is_answered(void **state)
{
    struct backend_redis *r = calloc(1, sizeof *r);
    (void)state;
    for (unsigned sent = 0; sent < CHANGES; sent++) {
        char says[32];
        commit_of_five(sent, r, ERR_UNREACHABLE);
        assert_int_equal(server.sent, sent);
        assert_int_equal(server.answered, sent);
        assert_int_equal(r->base.ncommitted, sent);
        assert_string_equal(r->base.faults.list[0].text, "the connection broke");
        if (sent == 0) continue;
        (void)snprintf(says, sizeof says, "%u of 5 changes were made", sent);
        assert_non_null(strstr(r->base.faults.list[1].text, says));
    }
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_change_is_answered),
        cmocka_unit_test(what_was_sent_before_a_failure_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
