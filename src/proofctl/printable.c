#include "proofctl/printable.h"

#include <stdbool.h>
#include <string.h>

static bool is_control(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f;
}

const char *printable(const char *text, char *out, size_t cap)
{
    size_t n = strnlen(text ? text : "-", cap - 1);
    memcpy(out, text ? text : "-", n);
    out[n] = '\0';
    for (char *c = out; *c; c++)
        if (is_control(*c)) *c = '?';
    return out;
}

void printable_put(const char *text, FILE *out)
{
    for (const char *c = text; *c; c++)
        (void)fputc(is_control(*c) && *c != '\n' ? '?' : *c, out); /* a failure shows in the state of `out` */
}
