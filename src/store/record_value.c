#include "store/record_value.h"

#include "base/addr.h"
#include "policy/partner.h"

static bool is_alnum(char c)
{
    char lower = ascii_lower(c);
    return (c >= '0' && c <= '9') || (lower >= 'a' && lower <= 'z');
}

bool record_value_is_partner_id(struct span s)
{
    if (s.n == 0 || s.n > PARTNER_ID_MAX) return false;
    for (size_t i = 0; i < s.n; i++)
        if (!is_alnum(s.p[i]) && s.p[i] != '.' && s.p[i] != '_' && s.p[i] != '-') return false;
    return true;
}

bool record_value_is_company(struct span s)
{
    size_t characters = 0, visible = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char byte = (unsigned char)s.p[i];
        if (byte < 0x20 || byte == 0x7f) return false;
        /* U+0080..U+009F, the C1 controls, are C2 80..C2 9F. */
        if (byte == 0xc2 && i + 1 < s.n && (unsigned char)s.p[i + 1] < 0xa0) return false;
        characters += (byte & 0xc0) != 0x80;
        visible += byte != ' ';
    }
    return visible > 0 && characters <= RECORD_COMPANY_CHARS_MAX;
}

/* Labels of letters, digits and inner hyphens, joined by dots (RFC 1123 section 2.1). */
static bool is_host_name(struct span s, size_t labels_min)
{
    size_t labels = 0, start = 0;
    if (s.n > 253) return false;
    for (size_t i = 0; i <= s.n; i++) {
        if (i < s.n && s.p[i] != '.') {
            if (!is_alnum(s.p[i]) && s.p[i] != '-') return false;
            continue;
        }
        if (i == start || i - start > 63 || s.p[start] == '-' || s.p[i - 1] == '-') return false;
        labels++;
        start = i + 1;
    }
    return labels >= labels_min;
}

/* RFC 5322 section 3.2.3, dot-atom: what can stand before the @ without quotes. */
static bool is_dot_atom(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.') {
            if (i == 0 || i + 1 == s.n || s.p[i - 1] == '.') return false;
        } else if (!is_alnum(s.p[i]) && (s.p[i] == '\0' || !strchr("!#$%&'*+-/=?^_`{|}~", s.p[i]))) {
            return false;
        }
    }
    return s.n > 0;
}

bool record_value_is_email(struct span s)
{
    if (s.n > RECORD_EMAIL_BYTES_MAX) return false;
    const char *at = s.n ? memchr(s.p, '@', s.n) : NULL;
    if (!at || at - s.p > 64) return false;
    size_t local = (size_t)(at - s.p);
    return is_dot_atom(span_of(s.p, local)) && is_host_name(span_of(at + 1, s.n - local - 1), 2);
}

/* host, host:port, [IPv6] or [IPv6]:port. */
static bool is_host_port(struct span s)
{
    struct addr ignored;
    uint64_t port;
    const char *bracket = s.n && s.p[0] == '[' ? memchr(s.p, ']', s.n) : NULL;
    const char *colon = bracket ? bracket + 1 : s.n ? memchr(s.p, ':', s.n) : NULL;
    struct span host = {s.p, colon ? (size_t)(colon - s.p) : s.n};
    if (bracket) {
        struct span inner = {s.p + 1, host.n - 2};
        if (addr_parse(inner, &ignored) || !memchr(inner.p, ':', inner.n)) return false;
    } else if (!is_host_name(host, 1)) {
        return false;
    }
    if (host.n == s.n) return true;
    struct span digits = {colon + 1, s.n - host.n - 1};
    return *colon == ':' && span_to_u64(digits, &port) && port >= 1 && port <= 65535;
}

bool record_value_is_webhook_url(struct span s)
{
    const struct span scheme = SPAN("https://");
    if (s.n > RECORD_URL_BYTES_MAX || s.n < scheme.n || !span_ieq(span_of(s.p, scheme.n), scheme))
        return false;
    struct span rest = {s.p + scheme.n, s.n - scheme.n};
    size_t authority = rest.n;
    for (size_t i = 0; i < rest.n; i++) {
        char c = rest.p[i];
        /* RFC 3986 section 2: the characters that a URL is made of; '#' would start a fragment. */
        if (!is_alnum(c) && (c == '\0' || !strchr("-._~:/?[]@!$&'()*+,;=%", c))) return false;
        if ((c == '/' || c == '?') && authority == rest.n) authority = i;
    }
    return is_host_port(span_of(rest.p, authority));
}

enum { HEX_OK = 0x10 };

/* The value of a lower-case hexadecimal digit with HEX_OK; 0 for every other byte. */
static const uint8_t hex_digits[256] = {
    ['0'] = HEX_OK | 0,  ['1'] = HEX_OK | 1,  ['2'] = HEX_OK | 2,  ['3'] = HEX_OK | 3,
    ['4'] = HEX_OK | 4,  ['5'] = HEX_OK | 5,  ['6'] = HEX_OK | 6,  ['7'] = HEX_OK | 7,
    ['8'] = HEX_OK | 8,  ['9'] = HEX_OK | 9,  ['a'] = HEX_OK | 10, ['b'] = HEX_OK | 11,
    ['c'] = HEX_OK | 12, ['d'] = HEX_OK | 13, ['e'] = HEX_OK | 14, ['f'] = HEX_OK | 15,
};

bool record_value_to_digest(struct span s, uint8_t out[static RECORD_DIGEST_BYTES])
{
    uint8_t digest[RECORD_DIGEST_BYTES], all = HEX_OK;
    if (s.n != 2 * RECORD_DIGEST_BYTES) return false;
    for (size_t i = 0; i < RECORD_DIGEST_BYTES; i++) {
        uint8_t high = hex_digits[(unsigned char)s.p[2 * i]], low = hex_digits[(unsigned char)s.p[2 * i + 1]];
        all &= high & low;
        digest[i] = (uint8_t)(high << 4 | (low & 0x0f));
    }
    if (!(all & HEX_OK)) return false;
    memcpy(out, digest, sizeof digest);
    return true;
}
