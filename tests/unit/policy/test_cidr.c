/* cidr: what is accepted and refused (docs/CIDR.md has the same table), what the messages advise, canonical
 * text, order, and containment at both ends of every length. */
#include "helper_prefixes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

static const struct cidr_rules any_rules = {.v4_len_min = 1, .v6_len_min = 1, .allow_link_local = true};

static void refused(struct span text, const struct cidr_rules *rules, enum err expected, const char *advice)
{
    struct cidr c = {.len = 99};
    struct errmsg why;
    const enum err e = cidr_parse(text, rules, &c, &why);
    if (e != expected)
        fail_msg("%.*s: %s, expected %s", (int)text.n, text.p, err_text(e), err_text(expected));
    assert_int_equal(c.len, 99); /* untouched */
    assert_true(why.text[0] != '\0');
    if (advice && !strstr(why.text, advice)) fail_msg("\"%s\" does not say \"%s\"", why.text, advice);
}

static void not_a_prefix(const char *text, const char *advice)
{
    refused(span_str(text), &any_rules, ERR_PARSE, advice);
}

static void not_allowed(const char *text, const char *advice)
{
    refused(span_str(text), &cidr_rules_default, ERR_RANGE, advice);
}

/* Accepted without a warning, and written as `canonical`. */
static void accepted_by(const struct cidr_rules *rules, const char *text, const char *canonical)
{
    struct cidr c, again;
    struct errmsg why;
    char out[CIDR_TEXT_MAX];
    if (cidr_parse(span_str(text), rules, &c, &why)) fail_msg("%s: %s", text, why.text);
    assert_string_equal(why.text, "");
    assert_int_equal(cidr_format(&c, out), strlen(canonical));
    assert_string_equal(out, canonical);
    assert_int_equal(cidr_parse(span_str(out), rules, &again, &why), ERR_OK);
    assert_int_equal(cidr_compare(&c, &again), 0);
}

static void accepted(const char *text, const char *canonical)
{
    accepted_by(&cidr_rules_default, text, canonical);
}

static void warned(const struct cidr_rules *rules, const char *text, const char *canonical,
                   const char *warning)
{
    struct cidr c;
    struct errmsg why;
    char out[CIDR_TEXT_MAX];
    if (cidr_parse(span_str(text), rules, &c, &why)) fail_msg("%s: %s", text, why.text);
    cidr_format(&c, out);
    assert_string_equal(out, canonical);
    if (!strstr(why.text, warning)) fail_msg("\"%s\" does not say \"%s\"", why.text, warning);
}

static void plain_prefixes(void **state)
{
    (void)state;
    accepted("192.0.2.0/24", "192.0.2.0/24");
    accepted("10.0.0.0/16", "10.0.0.0/16");
    accepted("198.51.100.7/32", "198.51.100.7/32");
    accepted("255.255.255.255", "255.255.255.255/32");
    accepted("0.0.0.0", "0.0.0.0/32");
    accepted("2001:db8::/32", "2001:db8::/32");
    accepted("2001:db8::1/128", "2001:db8::1/128");
    accepted("::", "::/128");
    accepted("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128");
}

static void no_slash_is_one_host(void **state)
{
    (void)state;
    accepted("10.0.0.1", "10.0.0.1/32");
    accepted("2001:db8::1", "2001:db8::1/128");
}

static void several_at_once_are_refused(void **state)
{
    (void)state;
    not_a_prefix("192.0.2.7,192.0.2.8", "more than one address");
    not_a_prefix("192.0.2.7, 2001:db8::1", "more than one address");
    not_a_prefix("192.0.2.0/24, 198.51.100.0/24", "more than one address");
    not_a_prefix("192.0.2.0/24,198.51.100.7", "more than one address");
}

static void leading_zeros_in_addresses_are_refused(void **state)
{
    (void)state;
    not_a_prefix("010.0.0.1", "leading zero");
    not_a_prefix("10.0.0.01", "leading zero");
    not_a_prefix("010.0.0.0/8", "leading zero");
    not_a_prefix("00.0.0.0/8", "leading zero");
}

static void short_and_numeric_ipv4_is_refused(void **state)
{
    (void)state;
    not_a_prefix("10.1", "all four numbers");
    not_a_prefix("167772161", "all four numbers");
    not_a_prefix("10/8", "all four numbers");
    not_a_prefix("0x0a.0.0.1", "is not an IPv4 or IPv6 address");
}

