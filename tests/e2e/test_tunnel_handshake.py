"""The opening handshake of WebSocket tunnels: only a correct one that the backend confirms opens a tunnel."""

import pytest

from support.backend import answer, chunked
from support.client import request
from support.expect import is_error, is_passed
from support.takeover import takeover
from support.tunnel import MASK, closed_line, open_tunnel
from support.websocket import TEXT, accept_of, accepting, frame, read_frame, upgrade

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def test_an_upgrade_and_its_answer(gateway, backend, partner):
    fields = (
        "Sec-WebSocket-Protocol: v2.proof, v1.proof\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
        "Origin: https://shop.example\r\nX-Own: 1\r\n"
    )
    answer_fields = (
        "Sec-WebSocket-Protocol: v2.proof\r\nSec-WebSocket-Extensions: permessage-deflate\r\nX-Theirs: 2\r\n"
    )
    client, far, sent, got = open_tunnel(gateway, backend, partner, fields, answer_fields)

    assert (sent.method, sent.target, sent["host"]) == ("GET", "/ws?tx_id=1", "api.test")
    assert (sent["upgrade"], sent["connection"]) == ("websocket", "Upgrade")
    assert sent["sec-websocket-version"] == "13" and sent["sec-websocket-key"]
    assert sent["sec-websocket-protocol"] == "v2.proof, v1.proof"
    assert sent["sec-websocket-extensions"] == "permessage-deflate; client_max_window_bits"
    assert (sent["origin"], sent["x-own"]) == ("https://shop.example", "1")
    assert sent["x-proof-partner-id"] == "acme" and sent["x-request-id"] == got["x-request-id"]
    assert "authorization" not in sent.fields.names()

    assert (got["upgrade"], got["connection"]) == ("websocket", "Upgrade")
    assert got["sec-websocket-accept"] == accept_of(sent["sec-websocket-key"])
    assert got["sec-websocket-protocol"] == "v2.proof"
    assert got["sec-websocket-extensions"] == "permessage-deflate"
    assert got["x-theirs"] == "2"
    assert not got.fields.names() & {"content-length", "transfer-encoding"}


FIELDS = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def handshake(changes, method="GET", version="1.1", body=b"", token=None):
    """An upgrade request with some of FIELDS changed: None leaves one out, a list repeats it."""
    lines = ""
    for name, value in {**FIELDS, **changes}.items():
        for one in value if isinstance(value, list) else [value] if value is not None else []:
            lines += f"{name}: {one}\r\n"
    return request(method, "/ws?tx_id=1", fields=lines + (token or ""), body=body, version=version)


