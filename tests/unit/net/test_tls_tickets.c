/* Keys of session tickets: own ones that change by time, shared ones from a file, and readers who never wait.
 */
#include "helper_certs.h"
#include "net/tls_tickets.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { LINE_BYTES = 162 };

/* A key whose bytes are all `byte`, as a line. */
static void key_line(char *to, unsigned byte)
{
    for (int i = 0; i < 80; i++)
        snprintf(to + 2 * i, 3, "%02x", byte);
    memcpy(to + 160, "\n", 2);
}

static void write_keys(const char *path, const char *first, const unsigned *bytes, size_t n)
{
    char text[1024] = {0};
    size_t at = strlen(first);
    memcpy(text, first, at);
    for (size_t i = 0; i < n; i++, at += LINE_BYTES - 1)
        key_line(text + at, bytes[i]);
    certs_write_text(path, text, 0600);
}

static bool knows(struct tls_tickets *t, unsigned byte)
{
    struct tls_ticket_key key;
    uint8_t name[TLS_TICKET_NAME_BYTES];
    memset(name, (int)byte, sizeof name);
    return tls_tickets_find(t, name, &key) && key.aes[31] == byte && key.hmac[31] == byte;
}

static void own_keys_differ_and_rotate(void **state)
{
    (void)state;
    struct tls_tickets *a, *b;
    struct tls_ticket_key keys[4], found;
    struct errmsg why;
    bool changed;
    assert_int_equal(tls_tickets_create(NULL, ROTATE_MS, 5, &why, &a), ERR_OK);
    assert_int_equal(tls_tickets_create(NULL, ROTATE_MS, 5, &why, &b), ERR_OK);
    tls_tickets_current(a, &keys[0]);
    tls_tickets_current(b, &keys[1]);
    assert_memory_not_equal(&keys[0], &keys[1], sizeof keys[0]);
    assert_int_equal(tls_tickets_refresh(a, 5 + ROTATE_MS - 1, &changed, &why), ERR_OK);
    assert_false(changed);
    assert_int_equal(tls_tickets_refresh(a, 5 + ROTATE_MS, &changed, &why), ERR_OK);
    assert_true(changed);
    tls_tickets_current(a, &keys[2]);
    assert_memory_not_equal(keys[0].aes, keys[2].aes, sizeof keys[0].aes);
    assert_true(tls_tickets_find(a, keys[0].name, &found));
    assert_memory_equal(&found, &keys[0], sizeof found);
    assert_true(tls_tickets_find(a, keys[2].name, &found));
    assert_int_equal(tls_tickets_refresh(a, 5 + 2ULL * ROTATE_MS, &changed, &why), ERR_OK);
    assert_false(tls_tickets_find(a, keys[0].name, &found));
    assert_true(tls_tickets_find(a, keys[2].name, &found));
    tls_tickets_unref(tls_tickets_ref(a));
    tls_tickets_unref(a);
    tls_tickets_unref(b);
    tls_tickets_unref(NULL);
}

static void keys_of_a_file_are_read_again(void **state)
{
    (void)state;
    struct tls_tickets *t;
    struct tls_ticket_key key;
    struct errmsg why;
    bool changed;
    const char *path = certs_path("tickets");
    write_keys(path, "# keys\n\n", (const unsigned[]){1, 2}, 2);
    assert_int_equal(tls_tickets_create(path, ROTATE_MS, 0, &why, &t), ERR_OK);
    tls_tickets_current(t, &key);
    assert_int_equal(key.name[0], 1);
    assert_true(knows(t, 1) && knows(t, 2) && !knows(t, 3));
    assert_int_equal(tls_tickets_refresh(t, 2ULL * ROTATE_MS, &changed, &why), ERR_OK);
    assert_false(changed);
    write_keys(path, "", (const unsigned[]){3, 1, 2, 4}, 4);
    assert_int_equal(tls_tickets_refresh(t, 0, &changed, &why), ERR_OK);
    assert_true(changed);
    tls_tickets_current(t, &key);
    assert_int_equal(key.name[0], 3);
    assert_true(knows(t, 1) && knows(t, 2) && knows(t, 4));
    write_keys(path, "", (const unsigned[]){5}, 1);
    assert_int_equal(tls_tickets_refresh(t, 0, &changed, &why), ERR_OK);
    assert_true(knows(t, 5) && !knows(t, 3) && !knows(t, 0));
    assert_int_equal(unlink(path), 0); /* then the old ones stay */
    assert_int_equal(tls_tickets_refresh(t, 0, &changed, &why), ERR_NOT_FOUND);
    assert_false(changed);
    assert_true(knows(t, 5));
    tls_tickets_unref(t);
}

