/* The Redis store behind a Sentinel: a real failover from a master to its replica. */
#include "helper_sync.h"
#include "support/skip.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { PARTNERS = 30, CONF_MAX = 1024 };

/* A port that the kernel has just given out, and will not give to anybody else soon. */
static unsigned free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

/* The fixture's server becomes the master; a replica and a Sentinel join it. */
struct group {
    struct sync *sync;
    unsigned master_port, replica_port;
    struct redis_server replica, sentinel;
};

static const char gateway_user[] =
    "user gateway on >" GATEWAY_PASSWORD " %R~gw:{cfg}:* %W~gw:{cfg}:g:* -@all +auth +ping +role "
    "+scan +hget +hmget +hgetall +xread +xrange +set +del +client|setname\n";

static void start_replica(struct group *g)
{
    char conf[CONF_MAX];
    g->replica_port = free_port();
    snprintf(conf, sizeof conf,
             "port %u\nbind 127.0.0.1\nreplicaof 127.0.0.1 %u\nrepl-diskless-sync-delay 0\n%s",
             g->replica_port, g->master_port, gateway_user);
    redis_server_start(&g->replica, conf);
}

static void start_sentinel(struct group *g)
{
    char conf[CONF_MAX];
    snprintf(conf, sizeof conf,
             "sentinel monitor main 127.0.0.1 %u 1\nsentinel down-after-milliseconds main 1000\n"
             "sentinel failover-timeout main 3000\n",
             g->master_port);
    redis_server_start_sentinel(&g->sentinel, conf);
}

static void configure(struct group *g)
{
    struct config_redis *c = &g->sync->config.redis;
    c->address = (struct endpoint){0};
    c->sentinel_master = (char *)(uintptr_t) "main";
    c->nsentinels = 1;
    c->sentinels[0].address.kind = ENDPOINT_UNIX;
    snprintf(c->sentinels[0].address.host, sizeof c->sentinels[0].address.host, "%s",
             g->sentinel.address.un.sun_path);
}

static int set_up(void **state)
{
    struct group *g = calloc(1, sizeof *g);
    void *sync;
    assert_non_null(g);
    assert_int_equal(sync_setup(&sync), 0);
    g->sync = sync;
    *state = g;
    if (g->sync->is_skipped) return 0;
    g->master_port = free_port();
    partners_admin(&g->sync->redis, "CONFIG SET repl-diskless-sync-delay 0");
    partners_admin(&g->sync->redis, "CONFIG SET port %u", g->master_port);
    partners_set_many(&g->sync->redis, 0, PARTNERS);
    start_replica(g);
    start_sentinel(g);
    configure(g);
    return 0;
}

static int tear_down(void **state)
{
    struct group *g = *state;
    void *sync = g->sync;
    if (!g->sync->is_skipped) {
        redis_server_remove(&g->sentinel);
        redis_server_remove(&g->replica);
    }
    assert_int_equal(sync_teardown(&sync), 0);
    free(g);
    return 0;
}

/* Whether the answer to a command has `part` in it. With SLAVEOF the Sentinel sends CLIENT KILL TYPE normal:
 * a connection that was made before it and asks after it gets no answer, which is as good as another one. */
static bool answers(const struct redis_server *s, const char *command, const char *part)
{
    redisContext *c = redisConnectUnix(s->address.un.sun_path);
    assert_true(c && !c->err);
    redisReply *r = redisCommand(c, command);
    bool yes = r && r->str && strstr(r->str, part);
    if (r) freeReplyObject(r);
    redisFree(c);
    return yes;
}

static void test_failover(void **state)
{
    struct group *g = *state;
    struct sync *f = g->sync;
    if (f->is_skipped) SKIP("there is no redis-server here");
    sync_open(f);
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), PARTNERS);
    SYNC_UNTIL(f, answers(&g->replica, "INFO replication", "master_link_status:up"));
    SYNC_UNTIL(f, answers(&g->sentinel, "INFO sentinel", "slaves=1"));
    SYNC_UNTIL(f, answers(&g->sentinel, "SENTINEL FAILOVER main", "OK"));
    SYNC_UNTIL(f, answers(&g->replica, "INFO replication", "role:master"));

    struct partners promoted = f->redis; /* the operator follows as well */
    promoted.operator= redisConnectUnix(g->replica.address.un.sun_path);
    assert_true(promoted.operator&& !promoted.operator->err);
    partners_set(&promoted, PARTNERS, 0);
    SYNC_UNTIL(f, sync_has(f, PARTNERS));
    struct store_status s = sync_status(f);
    assert_int_equal(s.loads_total, 1); /* nothing was lost: the log was enough */
    assert_int_equal(s.sequence, PARTNERS + 1);
    SYNC_UNTIL(f, answers(&g->replica, "EVAL return(redis.call('KEYS','gw:{cfg}:g:*')[1]) 0", "gw:{cfg}:g:"));
    redisFree(promoted.operator);
}

static void test_master_that_dies(void **state)
{
    struct group *g = *state;
    struct sync *f = g->sync;
    if (f->is_skipped) SKIP("there is no redis-server here");
    sync_open(f);
    sync_catch_up(f);
    SYNC_UNTIL(f, answers(&g->replica, "INFO replication", "master_link_status:up"));
    SYNC_UNTIL(f, answers(&g->sentinel, "INFO sentinel", "slaves=1"));
    partners_kill(&f->redis);
    SYNC_UNTIL(f, !sync_status(f).up);
    assert_int_equal(sync_partners(f), PARTNERS);
    SYNC_UNTIL(f, sync_status(f).up); /* at the promoted replica */
    assert_int_equal(sync_status(f).loads_total, 1);
    assert_true(answers(&g->replica, "INFO replication", "role:master"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_failover, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_master_that_dies, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
