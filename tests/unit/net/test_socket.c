/* Sockets as this project makes them: addresses, options, and what stands in the way of listening. */
#include "helper_net.h"
#include "support/skip.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* --- addresses ------------------------------------------------------------------------------------- */

static void check_format(const char *text, uint16_t port, const char *want)
{
    struct addr a;
    char got[160];
    assert_int_equal(addr_parse(span_str(text), &a), ERR_OK);
    struct socket_address s = socket_address_ip(&a, port);
    socket_address_format(&s, got, sizeof got);
    assert_string_equal(got, want);
    assert_int_equal(socket_address_port(&s), port);
    struct addr back = addr_from_sockaddr(&s.any);
    assert_true(addr_eq(&a, &back));
}

static void addresses_have_the_text_people_write(void **state)
{
    (void)state;
    check_format("127.0.0.1", 8080, "127.0.0.1:8080");
    check_format("255.254.253.252", 65535, "255.254.253.252:65535");
    check_format("::1", 1, "[::1]:1");
    check_format("2001:db8:0:1::ff", 443, "[2001:db8:0:1::ff]:443");
}

static void unix_addresses_have_a_path_of_107_bytes_at_most(void **state)
{
    (void)state;
    struct socket_address a;
    char path[109], got[160];
    memset(path, 'p', sizeof path);
    path[0] = '/';
    path[108] = '\0';
    assert_int_equal(socket_address_unix(path, &a), ERR_RANGE);
    path[107] = '\0';
    assert_int_equal(socket_address_unix(path, &a), ERR_OK);
    assert_int_equal(socket_address_port(&a), 0);
    socket_address_format(&a, got, sizeof got);
    assert_memory_equal(got, "unix:/ppp", 9);
    assert_int_equal(strlen(got), 5 + 107);
    assert_int_equal(socket_address_unix("", &a), ERR_RANGE);
}

/* --- TCP ------------------------------------------------------------------------------------------- */

static int option_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void the_kernel_chooses_a_port_and_others_may_share_it(void **state)
{
    (void)state;
    struct socket_address bound, second;
    int fd = test_listen(&bound), other, sys;
    assert_true(socket_address_port(&bound) > 0);
    assert_int_equal(socket_listen(&bound, 16, false, true, &other, &sys), ERR_OK); /* another worker */
    assert_int_equal(socket_local(other, &second), ERR_OK);
    assert_int_equal(socket_address_port(&second), socket_address_port(&bound));
    close(fd);
    close(other);
}

static void listening_sockets_have_their_options(void **state)
{
    (void)state;
    struct socket_address any = test_loopback(0);
    int fd, sys;
    assert_int_equal(socket_listen(&any, 16, false, true, &fd, &sys), ERR_OK);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(option_of(fd, SOL_SOCKET, SO_ACCEPTCONN));
    assert_true(option_of(fd, SOL_SOCKET, SO_REUSEPORT));
    assert_true(option_of(fd, IPPROTO_TCP, TCP_NODELAY));
    assert_true(option_of(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT) > 0);
    close(fd);
    assert_int_equal(socket_listen(&any, 16, false, false, &fd, &sys), ERR_OK);
    assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT), 0);
    close(fd);
}

static void accepted_sockets_inherit_nodelay(void **state)
{
    (void)state;
    int fds[2];
    test_tcp_pair(fds);
    assert_true(option_of(fds[1], IPPROTO_TCP, TCP_NODELAY));
    close(fds[0]);
    close(fds[1]);
}

static void an_address_that_is_not_ours_is_an_error(void **state)
{
    (void)state;
    struct addr a;
    int fd = -1, sys = 0;
    assert_int_equal(addr_parse(SPAN("192.0.2.1"), &a), ERR_OK); /* TEST-NET-1, on no machine */
    struct socket_address s = socket_address_ip(&a, 0);
    assert_int_equal(socket_listen(&s, 16, false, false, &fd, &sys), ERR_IO);
    assert_int_equal(sys, EADDRNOTAVAIL);
    assert_int_equal(fd, -1); /* out-parameters are written on success only */
}

static bool has_ipv6(void)
{
    const struct addr loopback = {.family = ADDR_V6, .v6 = {.lo = 1}};
    struct socket_address s = socket_address_ip(&loopback, 0);
    int fd, sys;
    if (socket_listen(&s, 1, false, false, &fd, &sys)) return false;
    close(fd);
    return true;
}

/* Somebody who does not share (no SO_REUSEPORT) has the port. */
static void a_port_in_use_is_refused(void **state)
{
    (void)state;
    struct socket_address bound;
    int fd = -1, sys = 0;
    int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct socket_address any = test_loopback(0);
    assert_int_equal(bind(other, &any.any, any.len), 0);
    assert_int_equal(listen(other, 1), 0);
    assert_int_equal(socket_local(other, &bound), ERR_OK);
    assert_int_equal(socket_listen(&bound, 16, false, false, &fd, &sys), ERR_EXISTS);
    assert_int_equal(sys, EADDRINUSE);
    close(other);
}

