#include "http/fields.h"

#include "http/chars.h"

struct field_row {
    struct span name;
    enum field_class class;
};

static const struct field_row rows[FIELD_COUNT] = {[FIELD_OTHER] = {{"", 0}, FIELD_CLASS_END_TO_END},
#define XX(id, text, kind) [FIELD_##id] = {{text, sizeof(text) - 1}, FIELD_CLASS_##kind},
                                                   FIELD_MAP(XX)
#undef XX
};

enum { NAME_LEN_MAX = 24, SAME_LEN_MAX = 4 };

/* The known names by length: at most four share one, so a lookup is a few compares. A test looks every
 * name of FIELD_MAP up, so a row missing here cannot go unnoticed. */
static const uint8_t by_length[NAME_LEN_MAX + 1][SAME_LEN_MAX] = {
    [2] = {FIELD_TE},
    [4] = {FIELD_HOST, FIELD_DATE},
    [6] = {FIELD_EXPECT},
    [7] = {FIELD_UPGRADE, FIELD_TRAILER},
    [9] = {FIELD_FORWARDED, FIELD_X_REAL_IP},
    [10] = {FIELD_CONNECTION, FIELD_KEEP_ALIVE},
    [11] = {FIELD_X_CLIENT_IP},
    [12] = {FIELD_X_REQUEST_ID},
    [13] = {FIELD_AUTHORIZATION},
    [14] = {FIELD_CONTENT_LENGTH, FIELD_HTTP2_SETTINGS, FIELD_TRUE_CLIENT_IP},
    [15] = {FIELD_X_FORWARDED_FOR},
    [16] = {FIELD_PROXY_CONNECTION, FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PORT, FIELD_CF_CONNECTING_IP},
    [17] = {FIELD_TRANSFER_ENCODING, FIELD_X_FORWARDED_PROTO, FIELD_SEC_WEBSOCKET_KEY},
    [18] = {FIELD_PROXY_AUTHENTICATE, FIELD_X_FORWARDED_PREFIX, FIELD_X_FORWARDED_SERVER},
    [19] = {FIELD_PROXY_AUTHORIZATION, FIELD_X_CLUSTER_CLIENT_IP},
    [20] = {FIELD_SEC_WEBSOCKET_ACCEPT},
    [21] = {FIELD_SEC_WEBSOCKET_VERSION},
    [22] = {FIELD_SEC_WEBSOCKET_PROTOCOL},
    [24] = {FIELD_SEC_WEBSOCKET_EXTENSIONS},
};

enum field_id field_find(struct span name)
{
    if (name.n > NAME_LEN_MAX) return FIELD_OTHER;
    const uint8_t *ids = by_length[name.n];
    for (size_t i = 0; i < SAME_LEN_MAX && ids[i]; i++)
        if (span_ieq(name, rows[ids[i]].name)) return (enum field_id)ids[i];
    return FIELD_OTHER;
}

enum field_class field_class_of(enum field_id id)
{
    return rows[id].class;
}

static char fold(char c)
{
    return c == '_' || c == '.' ? '-' : ascii_lower(c);
}

enum field_id field_find_folded(struct span name)
{
    char folded[NAME_LEN_MAX];
    if (name.n > sizeof folded) return FIELD_OTHER;
    for (size_t i = 0; i < name.n; i++)
        folded[i] = fold(name.p[i]);
    return field_find(span_of(folded, name.n));
}

static bool starts_folded(struct span name, struct span prefix)
{
    if (name.n < prefix.n) return false;
    for (size_t i = 0; i < prefix.n; i++)
        if (fold(name.p[i]) != prefix.p[i]) return false;
    return true;
}

bool field_is_reserved(struct span name)
{
    return starts_folded(name, SPAN("x-proof-")) || starts_folded(name, SPAN("x-forwarded-"));
}

bool field_is_identity(enum field_id id, struct span name)
{
    if (id != FIELD_OTHER) return rows[id].class == FIELD_CLASS_IDENTITY;
    if (field_is_reserved(name)) return true;
    return rows[field_find_folded(name)].class == FIELD_CLASS_IDENTITY;
}

static const struct char_set plain_chars = {{CHARS_PLAIN_TOKEN}};

enum name_kind field_name_kind(struct span name)
{
    enum name_kind kind = NAME_PLAIN;
    for (size_t i = 0; i < name.n; i++) {
        if (char_in(&plain_chars, name.p[i])) continue;
        if (name.p[i] != '_' && name.p[i] != '.') return NAME_BROKEN;
        kind = NAME_ALIAS;
    }
    return name.n ? kind : NAME_BROKEN;
}

bool field_name_is_token(struct span name)
{
    return field_name_kind(name) != NAME_BROKEN;
}

bool field_name_is_alias_prone(struct span name)
{
    return field_name_kind(name) == NAME_ALIAS;
}

bool list_next(struct span *rest, struct span *item)
{
    while (rest->n) {
        const char *comma = memchr(rest->p, ',', rest->n);
        size_t n = comma ? (size_t)(comma - rest->p) : rest->n;
        *item = span_trim(span_of(rest->p, n));
        size_t used = n + (comma != NULL);
        *rest = span_of(rest->p + used, rest->n - used);
        if (item->n) return true;
    }
    return false;
}

bool list_has(struct span value, struct span want)
{
    for (struct span item; list_next(&value, &item);)
        if (span_ieq(item, want)) return true;
    return false;
}
