#include "config/config.h"

#include "base/cpus.h"
#include "base/fd.h"
#include "config/check.h"
#include "config/document.h"
#include "config/schema.h"
#include "config/substitute.h"
#include "config/text.h"
#include "config/value.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    VALUE_BYTES_MAX = 4096, /* of one scalar after substitution */
    SECTION_KEYS_MAX = 32,  /* keys of the largest section of the schema: test_schema */
};

struct loader {
    struct config *config;
    struct report *report;
    struct document doc;
    struct span text;   /* the file */
    struct span folder; /* where the file is, without the last '/'; empty = the current one */
};

static enum err walk_section(struct loader *l, const struct schema_key *section, void *base,
                             const struct node *node);

/* Adds to the last finding which values are allowed. */
static void report_allowed(struct loader *l, const struct schema_key *key)
{
    char text[320];
    value_expected(key, text, sizeof text);
    if (key->required || schema_is_container(key))
        report_expected(l->report, "expected %s", text);
    else
        report_expected(l->report, "expected %s (default %s)", text, key->value);
}

/* ---- single values ---- */

/* The place in the file of byte `offset` of a scalar; that of the whole scalar where escapes or folding have
 * moved its bytes. */
static struct place place_inside(const struct loader *l, const struct node *node, size_t offset)
{
    struct span line = text_line(l->text, node->at.line);
    unsigned quote = node->plain ? 0 : 1;
    size_t start = text_offset(line, node->at.column - 1 + quote);
    bool is_verbatim = start + offset < line.n && memcmp(line.p + start, node->text, offset + 1) == 0;
    if (!is_verbatim) return node->at;
    unsigned before = quote + text_length(span_of(node->text, offset));
    unsigned width = node->at.width > before + quote ? node->at.width - before - quote : 1;
    return (struct place){node->at.line, node->at.column + before, width};
}

/* The value of a scalar with its references replaced. False when that failed (reported). */
static bool scalar_text(struct loader *l, struct node *node, struct outbuf *o)
{
    struct errmsg why;
    if (!text_is_clean(node_text(node))) {
        node_report(l->report, node, "control characters cannot stand in a value (a line break is one)");
    } else if (substitute(node_text(node), o, &why)) {
        node_report_at(l->report, node, place_inside(l, node, why.column - 1), "%s", why.text);
    } else {
        return true;
    }
    node->faulty = true;
    return false;
}

static void report_value(struct loader *l, const struct schema_key *key, const struct node *node,
                         struct span text, const char *why)
{
    char shown[TEXT_SHOWN_MAX];
    bool is_substituted = !span_eq(text, node_text(node));
    node_report(l->report, node, "\"%s\"%s: %s", text_shown(text, shown),
                is_substituted ? " (after substitution)" : "", why);
    if (!schema_is_text_list(key)) report_allowed(l, key); /* for an entry of a list `why` is enough */
}

/* Stores one scalar; into the list when `key` is a list of names. */
static enum err load_scalar(struct loader *l, const struct schema_key *key, void *base, struct node *node)
{
    char bytes[VALUE_BYTES_MAX];
    struct outbuf o = outbuf_of(bytes, sizeof bytes);
    struct errmsg why;
    if (node->faulty) return ERR_OK;
    if (node->plain && node->n == 0) {
        node->faulty = true;
        node_report(l->report, node, "the value is missing");
        report_allowed(l, key);
        return ERR_OK;
    }
    if (!scalar_text(l, node, &o)) return ERR_OK;
    struct span text = {bytes, o.n};
    enum err e = schema_is_text_list(key) ? value_append(key, text, base, &node->field, &why)
                                          : value_store(key, text, l->folder, base, &why);
    if (e == ERR_NOMEM || e == ERR_OK) return e;
    node->faulty = true;
    report_value(l, key, node, text, why.text);
    return ERR_OK;
}

static void report_kind(struct loader *l, const struct schema_key *key, struct node *node)
{
    static const char *const kinds[] = {"a single value", "a group of keys", "a list", ""};
    bool is_reported = node->faulty || node->kind == NODE_REFUSED; /* when it was read */
    node->faulty = true;
    if (is_reported) return;
    node_report(l->report, node, "%s cannot stand here", kinds[node->kind]);
    report_allowed(l, key);
}

