"""A backend that fails in every way a backend can, and what the client and the other requests notice of it.

Goal: a fault becomes the right 502 while nothing has been sent, else a cut connection; a truncated answer never looks
complete; an answer goes to the request that it belongs to, or to nobody; no request is sent twice that may not be;
and after each fault the next request is served.

Method: scripts at the backend, byte by byte. What reaches the backend is counted exactly. Timeouts of the backend are
in test_timeouts.py, limits of its head and of the pool in test_limits.py, well-behaved answers in test_http1.py.
"""

import hashlib
import os
import signal
import socket
import threading

import pytest

import support.gateway
from support.backend import Connection, answer, chunk, chunked
from support.client import Stopwatch, request
from support.expect import is_error, is_passed
from support.http1 import Ended
from support.payload import MIB, PLENTY, digest_of, pattern
from support.wait import DEADLINE_S, wait_for

pytest_plugins = ["support.hosts"]

HEAD_10 = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
HEAD_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HEAD_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


def says(data, then="expect_end"):
    """A backend that takes one request, says `data` and ends: expect_end, close, reset, half_close."""

    def script(c):
        c.read_request()
        c.send(data)
        getattr(c, then)()
        if then == "half_close":
            c.expect_end()

    return script


def announced(framing, partner):
    """The head of a POST whose body follows; `framing`: the field line that announces it."""
    lines = request("POST", fields=f"{partner.authorization}{framing}\r\n")
    return lines.replace(b"Content-Length: 0\r\n", b"")


def recovers(gateway, backend, partner, client=None):
    """The next request gets its own answer, on a connection of its own."""
    before = len(backend.connections)
    client = client or gateway.client()
    is_passed(client.exchange(target="/widget/next", fields=partner.authorization))
    assert backend.last.target == "/widget/next"
    assert len(backend.connections) == before + 1


# --- nothing, or not a whole head ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("reads", [True, False])
def test_it_ends_before_the_answer(gateway, backend, partner, method, how, reads):
    """On a new connection nothing is sent again, whatever the method."""

    def script(c):
        if reads:
            c.read_request()
        getattr(c, how)()

    backend.script(script)
    client = gateway.client()
    got = client.exchange(method, fields=partner.authorization, body=b"x" if method == "POST" else b"")
    is_error(got, "upstream_unavailable", closes=False)
    line = gateway.line_of(got)
    assert line["end"] in ("backend/response_head", "backend/connect")
    assert "retries" not in line
    assert len(backend.connections) == 1 and len(backend.requests) == int(reads)
    recovers(gateway, backend, partner, client)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "part",
    [
        b"H",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n",
    ],
)
def test_it_ends_inside_the_head(gateway, backend, partner, how, part):
    def script(c):
        c.read_request()
        c.send(part)
        getattr(c, how)()

    backend.script(script)
    client = gateway.client()
    got = client.exchange(fields=partner.authorization)
    is_error(got, "upstream_invalid_response", closes=False)
    assert gateway.line_of(got)["end"] == "backend/response_head"
    assert len(backend.requests) == 1
    recovers(gateway, backend, partner, client)


def test_it_cannot_be_reached_and_then_it_can(proofgw, backends, tmp_path, partner):
    path = tmp_path / "backend.sock"
    gateway = proofgw(upstream=f"unix:{path}")
    client = gateway.client()
    got = client.exchange(fields=partner.authorization)
    is_error(got, "upstream_unavailable", closes=False)
    line = gateway.line_of(got)
    assert line["end"] == "backend/connect"
    assert gateway.wait_event("upstream_connect_failed")[0]["env"] == "production"
    backend = backends(path=path)
    is_passed(client.exchange(fields=partner.authorization))
    is_passed(client.exchange("POST", fields=partner.authorization, body=b"x" * 100_000))
    assert len(backend.connections) == 1
    assert backend.last.body == b"x" * 100_000


# --- a head that is not acceptable -----------------------------------------------------------------------

