"""HTTP/1.1: bodies both ways, interim answers, and answers that come before the request is whole."""

import re

import pytest

from support.backend import answer, chunk, chunked
from support.client import chunked_request, request
from support.expect import is_error, is_passed
from support.payload import MIB, PLENTY, pattern


# --- request bodies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, 65536, 300_000, 5 * MIB])
def test_fixed_request_bodies(gateway, backend, partner, size):
    body = pattern(size)
    client = gateway.client()
    got = is_passed(client.exchange("POST", "/widget/session", fields=partner.authorization, body=body))
    assert backend.last.body == body
    assert backend.last["content-length"] == str(size)
    line = gateway.line_of(got)
    assert line["bytes_in"] == len(request("POST", "/widget/session", fields=partner.authorization, body=body))


@pytest.mark.parametrize("sizes", [[], [1], [1] * 300, [65536, 1, 65535], [2 * MIB, 3 * MIB]])
def test_chunked_request_bodies(gateway, backend, partner, sizes):
    chunks = [pattern(size) for size in sizes]
    is_passed(gateway.client().ask(chunked_request(*chunks, fields=partner.authorization)))
    assert backend.last.body == b"".join(chunks)
    assert backend.last["transfer-encoding"] == "chunked"
    assert backend.last["content-length"] is None


def test_a_post_without_any_length_has_no_body(gateway, backend, partner):
    data = request("POST", fields=partner.authorization).replace(b"Content-Length: 0\r\n", b"")
    is_passed(gateway.client().ask(data))
    assert backend.last.framing == "none"


def test_a_get_may_have_a_body(gateway, backend, partner):
    is_passed(gateway.client().exchange("GET", fields=partner.authorization, body=b"query"))
    assert backend.last.body == b"query"


def test_requests_byte_by_byte(gateway, backend, partner):
    client = gateway.client()
    is_passed(client.send_bytewise(request("POST", fields=partner.authorization, body=b"fixed")).response())
    assert backend.last.body == b"fixed"
    data = chunked_request(b"a" * 20, b"b", fields=partner.authorization, end=b"0;ext=1\r\nX-T: v\r\n\r\n")
    is_passed(client.send_bytewise(data).response())
    assert backend.last.body == b"a" * 20 + b"b"
    is_passed(client.send_bytewise(request(fields=partner.authorization)).response())


def test_a_request_body_is_streamed(gateway, backend, partner):
    """The backend has the first part before the client has sent the second."""
    gate = backend.gate()

    def script(c):
        sent = c.read_head()
        assert c.reader.exactly(5) == b"first"
        gate.open()
        assert c.reader.exactly(6) == b"second"
        assert sent["content-length"] == "11"
        c.send(answer())
        c.expect_end()

    backend.script(script)
    client = gateway.client()
    client.send(request("POST", fields=partner.authorization, body=b"firstsecond")[:-6])
    gate.wait()
    is_passed(client.ask(b"second"))


def test_trailers_and_extensions_of_a_request_are_dropped(gateway, backend, partner):
    """The backend's reader refuses both."""
    data = request("POST", fields="TE: trailers\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n" + partner.authorization)
    data = data.replace(b"Content-Length: 0\r\n", b"") + b"3;a=b;c\r\nabc\r\n0\r\nX-T: 1\r\nX-Proof-Partner-Id: x\r\n\r\n"
    client = gateway.client()
    is_passed(client.ask(data + request(fields=partner.authorization)))
    is_passed(client.response())
    assert backend.requests[0].body == b"abc"


def test_a_request_body_meets_back_pressure(proofgw, backend, partner):
    """A backend that does not read stops the client, not the memory of the gateway."""
    total = PLENTY
    gateway = proofgw(limits={"body": "1GiB"})
    gate = backend.gate()

    def script(c):
        sent = c.read_head()
        gate.wait()
        c.read_body(sent)
        c.send(answer(body=str(len(sent.body)).encode()))
        c.expect_end()

    backend.script(script)
    client = gateway.client()
    head = request("POST", fields=partner.authorization).replace(b"Content-Length: 0", b"Content-Length: %d" % total)
    client.send(head)
    client.socket.settimeout(1.0)  # a send that does not move for so long has met back-pressure
    block, sent = pattern(MIB), 0
    with pytest.raises(TimeoutError):
        while sent < total:
            sent += client.socket.send(block)
    assert sent < total
    gate.open()
    client.socket.settimeout(30)
    while sent < total:
        sent += client.socket.send(block[: total - sent])
    is_passed(client.response(), body=str(total).encode())


