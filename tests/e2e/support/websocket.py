"""The opening handshake of a WebSocket and single frames, by hand: for tests that need exact bytes."""

import base64
import hashlib
import os

from support.client import request

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
WS_FIELDS = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def upgrade(partner, target="/ws?tx_id=1", fields="", **kwargs):
    """The bytes of an upgrade request."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\n{fields}{partner.authorization}"
    )
    return request(target=target, fields=lines, **kwargs)


def accepting(sent, fields=""):
    """The 101 for an upgrade request."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_of(sent['sec-websocket-key'])}\r\n{fields}\r\n"
    ).encode()


def frame(opcode, payload=b"", mask=None, fin=True):
    """One frame; `mask`: four bytes, as a client sends it."""
    head = bytes([(0x80 if fin else 0) | opcode])
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + len(payload).to_bytes(8, "big")
    if not mask:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def read_frame(reader):
    """(fin, opcode, payload) of the next frame, which must not be masked: what a server sends."""
    first, second = reader.exactly(2)
    assert not second & 0x80, "a masked frame towards the client"
    size = second & 0x7F
    if size >= 126:
        size = int.from_bytes(reader.exactly(2 if size == 126 else 8), "big")
    return bool(first & 0x80), first & 0x0F, reader.exactly(size)
