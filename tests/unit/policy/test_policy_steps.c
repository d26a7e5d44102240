/* What threads meet once in a million runs, made certain: the writer is stopped after each of its visible
 * steps and a reader decides; and the reader is stopped between its two look-ups while the writer does a
 * whole change. The sources are compiled into this file, with the calls between those steps redirected. */
#include "helper_partner.h"
#include "policy/cidr_tree.h"
#include "policy/decide.h"
#include "policy/policy.h"
#include "policy/key_table.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

static void (*at_writer_step)(void); /* before and after each */
static void (*at_reader_step)(void); /* between token and view, once */

static void probe(void)
{
    if (at_writer_step) at_writer_step();
}

static struct partner_view *stepping_publish(struct directory *d, uint32_t index, struct partner_view *v)
{
    probe();
    struct partner_view *old = directory_publish(d, index, v);
    probe();
    return old;
}

static enum err stepping_add(struct key_table *t, struct key128 key, uint32_t partner)
{
    probe();
    enum err e = key_table_add(t, key, partner);
    probe();
    return e;
}

static enum err stepping_assign(struct key_table *t, struct key128 key, uint32_t partner)
{
    probe();
    enum err e = key_table_assign(t, key, partner);
    probe();
    return e;
}

static enum err stepping_remove(struct key_table *t, struct key128 key)
{
    probe();
    enum err e = key_table_remove(t, key);
    probe();
    return e;
}

#define directory_publish stepping_publish
#define key_table_add     stepping_add
#define key_table_assign  stepping_assign
#define key_table_remove  stepping_remove
#include "policy/policy.c"
#include "policy/policy_apply.c"
#include "policy/policy_leave.c"
#undef directory_publish

static bool interrupted_find(const struct key_table *t, struct key128 key, uint32_t *partner)
{
    bool is_found = key_table_find(t, key, partner);
    void (*step)(void) = at_reader_step;
    at_reader_step = NULL;
    if (step) step();
    return is_found;
}

#define key_table_find interrupted_find
#include "policy/decide.c"

static struct policy *policy;

/* Verdicts that a connection could remember, with the generation they were reached at. */
static struct {
    struct decision decision;
    const char *token;
} remembered[4000];
static size_t nremembered, nsteps;

