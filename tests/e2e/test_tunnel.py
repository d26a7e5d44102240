"""WebSocket tunnels: the opening handshake on both sides, the bytes in between, and every way in which one ends.

Goal: only a correct handshake that the backend confirms opens a tunnel; what is in it arrives whole, in order and
unchanged, whatever it is; neither side can fill the gateway's memory; each end is passed on as what it was, written
down, and counted.

Method: open_tunnel() gives both ends of one tunnel to the test, which then plays client and backend by itself. The real
client library `websockets` and the project's demo backend have their say too. The idle timeout of a healthy tunnel is
in test_timeouts.py, the limit on tunnels in test_limits.py.
"""

import asyncio
import hashlib
import queue
import select
import signal
import threading

import pytest
import websockets
import websockets.legacy.client

from support.backend import answer, chunked
from support.client import request
from support.expect import is_error, is_passed
from support.http1 import Ended
from support.payload import MIB, PLENTY, pattern
from support.takeover import takeover
from support.wait import DEADLINE_S
from support.websocket import BINARY, CLOSE, PING, PONG, TEXT, accept_of, accepting, frame, read_frame, upgrade

MASK = b"\x12\x34\x56\x78"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def open_tunnel(gateway, backend, partner, fields="", answer_fields="", early=b"", greeting=b""):
    """Returns (client, far, sent, got): both ends, the upgrade request as the backend got it, and the client's 101.
    `early`: what the client sends together with its request; `greeting`: what the backend sends with its 101."""
    far = takeover(backend, lambda sent: accepting(sent, answer_fields) + greeting)
    client = gateway.client()
    got = client.ask(upgrade(partner, fields=fields) + early)
    assert got.status == 101, (got.status, got.body)
    return client, *far(), got


def closed_line(gateway, n=1):
    """The tunnel_close line of the only tunnel."""
    (line,) = gateway.wait_access(n, "tunnel_close")
    return line


def receive(end, size):
    """Takes `size` bytes at one end; returns their digest."""
    digest = hashlib.sha256()
    while size:
        if not end.reader.buffer:
            end.reader.more()
        data = bytes(end.reader.buffer[:size])
        del end.reader.buffer[: len(data)]
        digest.update(data)
        size -= len(data)
    return digest.digest()


def stall(end, data):
    """Sends until the other side has taken nothing for half a second; returns how much it has taken."""
    end.socket.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < len(data):
            sent += end.socket.send(data[sent : sent + MIB])
    end.socket.settimeout(DEADLINE_S)
    return sent


# --- the handshake ---------------------------------------------------------------------------------------


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


# --- what is in it ---------------------------------------------------------------------------------------


def test_both_sides_may_begin_at_once(gateway, backend, partner):
    """Bytes that come together with the upgrade, or with the 101, are delivered, and before all later ones."""
    early, greeting = frame(TEXT, b"early", MASK), frame(TEXT, b"greeting")
    client, far, _, _ = open_tunnel(gateway, backend, partner, early=early, greeting=greeting)
    client.send(frame(TEXT, b"later", MASK))
    far.send(frame(TEXT, b"more"))
    assert far.reader.exactly(len(early)) == early
    assert far.reader.exactly(len(early)) == frame(TEXT, b"later", MASK)
    assert [read_frame(client.reader)[2] for _ in range(2)] == [b"greeting", b"more"]


def test_a_client_that_does_not_wait_for_the_101(gateway, backend, partner):
    """Far more than limits.pipelined, while the backend thinks: the client is stopped, and nothing is lost."""
    data = pattern(PLENTY)
    handed = queue.SimpleQueue()
    gate = backend.gate()

    def script(c):
        sent = c.read_head()
        gate.wait()
        c.send(accepting(sent))
        handed.put(receive(c, len(data)))

    backend.script(script)
    client = gateway.client().send(upgrade(partner))
    backend.wait_requests(1)
    sent = stall(client, data)
    gate.open()
    rest = threading.Thread(target=client.send, args=(data[sent:],))
    rest.start()
    assert client.response().status == 101
    assert handed.get(timeout=DEADLINE_S) == hashlib.sha256(data).digest()
    rest.join()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, MIB])
def test_messages_of_any_size(gateway, backend, partner, size):
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    up, down = frame(BINARY, pattern(size), MASK), frame(BINARY, pattern(size))
    sender = threading.Thread(target=client.send, args=(up,))
    sender.start()
    assert far.reader.exactly(len(up)) == up
    sender.join()
    sender = threading.Thread(target=far.send, args=(down,))
    sender.start()
    assert client.reader.exactly(len(down)) == down
    sender.join()
    gateway.wait_metric("proofgw_tunnel_messages_total", 2)


