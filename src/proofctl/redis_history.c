/* Reads the log of changes in Redis from some number on. */
#include "proofctl/redis_state.h"

#include <inttypes.h>
#include <stdio.h>

enum {
    PAGE_ENTRIES = 3, /* of one answer: the largest records have 4 MB, an answer 16 */
    PAGES = 32,       /* asked for at once */
};

struct history {
    struct backend_redis *r;
    redis_entry_fn *fn;
    void *arg;
    size_t nentries;
};

/* Nothing can be written behind such an entry, and no load gets over it. */
static enum err fail_foreign(struct backend_redis *r)
{
    return redis_fail(r, ERR_PARSE,
                      "the log has an entry that no script has written; remove the log (DEL %s), then "
                      "`proofctl verify --repair`: gateways read the records instead",
                      r->keys.log);
}

static enum err take_page(struct history *h, const redisReply *page)
{
    enum err e = ERR_OK;
    if (page->type == REDIS_REPLY_ERROR)
        return redis_fail_link(h->r, redis_link_refuse(h->r->link, "XRANGE", page));
    if (page->type != REDIS_REPLY_ARRAY) return redis_fail_malformed(h->r, "XRANGE");
    for (size_t i = 0; !e && i < page->elements; i++) {
        struct redis_entry entry;
        if (redis_entry_read(page->element[i], &entry)) return fail_foreign(h->r);
        h->nentries++;
        e = h->fn(h->arg, &entry);
    }
    return e;
}

static enum err send_page(struct history *h, uint64_t from)
{
    char begin[32], end[32], count[12];
    const char *const argv[] = {"XRANGE", h->r->keys.log, begin, end, "COUNT", count};
    (void)snprintf(begin, sizeof begin, "%" PRIu64, from); /* all fit */
    (void)snprintf(end, sizeof end, "%" PRIu64, from + PAGE_ENTRIES - 1);
    (void)snprintf(count, sizeof count, "%d", PAGE_ENTRIES);
    enum err e = redis_link_send(h->r->link, 6, argv, NULL);
    return e ? redis_fail_link(h->r, e) : ERR_OK;
}

/* Reads the pages from number `*from` on that are asked for at once, and moves it behind them: numbers are
 * contiguous, so that a page can be asked for before the one in front of it is known. */
static enum err read_pages(struct history *h, uint64_t *from, uint64_t to)
{
    enum err e = ERR_OK;
    size_t n = 0;
    for (; !e && n < PAGES && *from <= to; n++, *from += PAGE_ENTRIES)
        e = send_page(h, *from);
    for (size_t i = 0; !e && i < n; i++) {
        redisReply *page;
        e = redis_link_receive(h->r->link, 0, &page);
        if (e) return redis_fail_link(h->r, e);
        e = take_page(h, page);
        freeReplyObject(page);
    }
    return e;
}

/* The number of the first entry from `from` on, or of the last one; 0 when there is none. */
static enum err find_entry(struct history *h, uint64_t from, bool is_last, uint64_t *out)
{
    char begin[32];
    const char *const argv[] = {is_last ? "XREVRANGE" : "XRANGE",
                                h->r->keys.log,
                                is_last ? "+" : begin,
                                is_last ? begin : "+",
                                "COUNT",
                                "1"};
    struct redis_entry entry = {.sequence = 0};
    redisReply *page;
    (void)snprintf(begin, sizeof begin, "%" PRIu64, from); /* fits */
    enum err e = redis_ask(h->r, 6, argv, &page);
    if (e) return e;
    bool has_entry = page->type == REDIS_REPLY_ARRAY && page->elements == 1;
    if (has_entry && redis_entry_read(page->element[0], &entry)) e = fail_foreign(h->r);
    freeReplyObject(page);
    *out = entry.sequence;
    return e;
}

enum err redis_read_log(struct backend_redis *r, uint64_t from, redis_entry_fn *fn, void *arg)
{
    struct history h = {.r = r, .fn = fn, .arg = arg};
    uint64_t last = 0;
    enum err e = find_entry(&h, from, true, &last);
    while (!e && last > 0 && from <= last) {
        size_t before = h.nentries;
        e = read_pages(&h, &from, last);
        /* A gap, where a repair has put the counter right. */
        if (!e && h.nentries == before && from <= last) e = find_entry(&h, from, false, &from);
    }
    return e;
}
