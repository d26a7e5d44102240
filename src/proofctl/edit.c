#include "proofctl/edit.h"

#include "config/suggest.h"
#include "proofctl/audit_line.h"
#include "proofctl/claims.h"
#include "proofctl/record_json.h"
#include "store/record_value.h"

#include <stdio.h>
#include <stdlib.h>

enum { CUTS_NAMED_MAX = 5 };

/* --- reading -------------------------------------------------------------------------------------- */

/* The best so far; its text belongs to the backend, hence the copy. */
struct nearest {
    struct suggestion suggestion;
    char id[PARTNER_ID_MAX + 1];
};

static enum err offer_id(void *arg, const struct backend_record *r)
{
    struct nearest *nearest = arg;
    unsigned distance = nearest->suggestion.distance;
    const char *best = nearest->suggestion.best;
    suggestion_offer(&nearest->suggestion, r->id);
    if (nearest->suggestion.best && (!best || nearest->suggestion.distance < distance)) {
        (void)span_to_cstr(span_str(r->id), nearest->id, sizeof nearest->id); /* fits: it is an id */
        nearest->suggestion.best = nearest->id;
    }
    return ERR_OK;
}

static enum ctl_exit fail_unknown(struct session *s, const char *id)
{
    struct nearest nearest = {.suggestion.word = span_str(id)};
    enum err e = s->backend->ops->list(s->backend, offer_id, &nearest);
    if (e == ERR_NOT_FOUND)
        return session_fail_backend(s, e); /* no such file: a slip in its name, as a rule */
    /* After another error there is just no suggestion. */
    if (nearest.suggestion.best)
        return session_fail(s, CTL_FAILED, "there is no partner \"%s\" in %s; did you mean \"%s\"?", id,
                            s->backend->place, nearest.id);
    return session_fail(s, CTL_FAILED, "there is no partner \"%s\" in %s; `proofctl partner list` shows all",
                        id, s->backend->place);
}

static enum ctl_exit load_record(struct session *s, struct edit *e, const struct backend_record *found)
{
    struct record_report report = {0};
    enum err err = record_parse(found->json, 1, &e->was, &report);
    if (err == ERR_PARSE) return session_fail_messages(s, CTL_FAILED, s->backend->place, &report.faults);
    e->record = record_json_load(found->json);
    if (err || !e->record) return session_fail_memory(s);
    e->plan.version = found->version;
    e->plan.exists = true;
    return CTL_OK;
}

enum ctl_exit edit_load(struct session *s, const char *id, struct edit *e)
{
    struct backend_record found;
    *e = (struct edit){0};
    if (!record_value_is_partner_id(span_str(id)))
        return session_fail(s, CTL_FAILED,
                            "a partner_id is 1 to 64 characters out of A-Z a-z 0-9 . _ -; "
                            "`proofctl partner list` shows all");
    (void)span_to_cstr(span_str(id), e->plan.id, sizeof e->plan.id); /* fits: it is an id */
    enum err err = s->backend->ops->get(s->backend, id, &found);
    if (err == ERR_NOT_FOUND) return fail_unknown(s, id);
    return err ? session_fail_backend(s, err) : load_record(s, e, &found);
}

enum ctl_exit edit_new(struct session *s, struct edit *e)
{
    *e = (struct edit){.record = json_object()};
    return e->record ? CTL_OK : session_fail_memory(s);
}

void edit_plan_deinit(struct edit_plan *p)
{
    free(p->text);
    free(p->audit);
    *p = (struct edit_plan){0};
}

void edit_deinit(struct edit *e)
{
    edit_plan_deinit(&e->plan);
    record_deinit(&e->was);
    record_deinit(&e->becomes);
    json_decref(e->record);
    json_decref(e->before);
    json_decref(e->after);
    *e = (struct edit){0};
}

/* --- judging -------------------------------------------------------------------------------------- */

static bool has_same_lists(const struct partner *a, const struct partner *b)
{
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++) {
        if (a->ncidrs[env] != b->ncidrs[env]) return false;
        for (uint32_t i = 0; i < a->ncidrs[env]; i++)
            if (cidr_compare(&a->cidrs[env][i], &b->cidrs[env][i]) != 0) return false;
    }
    return true;
}

enum ctl_exit edit_check(struct session *s, struct edit *e)
{
    struct record_report report = {0};
    struct edit_plan *p = &e->plan;
    if (p->removes || e->becomes.company) return CTL_OK; /* nothing to check, or checked */
    if (!p->text) p->text = record_json_text(e->record);
    if (!p->text) return session_fail_memory(s);
    enum err err = record_parse(span_str(p->text), 1, &e->becomes, &report);
    if (err == ERR_PARSE) return session_fail_messages(s, CTL_FAILED, NULL, &report.faults);
    if (err) return session_fail_memory(s);
    memcpy(p->id, e->becomes.partner.id, sizeof p->id);
    bool is_news =
        !p->exists || !has_same_lists(&e->was.partner, &e->becomes.partner); /* warnings are about prefixes */
    for (uint32_t i = 0; is_news && i < report.warnings.n; i++)
        session_note(s, "%s: warning: %s", p->id, report.warnings.list[i].text);
    return CTL_OK;
}

static bool has_same_tokens(const struct partner *a, const struct partner *b)
{
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
        if (a->has_token[slot] != b->has_token[slot] ||
            (a->has_token[slot] && memcmp(a->digest[slot], b->digest[slot], TOKEN_DIGEST_BYTES) != 0))
            return false;
    return true;
}