INVALID_HEADS = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "status 99": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX-A: b\rX-B: c\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n",
    "no field name": b"HTTP/1.1 200 OK\r\n: b\r\nContent-Length: 0\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n",
    "length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "length +2": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "length -2": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "length 0x2": b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
    "no length in the field": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "length of 20 digits": b"HTTP/1.1 200 OK\r\nContent-Length: 00000000000000000002\r\n\r\nok",
    "length over 64 bits": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "101 to no upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "101 without Upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "bad after an interim one": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
}


@pytest.mark.parametrize("data", INVALID_HEADS.values(), ids=INVALID_HEADS)
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_invalid_heads(gateway, backend, partner, data, bytewise):
    """One 502, one line of the operations log that names the request; the connection is not used again."""

    def script(c):
        c.read_request()
        try:
            for part in (data[i : i + 1] for i in range(len(data))) if bytewise else [data]:
                c.send(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before its end
        c.drain()

    backend.script(script)
    client = gateway.client()
    got = client.exchange(fields=partner.authorization)
    is_error(got, "upstream_invalid_response", closes=False)
    line = gateway.line_of(got)
    assert (line["end"], line["status"]) == ("backend/response_head", 502)
    (event,) = gateway.wait_event("upstream_invalid_response")
    assert event["request_id"] == got["x-request-id"] and event["env"] == "production" and event["cause"]
    assert len(backend.requests) == 1
    recovers(gateway, backend, partner, client)


# --- a body that does not end as its framing says --------------------------------------------------------

TRUNCATED = {
    "length": HEAD_10 + b"12345",
    "length, no byte": HEAD_10,
    "chunked, inside a chunk": HEAD_CHUNKED + b"a\r\n12345",
    "chunked, between chunks": HEAD_CHUNKED + chunk(b"12345"),
    "chunked, inside a size": HEAD_CHUNKED + chunk(b"12345") + b"a",
    "chunked, inside the last chunk": HEAD_CHUNKED + chunk(b"12345") + b"0\r\n",
    "chunked, inside a trailer": HEAD_CHUNKED + chunk(b"12345") + b"0\r\nX-Sum: 1",
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("data", TRUNCATED.values(), ids=TRUNCATED)
def test_a_truncated_answer_never_looks_complete(gateway, backend, partner, version, how, data):
    """Neither to a client that counts bytes or chunks, nor to one for which the end of the connection is the end."""
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(data)
        gate.wait()
        getattr(c, how)()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization, version=version))
    client.wait_bytes(b"\r\n\r\n")
    gate.open()
    with pytest.raises(Ended):
        client.response()
    (line,) = gateway.wait_access(1)
    assert (line["end"], line["status"]) == ("backend/response_body", 200)
    recovers(gateway, backend, partner)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_reset_is_not_the_end_of_an_answer_without_length(gateway, backend, partner, version):
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(HEAD_CLOSE + b"12345")
        gate.wait()
        c.reset()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization, version=version))
    client.wait_bytes(b"12345")
    gate.open()
    with pytest.raises(Ended) as ended:
        client.response()
    assert ended.value.reset or version == "1.1"
    (line,) = gateway.wait_access(1)
    assert line["end"] == "backend/response_body"


def test_a_reset_is_not_the_end_of_an_early_answer(gateway, backend, partner):
    """The gateway learns of the reset by writing the request body; the answer has no length."""
    gate = backend.gate()

    def script(c):
        c.read_head()
        c.send(HEAD_CLOSE + b"12345")
        gate.wait()
        c.reset()

    backend.script(script)
    client = gateway.client()
    client.send(announced(f"Content-Length: {4 * MIB}", partner))
    client.wait_bytes(b"12345")
    gate.open()
    client.send_until_refused(b"x" * 65536, 4 * MIB)
    with pytest.raises(Ended):
        client.response("POST")
    (line,) = gateway.wait_access(1)
    assert line["end"] in ("backend/response_body", "backend/request_body")


