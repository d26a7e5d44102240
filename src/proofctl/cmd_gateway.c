/* The commands that ask a running gateway. */
#include "proofctl/commands.h"

#include "policy/token.h"
#include "proofctl/gateway_link.h"
#include "proofctl/token_text.h"

#include <openssl/crypto.h>

#include <stdio.h>
#include <unistd.h>

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "-";
}

/* NULL when there is none. */
static const char *error_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && *text ? text : NULL;
}

static long long number_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* Asks, prints the JSON when that is wanted, else leaves it to `print`. */
static enum ctl_exit ask_and_print(struct session *s, const char *method, const char *target,
                                   void (*print)(const json_t *answer))
{
    json_t *answer;
    enum ctl_exit code = gateway_ask(s, method, target, &answer);
    if (code != CTL_OK) return code;
    if (s->is_json) return session_print_json(s, answer);
    print(answer); /* main() looks at the state of stdout */
    json_decref(answer);
    return CTL_OK;
}

/* --- status --------------------------------------------------------------------------------------- */

static void print_certificates(const json_t *list)
{
    size_t i;
    const json_t *c;
    json_array_foreach(list, i, c)(void) printf("certificate   %s, %s %s (%s)\n", text_of(c, "names"),
                                                is_true(c, "expired") ? "EXPIRED" : "valid until",
                                                text_of(c, "not_after"), text_of(c, "file"));
}

static void print_status(const json_t *a)
{
    const json_t *store = json_object_get(a, "store"), *policy = json_object_get(a, "policy");
    const json_t *tunnels = json_object_get(a, "tunnels"), *config = json_object_get(a, "configuration");
    const json_t *failed = json_object_get(a, "failed_checks"), *check;
    size_t i;
    (void)printf("proofgw %s (%s), pid %lld, up %lld s since %s\n", text_of(a, "version"),
                 text_of(a, "commit"), number_of(a, "pid"), number_of(a, "uptime_s"),
                 text_of(a, "started_at"));
    (void)printf("ready         %s", is_true(a, "ready") ? "yes" : "NO:");
    json_array_foreach(failed, i, check)(void) printf(" %s", json_string_value(check));
    (void)printf("\nphase         %s\n", text_of(a, "phase"));
    (void)printf("workers       %lld\nconnections   %lld\n", number_of(a, "workers"),
                 number_of(a, "connections"));
    (void)printf("tunnels       %lld production, %lld sandbox\n", number_of(tunnels, "production"),
                 number_of(tunnels, "sandbox"));
    (void)printf("policy        generation %lld, %lld partners, %lld tokens, %lld prefixes\n",
                 number_of(policy, "generation"), number_of(policy, "partners"), number_of(policy, "tokens"),
                 number_of(policy, "prefixes"));
    (void)printf("store         %s, loaded %s, sequence %lld, staleness %lld ms\n",
                 is_true(store, "up") ? "up" : "AWAY", text_of(store, "loaded_at"),
                 number_of(store, "sequence"), number_of(store, "staleness_ms"));
    if (error_of(store, "last_error"))
        (void)printf("              last error: %s\n", error_of(store, "last_error"));
    if (number_of(store, "deletions_held"))
        (void)printf("              %lld deletions are held: proofctl confirm-deletions lets them through\n",
                     number_of(store, "deletions_held"));
    (void)printf("configuration generation %lld, in force since %s%s\n", number_of(config, "generation"),
                 text_of(config, "in_force_since"),
                 is_true(config, "last_reload_successful")
                     ? ""
                     : "; THE LAST RELOAD FAILED: its lines in the log say why");
    print_certificates(json_object_get(a, "certificates"));
    if (error_of(a, "certificates_refused"))
        (void)printf("              NEW ONES ARE REFUSED: %s\n", error_of(a, "certificates_refused"));
}

enum ctl_exit cmd_status(struct session *s)
{
    return ask_and_print(s, "GET", "/status", print_status);
}

/* --- explain -------------------------------------------------------------------------------------- */

static void print_list(const json_t *list)
{
    (void)printf("                %-10s  ", text_of(list, "environment"));
    if (is_true(list, "contains"))
        (void)printf("on the list: %s\n", text_of(list, "entry"));
    else if (json_object_get(list, "nearest"))
        (void)printf("not on the list; nearest entry: %s\n", text_of(list, "nearest"));
    else
        (void)printf("not on the list: it %s\n",
                     is_true(list, "empty") ? "is empty" : "has only addresses of the other family");
}

