#include "proofctl/commands.h"

#include "proofctl/edit.h"
#include "proofctl/prefixes.h"
#include "proofctl/record_json.h"

#include <stdio.h>
#include <stdlib.h>

/* The value of --env. */
static enum ctl_exit chosen_list(struct session *s, enum environment *env)
{
    const char *name = args_value(s->args, OPT_ENV);
    for (*env = ENV_PRODUCTION; *env < ENV_COUNT; (*env)++)
        if (!name || strcmp(name, environment_name(*env)) == 0) return CTL_OK;
    return session_fail(s, CTL_USAGE, "--env must be production or sandbox");
}

/* The list in the record, made when it is missing. NULL when memory is out. */
static json_t *list_of(json_t *record, enum environment env)
{
    const char *key = record_json_list_key(env);
    json_t *list = json_object_get(record, key);
    if (list) return list;
    list = json_array();
    return json_object_set_new(record, key, list) ? NULL : list;
}

/* Does the one step in which adding and removing differ. */
typedef enum ctl_exit change_list_fn(struct session *s, struct edit *e, enum environment env, json_t *list);

static enum ctl_exit change_list(struct session *s, change_list_fn *change, const char *action,
                                 const char *done)
{
    struct edit e;
    enum environment env;
    enum ctl_exit code = chosen_list(s, &env);
    if (code != CTL_OK) return code;
    code = edit_load(s, s->args->positional[0], &e);
    json_t *list = code == CTL_OK ? list_of(e.record, env) : NULL;
    if (code == CTL_OK) code = list ? change(s, &e, env, list) : session_fail_memory(s);
    if (code == CTL_OK) code = edit_finish(s, action, &e, done);
    edit_deinit(&e);
    return code;
}

static enum ctl_exit add_prefixes(struct session *s, struct edit *e, enum environment env, json_t *list)
{
    for (size_t i = 1; i < s->args->npositional; i++)
        if (json_array_append_new(list, json_string(s->args->positional[i])))
            return session_fail(s, CTL_FAILED, "a prefix is not valid UTF-8; write it such as 192.0.2.0/24");
    enum ctl_exit code = edit_check(s, e);
    return code == CTL_OK ? prefixes_check_new(s, &e->becomes.partner, env, e->was.partner.ncidrs[env])
                          : code;
}

enum ctl_exit cmd_ip_add(struct session *s)
{
    return change_list(s, add_prefixes, "ip add", "added");
}

/* Deletes one prefix from `list`, whose entries are those of the record that was read, less what is gone
 * already. */
static enum ctl_exit remove_prefix(struct session *s, const struct edit *e, enum environment env,
                                   const char *text, struct cidr *left, uint32_t *nleft, json_t *list)
{
    struct cidr wanted;
    struct errmsg why;
    if (cidr_parse(span_str(text), &cidr_rules_default, &wanted, &why))
        return session_fail(s, CTL_FAILED, "%s; nothing was changed", why.text);
    uint32_t i = prefixes_find(left, *nleft, &wanted);
    if (i == *nleft)
        return session_fail(
            s, CTL_FAILED,
            "%s is not on the %s list of %s; nothing was changed: `proofctl ip list %s` shows it", text,
            environment_name(env), e->plan.id, e->plan.id);
    memmove(&left[i], &left[i + 1], (*nleft - i - 1) * sizeof *left);
    (*nleft)--;
    return json_array_remove(list, i) ? session_fail_memory(s) : CTL_OK;
}

static enum ctl_exit remove_prefixes(struct session *s, struct edit *e, enum environment env, json_t *list)
{
    struct partner *was = &e->was.partner;
    uint32_t nleft = was->ncidrs[env];
    struct cidr *left = nleft ? malloc(nleft * sizeof *left) : NULL;
    if (nleft && !left) return session_fail_memory(s);
    if (nleft) memcpy(left, was->cidrs[env], nleft * sizeof *left);
    enum ctl_exit code = CTL_OK;
    for (size_t i = 1; code == CTL_OK && i < s->args->npositional; i++)
        code = remove_prefix(s, e, env, s->args->positional[i], left, &nleft, list);
    if (code == CTL_OK && env == ENV_PRODUCTION && nleft == 0)
        code = session_fail(s, CTL_FAILED,
                            "a partner needs at least one production address; add the new one first, or use "
                            "`proofctl partner disable %s`",
                            e->plan.id);
    free(left);
    return code;
}

/* Warns when a prefix that was removed is still covered: without 192.0.2.7 it comes in by 192.0.2.0/24. */
static void note_covered(struct session *s, const struct partner *p, enum environment env)
{
    for (size_t i = 1; i < s->args->npositional; i++) {
        struct cidr gone;
        struct errmsg why;
        char text[CIDR_TEXT_MAX];
        if (cidr_parse(span_str(s->args->positional[i]), &cidr_rules_default, &gone, &why)) continue;
        const struct cidr *cover = prefixes_find_covering(p->cidrs[env], p->ncidrs[env], &gone);
        if (!cover) continue;
        text[cidr_format(cover, text)] = '\0';
        session_note(s, "%s may still call, because %s is on the list", s->args->positional[i], text);
    }
}

static enum ctl_exit remove_and_note(struct session *s, struct edit *e, enum environment env, json_t *list)
{
    enum ctl_exit code = remove_prefixes(s, e, env, list);
    if (code == CTL_OK) code = edit_check(s, e);
    if (code == CTL_OK) note_covered(s, &e->becomes.partner, env);
    return code;
}

enum ctl_exit cmd_ip_remove(struct session *s)
{
    return change_list(s, remove_and_note, "ip remove", "removed");
}

static void print_list(const json_t *view, enum environment env)
{
    size_t i;
    json_t *prefix;
    json_array_foreach(json_object_get(view, record_json_list_key(env)), i, prefix)(void)
        printf("%-10s  %s\n", environment_name(env), json_string_value(prefix)); /* main() looks at stdout */
}

enum ctl_exit cmd_ip_list(struct session *s)
{
    struct edit e;
    enum environment chosen;
    bool has_both = !args_has(s->args, OPT_ENV);
    enum ctl_exit code = chosen_list(s, &chosen);
    if (code != CTL_OK) return code;
    code = edit_load(s, s->args->positional[0], &e);
    json_t *view = code == CTL_OK ? record_json_view(&e.was, s->now_ms) : NULL;
    json_t *lists = view && s->is_json ? json_object() : NULL;
    if (code == CTL_OK && !view) code = session_fail_memory(s);
    for (enum environment env = ENV_PRODUCTION; code == CTL_OK && env < ENV_COUNT; env++) {
        if (!has_both && env != chosen) continue;
        if (!s->is_json)
            print_list(view, env);
        else if (json_object_set(lists, environment_name(env),
                                 json_object_get(view, record_json_list_key(env))))
            code = session_fail_memory(s);
    }
    if (code == CTL_OK && s->is_json) code = session_print_json(s, json_incref(lists));
    json_decref(lists);
    json_decref(view);
    edit_deinit(&e);
    return code;
}
