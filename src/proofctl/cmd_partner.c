#include "proofctl/commands.h"

#include "proofctl/edit.h"
#include "proofctl/ident.h"
#include "proofctl/issue.h"
#include "proofctl/moment.h"
#include "proofctl/prefixes.h"
#include "proofctl/record_json.h"

#include <stdio.h>

/* --- add ------------------------------------------------------------------------------------------ */

/* Sets a key to the value of an option, when it was given. */
static enum ctl_exit set_option(struct session *s, json_t *record, const char *key, enum option o)
{
    const char *value = args_value(s->args, o);
    if (!value || record_json_set(record, key, value)) return CTL_OK;
    return session_fail(s, CTL_FAILED, "--%s is not valid UTF-8", option_defs[o].name);
}

static enum ctl_exit set_prefixes(struct session *s, json_t *record, enum environment env, enum option o)
{
    json_t *list = json_array();
    int failed = json_object_set_new(record, record_json_list_key(env), list);
    if (failed) return session_fail_memory(s);
    size_t at = 0;
    for (const char *value; (value = args_next(s->args, o, &at)) != NULL;)
        if (json_array_append_new(list, json_string(value)))
            return session_fail(s, CTL_FAILED, "--%s is not valid UTF-8", option_defs[o].name);
    return CTL_OK;
}

static enum ctl_exit set_names(struct session *s, json_t *record)
{
    char id[PARTNER_ID_MAX + 1], widget_id[IDENT_UUID_CHARS + 1];
    const char *chosen = args_value(s->args, OPT_ID);
    if (ident_partner_id(span_str(args_value(s->args, OPT_COMPANY)), id) || ident_uuid4(widget_id))
        return session_fail(s, CTL_FAILED, "the kernel gave no random bytes; nothing was changed");
    if (!record_json_set(record, "partner_id", chosen ? chosen : id))
        return session_fail(s, CTL_FAILED, "--id is not valid UTF-8");
    return record_json_set(record, "widget_id", widget_id) ? CTL_OK : session_fail_memory(s);
}

static enum ctl_exit fill_record(struct session *s, json_t *record, const struct issued *issued)
{
    enum ctl_exit code = set_names(s, record);
    if (code == CTL_OK) code = set_option(s, record, "company", OPT_COMPANY);
    if (code == CTL_OK) code = set_option(s, record, "contact", OPT_CONTACT);
    if (code == CTL_OK) code = set_option(s, record, "webhook_url", OPT_WEBHOOK);
    if (code == CTL_OK) code = set_prefixes(s, record, ENV_PRODUCTION, OPT_IP);
    if (code == CTL_OK) code = set_prefixes(s, record, ENV_SANDBOX, OPT_SANDBOX_IP);
    if (code != CTL_OK) return code;
    if (!record_json_set(record, record_json_token_key(SLOT_CURRENT), issued->digest) ||
        json_object_set_new(record, "off_ramp", json_boolean(args_has(s->args, OPT_OFF_RAMP))) ||
        json_object_set_new(record, "enabled", json_true()))
        return session_fail_memory(s);
    return CTL_OK;
}

/* {"production": ["https://api.example.com"], ...} for the environments that are configured. */
static json_t *base_urls(const struct config *config)
{
    json_t *urls = json_object();
    for (enum environment env = ENV_PRODUCTION; urls && config && env < ENV_COUNT; env++) {
        const struct config_environment *environment = &config->environments[env];
        if (!environment->present) continue;
        json_t *list = json_array();
        for (uint32_t i = 0; i < environment->nhosts; i++)
            (void)json_array_append_new(
                list, json_sprintf("https://%s", environment->hosts[i])); /* NULL is refused */
        if (json_object_set_new(urls, environment_name(env), list)) {
            json_decref(urls);
            return NULL;
        }
    }
    return urls;
}

