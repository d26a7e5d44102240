/* A stream on a loop of its own whose other side the test reads. */
#ifndef TEST_PROXY_HELPER_PIPE_H
#define TEST_PROXY_HELPER_PIPE_H

#include "net/stream.h"

enum { PIPE_GOT_MAX = 4 * 1024 * 1024 };

struct test_pipe {
    struct loop loop;
    struct stream stream;
    int fd; /* the other side; -1 after test_pipe_break() */
    size_t ngot;
    char *got; /* what test_pipe_take() has read so far, with a NUL behind it */
};

int test_pipe_setup(void **state);
int test_pipe_teardown(void **state);

/* Reads until nothing is pending in the stream. */
void test_pipe_take(struct test_pipe *p);

/* The other side goes away: the next write fails. */
void test_pipe_break(struct test_pipe *p);

#endif
