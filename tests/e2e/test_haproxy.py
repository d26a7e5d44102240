"""A real load balancer in front: HAProxy, speaking PROXY v1 and v2, or adding X-Forwarded-For.

Goal: with the settings of docs/OPERATIONS.md the gateway sees the callers of HAProxy as it would see them itself, its health checks
pass, and what a client writes into its request changes nothing.
Method: Debian's haproxy as a process of the test; clients bind to different loopback addresses.
"""

import pytest

from support.backend import answer
from support.expect import is_error, is_passed
from support.haproxy import BINARY, SOURCE, HAProxy
from support.http1 import Ended
from support.partners import Partner
from support.tls import connect, trusting
from support.websocket import BINARY as WS_BINARY
from support.websocket import frame, read_frame, upgrade

CALLER, OTHER = "127.0.0.9", "127.0.0.10"
FORGED = f"X-Forwarded-For: {CALLER}, {SOURCE}\r\nX-Real-IP: {CALLER}\r\n"

pytest_plugins = ["support.tls"]
pytestmark = pytest.mark.skipif(not BINARY, reason="haproxy is not installed")


@pytest.fixture
def partner():
    return Partner(production=[CALLER])


@pytest.fixture
def balanced(proofgw, tmp_path):
    """Factory: the gateway, and HAProxy with these routes before it."""
    started = []

    def make(routes, shield=False, **changes):
        common = {"address": "127.0.0.1:0", "trusted_proxies": [SOURCE], "shield": shield}
        listeners = [{**common, "proxy_protocol": True}, {**common, "forwarded_for": True}]
        gateway = proofgw(listeners=listeners, **changes)
        proxy, http = gateway.ports
        ports = {"tcp": proxy, "http": http}
        started.append(HAProxy(tmp_path, {n: (mode, *rest, ports[mode]) for n, (mode, *rest) in routes.items()}))
        return gateway, started[-1]

    yield make
    for haproxy in started:
        haproxy.close()


ROUTES = {
    "v1": ("tcp", "send-proxy", []),
    "v2": ("tcp", "send-proxy-v2", []),
    "v2_tlvs": ("tcp", "send-proxy-v2 proxy-v2-options unique-id,crc32c", ["unique-id-format %{+X}o%ci:%cp:%Ts"]),
    "field": ("http", "", ["option forwardfor"]),
}
ORIGINS = {"v1": "proxy_v1", "v2": "proxy_v2", "v2_tlvs": "proxy_v2", "field": "x_forwarded_for"}


def test_callers_are_seen_through_it(balanced, backend, partner):
    gateway, haproxy = balanced(ROUTES)
    for name, origin in ORIGINS.items():
        port = ("127.0.0.1", haproxy.ports[name])
        for fields in ("", FORGED):
            inside = gateway.client(port, source=CALLER).exchange(fields=fields + partner.authorization)
            is_passed(inside)
            assert backend.last.fields.all("x-forwarded-for") == [CALLER]
            line = gateway.line_of(inside)
            assert (line["client_ip"], line["client_ip_source"], line["peer_ip"]) == (CALLER, origin, SOURCE)
            outside = gateway.client(port, source=OTHER).exchange(fields=fields + partner.authorization)
            is_error(outside, "forbidden_origin")
            assert gateway.line_of(outside)["client_ip"] == OTHER
    assert len(backend.requests) == 2 * len(ORIGINS)


def test_connections_to_the_gateway_are_shared_by_callers(balanced, backend, partner):
    """HAProxy sends requests of different clients on one connection; each is judged by its own address."""
    gateway, haproxy = balanced({"field": ("http", "", ["option forwardfor", "http-reuse always"])})
    port = ("127.0.0.1", haproxy.ports["field"])
    inside, outside = gateway.client(port, source=CALLER), gateway.client(port, source=OTHER)
    for _ in range(3):
        is_passed(inside.exchange(fields=partner.authorization))
        is_error(outside.exchange(fields=partner.authorization), "forbidden_origin")
    assert gateway.metrics()["proofgw_connections_accepted_total"] == 1


