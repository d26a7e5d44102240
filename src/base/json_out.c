#include "base/json_out.h"

#include "base/clock.h"

/* What comes before a value. */
static void begin(struct json_out *j, const char *key)
{
    if (j->needs_comma) outbuf_char(j->o, ',');
    j->needs_comma = true;
    if (!key) return;
    outbuf_char(j->o, '"');
    outbuf_str(j->o, key);
    outbuf_span(j->o, SPAN("\":"));
}

static void open_with(struct json_out *j, const char *key, char bracket)
{
    begin(j, key);
    outbuf_char(j->o, bracket);
    j->needs_comma = false;
}

static void end_with(struct json_out *j, char bracket)
{
    outbuf_char(j->o, bracket);
    j->needs_comma = true;
}

void json_out_object(struct json_out *j, const char *key)
{
    open_with(j, key, '{');
}

void json_out_end_object(struct json_out *j)
{
    end_with(j, '}');
}

void json_out_array(struct json_out *j, const char *key)
{
    open_with(j, key, '[');
}

void json_out_end_array(struct json_out *j)
{
    end_with(j, ']');
}

void json_out_span(struct json_out *j, const char *key, struct span value)
{
    begin(j, key);
    outbuf_json(j->o, value);
}

void json_out_text(struct json_out *j, const char *key, const char *value)
{
    if (value)
        json_out_span(j, key, span_str(value));
    else
        json_out_null(j, key);
}

void json_out_time(struct json_out *j, const char *key, uint64_t wall_ms)
{
    char text[CLOCK_RFC3339_LEN];
    clock_rfc3339(wall_ms, text);
    json_out_span(j, key, span_of(text, sizeof text));
}

void json_out_u64(struct json_out *j, const char *key, uint64_t value)
{
    begin(j, key);
    outbuf_u64(j->o, value);
}

void json_out_bool(struct json_out *j, const char *key, bool value)
{
    begin(j, key);
    outbuf_str(j->o, value ? "true" : "false");
}

void json_out_null(struct json_out *j, const char *key)
{
    begin(j, key);
    outbuf_span(j->o, SPAN("null"));
}

void json_out_raw(struct json_out *j, struct span written)
{
    if (written.n == 0) return;
    begin(j, NULL);
    outbuf_span(j->o, written);
}
