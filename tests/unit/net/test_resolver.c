/* The resolver: the first list, lists that do not change, failures that keep the last one, closing while
 * busy. Only names that need no server: "localhost", and text that is no host name at all. */
#include "helper_net.h"
#include "net/resolver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { PORT = 4711 };

static const char no_name[] = "no..such..name";

struct asker {
    struct resolver resolver; /* first */
    unsigned changes, closed;
    struct address_list list;
};

static void on_changed(struct resolver *r, const struct address_list *list)
{
    struct asker *a = r->user;
    assert_true(r->loop->in_turn);
    assert_int_equal(a->closed, 0);
    a->list = *list;
    a->changes++;
}

static void on_closed(struct resolver *r)
{
    ((struct asker *)r->user)->closed++;
}

static void asker_open(struct asker *a, struct net_test *t, const char *host)
{
    *a = (struct asker){0};
    resolver_open(&a->resolver, &t->loop, host, PORT, on_changed, a);
    assert_int_equal(a->changes, 0); /* never before resolver_open() returns */
}

static void asker_close(struct asker *a, struct net_test *t)
{
    resolver_close(&a->resolver, on_closed);
    RUN_UNTIL(t, a->closed);
    assert_int_equal(a->closed, 1);
}

/* Asks again now instead of in half a minute, and waits for the answer. */
static void ask_again(struct asker *a, struct net_test *t)
{
    assert_false(a->resolver.busy);
    assert_true(list_is_linked(&a->resolver.due.link)); /* it would have, by itself */
    loop_turn(&t->loop);
    loop_deadline(&t->loop, &a->resolver.due, 0);
    RUN_UNTIL(t, a->resolver.busy);
    RUN_UNTIL(t, !a->resolver.busy);
}

static void localhost_is_this_machine(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    asker_open(&a, t, "localhost");
    RUN_UNTIL(t, a.changes);
    assert_in_range(a.list.n, 1, RESOLVER_ADDRESSES_MAX);
    for (uint32_t i = 0; i < a.list.n; i++) {
        char text[160];
        socket_address_format(&a.list.addresses[i], text, sizeof text);
        assert_true(strncmp(text, "127.", 4) == 0 || strcmp(text, "[::1]:4711") == 0);
        assert_int_equal(socket_address_port(&a.list.addresses[i]), PORT);
    }
    asker_close(&a, t);
}

static void an_address_is_a_name_as_well(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    char text[160];
    asker_open(&a, t, "127.0.0.9");
    RUN_UNTIL(t, a.changes);
    assert_int_equal(a.list.n, 1);
    socket_address_format(&a.list.addresses[0], text, sizeof text);
    assert_string_equal(text, "127.0.0.9:4711");
    asker_close(&a, t);
}

static void the_same_answer_is_no_change(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    asker_open(&a, t, "localhost");
    RUN_UNTIL(t, a.changes);
    ask_again(&a, t);
    ask_again(&a, t);
    assert_int_equal(a.changes, 1);
    asker_close(&a, t);
}

static void another_answer_is_a_change(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    asker_open(&a, t, "127.0.0.1");
    RUN_UNTIL(t, a.changes);
    a.resolver.host = "127.0.0.2"; /* the name has moved */
    ask_again(&a, t);
    assert_int_equal(a.changes, 2);
    assert_int_equal(a.list.n, 1);
    asker_close(&a, t);
}

static void a_failure_keeps_the_last_good_list(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    asker_open(&a, t, "127.0.0.1");
    RUN_UNTIL(t, a.changes);
    a.resolver.host = no_name;
    ask_again(&a, t);
    ask_again(&a, t);
    assert_int_equal(a.changes, 1);
    assert_int_equal(a.resolver.last.n, 1);
    assert_int_equal(a.resolver.failures, 2);
    a.resolver.host = "127.0.0.1";
    ask_again(&a, t);
    assert_int_equal(a.resolver.failures, 0);
    assert_int_equal(a.changes, 1); /* it is what it was */
    asker_close(&a, t);
}

static void a_name_that_never_resolves_is_asked_again(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    asker_open(&a, t, no_name);
    RUN_UNTIL(t, a.resolver.failures == 1);
    assert_int_equal(a.changes, 0);
    assert_int_equal(a.resolver.last.n, 0);
    ask_again(&a, t); /* asserts that a retry is due */
    assert_int_equal(a.resolver.failures, 2);
    asker_close(&a, t);
}

static void a_name_that_is_too_long_is_a_failure_like_others(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    char host[4096];
    memset(host, 'h', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    asker_open(&a, t, host);
    RUN_UNTIL(t, a.resolver.failures);
    assert_true(list_is_linked(&a.resolver.due.link));
    asker_close(&a, t);
    assert_int_equal(a.changes, 0);
}

static void closing_while_busy_ends_without_an_answer(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    asker_open(&a, t, "localhost");
    assert_true(a.resolver.busy);
    resolver_close(&a.resolver, on_closed);
    assert_int_equal(a.closed, 0); /* its thread has it still */
    RUN_UNTIL(t, a.closed);
    net_test_settle(t);
    assert_int_equal(a.closed, 1);
    assert_int_equal(a.changes, 0);
}

static void closing_at_rest_ends_at_once(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    asker_open(&a, t, "127.0.0.1");
    RUN_UNTIL(t, a.changes);
    resolver_close(&a.resolver, on_closed);
    assert_int_equal(a.closed, 1);
    assert_int_equal(t->loop.wheel.count, 0);
}

#define RESOLVER_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RESOLVER_TEST(localhost_is_this_machine),
        RESOLVER_TEST(an_address_is_a_name_as_well),
        RESOLVER_TEST(the_same_answer_is_no_change),
        RESOLVER_TEST(another_answer_is_a_change),
        RESOLVER_TEST(a_failure_keeps_the_last_good_list),
        RESOLVER_TEST(a_name_that_never_resolves_is_asked_again),
        RESOLVER_TEST(a_name_that_is_too_long_is_a_failure_like_others),
        RESOLVER_TEST(closing_while_busy_ends_without_an_answer),
        RESOLVER_TEST(closing_at_rest_ends_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