/* Errors: ERR_NOMEM. */
static enum err prepare(const struct session *s, const char *action, struct edit *e)
{
    struct edit_plan *p = &e->plan;
    bool is_known = p->exists && !p->is_unreadable;
    if (is_known && !(e->before = record_json_view(&e->was, s->now_ms))) return ERR_NOMEM;
    if (!p->removes && !(e->after = record_json_view(&e->becomes, s->now_ms))) return ERR_NOMEM;
    p->is_changed = !is_known || p->removes || !json_equal(e->before, e->after) ||
                    !has_same_tokens(&e->was.partner, &e->becomes.partner);
    if (is_known && has_same_tokens(&e->was.partner, &e->becomes.partner)) p->has_foreign_tokens = false;
    if (p->is_changed) {
        p->audit = audit_line(s, action, p->id, e->before, e->after);
        if (!p->audit) return ERR_NOMEM;
        return is_known
                   ? cut_compute(&e->was.partner, p->removes ? NULL : &e->becomes.partner, s->now_ms, &p->cut)
                   : ERR_OK;
    }
    json_decref(e->after);
    e->after = NULL;
    free(p->text);
    p->text = NULL;
    return ERR_OK;
}

enum ctl_exit edit_prepare(struct session *s, const char *action, struct edit *e)
{
    return prepare(s, action, e) ? session_fail_memory(s) : CTL_OK;
}

/* --- committing ----------------------------------------------------------------------------------- */

/* Asks once, naming the first few partners that lose something. */
static bool confirm(const struct session *s, const struct edit_plan *plans, size_t n)
{
    char subject[CUTS_NAMED_MAX * (PARTNER_ID_MAX + 2) + 32], what[240];
    struct outbuf names = outbuf_of(subject, sizeof subject - 1), first = outbuf_of(what, sizeof what - 1);
    size_t ncuts = 0;
    for (size_t i = 0; i < n; i++) {
        if (!cut_is_any(&plans[i].cut)) continue;
        if (ncuts == 0) cut_describe(&plans[i].cut, &first);
        if (ncuts < CUTS_NAMED_MAX) outbuf_fmt(&names, "%s%s", ncuts ? ", " : "", plans[i].id);
        ncuts++;
    }
    if (ncuts == 0) return true;
    if (ncuts > CUTS_NAMED_MAX) outbuf_fmt(&names, " and %zu more", ncuts - CUTS_NAMED_MAX);
    subject[names.n] = what[first.n] = '\0';
    return session_confirm(s, subject, ncuts == 1 ? what : "they lose addresses or tokens that work now");
}

/* Adds those plans to the changes that change something, and whose record exists or does not. */
static void add_changes(const struct edit_plan *plans, size_t n, bool exists, struct backend_change *changes,
                        size_t *nchanges)
{
    for (size_t i = 0; i < n; i++) {
        const struct edit_plan *p = &plans[i];
        if (!p->is_changed || p->exists != exists) continue;
        changes[(*nchanges)++] = (struct backend_change){
            .id = p->id,
            .expected = p->exists ? &p->version : NULL,
            .json = p->removes ? (struct span){0} : span_str(p->text),
            .audit = span_str(p->audit),
            .has_foreign_tokens = p->has_foreign_tokens,
        };
    }
}

/* The plans that change something, new records last: one may get a token that another gives up, and a
 * gateway, which sees one change after the other, would refuse it before that. Owns: the caller. NULL when
 * memory is out. */
static struct backend_change *make_changes(const struct edit_plan *plans, size_t n, size_t *nchanged)
{
    struct backend_change *changes = calloc(n + 1, sizeof *changes);
    *nchanged = 0;
    if (!changes) return NULL;
    add_changes(plans, n, true, changes, nchanged);
    add_changes(plans, n, false, changes, nchanged);
    return changes;
}

static enum ctl_exit commit_changes(struct session *s, const struct backend_change *changes, size_t n)
{
    if (s->has_token) session_hold_signals(s); /* until it is printed, or the run has failed */
    enum err err = s->backend->ops->commit(s->backend, changes, n);
    if (s->backend->ncommitted > 0) s->committed = s->backend->sequence;
    if (err) return session_fail_backend(s, err);
    if (s->backend->note[0]) session_note(s, "%s", s->backend->note);
    return CTL_OK;
}

enum ctl_exit edit_commit_plans(struct session *s, const struct edit_plan *plans, size_t n)
{
    enum ctl_exit code = CTL_OK;
    size_t nchanged;
    if (!confirm(s, plans, n)) return CTL_FAILED;
    struct backend_change *changes = make_changes(plans, n, &nchanged);
    if (!changes) return session_fail_memory(s);
    if (nchanged > 0) code = commit_changes(s, changes, nchanged);
    free(changes);
    return code;
}

enum ctl_exit edit_try_plans(struct session *s, const struct edit_plan *plans, size_t n)
{
    size_t nchanged;
    struct backend_change *changes = make_changes(plans, n, &nchanged);
    enum err e = changes ? claims_try(s->backend, changes, nchanged) : ERR_NOMEM;
    free(changes);
    return e ? session_fail_backend(s, e) : CTL_OK;
}

enum ctl_exit edit_commit(struct session *s, const char *action, struct edit *e)
{
    enum ctl_exit code = edit_prepare(s, action, e);
    return code == CTL_OK ? edit_commit_plans(s, &e->plan, 1) : code;
}

enum ctl_exit edit_finish(struct session *s, const char *action, struct edit *e, const char *done)
{
    enum ctl_exit code = edit_check(s, e);
    if (code == CTL_OK) code = edit_commit(s, action, e);
    if (code != CTL_OK) return code;
    if (s->is_json) return session_print_json(s, json_incref(e->after ? e->after : e->before));
    (void)printf("%s: %s\n", e->plan.id, e->plan.is_changed ? done : "nothing to change");
    return CTL_OK;
}