static void missing_and_large_octets_are_refused(void **state)
{
    (void)state;
    not_a_prefix("...", "0 to 255");
    not_a_prefix("1..2.3", "0 to 255");
    not_a_prefix("1.2.3.", "0 to 255");
    not_a_prefix("256.0.0.1", "0 to 255");
    not_a_prefix("1.2.3.4.5", "all four numbers");
}

static void decoration_is_refused(void **state)
{
    (void)state;
    not_a_prefix(" 10.0.0.1", "space");
    not_a_prefix("10.0.0.1 ", "space");
    not_a_prefix("10.0.0.0 /8", "space");
    not_a_prefix("\t::1", "space");
    not_a_prefix("10.0.0.0/8 ", "plain digits");
    not_a_prefix("10.0.0.0/ 8", "plain digits");
    not_a_prefix("10.0.0.0/8\n", "plain digits");
    not_a_prefix("[::1]", "brackets");
    not_a_prefix("[2001:db8::]/32", "brackets");
    not_a_prefix("10.0.0.1:443", "port");
    not_a_prefix("10.0.0.1:443/32", "port");
    not_a_prefix("\xd9\xa1.2.3.4", "plain ASCII"); /* an Arabic digit */
    not_a_prefix("example.com", "is not an IPv4 or IPv6 address");
    not_a_prefix("", "address is missing");
    not_a_prefix("/8", "address is missing");
}

static void an_embedded_nul_is_refused(void **state)
{
    (void)state;
    refused(SPAN("10.0.0.1\0"), &any_rules, ERR_PARSE, "plain ASCII");
    refused(SPAN("10.0.0.0/8\0"), &any_rules, ERR_PARSE, "plain digits");
    refused(SPAN("10.0.0.0\0/8"), &any_rules, ERR_PARSE, "plain ASCII");
    refused(span_of(NULL, 0), &any_rules, ERR_PARSE, "address is missing");
}

static void host_bits_are_refused_with_the_network_to_write(void **state)
{
    (void)state;
    not_allowed("10.0.0.1/8", "10.0.0.1/8 has host bits set; write 10.0.0.0/8");
    not_allowed("192.0.2.129/25", "write 192.0.2.128/25");
    not_allowed("255.255.255.255/31", "write 255.255.255.254/31");
    not_allowed("2001:db8::1/32", "write 2001:db8::/32");
    not_allowed("2001:db8::1/127", "write 2001:db8::/127");
    not_allowed("2001:db8:0:1::/63", "write 2001:db8::/63");
}

static void host_bits_are_masked_with_a_warning_on_import(void **state)
{
    (void)state;
    struct cidr_rules import = cidr_rules_default;
    import.mask_host_bits = true;
    warned(&import, "10.1.2.3/16", "10.1.0.0/16", "taken as 10.1.0.0/16");
    warned(&import, "2001:db8::1/32", "2001:db8::/32", "taken as 2001:db8::/32");
    accepted_by(&import, "10.1.0.0/16", "10.1.0.0/16");
    refused(SPAN("10.1.2.3/7"), &import, ERR_RANGE, "/8 or longer");
    refused(SPAN("::ffff:10.1.2.3/16"), &import, ERR_RANGE, "write 10.1.0.0/16"); /* would be ::/16 */
}

static void a_length_is_plain_digits_in_range(void **state)
{
    (void)state;
    static const char *const bad[] = {"08",  "032",        "00",  "+8", "-1",  "33", "129",
                                      "999", "4294967304", "8/8", "8.", "0x8", "a",  "1e1"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char text[64] = "10.0.0.0/";
        memcpy(text + strlen(text), bad[i], strlen(bad[i]) + 1);
        not_a_prefix(text, "from 1 to 32");
    }
    not_a_prefix("2001:db8::/129", "from 1 to 128");
    not_a_prefix("2001:db8::/064", "from 1 to 128");
    not_a_prefix("2001:db8::/+64", "from 1 to 128");
    not_a_prefix("10.0.0.0/", "write 10.0.0.0/32");
    not_a_prefix("2001:db8::/", "write 2001:db8::/128");
}

static void masks_are_refused_with_the_length_to_write(void **state)
{
    (void)state;
    not_a_prefix("10.0.0.0/255.0.0.0", "write 10.0.0.0/8");
    not_a_prefix("10.0.0.0/0.255.255.255", "write 10.0.0.0/8");
    not_a_prefix("10.0.0.0/255.255.255.255", "write 10.0.0.0/32");
    not_a_prefix("10.0.0.0/255.0.255.0", "from 1 to 32");
    not_a_prefix("10.0.0.0/0.0.0.0", "from 1 to 32"); /* one host to some, everything to others */
}

