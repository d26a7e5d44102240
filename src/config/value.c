#include "config/value.h"

#include "config/config.h"
#include "config/hostname.h"
#include "config/suggest.h"

#include <inttypes.h>
#include <stdlib.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* From small to large. */
static const struct unit size_units[] = {{"KiB", 1ULL << 10}, {"MiB", 1ULL << 20}, {"GiB", 1ULL << 30}};
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}, {"d", 24 * 60 * 60 * 1000}};

enum { SIZE_UNITS = 3, DURATION_UNITS = 5, VALUE_NAME_MAX = 64 };

/* Splits "32KiB" into number and unit. */
static enum err number_and_unit(struct span text, uint64_t *number, struct span *unit)
{
    size_t n = 0;
    while (n < text.n && text.p[n] >= '0' && text.p[n] <= '9')
        n++;
    *unit = span_of(text.p + n, text.n - n);
    return span_to_u64(span_of(text.p, n), number) ? ERR_OK : ERR_PARSE;
}

static enum err refuse(struct errmsg *why, const char *text)
{
    errmsg_set(why, 0, 0, "%s", text);
    return ERR_PARSE;
}

/* Errors: ERR_NOT_FOUND (no such unit), ERR_RANGE (does not fit 64 bits). */
static enum err scale(uint64_t number, struct span unit, const struct unit *units, unsigned nunits,
                      uint64_t *out)
{
    for (unsigned i = 0; i < nunits; i++) {
        if (!span_eq(unit, span_str(units[i].name))) continue;
        return __builtin_mul_overflow(number, units[i].factor, out) ? ERR_RANGE : ERR_OK;
    }
    return ERR_NOT_FOUND;
}

enum err value_bool(struct span text, bool *out, struct errmsg *why)
{
    bool is_true = span_eq(text, SPAN("true"));
    if (!is_true && !span_eq(text, SPAN("false"))) return refuse(why, "neither true nor false");
    *out = is_true;
    return ERR_OK;
}

enum err value_count(struct span text, uint64_t *out, struct errmsg *why)
{
    if (!span_to_u64(text, out)) return refuse(why, "not a whole number");
    return ERR_OK;
}

enum err value_size(struct span text, uint64_t *out, struct errmsg *why)
{
    uint64_t number, bytes;
    struct span unit;
    if (number_and_unit(text, &number, &unit)) return refuse(why, "not a size, such as 64KiB");
    if (unit.n == 0) {
        *out = number;
        return ERR_OK;
    }
    enum err e = scale(number, unit, size_units, SIZE_UNITS, &bytes);
    if (e == ERR_RANGE) return refuse(why, "far too large");
    if (e) return refuse(why, "not a size: the unit is KiB, MiB, GiB, or none for bytes");
    *out = bytes;
    return ERR_OK;
}

enum err value_duration(struct span text, uint64_t *out, struct errmsg *why)
{
    uint64_t number, ms;
    struct span unit;
    if (number_and_unit(text, &number, &unit)) return refuse(why, "not a duration, such as 30s");
    if (unit.n == 0) return refuse(why, "a duration needs a unit: ms, s, m, h or d");
    enum err e = scale(number, unit, duration_units, DURATION_UNITS, &ms);
    if (e == ERR_RANGE) return refuse(why, "far too long");
    if (e) return refuse(why, "not a duration: one number and one unit of ms, s, m, h, d, such as 90s");
    *out = ms;
    return ERR_OK;
}

static const char *unit_text(uint64_t value, const struct unit *units, unsigned nunits, char *out)
{
    for (unsigned i = nunits; i-- > 0;) {
        if (value == 0 || value % units[i].factor) continue;
        (void)snprintf(out, VALUE_TEXT_MAX, "%" PRIu64 "%s", value / units[i].factor, units[i].name);
        return out; /* 20 digits and a unit always fit */
    }
    return NULL;
}

const char *value_size_text(uint64_t bytes, char out[static VALUE_TEXT_MAX])
{
    if (unit_text(bytes, size_units, SIZE_UNITS, out)) return out;
    (void)snprintf(out, VALUE_TEXT_MAX, "%" PRIu64, bytes); /* always fits */
    return out;
}

const char *value_duration_text(uint64_t ms, char out[static VALUE_TEXT_MAX])
{
    if (unit_text(ms, duration_units, DURATION_UNITS, out)) return out;
    memcpy(out, "0s", sizeof "0s");
    return out;
}

/* The index of `text` in the key's words, or -1. */
static int word_index(const struct schema_key *key, struct span text)
{
    for (int i = 0; key->words && key->words[i]; i++)
        if (span_eq(text, span_str(key->words[i]))) return i;
    return -1;
}

static enum err refuse_word(const struct schema_key *key, struct span text, struct errmsg *why)
{
    struct suggestion nearest = {.word = text};
    for (unsigned i = 0; key->words[i]; i++)
        suggestion_offer(&nearest, key->words[i]);
    if (nearest.best)
        errmsg_set(why, 0, 0, "not known here; did you mean \"%s\"?", nearest.best);
    else
        errmsg_set(why, 0, 0, "not known here");
    return ERR_PARSE;
}