def test_tunnels_through_it(balanced, demo, partner):
    gateway, haproxy = balanced(ROUTES, upstream=demo.address)
    for name in ORIGINS:
        client = gateway.client(("127.0.0.1", haproxy.ports[name]), source=CALLER)
        assert client.ask(upgrade(partner, "/ws?tx_id=1&echo=1&interval_ms=0")).status == 101
        client.send(frame(WS_BINARY, b"there and back", b"\1\2\3\4"))
        opcode = None
        while opcode != WS_BINARY:
            _, opcode, payload = read_frame(client.reader)
        assert payload == b"there and back"


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_its_health_checks_pass_the_shield(balanced, backend, partner, version):
    """They carry no caller: HAProxy names itself in version 1, and says LOCAL in version 2. 404 is what a stranger gets for a path of nobody."""
    check = ["option httpchk", "http-check send meth GET uri /check ver HTTP/1.1 hdr Host api.test", "http-check expect status 404"]
    server = f"{version} check check-send-proxy inter 100ms fall 1 rise 1"
    gateway, haproxy = balanced({"v": ("tcp", server, check)}, shield=True)
    gateway.wait_access(5)
    assert {line["deny"] for line in gateway.access()} == {"no_route"}
    is_passed(gateway.client(("127.0.0.1", haproxy.ports["v"]), source=CALLER).exchange(fields=partner.authorization))
    metrics = gateway.metrics()
    assert metrics["proofgw_shield_dropped_total"] == metrics["proofgw_proxy_headers_refused_total"] == 0
    assert "DOWN" not in haproxy.log.read_text()


def test_the_shield_behind_it(balanced, partner):
    gateway, haproxy = balanced(ROUTES, shield=True)
    for name in ("v1", "v2"):
        before = gateway.metrics()["proofgw_shield_dropped_total"]  # HAProxy may try again: it grows by one or more
        client = gateway.client(("127.0.0.1", haproxy.ports[name]), source=OTHER)
        client.send(b"GET /widget/a HTTP/1.1\r\nHost: api.test\r\n\r\n")
        assert client.reader.until_end() == b""  # HAProxy passes the reset on as an end
        gateway.wait_metric("proofgw_shield_dropped_total", lambda v, before=before: v > before)
    assert gateway.wait_event("shield_dropped")[0]["client_ip"] == OTHER


# --- TLS that goes through it ------------------------------------------------------------------------------------


@pytest.fixture
def passed_through(https, tmp_path):
    """Factory: a gateway that speaks TLS behind PROXY headers, and HAProxy, which does not look inside."""
    started = []

    def make(version="send-proxy-v2", **listener):
        listener = {"trusted_proxies": [SOURCE], "proxy_protocol": True, **listener}
        gateway = https(listener=listener)
        started.append(HAProxy(tmp_path, {"tls": ("tcp", version, [], gateway.port)}))
        return gateway, ("127.0.0.1", started[-1].ports["tls"])

    yield make
    for haproxy in started:
        haproxy.close()


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
def test_tls_goes_through_it(passed_through, backend, partner, version):
    gateway, address = passed_through(version)
    client = connect(gateway, address=address, source=CALLER)
    for _ in range(3):
        got = is_passed(client.exchange(fields=partner.authorization))
    assert backend.last.fields.all("x-forwarded-for") == [CALLER]
    assert backend.last.fields.all("x-forwarded-proto") == ["https"]
    line = gateway.line_of(got)
    assert (line["client_ip"], line["peer_ip"], line["sni"]) == (CALLER, SOURCE, "api.test")
    is_error(connect(gateway, address=address, source=OTHER).exchange(fields=partner.authorization), "forbidden_origin")


def test_large_bodies_and_sessions_through_it(passed_through, backend, partner):
    gateway, address = passed_through()
    backend.answer = lambda r: answer(body=r.body)
    body = b"".join(b"%07x\n" % i for i in range(200_000))
    context = trusting(gateway.authority)
    client = connect(gateway, address=address, source=CALLER, context=context)
    is_passed(client.exchange("POST", fields=partner.authorization, body=body), body=body)
    again = connect(gateway, address=address, source=CALLER, context=context, session=client.tls.session)
    assert again.tls.session_reused
    is_passed(again.exchange("POST", fields=partner.authorization, body=body), body=body)


def test_the_shield_behind_it_is_before_tls(passed_through, backend, partner):
    gateway, address = passed_through(shield=True)
    with pytest.raises((OSError, Ended)):  # HAProxy passes the reset on as an end
        connect(gateway, address=address, source=OTHER)
    gateway.wait_metric("proofgw_shield_dropped_total", lambda n: n >= 1)
    is_passed(connect(gateway, address=address, source=CALLER).exchange(fields=partner.authorization))
    metrics = gateway.metrics()
    assert metrics["proofgw_tls_handshakes_total"] == 1
    assert metrics("proofgw_tls_handshake_failures_total") == 0
