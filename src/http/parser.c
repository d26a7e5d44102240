#include "http/parser.h"

#include "base/err.h"

#include <stdlib.h>

static int on_field_name(llhttp_t *llhttp, const char *at, size_t n)
{
    struct http_parser *parser = llhttp->data;
    if (parser->nfields == parser->fields_max) return HPE_USER;
    parser->fields[parser->nfields++] =
        (struct http_field){.name = span_of(at, n), .value = span_of(at + n, 0)};
    return 0;
}

/* Not called, or called with nothing, for an empty value. The head is one piece, so a value is one piece. */
static int on_field_value(llhttp_t *llhttp, const char *at, size_t n)
{
    struct http_parser *parser = llhttp->data;
    struct http_field *field = &parser->fields[parser->nfields - 1];
    if (field->value.n) return HPE_USER;
    field->value = span_trim(span_of(at, n));
    return 0;
}

/* Bodies are read by body.c, so llhttp stops here whatever it thinks of the framing. */
static int on_head_end(llhttp_t *llhttp)
{
    (void)llhttp; /* the position is asked for afterwards */
    return HPE_PAUSED;
}

struct http_parser *http_parser_create(void)
{
    struct http_parser *parser = calloc(1, sizeof *parser);
    if (!parser) return NULL;
    llhttp_settings_init(&parser->settings);
    parser->settings.on_header_field = on_field_name;
    parser->settings.on_header_value = on_field_value;
    parser->settings.on_headers_complete = on_head_end;
    return parser;
}

void http_parser_destroy(struct http_parser *parser)
{
    free(parser);
}

/* llhttp reports bad bytes of names and values alike: a colon before it on its line tells them apart. */
static enum head_refusal token_refusal(const char *p, const char *bad)
{
    while (bad > p && bad[-1] != '\n')
        if (*--bad == ':') return HEAD_REFUSAL_FIELD_VALUE;
    return HEAD_REFUSAL_FIELD_NAME;
}

/* A coding beside a length is blamed on the length, as message_framing() does: llhttp 9 blames the second. */
static enum head_refusal coding_refusal(const struct http_parser *parser)
{
    for (uint32_t i = 0; i < parser->nfields; i++)
        if (field_find(parser->fields[i].name) == FIELD_CONTENT_LENGTH) return HEAD_REFUSAL_CONTENT_LENGTH;
    return HEAD_REFUSAL_TRANSFER_ENCODING;
}

/* The reason for the log; every code that is not listed is a fault of syntax. */
static enum head_refusal refusal_of(const struct http_parser *parser, llhttp_errno_t code, const char *p,
                                    const char *bad)
{
    if (code == HPE_USER && parser->nfields == parser->fields_max) return HEAD_REFUSAL_TOO_MANY_FIELDS;
    if (code == HPE_INVALID_METHOD) return HEAD_REFUSAL_METHOD;
    if (code == HPE_INVALID_URL) return HEAD_REFUSAL_TARGET;
    if (code == HPE_INVALID_VERSION) return HEAD_REFUSAL_VERSION;
    if (code == HPE_INVALID_STATUS) return HEAD_REFUSAL_STATUS;
    if (code == HPE_INVALID_CONTENT_LENGTH) return HEAD_REFUSAL_CONTENT_LENGTH;
    if (code == HPE_UNEXPECTED_CONTENT_LENGTH) return HEAD_REFUSAL_CONTENT_LENGTH;
    if (code == HPE_INVALID_TRANSFER_ENCODING) return coding_refusal(parser);
    if (code == HPE_INVALID_HEADER_TOKEN && bad) return token_refusal(p, bad);
    return HEAD_REFUSAL_SYNTAX;
}

enum head_refusal parser_run(struct http_parser *parser, llhttp_type_t type, const char *p, size_t n,
                             uint32_t fields_max, struct http_field *fields, uint32_t *nfields)
{
    BUG_IF(fields_max == 0 || fields_max > HTTP_FIELDS_MAX, "fields_max out of range");
    llhttp_t *llhttp = &parser->llhttp;
    llhttp_init(llhttp, type, &parser->settings);
    llhttp->data = parser;
    parser->fields = fields;
    parser->nfields = 0;
    parser->fields_max = fields_max;

    llhttp_errno_t code = llhttp_execute(llhttp, p, n);
    const char *stop = llhttp_get_error_pos(llhttp);
    *nfields = parser->nfields;

    /* The head must end for llhttp where it ended for head_scan(). */
    if (code == HPE_PAUSED && stop == p + n) return HEAD_REFUSAL_NONE;
    return refusal_of(parser, code, p, stop);
}
