#include "http/body.h"

#include "http/fields.h"

/* The chunk machine. RFC 9112 section 7.1:
 *
 *   chunk   = 1*HEXDIG [ ";" extensions ] CRLF  data CRLF
 *   last    = 1*"0"    [ ";" extensions ] CRLF  *( name ":" value CRLF ) CRLF
 */
enum chunk_state {
    CHUNK_SIZE = 0, /* hex digits; `digits` of them so far, `left` is their value */
    CHUNK_EXT,      /* after the ';' */
    CHUNK_SIZE_LF,  /* after the CR of the size line */
    CHUNK_DATA,     /* `left` bytes of data to come */
    CHUNK_DATA_CR,  /* the CRLF after the data */
    CHUNK_DATA_LF,
    CHUNK_TRAILER,      /* first byte of a trailer line, or the CR that ends the body */
    CHUNK_TRAILER_NAME, /* inside a trailer name */
    CHUNK_TRAILER_VALUE,
    CHUNK_TRAILER_LF,
    CHUNK_END_LF,
    CHUNK_DONE,
    CHUNK_BROKEN,    /* refused or over a limit: stays so */
    CHUNK_OVER,      /* framing over a limit */
    CHUNK_TOO_LARGE, /* data over the limit */
};

/* Leading zeros are legal in any number, but no real sender writes them; 16 digits cannot overflow. */
enum { SIZE_DIGITS_MAX = 16 };

void body_reader_init(struct body_reader *r, enum body_kind kind, uint64_t content_length,
                      const struct body_limits *limits)
{
    *r = (struct body_reader){
        .kind = (uint8_t)kind,
        .state = CHUNK_SIZE,
        .left = kind == BODY_LENGTH ? content_length : 0,
        .limits = limits,
    };
}

void body_skip(struct body_reader *r, uint64_t n)
{
    BUG_IF(r->kind != BODY_LENGTH || n > r->left, "only what a length announces can be skipped");
    r->left -= n;
    r->total += n;
}

bool body_is_done(const struct body_reader *r)
{
    switch ((enum body_kind)r->kind) {
    case BODY_NONE: return true;
    case BODY_LENGTH: return r->left == 0;
    case BODY_CHUNKED: return r->state == CHUNK_DONE;
    case BODY_UNTIL_CLOSE: return false;
    }
    return true;
}

static uint64_t room(const struct body_reader *r)
{
    return r->limits->body_bytes_max - r->total;
}

/* Hands out up to n bytes at p, at most `most`. */
static size_t run_take(struct body_reader *r, const char *p, size_t n, uint64_t most, struct span *data)
{
    size_t take = n < most ? n : (size_t)most;
    *data = span_of(p, take);
    r->total += take;
    return take;
}

/* One more byte of `*count`, of at most `max`. */
static bool is_within(uint32_t *count, uint32_t max)
{
    if (*count >= max) return false;
    ++*count;
    return true;
}

/* What may stand in an extension or a trailer value. */
static bool is_text(char c)
{
    return c == '\t' || ((unsigned char)c >= 0x20 && c != 0x7f);
}

static bool is_token(char c)
{
    return field_name_is_token(span_of(&c, 1));
}

static enum chunk_state on_size(struct body_reader *r, char c)
{
    int digit = ascii_hex_value(c);
    if (digit >= 0) {
        if (r->digits == SIZE_DIGITS_MAX) return CHUNK_BROKEN;
        r->digits++;
        r->left = r->left << 4 | (unsigned)digit;
        return CHUNK_SIZE;
    }
    if (r->digits == 0) return CHUNK_BROKEN;
    if (c == '\r') return CHUNK_SIZE_LF;
    if (c != ';') return CHUNK_BROKEN;
    return is_within(&r->ext_bytes, r->limits->chunk_ext_bytes_max) ? CHUNK_EXT : CHUNK_OVER;
}

static enum chunk_state on_ext(struct body_reader *r, char c)
{
    if (c == '\r') return CHUNK_SIZE_LF;
    if (!is_text(c)) return CHUNK_BROKEN;
    return is_within(&r->ext_bytes, r->limits->chunk_ext_bytes_max) ? CHUNK_EXT : CHUNK_OVER;
}

