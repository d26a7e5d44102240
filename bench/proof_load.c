/* proof_load.c - proof-load: a load generator for HTTP/1.1 and WebSocket echo, plain and over TLS; closed
 * loop, or open loop at a fixed rate.
 *
 * It checks every answer (status, framing, echo) and leaves with 1 if one was wrong. */
#include "load/load.h"
#include "tool.h"

#include "base/clock.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OWN_MAX = 65536, STALL_MS = 30000, EXIT_USAGE = 2 };

static const char usage[] =
    "usage: proof-load --target ADDRESS [options]\n"
    "\n"
    "what is asked\n"
    "  --target ADDRESS     127.0.0.1:PORT, [::1]:PORT or unix:PATH\n"
    "  --path PATH          default /widget/transactions/1, with --ws /ws?tx_id=load&echo=1\n"
    "  --host NAME          Host field (default localhost)\n"
    "  --header LINE        added to every request; may be given several times\n"
    "  --header-file FILE   one header line per connection, in turn\n"
    "  --rotate             ... per request, in turn\n"
    "  --body TEXT          POST this instead of GET\n"
    "  --ws                 open a WebSocket on each connection and echo messages\n"
    "  --message-bytes N    of their payload, 16..65535 (default 16)\n"
    "  --expect STATUS      the status that is right (default: any 2xx)\n"
    "how\n"
    "  --connections N      default 64\n"
    "  --renew              a new connection for each request\n"
    "  --tls                over TLS; certificates are not verified\n"
    "  --resume             ... resuming the session of the connection before\n"
    "  --rate N             open loop: N operations a second, latency from when each was due\n"
    "  --tolerate           count connections that are lost, and open them again\n"
    "how much\n"
    "  --requests N         in all (default 10000, without limit with --seconds); with --ws messages per "
    "tunnel\n"
    "  --seconds S          begin nothing after S seconds (decimals)\n"
    "  --idle N             open N connections, one request (or upgrade) each, print `idle N`, hold them "
    "until\n"
    "                       stdin closes\n"
    "  --stepped            open the connections, one request (or upgrade) each; print `ready`; run when a "
    "line comes\n"
    "                       from stdin, until done or the next line; print the result as JSON; hold the\n"
    "                       connections until stdin closes\n";

