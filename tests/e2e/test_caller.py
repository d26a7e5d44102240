"""Who is calling, when a load balancer is in front: the PROXY protocol, X-Forwarded-For, and the shield.

Goal: an address is believed exactly when the socket's peer is a listed proxy and says it exactly as specified; everything else
is refused, or is the claim of a client and worth nothing. What is believed then counts everywhere: verdict, backend, log,
limits, shield, tunnels.
Method: raw sockets bound to different loopback addresses are the balancers and the strangers; test_haproxy.py has a real one.
"""

import pytest

from support.caller import BALANCER, BALANCER_2, CALLER, STRANGER, balancer, believed, forwarded, listener, told
from support.client import request
from support.control import ask
from support.expect import is_error, is_passed
from support.partners import Partner
from support.proxy_header import v1, v2
from support.websocket import BINARY, CLOSE, TEXT, frame, read_frame, upgrade

ECHO = "/ws?tx_id=1&echo=1&interval_ms=0"


@pytest.fixture
def partner():
    return Partner(production=[CALLER, "2001:db8:1::/48"])


@pytest.fixture
def behind_http_proxy(proofgw):
    """A gateway that believes X-Forwarded-For."""
    return proofgw(listeners=listener(forwarded_for=True))


# --- X-Forwarded-For ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, address",
    [
        ([CALLER], CALLER),
        ([f"{CALLER}:40000"], CALLER),
        (["::ffff:192.0.2.7"], CALLER),
        (["2001:db8:1::7"], "2001:db8:1::7"),
        (["[2001:db8:1::7]:40000"], "2001:db8:1::7"),
        ([f"198.51.100.1, {CALLER}"], CALLER),
        ([f"unknown,,, {CALLER}, 127.0.0.6"], CALLER),
        (["198.51.100.1", f"{CALLER} , 127.0.0.7", "2001:db8:ffff::1", "127.0.0.6:80"], CALLER),
        ([CALLER + ", 127.0.0.6" * 31], CALLER),
    ],
)
def test_the_first_that_is_no_trusted_proxy_is_the_caller(behind_http_proxy, backend, partner, values, address):
    answer = balancer(behind_http_proxy).exchange(fields=forwarded(*values) + partner.authorization)
    is_passed(answer)
    assert backend.last.fields.all("x-forwarded-for") == [address]
    believed(behind_http_proxy, answer, address, "x_forwarded_for")


@pytest.mark.parametrize(
    "values",
    [
        ["198.51.100.1"],
        [f"{CALLER}, 198.51.100.1"],
        [CALLER, "198.51.100.1"],
        [f"127.0.0.6, {CALLER}, 198.51.100.1, 127.0.0.6"],
    ],
)
def test_what_stands_left_of_the_caller_is_a_claim(behind_http_proxy, backend, partner, values):
    answer = balancer(behind_http_proxy).exchange(fields=forwarded(*values) + partner.authorization)
    is_error(answer, "forbidden_origin", closes=False)
    believed(behind_http_proxy, answer, "198.51.100.1", "x_forwarded_for")
    assert not backend.requests


def test_a_stranger_is_never_believed(behind_http_proxy, backend, partner):
    partner.production.append("127.0.0.9")
    behind_http_proxy.update_partners([partner])
    for value in (CALLER, f"{CALLER}, 127.0.0.6", "garbage"):
        answer = balancer(behind_http_proxy, source=STRANGER).exchange(fields=forwarded(value) + partner.authorization)
        is_error(answer, "forbidden_origin", closes=False)
        believed(behind_http_proxy, answer, STRANGER, "socket")
    is_passed(
        balancer(behind_http_proxy, source="127.0.0.9").exchange(fields=forwarded("1.2.3.4") + partner.authorization)
    )
    assert backend.last.fields.all("x-forwarded-for") == ["127.0.0.9"]