static void everything_is_refused_whatever_the_rules(void **state)
{
    (void)state;
    const struct cidr_rules none = {.allow_link_local = true, .mask_host_bits = true};
    refused(SPAN("0.0.0.0/0"), &none, ERR_RANGE, "lets every address in");
    refused(SPAN("::/0"), &none, ERR_RANGE, "lets every address in");
    refused(SPAN("10.0.0.1/0"), &none, ERR_RANGE, "lets every address in");
    refused(SPAN("::ffff:0:0/96"), &none, ERR_RANGE, "lets every address in");
    not_allowed("0.0.0.0/0", "lets every address in");
}

static void short_prefixes_are_refused(void **state)
{
    (void)state;
    not_allowed("10.0.0.0/7", "/8 or longer");
    not_allowed("0.0.0.0/1", "/8 or longer");
    not_allowed("2000::/15", "/16 or longer");
    not_allowed("::ffff:10.0.0.0/103", "/8 or longer");
    const struct cidr_rules strict = {.v4_len_min = 24, .v6_len_min = 48};
    refused(SPAN("10.0.0.0/23"), &strict, ERR_RANGE, "/24 or longer");
    refused(SPAN("2001:db8::/47"), &strict, ERR_RANGE, "/48 or longer");
    accepted_by(&strict, "10.0.0.0/24", "10.0.0.0/24");
    accepted_by(&strict, "2001:db8::/48", "2001:db8::/48");
}

static void wide_prefixes_get_a_warning(void **state)
{
    (void)state;
    warned(&cidr_rules_default, "10.0.0.0/8", "10.0.0.0/8", "very wide");
    warned(&cidr_rules_default, "10.0.0.0/15", "10.0.0.0/15", "very wide");
    accepted("10.0.0.0/16", "10.0.0.0/16");
    warned(&cidr_rules_default, "2001::/16", "2001::/16", "very wide");
    warned(&cidr_rules_default, "2001:db0::/28", "2001:db0::/28", "very wide");
    accepted("2001:db8::/29", "2001:db8::/29");
}

static void mapped_prefixes_become_ipv4(void **state)
{
    (void)state;
    accepted("::ffff:192.0.2.1", "192.0.2.1/32");
    accepted("::ffff:192.0.2.0/120", "192.0.2.0/24");
    accepted("::ffff:c000:200/120", "192.0.2.0/24");
    accepted("::FFFF:10.1.0.0/112", "10.1.0.0/16");
    warned(&cidr_rules_default, "::ffff:10.0.0.0/104", "10.0.0.0/8", "very wide");
    not_allowed("::ffff:10.0.0.1/104", "write 10.0.0.0/8");
}

static void a_mapped_prefix_with_an_ipv4_length_is_refused(void **state)
{
    (void)state;
    not_allowed("::ffff:10.0.0.0/8", "write 10.0.0.0/8");
    not_allowed("::ffff:192.0.2.1/24", "write 192.0.2.0/24");
    not_allowed("::ffff:192.0.2.1/95", "write 192.0.2.1/32");
}

static void ipv6_that_embeds_ipv4_stays_ipv6(void **state)
{
    (void)state;
    accepted("2002:a00:1::/48", "2002:a00:1::/48");
    accepted("::10.0.0.1", "::a00:1/128");
    accepted("64:ff9b::192.0.2.1", "64:ff9b::c000:201/128");
    accepted("64:ff9b::/96", "64:ff9b::/96");
    accepted("::ffff:0:192.0.2.1", "::ffff:0:c000:201/128");
    accepted("2001::/32", "2001::/32");
}

static void a_wide_ipv6_prefix_never_has_ipv4(void **state)
{
    (void)state;
    struct cidr c;
    struct errmsg why;
    const struct cidr_rules no_floor = {0};
    assert_int_equal(cidr_parse(SPAN("::/8"), &no_floor, &c, &why), ERR_OK);
    assert_false(cidr_contains(&c, &(struct addr){.family = ADDR_V4, .v4 = UINT32_C(0x0a000001)}));
    const struct cidr all_v6 = {.net = {.family = ADDR_V6}};
    assert_false(cidr_contains(&all_v6, &(struct addr){.family = ADDR_V4, .v4 = UINT32_C(0x0a000001)}));
    assert_false(cidr_contains(&all_v6, &(struct addr){.family = ADDR_NONE}));
}

