#include "net/resolver.h"

#include "base/container.h"
#include "base/log.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

static void start_request(struct resolver *r);

static int compare_addresses(const void *a, const void *b)
{
    const struct socket_address *x = a, *y = b;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return memcmp(&x->storage, &y->storage, x->len);
}

/* Keeps the list sorted, and the last one out when it is full. */
static void insert(struct address_list *list, const struct socket_address *a)
{
    uint32_t at = list->n;
    while (at > 0 && compare_addresses(&list->addresses[at - 1], a) > 0)
        at--;
    if (at == RESOLVER_ADDRESSES_MAX) return;
    if (list->n < RESOLVER_ADDRESSES_MAX) list->n++;
    memmove(&list->addresses[at + 1], &list->addresses[at], (list->n - 1 - at) * sizeof list->addresses[0]);
    list->addresses[at] = *a;
}

/* Returns how many there are, of which the list holds what fits. */
static uint32_t collect(const struct addrinfo *ai, struct address_list *out)
{
    uint32_t n = 0;
    *out = (struct address_list){0};
    for (; ai; ai = ai->ai_next) {
        if (ai->ai_family != AF_INET && ai->ai_family != AF_INET6) continue;
        struct socket_address a = {.len = ai->ai_addrlen};
        memcpy(&a.storage, ai->ai_addr, ai->ai_addrlen);
        insert(out, &a);
        n++;
    }
    return n;
}

static bool lists_equal(const struct address_list *a, const struct address_list *b)
{
    if (a->n != b->n) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (compare_addresses(&a->addresses[i], &b->addresses[i]) != 0) return false;
    return true;
}

static void set_busy(struct resolver *r, bool is_busy)
{
    r->busy = is_busy;
    if (is_busy)
        r->loop->nlookups++;
    else
        r->loop->nlookups--;
}

/* Said once, until there is an answer. */
static void count_failure(struct resolver *r, const char *cause)
{
    if (r->failures++ == 0)
        log_warn("resolve_failed", KV_STR("host", r->host), KV_STR("cause", cause),
                 KV_UINT("kept_addresses", r->last.n));
}

/* Asks again soon. */
static void note_failure(struct resolver *r, const char *cause)
{
    count_failure(r, cause);
    loop_deadline(r->loop, &r->due, RESOLVER_RETRY_MS);
}

static void note_addresses(struct resolver *r, const struct address_list *found, uint32_t n)
{
    bool has_changed = !lists_equal(found, &r->last);
    if (has_changed || r->failures)
        log_info("resolved", KV_STR("host", r->host), KV_UINT("addresses", found->n),
                 KV_UINT("left_out", n - found->n));
    r->failures = 0;
    r->last = *found;
    loop_deadline(r->loop, &r->due, RESOLVER_INTERVAL_MS);
    if (has_changed) r->on_changed(r, &r->last); /* the last thing: it may close the resolver */
}

static void on_looked_up(struct job *job, enum err e)
{
    struct resolver *r = CONTAINER_OF(job, struct resolver, job);
    struct address_list found = {0};
    loop_turn(r->loop);
    set_busy(r, false);
    uint32_t n = collect(r->found, &found);
    if (r->found) freeaddrinfo(r->found);
    r->found = NULL;
    if (r->closing) {
        if (r->on_closed) r->on_closed(r);
    } else if (e) {
        note_failure(r, JOB_NO_THREAD);
    } else if (n == 0) {
        note_failure(r, r->result ? gai_strerror(r->result) : "no address");
    } else {
        note_addresses(r, &found, n);
    }
}

static const struct addrinfo hints = {
    .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG};

/* [own thread] */
static void look_up(struct job *job)
{
    struct resolver *r = CONTAINER_OF(job, struct resolver, job);
    char service[8];
    (void)snprintf(service, sizeof service, "%u", (unsigned)r->port);
    r->result = getaddrinfo(r->host, service, &hints, &r->found);
}

static void start_request(struct resolver *r)
{
    if (r->loop->nlookups >= RESOLVER_LOOKUPS_MAX) {
        note_failure(r, "too many look-ups wait for name servers that do not answer");
        return;
    }
    r->found = NULL;
    r->result = 0;
    set_busy(r, true);
    loop_deadline(r->loop, &r->due, RESOLVER_SLOW_MS);
    job_start(&r->job, &r->loop->uv, look_up, on_looked_up);
}

static void on_due(struct wheel_entry *e)
{
    struct resolver *r = CONTAINER_OF(e, struct resolver, due);
    if (r->busy)
        count_failure(r, "no answer so far; the look-up goes on");
    else
        start_request(r);
}

void resolver_open(struct resolver *r, struct loop *loop, const char *host, uint16_t port,
                   resolver_fn on_changed, void *user)
{
    *r = (struct resolver){.loop = loop, .host = host, .port = port, .on_changed = on_changed, .user = user};
    wheel_entry_init(&r->due, on_due);
    start_request(r);
}

void resolver_close(struct resolver *r, void (*on_closed)(struct resolver *r))
{
    r->closing = true;
    r->on_closed = on_closed;
    loop_deadline_clear(r->loop, &r->due);
    if (!r->busy && on_closed) on_closed(r);
}

enum err resolver_lookup(const char *host, uint16_t port, struct address_list *out)
{
    char service[8];
    struct addrinfo *found = NULL;
    (void)snprintf(service, sizeof service, "%u", (unsigned)port);
    if (getaddrinfo(host, service, &hints, &found)) return ERR_NOT_FOUND;
    uint32_t n = collect(found, out);
    freeaddrinfo(found);
    return n ? ERR_OK : ERR_NOT_FOUND;
}
