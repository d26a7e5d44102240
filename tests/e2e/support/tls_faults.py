"""TLS connections that go wrong."""

import ssl

from support.client import Client
from support.http1 import Reader
from support.tls import connect
from support.websocket import BINARY, TEXT, frame, read_frame, upgrade

MASK = b"\1\2\3\4"
ECHO = "/ws?tx_id=1&echo=1&interval_ms=0"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def half_open(gateway, **options):
    """A connection, and its ClientHello, not sent."""
    client = connect(gateway, handshake=False, **options)
    return client, client.first_flight()


def without_tls(client):
    """The same connection as a plain Client, for what comes past TLS."""
    bare = Client.__new__(Client)
    bare.socket, bare.reader = client.socket, Reader(lambda: Client._receive(bare))
    return bare


def open_tunnel(gateway, partner, **options):
    client = connect(gateway, **options)
    got = client.ask(upgrade(partner, ECHO))
    assert got.status == 101, got.raw_head
    return client


def echo(client, payload):
    client.send(frame(BINARY, payload, MASK))
    opcode = TEXT
    while opcode == TEXT:
        _, opcode, got = read_frame(client.reader)
    assert (opcode, got) == (BINARY, payload)