/* A curl line that keeps the token out of the shell's history. */
static json_t *curl_line(const json_t *urls)
{
    const char *url =
        json_string_value(json_array_get(json_object_get(urls, environment_name(ENV_PRODUCTION)), 0));
    return json_sprintf(
        "read -rs TOKEN && curl -i -H \"Authorization: Bearer $TOKEN\" %s/widget/transactions/none",
        url ? url : "https://HOST");
}

static void print_urls(const json_t *urls)
{
    const char *env;
    json_t *list, *url;
    size_t i;
    json_object_foreach((json_t *)urls, env, list)
    {
        json_array_foreach(list, i, url)(void) printf(
            "%-13s %s\n", i ? "" : env, json_string_value(url)); /* issue_flush() looks at the result */
    }
}

static enum ctl_exit print_added(struct session *s, const struct partner *p, const struct issued *issued)
{
    json_t *urls = base_urls(s->config), *curl = curl_line(urls);
    enum ctl_exit code = CTL_OK;
    char widget_id[UUID_LEN + 1] = {0};
    uuid_format(p->widget_id, widget_id);
    if (s->is_json) {
        code = issue_print_json(s, issued, p->id,
                                json_pack("{s:s, s:s, s:O, s:O}", "partner_id", p->id, "widget_id", widget_id,
                                          "base_urls", urls, "curl", curl));
    } else {
        (void)printf("partner_id    %s\nclient_token  %s\nwidget_id     %s\n", p->id, issued->token,
                     widget_id);
        print_urls(urls);
        (void)printf("\nThe token is not shown again. To try it from an allowed address (paste it, then "
                     "Enter):\n  %s\n",
                     curl ? json_string_value(curl) : "");
    }
    json_decref(urls);
    json_decref(curl);
    return code == CTL_OK ? issue_flush(s, issued, p->id) : code;
}

static enum ctl_exit add(struct session *s, struct edit *e, const struct issued *issued)
{
    enum ctl_exit code = fill_record(s, e->record, issued);
    if (code == CTL_OK) code = edit_check(s, e);
    for (enum environment env = ENV_PRODUCTION; code == CTL_OK && env < ENV_COUNT; env++)
        code = prefixes_check_new(s, &e->becomes.partner, env, 0);
    if (code == CTL_OK) code = edit_commit(s, "partner add", e);
    bool is_issued = code == CTL_OK || s->backend->is_outcome_unknown;
    return is_issued ? print_added(s, &e->becomes.partner, issued) : code;
}

enum ctl_exit cmd_partner_add(struct session *s)
{
    static const enum option needed[] = {OPT_COMPANY, OPT_CONTACT, OPT_IP};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        const struct option_def *def = &option_defs[needed[i]];
        if (!args_has(s->args, needed[i]))
            return session_fail(s, CTL_USAGE, "partner add needs --%s %s", def->name, def->value);
    }
    struct edit e;
    struct issued issued;
    enum ctl_exit code = edit_new(s, &e);
    if (code == CTL_OK) code = issue_token(s, &issued);
    if (code == CTL_OK) code = add(s, &e, &issued);
    issue_wipe(&issued);
    edit_deinit(&e);
    return code;
}

/* --- list, show ----------------------------------------------------------------------------------- */

struct listing {
    struct session *session;
    size_t n;
};

static enum err list_one(void *arg, const struct backend_record *r)
{
    struct listing *l = arg;
    struct record_report report = {0};
    struct partner_record record;
    if (!r->json.p) return ERR_OK; /* cmd_partner_list() says why */
    enum err e = record_parse(r->json, 1, &record, &report);
    if (e) return e;
    const struct partner *p = &record.partner;
    if (l->session->is_json) {
        json_t *view = record_json_view(&record, l->session->now_ms);
        (void)fputs(l->n ? ",\n" : "[\n", stdout); /* main() looks at the state of stdout at the end */
        if (!view || json_dumpf(view, stdout, 0)) e = ERR_NOMEM;
        json_decref(view);
    } else {
        bool has_previous = p->has_token[SLOT_PREVIOUS] && p->previous_expires_ms > l->session->now_ms;
        if (l->n == 0)
            (void)printf("%-32s %-8s %10s %7s %-8s %s\n", "PARTNER_ID", "STATE", "PRODUCTION", "SANDBOX",
                         "PREVIOUS", "COMPANY");
        (void)printf("%-32s %-8s %10u %7u %-8s %s\n", p->id, p->enabled ? "enabled" : "disabled",
                     p->ncidrs[ENV_PRODUCTION], p->ncidrs[ENV_SANDBOX], has_previous ? "valid" : "-",
                     record.company);
    }
    l->n++;
    record_deinit(&record);
    return e;
}

