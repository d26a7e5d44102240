"""Who is calling, when a load balancer is in front: the PROXY protocol, X-Forwarded-For, and the shield.

Goal: an address is believed exactly when the socket's peer is a listed proxy and says it exactly as specified; everything else
is refused, or is the claim of a client and worth nothing. What is believed then counts everywhere: verdict, backend, log,
limits, shield, tunnels.
Method: raw sockets bound to different loopback addresses are the balancers and the strangers; test_haproxy.py has a real one.
"""

import contextlib

import pytest

from support.client import Stopwatch, request
from support.control import ask
from support.expect import is_error, is_passed
from support.partners import Partner
from support.proxy_header import LOCAL, SIGNATURE, TCP4, TCP6, UNIX, UNSPEC, tlv, v1, v2
from support.websocket import BINARY, CLOSE, TEXT, frame, read_frame, upgrade

BALANCER, BALANCER_2, STRANGER = "127.0.0.5", "127.0.0.6", "127.0.0.77"
TRUSTED = ["127.0.0.4/30", "2001:db8:ffff::/48"]  # 127.0.0.4 to 127.0.0.7
CALLER = "192.0.2.7"
ECHO = "/ws?tx_id=1&echo=1&interval_ms=0"


@pytest.fixture
def partner():
    return Partner(production=[CALLER, "2001:db8:1::/48"])


def listener(**changes):
    return [{"address": "127.0.0.1:0", "trusted_proxies": TRUSTED, **changes}]


@pytest.fixture
def behind_proxy(proofgw):
    """A gateway that wants PROXY headers."""
    return proofgw(listeners=listener(proxy_protocol=True))


@pytest.fixture
def behind_http_proxy(proofgw):
    """A gateway that believes X-Forwarded-For."""
    return proofgw(listeners=listener(forwarded_for=True))


def balancer(gateway, header=b"", source=BALANCER):
    return gateway.client(source=source).send(header)


def told(gateway, backend, partner, header, address, origin):
    """A connection with this header is believed to be `address`'s."""
    client = balancer(gateway, header)
    answer = is_passed(client.exchange(fields=partner.authorization))
    assert backend.last.fields.all("x-forwarded-for") == [address]
    believed(gateway, answer, address, origin)
    return client


def believed(gateway, answer, address, origin, peer=BALANCER):
    line = gateway.line_of(answer)
    assert (line["client_ip"], line["client_ip_source"]) == (address, origin)
    assert line.get("peer_ip") == (None if origin == "socket" else peer)


def refused(gateway, client, reason, n=1):
    assert client.expect_reset() == b""
    gateway.wait_metric("proofgw_proxy_headers_refused_total", n, reason=reason)


# --- the PROXY protocol ------------------------------------------------------------------------------------------


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


# --- X-Forwarded-For ---------------------------------------------------------------------------------------------


def forwarded(*values):
    return "".join(f"X-Forwarded-For: {value}\r\n" for value in values)


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


# --- the shield --------------------------------------------------------------------------------------------------


def dropped(gateway, client, n):
    with contextlib.suppress(ConnectionResetError):
        client.send(request())
        assert client.expect_reset() == b""
    gateway.wait_metric("proofgw_shield_dropped_total", n)


def test_the_shield_drops_who_is_on_nobodys_list(proofgw, backend):
    partner = Partner(production=["127.0.0.1"], sandbox=["127.0.0.2"])
    gateway = proofgw([partner], listeners=[{"address": "127.0.0.1:0", "shield": True}, {"address": "127.0.0.1:0"}])
    is_passed(gateway.client(source="127.0.0.1").exchange(fields=partner.authorization))
    is_error(gateway.client(source="127.0.0.2").exchange(fields=partner.authorization), "forbidden_origin")
    dropped(gateway, gateway.client(source=STRANGER), 1)
    event = gateway.wait_event("shield_dropped")[0]
    assert (event["client_ip"], event["client_ip_source"]) == (STRANGER, "socket")
    unshielded = gateway.client(("127.0.0.1", gateway.ports[1]), source=STRANGER)
    is_error(unshielded.exchange(), "missing_token")
    for n in range(2, 12):
        dropped(gateway, gateway.client(source=STRANGER), n)
    assert len(gateway.events("shield_dropped")) < 11
    assert gateway.metrics()["proofgw_unknown_source_connections_total"] == 12
    assert {line["client_ip"] for line in gateway.access()} == {"127.0.0.1", "127.0.0.2", STRANGER}


def test_the_shield_follows_the_policy(proofgw, partner):
    partner.production = ["127.0.0.1"]
    gateway = proofgw(listeners=[{"address": "127.0.0.1:0", "shield": True}])
    dropped(gateway, gateway.client(source="127.0.0.3"), 1)
    partner.production = ["127.0.0.3"]
    gateway.update_partners([partner])
    is_error(gateway.client(source="127.0.0.3").exchange(), "missing_token")
    dropped(gateway, gateway.client(source="127.0.0.1"), 2)


def test_the_shield_knows_only_environments_that_are_served(proofgw):
    partner = Partner(production=["127.0.0.1"], sandbox=["127.0.0.2"])
    gateway = proofgw([partner], listeners=[{"address": "127.0.0.1:0", "shield": True}], environments={"sandbox": None})
    is_error(gateway.client(source="127.0.0.1").exchange(), "missing_token")
    dropped(gateway, gateway.client(source="127.0.0.2"), 1)


@pytest.mark.parametrize("option", ["none", "proxy_protocol"])
def test_no_shield_while_there_is_no_policy(proofgw, partner, option):
    """Without partner data nobody is on a list; everybody is told 503, so that balancers and partners know."""
    options = {} if option == "none" else {option: True}
    gateway = proofgw(listeners=listener(shield=True, **options), store={"file": "missing.ndjson"}, ready=False)
    header = v2("198.51.100.1") if option == "proxy_protocol" else b""
    is_error(balancer(gateway, header).send(request(fields=partner.authorization)).response(), "unavailable")
    assert gateway.metrics()["proofgw_shield_dropped_total"] == 0


def test_the_shield_behind_a_proxy_header(proofgw, backend, partner):
    gateway = proofgw(listeners=listener(proxy_protocol=True, shield=True))
    for n, header in enumerate([v1("198.51.100.1"), v2("198.51.100.1"), v2("2001:db8:2::1")], 1):
        dropped(gateway, balancer(gateway, header), n)
    event = gateway.wait_event("shield_dropped")[0]
    assert (event["client_ip"], event["client_ip_source"]) == ("198.51.100.1", "proxy_v1")
    told(gateway, backend, partner, v2(CALLER), CALLER, "proxy_v2")


def test_the_shield_spares_trusted_http_proxies(proofgw, backend, partner):
    """Who calls is known only with the request, which is answered; anybody else at the door is dropped."""
    gateway = proofgw(listeners=listener(forwarded_for=True, shield=True))
    client = balancer(gateway)
    is_passed(client.exchange(fields=forwarded(CALLER) + partner.authorization))
    is_error(client.exchange(fields=forwarded("198.51.100.1") + partner.authorization), "forbidden_origin")
    dropped(gateway, balancer(gateway, source=STRANGER), 1)
    assert gateway.metrics()["proofgw_unknown_source_connections_total"] == 1


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
