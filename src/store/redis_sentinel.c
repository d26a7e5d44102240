#include "store/redis_sentinel.h"

#include "base/addr.h"
#include "base/outbuf.h"
#include "store/redis_dial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum sentinel_state {
    SENTINEL_IDLE = 0, /* no round; conn is NULL */
    SENTINEL_ASKING,   /* a round is under way: conn is set, or `later` is armed */
    SENTINEL_CLOSING,  /* conn is closing; it frees us */
};

struct redis_sentinel {
    struct loop *loop; /* borrowed */
    enum sentinel_state state;
    redis_sentinel_fn on_answer;
    void *user;
    char *master_name, *auth_user, *password_file, *client_name; /* owned; all but the first may be NULL */
    uint64_t timeout_ms;
    const struct config_tls_client *tls; /* borrowed; may be NULL */
    struct socket_address addresses[REDIS_SENTINELS_MAX];
    const char *names[REDIS_SENTINELS_MAX]; /* borrowed; NULL = none */
    size_t naddresses;
    size_t first;             /* where a round begins, modulo the length of its list */
    size_t asked;             /* in this round, the current one included */
    struct redis_conn *conn;  /* to the one that is being asked */
    struct wheel_entry later; /* ends a round in which nobody could be dialled */
    bool is_found;
    struct socket_address master; /* valid when is_found */
    enum err error;               /* of the one that was asked last */
    char cause[REDIS_CAUSE_MAX];
};

static void sentinel_free(struct redis_sentinel *s)
{
    loop_deadline_clear(s->loop, &s->later);
    free(s->password_file);
    free(s->auth_user);
    free(s->client_name);
    free(s->master_name);
    free(s);
}

static void sentinel_set_state(struct redis_sentinel *s, enum sentinel_state to)
{
    static const uint8_t moves[] = {
        [SENTINEL_IDLE] = 1 << SENTINEL_ASKING,
        [SENTINEL_ASKING] = 1 << SENTINEL_IDLE | 1 << SENTINEL_CLOSING,
        [SENTINEL_CLOSING] = 0,
    };
    BUG_IF(!(moves[s->state] & 1 << to), "sentinel: impossible change of state");
    s->state = to;
}

/* --- one answer ------------------------------------------------------------------------------------- */

static size_t index_of_current(const struct redis_sentinel *s)
{
    return (s->first + s->asked - 1) % s->naddresses;
}

/* Remembers why the current one is of no use. */
static void note_failure(struct redis_sentinel *s, enum err e, const char *cause)
{
    char name[sizeof(struct sockaddr_un) + 8];
    socket_address_format(&s->addresses[index_of_current(s)], name, sizeof name);
    s->error = e;
    struct outbuf o = outbuf_of(s->cause, sizeof s->cause - 1);
    outbuf_str(&o, "Sentinel ");
    outbuf_str(&o, name);
    outbuf_str(&o, ": ");
    size_t room = o.cap - o.n, n = strlen(cause);
    outbuf_bytes(&o, cause, n < room ? n : room); /* cutting is fine */
    s->cause[o.n] = '\0';
}

/* Reads an array of address and port. Errors: ERR_PARSE, ERR_UNSUPPORTED (a host name). */
static enum err read_address(const redisReply *reply, struct socket_address *out)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) return ERR_PARSE;
    const redisReply *host = reply->element[0], *port = reply->element[1];
    if (host->type != REDIS_REPLY_STRING || port->type != REDIS_REPLY_STRING) return ERR_PARSE;
    uint64_t number;
    if (!span_to_u64(span_of(port->str, port->len), &number) || number == 0 || number > UINT16_MAX)
        return ERR_PARSE;
    struct addr a;
    if (addr_parse(span_of(host->str, host->len), &a)) return ERR_UNSUPPORTED;
    *out = socket_address_ip(&a, (uint16_t)number);
    return ERR_OK;
}

static void take_answer(struct redis_sentinel *s, const redisReply *reply)
{
    char text[REDIS_CAUSE_MAX];
    if (reply->type == REDIS_REPLY_ERROR) {
        enum err e = redis_error_explain(reply, text, sizeof text);
        note_failure(s, e, text);
        return;
    }
    if (reply->type == REDIS_REPLY_NIL) {
        (void)snprintf(text, sizeof text, "knows no master named %s", s->master_name);
        note_failure(s, ERR_NOT_FOUND, text);
        return;
    }
    enum err e = read_address(reply, &s->master);
    if (e == ERR_UNSUPPORTED)
        note_failure(s, e, "names the master by a host name; set 'sentinel announce-hostnames no'");
    else if (e)
        note_failure(s, e, "the answer is no address");
    else
        s->is_found = true;
}

