/* Bodies: however the bytes are cut, the same data comes out, ends at the same place, and no limit is passed.
 *
 * Input: kind, length, three limits, seed for the cuts (a byte each), then the bytes. */
#include "base/err.h"
#include "http/body.h"

#include <stdlib.h>

enum { HEADER_BYTES = 6 };

struct outcome {
    enum body_result result;
    bool is_done;
    size_t used;
    size_t ndata;
    char *data;
};

static struct outcome run(const uint8_t *in, const struct body_limits *limits, const char *p, size_t n,
                          unsigned seed)
{
    struct outcome o = {.data = malloc(n + 1)};
    struct body_reader r;
    BUG_IF(!o.data, "out of memory in a fuzz target");
    body_reader_init(&r, (enum body_kind)(in[0] % 4), in[1], limits);
    while (o.used < n && !body_is_done(&r) && o.result == BODY_OK) {
        size_t piece = n - o.used, used;
        if (seed) {
            seed = seed * 1103515245 + 12345;
            size_t want = 1 + (seed >> 16) % 9;
            if (want < piece) piece = want;
        }
        struct span data;
        o.result = body_read(&r, p + o.used, piece, &used, &data);
        BUG_IF(used > piece || data.n > used, "more was taken than given");
        BUG_IF(data.n && (data.p < p + o.used || data.p + data.n > p + o.used + used),
               "data outside the input");
        BUG_IF(o.result == BODY_OK && used == 0 && !body_is_done(&r), "no progress");
        if (data.n) memcpy(o.data + o.ndata, data.p, data.n);
        o.ndata += data.n;
        o.used += used;
    }
    BUG_IF(r.total != o.ndata || o.ndata > limits->body_bytes_max, "the body limit was passed");
    BUG_IF(r.ext_bytes > limits->chunk_ext_bytes_max, "the extension limit was passed");
    BUG_IF(r.trailer_bytes > limits->trailer_bytes_max, "the trailer limit was passed");
    o.is_done = body_is_done(&r);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER_BYTES) return 0;
    struct body_limits limits = {data[2] == 255 ? UINT64_MAX : data[2], data[3], data[4]};
    const char *p = (const char *)data + HEADER_BYTES;
    size_t n = size - HEADER_BYTES;
    struct outcome a = run(data, &limits, p, n, 0), b = run(data, &limits, p, n, data[5] + 1U);
    BUG_IF(a.result != b.result || a.is_done != b.is_done, "the cuts change the outcome");
    BUG_IF(a.is_done && a.used != b.used, "the cuts change the end");
    BUG_IF(a.ndata != b.ndata || memcmp(a.data, b.data, a.ndata) != 0, "the cuts change the data");
    free(a.data);
    free(b.data);
    return 0;
}
