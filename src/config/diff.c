#include "config/diff.h"

#include "base/json_out.h"
#include "config/schema.h"
#include "config/value.h"

enum {
    PATH_MAX_BYTES = 640, /* of a key in a list: its entry's first value is in it */
    /* A change in JSON with everything in it escaped. */
    OBJECT_BYTES_MAX = 6 * (PATH_MAX_BYTES + 2 * CONFIG_CHANGE_TEXT_MAX) + 64,
};

struct diff {
    config_change_fn fn;
    void *arg;
};

/* One value of each configuration; which of the first two counts depends on the key. */
struct bases {
    const void *started, *running, *next;
};

static const void *field_of(const struct schema_key *key, const void *base)
{
    return (const char *)base + key->offset;
}

static uint32_t count_of(const struct schema_key *key, const void *base)
{
    uint32_t n;
    memcpy(&n, (const char *)base + key->count_offset, sizeof n);
    return n;
}

static const void *element_of(const struct schema_key *list, const void *base, uint32_t i)
{
    return (const char *)field_of(list, base) + i * list->element_size;
}

static const void *before_of(const struct schema_key *key, const struct bases *b)
{
    return key->change == CHANGE_RESTART ? b->started : b->running;
}

/* --- values ---------------------------------------------------------------------------------------- */

static uint64_t number_of(const struct schema_key *key, const void *base)
{
    uint32_t narrow;
    uint64_t wide;
    if (key->size == sizeof wide) {
        memcpy(&wide, field_of(key, base), sizeof wide);
        return wide;
    }
    memcpy(&narrow, field_of(key, base), sizeof narrow);
    return narrow;
}

