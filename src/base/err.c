#include "base/err.h"

#include "base/clock.h"
#include "base/outbuf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const char *err_text(enum err e)
{
    static const char *const texts[] = {
#define XX(name, text) [ERR_##name] = text,
        ERR_MAP(XX)
#undef XX
    };
    return (size_t)e < sizeof texts / sizeof *texts ? texts[e] : "unknown";
}

enum err err_from_errno(int sys)
{
    switch (labs((long)sys)) {
    case 0: return ERR_OK;
    case ENOMEM:
    case ENOBUFS: return ERR_NOMEM;
    case EAGAIN:
    case EINTR:
    case EINPROGRESS: return ERR_AGAIN;
    case EINVAL: return ERR_PARSE;
    case ERANGE:
    case EOVERFLOW: return ERR_RANGE;
    case EMFILE:
    case ENFILE:
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return ERR_LIMIT;
    case ENOENT:
    case ENXIO:
    case ESRCH: return ERR_NOT_FOUND;
    case EEXIST: return ERR_EXISTS;
    case EADDRINUSE:
    case EBUSY: return ERR_CONFLICT;
    case ETIMEDOUT: return ERR_TIMEOUT;
    case ECONNREFUSED: return ERR_REFUSED;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE: return ERR_RESET;
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN: return ERR_UNREACHABLE;
    case EADDRNOTAVAIL: return ERR_NO_PORT;
    case EBADF:
    case ECANCELED: return ERR_CLOSED;
    case ENOSYS:
    case EOPNOTSUPP:
    case EAFNOSUPPORT:
    case EPROTONOSUPPORT: return ERR_UNSUPPORTED;
    default: return ERR_IO; /* an open list: errno is not ours */
    }
}

void errmsg_set(struct errmsg *m, unsigned line, unsigned column, const char *format, ...)
{
    m->line = line;
    m->column = column;
    va_list ap;
    va_start(ap, format);
    if (vsnprintf(m->text, sizeof m->text, format, ap) < 0) m->text[0] = '\0';
    va_end(ap);
}

/* Uses nothing but the stack and write(2): it must work from any thread, also when the log thread is stuck
 * or the heap is broken. The log's rings are not drained; their last lines are lost. */
_Noreturn void bug_abort(const char *file, int line, const char *text)
{
    char now[CLOCK_RFC3339_LEN];
    clock_rfc3339(clock_wall_ms(), now);

    char mem[512];
    struct outbuf o = outbuf_of(mem, sizeof mem - 1); /* one byte stays free for the newline */
    outbuf_str(&o, "time=");
    outbuf_bytes(&o, now, sizeof now);
    outbuf_str(&o, " level=error event=BUG at=");
    outbuf_str(&o, file);
    outbuf_char(&o, ':');
    outbuf_u64(&o, (uint64_t)line);
    outbuf_str(&o, " text=");
    outbuf_json(&o, span_str(text));
    mem[o.n] = '\n';
    if (write(STDERR_FILENO, mem, o.n + 1) < 0) abort(); /* nowhere left to say it */
    abort();
}
