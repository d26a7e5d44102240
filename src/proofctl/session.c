#include "proofctl/session.h"

#include "base/clock.h"
#include "gw_version.h"
#include "proofctl/printable.h"
#include "store/record_value.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ANSWER_MAX = 16, WAIT_SECONDS_DEFAULT = 5, WAIT_SECONDS_MAX = 600 };

/* --- talking -------------------------------------------------------------------------------------- */

static const char *exit_name(enum ctl_exit code)
{
    switch (code) {
    case CTL_OK: return "ok";
    case CTL_FAILED: return "failed";
    case CTL_USAGE: return "usage";
    case CTL_UNAVAILABLE: return "unavailable";
    case CTL_CONFLICT: return "conflict";
    case CTL_PENDING: return "pending";
    }
    return "failed";
}

static void print_json_string(const char *text)
{
    size_t room = 6 * strlen(text) + 2; /* each byte as \u00XX, and the quotes */
    char *memory = malloc(room);
    struct outbuf o = outbuf_of(memory, memory ? room : 0);
    outbuf_json(&o, span_str(text));
    (void)fwrite(o.p, 1, o.n, stderr); /* there is nowhere to report a failure of stderr */
    if (!memory) (void)fputs("\"out of memory\"", stderr);
    free(memory);
}

/* Prints messages one a line, or as one JSON object. */
static void print_messages(const struct session *s, enum ctl_exit code, const char *const *texts, size_t n)
{
    if (s->is_json) (void)fprintf(stderr, "{\"error\": \"%s\", \"messages\": [", exit_name(code));
    for (size_t i = 0; i < n; i++) {
        if (!s->is_json) {
            (void)fputs("proofctl: ", stderr);
            printable_put(texts[i], stderr);
            (void)fputc('\n', stderr);
            continue;
        }
        if (i > 0) (void)fputs(", ", stderr);
        print_json_string(texts[i]);
    }
    if (s->is_json) (void)fputs("]}\n", stderr);
}

enum ctl_exit session_fail(const struct session *s, enum ctl_exit code, const char *format, ...)
{
    char *text; /* as long as it must be: a gateway may have many reasons to refuse a file */
    va_list args;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) text = NULL;
    va_end(args);
    const char *texts[] = {text ? text : "out of memory"};
    print_messages(s, code, texts, 1);
    free(text);
    return code;
}

enum ctl_exit session_fail_memory(const struct session *s)
{
    return session_fail(s, CTL_FAILED, "out of memory; nothing was changed");
}

/* "FILE:12:239: text". NULL when memory is out. */
static char *place_message(const char *place, const struct errmsg *m)
{
    char *text = NULL;
    int n;
    if (!place)
        n = asprintf(&text, "%s", m->text);
    else if (m->line && m->column)
        n = asprintf(&text, "%s:%u:%u: %s", place, m->line, m->column, m->text);
    else if (m->line)
        n = asprintf(&text, "%s:%u: %s", place, m->line, m->text);
    else
        n = asprintf(&text, "%s: %s", place, m->text);
    return n < 0 ? NULL : text;
}

enum ctl_exit session_fail_messages(const struct session *s, enum ctl_exit code, const char *place,
                                    const struct record_messages *messages)
{
    char *texts[RECORD_MESSAGES_MAX + 1] = {NULL};
    size_t n = 0;
    for (uint32_t i = 0; i < messages->n; i++)
        if ((texts[n] = place_message(place, &messages->list[i])) != NULL) n++;
    if (messages->total > messages->n &&
        asprintf(&texts[n], "and %" PRIu64 " more", messages->total - messages->n) >= 0)
        n++;
    print_messages(s, code, (const char *const *)texts, n);
    for (size_t i = 0; i < n; i++)
        free(texts[i]);
    return code;
}

enum ctl_exit session_fail_backend(const struct session *s, enum err e)
{
    if (e == ERR_NOMEM) return session_fail_memory(s);
    enum ctl_exit code = e == ERR_CONFLICT      ? CTL_CONFLICT
                         : e == ERR_UNREACHABLE ? CTL_UNAVAILABLE
                                                : CTL_FAILED;
    bool is_about_place = e == ERR_IO || e == ERR_NOT_FOUND || e == ERR_PARSE || e == ERR_TIMEOUT ||
                          e == ERR_UNREACHABLE || e == ERR_REFUSED;
    return session_fail_messages(s, code, is_about_place ? s->backend->place : NULL, &s->backend->faults);
}

