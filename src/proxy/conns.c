#include "proxy/conns.h"

#include "proxy/conn.h"
#include "proxy/greeting.h"
#include "proxy/tunnel_list.h"
#include "proxy/worker.h"

/* Ending one connection may end others, but never frees one within the same turn: `next` stays readable. */
static void for_each(struct worker *w, void (*fn)(struct conn *c))
{
    for (struct conn *c = w->conns, *next; c; c = next) {
        next = c->next;
        if (c->state != CONN_CLOSED) fn(c);
    }
}

void conns_adopt(struct worker *w)
{
    for_each(w, conn_adopt);
}

void conns_follow_mode(struct worker *w)
{
    for_each(w, conn_follow_mode);
    tunnel_list_follow_mode(w);
}

void conns_cut(struct worker *w)
{
    greeting_cut_all(w);
    for_each(w, conn_cut);
}
