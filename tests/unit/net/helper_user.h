/* A user of a stream that writes down every event, and may close the stream in any of them. */
#ifndef TEST_NET_HELPER_USER_H
#define TEST_NET_HELPER_USER_H

#include "helper_net.h"
#include "net/stream.h"

enum {
    USER_GOT_MAX = 4 * 1024 * 1024,
    MUCH = 3 * 1024 * 1024, /* more than the buffers of a unix socket hold */
};

enum user_event { ON_NOTHING, ON_CONNECTED, ON_READ, ON_EOF, ON_DRAINED, ON_FAILED };

struct user {
    struct stream stream; /* first */
    unsigned connected, reads, eofs, drains, failures, closed;
    enum err failure;
    enum user_event close_on; /* closes the stream inside this event */
    bool in_event;
    bool had_more; /* stream_has_more() in the last on_read */
    size_t ngot;
    char *got; /* what was read, with a NUL behind it */
};

/* A user on heap memory, freed by user_destroy(). */
struct user *user_create(void);

/* The same over a socket that is connected already. */
struct user *user_open(struct net_test *t, int fd);
/* One end of test_tcp_pair() or test_unix_pair(); `*fd` is the other. */
struct user *user_open_tcp(struct net_test *t, int *fd);
struct user *user_open_unix(struct net_test *t, int *fd);

/* Closes the stream when it is still open, waits for on_closed, frees. */
void user_destroy(struct net_test *t, struct user *u);

/* Writes one slice and returns what stream_write() said. */
enum err user_write(struct user *u, const char *p, size_t n);

/* Reads at the other side until the stream has nothing pending any more, or the end. */
size_t user_drain(struct net_test *t, struct user *u, int fd, char *to, size_t cap);

/* `n` bytes of test_fill(); the caller frees. */
char *test_pattern(size_t n);

extern const struct stream_events user_events;

#endif
