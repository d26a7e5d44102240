"""Requests that two parsers could read in two ways are refused by the first one: 400 `decode_error`, the connection ends,
and the backend has seen nothing.

Method: each refused form is sent whole and byte by byte, followed by a request that a smuggler would like to slip in;
the backend must not get a single request, and the client one answer and then the end. Next to what is refused stands
what is accepted.
"""

import pytest

from support.backend import Backend
from support.client import request
from support.expect import is_error, is_passed
from support.gateway import running
from support.partners import Partner

SMUGGLED = b"GET /widget/smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One gateway, backend and partner for all cases: none of them may disturb the next."""
    backend, partner = Backend(), Partner("acme")
    with running(tmp_path_factory.mktemp("strict") / "gateway", backend.address, [partner]) as gateway:
        yield gateway, backend, partner
    backend.close()
    assert not backend.problems


def line(text):
    """A request with this request line."""
    return text.encode("latin-1") + b"\r\nHost: api.test\r\nTOKEN\r\n"


def field(text, method="GET"):
    """A request with this field line in the middle."""
    data = text if isinstance(text, bytes) else text.encode("latin-1")
    return method.encode() + b" /widget/x HTTP/1.1\r\nHost: api.test\r\nX-A: 1\r\n" + data + b"\r\nX-B: 2\r\nTOKEN\r\n"


def host(text):
    return f"GET /widget/x HTTP/1.1\r\n{text}TOKEN\r\n".encode("latin-1")


def body(fields, content=b""):
    return b"POST /widget/x HTTP/1.1\r\nHost: api.test\r\nTOKEN" + fields.encode("latin-1") + b"\r\n" + content


def chunks(content):
    return body("Transfer-Encoding: chunked\r\n", content)


def with_token(data, partner):
    return data.replace(b"TOKEN", partner.authorization.encode())


REQUEST_LINES = [
    ("method", "get /widget/x HTTP/1.1"),
    ("method", "GETT /widget/x HTTP/1.1"),
    ("method", "FOO /widget/x HTTP/1.1"),
    ("method", "TRACE /widget/x HTTP/1.1"),
    ("method", "CONNECT api.test:443 HTTP/1.1"),
    ("method", "PRI * HTTP/2.0"),
    ("syntax", " GET /widget/x HTTP/1.1"),
    ("syntax", "G(T /widget/x HTTP/1.1"),
    ("target", "GET  /widget/x HTTP/1.1"),
    ("syntax", "GET /widget/x  HTTP/1.1"),
    ("syntax", "GET\t/widget/x\tHTTP/1.1"),
    ("syntax", "GET /widget/x HTTP/1.1 "),
    ("syntax", "GET /widget/ x HTTP/1.1"),
    ("version", "GET /widget/x"),
    ("version", "GET /widget/x HTTP/0.9"),
    ("version", "GET /widget/x HTTP/1.2"),
    ("version", "GET /widget/x HTTP/2.0"),
    ("version", "GET /widget/x HTTP/1.10"),
    ("version", "GET /widget/x http/1.1"),
    ("version", "GET /widget/x HTTP/1,1"),
    ("version", "GET /widget/x XTTP/1.1"),
    ("target", "OPTIONS * HTTP/1.1"),
    ("target", "GET widget/x HTTP/1.1"),
    ("target", "GET api.test/widget/x HTTP/1.1"),
    ("target", "GET ftp://api.test/widget/x HTTP/1.1"),
    ("target", "GET http:///widget/x HTTP/1.1"),
    ("target", "GET http://api.test?x HTTP/1.1"),
    ("target", "GET http://user@api.test/widget/x HTTP/1.1"),
    ("host", "GET http://other.test/widget/x HTTP/1.1"),
]

TARGETS = [
    "/widget/../x", "/widget/..", "/widget/.", "/widget/./x", "//widget/x", "/widget//x", "/widget/x//", "/x/../widget/x",
    "/widget/%2e%2e/x", "/widget/.%2E/x", "/widget/%2e/x", "/widget/%2fx", "/widget/%2Fx", "/widget/%5cx", "/widget/\\x",
    "/widget/%00", "/widget/%0a", "/widget/%7f", "/widget/%", "/widget/%2", "/widget/%zz", "/widget/%252e", "/widget/%252f",
    "/widget;a=b/x", "/widget/..;/x", "/widget/x#frag", "/widget/<x>", '/widget/"x"', "/widget/{x}", "/widget/x|y",
    "/widget/x^y", "/widget/`x", "/widget/\xe4", "/widget/x?a=%", "/widget/x?a=%0", "/widget/x?a=\xe4", "/widget/x?<>",
    "/widget/x?a#b", "/widget/x?a\\b",
]  # fmt: skip

