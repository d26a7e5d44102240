#include "proofctl/printable.h"

#include <string.h>

const char *printable(const char *text, char *out, size_t cap)
{
    size_t n = strnlen(text ? text : "-", cap - 1);
    memcpy(out, text ? text : "-", n);
    out[n] = '\0';
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
    return out;
}
