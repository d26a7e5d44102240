/* Responses: scan, head and body, cut where the fuzzer wants.
 *
 * Input: one byte of options, one of seed for the cuts, then what the backend sends. */
#include "../../unit/http/helper_trace.c" /* fuzz targets are linked with the floor alone */

enum { TRACE_BYTES_MAX = 1 << 20 };

static void expect_head(struct http_parser *parser, const struct trace_options *o, const char *p, size_t n)
{
    static struct res_head head;
    enum head_refusal refusal = http_parse_response(parser, p, n, &o->head, o->request_method, &head);
    if (refusal != HEAD_REFUSAL_NONE) return;
    BUG_IF(head.status < 100 || head.status > 599, "status out of range");
    bool is_without = head.status < 200 || head.status == 204;
    bool has_no_body = is_without || head.status == 304 || o->request_method == METHOD_HEAD;
    BUG_IF(has_no_body && head.body != BODY_NONE, "a body where there is none");
    BUG_IF(is_without && head.has_content_length, "a length that must not be passed on");
    BUG_IF(head.body == BODY_UNTIL_CLOSE && head.keep_alive, "until close, and kept");
    BUG_IF(head.status == 101 && !head.has_upgrade, "101 to nothing");
    for (size_t i = 0; i < head.reason.n; i++)
        BUG_IF(head.reason.p[i] < 0x20 || head.reason.p[i] > 0x7e, "reason is not printable");
    for (uint32_t i = 0; i < head.nfields; i++) {
        const struct http_field *f = &head.fields[i];
        enum field_class class = field_class_of(f->id);
        BUG_IF(!f->drop && (class == FIELD_CLASS_HOP || class == FIELD_CLASS_FRAMING), "hop-by-hop is kept");
        BUG_IF(!f->drop && f->id == FIELD_X_REQUEST_ID, "the backend's X-Request-Id is kept");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char whole[TRACE_BYTES_MAX], cut[TRACE_BYTES_MAX];
    static struct http_parser *parser;
    if (!parser) parser = http_parser_create();
    if (size < 3 || !parser) return 0;

    struct trace_options options = trace_options_default();
    options.is_response = true;
    options.request_method = (enum http_method)(1 + data[0] % (METHOD_COUNT - 1));
    if (data[0] & 128) options.body.body_bytes_max = 8;
    const char *p = (const char *)data + 2;
    size_t n = size - 2;
    size_t nwhole = trace_cut(&options, p, n, 0, whole, sizeof whole);
    size_t ncut = trace_cut(&options, p, n, data[1] + 1U, cut, sizeof cut);
    BUG_IF(nwhole != ncut || memcmp(whole, cut, nwhole) != 0, "the cuts change what is understood");

    struct head_scan scan;
    head_scan_init(&scan);
    if (head_scan(&scan, p, n) == SCAN_DONE) expect_head(parser, &options, p, scan.end);
    return 0;
}
