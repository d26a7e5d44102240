#include "proxy/denials.h"

struct denial *denials_next(struct denials *d)
{
    return &d->ring[d->next++ % DENIALS_MAX];
}

uint8_t denial_keep(char *to, size_t cap, struct span text)
{
    size_t n = text.n < cap ? text.n : cap;
    if (n) memcpy(to, text.p, n);
    return (uint8_t)n;
}

const struct denial *denials_find(const struct denials *d, struct span request_id)
{
    uint32_t n = d->next < DENIALS_MAX ? d->next : DENIALS_MAX;
    for (uint32_t i = 1; i <= n; i++) {
        const struct denial *entry = &d->ring[(d->next - i) % DENIALS_MAX];
        if (span_eq(span_of(entry->request_id, UUID_LEN), request_id)) return entry;
    }
    return NULL;
}
