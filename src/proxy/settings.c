#include "proxy/settings.h"

#include <stdlib.h>

static void derive_limits(struct worker_settings *s)
{
    const struct config *c = s->config;
    s->head_limits = (struct head_limits){
        .fields_max = c->limits.header_count,
        .target_bytes_max = (uint32_t)c->limits.target_bytes,
        .alias = c->fields.alias,
        .alias_allowed = c->fields.alias_allowed_spans,
        .nalias_allowed = c->fields.nalias_allowed,
    };
    s->response_head_limits =
        (struct head_limits){.fields_max = c->limits.header_count, .alias = ALIAS_ALLOW};
    s->body_limits = (struct body_limits){
        .body_bytes_max = c->limits.body_bytes,
        .chunk_ext_bytes_max = (uint32_t)c->limits.chunk_extension_bytes,
        .trailer_bytes_max = (uint32_t)c->limits.trailer_bytes,
    };
    s->partner_rules = partner_rules_of(&c->limits);
    s->response_body_limits = s->body_limits;
    s->response_body_limits.body_bytes_max = UINT64_MAX; /* the backend's answers are not ours to bound */
}

struct worker_settings *settings_create(struct generation *g)
{
    struct worker_settings *s = malloc(sizeof *s);
    if (!s) return NULL;
    *s = (struct worker_settings){.refs = 1, .generation = generation_ref(g), .config = g->config};
    derive_limits(s);
    return s;
}

struct worker_settings *settings_ref(struct worker_settings *s)
{
    s->refs++;
    return s;
}

void settings_unref(struct worker_settings *s)
{
    if (!s || --s->refs) return;
    generation_unref(s->generation);
    free(s);
}
