/* Ticket keys while the gateway runs: its own ones change by time, those of a file when the file does. And
 * certificates that are refused today, and good tomorrow.
 *
 * The clock is the loop's, and the test moves it: hours pass in no time. So is the one that certificates are
 * judged by. */
#include "control/certificate_watch.h"
#include "control/certificates.h"

#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { BUFFER_BYTES = 64 * 1024, SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR };

struct test {
    struct loop loop;
    struct generation generation;
    struct deployment deployment;
    struct certificate_watch watch;
    unsigned attempts; /* on_changed */
};

static time_t shift_s; /* by how much the wall clock is ahead */

/* Instead of the C library's, for OpenSSL. */
time_t time(time_t *to)
{
    struct timespec now;
    assert_int_equal(clock_gettime(CLOCK_REALTIME, &now), 0);
    if (to) *to = now.tv_sec + shift_s;
    return now.tv_sec + shift_s;
}

/* What a reload does with it (control/reload.c). */
static void on_changed(struct certificate_watch *w)
{
    struct test *t = (struct test *)((char *)w - offsetof(struct test, watch));
    static const struct tls_warnings none = {0};
    struct tls_contexts next;
    struct errmsg why;
    t->attempts++;
    if (certificates_build(t->generation.config, &t->generation.tls, t->loop.now_ms, &none, &next, &why)) {
        certificate_watch_failed(w, why.text);
        return;
    }
    tls_contexts_deinit(&t->generation.tls);
    t->generation.tls = next;
    certificate_watch_follow(w);
}

/* The watch of a gateway with these ticket keys. */
static void begin(struct test *t, const char *file, uint64_t rotate_ms)
{
    struct errmsg why;
    assert_int_equal(tls_tickets_create(file, rotate_ms, t->loop.now_ms, &why, &t->generation.tls.tickets),
                     ERR_OK);
    certificate_watch_open(&t->watch, &t->deployment, on_changed);
}

static int setup(void **state)
{
    struct test *t = calloc(1, sizeof *t);
    assert_non_null(t);
    assert_int_equal(loop_init(&t->loop, BUFFER_BYTES, NULL), ERR_OK);
    t->deployment.loop = &t->loop;
    t->deployment.first = t->deployment.current = &t->generation;
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    certificate_watch_close(&t->watch);
    assert_int_equal(t->loop.wheel.count, 0);
    tls_contexts_deinit(&t->generation.tls);
    loop_close(&t->loop);
    loop_run(&t->loop);
    loop_deinit(&t->loop);
    free(t);
    return 0;
}

static void pass(struct test *t, uint64_t ms)
{
    for (uint64_t end = t->loop.now_ms + ms; t->loop.now_ms < end;) {
        t->loop.now_ms += WHEEL_TICK_MS;
        wheel_advance(&t->loop.wheel, t->loop.now_ms);
    }
}

static struct tls_ticket_key current_key(struct test *t)
{
    struct tls_ticket_key key;
    tls_tickets_current(t->generation.tls.tickets, &key);
    return key;
}

static bool opens(struct test *t, const struct tls_ticket_key *key)
{
    struct tls_ticket_key found;
    return tls_tickets_find(t->generation.tls.tickets, key->name, &found);
}

/* Time passes until the key to seal with is another one; returns how much. */
static uint64_t until_the_next_key(struct test *t)
{
    struct tls_ticket_key before = current_key(t), now = before;
    uint64_t begin_ms = t->loop.now_ms;
    while (memcmp(now.name, before.name, sizeof now.name) == 0 && t->loop.now_ms < begin_ms + DAY) {
        pass(t, WHEEL_TICK_MS);
        now = current_key(t);
    }
    assert_memory_not_equal(now.aes, before.aes, sizeof now.aes);
    assert_memory_not_equal(now.hmac, before.hmac, sizeof now.hmac);
    assert_true(opens(t, &before));
    return t->loop.now_ms - begin_ms;
}

static void own_keys_change_by_time(void **state)
{
    static const uint64_t periods[] = {MINUTE, MINUTE + 30 * SECOND, HOUR, 12 * HOUR};
    for (size_t i = 0; i < sizeof periods / sizeof *periods; i++) {
        struct test *t = *state;
        begin(t, NULL, periods[i]);
        for (unsigned n = 1; n <= 5; n++) {
            uint64_t passed_ms = until_the_next_key(t);
            uint64_t late_ms = periods[i] > MINUTE ? MINUTE : 0; /* there is one look a minute */
            assert_in_range(passed_ms, periods[i], periods[i] + late_ms + SECOND);
            assert_int_equal(t->watch.status.ticket_changes_total, n);
        }
        certificate_watch_close(&t->watch);
        tls_contexts_deinit(&t->generation.tls);
    }
}

/* Two periods after a session was sealed nobody can open it any more, whoever has the memory of the process.
 */
static void a_key_opens_for_two_periods(void **state)
{
    struct test *t = *state;
    begin(t, NULL, HOUR);
    struct tls_ticket_key first = current_key(t);
    pass(t, 2 * HOUR - SECOND);
    assert_true(opens(t, &first));
    pass(t, 3 * MINUTE);
    assert_false(opens(t, &first));
    assert_int_equal(t->watch.status.ticket_failures_total, 0);
}

