#include "proofctl/commands.h"

#include "proofctl/difference.h"
#include "proofctl/edit.h"
#include "proofctl/file_snapshot.h"
#include "proofctl/record_json.h"

#include <stdio.h>
#include <stdlib.h>

/* --- import --------------------------------------------------------------------------------------- */

/* An import on its way. */
struct importing {
    struct session *session;
    const struct file_snapshot *from;
    struct edit *edits; /* one for each record of the file */
    enum ctl_exit code; /* of what failed in a callback */
};

/* Finds out what record `i` of the imported file is a change of. It was validated with its file; what is
 * there may be anything. */
static enum ctl_exit prepare_record(struct importing *im, size_t i, const struct backend_record *found)
{
    struct record_report ignored = {0};
    struct edit *e = &im->edits[i];
    struct span text = file_snapshot_text(im->from, &im->from->file.entries[i]);
    e->exists = found != NULL;
    if (found) {
        e->version = found->version;
        e->is_unreadable = !found->json.p;
        if (found->json.p && record_parse(found->json, 1, &e->was, &ignored))
            return session_fail_memory(im->session);
    }
    e->text = strndup(text.p, text.n); /* valid JSON: there is no NUL in it */
    return e->text ? edit_check(im->session, e) : session_fail_memory(im->session);
}

static enum err prepare_found(void *arg, size_t i, const struct backend_record *found)
{
    struct importing *im = arg;
    im->code = prepare_record(im, i, found);
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

static void print_import(const struct edit *edits, size_t n, bool is_dry)
{
    size_t nadded = 0, nchanged = 0;
    for (size_t i = 0; i < n; i++) {
        const struct edit *e = &edits[i];
        json_t *old_values, *new_values;
        nadded += !e->exists;
        nchanged += e->exists && e->is_changed;
        if (!e->exists)
            (void)printf("+ %s: %s\n", e->id, e->becomes.company); /* main() looks at the state of stdout */
        if (e->is_unreadable) (void)printf("~ %s: was not valid\n", e->id);
        if (!e->exists || !e->is_changed || e->is_unreadable ||
            !record_json_differences(e->before, e->after, &old_values, &new_values))
            continue;
        (void)printf("~ %s: ", e->id);
        difference_print(old_values, new_values, stdout);
        (void)putchar('\n');
        json_decref(old_values);
        json_decref(new_values);
    }
    (void)printf("%s%zu added, %zu changed, %zu unchanged\n", is_dry ? "dry run: " : "", nadded, nchanged,
                 n - nadded - nchanged);
}

/* {"partner_id": ..., "before": {...}, "after": {...}} with what differs. NULL when memory is out. */
static json_t *json_changed(const struct edit *e)
{
    json_t *old_values, *new_values;
    if (!record_json_differences(e->before, e->after, &old_values, &new_values)) return NULL;
    return json_pack("{s:s, s:o, s:o}", "partner_id", e->id, "before", old_values, "after", new_values);
}

static json_t *json_import(const struct edit *edits, size_t n, bool is_dry)
{
    json_int_t nunchanged = 0;
    json_t *added = json_array(), *changed = json_array();
    bool is_ok = added && changed;
    for (size_t i = 0; is_ok && i < n; i++) {
        nunchanged += !edits[i].is_changed;
        if (!edits[i].exists)
            is_ok = json_array_append_new(added, json_string(edits[i].id)) == 0;
        else if (edits[i].is_changed)
            is_ok = json_array_append_new(changed, json_changed(&edits[i])) == 0;
    }
    json_t *result = is_ok ? json_pack("{s:b, s:O, s:O, s:I}", "dry_run", is_dry, "added", added, "changed",
                                       changed, "unchanged", nunchanged)
                           : NULL;
    json_decref(added);
    json_decref(changed);
    return result;
}

static enum ctl_exit import_records(struct session *s, const struct file_snapshot *from, struct edit *edits)
{
    struct importing im = {s, from, edits, CTL_OK};
    size_t n = from->file.nentries, nchanged;
    bool is_dry = args_has(s->args, OPT_DRY_RUN);
    enum ctl_exit code = prepare_records(&im);
    if (code == CTL_OK) code = edit_commit(s, "import", edits, n, is_dry, &nchanged);
    if (code != CTL_OK) return code;
    if (s->is_json) return session_print_json(s, json_import(edits, n, is_dry));
    print_import(edits, n, is_dry);
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
    struct edit *edits = calloc(from.file.nentries + 1, sizeof *edits);
    if (code == CTL_OK) code = edits ? import_records(s, &from, edits) : session_fail_memory(s);
    for (uint32_t i = 0; edits && i < from.file.nentries; i++)
        edit_deinit(&edits[i]);
    free(edits);
    file_snapshot_deinit(&from);
    return code;
}

/* --- export ------------------------------------------------------------------------------- */

static enum err export_one(void *arg, const struct backend_record *r)
{
    FILE *out = arg;
    (void)fwrite(r->json.p, 1, r->json.n, out); /* main() looks at the state of stdout */
    (void)putc('\n', out);
    return ERR_OK;
}

enum ctl_exit cmd_export(struct session *s)
{
    enum err e = s->backend->ops->list(s->backend, export_one, stdout);
    return e ? session_fail_backend(s, e) : CTL_OK;
}
