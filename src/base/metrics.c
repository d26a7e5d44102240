#include "base/metrics.h"

#include <inttypes.h>
#include <stdlib.h>

enum { LABELS_MAX = 4 };

/* clang-format off */
#define CODE_MAP(XX) \
    XX(101) XX(200) XX(201) XX(202) XX(204) XX(206) XX(301) XX(302) XX(303) XX(304) XX(307) XX(308) \
    XX(400) XX(401) XX(403) XX(404) XX(405) XX(406) XX(408) XX(409) XX(410) XX(411) XX(413) XX(414) \
    XX(415) XX(417) XX(422) XX(426) XX(429) XX(431) XX(500) XX(501) XX(502) XX(503) XX(504) XX(505)
/* clang-format on */

enum {
    CODE_OTHER = 0,
#define XX(status) CODE_##status,
    CODE_MAP(XX)
#undef XX
        CODE_COUNT,
    STATUS_END = 600,
};

_Static_assert((int)CODE_COUNT == (int)LABEL_CODE_MAX, "LABEL_CODE_MAX is the length of the status list");

static const char *const env_values[] = {"production", "sandbox", "none"};
static const char *const route_values[] = {"none", "widget", "ws"};
static const char *const method_values[] = {"none", "GET",    "HEAD",  "POST",
                                            "PUT",  "DELETE", "PATCH", "OPTIONS"};
static const char *const direction_values[] = {"client", "backend"};
static const char *const tls_version_values[] = {"1.2", "1.3"};
static const char *const tls_resumed_values[] = {"false", "true"};
/* clang-format off */
static const char *const code_values[] = {
    "other",
#define XX(status) #status,
    CODE_MAP(XX)
#undef XX
};
/* clang-format on */

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* The other labels are filled by metrics_init(). */
static struct metrics_label_values label_values[LABEL_COUNT] = {
    [LABEL_ENV] = {env_values, COUNT_OF(env_values)},
    [LABEL_ROUTE] = {route_values, COUNT_OF(route_values)},
    [LABEL_METHOD] = {method_values, COUNT_OF(method_values)},
    [LABEL_CODE] = {code_values, COUNT_OF(code_values)},
    [LABEL_DIRECTION] = {direction_values, COUNT_OF(direction_values)},
    [LABEL_TLS_VERSION] = {tls_version_values, COUNT_OF(tls_version_values)},
    [LABEL_TLS_RESUMED] = {tls_resumed_values, COUNT_OF(tls_resumed_values)},
};

static const struct label_def {
    const char *name;
    unsigned max;
} label_defs[LABEL_COUNT] = {
#define XX(id, name, max) {name, max},
    LABEL_MAP(XX)
#undef XX
};

