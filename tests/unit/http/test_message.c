/* Framing without llhttp in front: what message.c refuses must not depend on llhttp refusing it too. */
#include "http/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { FIELDS = 2 };

/* The refusal for up to two fields. */
static enum head_refusal framing_of(uint8_t minor, const char *const names[FIELDS],
                                    const char *const values[FIELDS], struct message *m)
{
    static struct http_field fields[FIELDS];
    uint32_t n = 0;
    for (; n < FIELDS && names[n]; n++)
        fields[n] = (struct http_field){.name = span_str(names[n]), .value = span_str(values[n])};
    message_index(m, fields, n, minor);
    return message_framing(m);
}

#define LENGTH "Content-Length"
#define CODING "Transfer-Encoding"

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        enum head_refusal refusal;
        uint8_t minor;
        const char *names[FIELDS], *values[FIELDS];
    } rows[] = {
        {HEAD_REFUSAL_CONTENT_LENGTH, 1, {LENGTH, LENGTH}, {"5", "5"}},
        {HEAD_REFUSAL_CONTENT_LENGTH, 1, {LENGTH, LENGTH}, {"5", "6"}},
        {HEAD_REFUSAL_CONTENT_LENGTH, 1, {LENGTH, CODING}, {"5", "chunked"}},
        {HEAD_REFUSAL_CONTENT_LENGTH, 1, {CODING, LENGTH}, {"chunked", "5"}},
        {HEAD_REFUSAL_CONTENT_LENGTH, 1, {LENGTH}, {""}},
        {HEAD_REFUSAL_CONTENT_LENGTH, 1, {LENGTH}, {"+5"}},
        {HEAD_REFUSAL_CONTENT_LENGTH, 1, {LENGTH}, {"5 "}},
        {HEAD_REFUSAL_CONTENT_LENGTH, 1, {LENGTH}, {"5, 5"}},
        {HEAD_REFUSAL_CONTENT_LENGTH, 1, {LENGTH}, {"18446744073709551616"}},
        {HEAD_REFUSAL_TRANSFER_ENCODING, 1, {CODING, CODING}, {"chunked", "chunked"}},
        {HEAD_REFUSAL_TRANSFER_ENCODING, 1, {CODING, CODING}, {"chunked", "identity"}},
        {HEAD_REFUSAL_TRANSFER_ENCODING, 1, {CODING}, {"chunked, chunked"}},
        {HEAD_REFUSAL_TRANSFER_ENCODING, 1, {CODING}, {"xchunked"}},
        {HEAD_REFUSAL_TRANSFER_ENCODING, 1, {CODING}, {""}},
        {HEAD_REFUSAL_TRANSFER_ENCODING, 0, {CODING}, {"chunked"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct message m;
        assert_int_equal(framing_of(rows[i].minor, rows[i].names, rows[i].values, &m), rows[i].refusal);
    }
}

static void test_accepted(void **state)
{
    (void)state;
    struct message m;
    const char *const length[FIELDS] = {LENGTH}, *const coding[FIELDS] = {CODING},
                      *const none[FIELDS] = {NULL};
    assert_int_equal(framing_of(0, length, (const char *const[FIELDS]){"007"}, &m), HEAD_REFUSAL_NONE);
    assert_true(m.has_content_length);
    assert_int_equal(m.content_length, 7);
    assert_int_equal(framing_of(1, coding, (const char *const[FIELDS]){"CHUNKED"}, &m), HEAD_REFUSAL_NONE);
    assert_true(m.is_chunked);
    assert_false(m.has_content_length);
    assert_int_equal(framing_of(1, none, none, &m), HEAD_REFUSAL_NONE);
    assert_false(m.is_chunked || m.has_content_length);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_accepted),
    };
    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
