#include "store/record.h"

#include "base/clock.h"
#include "config/suggest.h"
#include "store/jtok.h"
#include "store/record_value.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { UNKNOWN_KEY_SHOWN_MAX = 32 };

/* One record being read. */
struct checker {
    struct jtok json;
    unsigned line;
    struct partner_record record; /* what has been read so far */
    struct record_report *report; /* borrowed */
    uint64_t faults_before;       /* faults in the report that are not of this record */
    bool keeps_texts;             /* company, contact and webhook are wanted, not only checked */
    bool out_of_memory;
    const char **seen;                  /* borrowed, by field: where its value stands, NULL = not read yet */
    char scratch[RECORD_URL_BYTES_MAX]; /* the last string that had escapes */
};

/* Reads the value whose first token was just taken. False: it is not what the field must be. */
typedef bool field_read_fn(struct checker *c, enum jtok_kind token);

static field_read_fn read_partner_id, read_company, read_contact, read_client_token, read_previous_token,
    read_previous_expiry, read_widget_id, read_off_ramp, read_webhook_url, read_production, read_sandbox,
    read_certificates, read_enabled;

enum field {
    FIELD_PARTNER_ID,
    FIELD_COMPANY,
    FIELD_CONTACT,
    FIELD_CLIENT_TOKEN,
    FIELD_PREVIOUS_TOKEN,
    FIELD_PREVIOUS_EXPIRY,
    FIELD_WIDGET_ID,
    FIELD_OFF_RAMP,
    FIELD_WEBHOOK_URL,
    FIELD_PRODUCTION,
    FIELD_SANDBOX,
    FIELD_CERTIFICATES,
    FIELD_ENABLED,
    FIELD_COUNT
};

#define DIGEST_TEXT                                                                                          \
    "the SHA-256 of the token in 64 lower-case hexadecimal digits (printf %s TOKEN | sha256sum)"
#define CIDRS_TEXT "in double quotes, such as [\"192.0.2.7\", \"2001:db8:1::/48\"]"

static const struct field_def {
    const char *name;
    bool is_required;
    field_read_fn *read;
    const char *must_be; /* completes "NAME must be ..." */
} fields[FIELD_COUNT] = {
    [FIELD_PARTNER_ID] = {"partner_id", true, read_partner_id, "1 to 64 characters out of A-Z a-z 0-9 . _ -"},
    [FIELD_COMPANY] = {"company", true, read_company,
                       "a name of 1 to 200 characters without control characters"},
    [FIELD_CONTACT] = {"contact", true, read_contact, "one e-mail address such as ops@example.com"},
    [FIELD_CLIENT_TOKEN] = {"client_token_sha256", true, read_client_token, DIGEST_TEXT},
    [FIELD_PREVIOUS_TOKEN] = {"previous_token_sha256", false, read_previous_token, DIGEST_TEXT},
    [FIELD_PREVIOUS_EXPIRY] = {"previous_token_expires_at", false, read_previous_expiry,
                               "a time with its zone such as \"2026-11-30T12:00:00Z\""},
    [FIELD_WIDGET_ID] = {"widget_id", true, read_widget_id,
                         "a UUID such as 0190c5b2-7a64-7000-8000-3f2a9c1d5e77"},
    [FIELD_OFF_RAMP] = {"off_ramp", false, read_off_ramp, "true or false, without quotes"},
    [FIELD_WEBHOOK_URL] =
        {"webhook_url", false, read_webhook_url,
         "an https:// URL with a host, without user name and fragment, of at most 2048 bytes; "
         "leave the key out when there is none"},
    [FIELD_PRODUCTION] = {"production_cidrs", true, read_production,
                          "a list of at least one address or prefix " CIDRS_TEXT},
    [FIELD_SANDBOX] = {"sandbox_cidrs", false, read_sandbox, "a list of addresses and prefixes " CIDRS_TEXT},
    [FIELD_CERTIFICATES] = {"client_certificate_sha256", false, read_certificates,
                            "a list of at most 8 fingerprints: SHA-256 of a client certificate, 64 "
                            "lower-case hexadecimal digits"},
    [FIELD_ENABLED] = {"enabled", false, read_enabled, "true or false, without quotes"},
};

/* --- report --------------------------------------------------------------------------------------- */

static void messages_add(struct record_messages *m, unsigned line, unsigned column, const char *format,
                         va_list args)
{
    m->total++;
    if (m->n == RECORD_MESSAGES_MAX) return;
    struct errmsg *added = &m->list[m->n++];
    added->line = line;
    added->column = column;
    (void)vsnprintf(added->text, sizeof added->text, format, args); /* truncation is what errmsg promises */
}