# --- answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65536, 300_000, 5 * MIB])
def test_fixed_answers(gateway, backend, partner, size):
    body = pattern(size)
    backend.answer = lambda r: answer(body=body)
    client = gateway.client()
    for _ in range(2):
        got = is_passed(client.exchange(fields=partner.authorization), body=body)
        assert got.framing == "length"
    assert gateway.line_of(got)["bytes_out"] == len(got.raw_head) + size


@pytest.mark.parametrize("sizes", [[], [1], [1] * 300, [65536, 1, 65535], [2 * MIB, 3 * MIB]])
def test_chunked_answers(gateway, backend, partner, sizes):
    chunks = [pattern(size) for size in sizes]
    backend.answer = lambda r: chunked(*chunks)
    client = gateway.client()
    for _ in range(2):
        got = is_passed(client.exchange(fields=partner.authorization), body=b"".join(chunks))
        assert got.framing == "chunked"
    assert len(backend.connections) == 1


def test_an_answer_that_ends_with_the_backends_connection(gateway, backend, partner):
    """The client gets it in chunks, so that it can tell whole from cut, and keeps its connection."""
    body = pattern(100_000)

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)

    backend.script(script, script)
    client = gateway.client()
    for _ in range(2):
        got = is_passed(client.exchange(fields=partner.authorization), body=body)
        assert (got.framing, got["connection"]) == ("chunked", None)


def test_trailers_and_extensions_of_an_answer_are_dropped(gateway, backend, partner):
    backend.answer = lambda r: chunked(end=False) + b"3;x=y\r\nabc\r\n0;z\r\nX-Trailer: 1\r\nX-Request-Id: theirs\r\n\r\n"
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization), body=b"abc")
    is_passed(client.exchange(fields=partner.authorization), body=b"abc")
    assert len(backend.connections) == 1


@pytest.mark.parametrize("make", [lambda: answer(body=b"fixed"), lambda: chunked(b"chunk", b"ed")])
def test_answers_byte_by_byte(gateway, backend, partner, make):
    def script(c):
        for _ in range(2):
            c.read_request()
            for byte in b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + make():
                c.send(bytes([byte]))
        c.expect_end()

    backend.script(script)
    client = gateway.client()
    for _ in range(2):
        got = client.exchange(fields=partner.authorization)
        assert got.body in (b"fixed", b"chunked")
        assert [i.status for i in got.interim] == [103]


def test_an_answer_is_streamed(gateway, backend, partner):
    """The client has the first chunk before the backend has sent the second."""
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(chunked(b"first", end=False))
        gate.wait()
        c.send(chunk(b"second") + b"0\r\n\r\n")
        c.expect_end()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization))
    client.reader.response_head()
    assert client.reader.exactly(len(chunk(b"first"))) == chunk(b"first")
    gate.open()
    assert client.reader.exactly(len(chunk(b"second"))) == chunk(b"second")


def test_an_answer_meets_back_pressure(gateway, backend, partner):
    """A client that does not read stops the backend, not the memory of the gateway."""
    total = PLENTY
    gate, stopped = backend.gate(), backend.gate()

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        c.socket.settimeout(1.0)  # a send that does not move for so long has met back-pressure
        block, sent = pattern(MIB), 0
        with pytest.raises(TimeoutError):
            while sent < total:
                sent += c.socket.send(block)
        stopped.open()
        gate.wait()
        c.socket.settimeout(30)
        while sent < total:
            sent += c.socket.send(block[: total - sent])
        c.expect_end()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization))
    stopped.wait()
    gate.open()
    assert len(client.response().body) == total


@pytest.mark.parametrize(
    "reply, length",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "1234"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
    ],
)
def test_head(gateway, backend, partner, reply, length):
    backend.answer = lambda r: reply if r.method == "HEAD" else answer()
    client = gateway.client()
    for _ in range(2):
        got = client.exchange("HEAD", fields=partner.authorization)
        assert (got.status, got["content-length"]) == (200, length)
    is_passed(client.exchange(fields=partner.authorization))