struct program {
    struct load load;
    struct load_plan plan;
    bool hold;  /* --idle */
    bool waits; /* stdin_poll is open */
    struct wheel_entry watchdog;
    uint64_t seen; /* by the watchdog */
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

static bool parse_u32(uint32_t min, uint32_t max, uint32_t *out)
{
    uint64_t n;
    if (!tool_parse_number(optarg, min, max, &n)) return false;
    *out = (uint32_t)n;
    return true;
}

static bool parse_seconds(uint64_t *ms)
{
    char *end;
    double s = strtod(optarg, &end);
    if (end == optarg || *end || !(s >= 0.001 && s <= 86400)) return false;
    *ms = (uint64_t)(s * 1000);
    return true;
}

static bool take_option(struct program *g, int option)
{
    struct load_plan *plan = &g->plan;
    uint32_t n;
    switch (option) {
    case 't': return tool_parse_address(optarg, &plan->target);
    case 'p': plan->path = optarg; return true;
    case 'H': plan->host = optarg; return true;
    case 'h': return add_header(g, optarg);
    case 'f': return read_own_headers(g, optarg);
    case 'o': plan->rotate = true; return true;
    case 'b': plan->body = optarg; return true;
    case 'w': plan->websocket = true; return true;
    case 'm': return parse_u32(LOAD_MESSAGE_MIN, LOAD_MESSAGE_MAX, &plan->message_bytes);
    case 'e':
        if (!parse_u32(200, 599, &n)) return false;
        plan->status = (uint16_t)n;
        return true;
    case 'a': plan->renew = true; return true;
    case 's': plan->tls = true; return true;
    case 'R': plan->tls = plan->resume = true; return true;
    case 'r': return parse_u32(1, 10000000, &plan->rate);
    case 'T': plan->tolerant = true; return true;
    case 'n': return tool_parse_number(optarg, 1, UINT32_MAX, &plan->operations);
    case 'd': return parse_seconds(&plan->run_ms);
    case 'S': plan->stepped = true; return true;
    case 'i': g->hold = plan->stepped = true; /* fall through */
    case 'c': return parse_u32(1, 1000000, &plan->connections);
    default: return false;
    }
}

static void fill_defaults(struct load_plan *plan)
{
    if (!plan->path) plan->path = plan->websocket ? "/ws?tx_id=load&echo=1" : "/widget/transactions/1";
    if (!plan->operations) plan->operations = plan->run_ms ? UINT64_MAX : 10000;
    if (plan->websocket && !plan->run_ms) plan->operations *= plan->connections;
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
        {"rotate", no_argument, NULL, 'o'},
        {"body", required_argument, NULL, 'b'},
        {"ws", no_argument, NULL, 'w'},
        {"message-bytes", required_argument, NULL, 'm'},
        {"expect", required_argument, NULL, 'e'},
        {"connections", required_argument, NULL, 'c'},
        {"renew", no_argument, NULL, 'a'},
        {"tls", no_argument, NULL, 's'},
        {"resume", no_argument, NULL, 'R'},
        {"rate", required_argument, NULL, 'r'},
        {"tolerate", no_argument, NULL, 'T'},
        {"requests", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 'd'},
        {"stepped", no_argument, NULL, 'S'},
        {"idle", required_argument, NULL, 'i'},
        {0},
    };
    g->plan.connections = 64;
    g->plan.message_bytes = LOAD_MESSAGE_MIN;
    g->plan.host = "localhost";
    g->plan.headers = g->headers;
    bool ok = true;
    for (int c; ok && (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        ok = take_option(g, c);
    if (!ok || optind != argc || !g->plan.target.len || (g->plan.websocket && g->plan.renew)) {
        (void)fputs(usage, stderr);
        exit(EXIT_USAGE);
    }
    fill_defaults(&g->plan);
}

static struct program *program_of(struct load *l)
{
    return (struct program *)l;
}

static void end(struct program *g)
{
    loop_deadline_clear(&g->load.loop, &g->watchdog);
    if (g->waits) uv_close((uv_handle_t *)&g->stdin_poll, NULL);
    g->waits = false;
    load_end(&g->load);
}

static void fail(struct program *g, const char *what)
{
    (void)fprintf(stderr, "%s\n", what);
    g->load.errors++;
    end(g);
}

static void on_stdin(uv_poll_t *poll, int status, int events)
{
    struct program *g = poll->data;
    char dropped[256];
    (void)status;
    (void)events;
    loop_turn(&g->load.loop);
    if (read(STDIN_FILENO, dropped, sizeof dropped) <= 0) {
        end(g);
    } else if (g->load.phase == LOAD_READY && !g->hold) {
        loop_deadline(&g->load.loop, &g->watchdog, STALL_MS);
        if (!load_run(&g->load)) fail(g, "no timer could be had");
    } else if (g->load.phase == LOAD_RUNNING) {
        load_stop(&g->load);
    }
}

/* Says `what` and waits for stdin. */
static void on_ready(struct load *l)
{
    struct program *g = program_of(l);
    loop_deadline_clear(&l->loop, &g->watchdog);
    if (g->hold)
        (void)printf("idle %u\n", (unsigned)l->nidle);
    else
        (void)puts("ready");
    (void)fflush(stdout); /* the script that waits for this line would miss it; nothing else to do */
    g->stdin_poll.data = g;
    g->waits = uv_poll_init(&l->loop.uv, &g->stdin_poll, STDIN_FILENO) == 0;
    if (!g->waits || uv_poll_start(&g->stdin_poll, UV_READABLE, on_stdin))
        fail(g, "stdin cannot be watched: it must be a pipe");
}

static void print_json(const struct load *l)
{
    (void)printf(
        "{\"operations\":%llu,\"seconds\":%.6f,\"errors\":%llu,\"wrong_status\":%llu,\"failed\":%llu,"
        "\"dropped\":%llu,\"reconnects\":%llu,\"resumed\":%llu,\"histogram\":",
        (unsigned long long)l->answered, (double)(l->end_us - l->begin_us) / 1e6,
        (unsigned long long)l->errors, (unsigned long long)l->wrong_status, (unsigned long long)l->failed,
        (unsigned long long)l->dropped, (unsigned long long)l->reconnects, (unsigned long long)l->resumed);
    histogram_print(&l->latency, stdout);
    (void)puts("}");
    (void)fflush(stdout); /* who reads it notices that it is missing */
}

static void on_rested(struct load *l)
{
    struct program *g = program_of(l);
    loop_deadline_clear(&l->loop, &g->watchdog);
    if (l->plan->stepped) print_json(l);
    if (!g->waits) end(g);
}

static void on_watchdog(struct wheel_entry *e)
{
    struct program *g = (struct program *)((char *)e - offsetof(struct program, watchdog));
    uint64_t now = g->load.answered + g->load.failed + g->load.ready;
    if (now == g->seen) {
        fail(g, "nothing happened for 30 s");
        return;
    }
    g->seen = now;
    loop_deadline(&g->load.loop, e, STALL_MS);
}

static int report(const struct program *g)
{
    const struct load *l = &g->load;
    const struct load_plan *plan = l->plan;
    if (!plan->stepped) {
        double seconds = (double)(l->end_us - l->begin_us) / 1e6;
        (void)printf("%s=%llu errors=%llu non_2xx=%llu reconnects=%llu seconds=%.2f per_second=%.0f\n",
                     plan->websocket ? "messages" : "requests", (unsigned long long)l->answered,
                     (unsigned long long)l->errors, (unsigned long long)l->wrong_status,
                     (unsigned long long)l->reconnects, seconds,
                     (double)l->answered / (seconds > 0 ? seconds : 1));
    }
    bool all = plan->stepped || plan->run_ms || plan->tolerant || l->answered == plan->operations;
    return l->errors || l->wrong_status || !all ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static struct program g;
    parse_options(argc, argv, &g);
    tool_raise_descriptor_limit();
    tool_ask_short_slices();
    (void)signal(SIGPIPE, SIG_IGN); /* fails only for a bad signal number */

    struct load *l = &g.load;
    l->plan = &g.plan;
    l->on_ready = on_ready;
    l->on_rested = on_rested;
    if (!load_init(l)) {
        (void)fputs("out of memory, or the request is too long\n", stderr);
        return EXIT_FAILURE;
    }
    wheel_entry_init(&g.watchdog, on_watchdog);
    loop_deadline(&l->loop, &g.watchdog, STALL_MS);
    if (!load_begin(l)) fail(&g, "no timer could be had");
    loop_run(&l->loop);
    int code = report(&g);
    load_deinit(l);
    for (uint32_t i = 0; i < g.plan.nown; i++)
        free(g.own[i]);
    return code;
}