HEADS = [
    ("control_bytes", field("X-Fold: a\r\n b")),
    ("control_bytes", field("X-Fold: a\r\n\tb")),
    ("control_bytes", b"GET /widget/x HTTP/1.1\r\n Host: api.test\r\nTOKEN\r\n"),
    ("control_bytes", field("X: a\x00b")),
    ("control_bytes", field("X: a\x01b")),
    ("control_bytes", field("X: a\x7fb")),
    ("control_bytes", field("X: a\x0bb")),
    ("control_bytes", field("X: a\rb")),
    ("control_bytes", field("X: a\nb: c")),
    ("control_bytes", field("X: a\n")),
    ("control_bytes", field("\r")),
    ("control_bytes", b"GET /widget/x HTTP/1.1\nHost: api.test\nTOKEN\n"),
    ("control_bytes", b"GET /widget/x HTTP/1.1\r\nHost: api.test\n\r\n"),
    ("control_bytes", b"GET /widget/x HTTP/1.1\r\nHost: api.test\r\n\n"),
    ("control_bytes", b"GET /widget/x\r HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    ("control_bytes", b"GET /widget/\x00 HTTP/1.1\r\nHost: api.test\r\n\r\n"),
    ("control_bytes", b"\n" + request()),
    ("control_bytes", b"\r" + request()),
    ("control_bytes", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 40 + b"\r\n\r\n"),  # a TLS ClientHello
    ("control_bytes", field(": empty name")),
    ("field_name", field("X-A : 1")),
    ("field_name", field("X-A\t: 1")),
    ("field_name", field("X A: 1")),
    ("field_name", field("X(A): 1")),
    ("field_name", field("X@A: 1")),
    ("field_name", field("X\xe4: 1")),
    ("field_name", field('"X": 1')),
    ("field_name", field("X/Y: 1")),
    ("field_name", field("no colon")),
    ("field_value", field("Connection: close, a b")),
    ("field_value", field("Connection: " + ",".join(f"x{i}" for i in range(33)))),
    ("syntax", field("Expect: something-else")),
    ("syntax", field("Expect: 100-continue, x")),
    ("syntax", field("Expect: 100-continue\r\nExpect: 100-continue")),
]

HOSTS = [
    "", "Host:\r\n", "Host: \r\n", "Host: api.test\r\nHost: api.test\r\n", "Host: api.test\r\nhost: other.test\r\n",
    "Host: api.test, other.test\r\n", "Host: api test\r\n", "Host: api.test/x\r\n", "Host: user@api.test\r\n",
    "Host: api.test:\r\n", "Host: api.test:0\r\n", "Host: api.test:65536\r\n", "Host: api.test:8a\r\n", "Host: api.test:080000\r\n",
    "Host: [::1\r\n", "Host: [::1]x\r\n", "Host: [zz]\r\n", "Host: ::1\r\n", "Host: api..test\r\n", "Host: .api.test\r\n",
    "Host: api.test\x80\r\n", "Host: api%2etest\r\n", "Host: http://api.test\r\n", "Host: " + "a" * 256 + "\r\n",
]  # fmt: skip

LENGTHS = [
    "-1", "+1", "1 1", "1,1", "1, 1", "0x1", "1;", "", "1.0", "1e0", "99999999999999999999", "18446744073709551616", "\xb9", "one",
]  # fmt: skip

CODINGS = [
    "identity", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "chunked,", ", chunked", "chunked;q=1", "xchunked",
    "chunked x", "", '"chunked"', "chunke", "chunked\x85",
]  # fmt: skip

CHUNKS = [
    b"g\r\nx\r\n0\r\n\r\n",
    b"-1\r\nx\r\n0\r\n\r\n",
    b"+1\r\nx\r\n0\r\n\r\n",
    b"0x1\r\nx\r\n0\r\n\r\n",
    b" 1\r\nx\r\n0\r\n\r\n",
    b"1 \r\nx\r\n0\r\n\r\n",
    b"\r\nx\r\n0\r\n\r\n",
    b"1\nx\r\n0\r\n\r\n",
    b"1\rx\r\n0\r\n\r\n",
    b"1\r\nx\n0\r\n\r\n",
    b"1\r\nxy\r\n0\r\n\r\n",
    b"2\r\nx\r\n0\r\n\r\n",
    b"1\r\nx0\r\n\r\n",
    b"1;\x00\r\nx\r\n0\r\n\r\n",
    b"1;a\nb\r\nx\r\n0\r\n\r\n",
    b"1,a\r\nx\r\n0\r\n\r\n",
    b"00000000000000001\r\nx\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\nx",
    b"0\r\nbad trailer: x\r\n\r\n",
    b"0\r\nno-colon\r\n\r\n",
    b"0\r\nX: a\x00\r\n\r\n",
    b"0\r\n folded: x\r\n\r\n",
    b"0\r\nX: a\r\n b\r\n\r\n",
    b"0\r\nX: a\n\r\n",
    b"0\r\n\n",
    b"0\n\r\n",
]

CASES = (
    [(reason, line(text)) for reason, text in REQUEST_LINES]
    + [("target", line(f"GET {text} HTTP/1.1")) for text in TARGETS]
    + HEADS
    + [("host", host(text)) for text in HOSTS]
    + [("content_length", body(f"Content-Length: {text}\r\n", b"x")) for text in LENGTHS]
    + [
        ("content_length", body("Content-Length: 1\r\nContent-Length: 1\r\n", b"x")),
        ("content_length", body("Content-Length: 1\r\nContent-Length: 2\r\n", b"xy")),
        ("content_length", body("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
        ("content_length", body("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n")),
        ("field_name", body("Content-Length : 1\r\n", b"x")),
        ("field_name", body("Transfer-Encoding : chunked\r\n", b"0\r\n\r\n")),
        ("control_bytes", body("Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n")),
        ("control_bytes", body("X: y\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
        ("control_bytes", body("Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n")),
        ("transfer_encoding", body("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
        ("transfer_encoding", body("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"0\r\n\r\n")),
        ("transfer_encoding", chunks(b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")),
    ]
    + [("transfer_encoding", body(f"Transfer-Encoding: {text}\r\n", b"0\r\n\r\n")) for text in CODINGS]
    + [(None, chunks(content)) for content in CHUNKS]
)


def refused_by(reason, got, gateway):
    """The reason in the log: bodies have none, and for some forms llhttp is the first to object."""
    seen = gateway.line_of(got).get("refused")
    return seen == reason or (reason not in (None, "control_bytes") and seen == "syntax")


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("reason, data", CASES, ids=[f"{i}-{reason or 'chunk'}" for i, (reason, _) in enumerate(CASES)])
def test_refused(shared, reason, data, bytewise):
    gateway, backend, partner = shared
    before = len(backend.requests)
    client = gateway.client()
    data = with_token(data, partner) + SMUGGLED.replace(b"\r\n\r\n", f"\r\n{partner.authorization}\r\n".encode())
    if bytewise:
        try:
            client.send_bytewise(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has heard enough
    else:
        client.send(data)
    got = client.response()
    is_error(got, "decode_error", closes=True)
    assert refused_by(reason, got, gateway), (reason, gateway.line_of(got))
    client.expect_close()
    assert len(backend.requests) == before, backend.last


ACCEPTED = [
    field("X-A:1"),
    field("X-A: \t 1 \t "),
    field("X: a\tb"),
    field("X: \xe4\xf6\xfc"),
    field("X:"),
    field("!#$%&'*+-^`|~: 1"),
    host("hOST:api.test\r\n"),
    host("Host: \tapi.test:8080 \r\n"),
    body("Content-Length: 1\r\n", b"x"),
    body("Content-Length: 0001\r\n", b"x"),
    body("Content-Length: 0\r\n"),
    body("Transfer-Encoding: Chunked\r\n", b"0\r\n\r\n"),
    body("Transfer-Encoding: \t chunked \t\r\n", b"0\r\n\r\n"),
    chunks(b"0000000000000001\r\nx\r\n0\r\n\r\n"),
    chunks(b"00A\r\n0123456789\r\n000\r\n\r\n"),
    chunks(b'1;a="b c"; d\r\nx\r\n0\r\nX-T: 1\r\nX-U:\r\n\r\n'),
    body("Content-Length: 1\r\nContent_Length: 7\r\nTransfer_Encoding: chunked\r\nTransfer.Encoding: chunked\r\n", b"x"),
    line("GET /widget/x?a=b/../%2f;c HTTP/1.1"),
    line("GET /widget/.../x.. HTTP/1.1"),
    line("GET /widg%65t/x HTTP/1.1"),
    line("GET /widget/%41 HTTP/1.1"),
]


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("data", ACCEPTED, ids=[str(i) for i in range(len(ACCEPTED))])
def test_accepted(shared, data, bytewise):
    """Legal, if unusual: passed, and the next request on the connection is read from the right place."""
    gateway, backend, partner = shared
    client = gateway.client()
    data = with_token(data, partner)
    (client.send_bytewise if bytewise else client.send)(data)
    is_passed(client.response())
    sent = backend.last
    assert not sent.fields.names() & {"transfer_encoding", "transfer.encoding", "content_length"}
    is_passed(client.exchange(target="/widget/next", fields=partner.authorization))
    assert backend.last.target == "/widget/next"


def test_a_broken_chunk_after_the_backend_has_begun_to_read(gateway, backend, partner):
    """The backend has part of the request by then: its connection is cut, so that the rest can never look complete."""
    cut = backend.gate()

    def script(c):
        c.read_head()
        assert c.reader.line() == b"5"
        assert c.reader.exactly(7) == b"first\r\n"
        assert c.drain() == b""
        cut.open()

    backend.script(script)
    head = request("POST", fields="Transfer-Encoding: chunked\r\n" + partner.authorization)
    client = gateway.client().send(head.replace(b"Content-Length: 0\r\n", b"") + b"5\r\nfirst\r\n")
    backend.wait_requests(1)
    is_error(client.ask(b"x\r\n"), "decode_error", closes=True)
    client.expect_close()
    cut.wait()


def test_empty_lines_before_a_request_are_bounded(gateway, backend, partner):
    """A few are forgiven (RFC 9112 2.2); a stream of them is not a request that may take for ever."""
    client = gateway.client()
    is_error(client.ask(b"\r\n" * 100 + request(fields=partner.authorization)), "decode_error", closes=True)
    client.expect_close()
    assert not backend.requests
