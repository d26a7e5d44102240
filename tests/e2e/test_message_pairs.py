"""Every form of request with every form of answer.

Goal: whatever the framing on either side, the client reads exactly the answer's body, the backend exactly the request's,
and both connections stand where the next message begins, or end.

Method: each request is sent together with the next one, so that a wrong end of a message on any of the four sides is
read as part of another. The answers are judged by a reader that refuses what is not exactly HTTP/1.1. A connection to the
backend is used again where its answer ended as it should, and only there.
"""

import contextlib

import pytest

from support.backend import Backend, answer, chunked
from support.client import chunked_request, request
from support.expect import is_passed
from support.gateway import running
from support.partners import Partner

TARGET, NEXT = "/widget/pair", "/widget/next"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    backend, partner = Backend(), Partner("acme")
    with running(tmp_path_factory.mktemp("pairs") / "gateway", backend.address, [partner]) as gateway:
        yield gateway, backend, partner
    backend.close()
    assert not backend.problems


def plain(method, body=b"", fields="", version="1.1"):
    return lambda token: request(method, TARGET, fields=token + fields, body=body, version=version)


# name: (method, its bytes, body, whether the connection stays)
REQUESTS = {
    "GET": ("GET", plain("GET"), b"", True),
    "GET with a body": ("GET", plain("GET", b"why not"), b"why not", True),
    "HEAD": ("HEAD", plain("HEAD"), b"", True),
    "HEAD with a body": ("HEAD", plain("HEAD", b"odd"), b"odd", True),
    "OPTIONS": ("OPTIONS", plain("OPTIONS"), b"", True),
    "POST": ("POST", plain("POST", b"hello"), b"hello", True),
    "POST of nothing": ("POST", plain("POST"), b"", True),
    "POST that expects 100": ("POST", plain("POST", b"now", "Expect: 100-continue\r\n"), b"now", True),
    "POST in chunks": (
        "POST",
        lambda token: chunked_request(b"a", b"bcd", fields=token).replace(b"/widget/transactions/1", TARGET.encode()),
        b"abcd",
        True,
    ),
    "PUT of no chunk": (
        "PUT",
        lambda token: chunked_request(fields=token).replace(b"POST /widget/transactions/1", b"PUT " + TARGET.encode()),
        b"",
        True,
    ),
    "GET, close": ("GET", plain("GET", fields="Connection: close\r\n"), b"", False),
    "GET 1.0": ("GET", plain("GET", version="1.0"), b"", False),
    "GET 1.0, keep-alive": ("GET", plain("GET", fields="Connection: keep-alive\r\n", version="1.0"), b"", True),
    "HEAD 1.0, keep-alive": ("HEAD", plain("HEAD", fields="Connection: keep-alive\r\n", version="1.0"), b"", True),
    "POST 1.0, keep-alive": ("POST", plain("POST", b"old", "Connection: keep-alive\r\n", "1.0"), b"old", True),
}

CONTINUE, HINTS = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

# name: (its bytes, status, body, whether the backend ends the connection behind them)
ANSWERS = {
    "length": (answer(body=b"whole"), 200, b"whole", False),
    "length 0": (answer(body=b""), 200, b"", False),
    "chunks": (chunked(b"x", b"yz"), 200, b"xyz", False),
    "no chunk": (chunked(), 200, b"", False),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nall of it", 200, b"all of it", True),
    "until close, nothing": (b"HTTP/1.1 200 OK\r\n\r\n", 200, b"", True),
    "1.0": (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old", True),
    "1.0 with a length": (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", 200, b"old", True),
    "1.0, keep-alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold", 200, b"old", False),
    "close": (answer(body=b"last", fields="Connection: close\r\n"), 200, b"last", True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", False),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b"", False),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nwrong", 204, b"", False),
    "204 in chunks": (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204, b"", False),
    "205": (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", 205, b"", False),
    "205 until close": (b"HTTP/1.1 205 Reset Content\r\n\r\n", 205, b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nETag: 1\r\n\r\n", 304, b"", False),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", False),
    "304 with a coding": (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, b"", False),
    "100": (CONTINUE + answer(body=b"after"), 200, b"after", False),
    "103, 100, 103": (HINTS + CONTINUE + HINTS + chunked(b"after"), 200, b"after", False),
    "426": (answer("426 Upgrade Required", b"no", "Upgrade: h2c\r\nConnection: Upgrade\r\n"), 426, b"no", False),
    "500 until close": (b"HTTP/1.1 500 Broken\r\nConnection: close\r\n\r\nbroken", 500, b"broken", True),
}


def serves(data, ends):
    """Gives this answer, then ordinary ones."""

    def script(c):
        c.read_request()
        c.send(data)
        if not ends:
            c.serve()

    return script


def end_all(gateway, backend):
    """The next pair begins on a new connection."""
    for connection in backend.connections:
        with contextlib.suppress(OSError):
            connection.end()
    backend.connections.clear()
    backend.requests.clear()
    gateway.wait_metric("proofgw_upstream_connections_open", 0)


@pytest.mark.parametrize("given", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_pair(shared, asked, given):
    gateway, backend, partner = shared
    method, make, sent_body, stays = asked
    data, status, body, ends = given
    backend.script(serves(data, ends))
    raw = make(partner.authorization)
    old = b"HTTP/1.0\r\n" in raw
    client = gateway.client().send(raw + request(target=NEXT, fields=partner.authorization))

    got = client.response(method)
    is_passed(got, status, b"" if method == "HEAD" else body)
    heads = [] if old else data.split(b"HTTP/1.1 1")[1:]
    assert [i.status for i in got.interim] == [int(b"1" + head[:2]) for head in heads]
    _, _, behind = data[data.rindex(b"HTTP/1.") :].partition(b"\r\n\r\n")
    is_clean = not ends and not (behind and (method == "HEAD" or status == 204))
    if stays and got.framing != "close":
        assert got["connection"] == ("keep-alive" if old else None)
        is_passed(client.response())
        targets = [TARGET, NEXT]
    else:
        assert got["connection"] == "close"
        if got.framing != "close":
            client.expect_close()
        targets = [TARGET]
    assert [r.target for r in backend.requests] == targets
    assert (backend.requests[0].method, backend.requests[0].body) == (method, sent_body)
    assert len(backend.connections) == (1 if is_clean or len(targets) == 1 else 2)
    client.close()
    end_all(gateway, backend)
