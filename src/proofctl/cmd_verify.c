#include "proofctl/commands.h"

#include "proofctl/audit_line.h"
#include "proofctl/printable.h"
#include "proofctl/record_json.h"

#include <stdio.h>
#include <stdlib.h>

/* --- counting ------------------------------------------------------------------------------------- */

struct count {
    struct session *session;
    json_t *warnings; /* owned; NULL without --json */
    json_int_t partners, enabled, previous, prefixes[ENV_COUNT];
    char first[PARTNER_ID_MAX + 1]; /* a record that is valid; "" = none */
};

static enum err count_one(void *arg, const struct backend_record *r)
{
    struct count *c = arg;
    struct record_report report = {0};
    struct partner_record record;
    if (!r->json.p) return ERR_OK; /* the check names it */
    enum err e = record_parse(r->json, 1, &record, &report);
    if (e) return e;
    const struct partner *p = &record.partner;
    if (!c->first[0]) memcpy(c->first, p->id, sizeof c->first);
    c->partners++;
    c->enabled += p->enabled;
    c->previous += p->has_token[SLOT_PREVIOUS] && p->previous_expires_ms > c->session->now_ms;
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++)
        c->prefixes[env] += p->ncidrs[env];
    for (uint32_t i = 0; i < report.warnings.n; i++) {
        progress_clear(&c->session->progress);
        session_note(c->session, "%s: warning: %s", r->id, report.warnings.list[i].text);
        if (c->warnings)
            (void)json_array_append_new(c->warnings,
                                        json_sprintf("%s: %s", r->id, report.warnings.list[i].text));
    }
    record_deinit(&record);
    return ERR_OK;
}

/* --- findings ------------------------------------------------------------------------------------- */

struct finding {
    char *id;   /* owned; NULL = the data set as a whole */
    char *text; /* owned */
    enum backend_remedy remedy;
    struct backend_version version;
};

struct findings {
    struct finding *list; /* owned */
    size_t n, cap;
};

static enum err keep_finding(void *arg, const struct backend_finding *f)
{
    struct findings *all = arg;
    if (all->n == all->cap) {
        size_t cap = all->cap ? 2 * all->cap : 64;
        struct finding *grown = realloc(all->list, cap * sizeof *grown);
        if (!grown) return ERR_NOMEM;
        all->list = grown;
        all->cap = cap;
    }
    struct finding copy = {f->id ? strdup(f->id) : NULL, strdup(f->text), f->remedy, f->version};
    if (!copy.text || (f->id && !copy.id)) {
        free(copy.id);
        free(copy.text);
        return ERR_NOMEM;
    }
    all->list[all->n++] = copy;
    return ERR_OK;
}

static void findings_deinit(struct findings *all)
{
    for (size_t i = 0; i < all->n; i++) {
        free(all->list[i].id);
        free(all->list[i].text);
    }
    free(all->list);
    *all = (struct findings){0};
}

static size_t count_remedy(const struct findings *all, enum backend_remedy remedy)
{
    size_t n = 0;
    for (size_t i = 0; i < all->n; i++)
        n += all->list[i].remedy == remedy;
    return n;
}

static enum ctl_exit find(struct session *s, struct findings *all)
{
    findings_deinit(all);
    if (!s->backend->ops->check) return CTL_OK;
    enum err e = s->backend->ops->check(s->backend, keep_finding, all);
    return e ? session_fail_backend(s, e) : CTL_OK;
}

/* --- repairing ------------------------------------------------------------------------------------ */

/* Writes the record as it stands, or removes the one that is not there. */
static enum ctl_exit repair_record(struct session *s, const char *id, const struct backend_version *removed)
{
    struct backend_record found = {.json = {0}};
    struct partner_record record;
    struct record_report ignored = {0};
    json_t *view = NULL;
    enum err e = removed ? ERR_OK : s->backend->ops->get(s->backend, id, &found);
    if (e == ERR_NOT_FOUND) return CTL_OK; /* removed meanwhile, and that is as good */
    if (!e && !removed && !(e = record_parse(found.json, 1, &record, &ignored))) {
        view = record_json_view(&record, s->now_ms);
        record_deinit(&record);
    }
    char *text = removed || e ? NULL : strndup(found.json.p, found.json.n);
    char *audit = e ? NULL : audit_line(s, "repair", id, NULL, view);
    json_decref(view);
    if (!e && (!audit || (!removed && !text))) e = ERR_NOMEM;
    if (!e) {
        const struct backend_version version = removed ? *removed : found.version;
        const struct backend_change change = {.id = id,
                                              .expected = &version,
                                              .json = text ? span_str(text) : (struct span){0},
                                              .audit = span_str(audit)};
        e = s->backend->ops->commit(s->backend, &change, 1);
        if (!e) s->committed = s->backend->sequence;
    }
    free(text);
    free(audit);
    return e ? session_fail_backend(s, e) : CTL_OK;
}

static enum ctl_exit mend(struct session *s)
{
    char *audit = audit_line(s, "repair", NULL, NULL, NULL);
    if (!audit) return session_fail_memory(s);
    enum err e = s->backend->ops->mend(s->backend, span_str(audit));
    free(audit);
    return e ? session_fail_backend(s, e) : CTL_OK;
}

