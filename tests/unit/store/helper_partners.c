#include "helper_partners.h"

#include "helper_records.h"
#include "store/redis_record.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cmocka.h>

enum { ARGUMENTS_MAX = 64, TEXTS = 4, TRIES = 1000, TRY_MS = 10 };

/* The rights are those of docs/DATA.md. */
static const char settings[] =
    "user default on nopass ~* &* +@all\n"
    "user gateway on >" GATEWAY_PASSWORD
    " resetkeys %R~gw:{cfg}:* %W~gw:{cfg}:g:* resetchannels -@all +auth +ping +role "
    "+scan +hget +hmget +hgetall +xread +xrange +set +del +client|setname\n"
    "user operator on >operator-secret resetkeys %RW~gw:{cfg}:* resetchannels "
    "-@all +auth +ping +hget +hmget +hgetall "
    "+scan +xrange +xrevrange +hset +del +incr +xadd +eval +evalsha\n";

static redisContext *connect_as(const struct partners *p, const char *user, const char *password)
{
    redisContext *c = NULL;
    for (unsigned i = 0; i < TRIES; i++) { /* there is no event for "it listens now" */
        if (c) redisFree(c);
        c = redisConnectUnix(p->server.address.un.sun_path);
        assert_non_null(c);
        redisReply *pong = c->err ? NULL : redisCommand(c, "PING");
        bool is_loading = pong && pong->type == REDIS_REPLY_ERROR && strstr(pong->str, "LOADING");
        if (pong) freeReplyObject(pong);
        if (pong && !is_loading) break;
        (void)poll(NULL, 0, TRY_MS);
    }
    if (c->err) fail_msg("cannot connect: %s", c->errstr);
    if (!user) return c;
    redisReply *r = redisCommand(c, "AUTH %s %s", user, password);
    assert_non_null(r);
    assert_int_equal(r->type, REDIS_REPLY_STATUS);
    freeReplyObject(r);
    return c;
}

static void connect_all(struct partners *p)
{
    p->admin = connect_as(p, NULL, NULL);
    p->operator= connect_as(p, "operator", "operator-secret");
}

static void disconnect_all(struct partners *p)
{
    if (p->admin) redisFree(p->admin);
    if (p->operator) redisFree(p->operator);
    p->admin = p->operator= NULL;
}

void partners_start(struct partners *p)
{
    *p = (struct partners){0};
    redis_keys_init(&p->keys, "cfg");
    redis_server_start(&p->server, settings);
    connect_all(p);
}

void partners_stop(struct partners *p)
{
    disconnect_all(p);
    redis_server_remove(&p->server);
}

void partners_kill(struct partners *p)
{
    disconnect_all(p);
    redis_server_kill(&p->server);
}

void partners_revive(struct partners *p)
{
    p->server.pid = fork();
    assert_true(p->server.pid >= 0);
    if (p->server.pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)execlp("redis-server", "redis-server", folder_path(p->server.folder, "conf"), (char *)NULL);
        _exit(127);
    }
    connect_all(p);
}

const char *partners_id(unsigned number)
{
    static char texts[TEXTS][32];
    static unsigned next;
    char *text = texts[next++ % TEXTS];
    snprintf(text, sizeof texts[0], "partner-%06u", number);
    return text;
}

const char *partners_key(unsigned number)
{
    static char texts[TEXTS][64];
    static unsigned next;
    char *text = texts[next++ % TEXTS];
    snprintf(text, sizeof texts[0], "gw:{cfg}:p:partner-%06u", number);
    return text;
}

static void must_be_ok(redisReply *r, const redisContext *c)
{
    if (!r) fail_msg("Redis: %s", c->errstr);
    if (r->type == REDIS_REPLY_ERROR) fail_msg("Redis: %s", r->str);
    freeReplyObject(r);
}

void partners_init(struct partners *p, const char *epoch)
{
    must_be_ok(redisCommand(p->operator, "EVAL %s 3 %s %s %s %s", redis_script_init, p->keys.seq, p->keys.log,
                            p->keys.meta, epoch),
               p->operator);
}

