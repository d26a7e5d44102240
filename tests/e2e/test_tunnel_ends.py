"""Every way in which a WebSocket tunnel ends: each end is passed on as what it was, written down, and counted."""

import hashlib
import select
import signal
import threading

import pytest

from support.expect import is_error
from support.http1 import Ended
from support.partners import Partner
from support.payload import PLENTY, pattern
from support.takeover import takeover
from support.tunnel import MASK, closed_line, open_tunnel, receive, stall
from support.websocket import BINARY, CLOSE, TEXT, accepting, frame, read_frame, upgrade


HELD_BY_THE_KERNEL = 400 * 1024  # more than a client that does not read takes, less than the gateway's socket


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


@pytest.mark.parametrize("how", ["FIN", "close frame"])
def test_last_bytes_arrive_when_the_gateway_ends_what_the_backend_has_ended(gateway, backend, partner, how):
    """The backend's end was passed on, so no close frame of the gateway can follow. What its kernel has not sent yet is not
    thrown away because the client goes on speaking."""
    client, far, _, _ = open_tunnel(gateway, backend, partner)
    sent = gateway.wait_metric("proofgw_client_bytes_sent_total", lambda v: v > 0)["proofgw_client_bytes_sent_total"]
    data = frame(BINARY, pattern(HELD_BY_THE_KERNEL)) + (frame(CLOSE, COME_AGAIN) if how == "close frame" else b"")
    far.send(data)
    if how == "FIN":
        far.half_close()
    gateway.wait_metric("proofgw_client_bytes_sent_total", sent + len(data))
    gateway.update_partners([Partner("other")])
    client.send(frame(TEXT, b"more", MASK))
    assert closed_line(gateway)["end"] == "token/tunnel"
    client.send(frame(TEXT, b"more", MASK))
    assert client.reader.until_end() == data


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