static void print_step(const json_t *step)
{
    static const char *const details[] = {
        "address",
        "believed_from",
        "peer",
        "connections_open",
        "connections_per_source",
        "path",
        "route",
        "host",
        "environment",
        "policy_generation",
        "partner_id",
        "slot",
        "valid_until",
        "shown",
        "accepted",
        "requests_under_way",
        "tunnels_open",
        "rate_per_partner",
        "burst_per_partner",
        "concurrency_per_partner",
        "tunnels_per_partner",
    };
    const json_t *lists = json_object_get(step, "lists"), *list, *value;
    size_t i;
    (void)printf("  %-12s  %-11s", text_of(step, "check"), text_of(step, "result"));
    for (i = 0; i < sizeof details / sizeof details[0]; i++) {
        if ((value = json_object_get(step, details[i])) == NULL) continue;
        if (json_is_integer(value))
            (void)printf("  %s %lld", details[i], (long long)json_integer_value(value));
        else if (json_is_boolean(value))
            (void)printf("  %s %s", details[i], json_is_true(value) ? "yes" : "no");
        else
            (void)printf("  %s %s", details[i], text_of(step, details[i]));
    }
    (void)putchar('\n');
    json_array_foreach(lists, i, list) print_list(list);
}

static void print_explanation(const json_t *a)
{
    const json_t *now = json_object_get(a, "now"), *steps, *step, *answer;
    size_t i;
    if (json_object_get(a, "request_id"))
        (void)printf("request %s was refused at %s: %s\n", text_of(a, "request_id"), text_of(a, "at"),
                     text_of(a, "reason_then"));
    if (json_is_null(now)) {
        (void)printf("what was sent as a token is not kept: it cannot be tried again\n");
        return;
    }
    if (now) {
        (void)printf("the same request now:\n");
        a = now;
    }
    answer = json_object_get(a, "answer");
    if (is_true(a, "allowed"))
        (void)printf("let in\n");
    else
        (void)printf("refused: %s\n%lld {\"error\": \"%s\", \"code\": \"%s\", \"message\": \"%s\"}\n",
                     text_of(a, "reason"), number_of(a, "status"), text_of(answer, "error"),
                     text_of(answer, "code"), text_of(answer, "message"));
    steps = json_object_get(a, "steps");
    json_array_foreach(steps, i, step) print_step(step);
}

/* The digest of the token on standard input, as text. */
static enum ctl_exit digest_of_stdin(const struct session *s, char hex[static 2 * TOKEN_DIGEST_BYTES + 1])
{
    char token[TOKEN_BYTES_MAX + 1]; /* one byte too many: nobody has it */
    uint8_t digest[TOKEN_DIGEST_BYTES];
    enum ctl_exit code = CTL_OK;
    ssize_t n = token_text_read(STDIN_FILENO, token, sizeof token);
    if (n <= 0)
        code = session_fail(s, CTL_FAILED, "there is no token on standard input");
    else if (token_text_digest(span_of(token, (size_t)n), digest))
        code = session_fail_memory(s);
    else
        token_text_hex(digest, hex);
    OPENSSL_cleanse(token, sizeof token);
    return code;
}

static enum ctl_exit add_token(const struct session *s, char target[static GATEWAY_TARGET_MAX])
{
    char hex[2 * TOKEN_DIGEST_BYTES + 1];
    const char *given = args_value(s->args, OPT_TOKEN_SHA256);
    if (args_has(s->args, OPT_TOKEN_STDIN)) {
        enum ctl_exit code = digest_of_stdin(s, hex);
        if (code != CTL_OK) return code;
        given = hex;
    }
    return !given || gateway_parameter(s, target, "token_sha256", given) ? CTL_OK : CTL_USAGE;
}

enum ctl_exit cmd_explain(struct session *s)
{
    char target[GATEWAY_TARGET_MAX] = "/explain";
    const char *id = args_value(s->args, OPT_REQUEST_ID), *host = args_value(s->args, OPT_HOST);
    const char *ip = args_value(s->args, OPT_CALLER), *path = args_value(s->args, OPT_PATH);
    const char *shown = args_value(s->args, OPT_CLIENT_CERT);
    bool has_token = args_has(s->args, OPT_TOKEN_STDIN) || args_has(s->args, OPT_TOKEN_SHA256);
    if (id ? (host || ip || path || shown || has_token) : (!host || !ip))
        return session_fail(s, CTL_USAGE, "give --host and --ip, or --request-id alone");
    bool is_good = id ? gateway_parameter(s, target, "request_id", id)
                      : gateway_parameter(s, target, "host", host) &&
                            gateway_parameter(s, target, "ip", ip) &&
                            (!path || gateway_parameter(s, target, "path", path)) &&
                            (!shown || gateway_parameter(s, target, "client_cert_sha256", shown));
    if (!is_good) return CTL_USAGE;
    enum ctl_exit code = id ? CTL_OK : add_token(s, target);
    return code == CTL_OK ? ask_and_print(s, "GET", target, print_explanation) : code;
}

/* --- tunnels -------------------------------------------------------------------------------------- */

