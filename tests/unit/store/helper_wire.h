/* helper_wire.h - a loop for one test, servers played by the test byte by byte, and a user of Redis
 * connections that writes down what it hears. Everything is one thread: the peers below are plain sockets
 * that are looked at between turns of the loop. */
#ifndef STORE_HELPER_WIRE_H
#define STORE_HELPER_WIRE_H

#include "net/loop.h"
#include "net/socket.h"
#include "store/redis_conn.h"

struct wire {
    struct loop loop;
    uv_timer_t watchdog; /* ends a test that waits for something that never comes */
    bool is_expired;
};

/* cmocka set-up and tear-down: `*state` is a struct wire. The tear-down runs the loop until every handle is
 * closed, and fails when a deadline is still armed. */
int wire_setup(void **state);
int wire_teardown(void **state);

/* Runs the loop until `condition` holds; fails the test after ten seconds. */
#define WIRE_UNTIL(w, condition)                                                                             \
    do {                                                                                                     \
        wire_watch(w);                                                                                       \
        while (!(condition))                                                                                 \
            wire_run(w, #condition, __FILE__, __LINE__);                                                     \
    } while (0)

void wire_watch(struct wire *w);
void wire_run(struct wire *w, const char *waits_for, const char *file, int line);

/* Runs what is ready now. */
void wire_settle(struct wire *w);

/* --- the server's side ------------------------------------------------------------------------------ */

struct peer {
    struct socket_address address;
    int listening; /* -1 = nobody listens */
    int fd;        /* the accepted connection; -1 = none */
};

/* 127.0.0.1, port of the kernel's choice. */
void peer_listen(struct peer *p);
void peer_listen_unix(struct peer *p, const char *path);
/* Stops listening; the address stays, and connecting to it is refused. */
void peer_stop(struct peer *p);

void peer_accept(struct wire *w, struct peer *p);
/* Waits for exactly these bytes. */
void peer_expect(struct wire *w, struct peer *p, const char *bytes, size_t n);
#define PEER_EXPECT(w, p, text) peer_expect((w), (p), (text), sizeof(text) - 1)
/* Waits until the client has closed. */
void peer_expect_end(struct wire *w, struct peer *p);
void peer_say(struct peer *p, const char *bytes, size_t n);
#define PEER_SAY(p, text) peer_say((p), (text), sizeof(text) - 1)
/* Says a lot, running the loop meanwhile; ends early when the client closes. */
void peer_say_much(struct wire *w, struct peer *p, const char *bytes, size_t n);
void peer_close(struct peer *p);
void peer_reset(struct peer *p);

/* --- the client's side ------------------------------------------------------------------------------ */

enum { HEARD_TEXT_MAX = 16384 };

/* What a user of a connection heard. */
struct heard {
    struct redis_conn *conn; /* NULL after on_closed */
    unsigned ready, closed, replies, nulls;
    enum err error;
    char cause[REDIS_CAUSE_MAX];
    char text[HEARD_TEXT_MAX]; /* each reply, one after the other: "+OK;(nil);[a 5 -ERR no];NULL;" */
    size_t ntext;
    bool closes_when_ready, closes_on_reply; /* calls redis_close() in the callback */
};

/* Opens to `address` with these options; fails the test when that fails at once. */
void heard_open(struct wire *w, struct heard *h, const struct redis_options *o);
/* A connection without handshake to the peer, accepted and ready. */
void heard_open_plain(struct wire *w, struct heard *h, struct peer *p);
/* Sends a command given as one text, split at single spaces; its reply goes to h->text. */
enum err heard_send(struct heard *h, const char *command);
/* Closes and waits; harmless after on_closed. */
void heard_close(struct wire *w, struct heard *h);
/* The same, and the end of the peer. */
void heard_finish(struct wire *w, struct heard *h, struct peer *p);

/* --- both ------------------------------------------------------------------------------------------- */

/* One connection: the fixture of most tests. */
struct dialogue {
    struct wire *w;
    struct peer server;
    struct heard user;
};

/* cmocka set-up: `*state` is a struct dialogue whose server listens; or whose connection, without handshake,
 * is accepted and ready as well. The tear-down ends both sides and the loop. */
int dialogue_setup(void **state);
int dialogue_setup_ready(void **state);
int dialogue_teardown(void **state);

extern const struct redis_events heard_events;
/* The reply function of heard_send(); `arg` is the struct heard. */
void heard_reply(struct redis_conn *c, const redisReply *reply, void *arg);

#endif