static bool strings_equal(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool values_equal(const struct schema_key *key, const void *a, const void *b)
{
    if (schema_is_text_list(key)) {
        const char *const *x = field_of(key, a), *const *y = field_of(key, b);
        uint32_t n = count_of(key, a);
        if (n != count_of(key, b)) return false;
        for (uint32_t i = 0; i < n; i++)
            if (!strings_equal(x[i], y[i])) return false;
        return true;
    }
    switch (key->type) {
    case SCHEMA_SECTION:
    case SCHEMA_BOOL: return *(const bool *)field_of(key, a) == *(const bool *)field_of(key, b);
    case SCHEMA_COUNT:
    case SCHEMA_SIZE:
    case SCHEMA_DURATION:
    case SCHEMA_ENUM: return number_of(key, a) == number_of(key, b);
    case SCHEMA_WORD:
    case SCHEMA_PATH:
    case SCHEMA_NAME:
        return strings_equal(*(char *const *)field_of(key, a), *(char *const *)field_of(key, b));
    case SCHEMA_LISTEN:
    case SCHEMA_CONNECT: return endpoint_equal(field_of(key, a), field_of(key, b));
    case SCHEMA_LIST:
    case SCHEMA_HOSTS:
    case SCHEMA_FIELD_NAMES:
    case SCHEMA_NETWORKS: break; /* above, and in compare_list() */
    }
    return true;
}

static void write_names(const struct schema_key *key, const void *base, struct outbuf *o)
{
    const char *const *names = field_of(key, base);
    outbuf_char(o, '[');
    for (uint32_t i = 0; i < count_of(key, base); i++)
        outbuf_fmt(o, "%s%s", i ? ", " : "", names[i]);
    outbuf_char(o, ']');
}

static void write_string(const char *text, struct outbuf *o)
{
    outbuf_str(o, text ? text : "none");
}

static void write_value(const struct schema_key *key, const void *base, struct outbuf *o)
{
    char text[VALUE_TEXT_MAX];
    const struct endpoint *e = field_of(key, base);
    uint64_t number;
    switch (key->type) {
    case SCHEMA_SECTION: outbuf_str(o, *(const bool *)field_of(key, base) ? "present" : "absent"); break;
    case SCHEMA_BOOL: outbuf_str(o, *(const bool *)field_of(key, base) ? "true" : "false"); break;
    case SCHEMA_COUNT:
        number = number_of(key, base);
        if (number == 0 && key->words)
            outbuf_str(o, key->words[0]);
        else
            outbuf_u64(o, number);
        break;
    case SCHEMA_SIZE: outbuf_str(o, value_size_text(number_of(key, base), text)); break;
    case SCHEMA_DURATION: outbuf_str(o, value_duration_text(number_of(key, base), text)); break;
    case SCHEMA_ENUM: outbuf_str(o, key->words[number_of(key, base)]); break;
    case SCHEMA_WORD:
    case SCHEMA_PATH:
    case SCHEMA_NAME: write_string(*(char *const *)field_of(key, base), o); break;
    case SCHEMA_LISTEN:
    case SCHEMA_CONNECT:
        if (e->kind == ENDPOINT_NONE)
            outbuf_str(o, key->words ? key->words[0] : "none");
        else
            outbuf_str(o, e->text);
        break;
    case SCHEMA_HOSTS:
    case SCHEMA_FIELD_NAMES:
    case SCHEMA_NETWORKS: write_names(key, base, o); break;
    case SCHEMA_LIST: break; /* its entries are compared one by one */
    }
}

static const char *value_text(const struct schema_key *key, const void *base,
                              char out[static CONFIG_CHANGE_TEXT_MAX])
{
    struct outbuf o = outbuf_of(out, CONFIG_CHANGE_TEXT_MAX - sizeof "...");
    write_value(key, base, &o);
    memcpy(out + o.n, o.overflow ? "..." : "", o.overflow ? sizeof "..." : 1);
    return out;
}

/* --- comparison ------------------------------------------------------------------------------------ */

static void compare_value(const struct diff *d, const struct schema_key *key, const char *path,
                          const struct bases *b)
{
    char from[CONFIG_CHANGE_TEXT_MAX], to[CONFIG_CHANGE_TEXT_MAX];
    const void *before = before_of(key, b);
    if (values_equal(key, before, b->next)) return;
    const struct config_change change = {path, value_text(key, before, from), value_text(key, b->next, to),
                                         key->change == CHANGE_RELOAD};
    d->fn(&change, d->arg);
}

/* The entry of list `a` that is entry `i` of list `b`, or -1: of those with the same first value the one with
 * as many before it. */
static int find_element(const struct schema_key *list, const void *a, const void *b, uint32_t i)
{
    const struct schema_key *first = schema_next(list, NULL);
    uint32_t same = 0;
    for (uint32_t j = 0; j < i; j++)
        same += values_equal(first, element_of(list, b, j), element_of(list, b, i));
    for (uint32_t j = 0; j < count_of(list, a); j++)
        if (values_equal(first, element_of(list, a, j), element_of(list, b, i)) && same-- == 0) return (int)j;
    return -1;
}

static void report_element(const struct diff *d, const struct schema_key *list, const void *element,
                           bool is_new)
{
    char text[CONFIG_CHANGE_TEXT_MAX];
    value_text(schema_next(list, NULL), element, text);
    const struct config_change change = {list->path, is_new ? NULL : text, is_new ? text : NULL,
                                         list->change == CHANGE_RELOAD};
    d->fn(&change, d->arg);
}

static void compare_element(const struct diff *d, const struct schema_key *list, const void *before,
                            const void *next)
{
    const struct bases b = {before, before, next};
    char text[CONFIG_CHANGE_TEXT_MAX], path[PATH_MAX_BYTES];
    const struct schema_key *key = schema_next(list, NULL);
    value_text(key, next, text);
    while ((key = schema_next(list, key)) != NULL) {
        (void)snprintf(path, sizeof path, "%s[%s].%s", list->path, text, schema_name(key)); /* fits */
        compare_value(d, key, path, &b);
    }
}

static void compare_list(const struct diff *d, const struct schema_key *list, const struct bases *b)
{
    const void *before = before_of(list, b);
    int last = -1;
    bool reordered = false;
    for (uint32_t i = 0; i < count_of(list, before); i++)
        if (find_element(list, b->next, before, i) < 0)
            report_element(d, list, element_of(list, before, i), false);
    for (uint32_t i = 0; i < count_of(list, b->next); i++) {
        const void *element = element_of(list, b->next, i);
        int j = find_element(list, before, b->next, i);
        if (j < 0) {
            report_element(d, list, element, true);
            continue;
        }
        reordered = reordered || j < last;
        last = j;
        compare_element(d, list, element_of(list, before, (uint32_t)j), element);
    }
    if (!reordered) return;
    const struct config_change change = {list->path, "another order", "this order",
                                         list->change == CHANGE_RELOAD};
    d->fn(&change, d->arg);
}

static void compare_section(const struct diff *d, const struct schema_key *section, const struct bases *b)
{
    for (const struct schema_key *key = NULL; (key = schema_next(section, key)) != NULL;) {
        if (key->type == SCHEMA_LIST) {
            compare_list(d, key, b);
            continue;
        }
        if (key->size) compare_value(d, key, key->path, b);
        if (key->type == SCHEMA_SECTION) compare_section(d, key, b);
    }
}

void config_diff(const struct config *started, const struct config *running, const struct config *next,
                 config_change_fn fn, void *arg)
{
    const struct diff d = {fn, arg};
    compare_section(&d, NULL, &(struct bases){started, running, next});
}

int config_kept_listener(const struct config *before, const struct config *next, uint32_t i)
{
    return find_element(schema_find(NULL, SPAN("listeners")), before, next, i);
}

/* --- plan ------------------------------------------------------------------------------------------ */

struct plan {
    FILE *out;
    unsigned n;
};

static void print_line(const struct config_change *c, void *arg)
{
    struct plan *p = arg;
    p->n++;
    if (!c->before)
        fprintf(p->out, "%s: + %s", c->path, c->after);
    else if (!c->after)
        fprintf(p->out, "%s: - %s", c->path, c->before);
    else
        fprintf(p->out, "%s: %s -> %s", c->path, c->before, c->after);
    fputs(c->live ? "\n" : " (needs a restart)\n", p->out);
}

void config_plan_text(const struct config *started, const struct config *running, const struct config *next,
                      FILE *out)
{
    struct plan p = {.out = out};
    config_diff(started, running, next, print_line, &p);
    if (p.n == 0) fputs("no changes\n", out);
}

static void print_object(const struct config_change *c, void *arg)
{
    struct plan *p = arg;
    char text[OBJECT_BYTES_MAX];
    struct outbuf o = outbuf_of(text, sizeof text);
    struct json_out j = json_out_of(&o);
    json_out_object(&j, NULL);
    json_out_text(&j, "key", c->path);
    json_out_text(&j, "before", c->before);
    json_out_text(&j, "after", c->after);
    json_out_text(&j, "change", c->live ? "live" : "restart");
    json_out_end_object(&j);
    if (p->n++) fputc(',', p->out);
    (void)fwrite(o.p, 1, o.n, p->out); /* nobody to tell when the plan cannot be written */
}

void config_plan_json(const struct config *started, const struct config *running, const struct config *next,
                      FILE *out)
{
    struct plan p = {.out = out};
    fputc('[', out);
    config_diff(started, running, next, print_object, &p);
    fputc(']', out);
}