/* SO_REUSEPORT would let two gateways share a port without knowing it: the probe finds out. */
static void the_probe_sees_a_listener_that_would_share(void **state)
{
    (void)state;
    struct socket_address bound, any = test_loopback(0);
    int fd = test_listen(&bound), sys = 0;
    assert_int_equal(socket_probe(&bound, false, &sys), ERR_EXISTS);
    assert_int_equal(sys, EADDRINUSE);
    close(fd);
    assert_int_equal(socket_probe(&bound, false, &sys), ERR_OK);
    assert_int_equal(socket_probe(&any, false, &sys), ERR_OK); /* port 0 is always free */
}

static void the_probe_tells_the_families_apart(void **state)
{
    (void)state;
    const struct addr any4 = {.family = ADDR_V4}, any6 = {.family = ADDR_V6};
    struct socket_address s = socket_address_ip(&any4, 0), bound;
    int fd, sys;
    if (!has_ipv6()) SKIP("there is no IPv6 here");
    assert_int_equal(socket_listen(&s, 16, false, false, &fd, &sys), ERR_OK);
    assert_int_equal(socket_local(fd, &bound), ERR_OK);
    s = socket_address_ip(&any6, socket_address_port(&bound));
    assert_int_equal(socket_probe(&s, false, &sys), ERR_OK); /* 0.0.0.0:N and [::]:N live side by side */
    assert_int_equal(socket_probe(&s, true, &sys), ERR_EXISTS);
    close(fd);
}

/* True when a client of this family gets through to `port`. */
static bool reaches(const char *address, uint16_t port)
{
    struct addr a;
    assert_int_equal(addr_parse(span_str(address), &a), ERR_OK);
    struct socket_address to = socket_address_ip(&a, port);
    int fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, &to.any, to.len) == 0;
    close(fd);
    return ok;
}

/* Binds a port of 127.0.0.1 that nobody has in IPv6 either, without listening: connecting to it is refused,
 * and no other program on this machine can take it meanwhile. */
static int hold_ipv4_port(struct socket_address *bound)
{
    const struct addr any = {.family = ADDR_V6};
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), sys;
        struct socket_address at = test_loopback(0);
        assert_int_equal(bind(fd, &at.any, at.len), 0);
        assert_int_equal(socket_local(fd, bound), ERR_OK);
        at = socket_address_ip(&any, socket_address_port(bound));
        if (socket_probe(&at, false, &sys) == ERR_OK) return fd;
        close(fd);
    }
}

static void dual_stack_takes_ipv4_as_well(void **state)
{
    (void)state;
    const struct addr any = {.family = ADDR_V6};
    struct socket_address s = socket_address_ip(&any, 0), bound;
    int fd, sys;
    if (!has_ipv6()) SKIP("there is no IPv6 here");
    assert_int_equal(socket_listen(&s, 16, true, false, &fd, &sys), ERR_OK);
    assert_int_equal(socket_local(fd, &bound), ERR_OK);
    assert_true(reaches("::1", socket_address_port(&bound)));
    assert_true(reaches("127.0.0.1", socket_address_port(&bound)));
    close(fd);

    int held = hold_ipv4_port(&bound);
    s = socket_address_ip(&any, socket_address_port(&bound));
    assert_int_equal(socket_listen(&s, 16, false, false, &fd, &sys), ERR_OK);
    assert_true(reaches("::1", socket_address_port(&bound)));
    assert_false(reaches("127.0.0.1", socket_address_port(&bound)));
    close(fd);
    close(held);
}

/* --- unix sockets ---------------------------------------------------------------------------------- */

struct place {
    char folder[64], path[96];
    struct socket_address address;
};

static int place_setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    assert_non_null(p);
    (void)snprintf(p->folder, sizeof p->folder,
                   "/tmp/proofgw-test-XXXXXX"); /* short: 107 bytes are the limit */
    assert_non_null(mkdtemp(p->folder));
    (void)snprintf(p->path, sizeof p->path, "%s/socket", p->folder);
    assert_int_equal(socket_address_unix(p->path, &p->address), ERR_OK);
    *state = p;
    return 0;
}

static int place_teardown(void **state)
{
    struct place *p = *state;
    (void)unlink(p->path);
    (void)rmdir(p->folder);
    free(p);
    return 0;
}

static bool unix_reaches(const struct place *p)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, &p->address.any, p->address.len) == 0;
    close(fd);
    return ok;
}