/* After mending, the log must end with the count and digest that are right now: with any write. */
static enum ctl_exit repair(struct session *s, const struct findings *all, const char *first)
{
    size_t nremove = count_remedy(all, REMEDY_REMOVE), nrewrite = count_remedy(all, REMEDY_REWRITE);
    bool must_mend = nremove > 0 || count_remedy(all, REMEDY_MEND) > 0;
    enum ctl_exit code = must_mend ? mend(s) : CTL_OK;
    for (size_t i = 0; code == CTL_OK && i < all->n; i++) {
        const struct finding *f = &all->list[i];
        if (f->remedy == REMEDY_REMOVE)
            code = repair_record(s, f->id, &f->version);
        else if (f->remedy == REMEDY_REWRITE)
            code = repair_record(s, f->id, NULL);
    }
    if (code == CTL_OK && must_mend && nremove + nrewrite == 0 && *first)
        code = repair_record(s, first, NULL);
    return code;
}

static void print_findings(const struct findings *all)
{
    for (size_t i = 0; i < all->n; i++) {
        const struct finding *f = &all->list[i];
        (void)printf("%s%s", f->id ? f->id : "", f->id ? ": " : ""); /* main() looks at the state of stdout */
        printable_put(f->text, stdout);
        (void)putchar('\n');
    }
}

static enum ctl_exit find_and_repair(struct session *s, struct findings *all, const char *first,
                                     size_t *nrepaired)
{
    char subject[120];
    enum ctl_exit code = find(s, all);
    size_t n = all->n - count_remedy(all, REMEDY_NONE);
    *nrepaired = 0;
    if (code != CTL_OK || n == 0 || !args_has(s->args, OPT_REPAIR)) return code;
    if (!s->is_json) print_findings(all); /* nobody should agree to what was not shown */
    (void)fflush(stdout);
    (void)snprintf(subject, sizeof subject, "%zu difference%s", n, n == 1 ? "" : "s"); /* fits */
    if (!session_confirm(s, subject,
                         "records that were changed or removed by hand come into force as they stand"))
        return CTL_FAILED;
    code = repair(s, all, first);
    if (code == CTL_OK) code = find(s, all);
    *nrepaired = n;
    return code;
}

/* --- the command ---------------------------------------------------------------------------------- */

static const char *remedy_name(enum backend_remedy remedy)
{
    switch (remedy) {
    case REMEDY_NONE: return NULL;
    case REMEDY_MEND: return "mend";
    case REMEDY_REWRITE: return "rewrite";
    case REMEDY_REMOVE: return "remove";
    }
    return NULL;
}

static json_t *json_findings(const struct findings *all)
{
    json_t *list = json_array();
    bool is_ok = list != NULL;
    for (size_t i = 0; is_ok && i < all->n; i++) {
        const struct finding *f = &all->list[i];
        is_ok = json_array_append_new(list, json_pack("{s:s?, s:s, s:s?}", "partner_id", f->id, "problem",
                                                      f->text, "remedy", remedy_name(f->remedy))) == 0;
    }
    if (is_ok) return list;
    json_decref(list);
    return NULL;
}

static enum ctl_exit print_json(struct session *s, struct count *c, const struct findings *all,
                                size_t nrepaired)
{
    json_t *warnings = c->warnings;
    c->warnings = NULL;
    enum ctl_exit code = session_print_json(
        s, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:I}", "store", s->backend->place, "partners",
                     c->partners, "enabled", c->enabled, "previous_tokens_valid", c->previous,
                     "production_prefixes", c->prefixes[ENV_PRODUCTION], "sandbox_prefixes",
                     c->prefixes[ENV_SANDBOX], "warnings", warnings, "findings", json_findings(all),
                     "repaired", (json_int_t)nrepaired));
    return code == CTL_OK && all->n > 0 ? CTL_FAILED : code;
}

static enum ctl_exit print_text(struct session *s, const struct count *c, const struct findings *all,
                                size_t nrepaired)
{
    print_findings(all);
    if (nrepaired) (void)printf("repaired: %zu\n", nrepaired);
    (void)printf("%s: %s: partners %lld, enabled %lld, previous tokens in their grace period %lld, "
                 "production prefixes %lld, "
                 "sandbox prefixes %lld\n",
                 s->backend->place, all->n ? "not in order" : "ok", (long long)c->partners,
                 (long long)c->enabled, (long long)c->previous, (long long)c->prefixes[ENV_PRODUCTION],
                 (long long)c->prefixes[ENV_SANDBOX]);
    if (all->n == 0) return CTL_OK;
    size_t nmendable = all->n - count_remedy(all, REMEDY_NONE);
    return session_fail(s, CTL_FAILED, "%zu difference%s; %s", all->n, all->n == 1 ? "" : "s",
                        nmendable ? "`proofctl verify --repair` mends what can be mended"
                                  : "nothing of that can be mended without you");
}

enum ctl_exit cmd_verify(struct session *s)
{
    struct count c = {.session = s, .warnings = s->is_json ? json_array() : NULL};
    struct findings all = {0};
    size_t nrepaired = 0;
    bool has_check = s->backend->ops->check != NULL;
    if (args_has(s->args, OPT_REPAIR) && !has_check)
        return session_fail(s, CTL_USAGE,
                            "--repair is for partners in Redis: edit the file, or import over it");
    enum err e = s->backend->ops->list(s->backend, count_one, &c);
    bool is_listed = !e || (e == ERR_PARSE && has_check); /* the check names what is not valid as well */
    enum ctl_exit code =
        is_listed ? find_and_repair(s, &all, c.first, &nrepaired) : session_fail_backend(s, e);
    if (code == CTL_OK)
        code = s->is_json ? print_json(s, &c, &all, nrepaired) : print_text(s, &c, &all, nrepaired);
    json_decref(c.warnings);
    findings_deinit(&all);
    return code;
}
