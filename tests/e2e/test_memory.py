"""Allocations that fail.

Goal: the gateway survives every allocation failure of its own code on the request path: it answers 503 or ends that one connection, leaks nothing,
crashes never, and is as good as new when memory is back.
Method: the executable proofgw-faults (tests/faults/fail_malloc.c) lets each Nth allocation fail while switched on by SIGRTMIN. Requests of all
kinds run meanwhile; what they get is not judged, only that each ends. Sanitizers watch.
"""

import os
import signal

import pytest

from support import gateway as gateway_module
from support.http1 import Ended
from support.partners import Partner
from support.wait import wait_for
from support.websocket import BINARY as BINARY_FRAME
from support.websocket import frame, read_frame, upgrade

MASK = b"\x00\x00\x00\x01"
ROUNDS = 12


@pytest.fixture
def faults(monkeypatch, proofgw, demo):
    """A factory of gateways in which each Nth allocation fails while it is switched on."""
    binary = gateway_module.BINARY.with_name("proofgw-faults")
    assert os.access(binary, os.X_OK), f"{binary} does not exist"
    monkeypatch.setattr(gateway_module, "BINARY", binary)

    def make(every, **kwargs):
        monkeypatch.setenv("GW_FAIL_EVERY", str(every))
        return proofgw(upstream=demo.address, **kwargs)

    return make


def get(client, partner):
    return client.exchange(fields=partner.authorization)


def post_in_pieces(client, partner):
    body = b'{"merchant_transaction_id":"m"}' * 50
    head = f"POST /widget/session HTTP/1.1\r\nHost: api.test\r\n{partner.authorization}Content-Length: {len(body)}\r\n\r\n"
    for piece in (head[:40].encode(), head[40:].encode(), body[:100], body[100:]):
        client.send(piece)
    return client.response("POST")


def large(client, partner):
    return client.exchange(target="/widget/chunked/300000/1000", fields=partner.authorization)


def refused(client, partner):
    return client.exchange(fields="Authorization: Bearer " + "x" * 40 + "\r\n")


def tunnel(client, partner):
    answer = client.ask(upgrade(partner, "/ws?tx_id=1&echo=1"))
    if answer.status == 101:
        client.send(frame(BINARY_FRAME, b"y" * 5000, MASK))
        while read_frame(client.reader)[1] != BINARY_FRAME:
            pass
    return answer


KINDS = [get, post_in_pieces, large, refused, tunnel]


def attempt(gateway, kind, partner):
    """One try on a connection of its own. Whatever the gateway does, it must do it: a hang fails the test."""
    client = gateway.client()
    try:
        kind(client, partner)
    except (Ended, OSError):
        pass  # it ended the connection: that is a way to refuse
    finally:
        client.close()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("every", [1, 2, 3, 5, 11])
def test_allocations_fail_on_the_request_path(faults, partner, every, workers):
    gateway = faults(every, workers=workers)
    assert get(gateway.client(), partner).status == 200
    gateway.signal(signal.SIGRTMIN)
    for _ in range(ROUNDS):
        for kind in KINDS:
            attempt(gateway, kind, partner)
    gateway.signal(signal.SIGRTMIN)
    gateway.wait_metric("proofgw_exchanges_active", 0)
    metrics = gateway.metrics()
    hits = metrics("proofgw_limits_hit_total", limit="memory") + metrics("proofgw_connections_refused_total")
    assert hits > 0, "no allocation failed: the test tests nothing"
    for kind in KINDS:
        answer = kind(gateway.client(), partner)
        assert answer.status == {refused: 401, tunnel: 101, post_in_pieces: 201}.get(kind, 200), kind


@pytest.mark.parametrize("every", [1, 3, 10])
def test_allocations_fail_while_partners_change(faults, partner, every):
    """A load that fails changes nothing; the next one that has memory counts."""
    gateway = faults(every)
    client = gateway.client()
    assert get(client, partner).status == 200
    newcomer = Partner("newcomer")
    gateway.signal(signal.SIGRTMIN)
    gateway.write_partners([partner, newcomer])
    for _ in range(20):
        gateway.signal(signal.SIGHUP)
        attempt(gateway, get, partner)
    gateway.signal(signal.SIGRTMIN)
    gateway.signal(signal.SIGHUP)
    gateway.wait_metric("proofgw_policy_partners", 2)
    assert get(gateway.client(), newcomer).status == 200
    assert get(gateway.client(), partner).status == 200


@pytest.mark.parametrize("every", [1, 2, 3, 5, 11, 47])
def test_allocations_fail_while_the_configuration_changes(faults, partner, every):
    """A reload has all of its memory or changes nothing; the next one that has memory counts."""
    gateway = faults(every, workers=2, reload_on_change=False)
    client = gateway.client()
    assert get(client, partner).status == 200
    extra = {"address": "unix:extra.sock"}
    first = gateway.config["listeners"][0]
    gateway.signal(signal.SIGRTMIN)
    for i in range(30):
        gateway.configure(limits={"body": 1000 + i}, listeners=[first, extra] if i % 2 else [first])
        gateway.signal(signal.SIGHUP)
        attempt(gateway, get, partner)
    gateway.signal(signal.SIGRTMIN)
    gateway.reload(limits={"header_count": 8}, listeners=[first])
    scrape = gateway.metrics()
    assert scrape("proofgw_config_reloads_total", result="failed") > 0, "no allocation failed: the test tests nothing"
    fields = partner.authorization + "".join(f"X-{i}: 1\r\n" for i in range(9))
    # An earlier reload may have been going on still, and have been the one that was seen.
    wait_for(lambda: gateway.client().exchange(fields=fields).status == 431, "the last configuration")
    assert get(gateway.client(), partner).status == 200