/* As editors and other systems leave them. */
static void blanks_and_line_ends_do_not_matter(void **state)
{
    (void)state;
    char one[LINE_BYTES], two[LINE_BYTES], three[LINE_BYTES], text[1024];
    struct tls_tickets *t;
    struct errmsg why;
    const char *path = certs_path("blanks");
    key_line(one, 1);
    key_line(two, 2);
    key_line(three, 3);
    snprintf(text, sizeof text, " \t# a comment\r\n  %.160s\r\n%.160s \t\n \t \r\n\t%.160s", one, two, three);
    certs_write_text(path, text, 0600);
    assert_int_equal(tls_tickets_create(path, ROTATE_MS, 0, &why, &t), ERR_OK);
    assert_true(knows(t, 1) && knows(t, 2) && knows(t, 3));
    tls_tickets_unref(t);
}

static void bad_files_are_refused_with_a_reason(void **state)
{
    (void)state;
    char one[LINE_BYTES], twice[2 * LINE_BYTES], five[1024] = {0}, odd[200];
    key_line(one, 7);
    snprintf(twice, sizeof twice, "%s%s", one, one);
    for (unsigned i = 0; i < 5; i++)
        key_line(five + i * (LINE_BYTES - 1), i + 1);
    snprintf(odd, sizeof odd, "# x\n%.159sg\n", one);
    const struct {
        const char *text, *says;
        unsigned mode;
        enum err e;
    } cases[] = {
        {"", "holds no key", 0600, ERR_PARSE},
        {"# nothing\n", "openssl rand -hex 80", 0600, ERR_PARSE},
        {"0011", ":1: a key is 160", 0600, ERR_PARSE},
        {odd, ":2: a key is 160", 0600, ERR_PARSE},
        {twice, ":2: two keys", 0600, ERR_PARSE},
        {five, ":5: more than four", 0600, ERR_PARSE},
        {one, "everybody may read", 0604, ERR_REFUSED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tls_tickets *t = NULL;
        struct errmsg why = {0};
        const char *path = certs_path("bad");
        certs_write_text(path, cases[i].text, cases[i].mode);
        assert_int_equal(tls_tickets_create(path, ROTATE_MS, 0, &why, &t), cases[i].e);
        assert_non_null(strstr(why.text, cases[i].says));
        assert_non_null(strstr(why.text, path));
        assert_null(strstr(why.text, "0707")); /* nothing of a key */
        assert_null(t);
    }
    struct tls_tickets *t;
    struct errmsg why;
    assert_int_equal(tls_tickets_create(certs_path("missing"), ROTATE_MS, 0, &why, &t), ERR_NOT_FOUND);
    assert_int_equal(tls_tickets_create("/tmp", ROTATE_MS, 0, &why, &t), ERR_IO);
}

static atomic_bool stop;

/* Every key that a reader gets is whole: all its bytes are the same. */
static void *read_all_the_time(void *arg)
{
    struct tls_tickets *t = arg;
    struct tls_ticket_key key;
    size_t torn = 0;
    while (!atomic_load(&stop)) {
        tls_tickets_current(t, &key);
        for (size_t i = 0; i < sizeof key; i++)
            torn += ((const uint8_t *)&key)[i] != key.name[0];
    }
    return (void *)torn;
}

static void readers_never_see_half_a_key(void **state)
{
    (void)state;
    struct tls_tickets *t;
    struct errmsg why;
    pthread_t readers[2];
    const char *path = certs_path("changing");
    write_keys(path, "", (const unsigned[]){1}, 1);
    assert_int_equal(tls_tickets_create(path, ROTATE_MS, 0, &why, &t), ERR_OK);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_all_the_time, t), 0);
    for (unsigned i = 0; i < 500; i++) {
        bool changed;
        write_keys(path, "", (const unsigned[]){1 + i % 250}, 1);
        assert_int_equal(tls_tickets_refresh(t, 0, &changed, &why), ERR_OK);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 2; i++) {
        void *torn;
        assert_int_equal(pthread_join(readers[i], &torn), 0);
        assert_null(torn);
    }
    tls_tickets_unref(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_keys_differ_and_rotate),
        cmocka_unit_test(keys_of_a_file_are_read_again),
        cmocka_unit_test(blanks_and_line_ends_do_not_matter),
        cmocka_unit_test(bad_files_are_refused_with_a_reason),
        cmocka_unit_test(readers_never_see_half_a_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
