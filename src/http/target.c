#include "http/target.h"

#include "base/addr.h"
#include "http/chars.h"

/* ---- characters ---- */

/* RFC 3986 section 2.2, without ';': some servers cut a path segment there ("/..;/"), others do not. */
#define SUB_DELIMS                                                                                           \
    ['!'] = 1, ['$'] = 1, ['&'] = 1, ['\''] = 1, ['('] = 1, [')'] = 1, ['*'] = 1, ['+'] = 1, [','] = 1,      \
    ['='] = 1

/* A pchar of RFC 3986 section 3.3 without '%', which is handled apart. */
static const struct char_set path_chars = {{SUB_DELIMS, [':'] = 1, ['@'] = 1, CHARS_UNRESERVED}};

/* RFC 3986 section 3.4. Brackets are outside its grammar, but every browser and client library sends
 * them unencoded in "ids[]=1", and nobody reads them in two ways. */
static const struct char_set query_chars = {
    {SUB_DELIMS, [';'] = 1, [':'] = 1, ['@'] = 1, ['/'] = 1, ['?'] = 1, ['['] = 1, [']'] = 1,
     CHARS_UNRESERVED}};

/* What names of hosts are made of, in the DNS and in practice. */
static const struct char_set label_chars = {{['-'] = 1, ['_'] = 1, CHARS_DIGIT, CHARS_ALPHA}};