static void write_keys(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* A key that begins with this digit, and otherwise has zeros. */
static const char *key_text(char digit)
{
    static char line[162];
    memset(line, '0', 160);
    line[0] = digit;
    line[160] = '\n';
    return line;
}

static void a_file_is_read_each_minute_and_refused_once(void **state)
{
    struct test *t = *state;
    char path[] = "/tmp/proofgw-tickets-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_keys(path, key_text('1'));
    begin(t, path, HOUR);
    pass(t, 3 * HOUR);
    assert_int_equal(t->watch.status.ticket_changes_total, 0); /* time alone changes nothing */
    write_keys(path, key_text('2'));
    pass(t, MINUTE + SECOND);
    assert_int_equal(t->watch.status.ticket_changes_total, 1);
    assert_int_equal(current_key(t).name[0], 0x20);
    write_keys(path, "nonsense\n");
    pass(t, 5 * MINUTE);
    assert_int_equal(t->watch.status.ticket_failures_total, 1);
    assert_int_equal(current_key(t).name[0], 0x20);
    write_keys(path, key_text('3'));
    pass(t, MINUTE + SECOND);
    write_keys(path, "nonsense\n");
    pass(t, 2 * MINUTE);
    assert_int_equal(t->watch.status.ticket_changes_total, 2);
    assert_int_equal(t->watch.status.ticket_failures_total, 2); /* it was good in between */
    assert_int_equal(unlink(path), 0);
}

static void nothing_changes_after_the_close(void **state)
{
    struct test *t = *state;
    begin(t, NULL, MINUTE);
    struct tls_ticket_key before = current_key(t), now;
    certificate_watch_close(&t->watch);
    certificate_watch_close(&t->watch);
    certificate_watch_failed(&t->watch, "late news");
    certificate_watch_follow(&t->watch);
    pass(t, HOUR);
    now = current_key(t);
    assert_memory_equal(&now, &before, sizeof now);
    assert_int_equal(t->watch.state, CERTIFICATE_WATCH_CLOSED);
}

/* --- certificates ---------------------------------------------------------------------------------- */

static char folder[] = "/tmp/proofgw-watch-XXXXXX";

static FILE *create(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fchmod(fileno(out), 0600), 0);
    return out;
}

/* A new pair, valid for a day from then on. */
static void write_pair(long from_s)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    FILE *chain = create("chain.pem"), *private = create("key.pem");
    assert_int_equal(X509_set_version(x, 2), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x), from_s));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x), from_s + DAY / SECOND));
    assert_int_equal(X509_set_pubkey(x, key), 1);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_X509(chain, x), 1);
    assert_int_equal(PEM_write_PrivateKey(private, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(chain);
    fclose(private);
    X509_free(x);
    EVP_PKEY_free(key);
}

static struct config *load_config(void)
{
    char text[512];
    struct config *config;
    snprintf(text, sizeof text,
             "listeners: [{address: \"127.0.0.1:0\", tls: true}]\n"
             "tls: {certificates: [{chain_file: %s/chain.pem, key_file: %s/key.pem}]}\n"
             "environments: {production: {hosts: [api.example], upstream: \"127.0.0.1:9\"}}\n"
             "store: {file: none.ndjson}\n",
             folder, folder);
    assert_int_equal(config_load_text("gateway.yaml", span_str(text), &config, stderr), ERR_OK);
    return config;
}

/* The authority's clock is ahead of ours, so that the new certificate is not valid yet: it is refused, and in
 * force as soon as it can be, without anybody touching the files. */
static void what_is_not_valid_yet_comes_into_force_later(void **state)
{
    static const struct tls_warnings none = {0};
    struct test *t = *state;
    struct errmsg why;
    assert_non_null(mkdtemp(folder));
    write_pair(-1);
    t->generation.config = load_config();
    assert_int_equal(
        certificates_build(t->generation.config, NULL, t->loop.now_ms, &none, &t->generation.tls, &why),
        ERR_OK);
    const struct tls_server *before = t->generation.tls.listeners[0].server;
    certificate_watch_open(&t->watch, &t->deployment, on_changed);
    certificate_watch_follow(&t->watch);
    write_pair(HOUR / SECOND);
    while (t->attempts == 0)
        (void)uv_run(&t->loop.uv, UV_RUN_ONCE);
    assert_int_equal(t->watch.state, CERTIFICATE_WATCH_WAITING);
    pass(t, CERTIFICATE_PATIENCE_MS + SECOND);
    assert_int_equal(t->watch.state, CERTIFICATE_WATCH_REFUSED);
    assert_non_null(strstr(t->watch.status.last_error, "not valid before"));
    pass(t, 10 * MINUTE);
    assert_int_equal(t->attempts, 2);
    assert_int_equal(t->watch.status.failures_total, 1);
    assert_ptr_equal(t->generation.tls.listeners[0].server, before);
    shift_s = HOUR / SECOND + 1;
    pass(t, MINUTE + SECOND);
    assert_int_equal(t->attempts, 3);
    assert_int_equal(t->watch.state, CERTIFICATE_WATCH_QUIET);
    assert_string_equal(t->watch.status.last_error, "");
    assert_ptr_not_equal(t->generation.tls.listeners[0].server, before);
    shift_s = 0;
    config_unref(t->generation.config);
    char path[64];
    snprintf(path, sizeof path, "%s/chain.pem", folder);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/key.pem", folder);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
#define WATCH_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        WATCH_TEST(own_keys_change_by_time),
        WATCH_TEST(a_key_opens_for_two_periods),
        WATCH_TEST(a_file_is_read_each_minute_and_refused_once),
        WATCH_TEST(nothing_changes_after_the_close),
        WATCH_TEST(what_is_not_valid_yet_comes_into_force_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
