"""Backends that fail, for the tests of what the gateway makes of it."""

from support.client import request
from support.expect import is_error, is_passed
from support.wait import wait_for

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


def is_unavailable(got):
    is_error(got, "upstream_unavailable", closes=False)


def is_sampled(gateway, partner, event, is_answer=is_unavailable):
    """The lines of a backend that fails each request of one worker: the second one counts what was not written since the
    first. Returns how many requests there were."""
    client, asked = gateway.client(), []

    def lines():
        got = client.exchange(fields=partner.authorization)
        is_answer(got)
        asked.append(got["x-request-id"])
        return len(gateway.events(event)) > 1 and gateway.events(event)

    first, second = wait_for(lines, gateway.ops_text)
    between = asked.index(second["request_id"]) - asked.index(first["request_id"]) - 1
    assert (first["unlogged"], second["unlogged"]) == ("0", str(between)) and between > 0
    return len(asked)
