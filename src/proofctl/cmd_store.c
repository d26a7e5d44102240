#include "proofctl/commands.h"

#include "proofctl/audit_line.h"
#include "proofctl/gateways.h"
#include "proofctl/printable.h"
#include "proofctl/redis_acl.h"
#include "proofctl/token_text.h"
#include "store/secret_file.h"

#include <openssl/crypto.h>

#include <stdio.h>
#include <stdlib.h>

enum { ACL_LINE_MAX = 1024 };

static enum ctl_exit fail_no_redis(struct session *s)
{
    return session_fail(s, CTL_USAGE, "%s is for partners in Redis, and these are in a file (%s)",
                        s->args->command->words, s->backend->place);
}

/* --- init ----------------------------------------------------------------------------------------- */

enum ctl_exit cmd_init(struct session *s)
{
    if (!s->backend->ops->init) return fail_no_redis(s);
    char *audit = audit_line(s, "init", NULL, NULL, NULL);
    if (!audit) return session_fail_memory(s);
    enum err e = s->backend->ops->init(s->backend, span_str(audit));
    free(audit);
    if (e) return session_fail_backend(s, e);
    if (s->is_json) return session_print_json(s, json_pack("{s:s}", "store", s->backend->place));
    (void)printf("%s: ready for partners\n", s->backend->place);
    return CTL_OK;
}

/* --- acl ------------------------------------------------------------------------------------------ */

/* The name of the user: the one that the configuration logs in with, where it says so. */
static const char *acl_user(const struct session *s, enum acl_role role)
{
    const struct config_redis *redis = &s->config->store.redis;
    const char *operator_name = args_value(s->args, OPT_USER);
    switch (role) {
    case ACL_GATEWAY: return redis->user ? redis->user : acl_role_name(role);
    case ACL_OPERATOR: return operator_name ? operator_name : acl_role_name(role);
    case ACL_ASKER: return redis->sentinel_user ? redis->sentinel_user : acl_role_name(role);
    case ACL_DEFAULT:
    case ACL_ADMIN:
    case ACL_SENTINEL:
    case ACL_REPLICA:
    case ACL_ROLES: break;
    }
    return acl_role_name(role);
}

static enum ctl_exit hash_password(struct session *s, const char *path, char out[static 2 * 32 + 1])
{
    char password[SECRET_ROOM];
    uint8_t digest[TOKEN_DIGEST_BYTES];
    struct errmsg why;
    if (secret_file_read(path, password, &why)) return session_fail(s, CTL_FAILED, "%s", why.text);
    enum err e = token_text_digest(span_str(password), digest); /* Redis keeps passwords as SHA-256 too */
    OPENSSL_cleanse(password, sizeof password);
    if (e) return session_fail_memory(s);
    token_text_hex(digest, out);
    return CTL_OK;
}

static void write_line(const struct session *s, enum acl_role role, const char *hash,
                       char out[static ACL_LINE_MAX])
{
    struct outbuf o = outbuf_of(out, ACL_LINE_MAX - 1);
    acl_line(role, acl_user(s, role), hash, s->config->store.redis.tag, &o);
    BUG_IF(o.overflow, "an ACL line is longer than its buffer"); /* names and tags are short */
    out[o.n] = '\0';
}

static const char *place_of(enum acl_role role)
{
    return acl_role_is_of_sentinels(role) ? "sentinel" : "redis";
}

static enum ctl_exit print_all_json(struct session *s)
{
    json_t *list = json_array();
    bool is_ok = list != NULL;
    for (enum acl_role role = 0; is_ok && role < ACL_ROLES; role++) {
        char line[ACL_LINE_MAX];
        write_line(s, role, NULL, line);
        is_ok = json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "role", acl_role_name(role),
                                                      "server", place_of(role), "line", line)) == 0;
    }
    if (is_ok) return session_print_json(s, list);
    json_decref(list);
    return session_fail_memory(s);
}