BROKEN_CHUNKS = {
    "no size": b"\r\nok\r\n0\r\n\r\n",
    "not hex": b"x\r\nok\r\n0\r\n\r\n",
    "a sign": b"-2\r\nok\r\n0\r\n\r\n",
    "0x": b"0x2\r\nok\r\n0\r\n\r\n",
    "a space behind the size": b"2 \r\nok\r\n0\r\n\r\n",
    "a space before the size": b" 2\r\nok\r\n0\r\n\r\n",
    "LF": b"2\nok\r\n0\r\n\r\n",
    "CR without LF": b"2\rok\r\n0\r\n\r\n",
    "17 digits": b"00000000000000002\r\nok\r\n0\r\n\r\n",
    "longer than it says": b"2\r\nokay\r\n0\r\n\r\n",
    "shorter than it says": b"3\r\nok\r\n0\r\n\r\n",
    "LF behind the data": b"2\r\nok\n0\r\n\r\n",
    "a NUL in an extension": b"2;a=\0\r\nok\r\n0\r\n\r\n",
    "a trailer that is none": b"2\r\nok\r\n0\r\nno colon\r\n\r\n",
    "a folded trailer": b"2\r\nok\r\n0\r\nX-A: b\r\n c\r\n\r\n",
    "a trailer with LF": b"2\r\nok\r\n0\r\nX-A: b\n\r\n",
}


@pytest.mark.parametrize("data", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_broken_chunks_behind_the_head(gateway, backend, partner, data):
    """They come together with the head, nothing of which has been sent: a clean 502."""
    backend.script(says(HEAD_CHUNKED + data))
    client = gateway.client()
    got = client.exchange(fields=partner.authorization)
    is_error(got, "upstream_invalid_response", closes=False)
    line = gateway.line_of(got)
    assert (line["end"], line["status"]) == ("backend/response_head", 502)
    recovers(gateway, backend, partner, client)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("data", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_broken_chunks_later(gateway, backend, partner, data, version):
    """Part of the answer is out: the connection is cut."""
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(HEAD_CHUNKED + chunk(b"first"))
        gate.wait()
        c.send(data)
        c.expect_end()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization, version=version))
    client.wait_bytes(b"first")
    gate.open()
    with pytest.raises(Ended):
        client.response()
    (line,) = gateway.wait_access(1)
    assert (line["end"], line["status"]) == ("backend/response_body", 200)
    recovers(gateway, backend, partner)


# --- bytes that belong to no answer ----------------------------------------------------------------------

POISON = answer("200 OK", b"poison")
WHOLE = {
    "length": ("GET", answer()),
    "no body": ("GET", answer(body=b"")),
    "chunked": ("GET", chunked(b"ok")),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    "HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
}