def test_without_the_field_it_is_the_proxy_itself(behind_http_proxy, backend, partner):
    fields = f"X_Forwarded_For: {CALLER}\r\nX-Real-IP: {CALLER}\r\nForwarded: for={CALLER}\r\n"
    answer = balancer(behind_http_proxy).exchange(fields=fields + partner.authorization)
    is_error(answer, "forbidden_origin", closes=False)
    believed(behind_http_proxy, answer, BALANCER, "socket")


def test_all_trusted_is_the_leftmost(proofgw, backend):
    inside = Partner(production=[BALANCER_2])
    gateway = proofgw([inside], listeners=listener(forwarded_for=True))
    answer = balancer(gateway).exchange(fields=forwarded(f"{BALANCER_2}, 127.0.0.7") + inside.authorization)
    is_passed(answer)
    believed(gateway, answer, BALANCER_2, "x_forwarded_for")


@pytest.mark.parametrize(
    "values",
    [
        [""],
        ["unknown"],
        [f"{CALLER}, unknown"],
        [f"{CALLER}, "],
        [CALLER, ""],
        [f"{CALLER}, 192.0.2.7:, 127.0.0.6"],
        ["192.0.2.07"],
        ["192.0.2.0/24"],
        [f'"{CALLER}"'],
        [CALLER + ", 127.0.0.6" * 32],
    ],
)
def test_a_list_that_cannot_be_read_refuses_the_request(behind_http_proxy, backend, partner, values):
    client = balancer(behind_http_proxy)
    is_passed(client.exchange(fields=forwarded(CALLER) + partner.authorization))
    answer = client.exchange(fields=forwarded(*values) + partner.authorization)
    is_error(answer, "decode_error", closes=True)
    client.expect_close()
    line = behind_http_proxy.line_of(answer)
    assert (line["refused"], line["client_ip"], line["client_ip_source"]) == ("forwarded_for", BALANCER, "socket")
    behind_http_proxy.wait_metric("proofgw_bad_requests_total", 1, reason="forwarded_for")
    assert len(backend.requests) == 1


def test_each_request_of_a_connection_has_its_own_caller(behind_http_proxy, backend, partner):
    """A balancer mixes callers on one connection: the remembered verdict of one must not serve another."""
    client = balancer(behind_http_proxy)
    for _ in range(3):
        is_passed(client.exchange(fields=forwarded(CALLER) + partner.authorization))
        is_error(client.exchange(fields=forwarded("198.51.100.1") + partner.authorization), "forbidden_origin")
        is_passed(client.exchange(fields=forwarded("2001:db8:1::1") + partner.authorization))
        is_error(client.exchange(fields=partner.authorization), "forbidden_origin")
    assert [r["x-forwarded-for"] for r in backend.requests] == [CALLER, "2001:db8:1::1"] * 3
    is_passed(client.exchange(fields=forwarded(CALLER) + partner.authorization))
    is_passed(client.exchange(fields=forwarded(CALLER) + partner.authorization))
    assert behind_http_proxy.metrics()["proofgw_verdict_cache_hits_total"] == 1


def test_a_trusted_proxy_is_not_counted_per_source(proofgw, backend, partner):
    gateway = proofgw(listeners=listener(forwarded_for=True), limits={"connections_per_source": 2})
    for _ in range(5):
        is_passed(balancer(gateway).exchange(fields=forwarded(CALLER) + partner.authorization))
    strangers = [balancer(gateway, source=STRANGER) for _ in range(3)]
    for client in strangers[:2]:
        is_error(client.exchange(), "missing_token")
    is_error(strangers[2].send(request()).response(), "unavailable", closes=True)


def test_a_unix_socket_may_name_callers_too(proofgw, backend, partner, tmp_path):
    path = tmp_path / "listen.sock"
    gateway = proofgw(listeners=[{"address": f"unix:{path}", "forwarded_for": True}])
    client = gateway.client(path)
    answer = is_passed(client.exchange(fields=forwarded(f"127.0.0.6, {CALLER}") + partner.authorization))
    believed(gateway, answer, CALLER, "x_forwarded_for", peer="-")
    is_error(client.exchange(fields=partner.authorization), "forbidden_origin")


