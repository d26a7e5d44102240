/* The audit in Redis: a stream of lines, which the scripts write. */
#include "proofctl/redis_state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { AUDIT_PAGE = 1000 };

/* Lines, newest first; each a copy. */
struct lines {
    char **list; /* owned */
    size_t n, cap;
};

static void lines_deinit(struct lines *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->list[i]);
    free(l->list);
}

static enum err keep_line(struct lines *l, const redisReply *entry)
{
    const redisReply *line = redis_field(entry->element[1], SPAN("line"));
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : AUDIT_PAGE;
        char **grown = realloc(l->list, cap * sizeof *grown);
        if (!grown) return ERR_NOMEM;
        l->list = grown;
        l->cap = cap;
    }
    char *copy = line ? strndup(line->str, line->len) : strdup("");
    if (!copy) return ERR_NOMEM;
    l->list[l->n++] = copy;
    return ERR_OK;
}

/* Takes one page of XREVRANGE; `next` becomes the id to go on with. */
static enum err take_page(struct backend_redis *r, const redisReply *page, struct lines *l, char *next,
                          size_t cap)
{
    if (page->type != REDIS_REPLY_ARRAY) return redis_fail_malformed(r, "XREVRANGE");
    for (size_t i = 0; i < page->elements; i++) {
        const redisReply *entry = page->element[i];
        bool is_entry = entry->type == REDIS_REPLY_ARRAY && entry->elements == 2 &&
                        entry->element[0]->type == REDIS_REPLY_STRING &&
                        entry->element[1]->type == REDIS_REPLY_ARRAY;
        if (!is_entry) return redis_fail_malformed(r, "XREVRANGE");
        enum err e = keep_line(l, entry);
        if (e) return e;
        (void)snprintf(next, cap, "(%s", entry->element[0]->str); /* two numbers fit */
    }
    return ERR_OK;
}

enum err redis_audit(struct backend *b, uint64_t limit, backend_line_fn *on_line, void *arg)
{
    struct backend_redis *r = redis_of(b);
    struct lines lines = {0};
    char next[64] = "+", count[24];
    const char *const argv[] = {"XREVRANGE", r->keys.audit, next, "-", "COUNT", count};
    enum err e = redis_begin(r);
    for (bool has_more = true; !e && has_more && lines.n < limit;) {
        redisReply *page;
        size_t before = lines.n;
        uint64_t wanted = limit - lines.n < AUDIT_PAGE ? limit - lines.n : AUDIT_PAGE;
        (void)snprintf(count, sizeof count, "%" PRIu64, wanted); /* fits */
        e = redis_ask(r, 6, argv, &page);
        if (e) break;
        e = take_page(r, page, &lines, next, sizeof next);
        freeReplyObject(page);
        has_more = lines.n - before == wanted;
    }
    for (size_t i = lines.n; !e && i > 0; i--)
        e = on_line(arg, span_str(lines.list[i - 1]));
    lines_deinit(&lines);
    return e;
}