static void a_unix_socket_is_for_owner_and_group(void **state)
{
    struct place *p = *state;
    struct stat st;
    int fd, sys;
    assert_int_equal(socket_listen(&p->address, 16, false, true, &fd, &sys), ERR_OK);
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    assert_true(unix_reaches(p));
    close(fd);
}

static void a_stale_socket_file_is_replaced(void **state)
{
    struct place *p = *state;
    int fd, sys;
    assert_int_equal(socket_listen(&p->address, 16, false, false, &fd, &sys), ERR_OK);
    close(fd); /* the file stays, as after a crash */
    assert_int_equal(access(p->path, F_OK), 0);
    assert_false(unix_reaches(p));
    assert_int_equal(socket_listen(&p->address, 16, false, false, &fd, &sys), ERR_OK);
    assert_true(unix_reaches(p));
    close(fd);
}

static void a_unix_socket_in_use_is_refused_and_left_alone(void **state)
{
    struct place *p = *state;
    int fd, second = -1, sys;
    assert_int_equal(socket_listen(&p->address, 16, false, false, &fd, &sys), ERR_OK);
    assert_int_equal(socket_listen(&p->address, 16, false, false, &second, &sys), ERR_EXISTS);
    assert_int_equal(sys, EADDRINUSE);
    assert_true(unix_reaches(p));
    close(fd);
}

/* A listener that is too busy to take one more connection is not a stale file. */
static void a_unix_socket_with_a_full_queue_is_left_alone(void **state)
{
    struct place *p = *state;
    int listening, second = -1, sys, fds[16], n = 0;
    assert_int_equal(socket_listen(&p->address, 1, false, false, &listening, &sys), ERR_OK);
    while (n < 16 && socket_connect(&p->address, false, &fds[n]) == ERR_OK)
        n++;
    assert_in_range(n, 1, 15);
    assert_int_equal(socket_listen(&p->address, 16, false, false, &second, &sys), ERR_EXISTS);
    assert_int_equal(access(p->path, F_OK), 0);
    while (n-- > 0)
        close(fds[n]);
    close(listening);
}

static void a_file_that_is_no_socket_is_left_alone(void **state)
{
    struct place *p = *state;
    int fd = -1, sys;
    FILE *precious = fopen(p->path, "w");
    assert_non_null(precious);
    assert_int_equal(fclose(precious), 0);
    assert_int_equal(socket_listen(&p->address, 16, false, false, &fd, &sys), ERR_EXISTS);
    assert_int_equal(access(p->path, F_OK), 0);
}

static void connecting_to_a_unix_socket_that_nobody_serves_fails_at_once(void **state)
{
    struct place *p = *state;
    int fd = -1, sys, listening;
    assert_int_equal(socket_connect(&p->address, false, &fd), ERR_NOT_FOUND);
    assert_int_equal(socket_listen(&p->address, 16, false, false, &listening, &sys), ERR_OK);
    close(listening);
    assert_int_equal(socket_connect(&p->address, false, &fd), ERR_REFUSED);
    assert_int_equal(fd, -1);
}

static void connecting_to_a_full_unix_socket_is_refused_not_awaited(void **state)
{
    struct place *p = *state;
    int listening, sys, fds[16], n = 0;
    enum err e = ERR_OK;
    assert_int_equal(socket_listen(&p->address, 1, false, false, &listening, &sys), ERR_OK);
    while (n < 16 && (e = socket_connect(&p->address, false, &fds[n])) == ERR_OK)
        n++;
    assert_int_equal(e, ERR_REFUSED);
    while (n-- > 0)
        close(fds[n]);
    close(listening);
}

#define UNIX_TEST(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_have_the_text_people_write),
        cmocka_unit_test(unix_addresses_have_a_path_of_107_bytes_at_most),
        cmocka_unit_test(the_kernel_chooses_a_port_and_others_may_share_it),
        cmocka_unit_test(listening_sockets_have_their_options),
        cmocka_unit_test(accepted_sockets_inherit_nodelay),
        cmocka_unit_test(an_address_that_is_not_ours_is_an_error),
        cmocka_unit_test(a_port_in_use_is_refused),
        cmocka_unit_test(the_probe_sees_a_listener_that_would_share),
        cmocka_unit_test(the_probe_tells_the_families_apart),
        cmocka_unit_test(dual_stack_takes_ipv4_as_well),
        UNIX_TEST(a_unix_socket_is_for_owner_and_group),
        UNIX_TEST(a_stale_socket_file_is_replaced),
        UNIX_TEST(a_unix_socket_in_use_is_refused_and_left_alone),
        UNIX_TEST(a_unix_socket_with_a_full_queue_is_left_alone),
        UNIX_TEST(a_file_that_is_no_socket_is_left_alone),
        UNIX_TEST(connecting_to_a_unix_socket_that_nobody_serves_fails_at_once),
        UNIX_TEST(connecting_to_a_full_unix_socket_is_refused_not_awaited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
