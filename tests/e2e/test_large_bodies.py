"""Large bodies, and sides that do not read: what arrives is whole, and the gateway's memory does not grow with it."""

import hashlib
import socket
import threading

import pytest

import support.gateway
from support.backend import answer, chunk
from support.client import request
from support.expect import is_passed
from support.faults import HEAD_CHUNKED, announced
from support.payload import MIB, PLENTY, digest_of, pattern
from support.wait import DEADLINE_S

LARGE = 2 * PLENTY


@pytest.fixture(params=["bytes", "memory"])
def peak(request, monkeypatch):
    """Peak memory of the gateway in bytes. A sanitizer multiplies it: so the tests run once as everything does, for the
    bytes, and once in the release build, for the memory."""
    is_measured = request.param == "memory"
    if is_measured:
        monkeypatch.setattr(support.gateway, "BINARY", support.gateway.release_binary())

    def measure(gateway):
        if not is_measured:
            return 0
        status = open(f"/proc/{gateway.process.pid}/status").read()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024

    return measure


def taken(reader, sock, size):
    """Takes `size` bytes from a reader and its socket; returns their digest."""
    digest = hashlib.sha256(reader.buffer)
    size -= len(reader.buffer)
    reader.buffer.clear()
    while size > 0:
        data = sock.recv(65536)
        assert data, f"the end came {size} bytes early"
        digest.update(data)
        size -= len(data)
    assert size == 0
    return digest.digest()


def stalls(sock, size):
    """Sends until the other side has not taken anything for half a second; returns the bytes that it has taken."""
    sock.settimeout(0.5)
    data, sent = pattern(MIB), 0
    try:
        while sent < size:
            sent += sock.send(data[sent % MIB :])
    except TimeoutError:
        pass
    sock.settimeout(DEADLINE_S)
    return sent


def resumed(sock, sent, size):
    """The rest after stalls()."""
    data = pattern(MIB)
    while sent < size:
        sent += sock.send(data[sent % MIB :])


def test_a_large_answer_to_a_slow_reader(proofgw, backend, partner, peak):
    """The backend is stopped while the client does not read: kernel buffers fill, the gateway's memory does not. Then
    every byte arrives, in order."""
    gateway = proofgw(timeouts={"client_write": "60s", "upstream_idle": "60s"})
    is_passed(gateway.client().exchange(fields=partner.authorization))
    before = peak(gateway)
    stalled, gate = backend.gate(), backend.gate()
    took = []

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % LARGE)
        took.append(stalls(c.socket, LARGE))
        stalled.open()
        gate.wait()
        resumed(c.socket, took[0], LARGE)
        c.expect_end()

    backend.script(script)
    backend.connections[0].end()
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    client = gateway.client()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.send(request(fields=partner.authorization))
    stalled.wait()
    assert took[0] < LARGE // 2, "the backend was not stopped"
    assert peak(gateway) - before < 4 * MIB
    gate.open()
    head = client.reader.response_head()
    assert head["content-length"] == str(LARGE)
    assert taken(client.reader, client.socket, LARGE) == digest_of(LARGE)
    assert peak(gateway) - before < 4 * MIB


def test_a_large_request_to_a_slow_reader(proofgw, backend, partner, peak):
    """The same the other way round."""
    gateway = proofgw(limits={"body": "1GiB"}, timeouts={"upstream_idle": "60s", "request_body": "60s"})
    is_passed(gateway.client().exchange(fields=partner.authorization))
    before = peak(gateway)
    gate = backend.gate()
    seen = []

    def script(c):
        c.read_head()
        gate.wait()
        seen.append(taken(c.reader, c.socket, LARGE))
        c.send(answer())
        c.expect_end()

    backend.script(script)
    backend.connections[0].end()
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    client = gateway.client()
    client.send(announced(f"Content-Length: {LARGE}", partner))
    took = stalls(client.socket, LARGE)
    assert took < LARGE // 2, "the client was not stopped"
    assert peak(gateway) - before < 4 * MIB
    gate.open()
    resumed(client.socket, took, LARGE)
    is_passed(client.response("POST"))
    assert seen == [digest_of(LARGE)]
    assert peak(gateway) - before < 4 * MIB


def test_large_bodies_both_ways_at_once(proofgw, backend, partner):
    """The backend answers while it reads: 16 MiB each way, chunked, through one exchange."""
    size = 16 * MIB
    gateway = proofgw(limits={"body": "1GiB"})
    data = pattern(MIB)
    seen = []

    def pour(to):
        for _ in range(size // MIB):
            to.send(chunk(data))

    def script(c):
        sent = c.read_head()
        c.send(HEAD_CHUNKED)
        pouring = threading.Thread(target=pour, args=(c,))
        pouring.start()
        seen.append(c.read_body(sent).body)
        pouring.join()
        c.send(b"0\r\n\r\n")  # an answer that ends before the request would end the connection
        c.serve()

    backend.script(script)
    client = gateway.client()
    client.send(announced("Transfer-Encoding: chunked", partner))
    sender = threading.Thread(target=lambda: (pour(client), client.send(b"0\r\n\r\n")))
    sender.start()
    got = client.response("POST")
    sender.join()
    assert hashlib.sha256(got.body).digest() == digest_of(size)
    assert hashlib.sha256(seen[0]).digest() == digest_of(size)
    assert got["connection"] == "close"
    client.expect_close()
    is_passed(gateway.client().exchange(fields=partner.authorization))
    assert len(backend.connections) == 1
