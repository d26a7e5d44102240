"""Connections to the backend that die under a request, or before the request is whole, and requests that wait for one.

Goal: no request is sent twice that may not be, and none is lost that could be served.

Method: scripts at the backend, byte by byte. What reaches the backend is counted exactly.
"""

import signal
import threading

import pytest

from support.backend import Connection, answer
from support.client import Stopwatch, request
from support.expect import is_error, is_passed
from support.faults import announced, recovers
from support.http1 import Ended
from support.payload import MIB
from support.wait import DEADLINE_S, wait_for
from support.websocket import upgrade


# --- a kept connection that dies under a request ---------------------------------------------------------


def stale(how):
    """Answers one request and ends the connection when the next one has come."""

    def script(c):
        c.read_request()
        c.send(answer())
        c.read_head()
        getattr(c, how)()

    return script


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_request_is_sent_once_more(gateway, backend, partner, how, method):
    backend.script(stale(how))
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    backend.answer = lambda r: answer(body=b"" if r.method == "HEAD" else b"second")
    got = client.exchange(method, "/widget/again", fields=partner.authorization)
    assert got.status == 200
    sent = [(r.method, r.target) for r in backend.requests]
    assert sent[1:] == [(method, "/widget/again")] * 2, sent
    assert backend.requests[1]["x-request-id"] == backend.requests[2]["x-request-id"] == got["x-request-id"]
    line = gateway.line_of(got)
    assert (line["end"], line["retries"], line["backend_reused"]) == ("ok/done", 1, False)
    assert gateway.metrics()["proofgw_upstream_retries_total"] == 1


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "method, body", [("POST", b"x"), ("POST", b""), ("PATCH", b"x"), ("PUT", b"x"), ("DELETE", b"x")]
)
def test_a_request_that_may_not_be_repeated_is_sent_once(gateway, backend, partner, how, method, body):
    """Not idempotent, or its body is gone. The client is told, and may decide itself."""
    backend.script(stale(how))
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    got = client.exchange(method, fields=partner.authorization, body=body)
    is_error(got, "upstream_unavailable", closes=False)
    assert gateway.line_of(got)["end"] == "backend/response_head"
    is_passed(client.exchange(target="/widget/next", fields=partner.authorization))
    assert [r.method for r in backend.requests] == ["GET", method, "GET"]
    assert gateway.metrics()["proofgw_upstream_retries_total"] == 0


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_an_empty_chunked_body_is_not_lost_in_a_retry(gateway, backend, partner, method):
    """Either sent again with its last chunk, or not sent again."""
    backend.script(stale("close"))
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    raw = announced("Transfer-Encoding: chunked", partner).replace(b"POST", method.encode()) + b"0\r\n\r\n"
    got = client.ask(raw, method)
    assert got.status in (200, 502)
    assert len(backend.requests) == (3 if got.status == 200 else 2)


def test_a_request_is_sent_again_only_once(gateway, backend, partner):
    backend.script(stale("close"), lambda c: (c.read_request(), c.close()))
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    got = client.exchange(fields=partner.authorization)
    is_error(got, "upstream_unavailable", closes=False)
    assert len(backend.requests) == 3
    assert gateway.line_of(got)["retries"] == 1
    recovers(gateway, backend, partner, client)


def test_a_retry_does_not_meet_another_stale_connection(gateway, backend, partner):
    """Of five kept connections each dies under its next request. The request that finds the first of them dead goes on
    a new one, not on the next dead one."""
    gate = backend.gate()

    def script(c):
        c.read_request()
        gate.wait()
        c.send(answer())
        try:
            c.read_head()
        except Ended:
            return  # it was never used again
        c.reset()

    backend.script(*[script] * 5)
    clients = [gateway.client().send(request(fields=partner.authorization)) for _ in range(5)]
    backend.wait_requests(5)
    gate.open()
    for client in clients:
        is_passed(client.response())
    gateway.wait_metric("proofgw_upstream_connections_idle", 5)
    is_passed(clients[0].exchange(fields=partner.authorization))
    assert len(backend.requests) == 7
    scrape = gateway.wait_metric("proofgw_upstream_connections_idle", 5)
    assert scrape["proofgw_upstream_retries_total"] == 1


