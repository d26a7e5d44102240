"""Answers whose body goes from the backend's socket to the client's inside the kernel (limits.splice).

Goal: whoever looks at the bytes, the access log or the connections cannot tell the difference, whatever goes wrong meanwhile.

Method: the head is answered first and has arrived before the body is sent, so that all of the body is still to come. That it was
spliced is seen by the pipe that the worker has from then on.
"""

import contextlib
import os
import signal
import socket
from pathlib import Path

import pytest

from support.backend import chunked
from support.client import request
from support.expect import is_passed
from support.http1 import Ended
from support.payload import MIB, pattern
from support.wait import wait_for

FROM = 64 * 1024  # the default of limits.splice
BUFFER = 256 * 1024  # the default of limits.buffer, and the most that goes at once


def pipes(gateway):
    found = set()
    for fd in Path(f"/proc/{gateway.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            found.add(os.readlink(fd))
    return sum(link.startswith("pipe:") for link in found)


def has_spliced(gateway):
    """A worker has made its pipe."""
    return pipes(gateway) > gateway.pipes


@pytest.fixture
def started(proofgw):
    """proofgw() that knows how many pipes there were before any request."""

    def start(**changes):
        gateway = proofgw(**changes)
        gateway.pipes = pipes(gateway)
        return gateway

    return start


def head(length, more=""):
    return f"HTTP/1.1 200 OK\r\n{more}Content-Length: {length}\r\n\r\n".encode()


def in_two(backend, length, body, then="serve"):
    """A script: the head of one answer; after the gate its body; then the rest of the connection's life."""
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(head(length))
        gate.wait()
        c.send(body)
        getattr(c, then)()

    backend.script(script)
    return gate


def begin(gateway, gate, partner):
    """A client that has the head; the gate is open."""
    client = gateway.client()
    client.send(request(fields=partner.authorization))
    got = client.reader.response_head()
    gate.open()
    return client, got


@pytest.mark.parametrize(
    "length, spliced",
    [(FROM - 1, False), (FROM, True), (FROM + 1, True), (BUFFER, True), (BUFFER + 1, True), (3 * MIB + 17, True)],
)
def test_the_body_is_whole_and_both_connections_go_on(started, backend, partner, length, spliced):
    gateway = started()
    client, got = begin(gateway, in_two(backend, length, pattern(length)), partner)
    assert client.reader.exactly(length) == pattern(length)
    line = gateway.line_of(got)
    assert (line["status"], line["end"]) == (200, "ok/done")
    assert line["bytes_out"] > length
    assert has_spliced(gateway) == spliced
    is_passed(client.exchange(fields=partner.authorization))
    assert len(backend.connections) == 1


def test_bytes_out_is_what_the_client_got(started, backend, partner):
    gateway = started()
    client, got = begin(gateway, in_two(backend, MIB, pattern(MIB)), partner)
    assert client.reader.exactly(MIB) == pattern(MIB)
    assert gateway.line_of(got)["bytes_out"] == MIB + len(got.raw_head)


@pytest.mark.parametrize("live", [False, True], ids=["from the start", "by a reload"])
def test_it_can_be_switched_off(started, backend, partner, live):
    gateway = started(limits={} if live else {"splice": 0})
    if live:
        gateway.reload(limits={"splice": 0})
    client, _ = begin(gateway, in_two(backend, MIB, pattern(MIB)), partner)
    assert client.reader.exactly(MIB) == pattern(MIB)
    assert not has_spliced(gateway)


def test_chunks_are_looked_at(started, backend, partner):
    gateway = started()
    backend.answer = lambda _: chunked(pattern(MIB), pattern(MIB))
    is_passed(gateway.client().exchange(fields=partner.authorization), body=pattern(MIB) * 2)
    assert not has_spliced(gateway)


def test_a_slow_reader_gets_everything(started, backend, partner):
    """What its socket does not take waits in memory, and the backend is read again when it is gone."""
    length = 16 * MIB
    gateway = started()
    client = gateway.client()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    gate = in_two(backend, length, pattern(length))
    client.send(request(fields=partner.authorization))
    client.reader.response_head()
    gate.open()
    wait_for(lambda: has_spliced(gateway), "nothing was spliced")
    assert client.reader.exactly(length) == pattern(length)
    is_passed(client.exchange(fields=partner.authorization))


@pytest.mark.parametrize("then", ["close", "reset"])
def test_the_backend_ends_in_the_middle(started, backend, partner, then):
    """The client must not take it for complete."""
    gateway = started()
    client, got = begin(gateway, in_two(backend, MIB, pattern(MIB // 2), then=then), partner)
    with pytest.raises(Ended):
        client.reader.exactly(MIB)
    line = gateway.line_of(got)
    assert line["end"] == "backend/response_body"
    is_passed(gateway.client().exchange(fields=partner.authorization))


def test_a_client_that_resets_leaves_nothing_to_the_next(started, backend, partner):
    gateway = started()
    length = 16 * MIB
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(head(length))
        gate.wait()
        try:
            c.send(pattern(length))
        except (BrokenPipeError, ConnectionResetError):
            pass

    backend.script(script)
    client, got = begin(gateway, gate, partner)
    wait_for(lambda: has_spliced(gateway), "nothing was spliced")
    client.reset()
    assert gateway.line_of(got)["end"].startswith("client/")
    other, _ = begin(gateway, in_two(backend, MIB, pattern(MIB)[::-1]), partner)
    assert other.reader.exactly(MIB) == pattern(MIB)[::-1]


def test_bytes_behind_the_body_are_nobodys(started, backend, partner):
    """Not even that of the next request, which waits already: they and the body are there when the gateway reads."""
    length = 20_000  # a receive buffer holds it
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    gateway = started(limits={"splice": "16KiB"})
    gate, sent = backend.gate(), backend.gate()

    def script(c):
        c.read_request()
        c.send(head(length))
        gate.wait()
        c.send(pattern(length) + poison)
        sent.open()
        c.drain()

    backend.script(script)
    client = gateway.client()
    client.send(request(fields=partner.authorization) * 2)
    client.reader.response_head()
    gateway.signal(signal.SIGSTOP)
    gate.open()
    sent.wait()
    gateway.signal(signal.SIGCONT)
    assert client.reader.exactly(length) == pattern(length)
    is_passed(client.response())
    assert has_spliced(gateway)
    (event,) = gateway.wait_event("upstream_unexpected_bytes")
    assert event["bytes"] == str(len(poison))
    assert gateway.metrics()("proofgw_upstream_unexpected_bytes_total", env="production") == len(poison)
    assert len(backend.connections) == 2


def test_many_at_once(started, backend, partner):
    """Workers' pipes do not mix what different backends send at the same time."""
    gateway = started(workers=2)
    lengths = [FROM + 40_000 * i for i in range(24)]
    gates = []
    for length in lengths:
        body = bytes([65 + len(gates)]) * length
        gates.append((in_two(backend, length, body), length))
        client = gateway.client()
        client.send(request(fields=partner.authorization))
        client.reader.response_head()
        gates[-1] += (client, body)
    for gate, *_ in gates:
        gate.open()
    for _, length, client, body in gates:
        assert client.reader.exactly(length) == body