void record_messages_add(struct record_messages *m, unsigned line, unsigned column, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    messages_add(m, line, column, format, args);
    va_end(args);
}

/* The column of a place in the record. Counting walks the line, so only for messages that are kept. */
static unsigned column_of(const struct checker *c, const struct record_messages *m, const char *at)
{
    return m->n < RECORD_MESSAGES_MAX ? jtok_column(&c->json, at) : 0;
}

/* Reports a fault at the place `at` of the record. */
__attribute__((format(printf, 3, 4))) static void complain(struct checker *c, const char *at,
                                                           const char *format, ...)
{
    va_list args;
    va_start(args, format);
    messages_add(&c->report->faults, c->line, column_of(c, &c->report->faults, at), format, args);
    va_end(args);
}

/* --- values --------------------------------------------------------------------------------------- */

/* The string just read, without escapes. Valid until the next call. False: no string, or longer than any
 * field may be. */
static bool take_text(struct checker *c, enum jtok_kind token, struct span *text)
{
    if (token != JTOK_STRING && token != JTOK_KEY) return false;
    *text = c->json.text;
    if (!c->json.escaped) return true;
    size_t n;
    if (jtok_unescape(*text, c->scratch, sizeof c->scratch, &n)) return false;
    *text = span_of(c->scratch, n);
    return true;
}

/* Copies a text that is known to have no NUL, if it is wanted. */
static bool keep_text(struct checker *c, struct span text, char **out)
{
    if (!c->keeps_texts) return true;
    *out = malloc(text.n + 1);
    if (!*out || !span_to_cstr(text, *out, text.n + 1)) c->out_of_memory = true;
    return true;
}

static bool take_bool(enum jtok_kind token, bool *out)
{
    if (token != JTOK_TRUE && token != JTOK_FALSE) return false;
    *out = token == JTOK_TRUE;
    return true;
}

static bool read_partner_id(struct checker *c, enum jtok_kind token)
{
    struct span text;
    return take_text(c, token, &text) && record_value_is_partner_id(text) &&
           span_to_cstr(text, c->record.partner.id, sizeof c->record.partner.id);
}

static bool read_company(struct checker *c, enum jtok_kind token)
{
    struct span text;
    return take_text(c, token, &text) && record_value_is_company(text) &&
           keep_text(c, text, &c->record.company);
}

static bool read_contact(struct checker *c, enum jtok_kind token)
{
    struct span text;
    return take_text(c, token, &text) && record_value_is_email(text) &&
           keep_text(c, text, &c->record.contact);
}

static bool read_digest(struct checker *c, enum jtok_kind token, enum token_slot slot)
{
    struct span text;
    struct partner *p = &c->record.partner;
    p->has_token[slot] = take_text(c, token, &text) && record_value_to_digest(text, p->digest[slot]);
    return p->has_token[slot];
}

static bool read_client_token(struct checker *c, enum jtok_kind token)
{
    return read_digest(c, token, SLOT_CURRENT);
}

static bool read_previous_token(struct checker *c, enum jtok_kind token)
{
    return read_digest(c, token, SLOT_PREVIOUS);
}

static bool read_previous_expiry(struct checker *c, enum jtok_kind token)
{
    struct span text;
    return take_text(c, token, &text) &&
           clock_parse_rfc3339(text, &c->record.partner.previous_expires_ms) == ERR_OK;
}

static bool read_widget_id(struct checker *c, enum jtok_kind token)
{
    struct span text;
    return take_text(c, token, &text) && text.n == UUID_LEN &&
           uuid_parse(text.p, c->record.partner.widget_id);
}

static bool read_off_ramp(struct checker *c, enum jtok_kind token)
{
    return take_bool(token, &c->record.partner.off_ramp);
}

static bool read_webhook_url(struct checker *c, enum jtok_kind token)
{
    struct span text;
    return take_text(c, token, &text) && record_value_is_webhook_url(text) &&
           keep_text(c, text, &c->record.webhook_url);
}

static bool read_enabled(struct checker *c, enum jtok_kind token)
{
    return take_bool(token, &c->record.partner.enabled);
}

enum { CIDRS_FIRST = 4 }; /* most partners have no more; a power of two */

