/* metrics.h - counters, gauges and histograms, and the Prometheus text that shows them.
 *
 * Every family is one row of METRIC_MAP: nothing can be counted that is not in that table, and the
 * exposition and docs/METRICS.md are printed from it.
 *
 *   worker 0: struct metrics_block --.
 *   worker 1: struct metrics_block --+--> metrics_write(): one sum per cell, at scrape time
 *   control:  struct metrics_block --'
 *
 * Each thread that counts owns a block and is its only writer, so an update is a load, an addition and a
 * store into memory that no other thread writes: no lock, no locked instruction. A family with labels is a
 * flat array of cells; the position of a cell follows from the label indices.
 *
 * Labels are small closed sets. Those that belong to a higher floor (why a request was denied, which limit
 * was met) are given to metrics_init() as arrays of texts, in the order of that floor's enum.
 *
 * Thread: metrics_init/metrics_deinit/metrics_write [control]; metrics_block_create [any]; updates: the
 * thread that owns the block.
 */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/err.h"
#include "base/outbuf.h"

#include <stdatomic.h>
#include <stdint.h>

/* symbol, name of the label ("" = the set that says "no label"), most values it can have.
 * Indices: ENV as enum environment with METRICS_ENV_NONE last; ROUTE, METHOD as the enums of http/ (0 =
 * none); CODE from metrics_code(); the rest as given to metrics_init(). */
#define LABEL_MAP(XX)                                                                                        \
    XX(NONE, "", 1)                                                                                          \
    XX(ENV, "env", 3)                                                                                        \
    XX(ROUTE, "route", 3)                                                                                    \
    XX(METHOD, "method", 8)                                                                                  \
    XX(CODE, "code", 37)                                                                                     \
    XX(DIRECTION, "direction", 2)                                                                            \
    XX(DENY, "reason", 24)                                                                                   \
    XX(BAD_REQUEST, "reason", 32)                                                                            \
    XX(END_WHO, "who", 8)                                                                                    \
    XX(END_PHASE, "phase", 12)                                                                               \
    XX(LIMIT, "limit", 32)                                                                                   \
    XX(TUNNEL_CLOSE, "reason", 24)                                                                           \
    XX(PROXY_REFUSAL, "reason", 16)                                                                          \
    XX(TLS_FAILURE, "reason", 16)                                                                            \
    XX(TLS_VERSION, "version", 2)                                                                            \
    XX(TLS_RESUMED, "resumed", 2)

