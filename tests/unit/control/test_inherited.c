/* Sockets of another process: found again by name or by address, and turned into as many as there are
 * workers. */
#include "control/sockets.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORKERS = 3 };

static struct config_listener listener(const char *address)
{
    struct config_listener l = {.backlog = 16};
    struct errmsg why;
    assert_int_equal(endpoint_parse(span_str(address), true, &l.address, &why), ERR_OK);
    return l;
}

/* A listening socket on a port of the kernel's choice. */
static int open_socket(uint16_t *port, bool shares)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t n = sizeof a;
    int on = shares, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

static void add(struct inherited *in, enum inherited_role role, const struct endpoint *e, int fd)
{
    char name[INHERITED_NAME_MAX];
    inherited_name(role, e, name);
    assert_int_equal(inherited_add(in, name, fd), ERR_OK);
}

static void names_tell_roles_apart(void **state)
{
    struct inherited in = {0};
    struct config_listener l = listener("127.0.0.1:0");
    uint16_t a = 0, b = 0;
    (void)state;
    int first = open_socket(&a, true), second = open_socket(&b, true);
    add(&in, INHERITED_ADMIN, &l.address, first);
    add(&in, INHERITED_LISTENER, &l.address, second);
    assert_int_equal(inherited_take(&in, INHERITED_CONTROL, &l.address, NULL), -1);
    assert_int_equal(inherited_take(&in, INHERITED_LISTENER, &l.address, NULL), second);
    assert_int_equal(inherited_take(&in, INHERITED_LISTENER, &l.address, NULL), -1);
    assert_int_equal(inherited_count(&in), 1);
    inherited_close(&in, false);
    assert_int_equal(inherited_count(&in), 0);
    assert_int_equal(close(first), -1); /* it was closed with the list */
    close(second);
}

static void without_a_name_the_address_counts(void **state)
{
    struct inherited in = {0};
    char text[32];
    uint16_t port = 0;
    (void)state;
    int fd = open_socket(&port, true);
    assert_int_equal(inherited_add(&in, "", fd), ERR_OK);
    struct config_listener any = listener("127.0.0.1:0");
    assert_int_equal(inherited_take(&in, INHERITED_LISTENER, &any.address, NULL), -1);
    (void)snprintf(text, sizeof text, "127.0.0.2:%u", (unsigned)port);
    struct config_listener other = listener(text);
    assert_int_equal(inherited_take(&in, INHERITED_LISTENER, &other.address, NULL), -1);
    text[8] = '1';
    struct config_listener l = listener(text);
    assert_int_equal(inherited_take(&in, INHERITED_LISTENER, &l.address, NULL), fd);
    close(fd);
}

static void what_does_not_listen_is_refused(void **state)
{
    struct inherited in = {0};
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(inherited_add(&in, "", fd), ERR_IO);
    assert_int_equal(close(fd), -1); /* closed already */
    assert_int_equal(inherited_add(&in, "", -1), ERR_IO);
    assert_null(in.first);
}

static void check_set(struct socket_set *set, unsigned n, uint16_t port)
{
    assert_int_equal(set->n, n);
    for (unsigned i = 0; i < n; i++) {
        struct socket_address bound;
        assert_int_equal(socket_local(set->fds[i], &bound), ERR_OK);
        assert_int_equal(socket_address_port(&bound), port);
        assert_int_equal(socket_address_port(&set->bound), port);
    }
}

/* `given` sockets of one address, of each of two listeners that are written the same way. */
static void check_count(unsigned given, bool shares, unsigned wanted)
{
    struct inherited in = {0};
    struct errmsg why;
    struct socket_set set;
    struct config_listener l = listener("127.0.0.1:0");
    uint16_t ports[2] = {0, 0};
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < given; i++)
            add(&in, INHERITED_LISTENER, &l.address, open_socket(&ports[k], shares));
    for (unsigned k = 0; k < 2; k++) {
        assert_int_equal(sockets_open(&in, &l, WORKERS, false, &set, &why), ERR_OK);
        check_set(&set, wanted, ports[k]);
        socket_set_close(&set);
    }
    assert_int_equal(inherited_count(&in), 0);
}

static void fewer_than_workers(void **state)
{
    (void)state;
    check_count(1, true, WORKERS);
}

static void more_than_workers(void **state)
{
    (void)state;
    check_count(WORKERS + 2, true, WORKERS + 2);
}

/* A second socket of this address cannot be opened: all workers share the one. */
static void one_that_cannot_share_its_address(void **state)
{
    (void)state;
    check_count(1, false, WORKERS);
}

