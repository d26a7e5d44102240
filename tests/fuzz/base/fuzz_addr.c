/* addr_parse() against inet_pton(3): both accept the same texts, mean the same address, and what
 * addr_format() writes is read back as that address. */
#include "base/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* The C library stops at a NUL; a text with one inside is refused before it is asked. */
static bool library_parse(const uint8_t *bytes, size_t n, struct addr *out)
{
    char text[ADDR_TEXT_MAX + 8];
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (!span_to_cstr(span_of((const char *)bytes, n), text, sizeof text)) return false;
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
        *out = addr_from_sockaddr((struct sockaddr *)&in);
        return true;
    }
    if (inet_pton(AF_INET6, text, &in6.sin6_addr) != 1) return false;
    *out = addr_from_sockaddr((struct sockaddr *)&in6);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct addr ours, theirs, again;
    char text[ADDR_TEXT_MAX];
    bool is_ours = addr_parse(span_of((const char *)bytes, n), &ours) == ERR_OK;
    if (is_ours != library_parse(bytes, n, &theirs)) abort();
    if (!is_ours) return 0;
    if (!addr_eq(&ours, &theirs)) abort();
    if (addr_parse(span_of(text, addr_format(&ours, text)), &again) || !addr_eq(&ours, &again)) abort();
    return 0;
}