static enum err load_names(struct loader *l, const struct schema_key *key, void *base, struct node *list)
{
    if (list->kind != NODE_SEQUENCE) {
        report_kind(l, key, list);
        return ERR_OK;
    }
    if (list->first == NULL && key->required) {
        list->faulty = true;
        node_report(l->report, list, "the list is empty");
        report_allowed(l, key);
    }
    for (struct node *item = list->first; item; item = item->next) {
        if (item->kind != NODE_SCALAR) {
            report_kind(l, key, item);
            continue;
        }
        enum err e = load_scalar(l, key, base, item);
        if (e) return e;
    }
    return ERR_OK;
}

/* ---- sections ---- */

static enum err store_defaults(const struct schema_key *section, void *base)
{
    for (const struct schema_key *key = NULL; (key = schema_next(section, key)) != NULL;) {
        struct errmsg why;
        enum err e = ERR_OK;
        if (key->type == SCHEMA_SECTION)
            e = store_defaults(key, base);
        else if (key->type != SCHEMA_LIST && !schema_is_text_list(key) && !key->required)
            e = value_store(key, span_str(key->value), span_of(NULL, 0), base, &why);
        if (e) return e;
    }
    return ERR_OK;
}

static enum err walk_list(struct loader *l, const struct schema_key *key, void *base, struct node *list)
{
    if (list->kind != NODE_SEQUENCE) {
        report_kind(l, key, list);
        return ERR_OK;
    }
    if (list->first == NULL) {
        node_report(l->report, list, "the list is empty");
        report_allowed(l, key);
    }
    uint32_t *count = (uint32_t *)(void *)((char *)base + key->count_offset);
    size_t count_max = key->size / key->element_size;
    for (struct node *item = list->first; item; item = item->next) {
        if (item->kind != NODE_MAPPING) {
            report_kind(l, key, item);
            continue;
        }
        if (*count == count_max) {
            node_report(l->report, item, "one more than the %zu that this list may have", count_max);
            return ERR_OK;
        }
        char *element = (char *)value_field(key, base) + *count * key->element_size;
        (*count)++; /* from here on its strings are released with it */
        enum err e = store_defaults(key, element);
        if (!e) e = walk_section(l, key, element, item);
        if (e) return e;
    }
    return ERR_OK;
}

static enum err walk_value(struct loader *l, const struct schema_key *key, void *base, struct node *node)
{
    /* A section whose keys are all commented out is an empty one. */
    bool is_empty = node->kind == NODE_SCALAR && node->plain && node->n == 0;
    if (key->type == SCHEMA_LIST) return walk_list(l, key, base, node);
    if (schema_is_text_list(key)) return load_names(l, key, base, node);
    if (key->type == SCHEMA_SECTION && (node->kind == NODE_MAPPING || is_empty)) {
        if (key->size) *(bool *)value_field(key, base) = true;
        return walk_section(l, key, base, node);
    }
    if (key->type == SCHEMA_SECTION || node->kind != NODE_SCALAR) {
        report_kind(l, key, node);
        return ERR_OK;
    }
    node->field = value_field(key, base);
    return load_scalar(l, key, base, node);
}

static void report_unknown(struct loader *l, const struct schema_key *section, const struct node *node)
{
    const char *nearest = schema_suggest(section, node_text(node->key));
    if (nearest) {
        node_report_at(l->report, node, node->key->at, "unknown key; did you mean \"%s\"?", nearest);
        return;
    }
    node_report_at(l->report, node, node->key->at, "unknown key");
    char names[480];
    struct outbuf o = outbuf_of(names, sizeof names - 1);
    for (const struct schema_key *key = NULL; (key = schema_next(section, key)) != NULL;)
        outbuf_fmt(&o, "%s%s", o.n ? ", " : "", schema_name(key));
    names[o.n] = 0;
    report_expected(l->report, "the keys here are %s%s", names, o.overflow ? ", ..." : "");
}

static void report_missing(struct loader *l, const struct schema_key *section, const struct schema_key *key,
                           const struct node *node)
{
    struct place at = {.line = 1, .column = 1};
    if (node->parent) at = node->key ? node->key->at : node->at;
    const char *name = section ? schema_name(key) : key->path;
    report_add(l->report, at, section ? section->path : "", "the key \"%s\" is missing", name);
    report_expected(l->report, "write for example %s: %s", name, key->value);
}

