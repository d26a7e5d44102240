"""Backends that fail, for the tests of what the gateway makes of it."""

from support.client import request
from support.expect import is_passed

HEAD_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def announced(framing, partner):
    """The head of a POST whose body follows; `framing`: the field line that announces it."""
    lines = request("POST", fields=f"{partner.authorization}{framing}\r\n")
    return lines.replace(b"Content-Length: 0\r\n", b"")


def recovers(gateway, backend, partner, client=None):
    """The next request gets its own answer, on a connection of its own."""
    before = len(backend.connections)
    client = client or gateway.client()
    is_passed(client.exchange(target="/widget/next", fields=partner.authorization))
    assert backend.last.target == "/widget/next"
    assert len(backend.connections) == before + 1
