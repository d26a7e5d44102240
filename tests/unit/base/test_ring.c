/* The log ring: order, wrapping, fullness, and one writer against one reader on two threads. */
#include "base/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { SMALL = 4096 };

static bool put(struct ring *r, uint32_t kind, const void *p, size_t n)
{
    char *room = ring_reserve(r, n);
    if (!room) return false;
    memcpy(room, p, n);
    ring_commit(r, kind, n);
    return true;
}

static void records_come_out_in_order(void **state)
{
    (void)state;
    struct ring r;
    uint32_t kind;
    size_t n;
    assert_int_equal(ring_init(&r, SMALL), ERR_OK);
    assert_null(ring_peek(&r, &kind, &n));
    assert_true(put(&r, 1, "first", 5));
    assert_true(put(&r, 2, "", 0));
    assert_true(put(&r, 3, "third one", 9));

    const char *p = ring_peek(&r, &kind, &n);
    assert_int_equal(kind, 1);
    assert_int_equal(n, 5);
    assert_memory_equal(p, "first", 5);
    assert_ptr_equal(ring_peek(&r, &kind, &n), p); /* still the oldest */
    ring_release(&r);
    assert_non_null(ring_peek(&r, &kind, &n));
    assert_int_equal(kind, 2);
    assert_int_equal(n, 0);
    ring_release(&r);
    p = ring_peek(&r, &kind, &n);
    assert_int_equal(kind, 3);
    assert_memory_equal(p, "third one", 9);
    ring_release(&r);
    assert_null(ring_peek(&r, &kind, &n));
    ring_deinit(&r);
}

static void size_is_rounded_up(void **state)
{
    (void)state;
    struct ring r;
    assert_int_equal(ring_init(&r, 0), ERR_OK);
    assert_true(r.size == 4096);
    ring_deinit(&r);
    assert_int_equal(ring_init(&r, 4097), ERR_OK);
    assert_true(r.size == 8192);
    ring_deinit(&r);
}

static void reservation_is_invisible_until_committed(void **state)
{
    (void)state;
    struct ring r;
    uint32_t kind;
    size_t n;
    assert_int_equal(ring_init(&r, SMALL), ERR_OK);
    assert_non_null(ring_reserve(&r, 100));
    assert_null(ring_peek(&r, &kind, &n));
    assert_true(put(&r, 9, "again", 5)); /* the abandoned reservation is made again */
    assert_non_null(ring_peek(&r, &kind, &n));
    assert_int_equal(n, 5);
    ring_deinit(&r);
}

static void commit_may_be_shorter_than_the_reservation(void **state)
{
    (void)state;
    struct ring r;
    uint32_t kind;
    size_t n;
    unsigned fitted = 0;
    assert_int_equal(ring_init(&r, SMALL), ERR_OK);
    for (char *room; (room = ring_reserve(&r, 1024)); fitted++) {
        room[0] = 'x';
        ring_commit(&r, 0, 1);
    }
    assert_in_range(fitted, 100, 256); /* 16 bytes each, not 1 KiB */
    assert_non_null(ring_peek(&r, &kind, &n));
    assert_int_equal(n, 1);
    ring_deinit(&r);
}

static void full_ring_drops_and_counts(void **state)
{
    (void)state;
    struct ring r;
    uint32_t kind;
    size_t n;
    char bytes[1000] = {0};
    unsigned fitted = 0;
    assert_int_equal(ring_init(&r, SMALL), ERR_OK);
    while (put(&r, 0, bytes, sizeof bytes))
        fitted++;
    assert_int_equal(fitted, 4); /* 1,008 bytes each */
    assert_int_equal(ring_dropped(&r), 1);
    assert_false(put(&r, 0, bytes, sizeof bytes));
    assert_int_equal(ring_dropped(&r), 2);

    assert_non_null(ring_peek(&r, &kind, &n));
    ring_release(&r);
    assert_true(put(&r, 0, bytes, 500)); /* there is room again */
    assert_int_equal(ring_dropped(&r), 2);
    ring_deinit(&r);
}

static void record_above_a_quarter_is_dropped(void **state)
{
    (void)state;
    struct ring r;
    assert_int_equal(ring_init(&r, SMALL), ERR_OK);
    assert_non_null(ring_reserve(&r, SMALL / 4));
    assert_null(ring_reserve(&r, SMALL / 4 + 1));
    assert_null(ring_reserve(&r, SIZE_MAX));
    assert_int_equal(ring_dropped(&r), 2);
    ring_deinit(&r);
}

/* Record number `i` of the wrap and thread tests: its length and bytes follow from the number. */
static size_t numbered_length(uint64_t i)
{
    return 4 + i * 7 % 900;
}

static void numbered_fill(char *p, uint64_t i)
{
    memset(p, (int)(i & 0xff), numbered_length(i));
}

static bool is_numbered(const char *p, size_t n, uint64_t i)
{
    if (n != numbered_length(i)) return false;
    for (size_t k = 0; k < n; k++)
        if (p[k] != (char)(i & 0xff)) return false;
    return true;
}

static void records_never_wrap(void **state)
{
    (void)state;
    struct ring r;
    assert_int_equal(ring_init(&r, SMALL), ERR_OK);
    uint64_t written = 0, read = 0;
    while (read < 20000) {
        for (char *room; (room = ring_reserve(&r, numbered_length(written)));) {
            assert_true(room + numbered_length(written) <= r.bytes + r.size);
            numbered_fill(room, written);
            ring_commit(&r, (uint32_t)written, numbered_length(written));
            written++;
        }
        for (uint64_t many = 1 + read % 3; many && read < written; many--, read++) {
            uint32_t kind;
            size_t n;
            const char *p = ring_peek(&r, &kind, &n);
            assert_non_null(p);
            assert_int_equal(kind, (uint32_t)read);
            assert_true(is_numbered(p, n, read));
            ring_release(&r);
        }
    }
    ring_deinit(&r);
}

enum { THREAD_RECORDS = 200000 };

static void *writer_run(void *arg)
{
    struct ring *r = arg;
    for (uint64_t i = 0; i < THREAD_RECORDS;) {
        char *room = ring_reserve(r, numbered_length(i));
        if (!room) {
            sched_yield();
            continue;
        }
        numbered_fill(room, i);
        ring_commit(r, (uint32_t)i, numbered_length(i));
        i++;
    }
    return NULL;
}

static void two_threads_see_the_same_records(void **state)
{
    (void)state;
    struct ring r;
    pthread_t writer;
    uint64_t wrong = 0;
    assert_int_equal(ring_init(&r, 16384), ERR_OK);
    assert_int_equal(pthread_create(&writer, NULL, writer_run, &r), 0);
    for (uint64_t i = 0; i < THREAD_RECORDS;) {
        uint32_t kind;
        size_t n;
        const char *p = ring_peek(&r, &kind, &n);
        if (!p) {
            sched_yield();
            continue;
        }
        wrong += kind != (uint32_t)i || !is_numbered(p, n, i);
        ring_release(&r);
        i++;
    }
    assert_int_equal(pthread_join(writer, NULL), 0);
    assert_int_equal(wrong, 0);
    ring_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_out_in_order),
        cmocka_unit_test(size_is_rounded_up),
        cmocka_unit_test(reservation_is_invisible_until_committed),
        cmocka_unit_test(commit_may_be_shorter_than_the_reservation),
        cmocka_unit_test(full_ring_drops_and_counts),
        cmocka_unit_test(record_above_a_quarter_is_dropped),
        cmocka_unit_test(records_never_wrap),
        cmocka_unit_test(two_threads_see_the_same_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