static void on_address(struct redis_conn *c, const redisReply *reply, void *arg)
{
    if (!reply) return; /* on_conn_closed says why */
    take_answer(arg, reply);
    redis_close(c);
}

static void on_conn_ready(struct redis_conn *c, void *user)
{
    struct redis_sentinel *s = user;
    const char *const argv[] = {"SENTINEL", "get-master-addr-by-name", s->master_name};
    enum err e = redis_command(c, 0, on_address, s, 3, argv, NULL);
    if (!e) return;
    note_failure(s, e, "cannot ask");
    redis_close(c);
}

/* --- one round -------------------------------------------------------------------------------------- */

static void finish(struct redis_sentinel *s)
{
    sentinel_set_state(s, SENTINEL_IDLE);
    if (s->is_found) {
        s->first = index_of_current(s);
        s->on_answer(s, ERR_OK, &s->master, "", s->user);
    } else {
        s->on_answer(s, s->error, NULL, s->cause, s->user);
    }
}

static void on_later(struct wheel_entry *e)
{
    finish((struct redis_sentinel *)((char *)e - offsetof(struct redis_sentinel, later)));
}

static bool dial_next(struct redis_sentinel *s);

static void on_conn_closed(struct redis_conn *c, enum err e, const char *cause, void *user)
{
    (void)c;
    struct redis_sentinel *s = user;
    s->conn = NULL;
    if (s->state == SENTINEL_CLOSING) {
        sentinel_free(s);
        return;
    }
    if (e != ERR_CLOSED) note_failure(s, e, cause);
    if (s->is_found || !dial_next(s)) finish(s);
}

static const struct redis_events conn_events = {.on_ready = on_conn_ready, .on_closed = on_conn_closed};

/* Connects to the current one. Errors: those of redis_dial(); noted. */
static enum err dial(struct redis_sentinel *s)
{
    struct errmsg why;
    const struct redis_access access = {.user = s->auth_user,
                                        .password_file = s->password_file,
                                        .tls = s->tls,
                                        .client_name = s->client_name,
                                        .connect_timeout_ms = s->timeout_ms,
                                        .command_timeout_ms = s->timeout_ms};
    size_t i = index_of_current(s);
    enum err e = redis_dial(s->loop, &access, &s->addresses[i], s->names[i], &conn_events, s, &s->conn, &why);
    if (e) note_failure(s, e, why.text);
    return e;
}

/* Connects to the next one that has not been asked in this round; false when there is none. */
static bool dial_next(struct redis_sentinel *s)
{
    while (s->asked < s->naddresses) {
        s->asked++;
        if (dial(s) == ERR_OK) return true;
    }
    return false;
}

enum err redis_sentinel_ask(struct redis_sentinel *s, const struct socket_address *addresses,
                            const char *const *names, size_t n)
{
    if (n == 0 || n > REDIS_SENTINELS_MAX) return ERR_RANGE;
    if (s->state != SENTINEL_IDLE) return ERR_AGAIN;
    memcpy(s->addresses, addresses, n * sizeof *addresses);
    for (size_t i = 0; i < n; i++)
        s->names[i] = names ? names[i] : NULL;
    s->naddresses = n;
    s->asked = 0;
    s->is_found = false;
    sentinel_set_state(s, SENTINEL_ASKING);
    if (!dial_next(s)) loop_deadline(s->loop, &s->later, 0);
    return ERR_OK;
}

void redis_sentinel_distrust(struct redis_sentinel *s)
{
    if (s->state == SENTINEL_IDLE) s->first++;
}

/* --- life ------------------------------------------------------------------------------------------- */

static bool copy_text(char **to, const char *from)
{
    if (!from) return true;
    *to = strdup(from);
    return *to != NULL;
}

enum err redis_sentinel_open(struct loop *l, const struct redis_sentinel_options *o,
                             redis_sentinel_fn on_answer, void *user, struct redis_sentinel **out)
{
    struct redis_sentinel *s = calloc(1, sizeof *s);
    if (!s) return ERR_NOMEM;
    s->loop = l;
    s->on_answer = on_answer;
    s->user = user;
    s->tls = o->tls;
    s->timeout_ms = o->timeout_ms;
    wheel_entry_init(&s->later, on_later);
    if (!copy_text(&s->master_name, o->master_name) || !copy_text(&s->auth_user, o->user) ||
        !copy_text(&s->password_file, o->password_file) || !copy_text(&s->client_name, o->client_name)) {
        sentinel_free(s);
        return ERR_NOMEM;
    }
    *out = s;
    return ERR_OK;
}

void redis_sentinel_close(struct redis_sentinel *s)
{
    if (!s) return;
    if (s->conn) {
        sentinel_set_state(s, SENTINEL_CLOSING);
        redis_close(s->conn);
    } else {
        sentinel_free(s);
    }
}