@pytest.mark.parametrize(
    "reply, length",
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", None),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", None),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", "77"),
    ],
)
def test_answers_without_a_body(gateway, backend, partner, reply, length):
    backend.answer = lambda r: reply
    client = gateway.client()
    for _ in range(3):
        got = client.exchange(fields=partner.authorization)
        assert got.status in (204, 304)
        assert (got["content-length"], got["transfer-encoding"]) == (length, None)
    assert len(backend.connections) == 1


def test_date_is_added_where_the_backend_sends_none(gateway, backend, partner):
    client = gateway.client()
    got = client.exchange(fields=partner.authorization)
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", got["date"])
    backend.answer = lambda r: answer(fields="Date: Tue, 01 Jan 2030 00:00:00 GMT\r\n")
    assert client.exchange(fields=partner.authorization)["date"] == "Tue, 01 Jan 2030 00:00:00 GMT"


@pytest.mark.parametrize("line, reason", [("200 Very Well", "Very Well"), ("200 ", "OK"), ("200", "OK"), ("299 ", "Unknown")])
def test_reason_phrases(gateway, backend, partner, line, reason):
    backend.answer = lambda r: f"HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n".encode()
    assert gateway.client().exchange(fields=partner.authorization).reason == reason


# --- interim answers and Expect --------------------------------------------------------------------------


def test_interim_answers_are_passed_on(gateway, backend, partner):
    backend.answer = lambda r: (
        b"HTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nLink: </b.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n" + answer()
    )
    client = gateway.client()
    for _ in range(2):
        got = is_passed(client.exchange(fields=partner.authorization))
        assert [i.status for i in got.interim] == [102, 103]
        assert got.interim[1].fields == [("Link", "</a.css>"), ("Link", "</b.css>")]
    assert len(backend.connections) == 1


def test_expect_100_continue(gateway, backend, partner):
    """The backend decides; only then does the client send its body."""

    def script(c):
        sent = c.read_head()
        assert sent["expect"] == "100-Continue"
        c.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        c.read_body(sent)
        c.send(answer(body=sent.body))
        c.read_request()
        c.send(answer())
        c.expect_end()

    backend.script(script)
    client = gateway.client()
    head = request("POST", fields="Expect: 100-Continue\r\n" + partner.authorization, body=b"later")[:-5]
    client.send(head)
    assert client.reader.response_head().status == 100
    is_passed(client.ask(b"later"), body=b"later")
    is_passed(client.exchange(fields=partner.authorization))


def test_a_denial_comes_before_the_body_that_expects_continue(gateway, backend):
    client = gateway.client()
    client.send(request("POST", fields="Expect: 100-continue\r\n", body=b"secret body")[:-11])
    got = client.response()
    assert got.interim == []
    is_error(got, "missing_token", closes=True)
    client.expect_close()
    assert not backend.connections


def test_too_large_a_body_is_refused_before_it_is_sent(proofgw, backend, partner):
    gateway = proofgw(limits={"body": "1KiB"})
    client = gateway.client()
    head = request("POST", fields="Expect: 100-continue\r\n" + partner.authorization, body=b"x" * 1025)[:-1025]
    got = client.send(head).response()
    assert got.interim == []
    is_error(got, "body_too_large", closes=True)
    client.expect_close()
    assert not backend.connections


def test_a_backend_may_refuse_the_expectation(gateway, backend, partner):
    def script(c):
        c.read_head()
        c.send(answer("417 Expectation Failed", b"no"))
        c.expect_end()

    backend.script(script)
    client = gateway.client()
    client.send(request("POST", fields="Expect: 100-continue\r\n" + partner.authorization, body=b"later")[:-5])
    got = client.response()
    assert (got.status, got.body, got["connection"]) == (417, b"no", "close")
    client.expect_close()


def test_a_client_need_not_wait_for_100(gateway, backend, partner):
    backend.answer = lambda r: b"HTTP/1.1 100 Continue\r\n\r\n" + answer(body=r.body)
    fields = "Expect: 100-continue\r\n" + partner.authorization
    is_passed(gateway.client().exchange("POST", fields=fields, body=b"at once"), body=b"at once")


