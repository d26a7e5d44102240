#include "base/span.h"

enum { U64_DIGITS_MAX = 19 }; /* any 19 digits fit into 64 bits, so no overflow check is needed */

bool span_to_u64(struct span s, uint64_t *out)
{
    if (s.n == 0 || s.n > U64_DIGITS_MAX) return false;
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return false;
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    }
    *out = v;
    return true;
}

bool span_to_cstr(struct span s, char *out, size_t cap)
{
    if (cap == 0) return false;
    out[0] = '\0';
    if (s.n >= cap) return false;
    if (s.n == 0) return true;
    if (memchr(s.p, '\0', s.n)) return false;
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
    return true;
}
