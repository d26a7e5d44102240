/* list.h - doubly linked lists of objects that have their link in them; no memory of their own.
 *
 *   head <-> link <-> link <-> head      head.next: the first, head.prev: the last, the head itself: none
 *
 * A head has to be initialised. A link does not: all zero, as from calloc(), it is in no list. It leaves its
 * list without knowing which one that is; its object may be freed then, not before.
 *
 * Where a call may take out any of them, or add others, the list is moved aside and taken from its front:
 *
 *   list_move(&slot, &due);
 *   while (!list_is_empty(&due)) {
 *       struct wheel_entry *e = CONTAINER_OF(due.next, struct wheel_entry, link);
 *       list_remove(&e->link);
 *       e->on_due(e);
 *   }
 *
 * Thread: that of the objects; there is no lock.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include "base/container.h"

#include <stdbool.h>

struct list_link {
    struct list_link *prev, *next; /* NULL when in no list */
};

/* `head`: an empty list. */
static inline void list_init(struct list_link *head)
{
    head->prev = head->next = head;
}

static inline bool list_is_empty(const struct list_link *head)
{
    return head->next == head;
}

static inline bool list_is_linked(const struct list_link *link)
{
    return link->next != NULL;
}

/* For the functions below. */
static inline void list_insert(struct list_link *prev, struct list_link *link, struct list_link *next)
{
    link->prev = prev;
    link->next = next;
    prev->next = link;
    next->prev = link;
}

/* `link`, which is in no list, becomes the last or the first one. */
static inline void list_append(struct list_link *head, struct list_link *link)
{
    list_insert(head->prev, link, head);
}

static inline void list_prepend(struct list_link *head, struct list_link *link)
{
    list_insert(head, link, head->next);
}

/* Takes `link` out of its list. Harmless when it is in none. */
static inline void list_remove(struct list_link *link)
{
    if (!list_is_linked(link)) return;
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link->prev = link->next = NULL;
}

/* Everything in `from` goes to `to`, in the same order. `to` is a head that is not in use; it need not be
 * initialised. */
static inline void list_move(struct list_link *from, struct list_link *to)
{
    list_init(to);
    if (list_is_empty(from)) return;
    list_insert(from->prev, to, from->next);
    list_init(from);
}

/* Each link in turn, for CONTAINER_OF(). The body may take out any of them but the one it is at. */
#define LIST_EACH(link, head) for (struct list_link *link = (head)->next; link != (head); link = link->next)

#endif
