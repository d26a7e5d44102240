#include "store/jtok.h"

#include "base/utf8.h"

#include <endian.h>

static const char value_expected[] = "expected a JSON value; strings are written in double quotes";

void jtok_init(struct jtok *r, struct span text)
{
    *r = (struct jtok){.begin = text.p, .end = text.p + text.n, .p = text.p, .at = text.p};
}

static enum jtok_kind bad(struct jtok *r, const char *at, const char *problem)
{
    r->at = at;
    r->problem = problem;
    r->expect = JTOK_EXPECT_NOTHING;
    return JTOK_BAD;
}

/* The code unit of the four digits after \u, or -1. */
static int32_t hex4(const char *p, const char *end)
{
    if (end - p < 4) return -1;
    int32_t unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = ascii_hex_value(p[i]);
        if (digit < 0) return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

static bool is_surrogate(int32_t unit, int32_t first)
{
    return unit >= first && unit < first + 0x400;
}

/* Bytes of the well-formed escape at `p` (a backslash), both halves of a surrogate pair included; 0 with
 * `*problem` set otherwise. */
static size_t escape_length(const char *p, const char *end, const char **problem)
{
    *problem = "this is no JSON escape; write \\\\ for a backslash";
    if (end - p < 2) return 0;
    if (p[1] != 'u') return memchr("\"\\/bfnrt", p[1], 8) ? 2 : 0;
    int32_t unit = hex4(p + 2, end);
    *problem = "\\u needs four hexadecimal digits";
    if (unit < 0) return 0;
    *problem = "\\u0000 is not allowed here";
    if (unit == 0) return 0;
    *problem = "this is half of a surrogate pair; write the character itself in UTF-8";
    if (is_surrogate(unit, 0xdc00)) return 0;
    if (!is_surrogate(unit, 0xd800)) return 6;
    if (end - p < 8 || p[6] != '\\' || p[7] != 'u') return 0;
    return is_surrogate(hex4(p + 8, end), 0xdc00) ? 12 : 0;
}

/* A byte that stands for itself inside a string and needs no second look. */
static bool is_plain(char c)
{
    unsigned char byte = (unsigned char)c;
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/* 0x80 in place of each of eight bytes that is not plain. Above the lowest of these, plain ones may be marked
 * too. */
static uint64_t special_marks8(uint64_t v)
{
    uint64_t quote = v ^ SPAN_EACH('"'), backslash = v ^ SPAN_EACH('\\');
    return ((v - SPAN_EACH(0x20)) | (quote - SPAN_EACH(1)) | (backslash - SPAN_EACH(1)) | v) &
           SPAN_EACH(0x80);
}

/* Passes over plain bytes: nine tenths of a record, so eight at a time. */
static const char *skip_plain(const char *p, const char *end)
{
    for (; end - p >= 8; p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        uint64_t marks = special_marks8(le64toh(v)); /* the first byte is the lowest */
        if (marks) return p + __builtin_ctzll(marks) / 8;
    }
    while (p < end && is_plain(*p))
        p++;
    return p;
}

/* Passes over the escape or the character beyond ASCII at `p`. NULL: the input is bad. */
static const char *skip_special(struct jtok *r, const char *p)
{
    const char *problem =
        "a control character inside a string must be written as an escape (\\t, \\n, \\u00XX)";
    size_t n = 0;
    if (*p == '\\') {
        r->escaped = true;
        n = escape_length(p, r->end, &problem);
    } else if ((unsigned char)*p >= 0x80) {
        problem = "this byte is not valid UTF-8; save the file as UTF-8";
        uint32_t code; /* not used: only its length matters */
        n = utf8_decode(p, (size_t)(r->end - p), &code);
    }
    if (n > 0) return p + n;
    (void)bad(r, p, problem);
    return NULL;
}

/* Scans a string from its opening quote. False: the input is bad. */
static bool scan_string(struct jtok *r)
{
    const char *open = r->p, *p = open + 1;
    r->escaped = false;
    while ((p = skip_plain(p, r->end)) < r->end && *p != '"') {
        p = skip_special(r, p);
        if (!p) return false;
    }
    if (p == r->end) return bad(r, open, "this string has no closing quote"), false;
    r->text = span_of(open + 1, (size_t)(p - open - 1));
    r->p = p + 1;
    return true;
}

static const char *skip_digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

/* RFC 8259 section 6: [-] int [frac] [exp]. */
static enum jtok_kind scan_number(struct jtok *r)
{
    const char *p = r->p, *digits = p + (*p == '-');
    p = skip_digits(digits, r->end);
    bool ok = p > digits && (*digits != '0' || p == digits + 1);
    if (ok && p < r->end && *p == '.') {
        digits = p + 1;
        p = skip_digits(digits, r->end);
        ok = p > digits;
    }
    if (ok && p < r->end && ascii_lower(*p) == 'e') {
        digits = p + 1;
        if (digits < r->end && (*digits == '+' || *digits == '-')) digits++;
        p = skip_digits(digits, r->end);
        ok = p > digits;
    }
    if (!ok) return bad(r, r->p, "this is no JSON number");
    r->text = span_of(r->p, (size_t)(p - r->p));
    r->p = p;
    return JTOK_NUMBER;
}

static enum jtok_kind scan_word(struct jtok *r, struct span word, enum jtok_kind token)
{
    if (!span_starts(span_of(r->p, (size_t)(r->end - r->p)), word)) return bad(r, r->p, value_expected);
    r->p += word.n;
    return token;
}

static void expect_after_value(struct jtok *r)
{
    r->expect = r->depth ? JTOK_EXPECT_COMMA : JTOK_EXPECT_END;
}

static enum jtok_kind open_container(struct jtok *r, bool is_object)
{
    if (r->depth == JTOK_DEPTH_MAX) return bad(r, r->p, "this is nested too deeply");
    uint32_t bit = UINT32_C(1) << r->depth++;
    r->objects = is_object ? r->objects | bit : r->objects & ~bit;
    r->expect = is_object ? JTOK_EXPECT_FIRST_KEY : JTOK_EXPECT_FIRST_ITEM;
    r->p++;
    return is_object ? JTOK_OBJECT_BEGIN : JTOK_ARRAY_BEGIN;
}

static bool in_object(const struct jtok *r)
{
    return r->depth && (r->objects >> (r->depth - 1) & 1);
}

static enum jtok_kind close_container(struct jtok *r)
{
    bool was_object = in_object(r);
    r->depth--;
    r->p++;
    expect_after_value(r);
    return was_object ? JTOK_OBJECT_END : JTOK_ARRAY_END;
}

static enum jtok_kind read_value(struct jtok *r)
{
    if (*r->p == '{' || *r->p == '[') return open_container(r, *r->p == '{');
    expect_after_value(r);
    switch (*r->p) {
    case '"': return scan_string(r) ? JTOK_STRING : JTOK_BAD;
    case 't': return scan_word(r, SPAN("true"), JTOK_TRUE);
    case 'f': return scan_word(r, SPAN("false"), JTOK_FALSE);
    case 'n': return scan_word(r, SPAN("null"), JTOK_NULL);
    default: break;
    }
    if (*r->p == '-' || (*r->p >= '0' && *r->p <= '9')) return scan_number(r);
    return bad(r, r->p, value_expected);
}

static void skip_white_space(struct jtok *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
}

/* A member's name and the colon behind it. */
static enum jtok_kind read_key(struct jtok *r)
{
    if (*r->p != '"') return bad(r, r->p, "expected a key in double quotes");
    const char *key = r->p;
    if (!scan_string(r)) return JTOK_BAD;
    skip_white_space(r);
    if (r->p == r->end || *r->p != ':') return bad(r, r->p, "expected ':' after the key");
    r->p++;
    r->at = key;
    r->expect = JTOK_EXPECT_VALUE;
    return JTOK_KEY;
}

/* Between two members or items: a comma, or the end of the container. */
static enum jtok_kind read_separator(struct jtok *r)
{
    bool object = in_object(r);
    if (*r->p == (object ? '}' : ']')) return close_container(r);
    if (*r->p != ',')
        return bad(r, r->p,
                   object ? "expected ',' or '}' after the value" : "expected ',' or ']' after the value");
    r->p++;
    skip_white_space(r);
    r->at = r->p;
    if (r->p == r->end) return bad(r, r->p, "the JSON text ends too early");
    return object ? read_key(r) : read_value(r);
}

static enum jtok_kind read_token(struct jtok *r)
{
    if (r->expect == JTOK_EXPECT_NOTHING) return r->last;
    skip_white_space(r);
    r->at = r->p;
    if (r->p == r->end) {
        if (r->expect != JTOK_EXPECT_END) return bad(r, r->p, "the JSON text ends too early");
        r->expect = JTOK_EXPECT_NOTHING;
        return JTOK_END;
    }
    switch (r->expect) {
    case JTOK_EXPECT_FIRST_ITEM:
        if (*r->p == ']') return close_container(r);
        return read_value(r);
    case JTOK_EXPECT_VALUE: return read_value(r);
    case JTOK_EXPECT_FIRST_KEY:
        if (*r->p == '}') return close_container(r);
        return read_key(r);
    case JTOK_EXPECT_COMMA: return read_separator(r);
    case JTOK_EXPECT_END: return bad(r, r->p, "unexpected text after the end of the JSON value");
    case JTOK_EXPECT_NOTHING: break;
    }
    return r->last;
}

enum jtok_kind jtok_next(struct jtok *r)
{
    return r->last = read_token(r);
}

enum err jtok_skip(struct jtok *r)
{
    if (r->last == JTOK_BAD) return ERR_PARSE;
    if (r->last != JTOK_OBJECT_BEGIN && r->last != JTOK_ARRAY_BEGIN) return ERR_OK;
    uint32_t outside = r->depth - 1;
    while (r->depth > outside)
        if (jtok_next(r) == JTOK_BAD) return ERR_PARSE;
    return ERR_OK;
}

/* Writes a code point as UTF-8 and returns its length. */
static size_t utf8_write(int32_t point, char out[4])
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t n = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const int lead[] = {[2] = 0xc0, [3] = 0xe0, [4] = 0xf0};
    for (size_t i = n - 1; i > 0; i--, point >>= 6)
        out[i] = (char)(0x80 | (point & 0x3f));
    out[0] = (char)(lead[n] | point);
    return n;
}

/* Decodes the well-formed escape at `p`; returns its length in the input. */
static size_t unescape_one(const char *p, const char *end, char out[4], size_t *n)
{
    static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    if (p[1] != 'u') {
        out[0] = bytes[strchr(letters, p[1]) - letters];
        *n = 1;
        return 2;
    }
    int32_t point = hex4(p + 2, end);
    bool is_pair = is_surrogate(point, 0xd800);
    if (is_pair) point = 0x10000 + ((point - 0xd800) << 10) + (hex4(p + 8, end) - 0xdc00);
    *n = utf8_write(point, out);
    return is_pair ? 12 : 6;
}

enum err jtok_unescape(struct span text, char *out, size_t cap, size_t *n)
{
    const char *p = text.p, *end = text.p + text.n;
    size_t used = 0;
    while (p < end) {
        char bytes[4] = {*p};
        size_t nbytes = 1;
        p += *p == '\\' ? unescape_one(p, end, bytes, &nbytes) : 1;
        if (nbytes > cap - used) return ERR_LIMIT;
        memcpy(out + used, bytes, nbytes);
        used += nbytes;
    }
    *n = used;
    return ERR_OK;
}

unsigned jtok_column(const struct jtok *r, const char *at)
{
    unsigned column = 1;
    for (const char *p = r->begin; p < at; p++)
        column += ((unsigned char)*p & 0xc0) != 0x80;
    return column;
}
