/* diff.h - what differs between two configurations, key by key, from the schema table.
 *
 * Three configurations take part: the one the process started with, whose values of the keys marked `restart`
 * are in force until it ends; the one in force now, for all other keys; and the next one.
 *
 * Entries of a list are matched by their first key (a listener by its address), so that moving a listener in
 * the file is no change.
 *
 * Thread: [any, pure].
 */
#ifndef CONFIG_DIFF_H
#define CONFIG_DIFF_H

#include "config/config.h"

enum { CONFIG_CHANGE_TEXT_MAX = 512 }; /* longer texts are cut, and end with "..." */

struct config_change {
    const char *path;   /* "limits.body", "listeners[127.0.0.1:8080].shield" */
    const char *before; /* as it would stand in a file; NULL: the entry is new */
    const char *after;  /* NULL: the entry is gone */
    bool live;          /* a reload applies it; else the process must be restarted */
};

typedef void (*config_change_fn)(const struct config_change *change, void *arg);

/* Calls `fn` for every difference, in the order of the schema. The change is valid until `fn` returns. */
void config_diff(const struct config *started, const struct config *running, const struct config *next,
                 config_change_fn fn, void *arg);

/* The differences as text, one a line ("limits.body: 10MiB -> 1MiB"), or "no changes". */
void config_plan_text(const struct config *started, const struct config *running, const struct config *next,
                      FILE *out);

/* The same as a JSON array: [{"key":...,"before":...,"after":...,"change":"live"|"restart"}]; "before" is
 * null for an entry that is new, "after" for one that is gone. */
void config_plan_json(const struct config *started, const struct config *running, const struct config *next,
                      FILE *out);

/* The index in `before` of the listener that goes on as listener `i` of `next`, or -1. */
int config_kept_listener(const struct config *before, const struct config *next, uint32_t i);

#endif
