"""TLS to the backend: truncation, sessions, kept connections, and tunnels."""

import contextlib
import hashlib
import threading

import pytest

from support.backend import answer, chunked
from support.client import request
from support.expect import is_passed
from support.http1 import Ended
from support.payload import MIB
from support.tls import RECORD, connect, tls_listener
from support.tls_upstream import NAME, VERSIONS, serving
from support.wait import wait_for
from support.websocket import BINARY, CLOSE, accepting, frame, read_frame, upgrade

pytest_plugins = ["support.tls", "support.tls_upstream"]

MASK = b"\1\2\3\4"


# --- what it sends -----------------------------------------------------------------------------------------------


@pytest.fixture
def secure(to_backend, backends, authority):
    """A gateway and its good backend."""
    backend = backends(tls=serving(authority.leaf(NAME)))
    return to_backend(backend, server_name=NAME), backend


HALF = {
    "close-delimited": b"HTTP/1.1 200 OK\r\n\r\n" + b"half of " * 100,
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
}


@pytest.mark.parametrize("framing", HALF)
@pytest.mark.parametrize("how", ["fin", "close_notify", "reset"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_is_cut_off(secure, partner, framing, how, version):
    """The client must not take it for whole. Only close_notify is an end, and only where the end has no other mark."""
    gateway, backend = secure
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(HALF[framing])
        gate.wait()
        if how == "close_notify":
            c.close_notify()
        c.reset() if how == "reset" else c.close()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization, version=version))
    head = client.reader.response_head()
    gate.open()
    if framing == "close-delimited" and how == "close_notify":
        client.reader.response_body(head)
        assert head.body == b"half of " * 100
        assert gateway.wait_access(1)[0]["end"] == "ok/done"
        return
    with pytest.raises(Ended) as end:
        client.reader.response_body(head)
    assert end.value.reset or head.framing != "close"
    assert gateway.wait_access(1)[0]["end"] == "backend/response_body"


def test_a_head_that_is_cut_off(secure, partner):
    gateway, backend = secure
    backend.script(*[lambda c: (c.read_request(), c.send(b"HTTP/1.1 200 OK\r\nContent-"), c.close())] * 2)
    got = gateway.client().exchange(fields=partner.authorization)
    assert got.status == 502


def test_whole_answers_before_truncation(secure, partner):
    """The length says where the end is; that there was no close_notify behind it does not matter."""
    gateway, backend = secure
    backend.script(lambda c: (c.read_request(), c.send(answer(fields="Connection: close\r\n")), c.close()))
    is_passed(gateway.client().exchange(fields=partner.authorization))
    is_passed(gateway.client().exchange(fields=partner.authorization))
    assert [line["end"] for line in gateway.wait_access(2)] == ["ok/done"] * 2