/* symbol, name without "proofgw_", kind, up to four labels, help. */
/* clang-format off */
#define METRIC_MAP(XX) \
    XX(HTTP_REQUESTS, "http_requests_total", COUNTER, ENV, ROUTE, METHOD, CODE, \
       "Requests answered, by environment, route, method and status code.") \
    XX(HTTP_REQUEST_DURATION, "http_request_duration_seconds", HISTOGRAM, ROUTE, NONE, NONE, NONE, \
       "Time from the first byte of a request to the last byte of its answer.") \
    XX(UPSTREAM_RESPONSE, "upstream_response_seconds", HISTOGRAM, ENV, NONE, NONE, NONE, \
       "Time from sending a request to the backend to the head of its answer.") \
    XX(AUTH_DENIED, "auth_denied_total", COUNTER, DENY, ENV, NONE, NONE, \
       "Requests refused by the policy, by the true reason.") \
    XX(BAD_REQUESTS, "bad_requests_total", COUNTER, BAD_REQUEST, NONE, NONE, NONE, \
       "Requests refused because of their form, by the rule they broke.") \
    XX(ENDS, "ends_total", COUNTER, END_WHO, END_PHASE, NONE, NONE, \
       "Exchanges ended, by who ended them and in which phase.") \
    XX(LIMITS_HIT, "limits_hit_total", COUNTER, LIMIT, NONE, NONE, NONE, \
       "Times a configured limit was met.") \
    XX(CONNECTIONS_ACCEPTED, "connections_accepted_total", COUNTER, NONE, NONE, NONE, NONE, \
       "Client connections accepted.") \
    XX(CONNECTIONS_REFUSED, "connections_refused_total", COUNTER, NONE, NONE, NONE, NONE, \
       "Client connections closed right after accept because of a limit.") \
    XX(UNKNOWN_SOURCE, "unknown_source_connections_total", COUNTER, NONE, NONE, NONE, NONE, \
       "Client connections from an address on no partner's allowlist.") \
    XX(SHIELD_DROPPED, "shield_dropped_total", COUNTER, NONE, NONE, NONE, NONE, \
       "Client connections dropped unanswered by a listener's shield: from an address on no partner's allowlist.") \
    XX(PROXY_HEADERS_REFUSED, "proxy_headers_refused_total", COUNTER, PROXY_REFUSAL, NONE, NONE, NONE, \
       "Connections to a listener with proxy_protocol that were reset for want of an acceptable PROXY header.") \
    XX(TLS_HANDSHAKES, "tls_handshakes_total", COUNTER, TLS_VERSION, TLS_RESUMED, NONE, NONE, \
       "TLS handshakes with clients that were completed, by version, and whether a session was resumed.") \
    XX(TLS_HANDSHAKE_FAILURES, "tls_handshake_failures_total", COUNTER, TLS_FAILURE, NONE, NONE, NONE, \
       "TLS handshakes with clients that failed, by reason.") \
    XX(TLS_HANDSHAKES_ACTIVE, "tls_handshakes_active", GAUGE, NONE, NONE, NONE, NONE, \
       "TLS handshakes with clients going on now.") \
    XX(CONNECTIONS_OPEN, "connections_open", GAUGE, NONE, NONE, NONE, NONE, \
       "Client connections open now, tunnels included.") \
    XX(EXCHANGES_ACTIVE, "exchanges_active", GAUGE, NONE, NONE, NONE, NONE, \
       "Requests being worked on now.") \
    XX(CLIENT_BYTES_RECEIVED, "client_bytes_received_total", COUNTER, NONE, NONE, NONE, NONE, \
       "Bytes read from clients.") \
    XX(CLIENT_BYTES_SENT, "client_bytes_sent_total", COUNTER, NONE, NONE, NONE, NONE, \
       "Bytes written to clients.") \
    XX(ALIAS_FIELDS_DROPPED, "alias_fields_dropped_total", COUNTER, NONE, NONE, NONE, NONE, \
       "Request fields dropped because of an underscore or dot in their name.") \
    XX(VERDICT_CACHE_HITS, "verdict_cache_hits_total", COUNTER, NONE, NONE, NONE, NONE, \
       "Requests decided by the verdict kept on their connection.") \
    XX(VERDICT_CACHE_MISSES, "verdict_cache_misses_total", COUNTER, NONE, NONE, NONE, NONE, \
       "Requests whose token and address were looked up.") \
    XX(UPSTREAM_CONNECTS, "upstream_connects_total", COUNTER, ENV, NONE, NONE, NONE, \
       "Connections opened to the backend.") \
    XX(UPSTREAM_CONNECT_FAILURES, "upstream_connect_failures_total", COUNTER, ENV, NONE, NONE, NONE, \
       "Connections to the backend that failed or timed out while being opened.") \
    XX(UPSTREAM_TLS_HANDSHAKES, "upstream_tls_handshakes_total", COUNTER, ENV, TLS_RESUMED, NONE, NONE, \
       "TLS handshakes with the backend that were completed, and whether a session was resumed.") \
    XX(UPSTREAM_TLS_FAILURES, "upstream_tls_failures_total", COUNTER, ENV, NONE, NONE, NONE, \
       "Connections to the backend that failed because of TLS: its certificate, a version, or ours was refused.") \
    XX(UPSTREAM_REUSES, "upstream_reuses_total", COUNTER, ENV, NONE, NONE, NONE, \
       "Requests sent on a backend connection that was already open.") \
    XX(UPSTREAM_RETRIES, "upstream_retries_total", COUNTER, ENV, NONE, NONE, NONE, \
       "Requests sent again because a kept backend connection had died.") \
    XX(UPSTREAM_UNEXPECTED_BYTES, "upstream_unexpected_bytes_total", COUNTER, ENV, NONE, NONE, NONE, \
       "Bytes that the backend sent outside an answer. Each time its connection was closed.") \
    XX(UPSTREAM_CONNECTIONS_OPEN, "upstream_connections_open", GAUGE, ENV, NONE, NONE, NONE, \
       "Connections to the backend open now, tunnels included.") \
    XX(UPSTREAM_CONNECTIONS_IDLE, "upstream_connections_idle", GAUGE, ENV, NONE, NONE, NONE, \
       "Connections to the backend kept open for the next request.") \
    XX(TUNNELS_OPEN, "tunnels_open", GAUGE, ENV, NONE, NONE, NONE, \
       "WebSocket tunnels open now.") \
    XX(TUNNELS_CLOSED, "tunnels_closed_total", COUNTER, TUNNEL_CLOSE, NONE, NONE, NONE, \
       "WebSocket tunnels closed, by reason.") \
    XX(TUNNEL_MESSAGES, "tunnel_messages_total", COUNTER, DIRECTION, NONE, NONE, NONE, \
       "WebSocket messages passed through tunnels, by who sent them.")
