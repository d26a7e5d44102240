#include "proofctl/commands.h"

#include "proofctl/difference.h"
#include "proofctl/edit.h"
#include "proofctl/file_snapshot.h"
#include "store/bytes.h"

#include <stdio.h>
#include <stdlib.h>

/* --- import --------------------------------------------------------------------------------------- */

/* An import on its way. */
struct importing {
    struct session *session;
    const struct file_snapshot *from;
    struct edit_plan *plans; /* one for each record of the file */
    enum ctl_exit code;      /* of what failed in a callback */
};

/* Makes a plan of record `i` of the imported file. It was validated with its file; what is there may be
 * anything. */
static enum ctl_exit plan_record(struct importing *im, size_t i, const struct backend_record *found,
                                 struct edit *e)
{
    struct record_report ignored = {0};
    struct span text = file_snapshot_text(im->from, &im->from->file.entries[i]);
    e->plan.exists = found != NULL;
    e->plan.has_foreign_tokens = true;
    if (found) {
        e->plan.version = found->version;
        e->plan.is_unreadable = !found->json.p;
        if (found->json.p && record_parse(found->json, 1, &e->was, &ignored))
            return session_fail_memory(im->session);
    }
    e->plan.text = strndup(text.p, text.n); /* valid JSON: there is no NUL in it */
    if (!e->plan.text) return session_fail_memory(im->session);
    enum ctl_exit code = edit_check(im->session, e);
    return code == CTL_OK ? edit_prepare(im->session, "import", e) : code;
}

static enum err prepare_found(void *arg, size_t i, const struct backend_record *found)
{
    struct importing *im = arg;
    struct edit e = {.record = NULL};
    im->code = plan_record(im, i, found, &e);
    im->plans[i] = e.plan;
    e.plan = (struct edit_plan){0};
    edit_deinit(&e);
    return im->code == CTL_OK ? ERR_OK : ERR_CLOSED;
}

static enum ctl_exit prepare_records(struct importing *im)
{
    struct session *s = im->session;
    size_t n = im->from->file.nentries;
    const char **ids = calloc(n + 1, sizeof *ids);
    if (!ids) return session_fail_memory(s);
    for (size_t i = 0; i < n; i++)
        ids[i] = partner_file_id(&im->from->file.entries[i]);
    enum err e = s->backend->ops->get_many(s->backend, ids, n, prepare_found, im);
    free(ids);
    if (im->code != CTL_OK) return im->code;
    return e ? session_fail_backend(s, e) : CTL_OK;
}

/* {"partner_id": ..., "before": {...}, "after": {...}} with what differs: the line of the audit. NULL when
 * memory is out. */
static json_t *json_changed(const struct edit_plan *p)
{
    json_t *audit = json_loads(p->audit, 0, NULL);
    json_t *changed = json_pack("{s:s, s:O, s:O}", "partner_id", p->id, "before",
                                json_object_get(audit, "before"), "after", json_object_get(audit, "after"));
    json_decref(audit);
    return changed;
}

static void print_plan(const struct edit_plan *p)
{
    json_t *changed = json_changed(p);
    const json_t *before = json_object_get(changed, "before"), *after = json_object_get(changed, "after");
    if (!p->exists) {
        const char *company = json_string_value(json_object_get(after, "company"));
        (void)printf("+ %s: %s\n", p->id, company ? company : ""); /* main() looks at the state of stdout */
    } else if (p->is_unreadable) {
        (void)printf("~ %s: was not valid\n", p->id);
    } else {
        (void)printf("~ %s: ", p->id);
        difference_print(before, after, stdout);
        (void)putchar('\n');
    }
    json_decref(changed);
}

static void print_import(const struct edit_plan *plans, size_t n, bool is_dry)
{
    size_t nadded = 0, nchanged = 0;
    for (size_t i = 0; i < n; i++) {
        nadded += !plans[i].exists;
        nchanged += plans[i].exists && plans[i].is_changed;
        if (plans[i].is_changed) print_plan(&plans[i]);
    }
    (void)printf("%s%zu added, %zu changed, %zu unchanged\n", is_dry ? "dry run: " : "", nadded, nchanged,
                 n - nadded - nchanged);
}

static json_t *json_import(const struct edit_plan *plans, size_t n, bool is_dry)
{
    json_int_t nunchanged = 0;
    json_t *added = json_array(), *changed = json_array();
    bool is_ok = added && changed;
    for (size_t i = 0; is_ok && i < n; i++) {
        nunchanged += !plans[i].is_changed;
        if (!plans[i].exists)
            is_ok = json_array_append_new(added, json_string(plans[i].id)) == 0;
        else if (plans[i].is_changed)
            is_ok = json_array_append_new(changed, json_changed(&plans[i])) == 0;
    }
    json_t *result = is_ok ? json_pack("{s:b, s:O, s:O, s:I}", "dry_run", is_dry, "added", added, "changed",
                                       changed, "unchanged", nunchanged)
                           : NULL;
    json_decref(added);
    json_decref(changed);
    return result;
}

static enum ctl_exit import_records(struct session *s, const struct file_snapshot *from,
                                    struct edit_plan *plans)
{
    struct importing im = {s, from, plans, CTL_OK};
    size_t n = from->file.nentries;
    bool is_dry = args_has(s->args, OPT_DRY_RUN);
    enum ctl_exit code = prepare_records(&im);
    if (code == CTL_OK) code = is_dry ? edit_try_plans(s, plans, n) : edit_commit_plans(s, plans, n);
    if (code != CTL_OK) return code;
    if (s->is_json) return session_print_json(s, json_import(plans, n, is_dry));
    print_import(plans, n, is_dry);
    return CTL_OK;
}

enum ctl_exit cmd_import(struct session *s)
{
    const char *path = s->args->positional[0];
    struct record_messages faults = {0};
    struct file_snapshot from;
    enum ctl_exit code = CTL_OK;
    enum err e = file_snapshot_read(path, &from, &faults);
    if (!e && !from.exists) record_messages_add(&faults, 0, 0, "cannot be opened: No such file or directory");
    if (e == ERR_NOMEM)
        code = session_fail_memory(s);
    else if (e || !from.exists)
        code = session_fail_messages(s, CTL_FAILED, path, &faults);
    struct edit_plan *plans = calloc((size_t)from.file.nentries + 1, sizeof *plans);
    if (code == CTL_OK) code = plans ? import_records(s, &from, plans) : session_fail_memory(s);
    for (uint32_t i = 0; plans && i < from.file.nentries; i++)
        edit_plan_deinit(&plans[i]);
    free(plans);
    file_snapshot_deinit(&from);
    return code;
}

/* --- export ------------------------------------------------------------------------------- */

static enum err export_one(void *arg, const struct backend_record *r)
{
    if (!r->json.p) return ERR_OK; /* cmd_export() says why */
    enum err e = bytes_add(arg, r->json.p, r->json.n);
    return e ? e : bytes_add(arg, "\n", 1);
}

/* Nothing is printed before all was read: part of a backup looks like a whole one. */
enum ctl_exit cmd_export(struct session *s)
{
    struct bytes all = {0};
    enum err e = s->backend->ops->list(s->backend, export_one, &all);
    if (!e) (void)fwrite(all.p, 1, all.n, stdout); /* main() looks at the state of stdout */
    bytes_deinit(&all);
    return e ? session_fail_backend(s, e) : CTL_OK;
}