@pytest.mark.parametrize("method, whole", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("more", [POISON, b"x", b"\r\n", b"0\r\n\r\n"], ids=["answer", "byte", "CRLF", "last chunk"])
def test_bytes_behind_the_answer(gateway, backend, partner, method, whole, more):
    """The answer is delivered; what follows is for nobody, not even for the next pipelined request."""
    backend.script(says(whole + more))
    client = gateway.client()
    pipelined = request(target="/widget/2", fields=partner.authorization)
    client.send(request(method, fields=partner.authorization) + pipelined)
    first = client.response(method)
    assert first.status == int(whole.split()[1])
    second = client.response()
    is_passed(second)
    assert len(backend.connections) == 2
    assert [r.target for r in backend.requests][1:] == ["/widget/2"]
    (event,) = gateway.wait_event("upstream_unexpected_bytes")
    assert event["bytes"] == str(len(more)) and event["request_id"] == first["x-request-id"]
    assert gateway.line_of(first)["end"] == "ok/done"


def test_bytes_on_an_idle_connection(gateway, backend, partner):
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(answer())
        gate.wait()
        c.send(POISON)
        c.expect_end()

    backend.script(script)
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    gate.open()
    (event,) = gateway.wait_event("upstream_unexpected_bytes")
    assert event["bytes"] == str(len(POISON)) and "request_id" not in event
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    recovers(gateway, backend, partner, client)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bytes_on_an_idle_connection_just_before_the_next_request(gateway, backend, partner, method):
    """Both wait in the kernel when the gateway looks (it is stopped meanwhile): the bytes do not pass for the answer to
    a request that was sent after them."""
    sent, gate = backend.gate(), backend.gate()

    def script(c):
        c.read_request()
        c.send(answer())
        gate.wait()
        c.send(POISON)
        sent.open()
        c.drain()

    backend.script(script)
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    gateway.wait_metric("proofgw_upstream_connections_idle", 1)
    gateway.signal(signal.SIGSTOP)
    gate.open()
    sent.wait()
    client.send(request(method, fields=partner.authorization))
    gateway.signal(signal.SIGCONT)
    is_passed(client.response(method))


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_end_of_an_idle_connection(gateway, backend, partner, how, method):
    """An ordinary thing: no log line, no retry, the next request goes on a new connection."""
    backend.script(says(answer(), how))
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    got = is_passed(client.exchange(method, fields=partner.authorization, body=b"x" if method == "POST" else b""))
    assert gateway.line_of(got)["backend_reused"] is False
    assert len(backend.requests) == len(backend.connections) == 2
    assert gateway.metrics()["proofgw_upstream_retries_total"] == 0
    assert not gateway.events("upstream_unexpected_bytes")


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


def test_a_post_looks_at_a_connection_that_was_idle_for_long(gateway, backend, partner):
    """The backend's FIN is in the kernel, and the gateway (stopped meanwhile) finds the client's request first."""
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
    client.send(request("POST", fields=partner.authorization, body=b"once"))
    gate.open()
    closed.wait()
    gateway.signal(signal.SIGCONT)
    is_passed(client.response("POST"))
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


# --- where the backend is --------------------------------------------------------------------------------


def test_a_backend_by_name(proofgw, backend, partner):
    gateway = proofgw(upstream="localhost:" + backend.address.split(":")[1])
    gateway.wait_event("resolved", 2)
    client = gateway.client()
    for _ in range(4):
        is_passed(client.exchange(fields=partner.authorization + "X-A: b\r\n"))
    status, _ = gateway.admin("/readyz")
    assert status == 200


@pytest.fixture
def silent_name_server():
    """The address of one that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        address = "127.53.%d.%d" % divmod(os.getpid() % 65025, 255)
        try:
            server.bind((address, 53))
        except OSError as problem:
            pytest.skip(f"no name server here: {problem}")
        yield address


def test_silent_name_servers_hold_up_no_other_name(proofgw, backend, partner, hosts, silent_name_server):
    """Two names are being looked up for as long as the system's resolver likes; a third one is known at once."""
    hosts({"localhost": ["127.0.0.1"]}, silent_name_server, timeout_s=30)
    gateway = proofgw(upstream="one.test:80", sandbox_upstream="two.test:80", reload_on_change=False)
    gateway.reload(environments={"production": {"upstream": "localhost:" + backend.address.split(":")[1]}})
    is_passed(gateway.client().exchange(fields=partner.authorization))


def test_the_end_while_a_reload_waits_for_a_name(proofgw, backend, partner, hosts, silent_name_server):
    """Whoever asked for the reload is told that there is none."""
    hosts({"localhost": ["127.0.0.1"]}, silent_name_server, timeout_s=30)
    gateway = proofgw(reload_on_change=False, admin={"control_socket": "control.sock"})
    gateway.configure(environments={"production": {"upstream": "one.test:80"}})
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(gateway.folder / "control.sock"))
        asking.sendall(b"POST /reload HTTP/1.1\r\nHost: gateway\r\n\r\n")
        is_passed(gateway.client().exchange(fields=partner.authorization))
        gateway.signal(signal.SIGTERM)
        asking.settimeout(DEADLINE_S)
        assert b" 409 " in asking.recv(4096)
    assert gateway.wait_exit() == 0


@pytest.mark.parametrize("whose", ["a backend", "Redis"])
def test_the_end_does_not_wait_for_a_name_server(proofgw, hosts, silent_name_server, whose):
    hosts({"localhost": ["127.0.0.1"]}, silent_name_server, timeout_s=30)
    redis = {"store": {"kind": "redis", "file": None, "redis": {"address": "one.test:6379"}}}
    gateway = proofgw(ready=False, **(redis if whose == "Redis" else {"upstream": "one.test:80"}))
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert gateway.events("stopped")[-1]["cause"] == "a name server did not answer"