/* True unless the key depends on another one (only_with) that has a different word. */
static bool is_applicable(const struct schema_key *section, const struct schema_key *key, void *base)
{
    const struct schema_key *choice = schema_next(section, NULL);
    if (key->only_with == NULL) return true;
    while (choice->type != SCHEMA_ENUM)
        choice = schema_next(section, choice);
    unsigned word;
    memcpy(&word, value_field(choice, base), sizeof word);
    return strcmp(choice->words[word], key->only_with) == 0;
}

/* Reports the required keys that are missing; nothing when the file could be read in part only. */
static void check_required(struct loader *l, const struct schema_key *section, void *base,
                           const struct node *node, const struct node *const *seen)
{
    if (!l->doc.complete) return;
    unsigned i = 0;
    for (const struct schema_key *key = NULL; (key = schema_next(section, key)) != NULL; i++)
        if (key->required && seen[i] == NULL && is_applicable(section, key, base))
            report_missing(l, section, key, node);
}

/* Walks one mapping (or nothing, for an empty section). The recursion is as deep as the schema, not as the
 * input. */
static enum err walk_section(struct loader *l, const struct schema_key *section, void *base,
                             const struct node *node)
{
    const struct node *seen[SECTION_KEYS_MAX] = {0};
    for (struct node *child = node->first; child; child = child->next) {
        unsigned i = 0;
        const struct schema_key *key = schema_next(section, NULL);
        while (key && !span_eq(span_str(schema_name(key)), node_text(child->key))) {
            key = schema_next(section, key);
            i++;
        }
        if (key == NULL) {
            report_unknown(l, section, child);
        } else if (seen[i]) {
            node_report_at(l->report, child, child->key->at, "this key is in line %u already",
                           seen[i]->key->at.line);
        } else {
            seen[i] = child;
            enum err e = walk_value(l, key, base, child);
            if (e) return e;
        }
    }
    check_required(l, section, base, node, seen);
    return ERR_OK;
}

/* ---- the whole file ---- */

/* Reports `environments` without any; a wrong name below it has been reported as an unknown key. */
static void check_environments(struct loader *l)
{
    for (const struct node *node = l->doc.root->first; node && l->doc.complete; node = node->next) {
        if (!span_eq(node_text(node->key), SPAN("environments")) || node->faulty || node->first) continue;
        node_report(l->report, node, "there is no environment");
        report_expected(l->report, "write production: or sandbox: below it, each with hosts: and upstream:");
    }
}

static enum err walk_root(struct loader *l)
{
    const struct node *root = l->doc.root;
    bool is_empty = root == NULL || (root->kind == NODE_SCALAR && root->plain && root->n == 0);
    if (is_empty || root->kind != NODE_MAPPING) {
        if (!l->doc.complete) return ERR_OK;
        report_add(l->report, is_empty ? (struct place){0} : root->at, "",
                   is_empty ? "the file is empty"
                            : "a configuration begins with a key such as \"listeners:\"");
        return ERR_OK;
    }
    enum err e = walk_section(l, NULL, l->config, root);
    if (e) return e;
    check_environments(l);
    config_check(l->config, &l->doc, l->report);
    return ERR_OK;
}

static enum err load_document(struct loader *l)
{
    if (l->text.n > DOCUMENT_BYTES_MAX) {
        report_add(l->report, (struct place){0}, "",
                   "the file is larger than 4 MiB: is this the right file?");
        return ERR_OK;
    }
    if (!text_check(l->text, l->report)) return ERR_OK;
    enum err e = document_parse(l->text, l->report, &l->doc);
    if (!e) e = walk_root(l);
    return e;
}

/* Cannot fail: the texts were parsed when they were checked. */
static void parse_networks(struct config_listener *listener)
{
    struct errmsg why;
    for (uint32_t i = 0; i < listener->ntrusted; i++)
        (void)cidr_parse(span_str(listener->trusted_proxies[i]), &cidr_rules_default, &listener->trusted[i],
                         &why);
}

