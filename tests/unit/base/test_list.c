/* Lists: against a naive twin, what removing leaves behind, and what may change while a list is walked. */
#include "base/list.h"
#include "support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { ITEMS = 8 };

struct item {
    char name;
    struct list_link link; /* not the first member */
};

struct items {
    struct list_link head;
    struct item all[ITEMS]; /* named from 'a' on; their links are all zero */
};

static void items_init(struct items *s)
{
    memset(s, 0, sizeof *s);
    list_init(&s->head);
    for (unsigned i = 0; i < ITEMS; i++)
        s->all[i].name = (char)('a' + i);
}

static void append(struct items *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        list_append(&s->head, &s->all[i].link);
}

/* The names of all, forwards and backwards. */
static void assert_list(const struct list_link *head, const char *names)
{
    size_t n = 0, length = strlen(names);
    LIST_EACH(link, head) {
        assert_true(n < length);
        assert_int_equal(CONTAINER_OF(link, struct item, link)->name, names[n++]);
    }
    assert_int_equal(n, length);
    for (struct list_link *link = head->prev; link != head; link = link->prev) {
        assert_true(n > 0);
        assert_int_equal(CONTAINER_OF(link, struct item, link)->name, names[--n]);
    }
    assert_int_equal(n, 0);
    assert_int_equal(list_is_empty(head), length == 0);
}

static void both_ends_keep_their_order(void **state)
{
    (void)state;
    struct items s;
    items_init(&s);
    assert_list(&s.head, "");
    list_append(&s.head, &s.all[1].link);
    assert_list(&s.head, "b");
    list_append(&s.head, &s.all[2].link);
    list_prepend(&s.head, &s.all[0].link);
    list_append(&s.head, &s.all[3].link);
    assert_list(&s.head, "abcd");
}

/* The twin: the names in the order of the list. */
static void twin_remove(char *names, char name)
{
    char *at = strchr(names, name);
    if (at) memmove(at, at + 1, strlen(at));
}

static void agrees_with_a_naive_twin(void **state)
{
    (void)state;
    uint64_t seed = 0x9e3779b97f4a7c15u;
    struct items s;
    char names[ITEMS + 1] = "";
    items_init(&s);
    for (unsigned round = 0; round < 20000; round++) {
        uint64_t r = random_next(&seed);
        struct item *item = &s.all[r % ITEMS];
        size_t n = strlen(names);
        assert_int_equal(list_is_linked(&item->link), strchr(names, item->name) != NULL);
        if (list_is_linked(&item->link)) {
            list_remove(&item->link);
            twin_remove(names, item->name);
        } else if (r >> 32 & 1) {
            list_append(&s.head, &item->link);
            names[n] = item->name;
            names[n + 1] = 0;
        } else {
            list_prepend(&s.head, &item->link);
            memmove(names + 1, names, n + 1);
            names[0] = item->name;
        }
        assert_list(&s.head, names);
    }
}

static void removing_twice_is_harmless(void **state)
{
    (void)state;
    struct items s;
    items_init(&s);
    list_remove(&s.all[0].link); /* it never was in a list */
    append(&s, 2);
    list_remove(&s.all[0].link);
    list_remove(&s.all[0].link);
    assert_list(&s.head, "b");
    list_append(&s.head, &s.all[0].link);
    assert_list(&s.head, "ba");
}

static void a_whole_list_moves(void **state)
{
    static const char *const names[] = {"", "a", "ab", "abc"};
    (void)state;
    for (unsigned n = 0; n < sizeof names / sizeof names[0]; n++) {
        struct items s;
        struct list_link to;
        items_init(&s);
        memset(&to, 0xa5, sizeof to); /* it need not be initialised */
        append(&s, n);
        list_move(&s.head, &to);
        assert_list(&s.head, "");
        assert_list(&to, names[n]);
        list_append(&s.head, &s.all[7].link); /* both are in use now */
        list_prepend(&to, &s.all[6].link);
        assert_list(&s.head, "h");
        for (unsigned i = 0; i < n; i++)
            list_remove(&s.all[i].link);
        assert_list(&to, "g");
    }
}

static void a_walk_may_take_out_others(void **state)
{
    (void)state;
    struct items s;
    unsigned met = 0;
    items_init(&s);
    append(&s, 5);
    LIST_EACH(link, &s.head) {
        met++;
        if (link != &s.all[1].link) continue;
        list_remove(&s.all[0].link); /* behind it */
        list_remove(&s.all[2].link); /* the next one */
    }
    assert_int_equal(met, 4);
    assert_list(&s.head, "bde");
}

/* What the header describes: whoever is called may free others of the list, and come again. */
static void a_list_that_is_moved_aside_may_change(void **state)
{
    (void)state;
    struct items s;
    struct list_link aside;
    unsigned met = 0;
    items_init(&s);
    append(&s, 5);
    list_move(&s.head, &aside);
    while (!list_is_empty(&aside)) {
        struct item *item = CONTAINER_OF(aside.next, struct item, link);
        list_remove(&item->link);
        list_append(&s.head, &item->link);
        if (met++) continue;
        list_remove(&s.all[1].link);
        memset(&s.all[1], 0xa5, sizeof s.all[1]); /* its owner has freed it */
        list_remove(&s.all[4].link);
        list_append(&s.head, &s.all[4].link); /* not met: it is not in the list that is walked */
    }
    assert_int_equal(met, 3);
    assert_list(&s.head, "aecd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_keep_their_order), cmocka_unit_test(agrees_with_a_naive_twin),
        cmocka_unit_test(removing_twice_is_harmless), cmocka_unit_test(a_whole_list_moves),
        cmocka_unit_test(a_walk_may_take_out_others), cmocka_unit_test(a_list_that_is_moved_aside_may_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