@pytest.mark.parametrize("workers", [1, 4])
def test_much_in_both_directions_at_once(proofgw, backend, partner, workers):
    """16 MiB each way, in frames of odd sizes, through one tunnel."""
    gateway = proofgw(workers=workers)
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    part = pattern(65536)
    up = b"".join(frame(BINARY, part[: (n * 7919) % 65536], MASK) for n in range(512))
    down = b"".join(frame(BINARY, part[: (n * 6961) % 65536]) for n in range(512))
    digests = {}
    jobs = [
        threading.Thread(target=client.send, args=(up,)),
        threading.Thread(target=far.send, args=(down,)),
        threading.Thread(target=lambda: digests.update(up=receive(far, len(up)))),
        threading.Thread(target=lambda: digests.update(down=receive(client, len(down)))),
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
        assert not job.is_alive()
    assert digests == {"up": hashlib.sha256(up).digest(), "down": hashlib.sha256(down).digest()}
    gateway.wait_metric("proofgw_tunnel_messages_total", 512, direction="client")
    gateway.wait_metric("proofgw_tunnel_messages_total", 512, direction="backend")


def test_single_bytes(gateway, backend, partner):
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    up, down = frame(TEXT, b"byte by byte", MASK), frame(TEXT, b"and back")
    client.send_bytewise(up)
    assert far.reader.exactly(len(up)) == up
    for i in range(len(down)):
        far.send(down[i : i + 1])
    assert client.reader.exactly(len(down)) == down
    gateway.wait_metric("proofgw_tunnel_messages_total", 2)


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 16, frame(TEXT, b"not masked"), b"\xff" * 4096],
    ids=["HTTP", "all bytes", "not masked", "0xff"],
)
def test_bytes_that_are_no_frames_are_passed_on_too(gateway, backend, partner, data):
    """The gateway follows the frames, it does not judge them."""
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    client.send(data)
    assert far.reader.exactly(len(data)) == data
    far.send(data)
    assert client.reader.exactly(len(data)) == data


def test_reserved_bits_and_unknown_opcodes_are_passed_on(gateway, backend, partner):
    """Extensions use them; counting goes on behind them."""
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    data = b"\xf1" + frame(TEXT, b"compressed", MASK)[1:] + frame(TEXT, b"plain", MASK)
    client.send(data)
    assert far.reader.exactly(len(data)) == data
    gateway.wait_metric("proofgw_tunnel_messages_total", 2, direction="client")


# --- back-pressure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("towards", ["client", "backend"])
def test_back_pressure(gateway, backend, partner, towards):
    """Who does not read stops the other side, and only in this direction; then everything arrives."""
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    source, sink = (far, client) if towards == "client" else (client, far)
    data = pattern(PLENTY)
    sent = stall(source, data)
    assert sent < len(data) // 2
    sink.send(b"the other direction moves")
    assert source.reader.exactly(25) == b"the other direction moves"
    rest = threading.Thread(target=source.send, args=(data[sent:],))
    rest.start()
    assert receive(sink, len(data)) == hashlib.sha256(data).digest()
    rest.join()


@pytest.mark.parametrize("towards", ["client", "backend"])
def test_a_side_that_never_reads_is_cut_off(proofgw, backend, partner, towards):
    gateway = proofgw(timeouts={"client_write": "300ms"})
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    source = far if towards == "client" else client
    source.socket.settimeout(DEADLINE_S)
    block = b"x" * MIB
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            source.socket.sendall(block)
    assert closed_line(gateway)["end"] == "write_stall/tunnel"
    gateway.wait_metric("proofgw_tunnels_closed_total", 1, reason="write_stall")
    if towards == "client":
        client.expect_reset()


# --- how it ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["client", "backend"])
def test_half_close(gateway, backend, partner, first):
    """The end of one direction is passed on behind its last byte; the other direction goes on until its own end."""
    client, far, _, got = open_tunnel(gateway, backend, partner)
    a, b = (client, far) if first == "client" else (far, client)
    a.send(b"last words")
    a.half_close()
    assert b.reader.until_end() == b"last words"
    b.send(b"answer ")
    b.send(b"to them")
    assert a.reader.exactly(14) == b"answer to them"
    assert gateway.metrics()["proofgw_tunnels_open"] == 1
    b.half_close()
    assert a.reader.until_end() == b""
    line = closed_line(gateway)
    assert line["end"] == f"{first}/tunnel"
    gateway.wait_metric("proofgw_tunnels_open", 0)


