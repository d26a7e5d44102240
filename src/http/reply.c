#include "http/reply.h"

#include "base/date.h"
#include "base/err.h"

/* Made by the compiler: the texts have nothing that JSON would escape, which a test sees to. */
#define BODY(slug, code, text) "{\"error\": \"" slug "\", \"code\": \"" code "\", \"message\": \"" text "\"}"

static const struct reply_def defs[REPLY_COUNT] = {
#define XX(id, code_number, slug, code_text, does_close, text)                                               \
    [REPLY_##id] = {.status = (code_number),                                                                 \
                    .closes = (does_close),                                                                  \
                    .error = (slug),                                                                         \
                    .code = (code_text),                                                                     \
                    .message = (text),                                                                       \
                    .body = {BODY(slug, code_text, text), sizeof BODY(slug, code_text, text) - 1}},
    REPLY_MAP(XX)
#undef XX
};

const struct reply_def *reply_def(enum reply_id id)
{
    BUG_IF(id == REPLY_NONE || id >= REPLY_COUNT, "no such reply");
    return &defs[id];
}

/* ---- the answer ---- */

/* The fields that only one status has. RFC 6750 section 3: no error attribute when no token was sent. */
static void special_fields_write(struct outbuf *o, enum reply_id id, const struct reply_options *opt)
{
    unsigned status = defs[id].status;
    if (id == REPLY_MISSING_TOKEN) outbuf_span(o, SPAN("WWW-Authenticate: Bearer realm=\"proof\"\r\n"));
    if (id == REPLY_INVALID_TOKEN)
        outbuf_span(o, SPAN("WWW-Authenticate: Bearer realm=\"proof\", error=\"invalid_token\"\r\n"));
    if (status == 429 || status == 503) {
        outbuf_span(o, SPAN("Retry-After: "));
        outbuf_u64(o, opt->retry_after_s ? opt->retry_after_s : 1);
        outbuf_span(o, SPAN("\r\n"));
    }
    if (status == 426) outbuf_span(o, SPAN("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"));
}

static void connection_write(struct outbuf *o, enum reply_id id, bool closes)
{
    bool upgrade = defs[id].status == 426;
    if (!closes && !upgrade) return;
    outbuf_span(o, SPAN("Connection: "));
    if (upgrade)
        outbuf_span(o, closes ? SPAN("Upgrade, close") : SPAN("Upgrade"));
    else
        outbuf_span(o, SPAN("close"));
    outbuf_span(o, SPAN("\r\n"));
}

void reply_write(struct outbuf *o, enum reply_id id, const struct reply_options *opt)
{
    const struct reply_def *def = reply_def(id);
    outbuf_span(o, SPAN("HTTP/1.1 "));
    outbuf_u64(o, def->status);
    outbuf_char(o, ' ');
    outbuf_str(o, status_phrase(def->status));
    outbuf_span(o, SPAN("\r\n"));
    outbuf_span(o, opt->date_line);
    outbuf_span(o, SPAN("Content-Type: application/json\r\nContent-Length: "));
    outbuf_u64(o, def->body.n);
    outbuf_span(o, SPAN("\r\nCache-Control: no-store\r\nX-Request-Id: "));
    outbuf_span(o, opt->request_id);
    outbuf_span(o, SPAN("\r\n"));
    special_fields_write(o, id, opt);
    connection_write(o, id, def->closes || !opt->keep_alive);
    outbuf_span(o, SPAN("\r\n"));
    if (!opt->head) outbuf_span(o, def->body);
}

/* ---- reason phrases (RFC 9110 section 15 and the IANA registry) ---- */

static const char *const phrases[] = {
    [100] = "Continue",
    [101] = "Switching Protocols",
    [102] = "Processing",
    [103] = "Early Hints",
    [200] = "OK",
    [201] = "Created",
    [202] = "Accepted",
    [203] = "Non-Authoritative Information",
    [204] = "No Content",
    [205] = "Reset Content",
    [206] = "Partial Content",
    [207] = "Multi-Status",
    [208] = "Already Reported",
    [226] = "IM Used",
    [300] = "Multiple Choices",
    [301] = "Moved Permanently",
    [302] = "Found",
    [303] = "See Other",
    [304] = "Not Modified",
    [305] = "Use Proxy",
    [307] = "Temporary Redirect",
    [308] = "Permanent Redirect",
    [400] = "Bad Request",
    [401] = "Unauthorized",
    [402] = "Payment Required",
    [403] = "Forbidden",
    [404] = "Not Found",
    [405] = "Method Not Allowed",
    [406] = "Not Acceptable",
    [407] = "Proxy Authentication Required",
    [408] = "Request Timeout",
    [409] = "Conflict",
    [410] = "Gone",
    [411] = "Length Required",
    [412] = "Precondition Failed",
    [413] = "Content Too Large",
    [414] = "URI Too Long",
    [415] = "Unsupported Media Type",
    [416] = "Range Not Satisfiable",
    [417] = "Expectation Failed",
    [421] = "Misdirected Request",
    [422] = "Unprocessable Content",
    [423] = "Locked",
    [424] = "Failed Dependency",
    [425] = "Too Early",
    [426] = "Upgrade Required",
    [428] = "Precondition Required",
    [429] = "Too Many Requests",
    [431] = "Request Header Fields Too Large",
    [451] = "Unavailable For Legal Reasons",
    [500] = "Internal Server Error",
    [501] = "Not Implemented",
    [502] = "Bad Gateway",
    [503] = "Service Unavailable",
    [504] = "Gateway Timeout",
    [505] = "HTTP Version Not Supported",
    [506] = "Variant Also Negotiates",
    [507] = "Insufficient Storage",
    [508] = "Loop Detected",
    [511] = "Network Authentication Required",
};

