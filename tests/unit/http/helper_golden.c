#include "helper_golden.h"

#include <stdio.h>
#include <stdlib.h>

struct reader {
    const char *path;
    unsigned line;
    char *text; /* whole file, NUL-terminated */
    char *at;
    char heading[GOLDEN_NAME_MAX / 2];
};

static _Noreturn void fault(const struct reader *r, const char *what)
{
    fprintf(stderr, "%s:%u: %s\n", r->path, r->line, what);
    exit(2);
}

static void file_read(struct reader *r)
{
    FILE *f = fopen(r->path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) fault(r, "cannot be read");
    long size = ftell(f);
    r->text = size < 0 ? NULL : malloc((size_t)size + 1);
    if (!r->text || fseek(f, 0, SEEK_SET) || fread(r->text, 1, (size_t)size, f) != (size_t)size)
        fault(r, "cannot be read");
    r->text[size] = '\0';
    r->at = r->text;
    fclose(f);
}

/* The next line without its LF, NUL-terminated in place; NULL at the end. */
static char *line_next(struct reader *r)
{
    if (*r->at == '\0') return NULL;
    char *line = r->at, *end = strchr(line, '\n');
    if (!end) fault(r, "the last line does not end");
    *end = '\0';
    r->at = end + 1;
    r->line++;
    return line;
}

static void bytes_add(char **bytes, size_t *n, char c)
{
    *bytes = realloc(*bytes, *n + 2);
    if (!*bytes) abort();
    (*bytes)[(*n)++] = c;
    (*bytes)[*n] = '\0';
}

/* One line of an input block: escapes resolved, CRLF added unless the line ends with a lone backslash. */
static void input_line(struct reader *r, const char *line, struct golden_case *c)
{
    for (; *line; line++) {
        char byte = *line, hex[3] = "";
        if (byte == '\\') {
            switch (*++line) {
            case '\0': return;
            case 'r': byte = '\r'; break;
            case 'n': byte = '\n'; break;
            case 't': byte = '\t'; break;
            case '0': byte = '\0'; break;
            case '\\': break;
            case 'x':
                if (!line[1] || !line[2]) fault(r, "\\x needs two digits");
                memcpy(hex, line + 1, 2);
                byte = (char)strtol(hex, NULL, 16);
                line += 2;
                break;
            default: fault(r, "unknown escape");
            }
        }
        bytes_add(&c->bytes, &c->nbytes, byte);
    }
    bytes_add(&c->bytes, &c->nbytes, '\r');
    bytes_add(&c->bytes, &c->nbytes, '\n');
}

static void input_block(struct reader *r, struct golden_case *c)
{
    for (char *line; (line = line_next(r)) && strcmp(line, "```") != 0;)
        input_line(r, line, c);
}

static void trace_block(struct reader *r, struct golden_case *c)
{
    size_t n = 0;
    for (char *line; (line = line_next(r)) && strcmp(line, "```") != 0;) {
        for (; *line; line++)
            bytes_add(&c->trace, &n, *line);
        bytes_add(&c->trace, &n, '\n');
    }
    if (n == 0) fault(r, "an empty trace");
}

/* One `key=value` of the words behind "request" or "response". */
static void option_apply(struct reader *r, struct golden_case *c, char *word)
{
    struct trace_options *o = &c->options;
    char *value = strchr(word, '=');
    if (!value) fault(r, "an option is key=value");
    *value++ = '\0';
    uint64_t number = strtoull(value, NULL, 10);
    if (strcmp(word, "to") == 0) {
        for (enum http_method m = METHOD_NONE; m < METHOD_COUNT; m++)
            if (span_eq(span_str(value), method_name(m))) o->request_method = m;
    } else if (strcmp(word, "fields-max") == 0) {
        o->head.fields_max = (uint32_t)number;
    } else if (strcmp(word, "target-max") == 0) {
        o->head.target_bytes_max = (uint32_t)number;
    } else if (strcmp(word, "alias") == 0) {
        o->head.alias = *value == 'r' ? ALIAS_REJECT : *value == 'a' ? ALIAS_ALLOW : ALIAS_DROP;
    } else if (strcmp(word, "allowed") == 0 && o->head.nalias_allowed < GOLDEN_ALIASES_MAX) {
        char *copy = strdup(value);
        if (!copy) abort();
        c->alias_allowed[o->head.nalias_allowed++] = span_str(copy);
    } else if (strcmp(word, "proxy") == 0) {
        o->has_proxy_header = *value == 'y';
    } else if (strcmp(word, "trusted") == 0 && o->ntrusted < TRACE_TRUSTED_MAX) {
        if (addr_parse(span_str(value), &o->trusted[o->ntrusted++])) fault(r, "no address");
    } else if (strcmp(word, "body-max") == 0) {
        o->body.body_bytes_max = number;
    } else if (strcmp(word, "ext-max") == 0) {
        o->body.chunk_ext_bytes_max = (uint32_t)number;
    } else if (strcmp(word, "trailer-max") == 0) {
        o->body.trailer_bytes_max = (uint32_t)number;
    } else {
        fault(r, "unknown option");
    }
}

static void case_begin(struct reader *r, struct golden_case *c, char *info)
{
    const char *file = strrchr(r->path, '/');
    *c = (struct golden_case){.options = trace_options_default()};
    snprintf(c->name, sizeof c->name, "%s: %s", file ? file + 1 : r->path, r->heading);
    c->options.is_response = strcmp(strsep(&info, " "), "response") == 0;
    for (char *word; (word = strsep(&info, " "));)
        option_apply(r, c, word);
}

void golden_load(const char *path, struct golden_case **cases, size_t *n)
{
    struct reader r = {.path = path};
    file_read(&r);
    bool has_input = false;
    for (char *line; (line = line_next(&r));) {
        if (strncmp(line, "## ", 3) == 0) {
            snprintf(r.heading, sizeof r.heading, "%s", line + 3);
        } else if (strncmp(line, "```request", 10) == 0 || strncmp(line, "```response", 11) == 0) {
            if (has_input) fault(&r, "the block before has no trace");
            *cases = realloc(*cases, (*n + 1) * sizeof **cases);
            if (!*cases) abort();
            case_begin(&r, &(*cases)[*n], line + 3);
            input_block(&r, &(*cases)[*n]);
            has_input = true;
        } else if (strcmp(line, "```trace") == 0) {
            if (!has_input) fault(&r, "a trace without input");
            trace_block(&r, &(*cases)[(*n)++]);
            has_input = false;
        }
    }
    if (has_input) fault(&r, "the last block has no trace");
    free(r.text);
}

void golden_free(struct golden_case *cases, size_t n)
{
    for (struct golden_case *c = cases; c < cases + n; c++) {
        for (uint32_t i = 0; i < c->options.head.nalias_allowed; i++)
            free((char *)c->alias_allowed[i].p);
        free(c->bytes);
        free(c->trace);
    }
    free(cases);
}