static void the_service_managers_list(void **state)
{
    struct inherited in = {0};
    char pid[16];
    (void)state;
    assert_int_equal(inherited_from_service_manager(&in), ERR_OK); /* there is none */
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_PID", "1", 1); /* another process's */
    assert_int_equal(inherited_from_service_manager(&in), ERR_OK);
    (void)snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "99999999", 1);
    assert_int_equal(inherited_from_service_manager(&in), ERR_OK);
    setenv("LISTEN_FDS", "x", 1);
    assert_int_equal(inherited_from_service_manager(&in), ERR_OK);
    assert_null(in.first);
}

/* `theirs` and `wanted` without the port, which is the same. */
static enum inherited_neighbours neighbours(const char *theirs, const char *wanted)
{
    char address[64];
    struct inherited_socket s = {.fd = -1};
    (void)snprintf(address, sizeof address, "%s:4711", theirs);
    const struct config_listener of_them = listener(address);
    s.bound = socket_address_ip(&of_them.address.addr, of_them.address.port);
    inherited_name(INHERITED_LISTENER, &of_them.address, s.name);
    const struct inherited in = {.first = &s};
    (void)snprintf(address, sizeof address, "%s:4711", wanted);
    const struct config_listener ours = listener(address);
    return inherited_neighbours(&in, &ours.address);
}

static void what_takes_in_another_address_may_stand_beside_it(void **state)
{
    (void)state;
    static const char *const wider[][2] = {
        {"127.0.0.1", "0.0.0.0"}, {"127.0.0.1", "*"}, {"0.0.0.0", "*"}, {"[::1]", "[::]"}, {"[::1]", "*"},
    };
    for (size_t i = 0; i < sizeof wider / sizeof wider[0]; i++) {
        assert_int_equal(neighbours(wider[i][0], wider[i][1]), NEIGHBOURS_WITHIN);
        assert_int_equal(neighbours(wider[i][1], wider[i][0]), NEIGHBOURS_AROUND);
    }
    assert_int_equal(neighbours("127.0.0.1", "127.0.0.1"), NEIGHBOURS_AROUND);
}

static void addresses_with_nothing_in_common_are_no_neighbours(void **state)
{
    (void)state;
    static const char *const apart[][2] = {
        {"127.0.0.1", "127.0.0.2"}, {"127.0.0.1", "[::]"}, {"[::1]", "0.0.0.0"}, {"[::]", "0.0.0.0"}};
    for (size_t i = 0; i < sizeof apart / sizeof apart[0]; i++) {
        assert_int_equal(neighbours(apart[i][0], apart[i][1]), NEIGHBOURS_NONE);
        assert_int_equal(neighbours(apart[i][1], apart[i][0]), NEIGHBOURS_NONE);
    }
}

static void only_listeners_of_a_gateway_on_the_same_port_are_neighbours(void **state)
{
    (void)state;
    const struct config_listener ours = listener("0.0.0.0:4711"), any_port = listener("0.0.0.0:0");
    const struct config_listener theirs = listener("127.0.0.1:4711"), elsewhere = listener("127.0.0.1:4712");
    struct inherited_socket s = {.bound = socket_address_ip(&theirs.address.addr, 4711), .fd = -1};
    const struct inherited in = {.first = &s};
    assert_int_equal(inherited_neighbours(&in, &ours.address), NEIGHBOURS_NONE); /* of the service manager */
    inherited_name(INHERITED_ADMIN, &theirs.address, s.name);
    assert_int_equal(inherited_neighbours(&in, &ours.address), NEIGHBOURS_NONE);
    inherited_name(INHERITED_LISTENER, &theirs.address, s.name);
    assert_int_equal(inherited_neighbours(&in, &any_port.address), NEIGHBOURS_NONE);
    s.bound = socket_address_ip(&elsewhere.address.addr, 4712);
    assert_int_equal(inherited_neighbours(&in, &ours.address), NEIGHBOURS_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_tell_roles_apart),
        cmocka_unit_test(without_a_name_the_address_counts),
        cmocka_unit_test(what_does_not_listen_is_refused),
        cmocka_unit_test(fewer_than_workers),
        cmocka_unit_test(more_than_workers),
        cmocka_unit_test(one_that_cannot_share_its_address),
        cmocka_unit_test(the_service_managers_list),
        cmocka_unit_test(what_takes_in_another_address_may_stand_beside_it),
        cmocka_unit_test(addresses_with_nothing_in_common_are_no_neighbours),
        cmocka_unit_test(only_listeners_of_a_gateway_on_the_same_port_are_neighbours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
