"""The PROXY protocol, versions 1 and 2: who is believed, and what is refused."""

import pytest

from support.caller import BALANCER, BALANCER_2, CALLER, STRANGER, balancer, believed, listener, told
from support.client import Stopwatch, request
from support.expect import is_error, is_passed
from support.partners import Partner
from support.proxy_header import LOCAL, SIGNATURE, TCP4, TCP6, UNIX, UNSPEC, tlv, v1, v2


@pytest.fixture
def partner():
    return Partner(production=[CALLER, "2001:db8:1::/48"])


@pytest.fixture
def behind_proxy(proofgw):
    """A gateway that wants PROXY headers."""
    return proofgw(listeners=listener(proxy_protocol=True))


def refused(gateway, client, reason, n=1):
    assert client.expect_reset() == b""
    gateway.wait_metric("proofgw_proxy_headers_refused_total", n, reason=reason)


@pytest.mark.parametrize(
    "header, address, origin",
    [
        (v1(CALLER), CALLER, "proxy_v1"),
        (v1("2001:db8:1::7"), "2001:db8:1::7", "proxy_v1"),
        (v1("::ffff:192.0.2.7"), CALLER, "proxy_v1"),
        (v2(CALLER), CALLER, "proxy_v2"),
        (v2("2001:db8:1::7"), "2001:db8:1::7", "proxy_v2"),
        (v2("::ffff:192.0.2.7"), CALLER, "proxy_v2"),
        (v2(CALLER, tlvs=tlv(0x01, b"http/1.1") + tlv(0x04, b"\0" * 300)), CALLER, "proxy_v2"),
        (v2(CALLER, tlvs=b"\0" * 4000), CALLER, "proxy_v2"),
    ],
    ids=["v1", "v1-ipv6", "v1-mapped", "v2", "v2-ipv6", "v2-mapped", "v2-tlvs", "v2-long"],
)
def test_the_address_of_the_header_is_believed(behind_proxy, backend, partner, header, address, origin):
    client = told(behind_proxy, backend, partner, header, address, origin)
    is_passed(client.exchange(fields=partner.authorization))  # for the whole connection


def test_the_address_of_the_header_is_judged(behind_proxy, backend, partner):
    for header in (v1("192.0.2.8"), v2("192.0.2.8")):
        is_error(balancer(behind_proxy, header).exchange(fields=partner.authorization), "forbidden_origin")
    assert not backend.requests


@pytest.mark.parametrize("header", [v1(CALLER), v2(CALLER, tlvs=tlv(0x01, b"http/1.1"))], ids=["v1", "v2"])
def test_header_and_requests_in_any_segments(behind_proxy, backend, partner, header):
    wanted = request(fields=partner.authorization)
    together = balancer(behind_proxy, header + wanted + wanted)  # and pipelined
    for _ in range(2):
        is_passed(together.response())
    is_passed(balancer(behind_proxy).send_bytewise(header + wanted).response())
    for cut in (1, 5, 6, len(header) - 1, len(header), len(header) + 1):
        client = balancer(behind_proxy, header[:cut])
        behind_proxy.wait_metric("proofgw_connections_open", lambda n: n >= 3)
        is_passed(client.send(header[cut:] + wanted).response())
    assert {r["x-forwarded-for"] for r in backend.requests} == {CALLER}


def test_a_body_right_behind_the_header(behind_proxy, backend, partner):
    """What is behind the header is read by the connection: not a byte of it is lost or read twice."""
    body = bytes(range(256)) * 200
    is_passed(
        balancer(behind_proxy).ask(v2(CALLER) + request("POST", fields=partner.authorization, body=body), "POST")
    )
    assert backend.last.body == body


def test_strangers_are_refused_whatever_they_say(behind_proxy, backend, partner):
    wanted = request(fields=partner.authorization)
    for n, data in enumerate([v1(CALLER) + wanted, v2(CALLER) + wanted, wanted, v2(command=LOCAL) + wanted], 1):
        refused(behind_proxy, balancer(behind_proxy, data, source=STRANGER), "not_trusted", n)
    event = behind_proxy.wait_event("proxy_header_refused")[0]
    assert (event["reason"], event["peer_ip"]) == ("not_trusted", STRANGER)
    assert not backend.requests and not behind_proxy.access()


