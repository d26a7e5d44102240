/* err.h - the closed list of results that functions of this project return.
 *
 * Third-party codes (errno, libuv, OpenSSL, llhttp, libyaml, hiredis) become one of these where they enter;
 * the raw code goes into the log beside it. ERR_OK is 0, so `if (e)` reads as "if it failed".
 *
 * Thread: [any, pure].
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

/* symbol, log text (also the value of `err=` in logs). */
#define ERR_MAP(XX)                                                                                          \
    XX(OK, "ok")                                                                                             \
    XX(NOMEM, "out_of_memory")                                                                               \
    XX(AGAIN, "again")         /* not complete yet, more input or time is needed */                          \
    XX(EOF, "end_of_stream")   /* the other side closed in an orderly way */                                 \
    XX(PARSE, "malformed")     /* the input does not follow its grammar */                                   \
    XX(RANGE, "out_of_range")  /* well-formed, but outside what is allowed */                                \
    XX(LIMIT, "limit_reached") /* a configured bound was met */                                              \
    XX(NOT_FOUND, "not_found")                                                                               \
    XX(EXISTS, "already_exists")                                                                             \
    XX(CONFLICT, "conflict")                                                                                 \
    XX(IO, "io_error") /* any other failure of the operating system */                                       \
    XX(TIMEOUT, "timeout")                                                                                   \
    XX(REFUSED, "connection_refused")                                                                        \
    XX(RESET, "connection_reset")  /* ECONNRESET, EPIPE */                                                   \
    XX(UNREACHABLE, "unreachable") /* no route, host or network down */                                      \
    XX(NO_PORT, "no_local_port")   /* EADDRNOTAVAIL: no port, or no address at all, to connect from */       \
    XX(CLOSED, "closed")           /* the object was closed by us */                                         \
    XX(UNSUPPORTED, "unsupported")                                                                           \
    XX(TRUNCATED, "truncated") /* TLS ended without close_notify: bytes may be missing */                    \
    XX(TLS, "tls_failed")      /* handshake or record refused, by either side */

enum err {
#define XX(name, text) ERR_##name,
    ERR_MAP(XX)
#undef XX
};

/* Text of an error message for people, with a place in the input where it applies. */
struct errmsg {
    unsigned line;   /* 1-based; 0 = no place */
    unsigned column; /* 1-based, in characters; 0 = whole line */
    char text[240];  /* one sentence: what is wrong and what to write instead */
};

/* The log text of `e`, for example "connection_reset". Never NULL. */
const char *err_text(enum err e);

/* Turns an errno value (positive or negated) into the closest enum err; ERR_IO when nothing fits. */
enum err err_from_errno(int sys);

/* Writes a formatted message into `m`; truncation is silent, the text always ends with NUL. */
void errmsg_set(struct errmsg *m, unsigned line, unsigned column, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Stops the process because of a fault of our own: logs `file:line: text`, aborts. Never returns. */
_Noreturn void bug_abort(const char *file, int line, const char *text);

/* For our own bugs only, never for input or memory pressure. Stays on in release builds. */
#define BUG_IF(cond, text)                                                                                   \
    do {                                                                                                     \
        if (__builtin_expect(!!(cond), 0)) bug_abort(__FILE__, __LINE__, text);                              \
    } while (0)

#endif
