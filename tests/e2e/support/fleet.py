"""Thousands of WebSocket clients in one thread: raw sockets and epoll, as little per client as will do.

    fleet = Fleet(gateway)
    tunnels = fleet.open(partner, 5000, sources=["127.0.0.2", "127.0.0.3"])
    fleet.echo(tunnels)                    # one round trip through each, all at once
    fleet.wait_closed(tunnels, seconds)    # each gets a close frame and then the end of the connection

What the gateway sends is cut into frames from its first byte to its last: a close frame inside another frame, bytes behind it or an
end inside a frame fail the test, whichever tunnel it happens to.
"""

import contextlib
import resource
import select
import socket
import struct
import time
from pathlib import Path

from support.wait import DEADLINE_S
from support.websocket import BINARY, CLOSE, TEXT, frame, upgrade

_ECHO = b"are you still there?"
_ECHO_FRAME = frame(BINARY, _ECHO, b"\x01\x02\x03\x04")
_OPENING = 200  # handshakes on the way at once


@contextlib.contextmanager
def many_descriptors():
    """As many as the hard limit of this process lets it have; its children inherit that. Yields the number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu_seconds(process):
    """User and system time that a child process has used so far, with the kernel's full resolution."""
    return time.clock_gettime(~process.pid << 3 | 2)  # CPU clock of a process: clock_getcpuclockid(3)


class Crowding:
    """How long a thread of some processes was ready to run and got no processor: what a busy machine adds to any time."""

    def __init__(self, *pids):
        self.pids = pids
        self.begin = self._delays()

    def _delays(self):
        files = [file for pid in self.pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return {file: int(file.read_text().split()[1]) / 1e9 for file in files}

    def seconds(self):
        """Of the thread that has waited longest; 0 where the kernel does not count it."""
        return max((delay - self.begin.get(file, 0) for file, delay in self._delays().items()), default=0)


class Tunnel:
    """One client. `close_code` and `closed_at` (monotonic clock) tell about the close frame; `ended`: the connection is over."""

    __slots__ = ("socket", "buffer", "is_open", "echoes", "events", "close_code", "closed_at", "ended")

    def __init__(self, sock):
        self.socket = sock
        self.buffer = bytearray()
        self.is_open = self.ended = False
        self.echoes = self.events = 0
        self.close_code = self.closed_at = None

    def feed(self, data, now):
        self.buffer += data
        if not self.is_open:
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 101 "), bytes(head)
            self.is_open, self.buffer = True, rest
        while self._take_frame(now):
            pass

    def _take_frame(self, now):
        """Small frames only: nobody sends others here."""
        if len(self.buffer) < 2 or len(self.buffer) < 2 + self.buffer[1]:
            assert len(self.buffer) < 2 or self.buffer[1] < 126, bytes(self.buffer[:8])
            return False
        first, size = self.buffer[0], self.buffer[1]
        payload = bytes(self.buffer[2 : 2 + size])
        del self.buffer[: 2 + size]
        assert self.close_code is None, f"a frame behind the close frame: {first:#x} {payload!r}"
        if first == 0x80 | CLOSE:
            self.close_code, self.closed_at = struct.unpack_from("!H", payload)[0], now
            self.socket.shutdown(socket.SHUT_WR)
        elif first == 0x80 | BINARY:
            assert payload == _ECHO
            self.echoes += 1
        else:
            assert first == 0x80 | TEXT and payload.startswith(b"{"), (first, payload)
            self.events += 1
        return True

    def end(self):
        assert not self.buffer, f"the connection ended inside a frame: {bytes(self.buffer)!r}"
        assert self.close_code is not None, "the connection ended without a close frame"
        self.ended = True


class Fleet:
    def __init__(self, gateway):
        self.gateway = gateway
        self.poll = select.epoll()
        self.by_descriptor = {}

    def _start(self, partner, source, query):
        sock = socket.create_connection(("127.0.0.1", self.gateway.port), DEADLINE_S, source_address=(source, 0))
        sock.sendall(upgrade(partner, f"/ws?tx_id=1&echo=1&{query}"))
        sock.setblocking(False)
        tunnel = self.by_descriptor[sock.fileno()] = Tunnel(sock)
        self.poll.register(sock, select.EPOLLIN)
        return tunnel

    def open(self, partner, n, sources=("127.0.0.1",), query="interval_ms=0"):
        """`query`: further options of the demo backend's WebSocket. The sources take turns."""
        tunnels = []
        while len(tunnels) < n:
            batch = range(len(tunnels), min(n, len(tunnels) + _OPENING))
            batch = [self._start(partner, sources[i % len(sources)], query) for i in batch]
            self._run_until_each(batch, lambda t: t.is_open, DEADLINE_S, "are open")
            tunnels += batch
        return tunnels

    def echo(self, tunnels):
        for tunnel in tunnels:
            tunnel.echoes = 0
            tunnel.socket.sendall(_ECHO_FRAME)
        self._run_until_each(tunnels, lambda t: t.echoes == 1, DEADLINE_S, "echo")

    def wait_closed(self, tunnels, seconds=DEADLINE_S):
        self._run_until_each(tunnels, lambda t: t.ended, seconds, "are closed")

    def _run_until_each(self, tunnels, condition, seconds, what):
        end, missing = time.monotonic() + seconds, list(tunnels)
        while missing:
            if condition(missing[-1]):
                missing.pop()
                continue
            assert time.monotonic() < end, f"not within {seconds} s: {len(tunnels) - len(missing)} of {len(tunnels)} {what}"
            self.turn()

    def turn(self):
        """Reads whatever has come; waits a little if nothing has."""
        for descriptor, _ in self.poll.poll(0.05, 4096):
            tunnel = self.by_descriptor[descriptor]
            data = tunnel.socket.recv(65536)
            if data:
                tunnel.feed(data, time.monotonic())
                continue
            del self.by_descriptor[descriptor]
            tunnel.socket.close()
            tunnel.end()

    def close(self):
        """Cuts whatever is open, without a word."""
        for tunnel in self.by_descriptor.values():
            tunnel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            tunnel.socket.close()
        self.by_descriptor = {}
        self.poll.close()
