#include "proofctl/redis_tokens.h"

#include "store/record_value.h"
#include "store/redis_log.h"

#include <stdlib.h>

enum { TOKENS_FIRST = 1024 };

static enum err add(struct redis_tokens *t, const redisReply *text, size_t owner, uint64_t version)
{
    struct redis_token token = {.owner = owner, .version = version};
    if (!text || !record_value_to_digest(span_of(text->str, text->len), token.digest)) return ERR_OK;
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : TOKENS_FIRST;
        struct redis_token *grown = realloc(t->list, cap * sizeof *grown);
        if (!grown) return ERR_NOMEM;
        t->list = grown;
        t->cap = cap;
    }
    t->list[t->n++] = token;
    return ERR_OK;
}

enum err redis_tokens_take(struct redis_tokens *t, const redisReply *hash, size_t owner, uint64_t version)
{
    enum err e = add(t, redis_field(hash, SPAN("client_token_sha256")), owner, version);
    return e ? e : add(t, redis_field(hash, SPAN("previous_token_sha256")), owner, version);
}

static int compare(const void *a, const void *b)
{
    const struct redis_token *x = a, *y = b;
    int order = memcmp(x->digest, y->digest, sizeof x->digest);
    return order ? order : (x->owner > y->owner) - (x->owner < y->owner);
}

enum err redis_tokens_shared(struct redis_tokens *t, redis_shared_fn *fn, void *arg)
{
    enum err e = ERR_OK;
    if (t->n) qsort(t->list, t->n, sizeof *t->list, compare);
    for (size_t i = 1, first = 0; !e && i < t->n; i++) {
        if (memcmp(t->list[first].digest, t->list[i].digest, sizeof t->list[i].digest) == 0)
            e = fn(arg, &t->list[first], &t->list[i]);
        else
            first = i;
    }
    return e;
}

void redis_tokens_deinit(struct redis_tokens *t)
{
    free(t->list);
    *t = (struct redis_tokens){0};
}
