#include "base/log_line.h"

#include "base/clock.h"
#include "base/outbuf.h"

const char *log_level_text(enum log_level level)
{
    static const char *const names[] = {
        [LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error"};
    return names[level];
}

bool log_level_parse(struct span text, enum log_level *out)
{
    for (enum log_level level = LOG_DEBUG; level <= LOG_ERROR; level++) {
        if (!span_eq(text, span_str(log_level_text(level)))) continue;
        *out = level;
        return true;
    }
    return false;
}

static bool is_plain(struct span s)
{
    static const char signs[] = "-_.:/,@+%*~[]";
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool is_alnum = (c >= '0' && c <= '9') || (ascii_lower(c) >= 'a' && ascii_lower(c) <= 'z');
        if (!is_alnum && !memchr(signs, c, sizeof signs - 1)) return false;
    }
    return s.n > 0;
}

static void text_write(struct outbuf *o, struct span s)
{
    if (s.n > LOG_VALUE_MAX) s.n = LOG_VALUE_MAX;
    if (is_plain(s))
        outbuf_span(o, s);
    else
        outbuf_json(o, s);
}

static void pair_write(struct outbuf *o, const struct kv *kv)
{
    outbuf_char(o, ' ');
    outbuf_str(o, kv->key);
    outbuf_char(o, '=');
    switch (kv->kind) {
    case KV_END: break;
    case KV_KIND_STR: text_write(o, kv->str ? span_str(kv->str) : SPAN("-")); break;
    case KV_KIND_SPAN: text_write(o, kv->span); break;
    case KV_KIND_UINT: outbuf_u64(o, kv->u); break;
    case KV_KIND_INT:
        if (kv->i < 0) outbuf_char(o, '-');
        outbuf_u64(o, kv->i < 0 ? -(uint64_t)kv->i : (uint64_t)kv->i);
        break;
    }
}

size_t log_line_format(char out[static LOG_LINE_MAX], uint64_t wall_ms, enum log_level level,
                       const char *thread, const char *event, const struct kv *kv)
{
    static const char cut[] = " cut=1", end = '\n';
    struct outbuf o = outbuf_of(out, LOG_LINE_MAX - sizeof cut);
    char now[CLOCK_RFC3339_LEN];
    clock_rfc3339(wall_ms, now);
    outbuf_str(&o, "time=");
    outbuf_bytes(&o, now, sizeof now);
    outbuf_str(&o, " level=");
    outbuf_str(&o, log_level_text(level));
    outbuf_str(&o, " thread=");
    text_write(&o, span_str(thread));
    outbuf_str(&o, " event=");
    text_write(&o, span_str(event));

    size_t whole = o.n; /* length of the pairs that fit */
    for (; kv->kind != KV_END && !o.overflow; kv++) {
        whole = o.n;
        pair_write(&o, kv);
    }
    if (!o.overflow) whole = o.n;

    bool is_cut = o.overflow;
    o = (struct outbuf){out, whole, LOG_LINE_MAX, false};
    if (is_cut) outbuf_str(&o, cut);
    outbuf_char(&o, end);
    return o.n;
}