enum ctl_exit cmd_partner_list(struct session *s)
{
    struct listing l = {.session = s};
    enum err e = s->backend->ops->list(s->backend, list_one, &l);
    bool has_result = !e || (e == ERR_PARSE && l.n > 0); /* Redis: what is valid is there */
    if (has_result && s->is_json) (void)fputs(l.n ? "\n]\n" : "[]\n", stdout);
    return e ? session_fail_backend(s, e) : CTL_OK;
}

static void print_list(const char *name, const json_t *list)
{
    size_t i;
    json_t *prefix;
    if (json_array_size(list) == 0) (void)printf("%-15s nobody\n", name);
    json_array_foreach((json_t *)list, i, prefix)(void)
        printf("%-15s %s\n", i ? "" : name, json_string_value(prefix));
}

static void print_tokens(const struct session *s, const json_t *view, const struct partner *p)
{
    char end[MOMENT_TEXT_MAX], words[MOMENT_TEXT_MAX];
    const json_t *current = json_object_get(view, "current_token"),
                 *previous = json_object_get(view, "previous_token");
    if (json_is_null(current))
        (void)printf("%-15s none: it was revoked; `proofctl token rotate` issues one\n", "current token");
    else
        (void)printf("%-15s fingerprint %s\n", "current token",
                     json_string_value(json_object_get(current, "fingerprint")));
    if (json_is_null(previous)) return;
    (void)printf("%-15s fingerprint %s, %s %s (%s)\n", "previous token",
                 json_string_value(json_object_get(previous, "fingerprint")),
                 p->previous_expires_ms > s->now_ms ? "valid until" : "ended at",
                 moment_rfc3339(p->previous_expires_ms, end),
                 moment_in_words(p->previous_expires_ms, s->now_ms, words));
}

static void print_view(const struct session *s, const json_t *view, const struct partner *p)
{
    static const char *const texts[] = {"partner_id", "company", "contact", "widget_id", "webhook_url"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = json_string_value(json_object_get(view, texts[i]));
        (void)printf("%-15s %s\n", texts[i], text ? text : "-");
    }
    (void)printf("%-15s %s\n%-15s %s\n", "enabled", p->enabled ? "yes" : "no", "off_ramp",
                 p->off_ramp ? "yes" : "no");
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++)
        print_list(environment_name(env), json_object_get(view, record_json_list_key(env)));
    print_tokens(s, view, p);
    if (p->ncertificates) print_list("certificates", json_object_get(view, "client_certificate_sha256"));
}

enum ctl_exit cmd_partner_show(struct session *s)
{
    struct edit e;
    enum ctl_exit code = edit_load(s, s->args->positional[0], &e);
    json_t *view = code == CTL_OK ? record_json_view(&e.was, s->now_ms) : NULL;
    if (code == CTL_OK && (!view || s->is_json))
        code = session_print_json(s, view);
    else if (code == CTL_OK) {
        print_view(s, view, &e.was.partner);
        json_decref(view);
    }
    edit_deinit(&e);
    return code;
}

/* --- change --------------------------------------------------------------------------------------- */