/* Adds a prefix to a list whose capacity is CIDRS_FIRST or the next power of two. */
static void keep_cidr(struct checker *c, enum environment env, const struct cidr *cidr)
{
    struct cidr **list = &c->record.partner.cidrs[env];
    uint32_t n = c->record.partner.ncidrs[env];
    if (n == 0 || (n >= CIDRS_FIRST && (n & (n - 1)) == 0)) {
        struct cidr *larger = realloc(*list, (n ? 2 * (size_t)n : CIDRS_FIRST) * sizeof *larger);
        if (!larger) {
            c->out_of_memory = true;
            return;
        }
        *list = larger;
    }
    (*list)[n] = *cidr;
    c->record.partner.ncidrs[env] = n + 1;
}

/* What is clearly no address is not repeated in a message: it could be a token or digest in the wrong place.
 */
static bool may_be_shown(struct span text)
{
    return text.n > 0 && text.n < CIDR_TEXT_MAX &&
           (memchr(text.p, '.', text.n) || memchr(text.p, ':', text.n));
}

static void read_cidr(struct checker *c, enum jtok_kind token, const char *name, enum environment env)
{
    struct span text;
    struct cidr cidr;
    struct errmsg why;
    const char *at = c->json.at;
    bool is_text = take_text(c, token, &text);
    if (is_text && !cidr_parse(text, &cidr_rules_default, &cidr, &why)) {
        if (why.text[0])
            record_messages_add(&c->report->warnings, c->line, column_of(c, &c->report->warnings, at),
                                "%s: %s", name, why.text);
        keep_cidr(c, env, &cidr);
    } else if (is_text && may_be_shown(text)) {
        complain(c, at, "%s: %s", name, why.text);
    } else {
        complain(c, at, "%s: an entry is no address; write such as \"192.0.2.7\" or \"2001:db8:1::/48\"",
                 name);
    }
}

/* Faults of single entries are reported here; false only when the value is no list, or empty and must not be.
 */
static bool read_cidrs(struct checker *c, enum jtok_kind token, const char *name, enum environment env,
                       uint32_t n_min)
{
    uint32_t n = 0;
    if (token != JTOK_ARRAY_BEGIN) return false;
    while ((token = jtok_next(&c->json)) != JTOK_ARRAY_END && token != JTOK_BAD && !c->out_of_memory) {
        if (n++ < PARTNER_CIDRS_MAX) read_cidr(c, token, name, env);
        if (n == PARTNER_CIDRS_MAX + 1)
            complain(c, c->json.at, "%s has more than %d entries; merge them into fewer prefixes", name,
                     PARTNER_CIDRS_MAX);
        (void)jtok_skip(&c->json); /* bad JSON shows at the next token */
    }
    return n >= n_min || token == JTOK_BAD;
}

static bool read_production(struct checker *c, enum jtok_kind token)
{
    return read_cidrs(c, token, fields[FIELD_PRODUCTION].name, ENV_PRODUCTION, 1);
}

static bool read_sandbox(struct checker *c, enum jtok_kind token)
{
    return read_cidrs(c, token, fields[FIELD_SANDBOX].name, ENV_SANDBOX, 0);
}

/* False when it is no list of digests, or too long. */
static bool read_certificates(struct checker *c, enum jtok_kind token)
{
    struct partner *p = &c->record.partner;
    struct span text;
    uint8_t digest[CERTIFICATE_DIGEST_BYTES];
    if (token != JTOK_ARRAY_BEGIN) return false;
    while ((token = jtok_next(&c->json)) != JTOK_ARRAY_END && token != JTOK_BAD) {
        if (p->ncertificates == PARTNER_CERTIFICATES_MAX || !take_text(c, token, &text) ||
            !record_value_to_digest(text, digest))
            return false;
        memcpy(p->certificates[p->ncertificates++], digest, sizeof digest);
    }
    return true;
}

/* --- record --------------------------------------------------------------------------------------- */

static enum field field_find(struct span name)
{
    enum field f = 0;
    while (f < FIELD_COUNT && !span_eq(name, span_str(fields[f].name)))
        f++;
    return f;
}

static void complain_unknown_key(struct checker *c, const char *at, struct span key)
{
    struct suggestion s = {.word = key};
    for (enum field f = 0; f < FIELD_COUNT; f++)
        suggestion_offer(&s, fields[f].name);
    /* A key is repeated only when it cannot be a token or digest that slipped into the wrong place. */
    bool is_harmless = key.n <= UNKNOWN_KEY_SHOWN_MAX && record_value_is_partner_id(key);
    struct span shown = is_harmless ? key : SPAN("...");
    if (s.best) {
        complain(c, at, "unknown key \"%.*s\"; did you mean \"%s\"?", (int)shown.n, shown.p, s.best);
    } else {
        complain(c, at, "unknown key \"%.*s\"; remove it", (int)shown.n, shown.p);
    }
}

