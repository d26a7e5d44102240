/* Replies from any bytes, in pieces of any size: no crash, no leak, the bounds hold, and the pieces make no
 * difference to what is read. The first byte seeds the sizes of the pieces. */
#include "store/redis_reader.h"

#include "base/span.h"
#include "store/redis_error.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

struct sum {
    uint64_t hash; /* of everything that was handed out */
    size_t replies;
    size_t elements; /* of the current reply */
};

static void add(struct sum *s, const void *p, size_t n)
{
    const uint8_t *at = p;
    for (size_t i = 0; i < n; i++)
        s->hash = (s->hash ^ at[i]) * 0x100000001b3u;
}

/* As deep as the reader lets it be. */
static void walk(struct sum *s, const redisReply *r, unsigned depth)
{
    add(s, &r->type, sizeof r->type);
    if (r->type == REDIS_REPLY_INTEGER) add(s, &r->integer, sizeof r->integer);
    if (r->str) add(s, r->str, r->len);
    if (r->type != REDIS_REPLY_ARRAY) return;
    BUG_IF(depth >= REDIS_REPLY_DEPTH_MAX, "nested too deeply");
    s->elements += r->elements;
    for (size_t i = 0; i < r->elements; i++)
        walk(s, r->element[i], depth + 1);
}

static bool on_reply(const redisReply *reply, void *arg)
{
    struct sum *s = arg;
    char text[REDIS_CAUSE_MAX];
    s->replies++;
    s->elements = 0;
    walk(s, reply, 0);
    BUG_IF(s->elements > REDIS_REPLY_ELEMENTS_MAX, "too many elements");
    if (reply->type != REDIS_REPLY_ERROR) return true;
    BUG_IF(redis_error_explain(reply, text, sizeof text) == ERR_OK, "an error that is none");
    for (const char *c = text; *c; c++)
        BUG_IF(*c < ' ' || *c > '~', "a cause that is not fit for the log");
    return true;
}

static enum err read_pieces(const uint8_t *bytes, size_t n, uint32_t seed, struct sum *s)
{
    struct redis_reader r;
    enum err e = ERR_OK;
    if (redis_reader_init(&r)) return ERR_NOMEM;
    while (n > 0 && !e) {
        seed = seed * 1664525u + 1013904223u;
        size_t piece = seed >> 16 & 0x1f;
        piece = piece == 0 ? 1 : piece;
        if (piece > n) piece = n;
        e = redis_reader_take(&r, (const char *)bytes, piece, on_reply, s);
        bytes += piece;
        n -= piece;
    }
    if (e) BUG_IF(strlen(redis_reader_fault(&r)) == 0, "a fault without a text");
    redis_reader_deinit(&r);
    return e;
}

static enum err read_whole(const uint8_t *bytes, size_t n, struct sum *s)
{
    struct redis_reader r;
    if (redis_reader_init(&r)) return ERR_NOMEM;
    enum err e = redis_reader_take(&r, (const char *)bytes, n, on_reply, s);
    redis_reader_deinit(&r);
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 1) return 0;
    struct sum whole = {0}, pieces = {0};
    enum err a = read_whole(bytes + 1, n - 1, &whole);
    enum err b = read_pieces(bytes + 1, n - 1, bytes[0], &pieces);
    BUG_IF(a != b, "pieces change the result");
    BUG_IF(whole.hash != pieces.hash || whole.replies != pieces.replies, "pieces change the replies");
    return 0;
}