@pytest.mark.parametrize(
    "data, reason",
    [
        (request(), "signature"),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", "signature"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "signature"),
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 40000\r\n", "line"),
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 443\n", "line"),
        (b"PROXY TCP6 192.0.2.7 127.0.0.1 40000 443\r\n", "line"),
        (b"PROXY UNKNOWN " + b"x" * 200, "line_length"),
        (SIGNATURE + b"\x11\x11\0\x0c" + b"\0" * 12, "version"),
        (v2(CALLER, command=0x22), "command"),
        (v2(family=0x13, body=b"\0" * 36), "family"),
        (v2(family=TCP4, body=b"\0" * 11), "length"),
        (v2(family=TCP6, body=b"\0" * 35), "length"),
        (v2(CALLER, tlvs=b"\0" * 5000), "length"),
        (SIGNATURE + b"\x20\0\xff\xff", "length"),
    ],
)
def test_anything_else_is_reset_without_an_answer(behind_proxy, backend, data, reason):
    client = balancer(behind_proxy, data)
    refused(behind_proxy, client, reason)
    event = behind_proxy.wait_event("proxy_header_refused")[0]
    assert (event["reason"], event["peer_ip"], event["unlogged"]) == (reason, BALANCER, "0")
    assert not backend.requests and not behind_proxy.access()


def test_refusals_are_all_counted_but_not_all_logged(behind_proxy):
    for n in range(1, 21):
        refused(behind_proxy, balancer(behind_proxy, b"GET ", source=STRANGER), "not_trusted", n)
    assert len(behind_proxy.events("proxy_header_refused")) < 20


def test_a_header_must_be_whole_in_time(proofgw, backend):
    gateway = proofgw(listeners=listener(proxy_protocol=True), timeouts={"proxy_header": "300ms"})
    watch = Stopwatch()
    clients = [balancer(gateway, v1(CALLER)[:-1]), balancer(gateway, v2(CALLER)[:-1])]
    gateway.wait_metric("proofgw_connections_open", 2)
    for client in clients:
        assert client.expect_reset() == b""
    assert watch.seconds() > 0.25
    gateway.wait_metric("proofgw_proxy_headers_refused_total", 2, reason="timeout")
    gateway.wait_metric("proofgw_connections_open", 0)


def test_a_check_that_only_connects_is_no_news(behind_proxy):
    """It ends before, or in the middle of, a header: counted, not logged."""
    client = balancer(behind_proxy, v1(CALLER)[:9])
    behind_proxy.wait_metric("proofgw_connections_open", 1)
    client.half_close()
    refused(behind_proxy, client, "ended")
    balancer(behind_proxy, v1(CALLER)[:9]).reset()
    behind_proxy.wait_metric("proofgw_proxy_headers_refused_total", 2, reason="ended")
    assert not behind_proxy.events("proxy_header_refused")


def test_local_is_the_balancer_itself(proofgw, backend, partner):
    itself = Partner("itself", production=[BALANCER])
    gateway = proofgw([partner, itself], listeners=listener(proxy_protocol=True, shield=True))
    for header in (v2(command=LOCAL), v2(CALLER, command=LOCAL), v2(command=LOCAL, family=0xFF, body=b"abc")):
        client = balancer(gateway, header)
        answer = client.exchange(fields=partner.authorization)
        is_error(answer, "forbidden_origin")
        believed(gateway, answer, BALANCER, "socket")
        is_passed(client.exchange(fields=itself.authorization))


def test_a_proxy_that_names_itself_checks_our_health(proofgw, partner):
    """HAProxy's version 1 checks do: neither shielded nor counted. Its address is a caller's like any other for the rest."""
    gateway = proofgw(
        listeners=listener(proxy_protocol=True, shield=True), limits={"connections_per_source": 1}
    )
    for header in (v1(BALANCER), v2(BALANCER), v1(BALANCER_2)):
        client = balancer(gateway, header)
        is_error(client.exchange(target="/nowhere"), "not_found")
        is_error(client.exchange(fields=partner.authorization), "forbidden_origin")