@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_half_closed_tunnel_does_not_stay_for_ever(proofgw, backend, partner, first):
    gateway = proofgw(timeouts={"client_write": "300ms"})
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    a, b = (client, far) if first == "client" else (far, client)
    a.half_close()
    assert b.reader.until_end() == b""
    assert a.reader.until_end() == b""
    assert closed_line(gateway)["end"] == f"{first}/tunnel"


@pytest.mark.parametrize("first", ["client", "backend"])
def test_an_end_does_not_overtake_bytes(gateway, backend, partner, first):
    """Megabytes wait for a slow reader when their sender ends; all of them arrive, and then the end."""
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    a, b = (client, far) if first == "client" else (far, client)
    data = pattern(PLENTY)
    sent = stall(a, data)
    rest = threading.Thread(target=lambda: (a.send(data[sent:]), a.half_close()))
    rest.start()
    assert receive(b, len(data)) == hashlib.sha256(data).digest()
    assert b.reader.until_end() == b""
    rest.join()


@pytest.mark.parametrize("first", ["client", "backend"])
def test_both_end_while_bytes_wait(gateway, backend, partner, first):
    """The reader has sent its FIN already; what waits for it is delivered all the same."""
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    a, b = (client, far) if first == "client" else (far, client)
    b.half_close()
    assert a.reader.until_end() == b""
    data = pattern(PLENTY)
    sent = stall(a, data)
    rest = threading.Thread(target=lambda: (a.send(data[sent:]), a.half_close()))
    rest.start()
    assert receive(b, len(data)) == hashlib.sha256(data).digest()
    assert b.reader.until_end() == b""
    rest.join()


def test_last_bytes_and_a_full_close(gateway, backend, partner):
    """The usual end: a close frame, its echo, and the backend closes."""
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    bye = (1000).to_bytes(2, "big") + b"bye"
    client.send(frame(CLOSE, bye, MASK))
    assert far.reader.exactly(len(bye) + 6) == frame(CLOSE, bye, MASK)
    far.send(frame(CLOSE, bye))
    far.close()
    assert read_frame(client.reader) == (True, CLOSE, bye)
    client.expect_close()
    line = closed_line(gateway)
    assert (line["end"], line["messages_in"], line["messages_out"]) == ("backend/tunnel", 0, 0)


def test_the_backend_resets(gateway, backend, partner):
    client, far, _, _ = open_tunnel(gateway, backend, partner, greeting=b"before")
    assert client.reader.exactly(6) == b"before"
    far.reset()
    try:
        assert client.reader.until_end() == b""
    except Ended:
        pass  # passed on as a reset: as good
    assert closed_line(gateway)["end"] == "backend/tunnel"
    gateway.wait_metric("proofgw_tunnels_closed_total", 1, reason="backend")


def test_the_client_resets(gateway, backend, partner):
    client, far, _, _ = open_tunnel(gateway, backend, partner, early=b"before")
    assert far.reader.exactly(6) == b"before"
    client.reset()
    assert far.drain() == b""
    assert closed_line(gateway)["end"] == "client/tunnel"
    gateway.wait_metric("proofgw_tunnels_closed_total", 1, reason="client")


@pytest.mark.parametrize("who", ["client", "backend"])
def test_a_reset_while_bytes_wait(gateway, backend, partner, who):
    """Who resets has not read what the other side has sent."""
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    a, b = (client, far) if who == "client" else (far, client)
    stall(b, pattern(PLENTY))
    a.reset()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            b.socket.sendall(b"x" * 65536)
    assert closed_line(gateway)["end"] == f"{who}/tunnel"
    gateway.wait_metric("proofgw_upstream_connections_open", 0)


# --- the gateway ends it ---------------------------------------------------------------------------------

COME_AGAIN = (1012).to_bytes(2, "big")


def test_no_close_frame_inside_a_frame(proofgw, backend, partner):
    """Idle in the middle of a frame of the backend: the client sees the end without a close frame in between."""
    gateway = proofgw(timeouts={"tunnel_idle": "300ms"})
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    part = frame(TEXT, b"x" * 100)[:50]
    far.send(part)
    try:
        assert client.reader.until_end() == part
    except Ended as end:
        assert end.rest == part
    assert closed_line(gateway)["end"] == "idle/tunnel"