static bool add_filter(const struct session *s, char target[static GATEWAY_TARGET_MAX])
{
    const char *partner = args_value(s->args, OPT_PARTNER), *id = args_value(s->args, OPT_REQUEST_ID);
    return (!partner || gateway_parameter(s, target, "partner", partner)) &&
           (!id || gateway_parameter(s, target, "request_id", id));
}

static void print_tunnels(const json_t *a)
{
    const json_t *list = json_object_get(a, "tunnels"), *t;
    size_t i;
    json_array_foreach(list, i, t)(void)
        printf("%s  %-20s  %-10s  %-15s  %8lld s  idle %6lld s  in %lld  out %lld\n",
               text_of(t, "request_id"), text_of(t, "partner_id"), text_of(t, "environment"),
               text_of(t, "client"), number_of(t, "age_ms") / 1000, number_of(t, "idle_ms") / 1000,
               number_of(t, "messages_in"), number_of(t, "messages_out"));
    if ((long long)json_array_size(list) < number_of(a, "count"))
        (void)printf("and %lld more\n", number_of(a, "count") - (long long)json_array_size(list));
}

enum ctl_exit cmd_tunnels_list(struct session *s)
{
    char target[GATEWAY_TARGET_MAX] = "/tunnels";
    return add_filter(s, target) ? ask_and_print(s, "GET", target, print_tunnels) : CTL_USAGE;
}

static void print_closed(const json_t *a)
{
    (void)printf("%lld tunnels are being closed (1012)\n", number_of(a, "count"));
}

enum ctl_exit cmd_tunnels_close(struct session *s)
{
    char target[GATEWAY_TARGET_MAX] = "/tunnels/close";
    const char *partner = args_value(s->args, OPT_PARTNER);
    bool is_all = args_has(s->args, OPT_ALL);
    if (!add_filter(s, target)) return CTL_USAGE;
    if (is_all == (strchr(target, '?') != NULL))
        return session_fail(s, CTL_USAGE, "give --partner or --request-id, or --all");
    if (is_all && !gateway_parameter(s, target, "all", "true")) return CTL_USAGE;
    if (!session_confirm(s,
                         partner  ? partner
                         : is_all ? "all partners"
                                  : "one tunnel",
                         "open tunnels end; well-made clients come back"))
        return CTL_FAILED;
    return ask_and_print(s, "POST", target, print_closed);
}

/* --- the process ---------------------------------------------------------------------------------- */

static void print_level(const json_t *a)
{
    (void)printf("lines from level %s on are written, until the next reload\n", text_of(a, "level"));
}

enum ctl_exit cmd_log_level(struct session *s)
{
    char target[GATEWAY_TARGET_MAX] = "/log-level";
    if (!gateway_parameter(s, target, "level", s->args->positional[0])) return CTL_USAGE;
    return ask_and_print(s, "POST", target, print_level);
}

static void print_plan(const json_t *a)
{
    (void)fputs(text_of(a, "text"), stdout);
}

enum ctl_exit cmd_reload(struct session *s)
{
    if (args_has(s->args, OPT_PLAN)) return ask_and_print(s, "GET", "/reload/plan", print_plan);
    return ask_and_print(s, "POST", "/reload", print_plan);
}

static void print_draining(const json_t *a)
{
    (void)puts(is_true(a, "draining") ? "draining" : "in service");
}

enum ctl_exit cmd_drain(struct session *s)
{
    if (!session_confirm(s, "this gateway", "load balancers will send it nobody, and its tunnels end"))
        return CTL_FAILED;
    return ask_and_print(s, "POST", "/drain", print_draining);
}

enum ctl_exit cmd_undrain(struct session *s)
{
    return ask_and_print(s, "POST", "/undrain", print_draining);
}

static void print_confirmed(const json_t *a)
{
    (void)printf("%lld deletions go through with the next load, which has begun\n",
                 number_of(a, "confirmed"));
}

/* Confirms the number that is shown; the gateway refuses when it has become another one meanwhile. */
enum ctl_exit cmd_confirm_deletions(struct session *s)
{
    json_t *status;
    char number[24], subject[64], target[GATEWAY_TARGET_MAX] = "/confirm-deletions";
    enum ctl_exit code = gateway_ask(s, "GET", "/status", &status);
    if (code != CTL_OK) return code;
    long long held = number_of(json_object_get(status, "store"), "deletions_held");
    json_decref(status);
    if (!held) return session_fail(s, CTL_FAILED, "no load is held: there is nothing to confirm");
    (void)snprintf(number, sizeof number, "%lld", held);                  /* fits */
    (void)snprintf(subject, sizeof subject, "%s held deletions", number); /* fits */
    if (!gateway_parameter(s, target, "partners", number)) return CTL_USAGE;
    if (!session_confirm(s, subject, "these partners lose their access on this gateway")) return CTL_FAILED;
    return ask_and_print(s, "POST", target, print_confirmed);
}
