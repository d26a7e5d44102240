"""A backend that fails in every way a backend can, and what the client and the other requests notice of it.

Goal: a fault becomes the right 502 while nothing has been sent, else a cut connection; a truncated answer never looks
complete; an answer goes to the request that it belongs to, or to nobody; and after each fault the next request is served.

Method: scripts at the backend, byte by byte. What reaches the backend is counted exactly. Connections that die under a
request are in test_backend_retries.py, timeouts of the backend in test_timeouts_backend.py, limits of its head and of the
pool in test_limits_connections.py, well-behaved answers in test_http1_bodies.py.
"""

import signal

import pytest

from support.backend import answer, chunk, chunked
from support.client import request
from support.expect import is_error, is_passed
from support.faults import HEAD_CHUNKED, announced, is_sampled, recovers
from support.http1 import Ended
from support.payload import MIB
from support.wait import wait_for

pytest_plugins = ["support.hosts"]

HEAD_10 = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
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


def test_lines_about_a_backend_that_is_down_are_sampled(proofgw, tmp_path, partner):
    gateway = proofgw(upstream=f"unix:{tmp_path / 'nobody.sock'}", workers=1)
    is_sampled(gateway, partner, "upstream_connect_failed")


def test_lines_about_a_connection_that_fails_later_are_sampled(proofgw, backends, hosts, partner):
    """Refused at once, or only after a moment: the same line."""
    hosts({"backend.test": ["127.0.0.2"]})
    gateway = proofgw(upstream="backend.test:" + backends().address.split(":")[1], workers=1)
    gateway.wait_event("resolved", 2)
    is_sampled(gateway, partner, "upstream_connect_failed")


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


def test_lines_about_answers_that_are_invalid_are_sampled(proofgw, backend, partner):
    """What is left out of the log is in the metrics."""
    backend.answer = lambda request: INVALID_HEADS["no HTTP"]
    gateway = proofgw(workers=1)
    asked = is_sampled(
        gateway,
        partner,
        "upstream_invalid_response",
        lambda got: is_error(got, "upstream_invalid_response", closes=False),
    )
    gateway.wait_metric("proofgw_ends_total", asked, who="backend", phase="response_head")


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


def test_lines_about_surplus_bytes_are_sampled(proofgw, backend, partner):
    backend.answer = lambda request: answer() + POISON
    is_sampled(proofgw(workers=1), partner, "upstream_unexpected_bytes", is_passed)


def test_lines_about_surplus_bytes_on_idle_connections_are_sampled(proofgw, backend, partner):
    gateway = proofgw(workers=1)
    client = gateway.client()

    def lines():
        """One more byte each time, so that a line says which one it is."""
        gate, surplus = backend.gate(), b"x" * (len(backend.connections) + 1)

        def script(c):
            c.read_request()
            c.send(answer())
            gate.wait()
            c.send(surplus)
            c.expect_end()

        backend.script(script)
        is_passed(client.exchange(fields=partner.authorization))
        gate.open()
        gateway.wait_metric("proofgw_upstream_connections_open", 0)
        return len(gateway.events("upstream_unexpected_bytes")) > 1

    wait_for(lines, gateway.ops_text)
    first, second = gateway.events("upstream_unexpected_bytes")
    assert (first["bytes"], first["unlogged"]) == ("1", "0")
    assert int(second["unlogged"]) == int(second["bytes"]) - 2 > 0


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
