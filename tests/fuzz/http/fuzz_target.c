/* Targets and hosts. What is accepted, resolved in the most obliging way that a server behind us might
 * (decode twice, treat '\' as '/', cut segments at ';', merge slashes, follow dots), still lies where we
 * routed it. */
#include "http/target.h"

#include <stdlib.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t decode(const char *p, size_t n, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '%' && n - i > 2 && hex(p[i + 1]) >= 0 && hex(p[i + 2]) >= 0) {
            out[k++] = (char)(hex(p[i + 1]) * 16 + hex(p[i + 2]));
            i += 2;
        } else {
            out[k++] = p[i] == '\\' ? '/' : p[i];
        }
    }
    return k;
}

/* Segments are copied to the front of `p`; a ".." takes the last one away. */
static size_t resolve(char *p, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        while (end < n && p[end] != '/')
            end++;
        size_t len = end - i;
        const char *cut = memchr(p + i, ';', len);
        if (cut) len = (size_t)(cut - (p + i));
        if (len == 3 && memcmp(p + i, "/..", 3) == 0) {
            while (k && p[--k] != '/') {
            }
        } else if (len > 1 && !(len == 2 && p[i + 1] == '.')) {
            memmove(p + k, p + i, len);
            k += len;
        } else if (end == n && len == 1) {
            p[k++] = '/';
        }
        i = end;
    }
    return k;
}

static void expect_route_holds(const struct target *t)
{
    char *once = malloc(t->path.n + 1), *twice = malloc(t->path.n + 1);
    BUG_IF(!once || !twice, "out of memory in a fuzz target");
    size_t n = decode(t->path.p, t->path.n, once);
    n = decode(once, n, twice);
    n = resolve(twice, n);
    bool is_widget = n >= 8 && memcmp(twice, "/widget/", 8) == 0;
    bool is_ws = n == 3 && memcmp(twice, "/ws", 3) == 0;
    BUG_IF(is_widget != (t->route == ROUTE_WIDGET) || is_ws != (t->route == ROUTE_WS),
           "another route behind us");
    free(once);
    free(twice);
}

static void expect_host(struct span text, struct span host)
{
    BUG_IF(host.n == 0 || host.p != text.p || host.n > text.n, "host outside its text");
    for (size_t i = 0; i < host.n; i++)
        BUG_IF(!memchr("[]:.-_0123456789abcdefghijklmnopqrstuvwxyz", ascii_lower(host.p[i]), 42),
               "bad byte in a host");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size ? size : 1);
    BUG_IF(!copy, "out of memory in a fuzz target");
    memcpy(copy, data, size);
    struct span text = span_of(copy, size), host;
    struct target t;
    if (target_parse(text, &t) == ERR_OK) {
        BUG_IF(t.path.n == 0 || t.path.p[0] != '/', "a path without its slash");
        BUG_IF(t.origin.p != t.path.p || t.origin.n != t.path.n + (t.query.p ? t.query.n + 1 : 0),
               "origin is not path and query");
        BUG_IF(t.authority.p && host_parse(t.authority, &host), "a bad authority");
        expect_route_holds(&t);
    }
    if (host_parse(text, &host) == ERR_OK) expect_host(text, host);
    free(copy);
    return 0;
}