static enum err store_number(const struct schema_key *key, uint64_t value, void *field, struct errmsg *why)
{
    if (value < key->min || value > key->max) {
        errmsg_set(why, 0, 0, value < key->min ? "too small" : "too large");
        return ERR_RANGE;
    }
    uint32_t narrow = (uint32_t)value; /* `max` of a 32-bit field fits: test_schema */
    memcpy(field, key->size == sizeof narrow ? (const void *)&narrow : (const void *)&value, key->size);
    return ERR_OK;
}

static enum err store_string(struct span text, void *field, struct errmsg *why)
{
    if (text.n == 0) return refuse(why, "empty");
    char *copy = strndup(text.p, text.n);
    if (copy == NULL) return ERR_NOMEM;
    char **string = field;
    free(*string);
    *string = copy;
    return ERR_OK;
}

/* The word "none" stands for no string at all. */
static bool is_none(const struct schema_key *key, struct span text)
{
    return word_index(key, text) == 0 && span_eq(text, SPAN("none"));
}

static enum err store_nothing(void *field)
{
    char **string = field;
    free(*string);
    *string = NULL;
    return ERR_OK;
}

static enum err store_name(const struct schema_key *key, struct span text, void *field, struct errmsg *why)
{
    if (is_none(key, text)) return store_nothing(field);
    if (text.n > VALUE_NAME_MAX) return refuse(why, "too long: at most 64 characters");
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool is_plain = (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
        if (!is_plain && c != '.' && c != '_' && c != '-')
            return refuse(why, "only letters, digits, '.', '_' and '-' can stand in a name");
    }
    return store_string(text, field, why);
}

static enum err store_path(const struct schema_key *key, struct span text, struct span folder, void *field,
                           struct errmsg *why)
{
    if (is_none(key, text)) return store_nothing(field);
    bool is_relative = folder.n && text.n && text.p[0] != '/' && word_index(key, text) < 0;
    if (!is_relative) return store_string(text, field, why);
    size_t n = folder.n + 1 + text.n;
    char *joined = malloc(n + 1);
    if (joined == NULL) return ERR_NOMEM;
    (void)snprintf(joined, n + 1, "%.*s/%.*s", (int)folder.n, folder.p, (int)text.n,
                   text.p); /* sized to fit */
    enum err e = store_string(span_str(joined), field, why);
    free(joined);
    return e;
}

static enum err store_endpoint(const struct schema_key *key, struct span text, struct span folder,
                               void *field, struct errmsg *why)
{
    struct endpoint found = {0};
    if (word_index(key, text) < 0) {
        enum err e = endpoint_parse(text, key->type == SCHEMA_LISTEN, &found, why);
        if (e) return e;
    }
    if (found.kind == ENDPOINT_UNIX && found.host[0] != '/' && folder.n) {
        char joined[sizeof found.host + 16];
        int n = snprintf(joined, sizeof joined, "unix:%.*s/%s", (int)folder.n, folder.p, found.host);
        if (n < 0 || (size_t)n >= sizeof joined)
            return refuse(why, "the path of a unix socket has at most 107 bytes");
        struct endpoint absolute;
        enum err e = endpoint_parse(span_str(joined), true, &absolute, why);
        if (e) return e;
        memcpy(found.host, absolute.host, sizeof found.host);
    }
    memcpy(field, &found, sizeof found);
    return ERR_OK;
}

static enum err store_scalar(const struct schema_key *key, struct span text, void *field, struct errmsg *why)
{
    uint64_t number = 0;
    enum err e = ERR_OK;
    int word = word_index(key, text);
    if (key->type == SCHEMA_BOOL) return value_bool(text, field, why);
    if (key->type == SCHEMA_ENUM || key->type == SCHEMA_WORD) {
        if (word < 0) return refuse_word(key, text, why);
        if (key->type == SCHEMA_WORD) return store_string(text, field, why);
        memcpy(field, &word, sizeof word);
        return ERR_OK;
    }
    if (key->type == SCHEMA_COUNT && word == 0) {
        memset(field, 0, key->size);
        return ERR_OK;
    }
    if (key->type == SCHEMA_COUNT) e = value_count(text, &number, why);
    if (key->type == SCHEMA_SIZE) e = value_size(text, &number, why);
    if (key->type == SCHEMA_DURATION) e = value_duration(text, &number, why);
    return e ? e : store_number(key, number, field, why);
}

enum err value_store(const struct schema_key *key, struct span text, struct span folder, void *base,
                     struct errmsg *why)
{
    void *field = value_field(key, base);
    if (key->type == SCHEMA_PATH) return store_path(key, text, folder, field, why);
    if (key->type == SCHEMA_NAME) return store_name(key, text, field, why);
    if (key->type == SCHEMA_LISTEN || key->type == SCHEMA_CONNECT)
        return store_endpoint(key, text, folder, field, why);
    return store_scalar(key, text, field, why);
}

