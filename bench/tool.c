#include "tool.h"

#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

bool tool_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t v;
    if (!span_to_u64(span_str(text), &v) || v < min || v > max) return false;
    *out = v;
    return true;
}

bool tool_parse_address(const char *text, struct socket_address *out)
{
    if (span_starts(span_str(text), SPAN("unix:"))) return socket_address_unix(text + 5, out) == ERR_OK;
    const char *colon = strrchr(text, ':');
    uint64_t port;
    if (!colon || !tool_parse_number(colon + 1, 0, UINT16_MAX, &port)) return false;
    struct span host = span_of(text, (size_t)(colon - text));
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') host = span_of(host.p + 1, host.n - 2);
    struct addr a;
    if (addr_parse(host, &a)) return false;
    *out = socket_address_ip(&a, (uint16_t)port);
    return true;
}

void tool_raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* then fewer connections fit, and the next one says so */
}

void tool_ask_short_slices(void)
{
    struct { /* sched_setattr(2); glibc 2.36 does not declare it */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } attributes = {.size = sizeof attributes,
                    .policy = SCHED_OTHER,
                    .nice = getpriority(PRIO_PROCESS, 0),
                    .runtime_ns = 100 * 1000};
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0); /* only helps the latencies */
}
