/* cidr_tree with readers on other threads while the writer works. */
#include "helper_tree.h"
#include "helper_twin.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

enum { READERS = 2, WRITER_STEPS = 20000, LOOKUPS = 20000 };

struct shared {
    struct open_tree f;
    struct epoch_reader *reader[READERS];
    struct prefixes kept, changed; /* kept: never removed; changed: comes and goes */
    struct twin kept_twin, ever_twin;
    _Atomic(uint32_t) lookups[READERS];
    _Atomic(bool) is_done;
};

struct reader_arg {
    struct shared *shared;
    unsigned index;
};

/* Finds what was always there, does not find what never was. Anything in between may be either. */
static void look_up(const struct shared *s, const struct addr *a)
{
    const bool is_found = cidr_tree_has(s->f.tree, a);
    if (twin_has(&s->kept_twin, a) && !is_found) abort();
    if (!twin_has(&s->ever_twin, a) && is_found) abort();
}

static void *read_until_done(void *arg)
{
    struct reader_arg *reader = arg;
    struct shared *s = reader->shared;
    struct epoch_reader *announce = s->reader[reader->index];
    struct prefixes_random r = {reader->index};
    while (!atomic_load_explicit(&s->is_done, memory_order_acquire)) {
        epoch_online(announce);
        for (unsigned turn = 0; turn < 50; turn++) {
            const struct prefixes *p = prefixes_below(&r, 2) ? &s->kept : &s->changed;
            const struct cidr *c = &p->v[prefixes_below(&r, p->n)];
            struct addr a = prefixes_inside(&r, c);
            look_up(s, &a);
            if (a.family == ADDR_V4)
                a.v4 ^= 1u << prefixes_below(&r, 32);
            else
                a.v6.hi ^= UINT64_C(1) << prefixes_below(&r, 64);
            look_up(s, &a);
        }
        atomic_fetch_add_explicit(&s->lookups[reader->index], 50, memory_order_relaxed);
        if (prefixes_below(&r, 4) == 0) epoch_offline(announce);
    }
    epoch_offline(announce);
    return NULL;
}

static bool have_readers_seen_enough(struct shared *s)
{
    for (unsigned i = 0; i < READERS; i++)
        if (atomic_load_explicit(&s->lookups[i], memory_order_relaxed) < LOOKUPS) return false;
    return true;
}

static void write_all(struct shared *s)
{
    struct prefixes_random r = {99};
    bool *is_in = calloc(s->changed.n, sizeof *is_in);
    assert_non_null(is_in);
    for (uint32_t i = 0; i < WRITER_STEPS || !have_readers_seen_enough(s); i++) {
        const uint32_t k = prefixes_below(&r, s->changed.n);
        const struct cidr *c = &s->changed.v[k];
        assert_int_equal(is_in[k] ? cidr_tree_remove(s->f.tree, c) : cidr_tree_add(s->f.tree, c), ERR_OK);
        is_in[k] = !is_in[k];
        if (i % 16 == 0) (void)epochs_collect(s->f.epochs);
    }
    free(is_in);
}

static void readers_are_never_wrong_while_the_writer_works(void **state)
{
    (void)state;
    struct shared s = {.f = tree_open()};
    struct prefixes_random r = {18};
    struct prefixes ever = {0};
    for (unsigned family = ADDR_V4; family <= ADDR_V6; family += ADDR_V6 - ADDR_V4) {
        prefixes_partner(&s.kept, &r, (uint8_t)family, 1000);
        prefixes_partner(&s.changed, &r, (uint8_t)family, 500);
        prefixes_routed(&s.changed, &r, (uint8_t)family, 20);
        for (uint32_t i = 0; i < 200; i++) { /* beside what is kept: the same chunks */
            const struct addr a = s.kept.v[s.kept.n - 1 - i].net;
            if (family == ADDR_V4)
                prefixes_v4(&s.changed, a.v4 ^ 0x80, 26);
            else
                prefixes_v6(&s.changed, a.v6.hi ^ 0x80, a.v6.lo, i % 2 ? 60 : 70);
        }
    }
    for (uint32_t i = 0; i < s.kept.n; i++)
        prefixes_push(&ever, s.kept.v[i]);
    for (uint32_t i = 0; i < s.changed.n; i++)
        prefixes_push(&ever, s.changed.v[i]);
    twin_init(&s.kept_twin, s.kept.v, s.kept.n);
    twin_init(&s.ever_twin, ever.v, ever.n);
    assert_int_equal(cidr_tree_build(s.f.tree, prefixes_next_of, &(struct prefixes_feed){s.kept.v, s.kept.n}),
                     ERR_OK);

    pthread_t threads[READERS];
    struct reader_arg args[READERS];
    for (unsigned i = 0; i < READERS; i++) {
        args[i] = (struct reader_arg){.shared = &s, .index = i};
        assert_int_equal(epochs_register(s.f.epochs, &s.reader[i]), ERR_OK);
        assert_int_equal(pthread_create(&threads[i], NULL, read_until_done, &args[i]), 0);
    }
    write_all(&s);
    atomic_store_explicit(&s.is_done, true, memory_order_release);
    for (unsigned i = 0; i < READERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        epochs_unregister(s.f.epochs, s.reader[i]);
    }
    assert_int_equal(epochs_collect(s.f.epochs), 0);
    twin_free(&s.kept_twin);
    twin_free(&s.ever_twin);
    prefixes_free(&ever);
    prefixes_free(&s.kept);
    prefixes_free(&s.changed);
    tree_close(&s.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(readers_are_never_wrong_while_the_writer_works)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