static void zones_are_refused(void **state)
{
    (void)state;
    not_a_prefix("fe80::1%eth0", "zone");
    not_a_prefix("fe80::%eth0/64", "zone");
    not_a_prefix("2001:db8::1%1", "zone");
}

static void link_local_is_refused_unless_allowed(void **state)
{
    (void)state;
    not_allowed("fe80::/10", "link-local");
    not_allowed("fe80::1", "link-local");
    not_allowed("febf:ffff::/32", "link-local");
    accepted("fec0::/32", "fec0::/32");
    const struct cidr_rules low_floor = {.v6_len_min = 1};
    refused(SPAN("fe00::/8"), &low_floor, ERR_RANGE, "link-local");
    struct cidr_rules allow = cidr_rules_default;
    allow.allow_link_local = true;
    accepted_by(&allow, "fe80::1", "fe80::1/128");
    refused(SPAN("fe80::/10"), &allow, ERR_RANGE, "/16 or longer");
}

static void ipv6_spellings(void **state)
{
    (void)state;
    not_a_prefix("2001:db8::00001", "is not an IPv4 or IPv6 address");
    not_a_prefix("1::2::3", "is not an IPv4 or IPv6 address");
    not_a_prefix(":::1", "is not an IPv4 or IPv6 address");
    not_a_prefix("64:ff9b::192.0.2.01", NULL);
    accepted("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0/128");
    accepted("2001:DB8:0:0:0:0:0:0/32", "2001:db8::/32");
    accepted("2001:0db8::0001", "2001:db8::1/128");
    accepted("2001:db8:0:1:0:0:0:0/64", "2001:db8:0:1::/64");
}

/* A hostile text does not reach a log or a terminal as it is, and does not fill the message. */
static void messages_show_texts_safely(void **state)
{
    (void)state;
    struct cidr c;
    struct errmsg why;
    char text[300];
    memset(text, 'x', sizeof text);
    assert_int_equal(cidr_parse(span_of(text, sizeof text), &any_rules, &c, &why), ERR_PARSE);
    assert_non_null(strstr(why.text, "xxx... is not an IPv4 or IPv6 address; write for example"));
    memcpy(text, "10.0.0.0/", 9);
    assert_int_equal(cidr_parse(span_of(text, sizeof text), &any_rules, &c, &why), ERR_PARSE);
    assert_non_null(strstr(why.text, "write for example"));
    for (size_t n = 1; n < sizeof text; n++) { /* whole up to 63 bytes, cut beyond */
        memset(text, 'x', n);
        assert_int_equal(cidr_parse(span_of(text, n), &any_rules, &c, &why), ERR_PARSE);
        assert_int_equal(strspn(why.text, "x"), n < 64 ? n : 60);
    }
    for (unsigned byte = 0; byte < 256; byte++) {
        text[0] = (char)byte;
        assert_int_equal(cidr_parse(span_of(text, 2), &any_rules, &c, &why), ERR_PARSE);
        for (const char *p = why.text; *p; p++)
            assert_in_range(*p, ' ', '~');
    }
}

static void order_is_family_network_length(void **state)
{
    (void)state;
    static const char *const ascending[] = {"0.0.0.0",       "9.0.0.0/8",   "10.0.0.0/8",  "10.0.0.0/9",
                                            "10.0.0.1",      "255.0.0.0/8", "::",          "2001:db8::/32",
                                            "2001:db8::/33", "2001:db8::",  "2001:db8::1", "2001:db8:1::1",
                                            "ffff:ffff::/32"};
    struct prefixes p = {0};
    for (size_t i = 0; i < COUNT_OF(ascending); i++)
        prefixes_text(&p, ascending[i]);
    for (uint32_t i = 0; i < p.n; i++)
        for (uint32_t k = 0; k < p.n; k++) {
            const int order = cidr_compare(&p.v[i], &p.v[k]);
            assert_int_equal((order > 0) - (order < 0), (i > k) - (i < k));
        }
    prefixes_free(&p);
}

