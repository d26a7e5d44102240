/* Packed records: everything comes back, nothing malformed is believed. */
#include "helper_records.h"
#include "policy/policy.h"
#include "store/packed.h"
#include "store/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void read_record(unsigned number, struct partner_record *out)
{
    char line[RECORD_LINE_MAX];
    struct record_report report = {0};
    size_t n = record_line(number, 0, line);
    assert_int_equal(record_parse(span_of(line, n), 1, out, &report), ERR_OK);
}

static void assert_same(const struct partner *a, const struct partner *b)
{
    assert_string_equal(a->id, b->id);
    assert_memory_equal(a->widget_id, b->widget_id, UUID_BYTES);
    assert_true(a->enabled == b->enabled && a->off_ramp == b->off_ramp);
    assert_memory_equal(a->has_token, b->has_token, sizeof a->has_token);
    assert_memory_equal(a->digest, b->digest, sizeof a->digest);
    assert_int_equal(a->previous_expires_ms, b->previous_expires_ms);
    assert_int_equal(a->ncertificates, b->ncertificates);
    assert_memory_equal(a->certificates, b->certificates, a->ncertificates * CERTIFICATE_DIGEST_BYTES);
    for (unsigned env = 0; env < ENV_COUNT; env++) {
        assert_int_equal(a->ncidrs[env], b->ncidrs[env]);
        for (uint32_t i = 0; i < a->ncidrs[env]; i++)
            assert_int_equal(cidr_compare(&a->cidrs[env][i], &b->cidrs[env][i]), 0);
    }
}

static void test_a_record_comes_back(void **state)
{
    (void)state;
    struct bytes room = {0};
    for (unsigned number = 0; number < 300; number++) {
        struct partner_record record;
        struct bytes b = {0};
        struct packed r;
        struct partner found;
        read_record(number, &record);
        record.partner.ncertificates = (uint8_t)(number % (PARTNER_CERTIFICATES_MAX + 1));
        memset(record.partner.certificates, (int)number, sizeof record.partner.certificates);
        assert_int_equal(packed_add(&b, &record.partner, 7 + number, 0), ERR_OK);
        assert_int_equal(packed_look(span_of(b.p, b.n), &r, NULL), ERR_OK);
        assert_true(r.bytes == b.n && r.version == 7 + number);
        assert_int_equal(packed_partner(&r, &room, &found), ERR_OK);
        assert_same(&found, &record.partner);
        record_deinit(&record);
        bytes_deinit(&b);
    }
    bytes_deinit(&room);
}

/* From the policy, what comes back is the same policy. */
static void test_a_view_comes_back(void **state)
{
    (void)state;
    struct bytes room = {0};
    struct policy *a = policy_create(), *b = policy_create();
    assert_true(a && b);
    for (unsigned number = 0; number < 300; number++) {
        struct partner_record record;
        struct bytes bytes = {0};
        struct packed r;
        struct partner found;
        bool changed;
        read_record(number, &record);
        assert_int_equal(policy_apply(a, &record.partner, &changed), ERR_OK);
        const struct partner_view *v = policy_view(a, policy_find(a, span_str(record.partner.id)));
        assert_int_equal(packed_add_view(&bytes, v, 1, PACKED_REFUSED), ERR_OK);
        assert_int_equal(packed_look(span_of(bytes.p, bytes.n), &r, NULL), ERR_OK);
        assert_true(r.flags & PACKED_REFUSED);
        assert_int_equal(packed_partner(&r, &room, &found), ERR_OK);
        assert_int_equal(policy_apply(b, &found, &changed), ERR_OK);
        record_deinit(&record);
        bytes_deinit(&bytes);
    }
    struct policy_stats of_a, of_b;
    policy_stats(a, &of_a);
    policy_stats(b, &of_b);
    assert_true(of_a.partners == of_b.partners && of_a.tokens == of_b.tokens &&
                of_a.prefixes == of_b.prefixes);
    policy_destroy(a);
    policy_destroy(b);
    bytes_deinit(&room);
}

static void test_a_cut_record_asks_for_more(void **state)
{
    (void)state;
    struct partner_record record;
    struct bytes b = {0};
    struct packed r;
    read_record(5, &record);
    assert_int_equal(packed_add(&b, &record.partner, 1, 0), ERR_OK);
    for (size_t n = 0; n < b.n; n++) {
        size_t need = 0;
        assert_int_equal(packed_look(span_of(b.p, n), &r, &need), ERR_AGAIN);
        assert_int_equal(need, n < PACKED_HEAD_BYTES ? PACKED_HEAD_BYTES : b.n);
    }
    record_deinit(&record);
    bytes_deinit(&b);
}

/* Every byte changed in every way that matters: never a crash, never a partner with more than the record has.
 */
static void test_damaged_records(void **state)
{
    (void)state;
    struct bytes room = {0};
    struct partner_record record;
    struct bytes b = {0};
    unsigned nrefused = 0;
    read_record(5, &record);
    assert_int_equal(packed_add(&b, &record.partner, 1, 0), ERR_OK);
    char *exact = malloc(b.n); /* so that the sanitizer sees a byte too far */
    assert_non_null(exact);
    for (size_t i = 0; i < b.n; i++) {
        for (unsigned flip = 1; flip < 256; flip += 3) {
            struct packed r;
            struct partner found;
            memcpy(exact, b.p, b.n);
            exact[i] = (char)(exact[i] ^ (char)flip);
            enum err e = packed_look(span_of(exact, b.n), &r, NULL);
            if (!e) e = packed_partner(&r, &room, &found);
            nrefused += e != ERR_OK;
        }
    }
    assert_true(nrefused > 1000);
    free(exact);
    record_deinit(&record);
    bytes_deinit(&b);
    bytes_deinit(&room);
}

static void test_a_bare_record_has_no_partner(void **state)
{
    (void)state;
    struct bytes room = {0};
    struct bytes b = {0};
    struct packed r;
    struct partner found;
    assert_int_equal(packed_add_bare(&b, SPAN("acme"), 9, PACKED_DELETED), ERR_OK);
    assert_int_equal(packed_look(span_of(b.p, b.n), &r, NULL), ERR_OK);
    assert_true(r.version == 9 && r.flags == PACKED_DELETED && span_eq(r.id, SPAN("acme")));
    assert_int_equal(packed_partner(&r, &room, &found), ERR_PARSE);
    bytes_deinit(&b);
    bytes_deinit(&room);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_record_comes_back),          cmocka_unit_test(test_a_view_comes_back),
        cmocka_unit_test(test_a_cut_record_asks_for_more),   cmocka_unit_test(test_damaged_records),
        cmocka_unit_test(test_a_bare_record_has_no_partner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
