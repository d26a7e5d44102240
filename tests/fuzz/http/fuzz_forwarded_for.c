/* X-Forwarded-For against a naive reader: all entries of all fields in one list, walked from its end, parsed
 * with inet_pton(3).
 *
 * Input: lines; each is the value of one field. Trusted is what ends in an even octet. */
#include "http/forwarded_for.h"

#include <arpa/inet.h>

enum { FIELDS_MAX = 16, ENTRIES_MAX = 4096 };

static bool is_trusted(const void *arg, const struct addr *a)
{
    (void)arg;
    return (a->family == ADDR_V4 ? a->v4 : a->v6.lo) % 2 == 0;
}

static bool number_read(const char *text)
{
    size_t n = strlen(text);
    unsigned value = 0;
    if (n == 0 || n > 5 || (n > 1 && text[0] == '0')) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return false;
        value = value * 10 + (unsigned)(*text - '0');
    }
    return value <= 65535;
}

static bool entry_read(struct span entry, struct addr *out)
{
    char text[64], *port = NULL, *address = text;
    uint8_t octets[16];
    if (entry.n >= sizeof text || memchr(entry.p, '\0', entry.n)) return false;
    memcpy(text, entry.p, entry.n);
    text[entry.n] = '\0';
    bool in_brackets = text[0] == '[';
    if (in_brackets) {
        char *end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':')) return false;
        if (end[1]) port = end + 2;
        *end = '\0';
        address = text + 1;
    } else if (strchr(text, '.') && strchr(text, ':') && strchr(text, ':') == strrchr(text, ':')) {
        port = strchr(text, ':') + 1;
        port[-1] = '\0';
    }
    if (port && !number_read(port)) return false;
    bool is_v6 = strchr(address, ':') != NULL;
    if (in_brackets && !is_v6) return false;
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, address, octets) != 1) return false;
    *out = addr_from_octets(is_v6 ? ADDR_V6 : ADDR_V4, octets);
    return true;
}

static enum forwarded_for walk(const struct http_field *fields, uint32_t n, struct addr *caller)
{
    static struct span entries[ENTRIES_MAX];
    size_t count = 0;
    for (uint32_t i = 0; i < n; i++) {
        const char *p = fields[i].value.p, *end = p + fields[i].value.n;
        if (fields[i].id != FIELD_X_FORWARDED_FOR) continue;
        for (const char *at = p; at <= end && count < ENTRIES_MAX; at++) {
            if (at < end && *at != ',') continue;
            entries[count++] = span_trim(span_of(p, (size_t)(at - p)));
            p = at + 1;
        }
    }
    if (count == 0) return FORWARDED_FOR_ABSENT;
    for (size_t i = 0; i < count; i++) {
        if (i == FORWARDED_FOR_ENTRIES_MAX || !entry_read(entries[count - 1 - i], caller))
            return FORWARDED_FOR_MALFORMED;
        if (!is_trusted(NULL, caller)) break;
    }
    return FORWARDED_FOR_FOUND;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_field fields[FIELDS_MAX];
    uint32_t n = 0;
    const char *p = (const char *)data, *end = p + size;
    if (size >= ENTRIES_MAX) return 0;
    for (const char *at = p; at <= end && n < FIELDS_MAX; at++) {
        if (at < end && *at != '\n') continue;
        struct span value = span_of(p, (size_t)(at - p));
        bool is_other = value.n && value.p[0] == '#';
        fields[n++] =
            (struct http_field){.value = value, .id = is_other ? FIELD_X_REAL_IP : FIELD_X_FORWARDED_FOR};
        p = at + 1;
    }
    struct addr ours = {.family = ADDR_NONE}, theirs = {.family = ADDR_NONE};
    enum forwarded_for result = forwarded_for_find(fields, n, is_trusted, NULL, &ours);
    BUG_IF(result != walk(fields, n, &theirs), "a naive reader says something else");
    BUG_IF(result == FORWARDED_FOR_FOUND && !addr_eq(&ours, &theirs), "a naive reader finds another caller");
    return 0;
}
