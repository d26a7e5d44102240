"""WebSocket tunnels: the bytes in between, back-pressure, what is written down, and real clients.

Goal: what is in a tunnel arrives whole, in order and unchanged, whatever it is; neither side can fill the gateway's
memory; it is logged and counted.

Method: open_tunnel() gives both ends of one tunnel to the test, which then plays client and backend by itself. The real
client library `websockets` and the project's demo backend have their say too. How tunnels begin is in
test_tunnel_handshake.py, how they end in test_tunnel_ends.py, the idle timeout of a healthy tunnel in
test_timeouts_backend.py, the limit on tunnels in test_limits_connections.py.
"""

import asyncio
import hashlib
import queue
import threading

import pytest
import websockets
import websockets.legacy.client

from support.expect import is_passed
from support.payload import MIB, PLENTY, pattern
from support.tunnel import MASK, closed_line, open_tunnel, receive, stall
from support.wait import DEADLINE_S
from support.websocket import BINARY, PING, PONG, TEXT, accepting, frame, read_frame, upgrade


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