def test_what_a_proxy_header_has_said_counts_after_a_reload(proofgw, backend, partner):
    """The connection is older than the listener's belief in the field."""
    gateway = proofgw(listeners=listener(proxy_protocol=True), reload_on_change=False)
    client = told(gateway, backend, partner, v1(CALLER), CALLER, "proxy_v1")
    gateway.reload(listeners=listener(proxy_protocol=False, forwarded_for=True))
    for claim in (STRANGER, "nonsense"):
        answer = is_passed(client.exchange(fields=forwarded(claim) + partner.authorization))
        believed(gateway, answer, CALLER, "proxy_v1")
    is_passed(balancer(gateway).exchange(fields=forwarded(CALLER) + partner.authorization))


def test_trusted_proxies_alone_change_nothing(proofgw, backend, partner):
    """Listed, but neither way of naming callers is switched on."""
    partner.production.append(BALANCER)
    gateway = proofgw(listeners=listener(), limits={"connections_per_source": 1})
    first = balancer(gateway)
    is_passed(first.exchange(fields=forwarded("198.51.100.1") + partner.authorization))
    assert backend.last.fields.all("x-forwarded-for") == [BALANCER]
    is_error(balancer(gateway).send(request()).response(), "unavailable", closes=True)
    first.reset()
    gateway.wait_metric("proofgw_connections_open", 0)
    is_error(balancer(gateway).ask(v1(CALLER) + request(fields=partner.authorization)), "decode_error", closes=True)


def test_explain_tells_who_was_believed_and_why(proofgw, partner, tmp_path):
    path = tmp_path / "control.sock"
    gateway = proofgw(listeners=listener(forwarded_for=True), admin={"control_socket": str(path)})
    client = balancer(gateway)
    for fields, address, origin in [
        (forwarded("198.51.100.1"), "198.51.100.1", "x_forwarded_for"),
        ("", BALANCER, "socket"),
    ]:
        answer = client.exchange(fields=fields + partner.authorization)
        status, told = ask(path, f"/explain?request_id={answer['x-request-id']}")
        assert status == 200
        step = next(s for s in told["now"]["steps"] if s["check"] == "caller")
        assert (step["address"], step["believed_from"], step["peer"]) == (address, origin, BALANCER)


# --- tunnels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["proxy_protocol", "forwarded_for"])
def test_tunnels_live_by_the_believed_address(proofgw, demo, way):
    """One of two callers behind the same balancer is taken off the list: its tunnel ends, the other's goes on."""
    one, two = "192.0.2.1", "192.0.2.2"
    partner = Partner(production=[one, two])
    gateway = proofgw([partner], upstream=demo.address, listeners=listener(**{way: True}))
    tunnels = {}
    for address in (one, two):
        header, fields = (v2(address), "") if way == "proxy_protocol" else (b"", forwarded(address))
        client = tunnels[address] = balancer(gateway, header)
        if way == "forwarded_for":  # another caller's request before it, on the same connection
            is_error(client.exchange(fields=forwarded("198.51.100.1") + partner.authorization), "forbidden_origin")
        assert client.ask(upgrade(partner, ECHO, fields=fields)).status == 101
    partner.production = [two]
    gateway.update_partners([partner])
    opcode = TEXT
    while opcode == TEXT:
        _, opcode, payload = read_frame(tunnels[one].reader)
    assert opcode == CLOSE and payload[:2] == (1008).to_bytes(2, "big")
    tunnels[one].half_close().expect_close()
    tunnels[two].send(frame(BINARY, b"still here", b"\1\2\3\4"))
    while opcode != BINARY:
        _, opcode, payload = read_frame(tunnels[two].reader)
    assert payload == b"still here"
    line = gateway.wait_access(1, event="tunnel_close")[0]
    origin = {"proxy_protocol": "proxy_v2", "forwarded_for": "x_forwarded_for"}[way]
    assert (line["client_ip"], line["client_ip_source"], line["peer_ip"]) == (one, origin, BALANCER)
    assert line["end"] == "address/tunnel"