/* The value of "%XX" at s.p[at], or -1 when it is broken. */
static int percent_value(struct span s, size_t at)
{
    if (s.n - at < 3) return -1;
    int high = ascii_hex_value(s.p[at + 1]), low = ascii_hex_value(s.p[at + 2]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* ---- path ---- */

/* Whether an encoded byte (-1: broken) in a path has only one reading. A server that decodes before it splits
 * the path sees separators in "%2f", "%5c" and "%3b"; one that decodes twice sees anything at all behind
 * "%25". */
static bool is_plain_encoded(int value)
{
    return value >= 0x20 && value != 0x7f && value != '/' && value != '\\' && value != ';' && value != '%';
}

/* "." or "..", where each dot may be written "%2e". */
static bool is_dot_segment(struct span segment)
{
    size_t dots = 0;
    for (size_t at = 0; at < segment.n; dots++) {
        if (segment.p[at] == '.')
            at += 1;
        else if (segment.p[at] == '%' && percent_value(segment, at) == '.')
            at += 3;
        else
            return false;
    }
    return dots == 1 || dots == 2;
}

/* The offset of the end of the segment that starts at `at`, or 0 when a character of it is refused; a segment
 * never ends at 0. */
static size_t segment_end(struct span path, size_t at)
{
    while (at < path.n) {
        if (char_in(&path_chars, path.p[at])) {
            at += 1;
        } else {
            if (path.p[at] == '/') return at;
            if (path.p[at] != '%' || !is_plain_encoded(percent_value(path, at))) return 0;
            at += 3;
        }
    }
    return at;
}

static bool path_is_acceptable(struct span path)
{
    for (size_t at = 0; at < path.n;) {
        size_t start = at + 1; /* path.p[at] is a '/' */
        at = segment_end(path, start);
        if (at == 0 || is_dot_segment(span_of(path.p + start, at - start))) return false;
        if (at == start && at < path.n) return false; /* "//" */
    }
    return path.n > 0;
}

static bool query_is_acceptable(struct span query)
{
    for (size_t at = 0; at < query.n; at++) {
        if (query.p[at] == '%' ? percent_value(query, at) < 0 : !char_in(&query_chars, query.p[at]))
            return false;
    }
    return true;
}

/* ---- route ---- */

/* The length of the raw text that spells `plain` at the start of an accepted path, where unreserved
 * characters may be percent-encoded (RFC 3986 section 6.2.2.2); 0 when it spells something else. */
static size_t path_spells(struct span path, struct span plain)
{
    if (span_starts(path, plain)) return plain.n;
    size_t at = 0;
    for (size_t i = 0; i < plain.n; i++) {
        if (at == path.n) return 0;
        bool encoded = path.p[at] == '%';
        char c = encoded ? (char)percent_value(path, at) : path.p[at];
        if (c != plain.p[i]) return 0;
        at += encoded ? 3 : 1;
    }
    return at;
}

static enum route route_of(struct span path)
{
    if (path_spells(path, SPAN("/widget/"))) return ROUTE_WIDGET;
    if (path_spells(path, SPAN("/ws")) == path.n) return ROUTE_WS;
    return ROUTE_NONE;
}

/* ---- the whole target ---- */

/* Cuts "http://authority" off an absolute-form target. False when there is no such prefix. */
static bool authority_cut(struct span *text, struct span *authority)
{
    const struct span schemes[] = {SPAN("http://"), SPAN("https://")};
    for (size_t i = 0; i < 2; i++) {
        struct span scheme = schemes[i];
        if (text->n < scheme.n || !span_ieq(span_of(text->p, scheme.n), scheme)) continue;
        struct span rest = span_of(text->p + scheme.n, text->n - scheme.n);
        size_t n = 0;
        while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?' && rest.p[n] != '#')
            n++;
        *authority = span_of(rest.p, n);
        *text = span_of(rest.p + n, rest.n - n);
        return true;
    }
    return false;
}

enum err target_parse(struct span text, struct target *out)
{
    struct target t = {0};
    if (text.n == 0) return ERR_PARSE;
    if (text.p[0] != '/') {
        struct span host;
        if (!authority_cut(&text, &t.authority) || host_parse(t.authority, &host)) return ERR_PARSE;
        /* "http://host" means the path "/" (RFC 9112 section 3.2.1); with a query there is no text of
         * ours to point at, and nothing at "/" to route it to. */
        if (text.n == 0) text = SPAN("/");
        if (text.p[0] != '/') return ERR_PARSE;
    }

    const char *mark = memchr(text.p, '?', text.n);
    size_t npath = mark ? (size_t)(mark - text.p) : text.n;
    t.origin = text;
    t.path = span_of(text.p, npath);
    if (mark) t.query = span_of(mark + 1, text.n - npath - 1);
    if (!path_is_acceptable(t.path) || !query_is_acceptable(t.query)) return ERR_PARSE;
    t.route = route_of(t.path);
    *out = t;
    return ERR_OK;
}

/* ---- host ---- */

enum { HOST_LEN_MAX = 255, PORT_LEN_MAX = 5, PORT_MAX = 65535 };

/* A name or an IPv4 address: labels of letters, digits, '-' and '_'. RFC 3986 would also allow
 * percent-encoding and ",;=" in a registered name; no DNS name has them, and lists of hosts are split at
 * them. */
static bool name_is_acceptable(struct span name)
{
    if (name.n == 0 || name.n > HOST_LEN_MAX) return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (c == '.' ? i == 0 || name.p[i - 1] == '.' : !char_in(&label_chars, c)) return false;
    }
    return true;
}

static bool ip_literal_is_acceptable(struct span inside)
{
    struct addr unused;
    return memchr(inside.p, ':', inside.n) && addr_parse(inside, &unused) == ERR_OK;
}

static bool port_is_acceptable(struct span port)
{
    uint64_t value;
    return port.n <= PORT_LEN_MAX && span_to_u64(port, &value) && value >= 1 && value <= PORT_MAX;
}

enum err host_parse(struct span text, struct span *host)
{
    if (text.n == 0) return ERR_PARSE;
    bool is_literal = text.p[0] == '[';
    const char *end = memchr(text.p, is_literal ? ']' : ':', text.n);
    if (is_literal && !end) return ERR_PARSE;

    size_t n = end ? (size_t)(end - text.p) + is_literal : text.n;
    struct span name = span_of(text.p, n);
    struct span rest = span_of(text.p + n, text.n - n);
    if (rest.n && (rest.p[0] != ':' || !port_is_acceptable(span_of(rest.p + 1, rest.n - 1))))
        return ERR_PARSE;

    if (is_literal) {
        if (!ip_literal_is_acceptable(span_of(name.p + 1, name.n - 2))) return ERR_PARSE;
    } else {
        if (!name_is_acceptable(name)) return ERR_PARSE;
        if (name.p[name.n - 1] == '.') name.n--;
    }
    *host = name;
    return ERR_OK;
}
