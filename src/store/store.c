#include "store/store.h"

#include "store/file_store.h"
#include "store/redis_dial.h"
#include "store/redis_sync.h"

#include <malloc.h>

const char *store_load_reason_text(enum store_load_reason r)
{
    static const char *const texts[] = {
#define XX(name, text) [STORE_LOAD_##name] = text,
        STORE_LOAD_MAP(XX)
#undef XX
    };
    return r < STORE_LOAD_REASONS ? texts[r] : "none";
}

const char *store_away_reason_text(enum store_away_reason r)
{
    static const char *const texts[] = {
#define XX(name, text) [STORE_AWAY_##name] = text,
        STORE_AWAY_MAP(XX)
#undef XX
    };
    return r < STORE_AWAY_REASONS ? texts[r] : "none";
}

enum err store_open(uv_loop_t *loop, const struct config *config, struct policy *policy, struct store **out)
{
    switch (config->store.kind) {
    case STORE_FILE: return file_store_open(loop, config->store.file, policy, &file_store_defaults, out);
    case STORE_REDIS: return redis_sync_open(loop, &config->store, policy, &redis_sync_defaults, out);
    }
    BUG_IF(true, "the configuration names no store");
}

struct check {
    FILE *report;
    const char *path;
};

static void print_warning(const char *text, void *arg)
{
    const struct check *check = arg;
    (void)fprintf(check->report, "%s: warning: %s\n", check->path, text); /* nobody to tell when it fails */
}

void store_check(const struct config *config, FILE *report)
{
    struct check check = {report, config->path};
    const struct tls_warnings warnings = {print_warning, &check};
    if (config->store.kind == STORE_FILE) file_store_check(config->store.file, report);
    if (config->store.kind == STORE_REDIS) redis_dial_check(&config->store.redis, &warnings);
}

void store_trim(void)
{
    (void)malloc_trim(0); /* whether there was something does not matter */
}
