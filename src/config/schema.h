/* schema.h - every key of the configuration, in one table.
 *
 * The loader, `proofgw check`, docs/CONFIG.md and conf/gateway.yaml all read this table: a key that is not in
 * it does not exist, and a row without help text does not pass the tests.
 *
 * The word "none" of a PATH or NAME is stored as NULL.
 *
 * A path is "section.key"; "listeners[].address" is a key of each element of the list `listeners`. Rows of
 * one section follow its own row. Offsets are relative to struct config, or to the element inside a list.
 *
 * Thread: [any]; the table is constant.
 */
#ifndef CONFIG_SCHEMA_H
#define CONFIG_SCHEMA_H

#include "base/span.h"

enum schema_type {
    SCHEMA_SECTION = 0, /* a mapping of keys; the field, if any, is a bool: it is present */
    SCHEMA_LIST,        /* a list of mappings; the field is an array of structs */
    SCHEMA_BOOL,        /* bool */
    SCHEMA_COUNT,       /* 32 or 64 bits; words[0], if any, stands for 0 */
    SCHEMA_SIZE,        /* 64 bits, bytes */
    SCHEMA_DURATION,    /* uint64_t, milliseconds */
    SCHEMA_ENUM,        /* an enum whose values are the indices of `words` */
    SCHEMA_WORD,        /* char *: one of `words` */
    SCHEMA_PATH,        /* char *: one of `words`, or a file name */
    SCHEMA_NAME,        /* char *: letters, digits, '.', '_', '-' */
    SCHEMA_LISTEN,      /* struct endpoint; words[0], if any, stands for ENDPOINT_NONE */
    SCHEMA_CONNECT,     /* struct endpoint; words[0], if any, stands for ENDPOINT_NONE */
    SCHEMA_HOSTS,       /* array of char *: host names */
    SCHEMA_FIELD_NAMES, /* array of char *: header field names */
    SCHEMA_NETWORKS,    /* array of char *: addresses and CIDR prefixes */
};

/* When a changed value takes effect. */
enum schema_change {
    CHANGE_RELOAD = 0, /* a running process takes the new value: proxy/worker_update.h, control/rollout.h */
    CHANGE_RESTART,    /* threads or memory were made with it: the running process keeps the old one */
};

struct schema_key {
    const char *path;
    enum schema_type type;
    enum schema_change change;
    bool required;         /* no default; `value` is an example */
    const char *only_with; /* required only when the enum before it in the section has this word; or NULL */
    size_t offset, size;   /* of the field; size 0 = no field */
    size_t count_offset;   /* lists: of the uint32_t number of elements */
    size_t element_size;   /* SCHEMA_LIST: of one struct */
    uint64_t min, max;     /* numbers, sizes, durations: range, both ends included */
    const char *const *words; /* NULL-terminated, or NULL */
    const char *per;          /* appended to the unit: " per second" */
    const char *value;        /* default, as it is written in a file; optional sections: NULL */
    const char *help;         /* a sentence or two: what it does, when to change it */
};

/* A section's own keys stand before the sections and lists inside it, so that the printed reference has them
 * under its heading. */
extern const struct schema_key schema_keys[];
extern const unsigned schema_nkeys;

/* The key `name` of `section` (NULL: the top level), or NULL. */
const struct schema_key *schema_find(const struct schema_key *section, struct span name);

/* Iterates over the keys of a section: start with NULL, ends with NULL. */
const struct schema_key *schema_next(const struct schema_key *section, const struct schema_key *previous);

/* The last part of the path: "head" of "limits.head". */
const char *schema_name(const struct schema_key *key);

/* The known key that an unknown word probably means ("limits.body" when it stands in another section), or
 * NULL. */
const char *schema_suggest(const struct schema_key *section, struct span word);

static inline bool schema_is_container(const struct schema_key *key)
{
    return key->type == SCHEMA_SECTION || key->type == SCHEMA_LIST;
}

static inline bool schema_is_text_list(const struct schema_key *key)
{
    return key->type == SCHEMA_HOSTS || key->type == SCHEMA_FIELD_NAMES || key->type == SCHEMA_NETWORKS;
}

#endif
