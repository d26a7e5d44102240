/* helper_trace.h - runs bytes through head_scan(), http_parse_*() and body_read() as a connection would, and
 * writes down what was understood, one fact a line. The text must not depend on how the bytes were cut.
 *
 * Used by the golden tests and, included as source, by the fuzz targets. The notation is explained in
 * tests/http/README.md. */
#ifndef HELPER_TRACE_H
#define HELPER_TRACE_H

#include "base/outbuf.h"
#include "http/body.h"
#include "http/forwarded_for.h"
#include "http/head.h"
#include "http/proxy_header.h"
#include "http/scan.h"

enum { TRACE_TRUSTED_MAX = 4 };

struct trace_options {
    bool is_response;
    bool has_proxy_header;                  /* the connection begins with one */
    struct addr trusted[TRACE_TRUSTED_MAX]; /* proxies; with any, the caller of each request is traced */
    unsigned ntrusted;
    enum http_method request_method; /* what the response answers */
    struct head_limits head;
    struct body_limits body;
};

enum tracer_state {
    TRACER_PROXY = 0, /* reading `proxy` */
    TRACER_HEAD,      /* collecting a head in `pending` */
    TRACER_BODY,      /* `body` is reading */
    TRACER_REST,      /* bytes that belong to no message */
    TRACER_REFUSED,
};

struct tracer {
    const struct trace_options *options;
    struct http_parser *parser;
    enum tracer_state state;
    struct outbuf out;
    struct proxy_header proxy;
    char *pending; /* bytes of a head that is not complete; owned */
    size_t npending;
    struct head_scan scan;
    unsigned pairs_left; /* of CRLF, still skipped before this head */
    struct body_reader body;
    bool ends_after_body; /* the message under way is the last one of the connection */
    const char *run;      /* name of the line that body bytes are being appended to, or NULL */
};

/* The limits that hold where a case says nothing else. */
struct trace_options trace_options_default(void);

/* The trace goes into text[0..cap). */
void tracer_init(struct tracer *t, const struct trace_options *options, char *text, size_t cap);
void tracer_feed(struct tracer *t, const char *p, size_t n);
/* The connection ended. Frees everything; the trace is t->out.n bytes long. */
void tracer_finish(struct tracer *t);

/* Does all that with p[0..n), in pieces of 1 to 24 bytes that `seed` chooses (0: in one piece). Returns the
 * length of the trace. */
size_t trace_cut(const struct trace_options *options, const char *p, size_t n, unsigned seed, char *text,
                 size_t cap);

#endif