@pytest.mark.parametrize(
    "header, origin",
    [
        (b"PROXY UNKNOWN\r\n", "proxy_v1"),
        (b"PROXY UNKNOWN 192.0.2.7 192.0.2.7 1 2\r\n", "proxy_v1"),
        (v2(family=UNSPEC, body=b""), "proxy_v2"),
        (v2(family=UNSPEC, body=b"\xc0\x00\x02\x07" * 3), "proxy_v2"),
        (v2(family=UNIX, body=b"/run/caller".ljust(216, b"\0")), "proxy_v2"),
    ],
)
def test_without_an_address_nobody_is_let_in(proofgw, backend, partner, header, origin):
    """Not as the balancer either, whose address may be on a list. The shield lets them ask: it may be a health check."""
    partner.production += [BALANCER, "0.0.0.0/8", "::/16"]
    gateway = proofgw([partner], listeners=listener(proxy_protocol=True, shield=True))
    client = balancer(gateway, header)
    is_error(client.exchange(target="/nowhere"), "not_found")
    answer = client.exchange(fields=partner.authorization)
    is_error(answer, "forbidden_origin")
    believed(gateway, answer, "-", origin)
    assert not backend.requests


def test_claims_inside_of_a_proxied_connection_are_worth_nothing(behind_proxy, backend, partner):
    claims = f"X-Forwarded-For: {CALLER}\r\nForwarded: for={CALLER}\r\nX-Real-IP: {CALLER}\r\n"
    client = balancer(behind_proxy, v2("192.0.2.8"))
    is_error(client.exchange(fields=claims + partner.authorization), "forbidden_origin")
    second = v1(CALLER) + request(fields=partner.authorization)
    is_error(balancer(behind_proxy, v1("192.0.2.8") + second).response(), "decode_error", closes=True)
    assert not backend.requests


def test_a_unix_socket_is_trusted_by_its_permissions(proofgw, backend, partner, tmp_path):
    path = tmp_path / "listen.sock"
    gateway = proofgw(listeners=[{"address": f"unix:{path}", "proxy_protocol": True}])
    client = gateway.client(path).send(v2(CALLER))
    believed(gateway, is_passed(client.exchange(fields=partner.authorization)), CALLER, "proxy_v2", peer="-")
    refused(gateway, gateway.client(path).send(request()), "signature")


def test_the_limit_per_source_goes_by_the_believed_address(proofgw, backend, partner):
    other = Partner("other", production=["192.0.2.8"])
    gateway = proofgw(
        [partner, other], listeners=listener(proxy_protocol=True), limits={"connections_per_source": 2}
    )
    open_ones = [balancer(gateway, v1(CALLER)), balancer(gateway, v2(CALLER))]
    for client in open_ones:
        is_passed(client.exchange(fields=partner.authorization))
    third = balancer(gateway, v2(CALLER))
    is_error(third.send(request(fields=partner.authorization)).response(), "unavailable", closes=True)
    for _ in range(4):  # checks of the balancer do not count
        is_error(balancer(gateway, v2(command=LOCAL)).exchange(), "missing_token")
    is_passed(balancer(gateway, v2("192.0.2.8")).exchange(fields=other.authorization))
    open_ones.pop().reset()
    gateway.wait_metric("proofgw_connections_open", lambda n: n <= 7)
    is_passed(balancer(gateway, v1(CALLER)).exchange(fields=partner.authorization))


def test_those_that_wait_are_connections_too(proofgw, partner):
    gateway = proofgw(listeners=listener(proxy_protocol=True), limits={"connections_per_worker": 16})
    waiting = [balancer(gateway, b"PROXY ") for _ in range(16)]
    gateway.wait_metric("proofgw_connections_open", 16)
    assert balancer(gateway, b"PROXY ").expect_reset() == b""
    gateway.wait_metric("proofgw_limits_hit_total", 1, limit="connections_per_worker")
    waiting[0].reset()
    gateway.wait_metric("proofgw_connections_open", 15)
    is_passed(waiting[1].send(v1(CALLER)[6:]).exchange(fields=partner.authorization))


def test_a_stop_waits_for_none_of_them(proofgw, partner):
    gateway = proofgw(
        listeners=listener(proxy_protocol=True), timeouts={"proxy_header": "5m", "shutdown": "1s"}, exit_code=3
    )
    client = balancer(gateway, b"PROXY ")
    gateway.wait_metric("proofgw_connections_open", 1)
    gateway.signal(15)
    assert client.expect_reset() == b""
    assert gateway.wait_exit() == 3