void session_note(const struct session *s, const char *format, ...)
{
    va_list args;
    if (s->is_json) return; /* stderr is for failures there, and a note is none */
    va_start(args, format);
    (void)fputs("proofctl: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
}

bool session_confirm(const struct session *s, const char *subject, const char *what)
{
    char answer[ANSWER_MAX];
    if (args_has(s->args, OPT_YES)) return true;
    if (!isatty(STDIN_FILENO)) {
        (void)session_fail(s, CTL_FAILED,
                           "%s: %s; nothing was changed: add --yes to do this without a terminal to ask on",
                           subject, what);
        return false;
    }
    (void)fprintf(stderr, "%s: %s. Go on? [y/N] ", subject, what);
    (void)fflush(stderr);
    bool is_yes = fgets(answer, sizeof answer, stdin) && (ascii_lower(answer[0]) == 'y') &&
                  (answer[1] == '\n' || strcmp(answer + 1, "es\n") == 0);
    if (!is_yes) (void)session_fail(s, CTL_FAILED, "nothing was changed");
    return is_yes;
}

void session_hold_signals(struct session *s)
{
    sigset_t all;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, &s->mask); /* cannot fail with these arguments */
}

void session_release_signals(const struct session *s)
{
    (void)sigprocmask(SIG_SETMASK, &s->mask, NULL); /* nor with these */
}

enum ctl_exit session_print_json(const struct session *s, json_t *value)
{
    if (!value) return session_fail(s, CTL_FAILED, "the result cannot be printed: out of memory");
    int failed = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    json_decref(value);
    (void)putchar('\n'); /* main() looks at the state of stdout at the end */
    return failed ? session_fail(s, CTL_FAILED, "the result cannot be printed") : CTL_OK;
}

/* --- who ------------------------------------------------------------------------------------------ */

static enum ctl_exit find_out_who(struct session *s)
{
    char room[4096];
    struct passwd user, *found = NULL;
    (void)getpwuid_r(geteuid(), &user, room, sizeof room, &found); /* no entry: the number is the name */
    if (!found || !span_to_cstr(span_str(user.pw_name), s->os_user, sizeof s->os_user))
        (void)snprintf(s->os_user, sizeof s->os_user, "uid %u", (unsigned)geteuid());
    const char *by = args_value(s->args, OPT_BY);
    const char *sudo_user = geteuid() == 0 ? getenv("SUDO_USER") : NULL;
    if (!by) by = sudo_user && *sudo_user ? sudo_user : s->os_user;
    json_t *as_json = json_string(by); /* NULL: not UTF-8 */
    bool is_good =
        as_json && record_value_is_company(span_str(by)) && span_to_cstr(span_str(by), s->by, sizeof s->by);
    json_decref(as_json);
    if (is_good) return CTL_OK;
    return session_fail(s, CTL_USAGE,
                        "--by must be a name of 1 to 200 characters without control characters");
}

/* --- which store ---------------------------------------------------------------------------------- */

static enum ctl_exit open_file(struct session *s, const char *path)
{
    struct errmsg why;
    enum err e = backend_file_open(path, &s->backend, &why);
    if (!e) return CTL_OK;
    return e == ERR_IO ? session_fail(s, CTL_FAILED, "%s", why.text) : session_fail_memory(s);
}

/* What config_load() says about a file; then what it means here. `report`: its lines. */
static enum ctl_exit fail_configuration(const struct session *s, char *report)
{
    const char *texts[] = {
        report, "the configuration cannot be used; mend it, or name a partner file with --store FILE"};
    size_t n = strlen(report);
    if (n && report[n - 1] == '\n') report[n - 1] = '\0';
    if (!s->is_json)
        (void)fprintf(stderr, "%s\n", report); /* FILE:LINE:COLUMN first, as the gateway prints it */
    print_messages(s, CTL_FAILED, s->is_json ? texts : texts + 1, s->is_json ? 2 : 1);
    return CTL_FAILED;
}

