#include "config/config.h"

#include "config/schema.h"
#include "config/value.h"

#include <openssl/evp.h>

#include <stdlib.h>

static void release_fields(const struct schema_key *section, void *base)
{
    for (const struct schema_key *key = NULL; (key = schema_next(section, key)) != NULL;) {
        if (key->type == SCHEMA_SECTION) release_fields(key, base);
        if (!schema_is_container(key)) value_release(key, base);
        if (key->type != SCHEMA_LIST) continue;
        uint32_t n = *(uint32_t *)(void *)((char *)base + key->count_offset);
        for (uint32_t i = 0; i < n; i++)
            release_fields(key, (char *)value_field(key, base) + i * key->element_size);
    }
}

struct config *config_ref(struct config *c)
{
    (void)atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void config_unref(struct config *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    release_fields(NULL, c);
    free(c->path);
    free(c);
}

bool config_find_host(const struct config *c, struct span host, enum environment *env)
{
    for (unsigned e = 0; e < ENV_COUNT; e++) {
        for (uint32_t i = 0; i < c->environments[e].nhosts; i++) {
            if (!span_ieq(span_str(c->environments[e].hosts[i]), host)) continue;
            *env = (enum environment)e;
            return true;
        }
    }
    return false;
}

void config_tls_host(const struct config_tls_client *tls, const char *name, const struct addr *address,
                     char out[static ENDPOINT_HOST_BYTES])
{
    char text[ADDR_TEXT_MAX];
    const char *host = tls->server_name ? tls->server_name : name;
    if (!host) {
        (void)addr_format(address, text);
        host = text;
    }
    (void)snprintf(out, ENDPOINT_HOST_BYTES, "%s", host); /* the configuration has no longer ones */
}

enum err config_digest(struct span text, uint8_t digest[static 32])
{
    return EVP_Digest(text.p, text.n, digest, NULL, EVP_sha256(), NULL) == 1 ? ERR_OK : ERR_NOMEM;
}
