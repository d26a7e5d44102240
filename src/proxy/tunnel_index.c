#include "proxy/tunnel_index.h"

#include "policy/policy.h"

#include <stddef.h>

static struct tunnel_link *bucket_of(struct tunnel_index *i, uint32_t partner)
{
    return &i->buckets[partner * 2654435769u >> (32 - TUNNEL_BUCKET_BITS)]; /* Fibonacci hashing */
}

void tunnel_index_init(struct tunnel_index *i)
{
    for (unsigned b = 0; b < TUNNEL_BUCKETS; b++)
        i->buckets[b].prev = i->buckets[b].next = &i->buckets[b];
}

static void append(struct tunnel_link *head, struct tunnel_link *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

void tunnel_index_add(struct tunnel_index *i, struct tunnel_link *link, uint32_t partner)
{
    append(bucket_of(i, partner), link);
}

void tunnel_index_remove(struct tunnel_link *link)
{
    if (!link->next) return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->prev = link->next = NULL;
}

/* The list is moved aside first: a link that is added again during the walk is not met twice. */
static void walk(struct tunnel_link *head, void (*fn)(struct tunnel_link *link))
{
    struct tunnel_link aside;
    if (head->next == head) return;
    aside.next = head->next;
    aside.prev = head->prev;
    aside.next->prev = aside.prev->next = &aside;
    head->prev = head->next = head;
    while (aside.next != &aside) {
        struct tunnel_link *link = aside.next;
        tunnel_index_remove(link);
        append(head, link); /* back to its place; fn may take it out again */
        fn(link);
    }
}

void tunnel_index_each(struct tunnel_index *i, uint32_t partner, void (*fn)(struct tunnel_link *link))
{
    if (partner != PARTNER_INDEX_NONE) {
        walk(bucket_of(i, partner), fn);
        return;
    }
    for (unsigned b = 0; b < TUNNEL_BUCKETS; b++)
        walk(&i->buckets[b], fn);
}
