#include "config/substitute.h"

#include "config/text.h"

#include <stdlib.h>

enum { NAME_MAX_BYTES = 128 };

struct reference {
    char name[NAME_MAX_BYTES + 1];
    struct span fallback; /* p == NULL: none */
    size_t bytes;         /* of the whole reference, "${" and "}" included */
};

static bool is_name_char(char c, bool first)
{
    if (c == '_' || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z')) return true;
    return !first && c >= '0' && c <= '9';
}

/* Reads "${NAME}" or "${NAME:-default}" at the start of `text`. */
static bool reference_parse(struct span text, struct reference *out)
{
    const char *end = text.n > 2 && text.p[1] == '{' ? memchr(text.p, '}', text.n) : NULL;
    if (end == NULL) return false;
    struct span inside = {text.p + 2, (size_t)(end - text.p) - 2};
    size_t n = 0;
    while (n < inside.n && is_name_char(inside.p[n], n == 0))
        n++;
    if (n == 0 || !span_to_cstr(span_of(inside.p, n), out->name, sizeof out->name)) return false;
    struct span rest = {inside.p + n, inside.n - n};
    out->fallback = span_of(NULL, 0);
    if (span_starts(rest, SPAN(":-")))
        out->fallback = span_of(rest.p + 2, rest.n - 2);
    else if (rest.n)
        return false;
    out->bytes = (size_t)(end - text.p) + 1;
    return memchr(inside.p, '$', inside.n) == NULL;
}

static enum err write_reference(const struct reference *ref, unsigned column, struct outbuf *o,
                                struct errmsg *why)
{
    const char *value = getenv(ref->name);
    bool use_fallback = ref->fallback.p && (value == NULL || value[0] == 0);
    if (value == NULL && !use_fallback) {
        errmsg_set(why, 0, column, "the environment variable %s is not set: set it, or write ${%s:-default}",
                   ref->name, ref->name);
        return ERR_NOT_FOUND;
    }
    struct span text = use_fallback ? ref->fallback : span_str(value);
    if (!text_is_clean(text)) {
        errmsg_set(why, 0, column, "the environment variable %s has control characters or is not UTF-8",
                   ref->name);
        return ERR_PARSE;
    }
    outbuf_span(o, text);
    return ERR_OK;
}

enum err substitute(struct span text, struct outbuf *o, struct errmsg *why)
{
    const size_t bytes_max = o->cap;
    for (size_t i = 0; i < text.n;) {
        struct span rest = {text.p + i, text.n - i};
        unsigned column = (unsigned)i + 1;
        struct reference ref;
        if (rest.p[0] != '$') {
            outbuf_char(o, rest.p[0]);
            i++;
        } else if (span_starts(rest, SPAN("$$"))) {
            outbuf_char(o, '$');
            i += 2;
        } else if (reference_parse(rest, &ref)) {
            enum err e = write_reference(&ref, column, o, why);
            if (e) return e;
            i += ref.bytes;
        } else {
            errmsg_set(why, 0, column,
                       "a '$' that starts no ${NAME} or ${NAME:-default}: write $$ for a dollar");
            return ERR_PARSE;
        }
    }
    if (!o->overflow) return ERR_OK;
    errmsg_set(why, 0, 1, "the value is longer than %zu bytes", bytes_max);
    return ERR_LIMIT;
}
