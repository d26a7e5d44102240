#include "proofctl/commands.h"

#include "proofctl/difference.h"
#include "proofctl/edit.h"
#include "proofctl/file_snapshot.h"
#include "proofctl/record_json.h"

#include <stdio.h>
#include <stdlib.h>

/* --- import --------------------------------------------------------------------------------------- */

/* Finds out what one record of the imported file is a change of. The record was validated with its file. */
static enum ctl_exit prepare_record(struct session *s, const struct file_snapshot *from, uint32_t i,
                                    struct edit *e)
{
    struct backend_record found;
    struct record_report ignored = {0};
    const struct partner_file_entry *entry = &from->file.entries[i];
    struct span text = file_snapshot_text(from, entry);
    enum err err = s->backend->ops->get(s->backend, entry->partner.id, &found);
    if (err && err != ERR_NOT_FOUND) return session_fail_backend(s, err);
    e->exists = !err;
    if (e->exists) {
        e->version = found.version;
        if (record_parse(found.json, 1, &e->was, &ignored)) return session_fail_memory(s);
    }
    e->text = strndup(text.p, text.n); /* valid JSON: there is no NUL in it */
    return e->text ? edit_check(s, e) : session_fail_memory(s);
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
        if (!e->exists || !e->is_changed ||
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
    size_t n = from->file.nentries, nchanged;
    bool is_dry = args_has(s->args, OPT_DRY_RUN);
    enum ctl_exit code = CTL_OK;
    for (uint32_t i = 0; code == CTL_OK && i < n; i++)
        code = prepare_record(s, from, i, &edits[i]);
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

/* --- export, verify ------------------------------------------------------------------------------- */

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

struct count {
    struct session *session;
    json_t *warnings; /* NULL without --json */
    json_int_t partners, enabled, previous, prefixes[ENV_COUNT];
};

static enum err count_one(void *arg, const struct backend_record *r)
{
    struct count *c = arg;
    struct record_report report = {0};
    struct partner_record record;
    enum err e = record_parse(r->json, 1, &record, &report);
    if (e) return e;
    const struct partner *p = &record.partner;
    c->partners++;
    c->enabled += p->enabled;
    c->previous += p->has_token[SLOT_PREVIOUS] && p->previous_expires_ms > c->session->now_ms;
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++)
        c->prefixes[env] += p->ncidrs[env];
    for (uint32_t i = 0; i < report.warnings.n; i++) {
        session_note(c->session, "%s: warning: %s", r->id, report.warnings.list[i].text);
        if (c->warnings)
            (void)json_array_append_new(c->warnings,
                                        json_sprintf("%s: %s", r->id, report.warnings.list[i].text));
    }
    record_deinit(&record);
    return ERR_OK;
}

enum ctl_exit cmd_verify(struct session *s)
{
    struct count c = {.session = s, .warnings = s->is_json ? json_array() : NULL};
    enum err e = s->backend->ops->list(s->backend, count_one, &c);
    if (e) {
        json_decref(c.warnings);
        return session_fail_backend(s, e);
    }
    if (s->is_json)
        return session_print_json(
            s, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:o}", "store", s->backend->place, "partners",
                         c.partners, "enabled", c.enabled, "previous_tokens_valid", c.previous,
                         "production_prefixes", c.prefixes[ENV_PRODUCTION], "sandbox_prefixes",
                         c.prefixes[ENV_SANDBOX], "warnings", c.warnings));
    (void)printf("%s: ok: partners %lld, enabled %lld, previous tokens in their grace period %lld, "
                 "production prefixes %lld, "
                 "sandbox prefixes %lld\n",
                 s->backend->place, (long long)c.partners, (long long)c.enabled, (long long)c.previous,
                 (long long)c.prefixes[ENV_PRODUCTION], (long long)c.prefixes[ENV_SANDBOX]);
    return CTL_OK;
}
