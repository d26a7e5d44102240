#include "config/text.h"

#include "base/utf8.h"
#include "config/report.h"

bool code_is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code <= 0x9f);
}

bool text_is_clean(struct span s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t code;
        size_t length = utf8_decode(s.p + i, s.n - i, &code);
        if (length == 0 || code_is_control(code)) return false;
        i += length;
    }
    return true;
}

/* YAML 1.1 takes these for line ends; no editor does. */
static bool is_exotic_line_end(uint32_t code)
{
    return code == 0x85 || code == 0x2028 || code == 0x2029;
}

/* The first character of `line` that cannot stand, if any, is reported. False when the bytes are not UTF-8.
 */
static bool check_line(struct span line, unsigned number, struct report *report)
{
    struct place at = {.line = number, .column = 1, .width = 1};
    bool indenting = true;
    for (size_t i = 0; i < line.n; at.column++) {
        uint32_t code;
        size_t length = utf8_decode(line.p + i, line.n - i, &code);
        if (length == 0) {
            report_add(report, at, "", "byte 0x%02x is not UTF-8: save the file as UTF-8",
                       (unsigned char)line.p[i]);
            return false;
        }
        if (is_exotic_line_end(code) || (code_is_control(code) && code != '\t')) {
            report_add(report, at, "", "control character U+%04X: remove it", (unsigned)code);
            return false;
        }
        if (code == '\t' && indenting) {
            report_add(report, at, "", "a tab in the indentation: YAML wants spaces here");
            return true;
        }
        indenting = indenting && code == ' ';
        i += length;
    }
    return true;
}

bool text_check(struct span text, struct report *report)
{
    bool is_utf16 = span_starts(text, SPAN("\xff\xfe")) || span_starts(text, SPAN("\xfe\xff"));
    if (is_utf16 || (text.n && memchr(text.p, 0, text.n))) {
        report_add(report, (struct place){.line = 1, .column = 1}, "",
                   is_utf16 ? "this is UTF-16: save the file as UTF-8"
                            : "this is not a text file: it has NUL bytes");
        return false;
    }
    bool is_readable = true;
    unsigned number = 1;
    for (size_t at = 0; at < text.n; number++) {
        const char *end = memchr(text.p + at, '\n', text.n - at);
        size_t length = end ? (size_t)(end - text.p) - at : text.n - at;
        struct span line = {text.p + at, length};
        if (end && line.n && line.p[line.n - 1] == '\r') line.n--;
        is_readable = check_line(line, number, report) && is_readable;
        at += length + 1;
    }
    return is_readable;
}

struct span text_line(struct span text, unsigned line)
{
    const char *p = text.p, *end = text.p + text.n;
    for (unsigned i = 1; i < line && p < end; i++) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        p = lf ? lf + 1 : end;
    }
    if (p == end) return span_of(p, 0);
    const char *lf = memchr(p, '\n', (size_t)(end - p));
    struct span found = {p, (size_t)((lf ? lf : end) - p)};
    if (found.n && found.p[found.n - 1] == '\r') found.n--;
    return found;
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

unsigned text_length(struct span s)
{
    unsigned n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += !is_continuation(s.p[i]);
    return n;
}

size_t text_offset(struct span s, unsigned index)
{
    size_t i = 0;
    for (unsigned n = 0; i < s.n; i++)
        if (!is_continuation(s.p[i]) && n++ == index) break;
    return i;
}

const char *text_shown(struct span s, char out[static TEXT_SHOWN_MAX])
{
    size_t room = TEXT_SHOWN_MAX - sizeof "...";
    size_t n = s.n;
    if (n > room) {
        n = room;
        while (n && is_continuation(s.p[n]))
            n--; /* not inside a character */
    }
    if (n) memcpy(out, s.p, n);
    memcpy(out + n, n < s.n ? "..." : "", n < s.n ? sizeof "..." : 1);
    return out;
}
