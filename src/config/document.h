/* document.h - a YAML file as a tree of nodes that know where they stand.
 *
 * Built from libyaml's events, not by its own document loader, for three reasons: anchors are invisible
 * there, the depth cannot be bounded, and one syntax error leaves no document at all. Here the part before a
 * syntax error is kept, so that it is checked in the same run.
 *
 *   root (mapping) --first--> node "workers" --next--> node "limits" --next--> ...
 *                                                        `--first--> node "head" --next--> ...
 *
 * YAML is cut down to what a configuration needs: mappings, sequences, scalars. Anchors, aliases, tags,
 * several documents and keys that are not plain words are reported. Scalars are text: their meaning comes
 * from the schema.
 *
 * Limits: DOCUMENT_BYTES_MAX, DOCUMENT_NODES_MAX, DOCUMENT_DEPTH_MAX.
 * Thread: [any]; a document belongs to one thread.
 */
#ifndef CONFIG_DOCUMENT_H
#define CONFIG_DOCUMENT_H

#include "config/report.h"

enum {
    DOCUMENT_BYTES_MAX = 4 * 1024 * 1024,
    DOCUMENT_NODES_MAX = 20000,
    DOCUMENT_DEPTH_MAX = 12,
};

enum node_kind {
    NODE_SCALAR = 0,
    NODE_MAPPING,
    NODE_SEQUENCE,
    NODE_REFUSED, /* an alias: reported, its content is unknown */
};

struct node {
    enum node_kind kind;
    bool plain;        /* scalar without quotes */
    bool flow;         /* container in brackets or braces */
    bool faulty;       /* set by the loader: the value was reported */
    unsigned index;    /* in the parent, from 0 */
    struct place at;   /* of the value */
    const void *field; /* set by the loader: the field it was stored into; NULL = none */
    struct node *key;  /* in a mapping: its key */
    struct node *parent, *first, *last, *next;
    struct node *older; /* chain of all nodes, for freeing */
    size_t n;           /* bytes of text */
    char text[];        /* scalar: its text and a NUL; may contain other NULs */
};

struct document {
    struct node *root;   /* NULL when the file has no value */
    struct node *newest; /* all nodes; owned */
    unsigned nnodes;
    bool complete; /* false: reading stopped early (reported), what comes after is unknown */
};

/* Parses `text`, which text_check() has passed. Owns: the caller, until document_deinit(), whatever is
 * returned. Errors: ERR_NOMEM. Faults of the text are in the report. */
enum err document_parse(struct span text, struct report *report, struct document *doc);
void document_deinit(struct document *doc);

static inline struct span node_text(const struct node *node)
{
    return span_of(node->text, node->n);
}

/* The node that was stored into `field`, or NULL when the file does not set it. */
const struct node *document_find_field(const struct document *doc, const void *field);

/* Adds a finding about a node; the subject is its path ("environments.sandbox.hosts[1]"). */
void node_report(struct report *report, const struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, pointing at another place: the key, or a part of the value. */
void node_report_at(struct report *report, const struct node *node, struct place at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
