#include "http/head.h"

struct span method_name(enum http_method m)
{
    static const struct span names[METHOD_COUNT] = {[METHOD_NONE] = {"-", 1},
#define XX(id, name, idempotent) [METHOD_##id] = {name, sizeof(name) - 1},
                                                    METHOD_MAP(XX)
#undef XX
    };
    return names[m];
}

bool method_is_idempotent(enum http_method m)
{
    static const bool is[METHOD_COUNT] = {
#define XX(id, name, idempotent) [METHOD_##id] = (idempotent),
        METHOD_MAP(XX)
#undef XX
    };
    return is[m];
}

const char *head_refusal_text(enum head_refusal r)
{
    static const char *const texts[HEAD_REFUSAL_COUNT] = {
#define XX(id, text) [HEAD_REFUSAL_##id] = text,
        HEAD_REFUSAL_MAP(XX)
#undef XX
    };
    return texts[r];
}

const struct http_field *http_field_find(const struct http_field *fields, uint32_t n, enum field_id id)
{
    for (uint32_t i = 0; i < n; i++)
        if (fields[i].id == id) return &fields[i];
    return NULL;
}
