#include "proofctl/commands.h"

#include "proofctl/difference.h"
#include "proofctl/printable.h"

#include <stdio.h>

enum { LIMIT_DEFAULT = 20, LIMIT_MAX = 1000000 };

static enum err collect_line(void *arg, struct span line)
{
    json_t *entry = json_loadb(line.p, line.n, 0, NULL);
    if (!json_is_object(entry)) { /* half a line, after a power failure; shown rather than hidden */
        json_decref(entry);
        entry = json_pack("{s:s}", "action", "(damaged line)");
    }
    return json_array_append_new(arg, entry) ? ERR_NOMEM : ERR_OK;
}

/* Text of a member, or "-". */
static void print_member(const json_t *entry, const char *key, int width)
{
    char safe[128];
    (void)printable(json_string_value(json_object_get(entry, key)), safe, sizeof safe);
    (void)printf("%-*s  ", width, safe); /* main() looks at the state of stdout */
}

static void print_entry(const json_t *entry)
{
    json_t *before = json_object_get(entry, "before"), *after = json_object_get(entry, "after");
    print_member(entry, "time", 24);
    print_member(entry, "by", 12);
    print_member(entry, "action", 15);
    print_member(entry, "partner_id", 0);
    if (json_is_object(before) && json_is_object(after))
        difference_print(before, after, stdout);
    else /* added or removed: the name will do, --json has everything */
        print_member(json_is_object(after) ? after : before, "company", 0);
    (void)putchar('\n');
}

enum ctl_exit cmd_audit(struct session *s)
{
    uint64_t limit = LIMIT_DEFAULT;
    const char *text = args_value(s->args, OPT_LIMIT);
    if (text && (!span_to_u64(span_str(text), &limit) || limit == 0 || limit > LIMIT_MAX))
        return session_fail(s, CTL_USAGE, "--limit must be a number from 1 to %d", LIMIT_MAX);
    json_t *entries = json_array();
    if (!entries) return session_fail_memory(s);
    enum err e = s->backend->ops->audit(s->backend, limit, collect_line, entries);
    if (e) {
        json_decref(entries);
        return session_fail_backend(s, e);
    }
    if (s->is_json) return session_print_json(s, entries);
    size_t i;
    json_t *entry;
    json_array_foreach(entries, i, entry) print_entry(entry);
    json_decref(entries);
    return CTL_OK;
}
