/* Requests: scan, head and body, cut where the fuzzer wants. However the bytes are cut, the trace is the
 * same; what is kept of an accepted head holds the invariants below; and llhttp splits the head as a naive
 * splitter does.
 *
 * Input: one byte of options, one of seed for the cuts, then the bytes of a connection. */
#include "../../unit/http/helper_trace.c" /* fuzz targets are linked with the floor alone */

enum { TRACE_BYTES_MAX = 1 << 20 };

static struct trace_options options_of(uint8_t bits)
{
    struct trace_options o = trace_options_default();
    o.head.alias = (enum alias_policy)(bits % 3);
    if (bits & 4) o.head.fields_max = 4;
    if (bits & 8) o.head.target_bytes_max = 20;
    if (bits & 16)
        o.body = (struct body_limits){.body_bytes_max = 8, .chunk_ext_bytes_max = 4, .trailer_bytes_max = 8};
    if (bits & 32) o.head.fields_max = HTTP_FIELDS_MAX;
    return o;
}

/* Line by line, as a reader would: the head is one that head_scan() passed. */
static void expect_naive_split(const char *p, size_t n, const struct req_head *head)
{
    const char *line = memchr(p, '\n', n), *end = p + n - 2;
    uint32_t i = 0;
    for (line++; line < end; i++) {
        const char *eol = memchr(line, '\r', (size_t)(end - line) + 1);
        const char *colon = memchr(line, ':', (size_t)(eol - line));
        BUG_IF(!colon || i == head->nfields, "a line that is no field");
        BUG_IF(!span_eq(head->fields[i].name, span_of(line, (size_t)(colon - line))), "another name");
        struct span value = span_trim(span_of(colon + 1, (size_t)(eol - colon - 1)));
        BUG_IF(!span_eq(head->fields[i].value, value), "another value");
        line = eol + 2;
    }
    BUG_IF(i != head->nfields, "a field that is no line");
}

static void expect_inside(struct span s, const char *p, size_t n)
{
    BUG_IF(s.n && (s.p < p || s.p + s.n > p + n), "a span points outside the head");
}

static void expect_field(const struct http_field *f, const char *p, size_t n)
{
    expect_inside(f->name, p, n);
    expect_inside(f->value, p, n);
    BUG_IF(!field_name_is_token(f->name), "a name is no token");
    for (size_t i = 0; i < f->value.n; i++) {
        unsigned char c = (unsigned char)f->value.p[i];
        BUG_IF((c < 0x20 && c != '\t') || c == 0x7f, "a control byte in a value");
    }
    if (f->drop) return;
    BUG_IF(field_class_of(f->id) != FIELD_CLASS_END_TO_END, "a field of another class is kept");
    BUG_IF(field_is_identity(f->id, f->name), "an identity field is kept");
    BUG_IF(field_name_is_alias_prone(f->name) && field_find_folded(f->name) != FIELD_OTHER,
           "an alias is kept");
}

/* The invariants of an accepted head. */
static void expect_head(struct http_parser *parser, const struct trace_options *o, const char *p, size_t n)
{
    static struct req_head head;
    if (http_parse_request(parser, p, n, &o->head, &head) != HEAD_REFUSAL_NONE) return;
    expect_naive_split(p, n, &head);
    for (uint32_t i = 0; i < head.nfields; i++)
        expect_field(&head.fields[i], p, n);
    expect_inside(head.target, p, n);
    expect_inside(head.host_field, p, n);
    BUG_IF(head.method == METHOD_NONE, "no method");
    BUG_IF(head.minor == 1 && head.host.n == 0, "no host");
    BUG_IF(head.body == BODY_UNTIL_CLOSE, "a request until close");
    BUG_IF(head.body == BODY_CHUNKED && (head.has_content_length || head.minor == 0), "two framings");
    BUG_IF(head.nfields > o->head.fields_max, "too many fields");
    BUG_IF(head.target.n > o->head.target_bytes_max, "target too long");
    for (size_t i = 0; i < head.parts.origin.n; i++)
        BUG_IF(head.parts.origin.p[i] <= 0x20 || head.parts.origin.p[i] == '#',
               "a byte that ends the target");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char whole[TRACE_BYTES_MAX], cut[TRACE_BYTES_MAX];
    static struct http_parser *parser;
    if (!parser) parser = http_parser_create();
    if (size < 3 || !parser) return 0;

    struct trace_options options = options_of(data[0]);
    const char *p = (const char *)data + 2;
    size_t n = size - 2;
    size_t nwhole = trace_cut(&options, p, n, 0, whole, sizeof whole);
    size_t ncut = trace_cut(&options, p, n, data[1] + 1U, cut, sizeof cut);
    BUG_IF(nwhole != ncut || memcmp(whole, cut, nwhole) != 0, "the cuts change what is understood");

    struct head_scan a, b;
    head_scan_init(&a), head_scan_init(&b);
    enum scan_result fast = head_scan(&a, p, n), plain = head_scan_portable(&b, p, n);
    BUG_IF(fast != plain || a.end != b.end, "the two scans differ");
    if (fast == SCAN_DONE) expect_head(parser, &options, p, a.end);
    return 0;
}
