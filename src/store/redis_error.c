#include "store/redis_error.h"

#include <stdio.h>

static const struct known {
    struct span code;
    enum err e;
    const char *text;
} known_errors[] = {
    {SPAN("NOAUTH"), ERR_REFUSED, "the server asks for a password (NOAUTH)"},
    {SPAN("WRONGPASS"), ERR_REFUSED, "the user is unknown or disabled, or the password is wrong (WRONGPASS)"},
    {SPAN("NOPERM"), ERR_REFUSED, "the rules (ACL) of the user do not allow it (NOPERM)"},
    {SPAN("DENIED"), ERR_REFUSED, "the server takes only local clients: protected mode (DENIED)"},
    {SPAN("LOADING"), ERR_AGAIN, "the server is still loading its data (LOADING)"},
    {SPAN("BUSY"), ERR_AGAIN, "the server is busy with a script (BUSY)"},
    {SPAN("NOREPLICAS"), ERR_AGAIN, "too few replicas are connected for a write (NOREPLICAS)"},
    {SPAN("READONLY"), ERR_CONFLICT, "the server is a replica, which cannot be written (READONLY)"},
    {SPAN("MASTERDOWN"), ERR_CONFLICT, "the server is a replica that has lost its master (MASTERDOWN)"},
    {SPAN("UNBLOCKED"), ERR_CONFLICT, "the server has changed its role (UNBLOCKED)"},
};

struct span redis_error_code(const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ERROR) return span_of(NULL, 0);
    size_t n = 0;
    while (n < reply->len && reply->str[n] >= 'A' && reply->str[n] <= 'Z')
        n++;
    bool is_word = n == reply->len || reply->str[n] == ' ';
    return span_of(reply->str, is_word ? n : 0);
}

static const struct known *known_find(struct span code)
{
    for (size_t i = 0; i < sizeof known_errors / sizeof *known_errors; i++)
        if (span_eq(code, known_errors[i].code)) return &known_errors[i];
    return NULL;
}

static void write_text(const redisReply *reply, char *out, size_t cap)
{
    size_t n = reply->len < cap - 1 ? reply->len : cap - 1;
    for (size_t i = 0; i < n; i++) {
        char c = reply->str[i];
        out[i] = c >= ' ' && c <= '~' ? c : '?';
    }
    out[n] = '\0';
}

enum err redis_error_explain(const redisReply *reply, char *out, size_t cap)
{
    const struct known *known = known_find(redis_error_code(reply));
    if (!known) {
        write_text(reply, out, cap);
        return ERR_IO;
    }
    (void)snprintf(out, cap, "%s", known->text); /* cutting is fine */
    return known->e;
}

enum err redis_error_explain_secret(const redisReply *reply, char *out, size_t cap)
{
    if (known_find(redis_error_code(reply))) return redis_error_explain(reply, out, cap);
    (void)snprintf(out, cap, "the server refuses the command; its answer may quote the secret");
    return ERR_IO;
}
