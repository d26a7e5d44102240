/* proof_load.c - proof-load: a small closed-loop load generator for HTTP/1.1 and WebSocket echo.
 *
 * It checks every answer (status, framing, echo) and leaves with 1 if one was wrong. */
#include "load/client.h"
#include "tool.h"

#include "base/clock.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { READ_BYTES = 256 * 1024, OWN_MAX = 65536, STALL_MS = 30000, EXIT_USAGE = 2 };

static const char usage[] =
    "usage: proof-load --target ADDRESS [options]\n"
    "\n"
    "  --target ADDRESS     127.0.0.1:PORT, [::1]:PORT or unix:PATH\n"
    "  --path PATH          default /widget/transactions/1, with --ws /ws?tx_id=load&echo=1\n"
    "  --host NAME          Host field (default localhost)\n"
    "  --header LINE        added to every request; may be given several times\n"
    "  --header-file FILE   one header line per connection, in turn\n"
    "  --body TEXT          POST this instead of GET\n"
    "  --connections N      default 64\n"
    "  --requests N         in all (default 10000); with --ws messages per tunnel\n"
    "  --ws                 open a WebSocket on each connection and echo messages\n"
    "  --idle N             open N connections, one request (or upgrade) each, print `idle N`, hold them "
    "until\n"
    "                       stdin closes\n";

struct program {
    struct load load;
    struct load_plan plan;
    struct wheel_entry watchdog;
    uint64_t seen; /* by the watchdog */
    uint64_t begin_us;
    uint64_t end_us;
    uv_poll_t stdin_poll;
    char headers[LOAD_REQUEST_MAX / 2];
    char *own[OWN_MAX];
};

static bool add_header(struct program *g, const char *line)
{
    size_t at = strlen(g->headers);
    int n = snprintf(g->headers + at, sizeof g->headers - at, "%s\r\n", line);
    return n > 0 && (size_t)n < sizeof g->headers - at;
}

static bool read_own_headers(struct program *g, const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f) return false;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while (g->plan.nown < OWN_MAX && (n = getline(&line, &cap, f)) > 0) {
        if (line[n - 1] == '\n') line[n - 1] = '\0';
        g->own[g->plan.nown] = strdup(line);
        if (!g->own[g->plan.nown]) break;
        g->plan.nown++;
    }
    free(line);
    (void)fclose(f); /* only read */
    g->plan.own = (const char *const *)g->own;
    return g->plan.nown > 0;
}

static bool take_option(struct program *g, int option)
{
    uint64_t n;
    switch (option) {
    case 't': return tool_parse_address(optarg, &g->plan.target);
    case 'p': g->plan.path = optarg; return true;
    case 'H': g->plan.host = optarg; return true;
    case 'h': return add_header(g, optarg);
    case 'f': return read_own_headers(g, optarg);
    case 'b': g->plan.body = optarg; return true;
    case 'n': return tool_parse_number(optarg, 1, UINT32_MAX, &g->plan.requests);
    case 'w': g->plan.websocket = true; return true;
    case 'i': g->plan.hold = true; /* fall through */
    case 'c':
        if (!tool_parse_number(optarg, 1, 1000000, &n)) return false;
        g->plan.connections = (uint32_t)n;
        return true;
    default: return false;
    }
}