static enum err name_check(const struct schema_key *key, struct span text, struct errmsg *why)
{
    struct cidr network;
    if (key->type == SCHEMA_HOSTS) return virtual_host_check(text, why);
    if (key->type == SCHEMA_NETWORKS) return cidr_parse(text, &cidr_rules_default, &network, why);
    if (field_name_is_token(text)) return ERR_OK;
    return refuse(why, "not a header field name: letters, digits and '-', without a colon");
}

enum err value_append(const struct schema_key *key, struct span text, void *base, const void **field,
                      struct errmsg *why)
{
    char **names = value_field(key, base);
    uint32_t *count = (uint32_t *)(void *)((char *)base + key->count_offset);
    enum err e = name_check(key, text, why);
    if (e) return e;
    for (uint32_t i = 0; i < *count; i++) {
        if (!span_ieq(span_str(names[i]), text)) continue;
        errmsg_set(why, 0, 0, "listed twice");
        return ERR_EXISTS;
    }
    if (*count == key->size / sizeof(char *)) {
        errmsg_set(why, 0, 0, "one more than the %zu that a list may have", key->size / sizeof(char *));
        return ERR_LIMIT;
    }
    char *copy = strndup(text.p, text.n);
    if (copy == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < text.n; i++)
        copy[i] = ascii_lower(copy[i]);
    names[*count] = copy;
    *field = &names[*count];
    (*count)++;
    return ERR_OK;
}

void value_release(const struct schema_key *key, void *base)
{
    char **strings = value_field(key, base);
    size_t n = 0;
    if (key->type == SCHEMA_WORD || key->type == SCHEMA_PATH || key->type == SCHEMA_NAME) n = 1;
    if (schema_is_text_list(key)) n = key->size / sizeof(char *);
    for (size_t i = 0; i < n; i++) {
        free(strings[i]);
        strings[i] = NULL;
    }
}

static void write_words(const struct schema_key *key, const char *last, struct outbuf *o)
{
    for (unsigned i = 0; key->words && key->words[i]; i++) {
        if (i) outbuf_str(o, key->words[i + 1] || last[0] ? ", " : " or ");
        outbuf_str(o, key->words[i]);
    }
    if (last[0] && key->words) outbuf_str(o, " or ");
    outbuf_str(o, last);
}

static void write_range(const struct schema_key *key, struct outbuf *o)
{
    char from[VALUE_TEXT_MAX], to[VALUE_TEXT_MAX];
    if (key->type == SCHEMA_COUNT) {
        if (key->words) outbuf_fmt(o, "%s or ", key->words[0]);
        outbuf_fmt(o, "a whole number from %" PRIu64 " to %" PRIu64, key->min, key->max);
    } else if (key->type == SCHEMA_SIZE) {
        outbuf_fmt(o, "a size from %s to %s", value_size_text(key->min, from), value_size_text(key->max, to));
    } else {
        outbuf_fmt(o, "a duration from %s to %s", value_duration_text(key->min, from),
                   value_duration_text(key->max, to));
    }
    if (key->per) outbuf_str(o, key->per);
}

void value_expected(const struct schema_key *key, char *out, size_t cap)
{
    struct outbuf o = outbuf_of(out, cap - 1);
    switch (key->type) {
    case SCHEMA_SECTION:
        outbuf_str(&o, "keys below it, indented by two spaces, each as \"key: value\"");
        break;
    case SCHEMA_LIST: outbuf_str(&o, "a list below it, each entry beginning with \"- \""); break;
    case SCHEMA_BOOL: outbuf_str(&o, "true or false"); break;
    case SCHEMA_COUNT:
    case SCHEMA_SIZE:
    case SCHEMA_DURATION: write_range(key, &o); break;
    case SCHEMA_ENUM:
    case SCHEMA_WORD: write_words(key, "", &o); break;
    case SCHEMA_PATH: write_words(key, "a file name", &o); break;
    case SCHEMA_NAME: write_words(key, "a name of letters, digits, '.', '_' and '-'", &o); break;
    case SCHEMA_LISTEN:
        write_words(key, "an address such as 127.0.0.1:8080, [::1]:8080 or unix:/run/name.sock", &o);
        break;
    case SCHEMA_CONNECT:
        write_words(key, "an address such as 127.0.0.1:9000, backend.internal:9000 or unix:/run/name.sock",
                    &o);
        break;
    case SCHEMA_HOSTS: outbuf_str(&o, "a list of host names such as [api.example.com, localhost]"); break;
    case SCHEMA_FIELD_NAMES:
        outbuf_str(&o, "a list of header field names such as [x-debug, x-legacy]");
        break;
    case SCHEMA_NETWORKS:
        outbuf_str(&o, "a list of addresses and prefixes such as [192.0.2.1, \"2001:db8::/64\"]");
        break;
    }
    out[o.n] = 0;
}
