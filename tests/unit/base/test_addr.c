/* Addresses: the strict grammar, the folding of mapped addresses, RFC 5952 output, and a comparison with
 * inet_pton(3) and inet_ntop(3) over a million deterministic texts near the border of the grammar. */
#include "base/addr.h"
#include "support/random.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <cmocka.h>

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

static void refused(const char *text, size_t n)
{
    struct addr a = {.family = 99};
    if (addr_parse(span_of(text, n), &a) != ERR_PARSE) fail_msg("accepted: %.*s", (int)n, text);
    assert_int_equal(a.family, 99); /* untouched */
}

static void comes_out_as(const char *text, const char *canonical)
{
    struct addr a;
    char out[ADDR_TEXT_MAX];
    if (addr_parse(span_str(text), &a)) fail_msg("refused: %s", text);
    assert_int_equal(addr_format(&a, out), strlen(canonical));
    assert_string_equal(out, canonical);
}

static void plain_v4(void **state)
{
    (void)state;
    comes_out_as("0.0.0.0", "0.0.0.0");
    comes_out_as("10.0.0.1", "10.0.0.1");
    comes_out_as("192.168.100.200", "192.168.100.200");
    comes_out_as("255.255.255.255", "255.255.255.255");
    struct addr a;
    assert_int_equal(addr_parse(SPAN("1.2.3.4"), &a), ERR_OK);
    assert_int_equal(a.family, ADDR_V4);
    assert_true(a.v4 == 0x01020304);
}

static void v4_spellings_that_others_guess_at(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "010.0.0.1",   "10.0.0.01",  "00.0.0.0", "10.1",      "167772161",  "0x0a.0.0.1", "10.0.0.0x1",
        "...",         "1..2.3",     "1.2.3.",   ".1.2.3",    "1.2.3",      "1.2.3.4.5",  "256.0.0.1",
        "1.2.3.256",   "1.2.3.1000", "1.2.3.-4", "1.2.3.+4",  "1.2.3.4/32", "1.2.3.4:80", "1.2.3.4%eth0",
        "1,2,3,4",     "1.2.3.a",    "",         "1",         "1.2.3.4.",   "localhost",  "4294967296.0.0.1",
        "[127.0.0.1]", "1.2.3.4\n",  "1. 2.3.4", "1.2.3.4 5", "0.0.0.00",   "1.2.3.04",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        refused(bad[i], strlen(bad[i]));
}

static void what_surrounds_an_address_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        " 10.0.0.1",
        "10.0.0.1 ",
        "\t::1",
        "::1 ",
        "[::1]",
        "[::1]:443",
        "::1/128",
        "fe80::1%1",
        "fe80::1%",
        "::1\n",
        "\xef\xbc\x91.2.3.4" /* full-width digit one */,
        "\xd9\xa1.2.3.4" /* Arabic digit one */,
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        refused(bad[i], strlen(bad[i]));
}

static void embedded_nul_is_refused(void **state)
{
    (void)state;
    refused("10.0.0.1\0", 9);
    refused("10.0.0.1\0.evil", 14);
    refused("::1\0", 4);
    refused("\0", 1);
    refused("", 0);
}

static void text_is_read_by_length(void **state)
{
    (void)state;
    struct addr a;
    assert_int_equal(addr_parse(span_of("10.0.0.123", 8), &a), ERR_OK);
    assert_true(a.v4 == 0x0a000001);
    assert_int_equal(addr_parse(span_of("::12", 3), &a), ERR_OK);
    assert_true(a.v6.hi == 0 && a.v6.lo == 1);
}

