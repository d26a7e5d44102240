#include "http/forwarded_for.h"

/* Cuts the last entry off a list; false when it was the only one. */
static bool last_cut(struct span *list, struct span *entry)
{
    size_t at = list->n;
    while (at && list->p[at - 1] != ',')
        at--;
    *entry = span_trim(span_of(list->p + at, list->n - at));
    bool has_more = at > 0;
    *list = span_of(list->p, has_more ? at - 1 : 0);
    return has_more;
}

/* [IPv6] or [IPv6]:PORT. */
static bool bracketed_parse(struct span text, struct addr *out)
{
    const char *end = memchr(text.p, ']', text.n);
    if (!end) return false;
    struct span inside = span_of(text.p + 1, (size_t)(end - text.p) - 1);
    struct span behind = span_of(end + 1, text.n - inside.n - 2);
    if (behind.n && (behind.p[0] != ':' || !addr_port_is_valid(span_of(behind.p + 1, behind.n - 1))))
        return false;
    return memchr(inside.p, ':', inside.n) && addr_parse(inside, out) == ERR_OK;
}

/* IPv4, IPv4:PORT or IPv6: what has one colon has a port. */
static bool bare_parse(struct span text, struct addr *out)
{
    const char *colon = memchr(text.p, ':', text.n);
    size_t n = colon ? (size_t)(colon - text.p) : text.n;
    bool has_port = colon && !memchr(colon + 1, ':', text.n - n - 1);
    if (!has_port) return addr_parse(text, out) == ERR_OK;
    return addr_port_is_valid(span_of(colon + 1, text.n - n - 1)) &&
           addr_parse(span_of(text.p, n), out) == ERR_OK;
}

static bool entry_parse(struct span text, struct addr *out)
{
    if (text.n == 0) return false;
    return text.p[0] == '[' ? bracketed_parse(text, out) : bare_parse(text, out);
}

enum forwarded_for forwarded_for_find(const struct http_field *fields, uint32_t nfields,
                                      forwarded_for_trust_fn is_trusted, const void *arg, struct addr *caller)
{
    struct addr a;
    unsigned nentries = 0;
    for (uint32_t i = nfields; i-- > 0;) {
        if (fields[i].id != FIELD_X_FORWARDED_FOR) continue;
        struct span list = fields[i].value, entry;
        bool has_more;
        do {
            has_more = last_cut(&list, &entry);
            if (++nentries > FORWARDED_FOR_ENTRIES_MAX || !entry_parse(entry, &a))
                return FORWARDED_FOR_MALFORMED;
            if (!is_trusted(arg, &a)) {
                *caller = a;
                return FORWARDED_FOR_FOUND;
            }
        } while (has_more);
    }
    if (nentries) *caller = a;
    return nentries ? FORWARDED_FOR_FOUND : FORWARDED_FOR_ABSENT;
}