/* Of every length: first and last address are in, those beside them are not. */
static void containment_at_both_ends_of_every_length(void **state)
{
    (void)state;
    struct prefixes p = {0};
    for (unsigned len = 1; len <= 32; len++)
        prefixes_v4(&p, UINT32_C(0xaaaaaaaa), len);
    for (uint32_t i = 0; i < p.n; i++) {
        const uint32_t first = p.v[i].net.v4, last = first + (uint32_t)(UINT64_C(1) << (32 - p.v[i].len)) - 1;
        assert_true(cidr_last(&p.v[i]).v4 == last);
        assert_true(cidr_contains(&p.v[i], &(struct addr){.family = ADDR_V4, .v4 = first}));
        assert_true(cidr_contains(&p.v[i], &(struct addr){.family = ADDR_V4, .v4 = last}));
        assert_false(cidr_contains(&p.v[i], &(struct addr){.family = ADDR_V4, .v4 = first - 1}));
        assert_false(cidr_contains(&p.v[i], &(struct addr){.family = ADDR_V4, .v4 = last + 1}));
    }
    p.n = 0;
    for (unsigned len = 1; len <= 128; len++)
        prefixes_v6(&p, UINT64_C(0xaaaaaaaaaaaaaaaa), UINT64_C(0xaaaaaaaaaaaaaaaa), len);
    for (uint32_t i = 0; i < p.n; i++) {
        typedef unsigned __int128 u128;
        const u128 first = (u128)p.v[i].net.v6.hi << 64 | p.v[i].net.v6.lo;
        const u128 last = first + (((u128)1 << (128 - p.v[i].len)) - 1);
        const u128 probes[] = {first, last, first - 1, last + 1};
        for (unsigned k = 0; k < 4; k++) {
            const struct addr a = {.family = ADDR_V6,
                                   .v6 = {(uint64_t)(probes[k] >> 64), (uint64_t)probes[k]}};
            assert_int_equal(cidr_contains(&p.v[i], &a), k < 2);
        }
        assert_true(cidr_last(&p.v[i]).v6.hi == (uint64_t)(last >> 64) &&
                    cidr_last(&p.v[i]).v6.lo == (uint64_t)last);
    }
    prefixes_free(&p);
}

static void generated_prefixes_survive_the_round_trip(void **state)
{
    (void)state;
    struct prefixes p = {0};
    struct prefixes_random r = {1};
    for (unsigned family = ADDR_V4; family <= ADDR_V6; family += ADDR_V6 - ADDR_V4) {
        prefixes_partner(&p, &r, (uint8_t)family, 20000);
        prefixes_cloud(&p, &r, (uint8_t)family, 20000);
    }
    prefixes_hostile(&p);
    for (uint32_t i = 0; i < p.n; i++) {
        struct cidr again;
        struct errmsg why;
        char text[CIDR_TEXT_MAX];
        const size_t n = cidr_format(&p.v[i], text);
        assert_int_equal(text[n], '\0');
        if (cidr_parse(span_of(text, n), &any_rules, &again, &why)) fail_msg("%s: %s", text, why.text);
        assert_int_equal(cidr_compare(&p.v[i], &again), 0);
    }
    prefixes_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_prefixes),
        cmocka_unit_test(no_slash_is_one_host),
        cmocka_unit_test(several_at_once_are_refused),
        cmocka_unit_test(leading_zeros_in_addresses_are_refused),
        cmocka_unit_test(short_and_numeric_ipv4_is_refused),
        cmocka_unit_test(missing_and_large_octets_are_refused),
        cmocka_unit_test(decoration_is_refused),
        cmocka_unit_test(an_embedded_nul_is_refused),
        cmocka_unit_test(host_bits_are_refused_with_the_network_to_write),
        cmocka_unit_test(host_bits_are_masked_with_a_warning_on_import),
        cmocka_unit_test(a_length_is_plain_digits_in_range),
        cmocka_unit_test(masks_are_refused_with_the_length_to_write),
        cmocka_unit_test(everything_is_refused_whatever_the_rules),
        cmocka_unit_test(short_prefixes_are_refused),
        cmocka_unit_test(wide_prefixes_get_a_warning),
        cmocka_unit_test(mapped_prefixes_become_ipv4),
        cmocka_unit_test(a_mapped_prefix_with_an_ipv4_length_is_refused),
        cmocka_unit_test(ipv6_that_embeds_ipv4_stays_ipv6),
        cmocka_unit_test(a_wide_ipv6_prefix_never_has_ipv4),
        cmocka_unit_test(zones_are_refused),
        cmocka_unit_test(link_local_is_refused_unless_allowed),
        cmocka_unit_test(ipv6_spellings),
        cmocka_unit_test(messages_show_texts_safely),
        cmocka_unit_test(order_is_family_network_length),
        cmocka_unit_test(containment_at_both_ends_of_every_length),
        cmocka_unit_test(generated_prefixes_survive_the_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