static const struct metric_def {
    const char *name;
    enum metric_kind kind;
    enum metric_label_set labels[LABELS_MAX]; /* LABEL_NONE behind the last one */
    const char *help;
} metric_defs[METRIC_COUNT] = {
#define XX(id, name, kind, l1, l2, l3, l4, help)                                                             \
    [METRIC_##id] = {"proofgw_" name, METRIC_##kind, {LABEL_##l1, LABEL_##l2, LABEL_##l3, LABEL_##l4}, help},
    METRIC_MAP(XX)
#undef XX
};

/* Log-spaced, from half a millisecond to the longest time-outs. */
static const struct bucket {
    uint32_t upper_us;
    const char *le; /* the same in seconds */
} buckets[METRICS_BUCKETS] = {
    {500, "0.0005"}, {1000, "0.001"},  {2500, "0.0025"}, {5000, "0.005"},  {10000, "0.01"}, {25000, "0.025"},
    {50000, "0.05"}, {100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},  {1000000, "1"},  {2500000, "2.5"},
    {5000000, "5"},  {10000000, "10"}, {30000000, "30"}, {60000000, "60"},
};

static struct metrics_block *_Atomic all_blocks; /* newest first */

static const char *kind_name(enum metric_kind kind)
{
    static const char *const names[] = {
        [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
    return names[kind];
}

static void labels_set(enum metric_label_set set, struct metrics_label_values values)
{
    BUG_IF(values.n > label_defs[set].max, "a metric label has more values than LABEL_MAP allows");
    label_values[set] = values;
}

void metrics_init(const struct metrics_labels *labels)
{
    labels_set(LABEL_DENY, labels->deny);
    labels_set(LABEL_BAD_REQUEST, labels->bad_request);
    labels_set(LABEL_END_WHO, labels->end_who);
    labels_set(LABEL_END_PHASE, labels->end_phase);
    labels_set(LABEL_LIMIT, labels->limit);
    labels_set(LABEL_TUNNEL_CLOSE, labels->tunnel_close);
    labels_set(LABEL_PROXY_REFUSAL, labels->proxy_refusal);
    labels_set(LABEL_TLS_FAILURE, labels->tls_failure);
}

void metrics_deinit(void)
{
    struct metrics_block *block = atomic_exchange(&all_blocks, NULL);
    while (block) {
        struct metrics_block *next = block->next;
        free(block);
        block = next;
    }
}

struct metrics_block *metrics_block_create(void)
{
    struct metrics_block *block = aligned_alloc(_Alignof(struct metrics_block), sizeof *block);
    if (!block) return NULL;
    for (unsigned i = 0; i < METRICS_CELLS; i++)
        atomic_init(&block->cells[i], 0);
    block->next = atomic_load(&all_blocks);
    while (!atomic_compare_exchange_weak(&all_blocks, &block->next, block))
        continue;
    return block;
}

unsigned metrics_code(unsigned status)
{
    static const uint8_t code_of[STATUS_END] = {
#define XX(status) [status] = CODE_##status,
        CODE_MAP(XX)
#undef XX
    };
    return status < STATUS_END ? code_of[status] : CODE_OTHER;
}

void metrics_observe(struct metrics_block *b, enum metric m, unsigned label, uint64_t us)
{
    struct metric_shape shape = metric_shapes[m];
    BUG_IF(metric_defs[m].kind != METRIC_HISTOGRAM || label >= shape.cells / METRICS_HISTOGRAM_CELLS,
           "no such histogram");
    _Atomic uint64_t *cells = &b->cells[shape.at + label * METRICS_HISTOGRAM_CELLS];
    unsigned i = 0;
    while (i < METRICS_BUCKETS && us > buckets[i].upper_us)
        i++;
    metrics_cell_add(&cells[i], 1);
    metrics_cell_add(&cells[METRICS_HISTOGRAM_SUM], us);
}

/* ---- exposition ---- */

static uint64_t cell_sum(unsigned i)
{
    uint64_t sum = 0;
    for (struct metrics_block *b = atomic_load(&all_blocks); b; b = b->next)
        sum += atomic_load_explicit(&b->cells[i], memory_order_relaxed);
    return sum;
}

uint64_t metrics_sum(enum metric m, unsigned label)
{
    BUG_IF(label * metric_shapes[m].second >= metric_shapes[m].cells, "metric label out of range");
    return cell_sum(metric_shapes[m].at + label * metric_shapes[m].second);
}

/* Backslash, newline and, in label values, the quote are what the format wants escaped. */
static void escaped_write(struct outbuf *o, const char *text, bool is_label)
{
    for (; *text; text++) {
        if (*text == '\n')
            outbuf_str(o, "\\n");
        else if (*text == '\\' || (*text == '"' && is_label))
            outbuf_bytes(o, (char[]){'\\', *text}, 2);
        else
            outbuf_char(o, *text);
    }
}

/* `name``suffix`{labels} and the space before the value. */
static void series_write(struct outbuf *o, const char *name, const char *suffix,
                         const struct metric_label *labels, unsigned n)
{
    outbuf_str(o, name);
    outbuf_str(o, suffix);
    for (unsigned i = 0; i < n; i++) {
        outbuf_char(o, i == 0 ? '{' : ',');
        outbuf_str(o, labels[i].name);
        outbuf_str(o, "=\"");
        escaped_write(o, labels[i].value, true);
        outbuf_char(o, '"');
    }
    outbuf_str(o, n ? "} " : " ");
}

void metrics_family(struct outbuf *o, const char *name, enum metric_kind kind, const char *help)
{
    outbuf_str(o, "# HELP ");
    outbuf_str(o, name);
    outbuf_char(o, ' ');
    escaped_write(o, help, false);
    outbuf_str(o, "\n# TYPE ");
    outbuf_str(o, name);
    outbuf_char(o, ' ');
    outbuf_str(o, kind_name(kind));
    outbuf_char(o, '\n');
}

void metrics_sample(struct outbuf *o, const char *name, const struct metric_label *labels, unsigned n,
                    uint64_t value)
{
    series_write(o, name, "", labels, n);
    outbuf_u64(o, value);
    outbuf_char(o, '\n');
}

void metrics_sample_milli(struct outbuf *o, const char *name, const struct metric_label *labels, unsigned n,
                          uint64_t value_milli)
{
    series_write(o, name, "", labels, n);
    outbuf_milli(o, value_milli);
    outbuf_char(o, '\n');
}

static void gauge_write(struct outbuf *o, const char *name, const struct metric_label *labels, unsigned n,
                        uint64_t value)
{
    series_write(o, name, "", labels, n);
    if ((int64_t)value < 0) outbuf_char(o, '-');
    outbuf_u64(o, (int64_t)value < 0 ? -value : value);
    outbuf_char(o, '\n');
}

/* One histogram whose cells start at `at`. `labels` has room for one more, "le". */
static void histogram_write(struct outbuf *o, const char *name, struct metric_label *labels, unsigned n,
                            unsigned at)
{
    uint64_t count = 0; /* buckets are cumulative in the text, but not in the cells */
    for (unsigned i = 0; i <= METRICS_BUCKETS; i++) {
        count += cell_sum(at + i);
        labels[n] = (struct metric_label){"le", i < METRICS_BUCKETS ? buckets[i].le : "+Inf"};
        series_write(o, name, "_bucket", labels, n + 1);
        outbuf_u64(o, count);
        outbuf_char(o, '\n');
    }
    uint64_t sum_us = cell_sum(at + METRICS_HISTOGRAM_SUM);
    series_write(o, name, "_sum", labels, n);
    outbuf_fmt(o, "%" PRIu64 ".%06" PRIu64 "\n", sum_us / 1000000, sum_us % 1000000);
    series_write(o, name, "_count", labels, n);
    outbuf_u64(o, count);
    outbuf_char(o, '\n');
}

static unsigned label_count(const struct metric_def *def)
{
    unsigned n = 0;
    while (n < LABELS_MAX && def->labels[n] != LABEL_NONE)
        n++;
    return n;
}

/* Finds the label texts of series number `i`. False when a label has no such value. */
static bool series_labels(const struct metric_def *def, unsigned n, unsigned i, struct metric_label *out)
{
    while (n--) {
        enum metric_label_set set = def->labels[n];
        unsigned value = i % label_defs[set].max;
        i /= label_defs[set].max;
        if (value >= label_values[set].n) return false;
        out[n] = (struct metric_label){label_defs[set].name, label_values[set].values[value]};
    }
    return true;
}

/* See metrics_write(). The series has `ncells` cells from `at`. */
static bool is_shown(const struct metric_label *labels, unsigned n, unsigned at, unsigned ncells)
{
    bool is_optional = n > 2;
    for (unsigned i = 0; i < n; i++)
        is_optional |= strcmp(labels[i].value, "none") == 0;
    bool is_zero = true;
    for (unsigned i = 0; is_optional && is_zero && i < ncells; i++)
        is_zero = cell_sum(at + i) == 0;
    return !is_optional || !is_zero;
}

static void def_write(struct outbuf *o, enum metric m)
{
    const struct metric_def *def = &metric_defs[m];
    struct metric_shape shape = metric_shapes[m];
    struct metric_label labels[LABELS_MAX + 1];
    unsigned n = label_count(def);
    unsigned step = def->kind == METRIC_HISTOGRAM ? METRICS_HISTOGRAM_CELLS : 1;

    metrics_family(o, def->name, def->kind, def->help);
    for (unsigned i = 0; i < shape.cells / step; i++) {
        unsigned at = shape.at + i * step;
        if (!series_labels(def, n, i, labels) || !is_shown(labels, n, at, step)) continue;
        switch (def->kind) {
        case METRIC_COUNTER: metrics_sample(o, def->name, labels, n, cell_sum(at)); break;
        case METRIC_GAUGE: gauge_write(o, def->name, labels, n, cell_sum(at)); break;
        case METRIC_HISTOGRAM: histogram_write(o, def->name, labels, n, at); break;
        }
    }
}

void metrics_write(struct outbuf *o)
{
    for (enum metric m = 0; m < METRIC_COUNT; m++)
        def_write(o, m);
}

/* ---- documentation ---- */

static void reference_row(struct outbuf *o, const struct metric_def *def)
{
    outbuf_fmt(o, "| `%s` | %s |", def->name, kind_name(def->kind));
    for (unsigned i = 0; i < label_count(def); i++)
        outbuf_fmt(o, "%s `%s`", i ? "," : "", label_defs[def->labels[i]].name);
    outbuf_fmt(o, " | %s |\n", def->help);
}

/* The values of one label, and the families that use it. */
static void reference_values(struct outbuf *o, enum metric_label_set set)
{
    outbuf_fmt(o, "| `%s` |", label_defs[set].name);
    const char *comma = "";
    for (enum metric m = 0; m < METRIC_COUNT; m++)
        for (unsigned i = 0; i < label_count(&metric_defs[m]); i++)
            if (metric_defs[m].labels[i] == set) {
                outbuf_fmt(o, "%s `%s`", comma, metric_defs[m].name);
                comma = ",";
            }
    outbuf_str(o, " |");
    for (unsigned i = 0; i < label_values[set].n; i++)
        outbuf_fmt(o, "%s `%s`", i ? "," : "", label_values[set].values[i]);
    outbuf_str(o, " |\n");
}

void metrics_reference(struct outbuf *o)
{
    outbuf_str(o, "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for (enum metric m = 0; m < METRIC_COUNT; m++)
        reference_row(o, &metric_defs[m]);
    outbuf_str(o, "\nHistogram buckets, upper bounds in seconds:");
    for (unsigned i = 0; i < METRICS_BUCKETS; i++)
        outbuf_fmt(o, "%s %s", i ? "," : "", buckets[i].le);
    outbuf_str(o, ".\n\n| Label | Metrics | Values |\n|---|---|---|\n");
    for (enum metric_label_set set = LABEL_NONE + 1; set < LABEL_COUNT; set++)
        reference_values(o, set);
}
