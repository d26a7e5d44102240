/* Is this llhttp strict?  Exit code 0 = every hostile input below was refused, 1 = at least one was accepted.
 *
 * llhttp 8 decides strictness when it is compiled, and its header leaves it off; a loose build turns each of
 * these inputs into a request smuggling hole. The same program runs when CMake configures and as a test. */
#include <llhttp.h>

#include <stdio.h>
#include <string.h>

struct probe {
    const char *what;
    const char *bytes;
};

static const struct probe probes[] = {
    {"CR without LF ends the head", "GET / HTTP/1.1\r\nHost: a\r\n\rX"},
    {"CR without LF after a field name",
     "GET / HTTP/1.1\r\nHost: a\r\nx:\rTransfer-Encoding: chunked\r\n\r\n"},
    {"byte above 0x7f in the target", "GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n"},
    {"CR without LF after a chunk size",
     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\rXhello\r\n0\r\n\r\n"},
};

static const char plain[] =
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

static int is_refused(const char *bytes)
{
    llhttp_settings_t settings;
    llhttp_t parser;

    llhttp_settings_init(&settings);
    llhttp_init(&parser, HTTP_REQUEST, &settings);
    return llhttp_execute(&parser, bytes, strlen(bytes)) != HPE_OK;
}

int main(void)
{
    int failed = 0;

    for (size_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++) {
        if (!is_refused(probes[i].bytes)) {
            fprintf(stderr, "accepted: %s\n", probes[i].what);
            failed = 1;
        }
    }
    if (is_refused(plain)) {
        fprintf(stderr, "refused: a plain chunked request\n");
        failed = 1;
    }
    return failed;
}
