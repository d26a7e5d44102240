"""Timeouts of the backend's side, of tunnels, and of the end."""

import select
import signal
import socket

import pytest

from support.backend import chunk, chunked
from support.client import Stopwatch, request
from support.expect import is_error, is_passed
from support.http1 import Ended
from support.payload import MIB, PLENTY
from support.wait import DEADLINE_S, wait_for
from support.websocket import CLOSE, PING, accepting, frame, read_frame, upgrade

SHORT = "300ms"
SHORT_S = 0.3


def silent(c):
    """A backend that takes a request and says nothing."""
    c.read_request()
    c.drain()


# --- the backend's side ----------------------------------------------------------------------------------


@pytest.fixture
def deaf():
    """An address where connecting neither succeeds nor fails: the queue of the listener is full and stays so."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    sockets = [listener]

    def is_full():
        s = socket.socket()
        s.setblocking(False)
        sockets.append(s)
        s.connect_ex(listener.getsockname())
        _, writable, _ = select.select([], [s], [], 0.2)
        return not writable

    wait_for(is_full, "a full queue")
    yield "127.0.0.1:%d" % listener.getsockname()[1]
    for s in sockets:
        s.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_upstream_connect(proofgw, deaf, partner, method):
    gateway = proofgw(upstream=deaf, timeouts={"upstream_connect": SHORT})
    client = gateway.client()
    watch = Stopwatch()
    got = client.exchange(method, fields=partner.authorization, body=b"x" if method == "POST" else b"")
    assert watch.seconds() >= SHORT_S
    is_error(got, "upstream_timeout")
    assert gateway.line_of(got)["end"] == "timeout/connect"
    assert gateway.metrics()["proofgw_upstream_connect_failures_total"] == 1
    assert gateway.metrics()["proofgw_upstream_connections_open"] == 0


def test_upstream_connect_also_bounds_the_queue(proofgw, backend, partner):
    gateway = proofgw(limits={"upstream_connections": 1}, timeouts={"upstream_connect": SHORT})
    backend.script(silent)
    first, second = gateway.client(), gateway.client()
    first.send(request(fields=partner.authorization))
    backend.wait_requests(1)
    got = second.exchange(fields=partner.authorization)
    is_error(got, "unavailable", closes=False)
    assert gateway.line_of(got)["end"] == "timeout/queue"
    assert len(backend.requests) == 1


@pytest.mark.parametrize("method, body", [("GET", b""), ("POST", b"body")])
def test_upstream_response(proofgw, backend, partner, method, body):
    gateway = proofgw(timeouts={"upstream_response": SHORT})
    ended = backend.gate()
    backend.script(lambda c: (silent(c), ended.open()))
    client = gateway.client()
    watch = Stopwatch()
    got = client.exchange(method, fields=partner.authorization, body=body)
    assert watch.seconds() >= SHORT_S
    is_error(got, "upstream_timeout", closes=False)
    assert gateway.line_of(got)["end"] == "timeout/response_head"
    ended.wait()  # the backend's connection is cut
    is_passed(client.exchange(fields=partner.authorization))
    assert len(backend.connections) == 2


def test_upstream_response_in_the_middle_of_a_head(proofgw, backend, partner):
    """It is the time for the whole head: a part of it buys no more."""
    gateway = proofgw(timeouts={"upstream_response": SHORT})
    backend.script(lambda c: (c.read_request(), c.send(b"HTTP/1.1 200 OK\r\nContent-"), c.drain()))
    got = gateway.client().exchange(fields=partner.authorization)
    is_error(got, "upstream_timeout", closes=False)
    assert gateway.line_of(got)["end"] == "timeout/response_head"


def test_upstream_response_begins_with_the_end_of_the_request(proofgw, backend, partner):
    """While the body is still coming it is the client who is awaited."""
    gateway = proofgw(timeouts={"upstream_response": SHORT})
    client, other = gateway.client(), gateway.client()
    backend.script(lambda c: c.serve(), silent)
    client.send(request("POST", fields=partner.authorization, body=b"abcdef")[:-3])
    gateway.wait_metric("proofgw_upstream_connections_open", 1)
    is_error(other.exchange(fields=partner.authorization), "upstream_timeout")  # as much time has passed
    is_passed(client.ask(b"def"))


def test_upstream_idle_cuts_an_answer_that_has_begun(proofgw, backend, partner):
    """The client must see that it is not whole: the length is not reached, the last chunk is missing."""
    gateway = proofgw(timeouts={"upstream_idle": SHORT})
    for begin, seen in [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", b"abc"),
        (chunked(b"abc", end=False), chunk(b"abc")),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", chunk(b"abc")),
    ]:
        backend.script(lambda c, begin=begin: (c.read_request(), c.send(begin), c.drain()))
        client = gateway.client().send(request(fields=partner.authorization))
        head = client.reader.response_head()
        assert client.reader.until_end() == seen
        line = gateway.wait_access(len(backend.connections))[-1]
        assert (line["end"], line["status"]) == ("timeout/response_body", 200)
        assert line["request_id"] == head["x-request-id"]


def test_upstream_idle_resets_an_answer_whose_end_would_look_right(proofgw, backend, partner):
    gateway = proofgw(timeouts={"upstream_idle": SHORT})
    backend.script(lambda c: (c.read_request(), c.send(b"HTTP/1.1 200 OK\r\n\r\nabc"), c.drain()))
    client = gateway.client().send(request(fields=partner.authorization, version="1.0"))
    client.reader.response_head()
    assert client.expect_reset() in (b"abc", b"")  # a reset may overtake what is not read yet


def test_upstream_idle_is_between_two_bytes(proofgw, backend, partner):
    gateway = proofgw(timeouts={"upstream_idle": SHORT})

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            select.select([], [], [], 0.1)
            c.send(b"x")
        c.expect_end()

    backend.script(script)
    is_passed(gateway.client().exchange(fields=partner.authorization), body=b"x" * 10)


def test_upstream_idle_holds_for_an_answer_instead_of_100(proofgw, backend, partner):
    """The backend refuses the body that it was asked about: what runs from then on is its answer, and no other clock."""
    gateway = proofgw(timeouts={"upstream_response": SHORT, "request_body": SHORT})
    watch = Stopwatch()

    def script(c):
        c.read_head()
        c.send(chunked(b"not ", status="403 Forbidden", end=False))
        wait_for(lambda: watch.seconds() > 3 * SHORT_S, "a backend that takes its time")
        c.send(chunk(b"you") + b"0\r\n\r\n")
        c.expect_end()

    backend.script(script)
    fields = "Expect: 100-continue\r\n" + partner.authorization
    client = gateway.client().send(request("POST", fields=fields, body=b"later")[:-5])
    got = is_passed(client.response(), 403, b"not you")
    assert got["connection"] == "close"
    client.expect_close()


def early(c):
    """A backend that refuses before it has the body, and takes its time over it."""
    c.read_head()
    c.send(chunked(b"too ", status="413 Too Large", end=False))


def test_request_body_does_not_end_an_early_answer(proofgw, backend, partner):
    """A client that reads a refusal need not send the rest, nor say so. Spec: RFC 9112 section 9.5."""
    gateway = proofgw(timeouts={"request_body": SHORT})
    watch = Stopwatch()

    def script(c):
        early(c)
        wait_for(lambda: watch.seconds() > 3 * SHORT_S, "a backend that takes its time")
        c.send(chunk(b"much") + b"0\r\n\r\n")
        c.drain()

    backend.script(script)
    client = gateway.client().send(request("POST", fields=partner.authorization, body=b"x" * 1000)[:-900])
    got = is_passed(client.response("POST"), 413, b"too much")
    assert got["connection"] == "close"
    client.expect_close()
    assert gateway.line_of(got)["end"] == "ok/done"


def test_upstream_idle_after_the_body_of_an_early_answer_did_not_come(proofgw, backend, partner):
    gateway = proofgw(timeouts={"request_body": SHORT, "upstream_idle": SHORT})
    backend.script(lambda c: (early(c), c.drain()))
    client = gateway.client().send(request("POST", fields=partner.authorization, body=b"x" * 1000)[:-900])
    with pytest.raises(Ended) as ended:
        client.response("POST")
    assert not ended.value.reset  # the missing last chunk says it
    (line,) = gateway.wait_access(1)
    assert (line["end"], line["status"]) == ("timeout/response_body", 413)


def test_upstream_idle_while_the_backend_does_not_read(proofgw, backend, partner):
    gateway = proofgw(timeouts={"upstream_idle": SHORT}, limits={"body": "1GiB"})
    gate = backend.gate()
    backend.script(lambda c: (c.read_head(), gate.wait()))
    client = gateway.client()
    client.send(request("POST", fields=partner.authorization).replace(b"Length: 0", b"Length: %d" % (64 * MIB)))
    client.send_until_refused(bytes(MIB), 64 * MIB)
    got = client.response()
    is_error(got, "upstream_timeout", closes=True)
    assert gateway.line_of(got)["end"] == "timeout/request_body"
    gate.open()


def test_upstream_idle_does_not_run_while_the_client_does_not_read(proofgw, backend, partner):
    gateway = proofgw(timeouts={"upstream_idle": SHORT})
    total = PLENTY
    stopped = backend.gate()

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        c.socket.settimeout(3 * SHORT_S)
        block, sent = bytes(MIB), 0
        with pytest.raises(TimeoutError):
            while sent < total:
                sent += c.socket.send(block)
        stopped.open()
        c.socket.settimeout(DEADLINE_S)
        while sent < total:
            sent += c.socket.send(block[: total - sent])
        c.expect_end()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization))
    stopped.wait()
    assert len(client.response().body) == total


def test_upstream_keep_alive(proofgw, backend, partner):
    gateway = proofgw(timeouts={"upstream_keep_alive": SHORT})
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    backend.wait_open(0)
    assert gateway.metrics()["proofgw_upstream_connections_open"] == 0
    is_passed(client.exchange(fields=partner.authorization))
    assert len(backend.connections) == 2
    assert gateway.metrics()["proofgw_upstream_retries_total"] == 0


# --- tunnels and the end ---------------------------------------------------------------------------------


def tunnel(c):
    c.send(accepting(c.read_request()))
    c.drain()


def test_tunnel_idle(proofgw, backend, partner):
    gateway = proofgw(timeouts={"tunnel_idle": SHORT})
    backend.script(tunnel)
    watch = Stopwatch()
    client = gateway.client()
    got = client.ask(upgrade(partner))
    assert got.status == 101
    fin, opcode, payload = read_frame(client.reader)
    assert watch.seconds() >= SHORT_S
    assert (fin, opcode, payload[:2]) == (True, CLOSE, (1001).to_bytes(2, "big"))
    client.expect_close()
    opened, closed = gateway.wait_access(2)
    assert (opened["event"], closed["event"]) == ("tunnel_open", "tunnel_close")
    assert closed["end"] == "idle/tunnel"
    assert opened["request_id"] == closed["request_id"] == got["x-request-id"]


def test_a_tunnel_lives_as_long_as_something_moves(proofgw, backend, partner):
    """Bytes of either side count; a tunnel beside it in which nothing moves ends meanwhile."""
    gateway = proofgw(timeouts={"tunnel_idle": SHORT})

    def echo(c):
        c.send(accepting(c.read_request()))
        while data := c._receive():
            c.send(frame(PING, data[-1:]))

    backend.script(echo, tunnel)
    client, other = gateway.client(), gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    assert other.ask(upgrade(partner)).status == 101
    while not select.select([other.socket], [], [], 0.05)[0]:
        client.send(frame(PING, b"x", mask=b"abcd"))
        assert read_frame(client.reader)[1] == PING
    assert read_frame(other.reader)[1] == CLOSE
    client.send(frame(PING, b"x", mask=b"abcd"))
    assert read_frame(client.reader)[1] == PING


def test_shutdown_waits_for_what_is_in_flight(proofgw, backend, partner):
    gateway = proofgw()
    gate = backend.hold()
    client = gateway.client().send(request(fields=partner.authorization))
    backend.wait_requests(1)
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    gate.open()
    got = is_passed(client.response())
    assert got["connection"] == "close"
    client.expect_close()
    assert gateway.wait_exit() == 0
    assert gateway.line_of(got)["end"] == "ok/done"


def test_shutdown_does_not_wait_for_ever(proofgw, backend, partner):
    gateway = proofgw(timeouts={"shutdown": SHORT}, exit_code=3)
    backend.script(silent)
    client = gateway.client().send(request(fields=partner.authorization))
    backend.wait_requests(1)
    watch = Stopwatch()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 3
    assert watch.seconds() >= SHORT_S
    (line,) = gateway.access()
    assert line["end"] == "shutdown/response_head"
    client.reader.until_end()
