/* parser.h - the binding to llhttp: one complete head in, the list of its fields out.
 *
 * Private to this floor. llhttp is the second opinion on every byte of the head and the one that splits it
 * into fields; start lines, names, values and framing are judged by request.c, response.c and message.c,
 * because no released llhttp is strict about all of them.
 *
 * Works with llhttp 8.1 (compiled strict) to 9.x: settings are filled by name, and the callback that ends the
 * head pauses by its return value, after which the error position is the end of the head as llhttp saw it.
 *
 * Thread: a struct http_parser belongs to one.
 */
#ifndef HTTP_PARSER_H
#define HTTP_PARSER_H

#include "http/head.h"

#include <llhttp.h>

struct http_parser {
    llhttp_settings_t settings;
    llhttp_t llhttp;
    /* borrowed while parser_run() is on the stack */
    struct http_field *fields;
    uint32_t nfields;
    uint32_t fields_max;
};

/* Runs llhttp over the head p[0..n). Fills name and value of fields[0..*nfields), at most `fields_max`;
 * `*nfields` is set even when the head is refused. */
enum head_refusal parser_run(struct http_parser *parser, llhttp_type_t type, const char *p, size_t n,
                             uint32_t fields_max, struct http_field *fields, uint32_t *nfields);

#endif
