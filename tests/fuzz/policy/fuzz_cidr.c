/* cidr_parse() against inet_pton(3) and the length rules written out once more: both accept the same texts
 * and mean the same prefix. What cidr_format() writes is read back, and messages are fit to print. */
#include "policy/cidr.h"

#include <arpa/inet.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void check(bool is_true)
{
    if (!is_true) abort();
}

/* The address before the slash as 16 bytes, IPv4 in the last four. False when the C library refuses it. */
static bool library_address(struct span s, uint8_t out[16], bool *is_v6)
{
    char text[INET6_ADDRSTRLEN + 8];
    if (!span_to_cstr(s, text, sizeof text)) return false;
    memset(out, 0, 16);
    *is_v6 = inet_pton(AF_INET6, text, out) == 1;
    return *is_v6 || inet_pton(AF_INET, text, out + 12) == 1;
}

static bool library_length(struct span s, unsigned max, unsigned *len)
{
    uint64_t v;
    if (!span_to_u64(s, &v) || v > max || (s.n > 1 && s.p[0] == '0')) return false;
    *len = (unsigned)v;
    return true;
}

static bool has_host_bits(const uint8_t *a, unsigned bits, unsigned len)
{
    for (unsigned i = len; i < bits; i++)
        if (a[i / 8] >> (7 - i % 8) & 1) return true;
    return false;
}

/* What the default rules accept. `a` and `len` are those of the family that is returned. */
static enum addr_family expected(struct span text, uint8_t a[16], unsigned *len)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const char *slash = text.n ? memchr(text.p, '/', text.n) : NULL;
    const struct span address = span_of(text.p, slash ? (size_t)(slash - text.p) : text.n);
    bool is_v6;
    if (!library_address(address, a, &is_v6)) return ADDR_NONE;
    *len = is_v6 ? 128 : 32;
    if (slash && !library_length(span_of(slash + 1, text.n - address.n - 1), *len, len)) return ADDR_NONE;
    if (is_v6 && memcmp(a, mapped, sizeof mapped) == 0) {
        if (*len < 96) return ADDR_NONE;
        *len -= 96;
        is_v6 = false;
    }
    if (has_host_bits(is_v6 ? a : a + 12, is_v6 ? 128 : 32, *len)) return ADDR_NONE;
    if (*len < (is_v6 ? 16 : 8)) return ADDR_NONE;
    if (is_v6 && a[0] == 0xfe && (a[1] & 0xc0) == 0x80) return ADDR_NONE;
    return is_v6 ? ADDR_V6 : ADDR_V4;
}

static uint64_t big_endian(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static void check_message(const struct errmsg *why)
{
    const size_t n = strnlen(why->text, sizeof why->text);
    check(n < sizeof why->text);
    for (size_t i = 0; i < n; i++)
        check(why->text[i] >= ' ' && why->text[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const struct span text = span_of((const char *)bytes, n);
    struct cidr ours = {.len = 200}, again;
    struct errmsg why;
    uint8_t a[16];
    unsigned len;
    char out[CIDR_TEXT_MAX];
    const enum err e = cidr_parse(text, &cidr_rules_default, &ours, &why);
    const enum addr_family family = expected(text, a, &len);
    check_message(&why);
    check((e == ERR_OK) == (family != ADDR_NONE));
    if (e) {
        check(why.text[0] && ours.len == 200);
        return 0;
    }
    check(ours.net.family == family && ours.len == len);
    if (family == ADDR_V4)
        check(ours.net.v4 == big_endian(a + 12, 4));
    else
        check(ours.net.v6.hi == big_endian(a, 8) && ours.net.v6.lo == big_endian(a + 8, 8));
    check(cidr_parse(span_of(out, cidr_format(&ours, out)), &cidr_rules_default, &again, &why) == ERR_OK);
    check(cidr_compare(&ours, &again) == 0);
    return 0;
}