static void v6_spellings_become_one(void **state)
{
    (void)state;
    comes_out_as("::", "::");
    comes_out_as("::1", "::1");
    comes_out_as("1::", "1::");
    comes_out_as("2001:DB8::1", "2001:db8::1");
    comes_out_as("2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1");
    comes_out_as("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0");
    comes_out_as("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8");
    comes_out_as("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8");
    comes_out_as("64:ff9b::192.0.2.1", "64:ff9b::c000:201");
    comes_out_as("1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304");
    comes_out_as("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    comes_out_as("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
}

static void rfc5952_picks_the_longest_then_first_run(void **state)
{
    (void)state;
    comes_out_as("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"); /* section 4.2.2: one group stays */
    comes_out_as("2001:0:0:1:0:0:0:1", "2001:0:0:1::1");          /* section 4.2.3: longest */
    comes_out_as("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1");    /* section 4.2.3: first of equals */
    comes_out_as("1:0:0:2:3:4:0:0", "1::2:3:4:0:0");
    comes_out_as("0:0:1:2:3:4:5:6", "::1:2:3:4:5:6");
    comes_out_as("1:2:3:4:5:6:0:0", "1:2:3:4:5:6::");
}

static void v6_that_is_not_quite(void **state)
{
    (void)state;
    static const char *const bad[] = {
        ":",
        ":::",
        "1::2::3",
        "::1::",
        ":1",
        "1:",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:",
        ":1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7:8:",
        "1:2:3:4:5:6:7:8::",
        "::1:2:3:4:5:6:7:8",
        "1:2:3:4::5:6:7:8",
        "2001:db8::00001",
        "12345::",
        "g::",
        "::g",
        "::1.2.3",
        "::1.2.3.4.5",
        "::1.2.3.04",
        "::1.2.3.256",
        "::1.2.3.4:5",
        "1.2.3.4::",
        "::ffff:010.0.0.1",
        "1:2:3:4:5:6:7:1.2.3.4",
        "::12345.1.1.1",
        "::a.1.1.1",
        "1:2:3:4:5:6:7.8",
        "0x1::",
        "::-1",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        refused(bad[i], strlen(bad[i]));
}

static void mapped_addresses_become_v4(void **state)
{
    (void)state;
    static const char *const mapped[] = {
        "::ffff:192.0.2.1",         "::FFFF:c000:201",
        "0:0:0:0:0:ffff:192.0.2.1", "0000:0000:0000:0000:0000:ffff:c000:0201",
        "::ffff:c000:0201",
    };
    for (size_t i = 0; i < COUNT_OF(mapped); i++)
        comes_out_as(mapped[i], "192.0.2.1");
    comes_out_as("::ffff:0.0.0.0", "0.0.0.0");
    comes_out_as("::ffff:255.255.255.255", "255.255.255.255");
}

static void other_addresses_that_hold_a_v4_stay_v6(void **state)
{
    (void)state;
    comes_out_as("::192.0.2.1", "::c000:201");               /* v4-compatible */
    comes_out_as("2002:c000:201::", "2002:c000:201::");      /* 6to4 */
    comes_out_as("64:ff9b::c000:201", "64:ff9b::c000:201");  /* NAT64 */
    comes_out_as("2001:0:c000:201::", "2001:0:c000:201::");  /* Teredo */
    comes_out_as("::ffff:0:192.0.2.1", "::ffff:0:c000:201"); /* IPv4-translated */
    comes_out_as("::fffe:c000:201", "::fffe:c000:201");
    comes_out_as("0:0:0:1:0:ffff:c000:201", "::1:0:ffff:c000:201");
}

static void socket_addresses(void **state)
{
    (void)state;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = 80};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_scope_id = 3};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char out[ADDR_TEXT_MAX];

    assert_int_equal(inet_pton(AF_INET, "203.0.113.9", &in.sin_addr), 1);
    struct addr a = addr_from_sockaddr((struct sockaddr *)&in);
    addr_format(&a, out);
    assert_string_equal(out, "203.0.113.9");

    assert_int_equal(inet_pton(AF_INET6, "::ffff:203.0.113.9", &in6.sin6_addr), 1);
    struct addr mapped = addr_from_sockaddr((struct sockaddr *)&in6);
    assert_true(addr_eq(&a, &mapped));

    assert_int_equal(inet_pton(AF_INET6, "fe80::1", &in6.sin6_addr), 1);
    struct addr scoped = addr_from_sockaddr((struct sockaddr *)&in6), plain;
    assert_int_equal(addr_parse(SPAN("fe80::1"), &plain), ERR_OK);
    assert_true(addr_eq(&scoped, &plain));

    struct addr none = addr_from_sockaddr((struct sockaddr *)&un);
    assert_int_equal(none.family, ADDR_NONE);
    assert_int_equal(addr_format(&none, out), 1);
    assert_string_equal(out, "-");
}

static void octets_of_a_packet(void **state)
{
    static const uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff, [12] = 192, [13] = 0, [14] = 2, [15] = 1};
    static const uint8_t v6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
    char text[ADDR_TEXT_MAX];
    (void)state;
    struct addr a = addr_from_octets(ADDR_V4, mapped + 12), b = addr_from_octets(ADDR_V6, mapped);
    assert_int_equal(addr_format(&a, text), strlen("192.0.2.1"));
    assert_string_equal(text, "192.0.2.1");
    assert_true(addr_eq(&a, &b));
    a = addr_from_octets(ADDR_V6, v6);
    (void)addr_format(&a, text);
    assert_string_equal(text, "2001:db8::1");
    assert_int_equal(addr_from_octets(ADDR_NONE, v6).family, ADDR_NONE);
}

