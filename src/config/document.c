#include "config/document.h"

#include "base/outbuf.h"
#include "config/text.h"

#include <yaml.h>

#include <stdlib.h>

/* A document under construction. */
struct builder {
    struct document *doc;
    struct report *report;
    struct node *open; /* innermost container that has not ended */
    struct node *key;  /* read, its value is still to come; only in a mapping */
    unsigned depth;    /* open containers */
    unsigned ndocuments;
    unsigned folded_until; /* last line of a value that was reported for having several */
    bool done;             /* nothing more can be read */
};

static struct place place_between(const yaml_mark_t *start, const yaml_mark_t *end)
{
    size_t width = end->line == start->line && end->column > start->column ? end->column - start->column : 1;
    return (struct place){(unsigned)start->line + 1, (unsigned)start->column + 1, (unsigned)width};
}

static void stop(struct builder *b)
{
    b->doc->complete = false;
    b->done = true;
}

/* Puts a new node into the tree: as the root, as a key, or as a value of the open container. */
static void attach(struct builder *b, struct node *node)
{
    struct node *parent = b->open;
    if (parent == NULL) {
        b->doc->root = node;
        return;
    }
    node->parent = parent;
    if (parent->kind == NODE_MAPPING && b->key == NULL) {
        if (node->kind == NODE_SCALAR) {
            b->key = node;
            return;
        }
        report_add(b->report, node->at, "", "a key must be one word, followed by ':'");
        stop(b);
        return;
    }
    node->key = b->key;
    b->key = NULL;
    node->index = parent->last ? parent->last->index + 1 : 0;
    if (parent->last)
        parent->last->next = node;
    else
        parent->first = node;
    parent->last = node;
}

static enum err add_node(struct builder *b, enum node_kind kind, const yaml_event_t *event, struct span text,
                         struct node **out)
{
    struct place at = place_between(&event->start_mark, &event->end_mark);
    if (b->doc->nnodes == DOCUMENT_NODES_MAX) {
        report_add(b->report, at, "", "more than %d values in one file: is this the right file?",
                   DOCUMENT_NODES_MAX);
        stop(b);
        return ERR_OK;
    }
    struct node *node = calloc(1, sizeof *node + text.n + 1);
    if (node == NULL) return ERR_NOMEM;
    node->kind = kind;
    node->at = at;
    node->n = text.n;
    if (text.n) memcpy(node->text, text.p, text.n);
    node->older = b->doc->newest;
    b->doc->newest = node;
    b->doc->nnodes++;
    attach(b, node);
    *out = node;
    return ERR_OK;
}

static void refuse_anchor_and_tag(struct builder *b, const yaml_event_t *event, const yaml_char_t *anchor,
                                  const yaml_char_t *tag)
{
    struct place at = place_between(&event->start_mark, &event->start_mark);
    char shown[TEXT_SHOWN_MAX];
    if (anchor)
        report_add(b->report, at, "", "anchors are not used here: remove \"&%s\"",
                   text_shown(span_str((const char *)anchor), shown));
    if (tag) report_add(b->report, at, "", "tags are not used here: remove what begins with \"!\"");
}

static enum err on_scalar(struct builder *b, const yaml_event_t *event)
{
    struct node *node = NULL;
    struct span text = {(const char *)event->data.scalar.value, event->data.scalar.length};
    refuse_anchor_and_tag(b, event, event->data.scalar.anchor, event->data.scalar.tag);
    enum err e = add_node(b, NODE_SCALAR, event, text, &node);
    if (node == NULL) return e;
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    bool in_block = b->open && !b->open->flow; /* inside brackets a missing bracket is more likely */
    if (node->plain && in_block && event->end_mark.line > event->start_mark.line) {
        node->faulty = true;
        b->folded_until = (unsigned)event->end_mark.line + 1;
        report_add(b->report, node->at, "", "this value goes on in the next line");
        report_expected(b->report, "is a ':' missing in line %u, or is line %u indented too far?",
                        node->at.line, node->at.line + 1);
    }
    return ERR_OK;
}

static enum err on_container_start(struct builder *b, const yaml_event_t *event, enum node_kind kind,
                                   bool flow)
{
    struct node *node = NULL;
    enum err e = add_node(b, kind, event, span_of(NULL, 0), &node);
    if (node == NULL || b->done) return e;
    node->at.width = 1;
    node->flow = flow;
    if (++b->depth > DOCUMENT_DEPTH_MAX) {
        report_add(b->report, node->at, "", "nested deeper than %d levels", DOCUMENT_DEPTH_MAX);
        stop(b);
    }
    b->open = node;
    return ERR_OK;
}

static enum err on_alias(struct builder *b, const yaml_event_t *event)
{
    struct node *node = NULL;
    char shown[TEXT_SHOWN_MAX];
    report_add(b->report, place_between(&event->start_mark, &event->end_mark), "",
               "aliases are not used here: write the value itself in place of \"*%s\"",
               text_shown(span_str((const char *)event->data.alias.anchor), shown));
    return add_node(b, NODE_REFUSED, event, span_of(NULL, 0), &node);
}

static void on_document_start(struct builder *b, const yaml_event_t *event)
{
    if (b->ndocuments++ == 0) return;
    report_add(b->report, place_between(&event->start_mark, &event->end_mark), "",
               "a second document starts here: one file holds one configuration");
    stop(b);
}