static enum ctl_exit print_all(struct session *s)
{
    if (s->is_json) return print_all_json(s);
    (void)puts(
        "# in Redis (redis.conf); a user without a password cannot log in yet: see `proofctl acl --help`");
    for (enum acl_role role = 0; role < ACL_ROLES; role++) {
        char line[ACL_LINE_MAX];
        write_line(s, role, NULL, line);
        if (acl_role_is_of_sentinels(role)) (void)puts("# in each Sentinel (sentinel.conf)");
        (void)puts(line); /* main() looks at the state of stdout */
    }
    return CTL_OK;
}

static enum ctl_exit print_one(struct session *s, enum acl_role role)
{
    char line[ACL_LINE_MAX], hash[2 * TOKEN_DIGEST_BYTES + 1];
    const char *path = args_value(s->args, OPT_LINE_PASSWORD);
    if (path && !acl_role_has_password(role))
        return session_fail(s, CTL_USAGE, "nobody logs in as %s: leave --password-file out",
                            acl_role_name(role));
    enum ctl_exit code = path ? hash_password(s, path, hash) : CTL_OK;
    if (code != CTL_OK) return code;
    write_line(s, role, path ? hash : NULL, line);
    if (s->is_json)
        return session_print_json(s, json_pack("{s:s, s:s, s:s}", "role", acl_role_name(role), "server",
                                               place_of(role), "line", line));
    (void)puts(line);
    return CTL_OK;
}

enum ctl_exit cmd_acl(struct session *s)
{
    const char *name = args_value(s->args, OPT_ROLE);
    if (s->config->store.kind != STORE_REDIS)
        return session_fail(s, CTL_USAGE, "%s keeps its partners in a file: there are no users",
                            s->config->path);
    if (!name && args_has(s->args, OPT_LINE_PASSWORD))
        return session_fail(s, CTL_USAGE, "--password-file is of one user: name it with --role");
    if (!name) return print_all(s);
    for (enum acl_role role = 0; role < ACL_ROLES; role++)
        if (strcmp(name, acl_role_name(role)) == 0) return print_one(s, role);
    return session_fail(s, CTL_USAGE, "--role must be one of: %s", option_defs[OPT_ROLE].choices);
}

/* --- gateways ------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *report, const char *key, char *out, size_t cap)
{
    return printable(json_string_value(json_object_get(report, key)), out, cap);
}

static long long number_of(const json_t *report, const char *key)
{
    return (long long)json_integer_value(json_object_get(report, key));
}

static void print_report(const json_t *report)
{
    char instance[64], version[24], state[16], host[64];
    (void)printf("%-24s %-12s %-8s %10lld %8lld %8lld.%03lld %9lld  %s\n",
                 text_of(report, "instance", instance, sizeof instance),
                 text_of(report, "version", version, sizeof version),
                 text_of(report, "state", state, sizeof state), number_of(report, "seq"),
                 number_of(report, "lag"), number_of(report, "staleness_ms") / 1000,
                 number_of(report, "staleness_ms") % 1000, number_of(report, "partners"),
                 text_of(report, "host", host, sizeof host));
}

enum ctl_exit cmd_gateways(struct session *s)
{
    size_t i;
    json_t *report;
    enum ctl_exit code;
    if (!s->backend->ops->gateways) return fail_no_redis(s);
    json_t *reports = gateways_list(s, &code);
    if (!reports) return code;
    if (s->is_json) return session_print_json(s, reports);
    if (json_array_size(reports) == 0)
        (void)puts("no gateway is reporting");
    else
        (void)printf("%-24s %-12s %-8s %10s %8s %12s %9s  %s\n", "INSTANCE", "VERSION", "STATE", "POSITION",
                     "LAG", "STALE_S", "PARTNERS", "HOST");
    json_array_foreach(reports, i, report) print_report(report);
    json_decref(reports);
    return CTL_OK;
}