def test_an_answer_that_has_begun_is_not_asked_for_again(gateway, backend, partner):
    def script(c):
        c.read_request()
        c.send(answer())
        c.read_request()
        c.send(b"HTTP/1.1 2")
        c.close()

    backend.script(script)
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    got = client.exchange(fields=partner.authorization)
    is_error(got, "upstream_invalid_response", closes=False)
    assert len(backend.requests) == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_request_that_cannot_be_repeated_looks_at_a_connection_that_was_idle_for_long(gateway, backend, partner, method):
    """The backend's FIN is in the kernel, and the gateway (stopped meanwhile) finds the client's request first. Its body
    could not be sent twice, whatever the method."""
    gate, closed = backend.gate(), backend.gate()

    def script(c):
        c.read_request()
        c.send(answer())
        gate.wait()
        c.close()
        closed.open()

    backend.script(script)
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    gateway.wait_metric("proofgw_upstream_connections_idle", 1)
    watch = Stopwatch()
    wait_for(lambda: watch.seconds() > 1.2, "a connection that is no longer young")
    gateway.signal(signal.SIGSTOP)
    client.send(request(method, fields=partner.authorization, body=b"once"))
    gate.open()
    closed.wait()
    gateway.signal(signal.SIGCONT)
    is_passed(client.response(method))
    assert [r.body for r in backend.requests] == [b"", b"once"]


# --- the answer comes before the request is whole --------------------------------------------------------


def test_an_early_refusal_by_a_backend_that_closes(gateway, backend, partner):
    """The backend refuses a large upload and closes with unread bytes, which is a reset on the wire. The client gets
    the whole refusal all the same."""

    def script(c):
        c.read_head()
        c.send(answer("413 Too Large", b"no", "Connection: close\r\n"))
        c.close()

    backend.script(script)
    client = gateway.client()
    client.send(announced(f"Content-Length: {8 * MIB}", partner))
    sender = threading.Thread(target=client.send_until_refused, args=(b"x" * 65536, 8 * MIB))
    sender.start()
    got = client.response("POST")
    is_passed(got, 413, b"no")
    assert got["connection"] == "close"
    sender.join(DEADLINE_S)
    assert not sender.is_alive()
    recovers(gateway, backend, partner)


def test_the_rest_of_a_request_is_not_taken_for_the_next_one(gateway, backend, partner):
    """After an early answer the client's remaining body bytes look like a request; they must not become one."""

    def script(c):
        c.read_head()
        c.send(answer("400 Bad Request", b"early"))
        c.drain()

    backend.script(script)
    smuggled = request(target="/widget/smuggled", fields=partner.authorization)
    client = gateway.client().send(announced(f"Content-Length: {len(smuggled)}", partner))
    is_passed(client.response("POST"), 400, b"early")
    client.send_until_refused(smuggled, len(smuggled))
    try:
        assert client.reader.until_end() == b""
    except Ended:
        pass  # reset: as good an end
    gateway.wait_metric("proofgw_exchanges_active", 0)
    assert [r.target for r in backend.requests] == ["/widget/transactions/1"]


# --- the queue for the pool ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_waiting_request_goes_on_when_the_connection_it_waits_for_dies(proofgw, backend, partner, how):
    gateway = proofgw(limits={"upstream_connections": 1})
    gate = backend.gate()

    def script(c):
        c.read_request()
        gate.wait()
        getattr(c, how)()

    backend.script(script)
    first, second = gateway.client(), gateway.client()
    first.send(request("POST", "/widget/first", fields=partner.authorization))
    backend.wait_requests(1)
    second.send(request("POST", "/widget/second", fields=partner.authorization))
    gateway.wait_metric("proofgw_exchanges_active", 2)
    gate.open()
    is_error(first.response("POST"), "upstream_unavailable", closes=False)
    got = is_passed(second.response("POST"))
    assert [r.target for r in backend.requests] == ["/widget/first", "/widget/second"]
    assert gateway.line_of(got)["queue_ms"] > 0


