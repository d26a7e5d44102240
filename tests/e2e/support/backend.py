"""A backend that does exactly what a test says: exact bytes in, exact bytes out.

    backend = Backend()                              # answers every request with 200 and `ok`
    backend.answer = lambda request: b"HTTP/1.1 ..." # other bytes for every request
    backend.script(fn)                               # the next new connection runs fn(connection), nothing else

A script is a function of a Connection: read_request(), send(), close(), reset(), expect_end(), drain(). It runs in
a thread of its own. Whatever goes wrong in it fails the test when the test ends. `backend.gate()` makes a script wait
for the test, or the test for a script.
"""

import collections
import contextlib
import socket
import struct
import threading
import traceback

from support.http1 import Ended, Reader
from support.wait import DEADLINE_S, wait_for


def answer(status="200 OK", body=b"ok", fields="Content-Type: text/plain\r\n"):
    """An answer with a Content-Length."""
    return f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


def chunked(*chunks, status="200 OK", fields="", end=True):
    """An answer in chunks; end=False leaves out the last one."""
    head = f"HTTP/1.1 {status}\r\n{fields}Transfer-Encoding: chunked\r\n\r\n".encode("latin-1")
    return head + b"".join(chunk(c) for c in chunks) + (b"0\r\n\r\n" if end else b"")


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


class Gate:
    """Opened once, by either side; waiting has a deadline."""

    def __init__(self):
        self._event = threading.Event()

    def open(self):
        self._event.set()

    def wait(self):
        assert self._event.wait(DEADLINE_S), "nobody opened the gate"


class Connection:
    """One connection from the gateway, seen from the backend."""

    def __init__(self, backend, sock):
        self.backend = backend
        self.socket = sock
        self.reader = Reader(self._receive)
        self.requests = 0

    def _receive(self):
        try:
            return self.socket.recv(65536)
        except (ConnectionResetError, BrokenPipeError):
            raise Ended(bytes(self.reader.buffer), reset=True) from None
        except TimeoutError:
            raise AssertionError("the gateway sent nothing more, nor did it close") from None

    def _note(self, request):
        self.requests += 1
        self.backend._add_request(request)
        return request

    def read_head(self):
        """The head of the next request, without waiting for its body."""
        return self._note(self.reader.request_head())

    def read_body(self, request):
        return self.reader.request_body(request)

    def read_request(self):
        return self._note(self.reader.request())

    def send(self, data):
        self.socket.sendall(data)
        return self

    def serve(self):
        """Answers whatever else comes, as connections without a script do, until the gateway ends it."""
        self.socket.settimeout(None)  # the gateway may keep an idle connection as long as it likes
        try:
            while True:
                request = self.read_request()
                self.send(self.backend.answer(request))
        except (Ended, BrokenPipeError, ConnectionResetError):
            pass  # what it means that the gateway ended the connection is for the test to say

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()

    def close_notify(self):
        """With TLS: says that nothing more comes, in an orderly way. close() and half_close() do not say it."""
        with contextlib.suppress(OSError):  # the gateway may be gone
            self.socket.unwrap()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def end(self):
        """Ends the connection from the test's side, while the script may be waiting for bytes."""
        self.socket.shutdown(socket.SHUT_RDWR)

    def drain(self):
        """Reads until the gateway ends the connection, in whatever way; returns what came before that."""
        try:
            return self.reader.until_end()
        except Ended as end:
            return end.rest

    def expect_end(self):
        """The gateway ends the connection and sends nothing more before that."""
        rest = self.drain()
        assert rest == b"", f"unexpected bytes: {rest[:200]!r}"


class Backend:
    def __init__(self, path=None, backlog=128, tls=None):
        """Listens on 127.0.0.1, or on the unix socket `path`. `tls`: an ssl.SSLContext; connections whose handshake
        fails run no script, their failures are in handshake_failures."""
        if path:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(path))
            self.address = f"unix:{path}"
        else:
            self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._listener.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self._listener.listen(backlog)
        self.answer = lambda request: answer()
        self.tls = tls
        self.handshake_failures = []
        self.requests = []  # in the order in which their heads came
        self.connections = []
        self.problems = []
        self._scripts = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    # --- for tests

    def script(self, *functions):
        """Each of the next new connections runs one of these, in order; later ones answer as usual again."""
        self._scripts.extend(functions)
        return self

    def gate(self):
        return Gate()

    def hold(self, then=Connection.expect_end):
        """The next new connection takes a request and answers it when the gate that is returned is opened."""
        gate = Gate()

        def script(c):
            c.read_request()
            gate.wait()
            c.send(answer())
            then(c)

        self.script(script)
        return gate

    def wait_requests(self, n):
        """Waits until `n` request heads have come in all; returns all of them."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: len(self.requests) >= n, DEADLINE_S
            ), f"the backend got {len(self.requests)} requests, not {n}"
            return list(self.requests)

    def wait_open(self, n):
        """Waits until exactly `n` connections are open."""
        wait_for(lambda: self.open_connections() == n, lambda: f"{self.open_connections()} connections, not {n}")

    def open_connections(self):
        return sum(c.socket.fileno() >= 0 for c in list(self.connections))

    @property
    def last(self):
        return self.requests[-1]

    def close(self):
        """Stops listening and cuts every connection."""
        self._closed = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for connection in list(self.connections):
            try:
                connection.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in [self._accepting, *self._threads]:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "a backend script does not end"

    # --- inside

    def _add_request(self, request):
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(DEADLINE_S)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain = None if self.tls else self._take_script(sock)
            thread = threading.Thread(target=self._run, args=(sock, plain), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _take_script(self, sock):
        script = self._scripts.popleft() if self._scripts else Connection.serve
        connection = Connection(self, sock)
        self.connections.append(connection)
        return script, connection

    def _secure(self, sock):
        """As _take_script(), once TLS is spoken."""
        try:
            return self._take_script(self.tls.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False))
        except OSError as failure:
            self.handshake_failures.append(failure)
            sock.close()
            return None

    def _run(self, sock, plain):
        taken = plain or self._secure(sock)
        if not taken:
            return
        script, connection = taken
        try:
            script(connection)
        except Exception:
            if not self._closed:
                self.problems.append(traceback.format_exc())
        finally:
            connection.close()
