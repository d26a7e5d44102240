/* json_out.h - writes JSON into an outbuf: quotes, escapes, and the commas between values.
 *
 * A value in an object has a key, which is written as it is; a value in an array, and the outermost one, has
 * NULL. Nothing is written but the values: no spaces, no line break at the end. That objects and arrays are
 * ended in their order is the caller's affair.
 *
 * Not json.h: json_object(), json_array() and json_null() are jansson's, which proofctl links.
 *
 * Example:  struct json_out j = json_out_of(&o);
 *           json_out_object(&j, NULL); json_out_u64(&j, "count", 3); json_out_end_object(&j);
 *           -> {"count":3}
 *
 * Thread: [any, pure].
 */
#ifndef BASE_JSON_OUT_H
#define BASE_JSON_OUT_H

#include "base/outbuf.h"

struct json_out {
    struct outbuf *o; /* borrowed */
    bool needs_comma; /* before the next value */
};

static inline struct json_out json_out_of(struct outbuf *o)
{
    return (struct json_out){o, false};
}

void json_out_object(struct json_out *j, const char *key);
void json_out_end_object(struct json_out *j);
void json_out_array(struct json_out *j, const char *key);
void json_out_end_array(struct json_out *j);

/* A string, escaped as by outbuf_json(). */
void json_out_span(struct json_out *j, const char *key, struct span value);
/* The same; NULL is written as null. */
void json_out_text(struct json_out *j, const char *key, const char *value);
/* A string: the instant as by clock_rfc3339(). */
void json_out_time(struct json_out *j, const char *key, uint64_t wall_ms);
void json_out_u64(struct json_out *j, const char *key, uint64_t value);
void json_out_bool(struct json_out *j, const char *key, bool value);
void json_out_null(struct json_out *j, const char *key);

/* Members or values that another writer has written, with the commas between them; none when empty. */
void json_out_raw(struct json_out *j, struct span written);

#endif