static enum ctl_exit load_config(struct session *s, const char *path)
{
    char *text = NULL;
    size_t n = 0;
    FILE *report = open_memstream(&text, &n);
    if (!report) return session_fail_memory(s);
    enum err e = config_load(path, &s->config, report);
    bool is_kept = fclose(report) == 0;
    enum ctl_exit code = CTL_OK;
    if (!is_kept)
        code = session_fail_memory(s);
    else if (e)
        code = fail_configuration(s, text);
    free(text);
    return code;
}

static const char *from_environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* The operator's own login; the gateway's, which may only read, is what is left. */
static enum ctl_exit open_redis(struct session *s)
{
    struct errmsg why;
    const char *user = args_value(s->args, OPT_USER), *password_file = args_value(s->args, OPT_PASSWORD_FILE);
    if (!user) user = from_environment("PROOFCTL_USER");
    if (!password_file) password_file = from_environment("PROOFCTL_PASSWORD_FILE");
    if (user && !password_file)
        return session_fail(s, CTL_USAGE, "the password of %s is missing: name its file with --password-file",
                            user);
    enum err e = backend_redis_open(&s->config->store.redis, user, password_file, &s->backend, &why);
    if (!e) return CTL_OK;
    if (e == ERR_NOMEM) return session_fail_memory(s);
    return session_fail(s, e == ERR_UNREACHABLE ? CTL_UNAVAILABLE : CTL_FAILED, "Redis %s", why.text);
}

static enum ctl_exit open_configured(struct session *s, const char *path)
{
    enum ctl_exit code = load_config(s, path);
    if (code != CTL_OK) return code;
    switch (s->config->store.kind) {
    case STORE_FILE: return open_file(s, s->config->store.file);
    case STORE_REDIS: return open_redis(s);
    }
    return CTL_FAILED;
}

const char *session_config_path(const struct session *s)
{
    const char *path = args_value(s->args, OPT_CONFIG);
    if (!path) path = from_environment("PROOFCTL_CONFIG");
    return path ? path : GW_DEFAULT_CONFIG;
}

static enum ctl_exit open_store(struct session *s)
{
    const char *store = args_value(s->args, OPT_STORE), *config = args_value(s->args, OPT_CONFIG);
    if (store && config)
        return session_fail(s, CTL_USAGE,
                            "--store and --config both name the partner file; keep one of them");
    if (!store && !config) store = from_environment("PROOFCTL_STORE");
    if (store && !*store) return session_fail(s, CTL_USAGE, "--store needs the name of a file");
    return store ? open_file(s, store) : open_configured(s, session_config_path(s));
}

static enum ctl_exit open_what_is_needed(struct session *s)
{
    switch (s->args->command->needs) {
    case NEEDS_NOTHING: return CTL_OK;
    case NEEDS_CONFIG: return load_config(s, session_config_path(s));
    case NEEDS_STORE: return open_store(s);
    }
    return CTL_FAILED;
}

static enum ctl_exit read_wait(struct session *s)
{
    uint64_t seconds = WAIT_SECONDS_DEFAULT;
    if (!args_has(s->args, OPT_WAIT)) return CTL_OK;
    const char *text = args_value(s->args, OPT_WAIT);
    if (text && (!span_to_u64(span_str(text), &seconds) || seconds == 0 || seconds > WAIT_SECONDS_MAX))
        return session_fail(s, CTL_USAGE, "--wait must be a number of seconds from 1 to %d",
                            WAIT_SECONDS_MAX);
    s->wait_ms = seconds * 1000;
    return CTL_OK;
}

enum ctl_exit session_open(struct session *s, const struct args *args)
{
    *s = (struct session){.args = args, .is_json = args_has(args, OPT_JSON), .now_ms = clock_wall_ms()};
    enum ctl_exit code = find_out_who(s);
    if (code == CTL_OK) code = read_wait(s);
    if (code == CTL_OK) code = open_what_is_needed(s);
    if (code == CTL_OK && s->wait_ms && !s->backend->ops->gateways)
        code = session_fail(s, CTL_USAGE,
                            "--wait is for partners in Redis; gateways follow a file within a second");
    if (!s->backend) return code;
    progress_init(&s->progress, args->words, !s->is_json);
    s->backend->progress = &s->progress;
    return code;
}

void session_close(struct session *s)
{
    if (s->backend) s->backend->ops->close(s->backend);
    config_unref(s->config);
}
