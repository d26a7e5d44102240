"""The shield: connections whose address is on nobody's list."""

import contextlib

import pytest

from support.caller import CALLER, STRANGER, balancer, forwarded, listener, told
from support.client import request
from support.expect import is_error, is_passed
from support.partners import Partner
from support.proxy_header import v1, v2


@pytest.fixture
def partner():
    return Partner(production=[CALLER, "2001:db8:1::/48"])


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