def test_the_next_address_is_tried_when_one_refuses(proofgw, backend, partner, hosts):
    """Nobody listens at 127.0.0.2 and 127.0.0.3. Every request opens a connection; each is served."""
    hosts({"backend.test": ["127.0.0.2", "127.0.0.1", "127.0.0.3"]})
    gateway = proofgw(upstream="backend.test:" + backend.address.split(":")[1])
    assert gateway.wait_event("resolved", 2)[0]["addresses"] == "3"
    backend.answer = lambda r: answer(fields="Connection: close\r\n")
    client = gateway.client()
    for n in range(6):
        is_passed(client.exchange("POST", fields=partner.authorization, body=b"%d" % n))
    assert [r.body for r in backend.requests] == [b"%d" % n for n in range(6)]
    assert gateway.metrics()["proofgw_upstream_connect_failures_total"] >= 2


def test_every_address_refuses(proofgw, backends, partner, hosts):
    hosts({"backend.test": ["127.0.0.2", "127.0.0.3"]})
    backend = backends()
    gateway = proofgw(upstream="backend.test:" + backend.address.split(":")[1])
    gateway.wait_event("resolved", 2)
    got = gateway.client().exchange(fields=partner.authorization)
    is_error(got, "upstream_unavailable", closes=False)
    assert gateway.line_of(got)["end"] == "backend/connect"
    assert gateway.metrics()["proofgw_upstream_connect_failures_total"] == 2
    assert not backend.connections


def test_a_name_that_nobody_knows(proofgw, partner, hosts):
    hosts({"localhost": ["127.0.0.1"]})
    gateway = proofgw(upstream="nobody.invalid:80")
    gateway.wait_event("resolve_failed", 2)
    status, text = gateway.admin("/readyz")
    assert status == 503 and "backend_resolved" in text
    got = gateway.client().exchange(fields=partner.authorization)
    is_error(got, "upstream_unavailable", closes=False)
    assert gateway.line_of(got)["end"] == "backend/connect"


def test_a_look_up_that_hangs_does_not_hold_up_the_end(proofgw, partner, hosts, tmp_path):
    """Nor does it change the exit code, or leave a file behind: a request that had begun is cut."""
    hosts(None)
    path = tmp_path / "l.sock"
    listeners = [{"address": "127.0.0.1:0"}, {"address": f"unix:{path}"}]
    gateway = proofgw(upstream="backend.test:80", listeners=listeners, timeouts={"shutdown": "100ms"}, exit_code=3)
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\n")
    wait_for(lambda: gateway.metrics()["proofgw_connections_open"] == 1, "the connection")
    assert path.exists()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 3
    (event,) = gateway.events("stopped")
    assert (event["exit_code"], event["cause"]) == ("3", "a name server did not answer")
    assert not path.exists()


# --- large bodies, and memory ----------------------------------------------------------------------------

LARGE = 2 * PLENTY


@pytest.fixture(params=["bytes", "memory"])
def peak(request, monkeypatch):
    """Peak memory of the gateway in bytes. A sanitizer multiplies it: so the tests run once as everything does, for the
    bytes, and once in the release build, for the memory."""
    is_measured = request.param == "memory"
    if is_measured:
        monkeypatch.setattr(support.gateway, "BINARY", support.gateway.release_binary())

    def measure(gateway):
        if not is_measured:
            return 0
        status = open(f"/proc/{gateway.process.pid}/status").read()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024

    return measure


def taken(reader, sock, size):
    """Takes `size` bytes from a reader and its socket; returns their digest."""
    digest = hashlib.sha256(reader.buffer)
    size -= len(reader.buffer)
    reader.buffer.clear()
    while size > 0:
        data = sock.recv(65536)
        assert data, f"the end came {size} bytes early"
        digest.update(data)
        size -= len(data)
    assert size == 0
    return digest.digest()