const char *status_phrase(unsigned status)
{
    bool is_known = status < sizeof phrases / sizeof phrases[0] && phrases[status];
    return is_known ? phrases[status] : "Unknown";
}

/* ---- date ---- */

static void two_digits_write(char *out, unsigned v)
{
    out[0] = (char)('0' + v / 10 % 10);
    out[1] = (char)('0' + v % 10);
}

void http_date_write(struct outbuf *o, uint64_t wall_ms)
{
    static const char weekdays[] = "ThuFriSatSunMonTueWed"; /* 1970-01-01 was a Thursday */
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    char text[] = "Thu, 01 Jan 1970 00:00:00 GMT";

    uint64_t seconds = wall_ms / 1000, days = seconds / 86400;
    unsigned of_day = (unsigned)(seconds % 86400);
    struct date date = date_of_day(days);
    memcpy(text, weekdays + 3 * (days % 7), 3);
    two_digits_write(text + 5, date.day);
    memcpy(text + 8, months + 3 * (date.month - 1), 3);
    two_digits_write(text + 12, date.year / 100);
    two_digits_write(text + 14, date.year);
    two_digits_write(text + 17, of_day / 3600);
    two_digits_write(text + 20, of_day / 60 % 60);
    two_digits_write(text + 23, of_day % 60);
    outbuf_bytes(o, text, sizeof text - 1);
}

/* ---- docs/API-ERRORS.md ---- */

void reply_reference(struct outbuf *o)
{
    outbuf_str(
        o, "# Errors that the gateway answers itself\n\n"
           "<!-- Generated from the table in src/http/reply.h; do not edit. -->\n\n"
           "Always `Content-Type: application/json`, always with an `X-Request-Id`, always this shape "
           "and nothing else in it:\n\n"
           "```json\n{\"error\": \"<slug>\", \"code\": \"<code>\", \"message\": \"<for people>\"}\n```\n\n"
           "Branch on `error` and `code`, never on `message`. Answers of the backend, its errors "
           "included, pass through untouched.\n\n"
           "| status | `error` | `code` | `message` | connection |\n"
           "| --- | --- | --- | --- | --- |\n");
    for (unsigned id = REPLY_NONE + 1; id < REPLY_COUNT; id++) {
        const struct reply_def *def = &defs[id];
        outbuf_fmt(o, "| %u %s | `%s` | `%s` | `%s` | %s |\n", (unsigned)def->status,
                   status_phrase(def->status), def->error, def->code, def->message,
                   def->closes ? "closes" : "stays open");
    }
    outbuf_str(
        o,
        "\n- 400 also answers what two servers may read in two ways: in a path `%2F`, `%5C`, `%3B`, `%25`, "
        "`;`, empty segments and those of dots; anywhere what RFC 3986 wants encoded, such as `{` and `|`. "
        "An identifier with such characters goes into the query, encoded, or into the body.\n"
        "- 401 carries `WWW-Authenticate: Bearer realm=\"proof\"`, with `error=\"invalid_token\"` "
        "when a token was sent.\n"
        "- 426 carries `Upgrade: websocket` and `Sec-WebSocket-Version: 13` (RFC 6455 section 4.4).\n"
        "- 429 and 503 carry `Retry-After` in seconds; after a 429, one request would pass then.\n"
        "- A connection that stays open still closes when the client asked for it, speaks HTTP/1.0 or has "
        "more than 64 KiB, more than `limits.body` or chunks of its request body still to send (or has asked "
        "for `100 Continue`), or when the gateway is draining; the answer then says `Connection: close`.\n"
        "- An idle connection closes after `timeouts.keep_alive` (75 s unless set). Let your client give it "
        "up sooner; else now and then a request meets the close, and gets no answer.\n"
        "- Try again after 408, 429, 502, 503 and 504: after `Retry-After` where there is one, else after a "
        "pause that is random and grows. After 502 and 504 the backend may have carried the request out; "
        "after the others it has not seen all of it. The other errors come again until the request, the "
        "token or the allowlist is another one.\n"
        "- A WebSocket that the gateway ends has a close code. 1008: no longer allowed (token, address, "
        "partner); connecting again gets the 401 or 403 that says which. 1012: the gateway restarts; connect "
        "again after a random pause. 1001: no byte in either direction for too long; send pings.\n"
        "- Quote `X-Request-Id` when you ask for help: it finds the request in our logs.\n");
}
