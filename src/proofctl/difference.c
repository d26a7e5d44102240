#include "proofctl/difference.h"

#include "proofctl/printable.h"

#include <stdlib.h>

enum { VALUE_CHARS_MAX = 80, ITEMS_SHOWN_MAX = 5 };

static void print_value(const json_t *value, FILE *out)
{
    char *text =
        json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII); /* ASCII can be cut anywhere */
    if (text)
        (void)fprintf(out, "%.*s", VALUE_CHARS_MAX, text); /* the caller looks at the state of the stream */
    free(text);
}

/* The audit may have been written by hand. */
static void print_text(const char *text, FILE *out)
{
    char safe[VALUE_CHARS_MAX + 1];
    (void)fputs(printable(text, safe, sizeof safe), out); /* the caller looks at the state of the stream */
}

/* Prints the strings of `list` that are not in `other`, each after `sign`. */
static void print_missing(const json_t *list, const json_t *other, char sign, FILE *out)
{
    size_t i, n = 0;
    json_t *item, *known = json_object();
    json_array_foreach((json_t *)other, i, item) if (json_is_string(item))(void)
        json_object_set_new(known, json_string_value(item), json_true()); /* NULL is refused */
    json_array_foreach((json_t *)list, i, item)
    {
        if (!json_is_string(item) || json_object_get(known, json_string_value(item))) continue;
        if (n++ >= ITEMS_SHOWN_MAX) continue;
        (void)fprintf(out, " %c", sign);
        print_text(json_string_value(item), out);
    }
    if (n > ITEMS_SHOWN_MAX) (void)fprintf(out, " and %zu more", n - ITEMS_SHOWN_MAX);
    json_decref(known);
}

void difference_print(const json_t *before, const json_t *after, FILE *out)
{
    const char *key, *separator = "";
    json_t *was;
    if (!json_is_object(after)) return;
    json_object_foreach((json_t *)before, key, was)
    {
        const json_t *is = json_object_get(after, key);
        (void)fputs(separator, out);
        print_text(key, out);
        (void)fputc(':', out);
        if (json_is_array(was) && json_is_array(is)) {
            print_missing(was, is, '-', out);
            print_missing(is, was, '+', out);
        } else {
            (void)fputc(' ', out);
            print_value(was, out);
            (void)fputs(" -> ", out);
            print_value(is, out);
        }
        separator = "; ";
    }
}