static enum chunk_state on_size_lf(struct body_reader *r, char c)
{
    if (c != '\n') return CHUNK_BROKEN;
    r->digits = 0;
    if (r->left == 0) return CHUNK_TRAILER;
    return r->left > room(r) ? CHUNK_TOO_LARGE : CHUNK_DATA;
}

/* One byte of a trailer line: `next` unless the section has become too long. */
static enum chunk_state in_trailer(struct body_reader *r, enum chunk_state next)
{
    if (next == CHUNK_BROKEN) return next;
    return is_within(&r->trailer_bytes, r->limits->trailer_bytes_max) ? next : CHUNK_OVER;
}

static enum chunk_state on_framing(struct body_reader *r, char c)
{
    switch ((enum chunk_state)r->state) {
    case CHUNK_SIZE: return on_size(r, c);
    case CHUNK_EXT: return on_ext(r, c);
    case CHUNK_SIZE_LF: return on_size_lf(r, c);
    case CHUNK_DATA_CR: return c == '\r' ? CHUNK_DATA_LF : CHUNK_BROKEN;
    case CHUNK_DATA_LF: return c == '\n' ? CHUNK_SIZE : CHUNK_BROKEN;
    case CHUNK_TRAILER:
        if (c == '\r') return CHUNK_END_LF;
        return in_trailer(r, is_token(c) ? CHUNK_TRAILER_NAME : CHUNK_BROKEN);
    case CHUNK_TRAILER_NAME:
        if (c == ':') return in_trailer(r, CHUNK_TRAILER_VALUE);
        return in_trailer(r, is_token(c) ? CHUNK_TRAILER_NAME : CHUNK_BROKEN);
    case CHUNK_TRAILER_VALUE:
        if (c == '\r') return in_trailer(r, CHUNK_TRAILER_LF);
        return in_trailer(r, is_text(c) ? CHUNK_TRAILER_VALUE : CHUNK_BROKEN);
    case CHUNK_TRAILER_LF: return in_trailer(r, c == '\n' ? CHUNK_TRAILER : CHUNK_BROKEN);
    case CHUNK_END_LF: return c == '\n' ? CHUNK_DONE : CHUNK_BROKEN;
    case CHUNK_DATA: /* the caller hands data out itself; done and broken bodies take nothing */
    case CHUNK_DONE:
    case CHUNK_BROKEN:
    case CHUNK_OVER:
    case CHUNK_TOO_LARGE: break;
    }
    return (enum chunk_state)r->state;
}

static enum body_result chunked_read(struct body_reader *r, const char *p, size_t n, size_t *used,
                                     struct span *data)
{
    size_t i = 0;
    for (; i < n && r->state != CHUNK_DATA && r->state < CHUNK_DONE; i++)
        r->state = (uint8_t)on_framing(r, p[i]);
    if (r->state == CHUNK_DATA && i < n) {
        size_t take = run_take(r, p + i, n - i, r->left, data);
        r->left -= take;
        i += take;
        if (r->left == 0) r->state = CHUNK_DATA_CR;
    }
    *used = i;
    if (r->state == CHUNK_BROKEN) return BODY_REFUSED;
    if (r->state == CHUNK_TOO_LARGE) return BODY_TOO_LARGE;
    return r->state == CHUNK_OVER ? BODY_LIMIT : BODY_OK;
}

enum body_result body_read(struct body_reader *r, const char *p, size_t n, size_t *used, struct span *data)
{
    *used = 0;
    *data = span_of(p, 0);
    switch ((enum body_kind)r->kind) {
    case BODY_NONE: break;
    case BODY_LENGTH:
        if (r->left > room(r)) return BODY_TOO_LARGE;
        *used = run_take(r, p, n, r->left, data);
        r->left -= *used;
        break;
    case BODY_CHUNKED: return chunked_read(r, p, n, used, data);
    case BODY_UNTIL_CLOSE:
        if (room(r) == 0) return BODY_TOO_LARGE;
        *used = run_take(r, p, n, room(r), data);
        break;
    }
    return BODY_OK;
}
