"""A client that sends exactly the bytes it is told to, and reads answers strictly."""

import re
import select
import socket
import struct
import time

from support.backend import chunk
from support.http1 import Ended, Reader
from support.wait import DEADLINE_S

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def request(method="GET", target="/widget/transactions/1", host="api.test", fields="", body=b"", version="1.1"):
    """The bytes of a request. `fields` are whole lines, each with its CRLF. A body gets a Content-Length."""
    length = f"Content-Length: {len(body)}\r\n" if body or method in ("POST", "PUT", "PATCH") else ""
    return f"{method} {target} HTTP/{version}\r\nHost: {host}\r\n{fields}{length}\r\n".encode("latin-1") + body


def chunked_request(*chunks, fields="", end=b"0\r\n\r\n"):
    """The bytes of a POST with these chunks."""
    return request("POST", fields=fields + "Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"") + (
        b"".join(chunk(c) for c in chunks) + end
    )


class Client:
    def __init__(self, address, source=None):
        """`address`: (host, port), or the path of a unix socket. `source`: own address, for tests of allowlists."""
        if isinstance(address, tuple):
            self.socket = socket.create_connection(
                address, timeout=DEADLINE_S, source_address=(source, 0) if source else None
            )
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(DEADLINE_S)
            self.socket.connect(str(address))
        self.reader = Reader(self._receive)

    def _receive(self):
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            raise Ended(bytes(self.reader.buffer), reset=True) from None
        except TimeoutError:
            raise AssertionError(f"nothing came within {DEADLINE_S} s; before it: {self.reader.buffer!r}") from None

    def send(self, data):
        self.socket.sendall(data)
        return self

    def send_bytewise(self, data):
        for i in range(len(data)):
            self.socket.sendall(data[i : i + 1])
        return self

    def send_until_refused(self, data, total):
        """Sends `data` over and over, up to `total` bytes; ends early when the other side has had enough.
        Returns the number of bytes that the kernel took."""
        sent = 0
        try:
            while sent < total:
                sent += self.socket.send(data)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
        return sent

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def wait_bytes(self, data):
        """Reads until `data` has come; it stays to be read."""
        while data not in self.reader.buffer:
            self.reader.more()
        return self

    def response(self, method="GET"):
        """The next answer. What is true of every answer of the gateway is checked here."""
        answer = self.reader.response(method)
        assert answer.version == "HTTP/1.1", answer.raw_head
        assert _UUID7.fullmatch(answer["x-request-id"] or ""), answer.raw_head
        assert answer["date"] or answer.status == 101, answer.raw_head
        return answer

    def ask(self, data, method="GET"):
        return self.send(data).response(method)

    def exchange(self, method="GET", target="/widget/transactions/1", **kwargs):
        """One request, its answer. The arguments are those of request()."""
        return self.ask(request(method, target, **kwargs), method)

    def expect_close(self):
        """The gateway ends the connection in an orderly way, and sends nothing more before that."""
        try:
            rest = self.reader.until_end()
        except Ended as end:
            raise AssertionError(f"reset instead of closed, after {end.rest!r}") from None
        assert rest == b"", f"bytes behind the last answer: {rest!r}"
        self.close()

    def expect_reset(self):
        """The gateway cuts the connection. Returns the bytes that came before."""
        try:
            rest = self.reader.until_end()
        except Ended as end:
            assert end.reset
            return end.rest
        raise AssertionError(f"closed instead of reset, after {rest!r}")

    def expect_silence(self):
        """The connection is open and nothing waits to be read, at this moment."""
        readable, _, _ = select.select([self.socket], [], [], 0)
        assert not readable and not self.reader.buffer, "closed, or bytes that nobody asked for"

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends with RST. Nothing happens when it has ended already."""
        if self.socket.fileno() < 0:
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Stopwatch:
    """For lower bounds only: something must not happen before its time. Upper bounds are deadlines."""

    def __init__(self):
        self.begin = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.begin
