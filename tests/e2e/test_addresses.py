"""Whose address counts: the TCP peer's, in one normal form, against the list of the request's environment.

Method: clients bind to different loopback addresses and connect to listeners of every kind; what the gateway took the
address for is seen in its verdict, in X-Forwarded-For, and in the access log.
"""

import pytest

from support.client import request
from support.expect import is_error, is_passed
from support.gateway import HOST, SANDBOX_HOST
from support.partners import Partner

CLAIMS = (
    "X-Forwarded-For: 127.0.0.9\r\nX-Forwarded-For: 127.0.0.1, 127.0.0.9\r\nForwarded: for=127.0.0.9\r\n"
    "X-Real-IP: 127.0.0.9\r\nTrue-Client-IP: 127.0.0.9\r\nX_Forwarded_For: 127.0.0.9\r\n"
    "CF-Connecting-IP: 127.0.0.9\r\nX-Client-IP: 127.0.0.9\r\n"
)


def source_of(gateway, answer):
    line = gateway.line_of(answer)
    assert line["client_ip_source"] == "socket"
    return line["client_ip"]


def test_ipv4(proofgw, backend):
    partner = Partner(production=["127.0.0.8/30"])
    gateway = proofgw([partner])
    for source, allowed in [("127.0.0.7", False), ("127.0.0.8", True), ("127.0.0.11", True), ("127.0.0.12", False)]:
        got = gateway.client(source=source).exchange(fields=partner.authorization)
        if allowed:
            is_passed(got)
            assert backend.last["x-forwarded-for"] == source
        else:
            is_error(got, "forbidden_origin", closes=False)
        assert source_of(gateway, got) == source
    assert len(backend.requests) == 2


def test_ipv6(proofgw, backend):
    inside, outside = Partner("inside", production=["::/64"]), Partner("outside", production=["2001:db8::/32"])
    gateway = proofgw([inside, outside], listeners=[{"address": "[::1]:0"}])
    client = gateway.client(("::1", gateway.port))
    got = is_passed(client.exchange(fields=inside.authorization))
    assert backend.last["x-forwarded-for"] == "::1"
    assert source_of(gateway, got) == "::1"
    is_error(client.exchange(fields=outside.authorization), "forbidden_origin", closes=False)


def test_a_mapped_address_is_the_ipv4_address(proofgw, backend):
    """On a dual-stack listener the kernel reports ::ffff:127.0.0.1; lists, headers and logs know 127.0.0.1."""
    v4, v6 = Partner("v4", production=["127.0.0.1"]), Partner("v6", production=["::1"])
    gateway = proofgw([v4, v6], listeners=[{"address": "*:0"}])
    over_v4, over_v6 = gateway.client(), gateway.client(("::1", gateway.port))
    got = is_passed(over_v4.exchange(fields=v4.authorization))
    assert backend.last["x-forwarded-for"] == "127.0.0.1"
    assert source_of(gateway, got) == "127.0.0.1"
    is_error(over_v4.exchange(fields=v6.authorization), "forbidden_origin")
    is_passed(over_v6.exchange(fields=v6.authorization))
    assert backend.last["x-forwarded-for"] == "::1"
    is_error(over_v6.exchange(fields=v4.authorization), "forbidden_origin")
    is_error(gateway.client(source="127.0.0.2").exchange(fields=v4.authorization), "forbidden_origin")


def test_the_same_partner_over_both_families(proofgw, backend):
    partner = Partner(production=["127.0.0.1", "::1"])
    gateway = proofgw([partner], listeners=[{"address": "127.0.0.1:0"}, {"address": "[::1]:0"}], workers=4)
    v4, v6 = gateway.ports
    for address in [("127.0.0.1", v4), ("::1", v6)]:
        is_passed(gateway.client(address).exchange(fields=partner.authorization))
        assert backend.last["x-forwarded-for"] == address[0]


def test_the_list_is_that_of_the_requests_environment(proofgw, backend):
    """Two requests of one connection, one environment each: the same address, two verdicts."""
    production, sandbox = Partner("p", production=["127.0.0.1"]), Partner("s", production=["127.0.0.9"])
    sandbox.sandbox = ["127.0.0.1"]
    gateway = proofgw([production, sandbox])
    client = gateway.client()
    for _ in range(2):
        is_passed(client.exchange(host=HOST, fields=production.authorization))
        is_error(client.exchange(host=SANDBOX_HOST, fields=production.authorization), "forbidden_origin")
        is_passed(client.exchange(host=SANDBOX_HOST, fields=sandbox.authorization))
        is_error(client.exchange(host=HOST, fields=sandbox.authorization), "forbidden_origin")


@pytest.mark.parametrize("where", ["before", "after"])
def test_what_a_client_claims_about_its_address_is_never_believed(proofgw, backend, where):
    partner = Partner(production=["127.0.0.9"])
    gateway = proofgw([partner])
    fields = CLAIMS + partner.authorization if where == "before" else partner.authorization + CLAIMS
    got = gateway.client().exchange(fields=fields)
    is_error(got, "forbidden_origin", closes=False)
    assert source_of(gateway, got) == "127.0.0.1"
    is_passed(gateway.client(source="127.0.0.9").exchange(fields=fields.replace("127.0.0.9", "127.0.0.1")))
    assert backend.last.fields.all("x-forwarded-for") == ["127.0.0.9"]


def test_a_proxy_protocol_line_is_not_http(gateway, backend, partner):
    client = gateway.client()
    data = b"PROXY TCP4 127.0.0.1 127.0.0.1 1234 80\r\n" + request(fields=partner.authorization)
    is_error(client.ask(data), "decode_error", closes=True)
    client.expect_close()
    assert not backend.requests


def test_a_unix_socket_has_no_address_so_nobody_is_let_in(proofgw, backend, tmp_path):
    partner = Partner(production=["127.0.0.0/8", "0.0.0.0/8", "::/16"])
    path = tmp_path / "listen.sock"
    gateway = proofgw([partner], listeners=[{"address": f"unix:{path}"}, {"address": "127.0.0.1:0"}])
    client = gateway.client(path)
    is_error(client.exchange(), "missing_token", closes=False)
    is_error(client.exchange(target="/nowhere"), "not_found", closes=False)
    got = client.exchange(fields=CLAIMS + partner.authorization)
    is_error(got, "forbidden_origin", closes=False)
    assert gateway.line_of(got)["deny"] == "address"
    is_passed(gateway.client().exchange(fields=partner.authorization))
    assert len(backend.requests) == 1


def test_ipv4_is_outside_of_every_ipv6_prefix(proofgw):
    """::/16 holds ::1 and the mapped form of every IPv4 address, which is no address of its own."""
    partner = Partner(production=["::/16"])
    gateway = proofgw([partner], listeners=[{"address": "*:0"}])
    is_passed(gateway.client(("::1", gateway.port)).exchange(fields=partner.authorization))
    is_error(gateway.client().exchange(fields=partner.authorization), "forbidden_origin")


def test_connections_from_nobodys_address_are_counted(proofgw, backend):
    partner = Partner(production=["127.0.0.1"], sandbox=["127.0.0.2"])
    gateway = proofgw([partner])
    for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.3"):
        gateway.client(source=source).exchange()
    assert gateway.metrics()["proofgw_unknown_source_connections_total"] == 2
