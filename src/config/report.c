#include "config/report.h"

#include "base/utf8.h"
#include "config/text.h"

#include <stdlib.h>

enum {
    EXCERPT_CHARS = 120, /* a longer line is shown in part */
    EXCERPT_LEAD = 60,   /* characters of it before the column in question */
};

struct finding {
    struct place at;
    unsigned number; /* order of discovery */
    char subject[160];
    char message[320];
    char expected[512];
};

struct report {
    const char *path; /* borrowed */
    struct span text; /* borrowed */
    unsigned count;   /* all findings; the first REPORT_MAX are kept */
    struct finding findings[REPORT_MAX];
};

struct report *report_create(const char *path, struct span text)
{
    struct report *r = calloc(1, sizeof *r);
    if (r == NULL) return NULL;
    r->path = path;
    r->text = text;
    return r;
}

void report_destroy(struct report *r)
{
    free(r);
}

void report_addv(struct report *r, struct place at, const char *subject, const char *format, va_list args)
{
    if (r->count < REPORT_MAX) {
        struct finding *f = &r->findings[r->count];
        f->at = at;
        f->number = r->count;
        (void)snprintf(f->subject, sizeof f->subject, "%s", subject); /* cut when long: it is for people */
        (void)vsnprintf(f->message, sizeof f->message, format, args); /* the same */
    }
    r->count++;
}

void report_add(struct report *r, struct place at, const char *subject, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report_addv(r, at, subject, format, args);
    va_end(args);
}

void report_expected(struct report *r, const char *format, ...)
{
    if (r->count == 0 || r->count > REPORT_MAX) return;
    struct finding *f = &r->findings[r->count - 1];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(f->expected, sizeof f->expected, format, args); /* cut when long */
    va_end(args);
}

unsigned report_count(const struct report *r)
{
    return r->count;
}

bool report_has_line(const struct report *r, unsigned line)
{
    for (unsigned i = 0; i < r->count && i < REPORT_MAX; i++)
        if (r->findings[i].at.line == line) return true;
    return false;
}

static int compare_findings(const void *a, const void *b)
{
    const struct finding *x = a, *y = b;
    if (x->at.line != y->at.line) return x->at.line < y->at.line ? -1 : 1;
    if (x->at.column != y->at.column) return x->at.column < y->at.column ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Writes characters [first, first + chars) of `s`, each as one column; returns how many were written. */
static unsigned print_safely(FILE *out, struct span s, unsigned first, unsigned chars)
{
    unsigned seen = 0, written = 0;
    for (size_t i = 0; i < s.n && written < chars; seen++) {
        uint32_t code;
        size_t length = utf8_decode(s.p + i, s.n - i, &code);
        bool is_printable = length != 0 && !code_is_control(code);
        if (length == 0) length = 1;
        if (seen >= first) {
            if (is_printable)
                (void)fwrite(s.p + i, 1, length, out); /* nobody to tell when the report cannot be written */
            else
                (void)fputc(s.p[i] == '\t' ? ' ' : '?', out); /* the same */
            written++;
        }
        i += length;
    }
    return written;
}

static void print_text(FILE *out, const char *text)
{
    (void)print_safely(out, span_str(text), 0, UINT32_MAX); /* the number of columns does not matter here */
}

/* The line and the caret, aligned by characters. */
static void print_excerpt(const struct report *r, const struct place *at, FILE *out)
{
    struct span line = text_line(r->text, at->line);
    if (line.n == 0 || at->width == 0) return;
    unsigned first = at->column > EXCERPT_CHARS ? at->column - EXCERPT_LEAD : 0;
    const char *lead = first ? "..." : "";
    fprintf(out, "%5u | %s", at->line, lead);
    unsigned shown = print_safely(out, line, first, EXCERPT_CHARS);
    unsigned before = at->column - 1 - first;
    fprintf(out, "\n      | %*s^", (int)(before + strlen(lead)), "");
    for (unsigned i = 1; i < at->width && before + i < shown; i++)
        fputc('~', out);
    fputc('\n', out);
}

static void print_finding(const struct report *r, const struct finding *f, FILE *out)
{
    print_text(out, r->path);
    if (f->at.line) fprintf(out, ":%u:%u", f->at.line, f->at.column);
    fprintf(out, ": error: ");
    print_text(out, f->subject);
    if (f->subject[0]) fprintf(out, ": ");
    print_text(out, f->message);
    fputc('\n', out);
    if (f->at.line) print_excerpt(r, &f->at, out);
    if (f->expected[0] == 0) return;
    fprintf(out, "      = ");
    print_text(out, f->expected);
    fputc('\n', out);
}

void report_print(struct report *r, FILE *out)
{
    if (r->count == 0) return;
    unsigned kept = r->count < REPORT_MAX ? r->count : REPORT_MAX;
    qsort(r->findings, kept, sizeof r->findings[0], compare_findings);
    for (unsigned i = 0; i < kept; i++)
        print_finding(r, &r->findings[i], out);
    print_text(out, r->path);
    fprintf(out, ": %u error%s", r->count, r->count == 1 ? "" : "s");
    if (kept < r->count) fprintf(out, ", the first %u are shown", kept);
    fputc('\n', out);
}