redisReply *partners_write(struct partners *p, const char *op, const char *id, const char *expected,
                           size_t nfields, const char *const *names, const char *const *values)
{
    const char *argv[ARGUMENTS_MAX] = {"EVAL", redis_script_write, "4"};
    char key[REDIS_KEY_MAX], nonce[32];
    redis_keys_partner(&p->keys, span_str(id), key);
    snprintf(nonce, sizeof nonce, "n%u", ++p->nonce);
    const char *fixed[] = {key, p->keys.seq, p->keys.log, p->keys.meta, op, id, expected, nonce};
    int argc = 3;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        argv[argc++] = fixed[i];
    for (size_t i = 0; i < nfields; i++) {
        argv[argc++] = names[i];
        argv[argc++] = values[i];
    }
    redisReply *r = redisCommandArgv(p->operator, argc, argv, NULL);
    assert_non_null(r);
    return r;
}

void partners_set(struct partners *p, unsigned number, unsigned edition)
{
    char line[RECORD_LINE_MAX];
    const char *values[REDIS_FIELDS_MAX];
    struct partner_record record;
    struct record_report report = {0};
    struct redis_fields fields;
    size_t n = record_line(number, edition, line);
    assert_int_equal(record_parse(span_of(line, n), 1, &record, &report), ERR_OK);
    assert_int_equal(redis_fields_make(&record, &fields), ERR_OK);
    for (size_t i = 0; i < fields.n; i++)
        values[i] = strndup(fields.values[i].p, fields.values[i].n);
    must_be_ok(partners_write(p, "set", record.partner.id, "", fields.n, fields.names, values), p->operator);
    for (size_t i = 0; i < fields.n; i++)
        free((char *)(uintptr_t)values[i]);
    redis_fields_deinit(&fields);
    record_deinit(&record);
}

void partners_set_many(struct partners *p, unsigned first, unsigned n)
{
    for (unsigned i = first; i < first + n; i++)
        partners_set(p, i, 0);
}

void partners_del(struct partners *p, unsigned number)
{
    must_be_ok(partners_write(p, "del", partners_id(number), "", 0, NULL, NULL), p->operator);
}

void partners_rename(struct partners *p, unsigned number, const char *id)
{
    const char *names[REDIS_FIELDS_MAX], *values[REDIS_FIELDS_MAX];
    size_t n = 0;
    redisReply *r = redisCommand(p->admin, "HGETALL %s", partners_key(number));
    assert_non_null(r);
    for (size_t i = 0; i + 1 < r->elements; i += 2) {
        if (strcmp(r->element[i]->str, "v") == 0) continue;
        assert_true(n < REDIS_FIELDS_MAX);
        names[n] = r->element[i]->str;
        values[n++] = r->element[i + 1]->str;
    }
    partners_del(p, number);
    must_be_ok(partners_write(p, "set", id, "0", n, names, values), p->operator);
    freeReplyObject(r);
}

long long partners_admin(struct partners *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    redisReply *r = redisvCommand(p->admin, format, args);
    va_end(args);
    long long n = r && r->type == REDIS_REPLY_INTEGER ? r->integer : 0;
    must_be_ok(r, p->admin);
    return n;
}

void partners_lock_out(struct partners *p)
{
    partners_admin(p, "ACL SETUSER gateway off");
    partners_admin(p, "CLIENT KILL USER gateway");
}

void partners_let_in(struct partners *p)
{
    partners_admin(p, "ACL SETUSER gateway on");
}

/* --- dumps ------------------------------------------------------------------------------------------ */

struct partners_dump {
    redisReply *keys;
    redisReply **values;
};

struct partners_dump *partners_dump(struct partners *p)
{
    struct partners_dump *d = calloc(1, sizeof *d);
    assert_non_null(d);
    d->keys = redisCommand(p->admin, "KEYS *");
    assert_non_null(d->keys);
    d->values = calloc(d->keys->elements + 1, sizeof *d->values);
    assert_non_null(d->values);
    for (size_t i = 0; i < d->keys->elements; i++) {
        d->values[i] = redisCommand(p->admin, "DUMP %s", d->keys->element[i]->str);
        assert_non_null(d->values[i]);
    }
    return d;
}

void partners_restore(struct partners *p, struct partners_dump *d)
{
    partners_admin(p, "FLUSHALL");
    for (size_t i = 0; i < d->keys->elements; i++) {
        partners_admin(p, "RESTORE %s 0 %b", d->keys->element[i]->str, d->values[i]->str, d->values[i]->len);
        freeReplyObject(d->values[i]);
    }
    freeReplyObject(d->keys);
    free(d->values);
    free(d);
}