/* clang-format on */

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

enum metric_label_set {
#define XX(id, name, max) LABEL_##id,
    LABEL_MAP(XX)
#undef XX
        LABEL_COUNT
};

enum {
#define XX(id, name, max) LABEL_##id##_MAX = (max),
    LABEL_MAP(XX)
#undef XX
};

enum metric {
#define XX(id, name, kind, l1, l2, l3, l4, help) METRIC_##id,
    METRIC_MAP(XX)
#undef XX
        METRIC_COUNT
};

/* Values of LABEL_ENV behind the environments, and of LABEL_DIRECTION. */
enum { METRICS_ENV_NONE = LABEL_ENV_MAX - 1 };
enum { METRICS_FROM_CLIENT = 0, METRICS_FROM_BACKEND = 1 };

/* Cells of one histogram: its buckets, the one above the last bound, the sum in microseconds. */
enum {
    METRICS_BUCKETS = 16,
    METRICS_HISTOGRAM_SUM = METRICS_BUCKETS + 1,
    METRICS_HISTOGRAM_CELLS = METRICS_BUCKETS + 2,
    METRICS_CELLS_PER_COUNTER = 1,
    METRICS_CELLS_PER_GAUGE = 1,
    METRICS_CELLS_PER_HISTOGRAM = METRICS_HISTOGRAM_CELLS,
};

