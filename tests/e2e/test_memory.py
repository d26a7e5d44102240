"""Allocations that fail.

Goal: the gateway survives every allocation failure of its own code on the request path: it answers 503 or ends that one connection, leaks nothing,
crashes never, and is as good as new when memory is back.
Method: the executable proofgw-faults (tests/faults/fail_malloc.c) lets each Nth allocation fail while switched on by SIGRTMIN. Requests of all
kinds run meanwhile; what they get is not judged, only that each ends. Sanitizers watch.
"""

import contextlib
import os
import signal
import ssl

import pytest

from support import gateway as gateway_module
from support.client import request
from support.expect import is_error
from support.gateway import HOST
from support.http1 import Ended
from support.partners import Partner
from support.payload import MIB
from support.tls import connect, tls_listener, trusting
from support.wait import wait_for
from support.websocket import BINARY as BINARY_FRAME
from support.websocket import frame, read_frame, upgrade

pytest_plugins = ["support.tls"]

MASK = b"\x00\x00\x00\x01"
ROUNDS = 12


@pytest.fixture
def faults(monkeypatch, proofgw, demo):
    """A factory of gateways in which each Nth allocation fails while it is switched on."""
    binary = gateway_module.BINARY.with_name("proofgw-faults")
    assert os.access(binary, os.X_OK), f"{binary} does not exist"
    monkeypatch.setattr(gateway_module, "BINARY", binary)

    def make(every, make=proofgw, **kwargs):
        monkeypatch.setenv("GW_FAIL_EVERY", str(every))
        return make(**{"upstream": demo.address, **kwargs})

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
    assert metrics("proofgw_limits_hit_total", limit="memory") > 0, "no allocation failed: the test tests nothing"
    for kind in KINDS:
        answer = kind(gateway.client(), partner)
        assert answer.status == {refused: 401, tunnel: 101, post_in_pieces: 201}.get(kind, 200), kind


def test_no_memory_for_what_the_backend_does_not_take(faults, backend, partner):
    """The client hears so at once: nobody waits for an answer to a request that is not whole."""
    gateway = faults(1, upstream=backend.address, limits={"body": "1GiB"})
    gate = backend.gate()
    backend.script(lambda c: (c.read_head(), gate.wait()))
    head = request("POST", fields=partner.authorization).replace(b"Length: 0", b"Length: %d" % (64 * MIB))
    client = gateway.client().send(head + b"x")
    backend.wait_requests(1)
    gateway.signal(signal.SIGRTMIN)
    client.send_until_refused(bytes(MIB), 63 * MIB)
    is_error(got := client.response("POST"), "unavailable", closes=True)
    gateway.signal(signal.SIGRTMIN)
    gate.open()
    assert gateway.line_of(got)["end"] == "gateway/request_body"
    assert gateway.metrics()("proofgw_limits_hit_total", limit="memory") > 0


@pytest.mark.parametrize("every", [1, 2, 3, 4, 5, 7, 11])
def test_allocations_fail_with_tls_on_both_sides(faults, https, backends, authority, partner, every):
    """The same with certificates of clients, PROXY headers that come in pieces, and a backend that is verified."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*authority.leaf("localhost").files)
    backend = backends(tls=serving)
    verified = {"enabled": True, "ca_file": str(authority.file), "server_name": "localhost"}
    asking = tls_listener(client_certificates="optional", client_ca_file=str(authority.file))
    balanced = tls_listener(proxy_protocol=True, trusted_proxies=["127.0.0.1"])
    context = trusting(authority, pair=authority.leaf("acme", client=True))
    gateway = faults(
        every, make=https, listeners=[asking, balanced], upstream=backend.address, workers=2,
        environments={"production": {"hosts": [HOST], "upstream": backend.address, "upstream_tls": verified}, "sandbox": None},
    )  # fmt: skip

    def show_certificate():
        client = connect(gateway, context=context)
        return [client.exchange("POST", fields=partner.authorization, body=b"x" * 50000).status for _ in range(2)]

    def come_through_a_balancer():
        client = connect(gateway, address=("127.0.0.1", gateway.ports[1]), context=context, handshake=False)
        for piece in (b"PROXY TCP4 127.0.0.1", b" 127.0.0.1 40000 443\r\n"):
            client.raw(piece)
        return [client.handshake().exchange(fields=partner.authorization).status]

    assert show_certificate() == [200, 200] and come_through_a_balancer() == [200]
    gateway.signal(signal.SIGRTMIN)
    for _ in range(ROUNDS):
        for kind in (show_certificate, come_through_a_balancer):
            with contextlib.suppress(Ended, OSError):  # ssl.SSLError is one
                kind()
            gateway.clients.pop().close()
    gateway.signal(signal.SIGRTMIN)
    gateway.wait_metric("proofgw_exchanges_active", 0)
    gateway.wait_metric("proofgw_tls_handshakes_active", 0)
    assert gateway.metrics()("proofgw_limits_hit_total", limit="memory") > 0, "no allocation failed: the test tests nothing"
    assert show_certificate() == [200, 200] and come_through_a_balancer() == [200]


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
