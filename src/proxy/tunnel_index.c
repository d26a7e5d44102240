#include "proxy/tunnel_index.h"

#include "policy/policy.h"

static struct list_link *bucket_of(struct tunnel_index *i, uint32_t partner)
{
    return &i->buckets[partner * 2654435769u >> (32 - TUNNEL_BUCKET_BITS)]; /* Fibonacci hashing */
}

void tunnel_index_init(struct tunnel_index *i)
{
    for (unsigned b = 0; b < TUNNEL_BUCKETS; b++)
        list_init(&i->buckets[b]);
}

void tunnel_index_add(struct tunnel_index *i, struct list_link *link, uint32_t partner)
{
    list_append(bucket_of(i, partner), link);
}

/* The list is moved aside first: a link that is added again during the walk is not met twice. */
static void walk(struct list_link *head, void (*fn)(struct list_link *link))
{
    struct list_link aside;
    list_move(head, &aside);
    while (!list_is_empty(&aside)) {
        struct list_link *link = aside.next;
        list_remove(link);
        list_append(head, link); /* back to its place; fn may take it out again */
        fn(link);
    }
}

void tunnel_index_each(struct tunnel_index *i, uint32_t partner, void (*fn)(struct list_link *link))
{
    if (partner != PARTNER_INDEX_NONE) {
        walk(bucket_of(i, partner), fn);
        return;
    }
    for (unsigned b = 0; b < TUNNEL_BUCKETS; b++)
        walk(&i->buckets[b], fn);
}
