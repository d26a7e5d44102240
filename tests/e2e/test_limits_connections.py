"""Limits on connections, tunnels, and the pool of connections to the backend. Connections of an address: test_sources.py."""

import pytest

from support.backend import Connection, answer
from support.client import request
from support.expect import is_error, is_passed
from support.limits import hit, is_over, padded
from support.payload import MIB, PLENTY
from support.websocket import accepting, upgrade


# --- connections -----------------------------------------------------------------------------------------


def test_pipelined_bytes(proofgw, backend, partner):
    """Who sends ahead more than that is not read until its answers are out; nothing is lost."""
    gateway = proofgw(limits={"pipelined": "1KiB", "buffer": "64KiB", "head": "8KiB", "response_head": "8KiB"})
    gate = backend.hold(then=Connection.serve)
    client = gateway.client()
    one = padded(request(fields=partner.authorization), 4096)
    client.send(one)
    backend.wait_requests(1)
    client.socket.settimeout(1.0)  # a send that does not move for so long has met back-pressure
    sent, total = 0, PLENTY
    with pytest.raises(TimeoutError):
        while sent < total:
            sent += client.socket.send(one[sent % len(one) :])
    assert gateway.metrics()["process_resident_memory_bytes"] < 512 * MIB
    gate.open()
    client.socket.settimeout(10)
    for _ in range(1 + sent // len(one)):
        is_passed(client.response())
    if sent % len(one):
        is_passed(client.ask(one[sent % len(one) :]))


def test_requests_per_connection(proofgw, backend, partner):
    gateway = proofgw(limits={"requests_per_connection": 3})
    client = gateway.client()
    client.send(request(fields=partner.authorization) * 4)
    assert is_passed(client.response())["connection"] is None
    assert is_passed(client.response())["connection"] is None
    assert is_passed(client.response())["connection"] == "close"
    client.expect_close()
    assert len(backend.requests) == 3
    assert hit(gateway, "requests_per_connection") == 1


def test_denials_count_as_requests_of_a_connection(proofgw):
    gateway = proofgw(limits={"requests_per_connection": 2})
    client = gateway.client()
    is_error(client.exchange(), "missing_token", closes=False)
    is_error(client.exchange(), "missing_token", closes=True)
    client.expect_close()


def test_connections_per_worker(proofgw, backend, partner):
    gateway = proofgw(limits={"connections_per_worker": 2})
    clients = [gateway.client(), gateway.client()]
    for client in clients:
        is_passed(client.exchange(fields=partner.authorization))
    third = gateway.client()
    is_over(gateway, third, third.exchange(fields=partner.authorization), "unavailable", "connections_per_worker")
    assert gateway.metrics()["proofgw_connections_refused_total"] == 1
    for client in clients:
        is_passed(client.exchange(fields=partner.authorization))
    clients[0].close()
    gateway.wait_metric("proofgw_connections_open", 1)
    is_passed(gateway.client().exchange(fields=partner.authorization))
    assert len(backend.requests) == 5


def test_connections_per_worker_are_per_worker(proofgw, backend, partner):
    """Four workers of one connection each: the kernel spreads connections by chance, so some are refused, and what is
    open is never more than one for each."""
    gateway = proofgw(workers=4, limits={"connections_per_worker": 1})
    clients = [gateway.client() for _ in range(20)]
    answers = [client.exchange(fields=partner.authorization) for client in clients]
    passed = [a for a in answers if a.status == 200]
    for a in answers:
        if a.status != 200:
            is_error(a, "unavailable", closes=True)
    assert 1 <= len(passed) <= 4
    gateway.wait_metric("proofgw_connections_open", lambda open: open >= len(passed))


# --- tunnels ---------------------------------------------------------------------------------------------


def tunnel(c):
    """A backend that accepts an upgrade and then waits for the end."""
    c.send(accepting(c.read_request()))
    c.drain()


def test_tunnels_per_worker(proofgw, backend, partner):
    gateway = proofgw(limits={"tunnels_per_worker": 2})
    backend.script(tunnel, tunnel, tunnel)
    first, second, third = gateway.client(), gateway.client(), gateway.client()
    assert first.ask(upgrade(partner)).status == 101
    assert second.ask(upgrade(partner)).status == 101
    is_over(gateway, third, third.ask(upgrade(partner)), "unavailable", "tunnels_per_worker", closes=False)
    first.close()
    gateway.wait_metric("proofgw_tunnels_open", 1)
    assert third.ask(upgrade(partner)).status == 101


def test_tunnels_that_are_being_opened_count_too(proofgw, backend, partner):
    """Two upgrades that wait for the backend at the same time, and one place."""
    gateway = proofgw(limits={"tunnels_per_worker": 1})
    gate = backend.gate()

    def slow(c):
        sent = c.read_request()
        gate.wait()
        c.send(accepting(sent))
        c.drain()

    backend.script(slow, slow)
    first, second = gateway.client(), gateway.client()
    first.send(upgrade(partner))
    backend.wait_requests(1)
    is_error(second.ask(upgrade(partner)), "unavailable", closes=False)
    gate.open()
    assert first.response().status == 101
    assert gateway.metrics()["proofgw_tunnels_open"] == 1


def test_no_tunnels_at_all(proofgw, backend, partner):
    gateway = proofgw(limits={"tunnels_per_worker": 0})
    client = gateway.client()
    is_error(client.ask(upgrade(partner)), "unavailable", closes=False)
    is_passed(client.exchange(fields=partner.authorization))


# --- the backend -----------------------------------------------------------------------------------------


def head_of(size):
    base = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Pad: \r\n\r\n"
    return base.replace(b"X-Pad: ", b"X-Pad: " + b"p" * (size - len(base)))


@pytest.mark.parametrize("pieces", [False, True])
def test_response_head(proofgw, backend, partner, pieces):
    gateway = proofgw(limits={"response_head": "1KiB"})

    def send(size):
        def script(c):
            c.read_request()
            data = head_of(size)
            for part in [data[i : i + 100] for i in range(0, size, 100)] if pieces else [data]:
                c.send(part)
            c.drain()

        return script

    backend.script(send(1024), send(1025))
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization), body=b"")
    backend.connections[0].end()  # so that the next request opens the next connection
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    is_error(client.exchange(fields=partner.authorization), "upstream_invalid_response", closes=False)
    assert hit(gateway, "response_head") == 1