/* clang-format off */
#define METRIC_SERIES_(l1, l2, l3, l4) \
    (LABEL_##l1##_MAX * LABEL_##l2##_MAX * LABEL_##l3##_MAX * LABEL_##l4##_MAX)
/* clang-format on */

/* Where the cells of each family are in a block: METRICS_AT_x is the first, METRICS_LAST_x the last. */
enum {
#define XX(id, name, kind, l1, l2, l3, l4, help)                                                             \
    METRICS_AT_##id,                                                                                         \
        METRICS_LAST_##id = METRICS_AT_##id - 1 + METRICS_CELLS_PER_##kind * METRIC_SERIES_(l1, l2, l3, l4),
    METRIC_MAP(XX)
#undef XX
        METRICS_CELLS
};

/* One row of the table, as the update functions need it. The compiler folds it where `m` is a constant. */
struct metric_shape {
    uint16_t at;     /* first cell */
    uint16_t cells;  /* how many */
    uint16_t second; /* values of the second label */
};

static const struct metric_shape metric_shapes[METRIC_COUNT] = {
#define XX(id, name, kind, l1, l2, l3, l4, help)                                                             \
    {METRICS_AT_##id, METRICS_LAST_##id - METRICS_AT_##id + 1, LABEL_##l2##_MAX},
    METRIC_MAP(XX)
#undef XX
};

/* The counters of one thread. */
struct metrics_block {
    _Alignas(64) _Atomic uint64_t cells[METRICS_CELLS]; /* written by the owner only */
    struct metrics_block *next;                         /* list of all blocks; set once */
};

/* The values of one label, in the order of the owner's enum. Borrowed for as long as metrics are written. */
struct metrics_label_values {
    const char *const *values;
    unsigned n; /* at most LABEL_x_MAX */
};

struct metrics_labels {
    struct metrics_label_values deny;          /* enum deny */
    struct metrics_label_values bad_request;   /* enum head_refusal */
    struct metrics_label_values end_who;       /* who ended an exchange */
    struct metrics_label_values end_phase;     /* and in which phase */
    struct metrics_label_values limit;         /* which limit was met */
    struct metrics_label_values tunnel_close;  /* why a tunnel was closed */
    struct metrics_label_values proxy_refusal; /* enum proxy_refusal */
    struct metrics_label_values tls_failure;   /* enum tls_failure */
};

/* Sets the values of the labels that belong to higher floors. Call once, before the first metrics_write(). */
void metrics_init(const struct metrics_labels *labels);

/* Frees all blocks. No thread may count after this. */
void metrics_deinit(void);

/* A block of zeros for the calling thread, NULL when memory is out. Owns: this module, until
 * metrics_deinit(); what a thread counted stays in the sums after the thread has ended. */
struct metrics_block *metrics_block_create(void);

/* The cell of `m` with these label indices; `second` is 0 when the family has one label or none. */
static inline _Atomic uint64_t *metrics_cell(struct metrics_block *b, enum metric m, unsigned first,
                                             unsigned second)
{
    struct metric_shape shape = metric_shapes[m];
    unsigned i = first * shape.second + second;
    BUG_IF(second >= shape.second || i >= shape.cells, "metric label out of range");
    return &b->cells[shape.at + i];
}

/* Adds to a cell that only the calling thread writes. Wraps, so adding -1 takes one away. */
static inline void metrics_cell_add(_Atomic uint64_t *cell, uint64_t n)
{
    atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + n, memory_order_relaxed);
}

/* Counter with one label or none (label 0). */
static inline void metrics_add(struct metrics_block *b, enum metric m, unsigned label, uint64_t n)
{
    metrics_cell_add(metrics_cell(b, m, label, 0), n);
}

/* Counter with two labels. */
static inline void metrics_add2(struct metrics_block *b, enum metric m, unsigned first, unsigned second,
                                uint64_t n)
{
    metrics_cell_add(metrics_cell(b, m, first, second), n);
}

/* Gauge: sets this thread's share, which may be negative. The sum over all blocks is shown. */
static inline void metrics_gauge_set(struct metrics_block *b, enum metric m, unsigned label, int64_t v)
{
    atomic_store_explicit(metrics_cell(b, m, label, 0), (uint64_t)v, memory_order_relaxed);
}

/* Index of LABEL_CODE for a status; statuses without a value of their own share "other". */
unsigned metrics_code(unsigned status);

/* Counts one request in METRIC_HTTP_REQUESTS: the only family with four labels. */
static inline void metrics_count_request(struct metrics_block *b, unsigned env, unsigned route,
                                         unsigned method, unsigned status)
{
    BUG_IF(env >= LABEL_ENV_MAX || route >= LABEL_ROUTE_MAX || method >= LABEL_METHOD_MAX,
           "request label out of range");
    unsigned i = ((env * LABEL_ROUTE_MAX + route) * LABEL_METHOD_MAX + method) * LABEL_CODE_MAX;
    metrics_cell_add(&b->cells[METRICS_AT_HTTP_REQUESTS + i + metrics_code(status)], 1);
}

/* Histogram with one label. */
void metrics_observe(struct metrics_block *b, enum metric m, unsigned label, uint64_t us);

/* The sum over all blocks of a family with one label or none (label 0). Any thread. */
uint64_t metrics_sum(enum metric m, unsigned label);

/* Enough memory for metrics_write() when every cell is in use. */
enum { METRICS_TEXT_MAX = 768 * 1024 };

/* Writes all families with the sums over all blocks. A series that is zero is left out when it has more than
 * two labels (there are thousands) or the label value "none" (it may never happen). Format: Prometheus text
 * exposition 0.0.4. */
void metrics_write(struct outbuf *o);

/* Writes the table as Markdown (docs/METRICS.md). */
void metrics_reference(struct outbuf *o);

/* ---- families of other modules, written behind metrics_write() ---- */

struct metric_label {
    const char *name;
    const char *value; /* any text; escaped here */
};

/* The HELP and TYPE lines. `name` is whole ("proofgw_build_info", "process_open_fds"). */
void metrics_family(struct outbuf *o, const char *name, enum metric_kind kind, const char *help);

/* One sample line with `n` labels. */
void metrics_sample(struct outbuf *o, const char *name, const struct metric_label *labels, unsigned n,
                    uint64_t value);

/* The same with a value in thousandths: milliseconds become seconds. */
void metrics_sample_milli(struct outbuf *o, const char *name, const struct metric_label *labels, unsigned n,
                          uint64_t value_milli);

#endif
