#include "proofctl/record_json.h"

#include "proofctl/moment.h"
#include "proofctl/token_text.h"

const char *record_json_list_key(enum environment env)
{
    return env == ENV_PRODUCTION ? "production_cidrs" : "sandbox_cidrs";
}

const char *record_json_token_key(enum token_slot slot)
{
    return slot == SLOT_CURRENT ? "client_token_sha256" : "previous_token_sha256";
}

json_t *record_json_load(struct span line)
{
    json_t *record = json_loadb(line.p, line.n, 0, NULL);
    if (json_is_object(record)) return record;
    json_decref(record);
    return NULL;
}

bool record_json_set(json_t *record, const char *key, const char *value)
{
    if (value) return json_object_set_new(record, key, json_string(value)) == 0;
    (void)json_object_del(record, key); /* fails when it is not there, which is what is wanted */
    return true;
}

char *record_json_text(const json_t *record)
{
    return json_dumps(record, 0);
}

/* Hosts without their length, as people write them. */
static json_t *view_cidrs(const struct cidr *list, uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; array && i < n; i++) {
        char text[CIDR_TEXT_MAX];
        size_t length = cidr_format(&list[i], text);
        bool is_host = list[i].len == (list[i].net.family == ADDR_V4 ? 32 : 128);
        const char *slash = is_host ? memchr(text, '/', length) : NULL;
        if (slash) length = (size_t)(slash - text);
        if (json_array_append_new(array, json_stringn(text, length))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *view_certificates(const struct partner *p)
{
    json_t *array = json_array();
    for (uint8_t i = 0; array && i < p->ncertificates; i++) {
        char hex[2 * TOKEN_DIGEST_BYTES + 1];
        token_text_hex(p->certificates[i], hex);
        if (json_array_append_new(array, json_string(hex))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *view_fingerprint(const uint8_t digest[static TOKEN_DIGEST_BYTES])
{
    char hex[2 * TOKEN_DIGEST_BYTES + 1];
    token_text_hex(digest, hex);
    return json_stringn(hex, TOKEN_FINGERPRINT_CHARS);
}

static json_t *view_current(const struct partner *p)
{
    uint8_t revoked[TOKEN_DIGEST_BYTES];
    if (token_text_revoked_digest(p->id, revoked)) return NULL;
    if (memcmp(revoked, p->digest[SLOT_CURRENT], sizeof revoked) == 0) return json_null();
    return json_pack("{s:o}", "fingerprint", view_fingerprint(p->digest[SLOT_CURRENT]));
}

static json_t *view_previous(const struct partner *p, uint64_t now_ms)
{
    if (!p->has_token[SLOT_PREVIOUS]) return json_null();
    char end[MOMENT_TEXT_MAX];
    moment_rfc3339(p->previous_expires_ms, end);
    return json_pack("{s:o, s:s, s:b}", "fingerprint", view_fingerprint(p->digest[SLOT_PREVIOUS]),
                     "expires_at", end, "valid", p->previous_expires_ms > now_ms);
}

json_t *record_json_view(const struct partner_record *record, uint64_t now_ms)
{
    const struct partner *p = &record->partner;
    char widget_id[UUID_LEN + 1] = {0};
    uuid_format(p->widget_id, widget_id);
    return json_pack(
        "{s:s, s:s, s:s, s:b, s:s, s:b, s:s?, s:o, s:o, s:o, s:o, s:o}", "partner_id", p->id, "company",
        record->company, "contact", record->contact, "enabled", p->enabled, "widget_id", widget_id,
        "off_ramp", p->off_ramp, "webhook_url", record->webhook_url, record_json_list_key(ENV_PRODUCTION),
        view_cidrs(p->cidrs[ENV_PRODUCTION], p->ncidrs[ENV_PRODUCTION]), record_json_list_key(ENV_SANDBOX),
        view_cidrs(p->cidrs[ENV_SANDBOX], p->ncidrs[ENV_SANDBOX]), "current_token", view_current(p),
        "previous_token", view_previous(p, now_ms), "client_certificate_sha256", view_certificates(p));
}

/* Adds what differs between two views to `was` and `becomes`. Views have the same keys. */
static bool collect_differences(const json_t *before, const json_t *after, json_t *was, json_t *becomes)
{
    const char *key;
    json_t *old_value;
    json_object_foreach((json_t *)before, key, old_value)
    {
        json_t *new_value = json_object_get(after, key);
        if (json_equal(old_value, new_value)) continue;
        if (json_object_set(was, key, old_value) || json_object_set(becomes, key, new_value)) return false;
    }
    return true;
}

bool record_json_differences(const json_t *before, const json_t *after, json_t **old_values,
                             json_t **new_values)
{
    bool has_both = before && after;
    json_t *was = has_both ? json_object() : before ? json_deep_copy(before) : json_null();
    json_t *becomes = has_both ? json_object() : after ? json_deep_copy(after) : json_null();
    if (was && becomes && (!has_both || collect_differences(before, after, was, becomes))) {
        *old_values = was;
        *new_values = becomes;
        return true;
    }
    json_decref(was);
    json_decref(becomes);
    return false;
}