def stalls(sock, size):
    """Sends until the other side has not taken anything for half a second; returns the bytes that it has taken."""
    sock.settimeout(0.5)
    data, sent = pattern(MIB), 0
    try:
        while sent < size:
            sent += sock.send(data[sent % MIB :])
    except TimeoutError:
        pass
    sock.settimeout(DEADLINE_S)
    return sent


def resumed(sock, sent, size):
    """The rest after stalls()."""
    data = pattern(MIB)
    while sent < size:
        sent += sock.send(data[sent % MIB :])


def test_a_large_answer_to_a_slow_reader(proofgw, backend, partner, peak):
    """The backend is stopped while the client does not read: kernel buffers fill, the gateway's memory does not. Then
    every byte arrives, in order."""
    gateway = proofgw(timeouts={"client_write": "60s", "upstream_idle": "60s"})
    is_passed(gateway.client().exchange(fields=partner.authorization))
    before = peak(gateway)
    stalled, gate = backend.gate(), backend.gate()
    took = []

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % LARGE)
        took.append(stalls(c.socket, LARGE))
        stalled.open()
        gate.wait()
        resumed(c.socket, took[0], LARGE)
        c.expect_end()

    backend.script(script)
    backend.connections[0].end()
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    client = gateway.client()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.send(request(fields=partner.authorization))
    stalled.wait()
    assert took[0] < LARGE // 2, "the backend was not stopped"
    assert peak(gateway) - before < 4 * MIB
    gate.open()
    head = client.reader.response_head()
    assert head["content-length"] == str(LARGE)
    assert taken(client.reader, client.socket, LARGE) == digest_of(LARGE)
    assert peak(gateway) - before < 4 * MIB


def test_a_large_request_to_a_slow_reader(proofgw, backend, partner, peak):
    """The same the other way round."""
    gateway = proofgw(limits={"body": "1GiB"}, timeouts={"upstream_idle": "60s", "request_body": "60s"})
    is_passed(gateway.client().exchange(fields=partner.authorization))
    before = peak(gateway)
    gate = backend.gate()
    seen = []

    def script(c):
        c.read_head()
        gate.wait()
        seen.append(taken(c.reader, c.socket, LARGE))
        c.send(answer())
        c.expect_end()

    backend.script(script)
    backend.connections[0].end()
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    client = gateway.client()
    client.send(announced(f"Content-Length: {LARGE}", partner))
    took = stalls(client.socket, LARGE)
    assert took < LARGE // 2, "the client was not stopped"
    assert peak(gateway) - before < 4 * MIB
    gate.open()
    resumed(client.socket, took, LARGE)
    is_passed(client.response("POST"))
    assert seen == [digest_of(LARGE)]
    assert peak(gateway) - before < 4 * MIB


def test_large_bodies_both_ways_at_once(proofgw, backend, partner):
    """The backend answers while it reads: 16 MiB each way, chunked, through one exchange."""
    size = 16 * MIB
    gateway = proofgw(limits={"body": "1GiB"})
    data = pattern(MIB)
    seen = []

    def pour(to):
        for _ in range(size // MIB):
            to.send(chunk(data))

    def script(c):
        sent = c.read_head()
        c.send(HEAD_CHUNKED)
        pouring = threading.Thread(target=pour, args=(c,))
        pouring.start()
        seen.append(c.read_body(sent).body)
        pouring.join()
        c.send(b"0\r\n\r\n")  # an answer that ends before the request would end the connection
        c.serve()

    backend.script(script)
    client = gateway.client()
    client.send(announced("Transfer-Encoding: chunked", partner))
    sender = threading.Thread(target=lambda: (pour(client), client.send(b"0\r\n\r\n")))
    sender.start()
    got = client.response("POST")
    sender.join()
    assert hashlib.sha256(got.body).digest() == digest_of(size)
    assert hashlib.sha256(seen[0]).digest() == digest_of(size)
    assert got["connection"] == "close"
    client.expect_close()
    is_passed(gateway.client().exchange(fields=partner.authorization))
    assert len(backend.connections) == 1