NO_UPGRADE = {
    "no Upgrade": {"Upgrade": None},
    "no Connection": {"Connection": None},
    "no version": {"Sec-WebSocket-Version": None},
    "no key": {"Sec-WebSocket-Key": None},
    "h2c": {"Upgrade": "h2c"},
    "websocket and h2c": {"Upgrade": "websocket, h2c"},
    "h2c and websocket": {"Upgrade": ["h2c", "websocket"]},
    "websocket twice": {"Upgrade": ["websocket", "websocket"]},
    "websocket/13": {"Upgrade": "websocket/13"},
    "no upgrade in Connection": {"Connection": "keep-alive"},
    "only part of the token": {"Connection": "Upgraded"},
    "version 8": {"Sec-WebSocket-Version": "8"},
    "version 013": {"Sec-WebSocket-Version": "013"},
    "two versions": {"Sec-WebSocket-Version": "13, 8"},
    "version twice": {"Sec-WebSocket-Version": ["13", "13"]},
    "key of 15 bytes": {"Sec-WebSocket-Key": "MTIzNDU2Nzg5MDEyMzQ1"},
    "key of 17 bytes": {"Sec-WebSocket-Key": "MTIzNDU2Nzg5MDEyMzQ1Njc="},
    "key with loose bits": {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZR=="},
    "key in URL base64": {"Sec-WebSocket-Key": "dGhl_HNhbXBsZSBub25jZQ=="},
    "key without padding": {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ"},
    "empty key": {"Sec-WebSocket-Key": ""},
    "key twice": {"Sec-WebSocket-Key": [KEY, KEY]},
}


@pytest.mark.parametrize("changes", NO_UPGRADE.values(), ids=NO_UPGRADE)
def test_what_is_no_websocket_handshake(gateway, backend, partner, changes):
    """426 once the caller is known; 401 before that. Nothing reaches the backend, the connection stays open."""
    client = gateway.client()
    is_error(client.ask(handshake(changes)), "missing_token", closes=False)
    got = client.ask(handshake(changes, token=partner.authorization))
    is_error(got, "upgrade_required", closes=False)
    assert gateway.line_of(got)["event"] == "request"
    assert not backend.connections


@pytest.mark.parametrize(
    "kwargs",
    [{"method": "POST"}, {"method": "HEAD"}, {"method": "OPTIONS"}, {"body": b"hello"}, {"version": "1.0"}],
    ids=["POST", "HEAD", "OPTIONS", "a body", "HTTP/1.0"],
)
def test_a_handshake_in_the_wrong_kind_of_request(gateway, backend, partner, kwargs):
    client = gateway.client()
    got = client.ask(handshake({}, token=partner.authorization, **kwargs), kwargs.get("method", "GET"))
    is_error(got, "upgrade_required", has_body=kwargs.get("method") != "HEAD")
    assert not backend.connections


def test_a_chunked_body_is_no_handshake(gateway, backend, partner):
    data = handshake({"Transfer-Encoding": "chunked"}, token=partner.authorization)
    is_error(gateway.client().ask(data + b"0\r\n\r\n"), "upgrade_required")
    assert not backend.connections


@pytest.mark.parametrize(
    "changes",
    [{"Connection": "Upgrade, @"}, {"Connection": "Upgrade, Sec-WebSocket-Key"}, {"Content-Length": "x"}],
    ids=["no token", "names the key", "length"],
)
def test_a_handshake_that_is_no_http(gateway, backend, partner, changes):
    client = gateway.client()
    got = client.ask(handshake(changes, token=partner.authorization))
    is_error(got, "decode_error", closes=True)
    assert not backend.connections


@pytest.mark.parametrize(
    "changes",
    [
        {"Upgrade": "WebSocket"},
        {"Upgrade": "WEBSOCKET"},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": ["keep-alive", "upgrade"]},
        {"Connection": "UPGRADE"},
        {"Content-Length": "0"},
    ],
    ids=["WebSocket", "WEBSOCKET", "Firefox", "two lines", "UPGRADE", "no body, said so"],
)
def test_spellings_that_are_right(gateway, backend, partner, changes):
    backend.script(lambda c: (c.send(accepting(c.read_request())), c.drain()))
    got = gateway.client().ask(handshake(changes, token=partner.authorization))
    assert got.status == 101
    assert (backend.last["upgrade"], backend.last["connection"]) == ("websocket", "Upgrade")


def test_who_may_open_a_tunnel(gateway, backend, partner):
    """The same order as everywhere: 401 before 403; the sandbox list of this partner is empty."""
    client = gateway.client()
    is_error(client.ask(handshake({})), "missing_token", closes=False)
    is_error(client.ask(handshake({}, token="Authorization: Bearer nobody\r\n")), "invalid_token", closes=False)
    data = handshake({}, token=partner.authorization).replace(b"api.test", b"sandbox.test")
    is_error(client.ask(data), "forbidden_origin", closes=False)
    assert not backend.connections


def key_in(answering):
    """The accept key in a 101."""
    return answering.split(b"Accept: ")[1][:28]


WRONG_101 = {
    "no accept key": lambda a: a.replace(b"Sec-WebSocket-Accept", b"X-Accept"),
    "another accept key": lambda a: a.replace(key_in(a), accept_of(KEY).encode()),
    "accept key in another case": lambda a: a.replace(key_in(a), key_in(a).swapcase()),
    "accept key twice": lambda a: a.replace(b"\r\n\r\n", b"\r\n" + a.split(b"\r\n")[3] + b"\r\n\r\n"),
    "no Upgrade": lambda a: a.replace(b"Upgrade: websocket\r\n", b""),
    "h2c": lambda a: a.replace(b"websocket", b"h2c"),
    "two protocols": lambda a: a.replace(b"websocket", b"websocket, h2c"),
    "no Connection": lambda a: a.replace(b"Connection: Upgrade\r\n", b""),
    "Connection: close": lambda a: a.replace(b"Connection: Upgrade", b"Connection: close"),
    "a length": lambda a: a.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
    "chunked": lambda a: a.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "HTTP/1.0": lambda a: a.replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("spoil", WRONG_101.values(), ids=WRONG_101)
def test_only_a_matching_101_opens_a_tunnel(gateway, backend, partner, spoil):
    def script(c):
        right = accepting(c.read_request())
        wrong = spoil(right)
        assert wrong != right
        c.send(wrong + frame(TEXT, b"from the backend"))
        c.expect_end()

    backend.script(script)
    client = gateway.client()
    got = client.ask(upgrade(partner))
    is_error(got, "upstream_invalid_response", closes=False)
    line = gateway.line_of(got)
    assert (line["event"], line["end"]) == ("request", "backend/response_head")
    assert gateway.metrics()["proofgw_tunnels_open"] == 0
    is_passed(client.exchange(fields=partner.authorization))


REFUSALS = {
    "403": (answer("403 Forbidden", b"no such transaction"), 403, b"no such transaction"),
    "404 without body": (answer("404 Not Found", b""), 404, b""),
    "200": (answer(), 200, b"ok"),
    "426": (answer("426 Upgrade Required", b"v14", "Upgrade: websocket\r\nConnection: Upgrade\r\n"), 426, b"v14"),
    "500 chunked": (chunked(b"br", b"oken", status="500 Broken"), 500, b"broken"),
}


@pytest.mark.parametrize("data, status, body", REFUSALS.values(), ids=REFUSALS)
def test_any_other_answer_is_an_ordinary_answer(gateway, backend, partner, data, status, body):
    """It is passed on, and both connections go on."""

    def script(c):
        c.read_request()
        c.send(data)
        c.serve()

    backend.script(script)
    client = gateway.client()
    got = client.ask(upgrade(partner))
    is_passed(got, status, body)
    line = gateway.line_of(got)
    assert (line["event"], line["status"], line["end"]) == ("request", status, "ok/done")
    is_passed(client.exchange(fields=partner.authorization))
    assert len(backend.connections) == 1
    assert not gateway.access("tunnel_open")


@pytest.mark.parametrize("target", ["/widget/ws", "/widget/transactions/1"])
@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_no_tunnel_outside_ws(gateway, backend, partner, target, protocol):
    """The request goes on as an ordinary one; a backend that switches all the same has no say."""
    fields = (
        f"Upgrade: {protocol}\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n" + partner.authorization
    )
    client = gateway.client()
    is_passed(client.exchange(target=target, fields=fields))
    assert not backend.last.fields.names() & {"upgrade", "connection", "http2-settings"}

    def script(c):
        sent = c.read_request()
        c.send(accepting(sent) if "sec-websocket-key" in sent.fields.names() else b"HTTP/1.1 101 S\r\n\r\n")
        c.expect_end()

    backend.script(script)
    backend.connections[0].end()
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    is_error(client.exchange(target=target, fields=fields), "upstream_invalid_response", closes=False)
    assert gateway.metrics()["proofgw_tunnels_open"] == 0
    is_passed(client.exchange(fields=partner.authorization))


def test_a_client_that_ends_before_the_101(gateway, backend, partner):
    """Its FIN is passed on behind the bytes that it sent before, once there is a tunnel."""
    far = takeover(backend)
    client = gateway.client().send(upgrade(partner) + frame(TEXT, b"all I have", MASK)).half_close()
    end, sent = far()
    end.send(accepting(sent) + frame(TEXT, b"and I"))
    assert client.response().status == 101
    assert end.reader.until_end() == frame(TEXT, b"all I have", MASK)
    assert read_frame(client.reader)[2] == b"and I"
    end.send(frame(TEXT, b"more"))
    assert read_frame(client.reader)[2] == b"more"
    end.close()
    client.expect_close()
    assert closed_line(gateway)["end"] == "client/tunnel"


def test_a_client_that_leaves_before_the_101(gateway, backend, partner):
    far = takeover(backend)
    client = gateway.client().send(upgrade(partner))
    end, _ = far()
    client.reset()
    end.expect_end()
    (line,) = gateway.wait_access(1)
    assert (line["event"], line["end"]) == ("request", "client/response_head")
    assert gateway.metrics()["proofgw_tunnels_open"] == 0


def test_a_backend_that_ends_right_after_its_101(gateway, backend, partner):
    """The 101, a message and the end in one go."""
    far = takeover(backend, lambda sent: accepting(sent) + frame(TEXT, b"too late"))
    client = gateway.client().send(upgrade(partner))
    end, _ = far()
    end.close()
    assert client.response().status == 101
    assert read_frame(client.reader)[2] == b"too late"
    assert client.reader.until_end() == b""
    client.half_close()
    assert closed_line(gateway)["end"] == "backend/tunnel"


@pytest.mark.parametrize("pieces", ["bytewise", "head and greeting apart"])
def test_a_101_in_pieces(gateway, backend, partner, pieces):
    far = takeover(backend)
    client = gateway.client().send(upgrade(partner))
    end, sent = far()
    greeting = frame(TEXT, b"greeting")
    data = accepting(sent) + greeting
    for part in [data[i : i + 1] for i in range(len(data))] if pieces == "bytewise" else [data[:-12], data[-12:]]:
        end.send(part)
    assert client.response().status == 101
    assert client.reader.exactly(len(greeting)) == greeting


def test_what_a_refused_client_sends_on_is_a_request(gateway, backend, partner):
    """After any other answer than 101 the connection speaks HTTP: frames are not, and reach nobody."""
    far = takeover(backend)
    client = gateway.client().send(upgrade(partner) + frame(TEXT, b"eager", MASK))
    end, _ = far()
    end.send(answer("403 Forbidden", b"no"))
    is_passed(client.response(), 403, b"no")
    is_error(client.response(), "decode_error", closes=True)
    assert len(backend.requests) == 1
