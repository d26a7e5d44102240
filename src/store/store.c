#include "store/store.h"

#include "store/file_store.h"

enum err store_open(uv_loop_t *loop, const struct config *config, struct policy *policy, struct store **out)
{
    switch (config->store.kind) {
    case STORE_FILE: return file_store_open(loop, config->store.file, policy, &file_store_defaults, out);
    }
    BUG_IF(true, "the configuration names no store");
}
