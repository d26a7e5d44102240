"""Which connections to the backend serve again.

Goal: what is known to be over, or to say more than it was asked, serves nobody else: neither is a request lost on it that
a new connection would have served, nor are its bytes another request's answer.

Method: the next request waits already when the answer before it ends: in the queue for the pool, or behind it on the
client's connection. So the connection would be used again in the same moment, before its end or its bytes are read. The
gateway is stopped (SIGSTOP) while the backend speaks, so that all of it waits in the kernel.
"""

import contextlib
import signal
import ssl

import pytest

from support.backend import answer
from support.client import request
from support.expect import is_passed
from support.tls_upstream import NAME, serving

pytest_plugins = ["support.tls", "support.tls_upstream"]


def in_the_queue(gateway, partner):
    """Two requests of two clients, for one connection to the backend; returns what reads their answers."""
    first, second = gateway.client(), gateway.client()
    first.send(request("POST", "/widget/first", fields=partner.authorization))
    gateway.wait_metric("proofgw_exchanges_active", 1)
    second.send(request("POST", "/widget/second", fields=partner.authorization))
    gateway.wait_metric("proofgw_exchanges_active", 2)
    return [first, second]


def pipelined(gateway, partner):
    """Two requests of one client."""
    client = gateway.client()
    for target in ("/widget/first", "/widget/second"):
        client.send(request("POST", target, fields=partner.authorization))
    gateway.wait_metric("proofgw_exchanges_active", 1)
    return [client, client]


NEXT = pytest.mark.parametrize("waits", [in_the_queue, pipelined])


def ends(how, gate, ended):
    """Answers one request and ends the connection at once, without having said so in the answer."""

    def script(c):
        c.read_request()
        gate.wait()
        c.send(answer())
        getattr(c, how)()
        ended.open()
        if how == "half_close":
            c.expect_end()

    return script


def answers_both(gateway, backend, clients, gate, ended):
    backend.wait_requests(1)
    gateway.signal(signal.SIGSTOP)
    gate.open()
    ended.wait()
    gateway.signal(signal.SIGCONT)
    for client in clients:
        is_passed(client.response("POST"))
    assert [r.target for r in backend.requests] == ["/widget/first", "/widget/second"]
    assert len(backend.connections) == 2


@NEXT
@pytest.mark.parametrize("how", ["half_close", "close", "reset"])
def test_an_end_behind_the_answer(proofgw, backend, partner, waits, how):
    gateway = proofgw(limits={"upstream_connections": 1})
    gate, ended = backend.gate(), backend.gate()
    backend.script(ends(how, gate, ended))
    answers_both(gateway, backend, waits(gateway, partner), gate, ended)


class ByHand:
    """The backend's side of TLS over a plain connection, so that its records may be sent in pieces."""

    def __init__(self, connection, context):
        self.socket = connection.socket
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_side=True)
        self._do(self._tls.do_handshake)

    def _do(self, step):
        while True:
            try:
                done = step()
                self.socket.sendall(self._leaving.read())
                return done
            except ssl.SSLWantReadError:
                self.socket.sendall(self._leaving.read())
                arrived = self.socket.recv(65536)
                if not arrived:
                    return b""
                self._arrived.write(arrived)

    def read_request(self):
        """The bytes of a request without a body; none when the gateway ends the connection instead."""
        got, more = b"", b"more"
        while more and b"\r\n\r\n" not in got:
            try:
                more = self._do(lambda: self._tls.read(65536))
            except ssl.SSLZeroReturnError:  # close_notify
                more = b""
            got += more
        return got

    def seal(self, data):
        self._tls.write(data)
        return self._leaving.read()

    def goodbye(self):
        with contextlib.suppress(ssl.SSLWantReadError):  # the gateway's
            self._tls.unwrap()
        return self._leaving.read()


BEHIND = {  # what comes together with the answer, and what when the next request has been sent
    "part of a record": lambda tls: (lambda poison: (poison[:100], poison[100:]))(tls.seal(answer(body=b"poison" * 200))),
    "close_notify": lambda tls: (tls.goodbye(), b""),
}


@NEXT
@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
def test_behind_the_answer_in_tls(to_backend, backend, authority, partner, waits, behind):
    context = serving(authority.leaf(NAME))
    gateway = to_backend(backend, server_name=NAME, listener={"limits": {"upstream_connections": 1}})
    gate, asked = backend.gate(), []

    def first(c):
        tls = ByHand(c, context)
        asked.append(tls.read_request())
        gate.wait()
        whole = tls.seal(answer())
        now, later = behind(tls)
        c.send(whole + now)
        if tls.read_request():
            c.send(later)
        c.drain()

    def second(c):
        tls = ByHand(c, context)
        asked.append(tls.read_request())
        c.send(tls.seal(answer()))
        c.drain()

    backend.script(first, second)
    clients = waits(gateway, partner)
    gate.open()
    for client in clients:
        is_passed(client.response("POST"))
    assert [data.split()[1] for data in asked] == [b"/widget/first", b"/widget/second"]