/* Fills in what is derived from the values of the file. */
static void complete(struct config *c)
{
    if (c->workers == 0) c->workers = cpus_available();
    if (c->workers > CONFIG_WORKERS_MAX) c->workers = CONFIG_WORKERS_MAX;
    for (uint32_t i = 0; i < c->fields.nalias_allowed; i++)
        c->fields.alias_allowed_spans[i] = span_str(c->fields.alias_allowed[i]);
    for (uint32_t i = 0; i < c->nlisteners; i++)
        parse_networks(&c->listeners[i]);
}

static struct span folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) return span_of("", 0);
    return slash == path ? SPAN("/.") : span_of(path, (size_t)(slash - path));
}

/* Reads as much as can be read; every fault goes to the report. Errors: ERR_NOMEM. */
static enum err load(struct loader *l, const char *path, struct span text)
{
    *l = (struct loader){.text = text, .folder = folder_of(path)};
    if (span_starts(l->text, SPAN("\xef\xbb\xbf")))
        l->text = span_of(text.p + 3, text.n - 3); /* byte order mark */
    enum err e = ERR_NOMEM;
    l->config = calloc(1, sizeof *l->config);
    l->report = report_create(path, l->text);
    if (l->config) {
        atomic_init(&l->config->refs, 1);
        l->config->path = strdup(path);
    }
    if (l->report && l->config && l->config->path) e = config_digest(text, l->config->digest);
    if (!e) e = store_defaults(NULL, l->config);
    return e ? e : load_document(l);
}

static void unload(struct loader *l, bool with_config)
{
    document_deinit(&l->doc);
    report_destroy(l->report);
    if (with_config) config_unref(l->config);
}

enum err config_load_text(const char *path, struct span text, struct config **out, FILE *report)
{
    struct loader l;
    enum err e = load(&l, path, text);
    if (!e && report_count(l.report)) e = ERR_PARSE;
    if (e == ERR_PARSE) report_print(l.report, report);
    if (e == ERR_NOMEM) fprintf(report, "%s: error: out of memory\n", path);
    unload(&l, e != ERR_OK);
    if (e) return e;
    complete(l.config);
    *out = l.config;
    return ERR_OK;
}

/* -1 with errno, or with `*why`. */
static int open_to_read(const char *path, bool may_wait, const char **why)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | (may_wait ? 0 : O_NONBLOCK));
    if (fd < 0 || may_wait || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))) return fd;
    (void)close(fd); /* nothing was read */
    *why = "it is no regular file";
    return -1;
}

enum err config_read(const char *path, bool may_wait, char **bytes, size_t *n, FILE *report)
{
    const char *why = NULL;
    char *buffer = malloc(DOCUMENT_BYTES_MAX + 1);
    if (buffer == NULL) {
        fprintf(report, "%s: error: out of memory\n", path);
        return ERR_NOMEM;
    }
    int fd = open_to_read(path, may_wait, &why);
    ssize_t got = fd < 0 ? -1 : fd_read_all(fd, buffer, DOCUMENT_BYTES_MAX + 1);
    if (got < 0) fprintf(report, "%s: error: cannot be read: %s\n", path, why ? why : strerror(errno));
    if (fd >= 0) (void)close(fd); /* only read from */
    if (got < 0) {
        free(buffer);
        return ERR_IO;
    }
    *bytes = buffer;
    *n = (size_t)got;
    return ERR_OK;
}

enum err config_load(const char *path, struct config **out, FILE *report)
{
    char *bytes;
    size_t n;
    enum err e = config_read(path, true, &bytes, &n, report);
    if (e) return e;
    e = config_load_text(path, span_of(bytes, n), out, report);
    free(bytes);
    return e;
}

enum err config_peek_control_socket(const char *path, char *out, size_t cap)
{
    struct loader l;
    char *bytes = NULL;
    size_t n;
    FILE *unwanted = fopen("/dev/null", "we");
    if (unwanted == NULL) return ERR_IO;
    enum err e = config_read(path, true, &bytes, &n, unwanted);
    (void)fclose(unwanted); /* nothing of it is needed */
    if (e) return e;
    e = load(&l, path, span_of(bytes, n));
    if (e == ERR_OK) {
        const char *value = l.config->admin.control_socket;
        if (!span_to_cstr(span_str(value ? value : ""), out, cap)) e = ERR_RANGE;
    }
    unload(&l, true);
    free(bytes);
    return e;
}