static void ports(void **state)
{
    static const char *const good[] = {"0", "1", "80", "65535"};
    static const char *const bad[] = {"",   "00", "080", "65536", "99999999999999999999",
                                      "-1", "+1", "1 ",  "0x1"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(addr_port_is_valid(span_str(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(addr_port_is_valid(span_str(bad[i])));
}

static void equality_needs_the_same_family(void **state)
{
    (void)state;
    struct addr v4 = {.family = ADDR_V4, .v4 = 1};
    struct addr v6 = {.family = ADDR_V6, .v6 = {0, 1}};
    struct addr other = {.family = ADDR_V6, .v6 = {1, 1}};
    struct addr none = {.family = ADDR_NONE, .v4 = 1};
    struct addr none2 = {.family = ADDR_NONE, .v4 = 2};
    assert_false(addr_eq(&v4, &v6));
    assert_false(addr_eq(&v6, &other));
    assert_true(addr_eq(&v6, &v6));
    assert_true(addr_eq(&none, &none2));
}

/* ---- against the C library ---- */

/* A text that is an address, or nearly one: pieces of addresses one after the other, or the text of a random
 * address with a few bytes changed. */
static void text_make(uint64_t *seed, char out[static 64])
{
    static const char *const pieces[] = {
        "0", "1", "9", "10", "255", "256", "01", "a",     "ffff", "db8",     "2001",  "00",      "0000",
        ":", ":", ":", "::", ".",   ".",   ".",  "ffff:", "FFFF", "::ffff:", "12345", "1.2.3.4", "0.0.0.0"};
    out[0] = '\0';
    uint64_t how = random_next(seed) % 4;
    if (how == 0) {
        size_t n = 0;
        for (uint64_t i = random_next(seed) % 18; i; i--) {
            const char *piece = pieces[random_next(seed) % COUNT_OF(pieces)];
            if (n + strlen(piece) > 60) break;
            n += (size_t)snprintf(out + n, 64 - n, "%s", piece);
        }
        return;
    }
    unsigned char bytes[16];
    for (size_t i = 0; i < sizeof bytes; i++) {
        uint64_t r = random_next(seed);
        bytes[i] = r & 0x300 ? 0 : (unsigned char)r; /* many zeros, for "::" */
    }
    if (how == 2) memcpy(bytes, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
    assert_non_null(inet_ntop(how == 1 ? AF_INET : AF_INET6, bytes, out, 64));
    static const char alphabet[] = "0123456789abcdefABCDEF::::....g/% ";
    for (uint64_t i = random_next(seed) % 3; i; i--)
        out[random_next(seed) % strlen(out)] = alphabet[random_next(seed) % (sizeof alphabet - 1)];
}

/* What the C library makes of the text; false when it refuses. */
static bool library_parse(const char *text, struct addr *out)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
        *out = addr_from_sockaddr((struct sockaddr *)&in);
        return true;
    }
    if (inet_pton(AF_INET6, text, &in6.sin6_addr) != 1) return false;
    *out = addr_from_sockaddr((struct sockaddr *)&in6);
    return true;
}

static void same_answers_as_inet_pton(void **state)
{
    (void)state;
    uint64_t seed = UINT64_C(0x9e3779b97f4a7c15);
    unsigned accepted = 0;
    for (int i = 0; i < 1000000; i++) {
        char text[64];
        struct addr ours, theirs;
        text_make(&seed, text);
        bool is_ours = addr_parse(span_str(text), &ours) == ERR_OK;
        bool is_theirs = library_parse(text, &theirs);
        if (is_ours != is_theirs) fail_msg("%s: we say %d, inet_pton says %d", text, is_ours, is_theirs);
        if (is_ours && !addr_eq(&ours, &theirs)) fail_msg("%s: another address than inet_pton", text);
        accepted += is_ours;
    }
    assert_in_range(accepted, 200000, 800000); /* both answers were really compared */
}

static void same_text_as_inet_ntop(void **state)
{
    (void)state;
    uint64_t seed = 42;
    for (int i = 0; i < 200000; i++) {
        unsigned char bytes[16];
        char ours[ADDR_TEXT_MAX], theirs[INET6_ADDRSTRLEN];
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        for (size_t k = 0; k < sizeof bytes; k++) {
            uint64_t r = random_next(&seed);
            bytes[k] = r & 0x300 ? 0 : (unsigned char)r;
        }
        memcpy(&in6.sin6_addr, bytes, sizeof bytes);
        struct addr a = addr_from_sockaddr((struct sockaddr *)&in6), again;
        size_t n = addr_format(&a, ours);
        assert_non_null(inet_ntop(AF_INET6, bytes, theirs, sizeof theirs));
        if (!strchr(theirs, '.')) assert_string_equal(ours, theirs); /* the dotted tail is theirs alone */
        assert_int_equal(addr_parse(span_of(ours, n), &again), ERR_OK);
        assert_true(addr_eq(&a, &again));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_v4),
        cmocka_unit_test(v4_spellings_that_others_guess_at),
        cmocka_unit_test(what_surrounds_an_address_is_refused),
        cmocka_unit_test(embedded_nul_is_refused),
        cmocka_unit_test(text_is_read_by_length),
        cmocka_unit_test(v6_spellings_become_one),
        cmocka_unit_test(rfc5952_picks_the_longest_then_first_run),
        cmocka_unit_test(v6_that_is_not_quite),
        cmocka_unit_test(mapped_addresses_become_v4),
        cmocka_unit_test(other_addresses_that_hold_a_v4_stay_v6),
        cmocka_unit_test(socket_addresses),
        cmocka_unit_test(octets_of_a_packet),
        cmocka_unit_test(ports),
        cmocka_unit_test(equality_needs_the_same_family),
        cmocka_unit_test(same_answers_as_inet_pton),
        cmocka_unit_test(same_text_as_inet_ntop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
