/* demo_backend.c - proof-demo-backend: a stand-in for Proof's backend, for the quickstart, tests and
 * benchmarks.
 *
 * What it answers is written in demo/routes.h and demo/ws.h. Each thread has a loop and a listener of its
 * own; it runs until it is killed. */
#include "demo/conn.h"
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS_MAX = 64, BACKLOG = 4096, EXIT_USAGE = 2 };

struct options {
    struct socket_address listen;
    uint64_t threads;
    uint64_t interval_ms;
};

static const char usage[] =
    "usage: proof-demo-backend [--listen ADDRESS] [--threads N] [--interval-ms N]\n"
    "\n"
    "  --listen ADDRESS   127.0.0.1:PORT, [::1]:PORT or unix:PATH; port 0 = chosen by the kernel\n"
    "                     (default 127.0.0.1:0)\n"
    "  --threads N        1..64 (default 1)\n"
    "  --interval-ms N    between two tx.update events of a WebSocket (default 2000, 0 = none)\n"
    "\n"
    "Prints `listening on ADDRESS` when it is ready.\n";

/* Leaves with EXIT_USAGE on a mistake. */
static void parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"listen", required_argument, NULL, 'l'},
        {"threads", required_argument, NULL, 't'},
        {"interval-ms", required_argument, NULL, 'i'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    bool ok = tool_parse_address("127.0.0.1:0", &o->listen);
    o->threads = 1;
    o->interval_ms = 2000;
    for (int c; ok && (c = getopt_long(argc, argv, "l:t:i:h", longs, NULL)) != -1;) {
        if (c == 'l') {
            ok = tool_parse_address(optarg, &o->listen);
        } else if (c == 't') {
            ok = tool_parse_number(optarg, 1, THREADS_MAX, &o->threads);
        } else if (c == 'i') {
            ok = tool_parse_number(optarg, 0, UINT32_MAX, &o->interval_ms);
        } else if (c == 'h') {
            (void)fputs(usage, stdout); /* nobody to tell when stdout is gone */
            exit(EXIT_SUCCESS);
        } else {
            ok = false;
        }
    }
    if (ok && optind == argc) return;
    (void)fputs(usage, stderr);
    exit(EXIT_USAGE);
}

static void on_accept(struct listener *l, int fd, const struct sockaddr *from)
{
    (void)from;
    demo_conn_accept(l->user, fd);
}

static void *worker_run(void *arg)
{
    struct demo_worker *w = arg;
    loop_run(&w->loop);
    return NULL;
}

/* A listening socket for one thread: its own, or for a unix socket another descriptor of the first one's. */
static int open_socket(struct socket_address *a, int first)
{
    int fd, sys = 0;
    if (first >= 0 && a->any.sa_family == AF_UNIX) return dup(first);
    if (socket_listen(a, BACKLOG, false, false, &fd, &sys)) {
        errno = sys;
        return -1;
    }
    if (first < 0 && socket_local(fd, a))
        return -1; /* the port that the kernel chose, for the other threads */
    return fd;
}

static struct demo_worker *worker_create(int fd, uint32_t interval_ms)
{
    struct demo_worker *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->update_interval_ms = interval_ms;
    for (size_t i = 0; i < sizeof w->alphabets; i++)
        w->alphabets[i] = (char)('a' + i % 26);
    w->parser = http_parser_create();
    random_source_init(&w->random);
    if (!w->parser || loop_init(&w->loop, DEMO_READ_BYTES, NULL) ||
        listener_open(&w->listener, &w->loop, fd, on_accept, w))
        return NULL; /* the process ends with it */
    return w;
}

static int fail(const char *what)
{
    (void)fprintf(stderr, "proof-demo-backend: %s: %s\n", what, strerror(errno));
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct options o;
    parse_options(argc, argv, &o);
    tool_raise_descriptor_limit();
    tool_ask_short_slices();
    (void)signal(SIGPIPE, SIG_IGN); /* fails only for a bad signal number */

    struct demo_worker *workers[THREADS_MAX];
    int first = -1;
    for (uint64_t i = 0; i < o.threads; i++) {
        int fd = open_socket(&o.listen, first);
        if (fd < 0) return fail("cannot listen");
        if (i == 0) first = fd;
        workers[i] = worker_create(fd, (uint32_t)o.interval_ms);
        if (!workers[i]) return fail("cannot start a thread's loop");
    }
    for (uint64_t i = 1; i < o.threads; i++) {
        pthread_t thread;
        errno = pthread_create(&thread, NULL, worker_run, workers[i]);
        if (errno) return fail("cannot start a thread");
    }

    char address[sizeof o.listen.un.sun_path + 8];
    socket_address_format(&o.listen, address, sizeof address);
    (void)printf("listening on %s\n", address);
    (void)fflush(stdout); /* who started us waits for this line, or does not care */
    (void)worker_run(workers[0]);
    return EXIT_SUCCESS;
}