/* Leaves with EXIT_USAGE on a mistake. */
static void parse_options(int argc, char **argv, struct program *g)
{
    static const struct option longs[] = {
        {"target", required_argument, NULL, 't'},
        {"path", required_argument, NULL, 'p'},
        {"host", required_argument, NULL, 'H'},
        {"header", required_argument, NULL, 'h'},
        {"header-file", required_argument, NULL, 'f'},
        {"body", required_argument, NULL, 'b'},
        {"connections", required_argument, NULL, 'c'},
        {"requests", required_argument, NULL, 'n'},
        {"ws", no_argument, NULL, 'w'},
        {"idle", required_argument, NULL, 'i'},
        {0},
    };
    g->plan.connections = 64;
    g->plan.requests = 10000;
    g->plan.host = "localhost";
    g->plan.headers = g->headers;
    bool ok = true;
    for (int c; ok && (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        ok = take_option(g, c);
    if (!ok || optind != argc || !g->plan.target.len) {
        (void)fputs(usage, stderr);
        exit(EXIT_USAGE);
    }
    if (!g->plan.path) g->plan.path = g->plan.websocket ? "/ws?tx_id=load&echo=1" : "/widget/transactions/1";
}

static struct program *program_of(struct load *l)
{
    return (struct program *)l;
}

static void end(struct program *g)
{
    if (g->load.over) return;
    g->end_us = clock_mono_us();
    load_close_all(&g->load);
    loop_deadline_clear(&g->load.loop, &g->watchdog);
    if (uv_is_active((uv_handle_t *)&g->stdin_poll)) uv_close((uv_handle_t *)&g->stdin_poll, NULL);
    loop_close(&g->load.loop);
}

static void on_finished(struct load *l)
{
    end(program_of(l));
}

static void on_stdin(uv_poll_t *poll, int status, int events)
{
    struct program *g = poll->data;
    char dropped[256];
    (void)status;
    (void)events;
    loop_turn(&g->load.loop);
    if (read(STDIN_FILENO, dropped, sizeof dropped) <= 0) end(g);
}

static void on_holding(struct load *l)
{
    struct program *g = program_of(l);
    loop_deadline_clear(&l->loop, &g->watchdog);
    (void)printf("idle %u\n", (unsigned)l->held);
    (void)fflush(stdout); /* the script that waits for this line would miss it; nothing else to do */
    g->stdin_poll.data = g;
    if (uv_poll_init(&l->loop.uv, &g->stdin_poll, STDIN_FILENO) ||
        uv_poll_start(&g->stdin_poll, UV_READABLE, on_stdin)) {
        (void)fputs("stdin cannot be watched: it must be a pipe\n", stderr);
        l->errors++;
        end(g);
    }
}

static void on_watchdog(struct wheel_entry *e)
{
    struct program *g = (struct program *)((char *)e - offsetof(struct program, watchdog));
    uint64_t now = g->load.answered + g->load.ready;
    if (now == g->seen) {
        (void)fprintf(stderr, "nothing happened for %d s\n", STALL_MS / 1000);
        g->load.errors++;
        end(g);
        return;
    }
    g->seen = now;
    loop_deadline(&g->load.loop, e, STALL_MS);
}

static int report(const struct program *g)
{
    const struct load *l = &g->load;
    double seconds = (double)(g->end_us - g->begin_us) / 1e6;
    uint64_t expected = g->plan.hold ? 0 : g->plan.requests * (g->plan.websocket ? g->plan.connections : 1);
    (void)printf("%s=%llu errors=%llu non_2xx=%llu reconnects=%llu seconds=%.2f per_second=%.0f\n",
                 g->plan.websocket ? "messages" : "requests", (unsigned long long)l->answered,
                 (unsigned long long)l->errors, (unsigned long long)l->not_2xx,
                 (unsigned long long)l->reconnects, seconds,
                 (double)l->answered / (seconds > 0 ? seconds : 1));
    return l->errors || l->not_2xx || l->answered < expected ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static struct program g;
    parse_options(argc, argv, &g);
    tool_raise_descriptor_limit();
    (void)signal(SIGPIPE, SIG_IGN); /* fails only for a bad signal number */

    struct load *l = &g.load;
    l->plan = &g.plan;
    l->on_holding = on_holding;
    l->on_finished = on_finished;
    l->parser = http_parser_create();
    l->clients = load_clients_create(l);
    if (!l->parser || !l->clients || loop_init(&l->loop, READ_BYTES, NULL)) {
        (void)fputs("out of memory\n", stderr);
        return EXIT_FAILURE;
    }
    wheel_entry_init(&g.watchdog, on_watchdog);
    loop_deadline(&l->loop, &g.watchdog, STALL_MS);
    g.begin_us = clock_mono_us();
    load_open_more(l);
    loop_run(&l->loop);

    loop_deinit(&l->loop);
    free(l->clients);
    http_parser_destroy(l->parser);
    for (uint32_t i = 0; i < g.plan.nown; i++)
        free(g.own[i]);
    return report(&g);
}