def test_an_endless_response_head(proofgw, backend, partner):
    gateway = proofgw(limits={"response_head": "1KiB"})

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                c.send(b"X-More: and more\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass

    backend.script(script)
    client = gateway.client()
    is_error(client.exchange(fields=partner.authorization), "upstream_invalid_response", closes=False)
    assert hit(gateway, "response_head") == 1


def test_many_interim_answers(proofgw, backend, partner):
    """A backend that only ever sends 1xx does not answer."""
    gateway = proofgw()

    def script(c):
        c.read_request()
        try:
            for _ in range(1000):
                c.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        c.drain()

    backend.script(script)
    got = gateway.client().exchange(fields=partner.authorization)
    is_error(got, "upstream_invalid_response")
    assert len(got.interim) < 100


def test_header_count_of_an_answer(proofgw, backend, partner):
    gateway = proofgw(limits={"header_count": 10})
    client = gateway.client()
    backend.answer = lambda r: answer(fields="X-A: 1\r\n" * 9)
    assert len(is_passed(client.exchange(fields=partner.authorization)).fields) == 12
    backend.answer = lambda r: answer(fields="X-A: 1\r\n" * 10)
    is_error(client.exchange(fields=partner.authorization), "upstream_invalid_response", closes=False)


def holding(gate):
    def script(c):
        c.read_request()
        gate.wait()
        c.send(answer())
        c.serve()

    return script


def test_upstream_connections_and_waiting(proofgw, backend, partner):
    """One connection to the backend, one place in the queue: the second request waits, the third is told so."""
    gateway = proofgw(limits={"upstream_connections": 1, "upstream_waiting": 1})
    gate = backend.gate()
    backend.script(holding(gate))
    first, second, third = gateway.client(), gateway.client(), gateway.client()
    first.send(request(fields=partner.authorization))
    backend.wait_requests(1)
    second.send(request(target="/widget/second", fields=partner.authorization))
    gateway.wait_metric("proofgw_exchanges_active", 2)
    got = third.exchange(fields=partner.authorization)
    is_error(got, "unavailable", closes=False)
    assert gateway.line_of(got)["end"] == "gateway/queue"
    assert hit(gateway, "upstream_waiting") == 1
    gate.open()
    is_passed(first.response())
    is_passed(second.response())
    assert backend.last.target == "/widget/second"
    is_passed(third.exchange(fields=partner.authorization))
    assert len(backend.connections) == 1


def test_nobody_may_wait(proofgw, backend, partner):
    gateway = proofgw(limits={"upstream_connections": 1, "upstream_waiting": 0})
    gate = backend.gate()
    backend.script(holding(gate))
    first, second = gateway.client(), gateway.client()
    first.send(request(fields=partner.authorization))
    backend.wait_requests(1)
    is_error(second.exchange(fields=partner.authorization), "unavailable", closes=False)
    gate.open()
    is_passed(first.response())
    is_passed(second.exchange(fields=partner.authorization))


def test_those_who_wait_are_served_in_order(proofgw, backend, partner):
    gateway = proofgw(limits={"upstream_connections": 1})
    gate = backend.gate()
    backend.script(holding(gate))
    clients = [gateway.client() for _ in range(8)]
    for n, client in enumerate(clients):
        client.send(request(target=f"/widget/{n}", fields=partner.authorization))
        gateway.wait_metric("proofgw_exchanges_active", n + 1)
    gate.open()
    for client in clients:
        is_passed(client.response())
    assert [r.target for r in backend.requests] == [f"/widget/{n}" for n in range(8)]


def test_the_limit_is_per_environment(proofgw, backend, partner):
    partner.sandbox = ["127.0.0.1"]
    gateway = proofgw(limits={"upstream_connections": 1, "upstream_waiting": 0})
    gate = backend.gate()
    backend.script(holding(gate))
    first, second = gateway.client(), gateway.client()
    first.send(request(fields=partner.authorization))
    backend.wait_requests(1)
    is_passed(second.exchange(host="sandbox.test", fields=partner.authorization))
    gate.open()
    is_passed(first.response())


@pytest.mark.parametrize("most", [0, 1])
def test_upstream_idle_connections(proofgw, backend, partner, most):
    gateway = proofgw(limits={"upstream_idle_connections": most})
    gate = backend.gate()
    backend.script(holding(gate), holding(gate))
    clients = [gateway.client(), gateway.client()]
    for client in clients:
        client.send(request(fields=partner.authorization))
    backend.wait_requests(2)
    gate.open()
    for client in clients:
        is_passed(client.response())
    backend.wait_open(most)
    scrape = gateway.metrics()
    assert scrape["proofgw_upstream_connections_open"] == scrape["proofgw_upstream_connections_idle"] == most