def test_expect_is_dropped_where_nobody_waits(gateway, backend, partner):
    client = gateway.client()
    is_passed(client.exchange(fields="Expect: 100-continue\r\n" + partner.authorization))
    assert backend.last["expect"] is None
    fields = "Expect: 100-continue\r\n" + partner.authorization
    is_passed(client.exchange("POST", fields=fields, body=b"x", version="1.0"))
    assert backend.last["expect"] is None


# --- early answers ---------------------------------------------------------------------------------------


def test_an_early_answer_reaches_a_client_that_is_still_sending(gateway, backend, partner):
    """The answer is whole, the connection ends after it (the rest of the request cannot be told from a new one), and
    the backend's connection is not used again."""
    gate = backend.gate()

    def script(c):
        c.read_head()
        gate.wait()
        c.send(answer("413 Too Large", b"enough"))
        c.drain()

    backend.script(script)
    client = gateway.client()
    client.send(request("POST", fields=partner.authorization, body=b"x" * 100_000)[:-50_000])
    gate.open()
    got = client.response()
    assert (got.status, got.body, got["connection"]) == (413, b"enough", "close")
    client.send(b"x" * 50_000)
    client.expect_close()
    is_passed(gateway.client().exchange(fields=partner.authorization))
    assert len(backend.connections) == 2


def test_an_early_answer_while_the_backend_does_not_read_any_more(proofgw, backend, partner):
    """The client never sends the whole body, so the connection cannot go on, however fast the gateway is."""
    gateway = proofgw(limits={"body": "1GiB"})
    gate = backend.gate()

    def script(c):
        c.read_head()
        c.send(answer("403 No", b"early", "Connection: close\r\n"))
        c.half_close()
        gate.wait()

    backend.script(script)
    head = request("POST", fields=partner.authorization).replace(b"Length: 0", b"Length: %d" % (64 * MIB))
    client = gateway.client().send(head)
    client.send_until_refused(bytes(MIB), 8 * MIB)
    got = client.response()
    gate.open()
    assert (got.status, got.body, got["connection"]) == (403, b"early", "close")


def test_a_client_that_stops_sending_gets_the_whole_early_answer(gateway, backend, partner):
    """RFC 9112 9.5: it sees a refusal, ceases to send its body, and closes its side of the connection."""
    gate = backend.gate()

    def script(c):
        c.read_head()
        c.send(chunked(b"too ", status="413 Too Large", end=False))
        gate.wait()
        c.send(chunk(b"much") + b"0\r\n\r\n")
        c.expect_end()

    backend.script(script)
    client = gateway.client().send(request("POST", fields=partner.authorization, body=b"x" * 1000)[:-1000])
    client.wait_bytes(b"too ").half_close()
    other = gateway.client()
    for _ in range(2):  # the end has come to the gateway by now
        is_error(other.exchange(), "missing_token")
    gate.open()
    got = is_passed(client.response("POST"), 413, b"too much")
    assert got["connection"] == "close"
    client.expect_close()
    assert gateway.line_of(got)["end"] == "ok/done"
    is_passed(other.exchange(fields=partner.authorization))
    assert len(backend.connections) == 2


def test_a_body_that_goes_on_during_the_answer(gateway, backend, partner):
    """The backend answers in pieces while it reads: both directions at once, one exchange."""

    def script(c):
        c.read_head()
        c.send(chunked(b"got", end=False))
        for _ in range(3):
            c.send(chunk(c.reader.exactly(4)))
        c.send(b"0\r\n\r\n")
        c.expect_end()

    backend.script(script)
    client = gateway.client().send(request("POST", fields=partner.authorization, body=b"aaaabbbbcccc")[:-12])
    head = client.reader.response_head()
    assert head["transfer-encoding"] == "chunked"
    assert client.reader.exactly(8) == chunk(b"got")
    for part in (b"aaaa", b"bbbb", b"cccc"):
        client.send(part)
        assert client.reader.exactly(9) == chunk(part)
    assert client.reader.exactly(5) == b"0\r\n\r\n"