static int set_up(void **state)
{
    (void)state;
    at_writer_step = at_reader_step = NULL;
    nremembered = nsteps = 0;
    policy = policy_create();
    assert_non_null(policy);
    make_ready(policy);
    apply_expect(policy, partner_with("x", TOKEN_A, HOME), ERR_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    at_writer_step = NULL;
    policy_destroy(policy);
    return 0;
}

static enum deny ask(const char *token)
{
    struct decision d = decide_at(policy, ENV_PRODUCTION, token, AT_HOME, 0);
    assert_in_range(nremembered, 0, sizeof(remembered) / sizeof(remembered[0]) - 1);
    remembered[nremembered].decision = d;
    remembered[nremembered++].token = token;
    return d.deny;
}

/* No verdict that is remembered under the present generation differs from the present verdict. */
static void check_remembered(void)
{
    for (size_t i = 0; i < nremembered; i++) {
        if (remembered[i].decision.generation != policy_generation(policy)) continue;
        struct decision now = decide_at(policy, ENV_PRODUCTION, remembered[i].token, AT_HOME, 0);
        assert_int_equal(remembered[i].decision.deny, now.deny);
        assert_int_equal(remembered[i].decision.partner, now.partner);
    }
}

static void a_is_let_in(void)
{
    nsteps++;
    assert_int_equal(ask(TOKEN_A), DENY_NONE);
}

static void a_and_b_are_let_in(void)
{
    a_is_let_in();
    assert_int_equal(ask(TOKEN_B), DENY_NONE);
}

static void anything(void)
{
    nsteps++;
    (void)ask(TOKEN_A); /* only remembered */
    (void)ask(TOKEN_B);
    (void)ask(TOKEN_C);
}

/* --- the writer is stopped ------------------------------------------------------------------------- */

static void test_rotating(void **state)
{
    (void)state;
    at_writer_step = a_is_let_in;
    struct partner r = partner_with("x", TOKEN_B, HOME);
    partner_give(&r, SLOT_PREVIOUS, TOKEN_A);
    r.previous_expires_ms = 5000;
    apply_expect(policy, r, ERR_OK);
    assert_true(nsteps > 0);
    check_remembered();
}

static void test_renaming(void **state)
{
    (void)state;
    at_writer_step = a_is_let_in;
    policy_sync_begin(policy);
    apply_expect(policy, partner_with("y", TOKEN_A, HOME), ERR_OK);
    check_remembered();
    assert_int_equal(policy_sync_end(policy, NULL), ERR_OK);
    assert_true(nsteps > 0);
    check_remembered();
}

static void test_exchanging(void **state)
{
    (void)state;
    apply_expect(policy, partner_with("y", TOKEN_B, HOME), ERR_OK);
    at_writer_step = a_and_b_are_let_in;
    policy_sync_begin(policy);
    apply_expect(policy, partner_with("x", TOKEN_B, HOME), ERR_OK);
    check_remembered();
    apply_expect(policy, partner_with("y", TOKEN_A, HOME), ERR_OK);
    check_remembered();
    assert_int_equal(policy_sync_end(policy, NULL), ERR_OK);
    assert_true(nsteps > 0);
    check_remembered();
}

static void test_the_loser_comes_first(void **state)
{
    (void)state;
    at_writer_step = a_is_let_in;
    policy_sync_begin(policy);
    apply_expect(policy, partner_with("x", TOKEN_C, HOME), ERR_OK);
    check_remembered();
    apply_expect(policy, partner_with("y", TOKEN_A, HOME), ERR_OK);
    assert_int_equal(policy_sync_end(policy, NULL), ERR_OK);
    assert_true(nsteps > 0);
    check_remembered();
}

/* Whatever a reader met half-way, it does not keep it for longer than the change takes. */
static void test_nothing_old_is_remembered_as_new(void **state)
{
    (void)state;
    at_writer_step = anything;
    apply_expect(policy, partner_with("y", TOKEN_B, HOME), ERR_OK);
    check_remembered();
    apply_expect(policy, partner_with("x", TOKEN_C, HOME), ERR_OK);
    check_remembered();
    apply_expect(policy, partner_with("y", TOKEN_B, "198.51.100.0/24"), ERR_OK);
    check_remembered();
    assert_int_equal(policy_remove(policy, SPAN("y")), ERR_OK);
    check_remembered();
    policy_sync_begin(policy);
    apply_expect(policy, partner_with("x", TOKEN_A, HOME), ERR_OK);
    check_remembered();
    policy_sync_abort(policy);
    check_remembered();
    assert_true(nsteps > 0);
}

/* --- the reader is stopped ------------------------------------------------------------------------- */

static void rename_x(void)
{
    policy_sync_begin(policy);
    apply_expect(policy, partner_with("y", TOKEN_A, HOME), ERR_OK);
    assert_int_equal(policy_sync_end(policy, NULL), ERR_OK);
}

static void move_a_from_x_to_y(void)
{
    policy_sync_begin(policy);
    apply_expect(policy, partner_with("x", TOKEN_C, HOME), ERR_OK);
    apply_expect(policy, partner_with("y", TOKEN_A, HOME), ERR_OK);
    assert_int_equal(policy_sync_end(policy, NULL), ERR_OK);
}

static void leave_a_to_a_ghost(void)
{
    policy_sync_begin(policy);
    apply_expect(policy, partner_with("x", TOKEN_C, HOME), ERR_OK);
}

static void rotate_x(void)
{
    struct partner r = partner_with("x", TOKEN_B, HOME);
    partner_give(&r, SLOT_PREVIOUS, TOKEN_A);
    r.previous_expires_ms = 5000;
    apply_expect(policy, r, ERR_OK);
}

static void remove_x(void)
{
    assert_int_equal(policy_remove(policy, SPAN("x")), ERR_OK);
    policy_collect(policy);
    apply_expect(policy, partner_with("z", TOKEN_B, HOME), ERR_OK);
}

static void replace_the_token_of_x(void)
{
    apply_expect(policy, partner_with("x", TOKEN_C, HOME), ERR_OK);
}

static void test_changes_between_the_look_ups(void **state)
{
    static const struct {
        void (*change)(void);
        enum deny want;
        const char *partner; /* NULL: only that there is none, or that it has no name */
    } rows[] = {
        {rename_x, DENY_NONE, "y"},
        {move_a_from_x_to_y, DENY_NONE, "y"},
        {leave_a_to_a_ghost, DENY_NONE, NULL},
        {rotate_x, DENY_NONE, "x"},
        {remove_x, DENY_TOKEN_UNKNOWN, NULL},
        {replace_the_token_of_x, DENY_TOKEN_UNKNOWN, NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct epoch_reader *r;
        assert_int_equal(epochs_register(policy_epochs(policy), &r), ERR_OK);
        epoch_online(r);
        at_reader_step = rows[i].change;
        struct decision d = decide_at(policy, ENV_PRODUCTION, TOKEN_A, AT_HOME, 0);
        assert_null(at_reader_step);
        assert_int_equal(d.deny, rows[i].want);
        if (rows[i].partner) assert_int_equal(d.partner, policy_find(policy, span_str(rows[i].partner)));
        assert_true(d.generation < policy_generation(policy));
        epoch_offline(r);
        tear_down(state);
        set_up(state);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rotating),
        TEST(test_renaming),
        TEST(test_exchanging),
        TEST(test_the_loser_comes_first),
        TEST(test_nothing_old_is_remembered_as_new),
        TEST(test_changes_between_the_look_ups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