/* All that are given become the list; `none` alone empties it. The validator judges the fingerprints. */
static enum ctl_exit set_certificates(struct session *s, json_t *record)
{
    static const char key[] = "client_certificate_sha256";
    const char *value;
    bool is_none = false;
    size_t at = 0;
    if (!args_has(s->args, OPT_CLIENT_CERT)) return CTL_OK;
    json_t *list = json_array();
    if (json_object_set_new(record, key, list)) return session_fail_memory(s);
    while ((value = args_next(s->args, OPT_CLIENT_CERT, &at)) != NULL) {
        is_none |= strcmp(value, "none") == 0;
        if (json_array_append_new(list, json_string(value)))
            return session_fail(s, CTL_FAILED, "--%s is not valid UTF-8", option_defs[OPT_CLIENT_CERT].name);
    }
    if (!is_none) return CTL_OK;
    if (json_array_size(list) > 1)
        return session_fail(s, CTL_USAGE, "--%s none goes alone, because it takes every fingerprint away",
                            option_defs[OPT_CLIENT_CERT].name);
    (void)record_json_set(record, key, NULL); /* deleting cannot fail */
    return CTL_OK;
}

static enum ctl_exit apply_settings(struct session *s, json_t *record)
{
    const char *off_ramp = args_value(s->args, OPT_OFF_RAMP_SWITCH),
               *webhook = args_value(s->args, OPT_WEBHOOK);
    bool is_on = off_ramp && strcmp(off_ramp, "on") == 0;
    enum ctl_exit code = set_option(s, record, "company", OPT_COMPANY);
    if (code == CTL_OK) code = set_option(s, record, "contact", OPT_CONTACT);
    if (code == CTL_OK && webhook && strcmp(webhook, "none") == 0)
        (void)record_json_set(record, "webhook_url", NULL); /* deleting cannot fail */
    else if (code == CTL_OK)
        code = set_option(s, record, "webhook_url", OPT_WEBHOOK);
    if (code == CTL_OK) code = set_certificates(s, record);
    if (code != CTL_OK || !off_ramp) return code;
    if (!is_on && strcmp(off_ramp, "off") != 0)
        return session_fail(s, CTL_USAGE, "--off-ramp must be on or off");
    return json_object_set_new(record, "off_ramp", json_boolean(is_on)) ? session_fail_memory(s) : CTL_OK;
}

enum ctl_exit cmd_partner_set(struct session *s)
{
    struct edit e;
    if (!args_has(s->args, OPT_COMPANY) && !args_has(s->args, OPT_CONTACT) &&
        !args_has(s->args, OPT_WEBHOOK) && !args_has(s->args, OPT_OFF_RAMP_SWITCH) &&
        !args_has(s->args, OPT_CLIENT_CERT))
        return session_fail(
            s, CTL_USAGE,
            "partner set needs something to set: --company, --contact, --webhook, --off-ramp or "
            "--client-cert-sha256");
    enum ctl_exit code = edit_load(s, s->args->positional[0], &e);
    if (code == CTL_OK) code = apply_settings(s, e.record);
    if (code == CTL_OK) code = edit_finish(s, "partner set", &e, "changed");
    edit_deinit(&e);
    return code;
}

static enum ctl_exit set_enabled(struct session *s, bool is_enabled, const char *action, const char *done)
{
    struct edit e;
    enum ctl_exit code = edit_load(s, s->args->positional[0], &e);
    if (code == CTL_OK && json_object_set_new(e.record, "enabled", json_boolean(is_enabled)))
        code = session_fail_memory(s);
    if (code == CTL_OK) code = edit_finish(s, action, &e, done);
    edit_deinit(&e);
    return code;
}

enum ctl_exit cmd_partner_disable(struct session *s)
{
    return set_enabled(s, false, "partner disable", "disabled");
}

enum ctl_exit cmd_partner_enable(struct session *s)
{
    return set_enabled(s, true, "partner enable", "enabled");
}

enum ctl_exit cmd_partner_remove(struct session *s)
{
    struct edit e;
    enum ctl_exit code = edit_load(s, s->args->positional[0], &e);
    e.plan.removes = true;
    if (code == CTL_OK) code = edit_finish(s, "partner remove", &e, "removed");
    edit_deinit(&e);
    return code;
}