/* One member, from its key token to the last token of its value. */
static void read_member(struct checker *c)
{
    const char *key_at = c->json.at;
    struct span key = {0};
    enum field f = take_text(c, JTOK_KEY, &key) ? field_find(key) : FIELD_COUNT;
    if (f == FIELD_COUNT) {
        complain_unknown_key(c, key_at, key);
    } else if (c->seen[f]) {
        complain(c, key_at, "%s is written twice; keep one of them", fields[f].name);
        f = FIELD_COUNT;
    }
    enum jtok_kind token = jtok_next(&c->json);
    const char *value_at = c->json.at;
    if (token == JTOK_BAD) return;
    if (f != FIELD_COUNT) {
        c->seen[f] = value_at;
        if (!fields[f].read(c, token))
            complain(c, value_at, "%s must be %s", fields[f].name, fields[f].must_be);
    }
    (void)jtok_skip(&c->json); /* bad JSON shows at the next token */
}

/* Faults that no single value shows. */
static void check_whole(struct checker *c)
{
    const struct partner *p = &c->record.partner;
    for (enum field f = 0; f < FIELD_COUNT; f++)
        if (fields[f].is_required && !c->seen[f])
            complain(c, c->json.begin, "%s is missing; it must be %s", fields[f].name, fields[f].must_be);
    const char *token_at = c->seen[FIELD_PREVIOUS_TOKEN], *expiry_at = c->seen[FIELD_PREVIOUS_EXPIRY];
    if (token_at && !expiry_at)
        complain(c, token_at,
                 "previous_token_sha256 needs previous_token_expires_at, the end of its grace period");
    if (expiry_at && !token_at)
        complain(c, expiry_at,
                 "previous_token_expires_at needs previous_token_sha256; remove it when there is none");
    if (p->has_token[SLOT_CURRENT] && p->has_token[SLOT_PREVIOUS] &&
        memcmp(p->digest[SLOT_CURRENT], p->digest[SLOT_PREVIOUS], TOKEN_DIGEST_BYTES) == 0)
        complain(c, token_at,
                 "previous_token_sha256 is the same as client_token_sha256; remove it, or issue a new token");
}

static void read_record(struct checker *c)
{
    enum jtok_kind token = jtok_next(&c->json);
    if (token != JTOK_BAD && token != JTOK_OBJECT_BEGIN) {
        complain(c, c->json.at, "a record must be one JSON object on one line: {\"partner_id\": ...}");
        return;
    }
    while (token != JTOK_BAD && (token = jtok_next(&c->json)) == JTOK_KEY && !c->out_of_memory)
        read_member(c);
    if (token == JTOK_OBJECT_END) token = jtok_next(&c->json);
    if (token == JTOK_BAD) {
        complain(c, c->json.at, "not valid JSON: %s", c->json.problem);
    } else if (!c->out_of_memory) {
        check_whole(c);
    }
}

static enum err parse(struct span json, unsigned line, bool keeps_texts, struct partner_record *out,
                      struct record_report *report)
{
    const char *seen[FIELD_COUNT] = {NULL};
    struct checker c; /* not zeroed as a whole: the scratch memory is large */
    jtok_init(&c.json, json);
    c.line = line;
    c.record = (struct partner_record){.partner.enabled = true};
    c.report = report;
    c.faults_before = report->faults.total;
    c.keeps_texts = keeps_texts;
    c.out_of_memory = false;
    c.seen = seen;

    read_record(&c);
    if (!c.out_of_memory && report->faults.total == c.faults_before) {
        *out = c.record;
        return ERR_OK;
    }
    record_deinit(&c.record);
    return c.out_of_memory ? ERR_NOMEM : ERR_PARSE;
}

enum err record_parse(struct span json, unsigned line, struct partner_record *out,
                      struct record_report *report)
{
    return parse(json, line, true, out, report);
}

enum err record_parse_partner(struct span json, unsigned line, struct partner *out,
                              struct record_report *report)
{
    struct partner_record record;
    enum err e = parse(json, line, false, &record, report);
    if (!e) *out = record.partner;
    return e;
}

void record_deinit(struct partner_record *r)
{
    partner_deinit(&r->partner);
    free(r->company);
    free(r->contact);
    free(r->webhook_url);
    *r = (struct partner_record){0};
}