static enum err on_event(struct builder *b, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT: return on_scalar(b, event);
    case YAML_ALIAS_EVENT: return on_alias(b, event);
    case YAML_MAPPING_START_EVENT:
        refuse_anchor_and_tag(b, event, event->data.mapping_start.anchor, event->data.mapping_start.tag);
        return on_container_start(b, event, NODE_MAPPING,
                                  event->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE);
    case YAML_SEQUENCE_START_EVENT:
        refuse_anchor_and_tag(b, event, event->data.sequence_start.anchor, event->data.sequence_start.tag);
        return on_container_start(b, event, NODE_SEQUENCE,
                                  event->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        b->open = b->open->parent;
        b->depth--;
        return ERR_OK;
    case YAML_DOCUMENT_START_EVENT: on_document_start(b, event); return ERR_OK;
    case YAML_STREAM_END_EVENT: b->done = true; return ERR_OK;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT: return ERR_OK;
    }
    return ERR_OK;
}

/* libyaml's problem texts (0.2.x), and what to say instead to somebody who edits a configuration. */
static const struct {
    const char *theirs, *ours;
    bool at_context; /* report it where the construct began */
} syntax_texts[] = {
    {"mapping values are not allowed in this context",
     "a ':' where no key can stand: is the line indented too far, or does a text with ': ' need quotes?",
     false},
    {"did not find expected key", "this does not line up with the keys above it", false},
    {"did not find expected '-' indicator", "this does not line up with the \"- \" entries above it", false},
    {"block sequence entries are not allowed in this context",
     "a list cannot start here: put it on a line of its own", false},
    {"could not find expected ':'", "a ':' is missing after this key", true},
    {"found character that cannot start any token",
     "a value cannot start with this character: put it in quotes", false},
    {"did not find expected alphabetic or numeric character",
     "a value cannot start with '*' or '&': put it in quotes, as in \"*:8080\"", true},
    {"did not find expected node content", "the list or group before this is not finished", false},
    {"found unexpected end of stream", "this quote is never closed", true},
    {"found unknown escape character", "unknown escape in double quotes: write \"\\\\\" for a backslash",
     false},
    {"did not find expected ',' or ']'", "the list that starts here lacks a ',' or its ']'", true},
    {"did not find expected ',' or '}'", "the group that starts here lacks a ',' or its '}'", true},
    {"did not find expected <document start>", "text after the end of the configuration", false},
};

static void report_syntax(const struct builder *b, const yaml_parser_t *parser)
{
    const char *problem = parser->problem ? parser->problem : "not readable as YAML";
    const yaml_mark_t *mark = &parser->problem_mark;
    for (size_t i = 0; i < sizeof syntax_texts / sizeof syntax_texts[0]; i++) {
        if (strcmp(problem, syntax_texts[i].theirs) != 0) continue;
        problem = syntax_texts[i].ours;
        if (syntax_texts[i].at_context && parser->context) mark = &parser->context_mark;
        break;
    }
    struct place at = place_between(mark, mark);
    if (report_has_line(b->report, at.line) || at.line <= b->folded_until)
        return; /* the fault behind it is reported already */
    report_add(b->report, at, "", "%s", problem);
}

static enum err parse_events(struct builder *b, yaml_parser_t *parser)
{
    enum err e = ERR_OK;
    while (!b->done && !e) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) {
            if (parser->error == YAML_MEMORY_ERROR) return ERR_NOMEM;
            report_syntax(b, parser);
            stop(b);
            return ERR_OK;
        }
        e = on_event(b, &event);
        yaml_event_delete(&event);
    }
    return e;
}

enum err document_parse(struct span text, struct report *report, struct document *doc)
{
    *doc = (struct document){.complete = true};
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return ERR_NOMEM;
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text.p, text.n);
    struct builder b = {.doc = doc, .report = report};
    enum err e = parse_events(&b, &parser);
    yaml_parser_delete(&parser);
    return e;
}

void document_deinit(struct document *doc)
{
    struct node *node = doc->newest;
    while (node) {
        struct node *older = node->older;
        free(node);
        node = older;
    }
    *doc = (struct document){0};
}

const struct node *document_find_field(const struct document *doc, const void *field)
{
    for (const struct node *node = doc->newest; node; node = node->older)
        if (node->field == field) return node;
    return NULL;
}

/* Writes "environments.sandbox.hosts[1]". The way up is at most DOCUMENT_DEPTH_MAX steps. */
static void write_path(const struct node *node, struct outbuf *o)
{
    const struct node *way[DOCUMENT_DEPTH_MAX + 1];
    unsigned n = 0;
    for (; node->parent && n < DOCUMENT_DEPTH_MAX + 1; node = node->parent)
        way[n++] = node;
    for (unsigned i = n; i-- > 0;) {
        if (way[i]->key == NULL) {
            outbuf_fmt(o, "[%u]", way[i]->index);
            continue;
        }
        char shown[TEXT_SHOWN_MAX];
        if (o->n) outbuf_char(o, '.');
        outbuf_str(o, text_shown(node_text(way[i]->key), shown));
    }
}

static void reportv(struct report *report, const struct node *node, struct place at, const char *format,
                    va_list args) __attribute__((format(printf, 4, 0)));

static void reportv(struct report *report, const struct node *node, struct place at, const char *format,
                    va_list args)
{
    char path[160];
    struct outbuf o = outbuf_of(path, sizeof path - 1);
    write_path(node, &o);
    path[o.n] = 0;
    report_addv(report, at, path, format, args);
}

void node_report(struct report *report, const struct node *node, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    reportv(report, node, node->at, format, args);
    va_end(args);
}

void node_report_at(struct report *report, const struct node *node, struct place at, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    reportv(report, node, at, format, args);
    va_end(args);
}