@pytest.mark.parametrize("size", [0, 1, RECORD - 1, RECORD, RECORD + 1, 262145, 3 * MIB])
def test_bodies(secure, partner, size):
    gateway, backend = secure
    body = b"".join(b"%031d\n" % i for i in range(size // 32 + 1))[:size]
    backend.answer = lambda r: answer(body=r.body)
    client = gateway.client()
    is_passed(client.exchange("POST", fields=partner.authorization, body=body), body=body)
    backend.answer = lambda r: chunked(*([r.body] if r.body else []))
    is_passed(client.exchange("POST", fields=partner.authorization, body=body), body=body)
    assert len(backend.connections) == 1


def test_a_client_that_reads_slowly(secure, partner):
    gateway, backend = secure
    body = b"".join(b"%031d\n" % i for i in range(MIB // 32)) * 32
    backend.answer = lambda r: answer(body=body)
    before = gateway.metrics()["process_resident_memory_bytes"]
    client = gateway.client().send(request(fields=partner.authorization))
    head = client.reader.response_head()
    seen = []

    def is_still(value):
        seen.append(value)
        return len(seen) > 1 and seen[-2] == value

    gateway.wait_metric("proofgw_client_bytes_sent_total", is_still)
    assert gateway.metrics()["process_resident_memory_bytes"] - before < 16 * MIB
    client.reader.response_body(head)
    assert hashlib.sha256(head.body).digest() == hashlib.sha256(body).digest()


# --- again -------------------------------------------------------------------------------------------------------


def test_connections_are_kept(secure, partner):
    gateway, backend = secure
    for _ in range(20):
        is_passed(gateway.client().exchange(fields=partner.authorization))
    assert len(backend.connections) == 1
    metrics = gateway.metrics()
    assert metrics("proofgw_upstream_reuses_total", env="production") == 19
    assert metrics("proofgw_upstream_tls_handshakes_total", env="production") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_resume(to_backend, backends, authority, partner, version):
    backend = backends(tls=serving(authority.leaf(NAME), version))
    gateway = to_backend(backend, server_name=NAME)
    for n in range(4):
        backend.script(lambda c: (c.read_request(), c.send(answer(fields="Connection: close\r\n")), c.close_notify()))
        is_passed(gateway.client().exchange(fields=partner.authorization))
    assert [c.socket.session_reused for c in backend.connections][1:] == [True] * 3 or backend.tls.session_stats()["hits"] == 3
    metrics = gateway.metrics()
    assert metrics("proofgw_upstream_tls_handshakes_total", env="production", resumed="true") == 3
    assert metrics("proofgw_upstream_tls_handshakes_total", env="production", resumed="false") == 1


@pytest.mark.parametrize("how", ["close_notify", "close", "reset"])
def test_a_kept_connection_that_ends(secure, partner, how):
    """While it is idle: the next request goes on a new one, and nobody notices."""
    gateway, backend = secure
    ended = backend.gate()

    def script(c):
        c.read_request()
        c.send(answer())
        wait_for(lambda: gateway.access(), "the answer")
        if how == "close_notify":
            c.close_notify()
        c.reset() if how == "reset" else c.close()
        ended.open()

    backend.script(script)
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    ended.wait()
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    is_passed(client.exchange(fields=partner.authorization))


def test_many_at_once(secure, partner):
    gateway, backend = secure
    failures = []

    def one():
        client = gateway.client()
        try:
            for _ in range(20):
                is_passed(client.exchange(fields=partner.authorization))
        except AssertionError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(backend.requests) == 200
    assert len(backend.connections) <= 10


# --- tunnels -----------------------------------------------------------------------------------------------------


def echo_frames(c):
    """The backend of a tunnel that sends back what it gets."""
    sent = c.read_head()
    c.send(accepting(sent))
    with contextlib.suppress(Ended):
        while True:
            if not c.reader.buffer:
                c.reader.more()
            data = bytes(c.reader.buffer)
            c.reader.buffer.clear()
            c.send(data)


@pytest.mark.parametrize("both", [False, True], ids=["tls to the backend", "tls on both sides"])
def test_tunnels(to_backend, backends, authority, partner, both):
    backend = backends(tls=serving(authority.leaf(NAME)))
    listener = {}
    if both:
        pair = authority.leaf("api.test")
        listener = {"listeners": [tls_listener()], "tls": {"certificates": [pair.config]}}
    gateway = to_backend(backend, server_name=NAME, listener=listener)
    gateway.authority = authority
    backend.script(echo_frames)
    client = connect(gateway) if both else gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    for size in (1, 125, 126, RECORD, 65536, MIB):
        data = frame(BINARY, b"x" * size, MASK)
        sending = threading.Thread(target=client.send, args=(data,))
        sending.start()
        assert client.reader.exactly(len(data)) == data
        sending.join()
    client.half_close()
    gateway.wait_access(1, "tunnel_close")


@pytest.mark.parametrize("how", ["close_notify", "fin"])
def test_the_last_frames_of_a_tunnel_arrive(secure, partner, how):
    """Many servers close without close_notify once the WebSocket has said its goodbye: nothing of that may get lost."""
    gateway, backend = secure
    last = frame(BINARY, b"x" * 300000) + frame(CLOSE, b"\x03\xe8")

    def script(c):
        c.send(accepting(c.read_head()) + last)
        if how == "close_notify":
            c.close_notify()
        c.close()

    backend.script(script)
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    assert client.reader.exactly(len(last)) == last
    client.half_close().expect_close()


@pytest.mark.parametrize("how", ["close_notify", "fin", "reset"])
def test_tunnels_that_the_backend_leaves(secure, partner, how):
    gateway, backend = secure
    gate = backend.gate()

    def script(c):
        c.send(accepting(c.read_head()) + frame(BINARY, b"last words"))
        gate.wait()
        if how == "close_notify":
            c.close_notify()
        c.reset() if how == "reset" else c.close()

    backend.script(script)
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    assert read_frame(client.reader) == (True, BINARY, b"last words")
    gate.open()
    with contextlib.suppress(Ended):
        client.reader.until_end()
    client.close()
    assert gateway.wait_access(1, "tunnel_close")[0]["end"] == "backend/tunnel"
