"""Both ends of one WebSocket tunnel in the test's hand."""

import hashlib

import pytest

from support.payload import MIB
from support.takeover import takeover
from support.wait import DEADLINE_S
from support.websocket import accepting, upgrade

MASK = b"\x12\x34\x56\x78"


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