@pytest.mark.parametrize("payload", [100, 1000, 100_000])
def test_a_close_frame_waits_for_the_end_of_a_frame(gateway, backend, partner, payload):
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    whole = frame(BINARY, pattern(payload))
    far.send(whole[: payload // 2])
    assert client.reader.exactly(payload // 2) == whole[: payload // 2]
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    assert not select.select([client.socket], [], [], 0.1)[0]
    far.send(whole[payload // 2 :])
    assert client.reader.exactly(len(whole) - payload // 2) == whole[payload // 2 :]
    fin, opcode, reason = read_frame(client.reader)
    assert (fin, opcode, reason[:2]) == (True, CLOSE, COME_AGAIN)
    client.expect_close()
    assert gateway.wait_exit() == 0
    assert closed_line(gateway)["end"] == "shutdown/tunnel"


@pytest.mark.parametrize("spoilt", [b"\x81\x85abcdhello", b"\x81\x7e\x00\x05hello"], ids=["masked", "long length"])
def test_no_close_frame_where_frames_are_not_understood(proofgw, backend, partner, spoilt):
    gateway = proofgw(timeouts={"tunnel_idle": "300ms"})
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    far.send(spoilt)
    try:
        assert client.reader.until_end() == spoilt
    except Ended as end:
        assert end.rest == spoilt
    assert closed_line(gateway)["end"] == "idle/tunnel"


def test_no_second_close_frame(gateway, backend, partner):
    """The backend's own close frame has passed; at the end of the gateway no other one follows."""
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    bye = frame(CLOSE, (1000).to_bytes(2, "big"))
    far.send(bye)
    assert client.reader.exactly(len(bye)) == bye
    gateway.signal(signal.SIGTERM)
    try:
        assert client.reader.until_end() == b""
    except Ended as end:
        assert end.rest == b""
    assert gateway.wait_exit() == 0


def test_all_tunnels_get_1012_at_the_end_of_the_gateway(proofgw, backend, partner):
    gateway = proofgw(workers=2)
    tunnels = [open_tunnel(gateway, backend, partner) for _ in range(20)]
    gateway.signal(signal.SIGTERM)
    for client, far, _, _ in tunnels:
        fin, opcode, reason = read_frame(client.reader)
        assert (fin, opcode, reason[:2]) == (True, CLOSE, COME_AGAIN)
        client.send(frame(CLOSE, COME_AGAIN, MASK))
        client.expect_close()
        far.drain()
    assert gateway.wait_exit() == 0
    lines = gateway.access("tunnel_close")
    assert [line["end"] for line in lines] == ["shutdown/tunnel"] * 20


def test_a_client_that_does_not_read_holds_nobody_up(proofgw, backend, partner):
    """Full buffers towards the client, in the middle of a frame, at SIGTERM: it is cut; that is an orderly end of the
    gateway."""
    gateway = proofgw(timeouts={"client_write": "2s"})
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    stall(far, frame(BINARY, pattern(PLENTY)))
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert closed_line(gateway)["end"] in ("shutdown/tunnel", "write_stall/tunnel")
    client.expect_reset()


def test_an_upgrade_that_is_answered_while_the_gateway_drains(gateway, backend, partner):
    """Whether it still becomes a tunnel or not: it does not hold up the end of the gateway until its bound."""
    far = takeover(backend)
    client = gateway.client().send(upgrade(partner))
    end, sent = far()
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    assert not select.select([client.socket], [], [], 0.5)[0]
    end.send(accepting(sent))
    got = client.response()
    if got.status == 101:
        fin, opcode, reason = read_frame(client.reader)
        assert (fin, opcode, reason[:2]) == (True, CLOSE, COME_AGAIN)
        client.expect_close()
    else:
        is_error(got, "unavailable", closes=True)
    assert gateway.wait_exit() == 0


# --- what is written down --------------------------------------------------------------------------------


def test_the_lines_of_a_tunnel(gateway, backend, partner):
    """Messages, not frames: one in three pieces with a ping between them is one."""
    client, far, _, got = open_tunnel(gateway, backend, partner)
    up = (
        frame(TEXT, b"one", MASK)
        + frame(TEXT, b"tw", MASK, fin=False)
        + frame(PING, b"?", MASK)
        + frame(0, b"o in ", MASK, fin=False)
        + frame(0, b"pieces", MASK)
    )
    down = frame(PONG, b"?") + frame(BINARY, b"x" * 1000) + frame(TEXT, b"") + frame(TEXT, b"last")
    client.send(up)
    assert far.reader.exactly(len(up)) == up
    far.send(down)
    assert client.reader.exactly(len(down)) == down
    far.close()
    client.expect_close()
    opened, closed = gateway.wait_access(2)

    assert opened["event"] == "tunnel_open" and closed["event"] == "tunnel_close"
    for line in (opened, closed):
        assert line["request_id"] == got["x-request-id"]
        assert (line["partner_id"], line["env"], line["token_slot"]) == ("acme", "production", "current")
        assert (line["client_ip"], line["client_ip_source"]) == ("127.0.0.1", "socket")
    assert (opened["status"], opened["method"], opened["path"]) == (101, "GET", "/ws")
    assert opened["end"] == "ok/tunnel"
    assert (closed["bytes_in"], closed["bytes_out"]) == (len(up), len(down))
    assert (closed["messages_in"], closed["messages_out"]) == (2, 3)
    assert closed["duration_ms"] >= 0 and closed["end"] == "backend/tunnel"
    scrape = gateway.wait_metric("proofgw_tunnels_open", 0)
    assert scrape("proofgw_tunnel_messages_total", direction="client") == 2
    assert scrape("proofgw_tunnel_messages_total", direction="backend") == 3
    assert scrape("proofgw_tunnels_closed_total", reason="backend") == 1
    assert scrape("proofgw_http_requests_total", route="ws", code="101") == 1


def test_early_bytes_are_counted(gateway, backend, partner):
    early, greeting = frame(TEXT, b"early", MASK), frame(TEXT, b"greeting")
    client, far, _, _ = open_tunnel(gateway, backend, partner, early=early, greeting=greeting)
    assert far.reader.exactly(len(early)) == early
    assert client.reader.exactly(len(greeting)) == greeting
    far.close()
    client.expect_close()
    closed = closed_line(gateway)
    assert (closed["bytes_in"], closed["messages_in"]) == (len(early), 1)
    assert (closed["bytes_out"], closed["messages_out"]) == (len(greeting), 1)


def test_a_tunnel_does_not_come_from_the_pool_nor_go_back_to_it(gateway, backend, partner):
    other = gateway.client()
    is_passed(other.exchange(fields=partner.authorization))
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    scrape = gateway.metrics()
    assert scrape["proofgw_upstream_connections_idle"] == 1
    assert scrape["proofgw_upstream_connections_open"] == 2
    far.half_close()
    client.half_close()
    assert client.reader.until_end() == b""
    gateway.wait_metric("proofgw_upstream_connections_open", 1)
    is_passed(other.exchange(fields=partner.authorization))
    assert len(backend.connections) == 2


# --- real clients ----------------------------------------------------------------------------------------


def connect(gateway, partner, tx, **kwargs):
    return websockets.legacy.client.connect(  # the same in every version of the library
        f"ws://api.test/ws?tx_id={tx}&echo=1",
        host="127.0.0.1",
        port=gateway.port,
        extra_headers={"Authorization": f"Bearer {partner.token}"},
        max_size=None,
        ping_interval=None,
        **kwargs,
    )


def test_the_websockets_library(proofgw, demo, partner):
    """A message of 1 MiB and a thousand small ones, in order; ping and pong; an orderly close."""
    gateway = proofgw(upstream=demo.address)

    async def run():
        async with connect(gateway, partner, "t1") as ws:
            large = pattern(MIB).decode()
            await ws.send(large)
            assert await ws.recv() == large
            await (await ws.ping())

            async def send():
                for n in range(1000):
                    await ws.send(f"message {n}")

            sending = asyncio.create_task(send())
            assert [await ws.recv() for _ in range(1000)] == [f"message {n}" for n in range(1000)]
            await sending
        assert ws.close_code == 1000

    asyncio.run(asyncio.wait_for(run(), 60))
    line = closed_line(gateway)
    assert line["messages_in"] == 1001 and line["messages_out"] == 1001


@pytest.mark.parametrize("workers", [1, 4])
def test_two_hundred_tunnels_at_once(proofgw, demo, partner, workers):
    """All open together, each with its own messages; afterwards nothing of them is left."""
    gateway = proofgw(upstream=demo.address, workers=workers)
    n = 200

    async def one(number, all_open):
        async with connect(gateway, partner, f"t{number}", open_timeout=30) as ws:
            await ws.send(f"tunnel {number}")
            assert await ws.recv() == f"tunnel {number}"
            await all_open.wait()
            await ws.send(f"again {number}")
            assert await ws.recv() == f"again {number}"

    async def run():
        all_open = asyncio.Event()
        tasks = [asyncio.create_task(one(number, all_open)) for number in range(n)]
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, gateway.wait_metric, "proofgw_tunnels_open", n)
        all_open.set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(run(), 60))
    gateway.wait_metric("proofgw_tunnels_open", 0)
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    opened = gateway.wait_access(n, "tunnel_open")
    closed = gateway.wait_access(n, "tunnel_close")
    assert len({line["request_id"] for line in opened}) == n
    assert {line["request_id"] for line in opened} == {line["request_id"] for line in closed}
    assert all(line["messages_in"] == 2 for line in closed)