def test_a_retry_while_others_wait(proofgw, backend, partner):
    """The only connection dies under one request while three more wait: each is served once, on new ones."""
    gateway = proofgw(limits={"upstream_connections": 1})
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(answer())
        c.read_head()
        gate.wait()
        c.close()

    backend.script(script)
    clients = [gateway.client() for _ in range(4)]
    is_passed(clients[0].exchange(fields=partner.authorization))
    for n, client in enumerate(clients):
        client.send(request(target=f"/widget/{n}", fields=partner.authorization))
        gateway.wait_metric("proofgw_exchanges_active", n + 1)
    backend.wait_requests(2)
    gate.open()
    for client in clients:
        is_passed(client.response())
    targets = [r.target for r in backend.requests]
    assert sorted(targets[1:]) == ["/widget/0", "/widget/0", "/widget/1", "/widget/2", "/widget/3"]
    gateway.wait_metric("proofgw_upstream_connections_open", 1)


def test_a_retry_that_finds_no_connection(proofgw, backend, partner):
    """The backend may have carried the request out before it closed: a 503 would say that it has not seen it."""
    gateway = proofgw(limits={"upstream_connections": 1}, timeouts={"upstream_connect": "1s"})
    first, second = backend.gate(), backend.gate()

    def dies(c):
        c.read_request()
        c.send(answer())
        c.read_head()
        first.wait()
        c.close()

    def holds(c):
        c.read_request()
        second.wait()
        c.send(answer())

    backend.script(dies)
    backend.script(holds)
    sent, waits = gateway.client(), gateway.client()
    is_passed(sent.exchange(fields=partner.authorization))
    for n, client in enumerate((sent, waits)):
        client.send(request("DELETE", fields=partner.authorization))
        gateway.wait_metric("proofgw_exchanges_active", n + 1)
        backend.wait_requests(2)
    first.open()
    is_error(got := sent.response("DELETE"), "upstream_unavailable")
    assert gateway.line_of(got)["end"] == "timeout/queue"
    second.open()
    is_passed(waits.response("DELETE"))


def test_an_upgrade_keeps_its_place_in_the_queue(proofgw, backend, partner):
    """It wants a connection of its own, so a kept one has to go first; nobody behind it gets that one's place."""
    gateway = proofgw(limits={"upstream_connections": 1})
    gate = backend.hold(then=Connection.serve)
    clients = [gateway.client() for _ in range(4)]
    waiting = [
        request(target="/widget/first", fields=partner.authorization),
        upgrade(partner),
        request(target="/widget/third", fields=partner.authorization),
        request("POST", target="/widget/fourth", fields=partner.authorization),
    ]
    for n, client in enumerate(clients):
        client.send(waiting[n])
        gateway.wait_metric("proofgw_exchanges_active", n + 1)
    gate.open()
    for client in clients:
        is_passed(client.response())
    assert [r.target for r in backend.requests] == ["/widget/first", "/ws?tx_id=1", "/widget/third", "/widget/fourth"]


def test_a_client_that_leaves_the_queue_is_not_served(proofgw, backend, partner):
    gateway = proofgw(limits={"upstream_connections": 1})
    gate = backend.hold(then=Connection.serve)
    first, second, third = gateway.client(), gateway.client(), gateway.client()
    first.send(request(target="/widget/first", fields=partner.authorization))
    backend.wait_requests(1)
    second.send(request(target="/widget/second", fields=partner.authorization))
    gateway.wait_metric("proofgw_exchanges_active", 2)
    third.send(request(target="/widget/third", fields=partner.authorization))
    gateway.wait_metric("proofgw_exchanges_active", 3)
    second.reset()
    gateway.wait_metric("proofgw_exchanges_active", 2)
    gate.open()
    is_passed(first.response())
    is_passed(third.response())
    assert [r.target for r in backend.requests] == ["/widget/first", "/widget/third"]
    assert [line["end"] for line in gateway.wait_access(3) if line["path"] == "/widget/second"] == ["client/queue"]
