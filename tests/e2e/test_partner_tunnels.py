"""The limit on the tunnels of a partner.

Goal and method: those of test_partner_limits.py. Whatever way a tunnel ends, or an upgrade that becomes none, its place is free again.
"""

import functools

import pytest

from support.backend import answer
from support.control import ask
from support.expect import is_error, is_passed
from support.partner_limits import get, is_limited, limited_gateway, open_tunnel, usage, wait_usage
from support.partners import Partner
from support.websocket import upgrade


@pytest.fixture
def make(proofgw):
    return functools.partial(limited_gateway, proofgw)


def closed_by_client(gateway, backend, partner):
    open_tunnel(gateway, backend, partner).close()


def closed_by_reset(gateway, backend, partner):
    open_tunnel(gateway, backend, partner).reset()


def closed_by_backend(gateway, backend, partner):
    open_tunnel(gateway, backend, partner, lambda c: c.reset())


def closed_by_operator(gateway, backend, partner):
    open_tunnel(gateway, backend, partner)
    assert ask(gateway.folder / "control.sock", "/tunnels/close?all=true", "POST")[0] == 200


def closed_by_removal(gateway, backend, partner):
    open_tunnel(gateway, backend, partner)
    gateway.update_partners([Partner("blue")])
    gateway.wait_metric("proofgw_tunnels_open", 0)
    gateway.update_partners([partner])


def refused_by_backend(gateway, backend, partner):
    backend.script(lambda c: (c.read_request(), c.send(answer(status="403 Forbidden")), c.drain()))
    assert gateway.client().ask(upgrade(partner)).status == 403


def lost_while_opening(gateway, backend, partner):
    backend.script(lambda c: (c.read_request(), c.drain()))
    n = len(backend.requests)
    client = gateway.client().send(upgrade(partner))
    backend.wait_requests(n + 1)
    assert usage(gateway, partner) == (0, 1)  # counted from the request on
    client.reset()


def no_upgrade(gateway, backend, partner):
    is_error(get(gateway, partner, target="/ws?tx_id=1"), "upgrade_required")


TUNNEL_ENDS = [
    closed_by_client,
    closed_by_reset,
    closed_by_backend,
    closed_by_operator,
    closed_by_removal,
    refused_by_backend,
    lost_while_opening,
    no_upgrade,
]


@pytest.mark.parametrize("end", TUNNEL_ENDS)
def test_the_place_of_a_tunnel_is_free_after(make, backend, partner, end):
    gateway = make(tunnels_per_partner=1, timeouts={"client_write": "1s"})
    for _ in range(3):
        end(gateway, backend, partner)
        wait_usage(gateway, partner, (0, 0))
    open_tunnel(gateway, backend, partner)
    assert usage(gateway, partner) == (0, 1)
    assert gateway.metrics()("proofgw_limits_hit_total", limit="tunnels_per_partner") == 0


def test_tunnels(make, backend):
    partner, other = Partner("acme"), Partner("blue")
    gateway = make([partner, other], tunnels_per_partner=2, concurrency_per_partner=1)
    first = open_tunnel(gateway, backend, partner)
    open_tunnel(gateway, backend, partner)
    clients = [gateway.client() for _ in range(5)]
    for client in clients:
        is_limited(gateway, client.ask(upgrade(partner)), "tunnels")
    is_passed(clients[0].exchange(fields=partner.authorization))  # the connection is open; a request is no tunnel
    open_tunnel(gateway, backend, other)
    first.close()
    wait_usage(gateway, partner, (0, 1))
    open_tunnel(gateway, backend, partner)
    scrape = gateway.metrics()
    assert scrape("proofgw_limits_hit_total", limit="tunnels_per_partner") == 5
    assert scrape("proofgw_auth_denied_total", reason="tunnels") == 5


def test_a_tunnel_goes_with_its_token_to_another_partner(make, backend, partner):
    gateway = make(tunnels_per_partner=1)
    client = open_tunnel(gateway, backend, partner)
    renamed = Partner("acme-new", token=partner.token)
    gateway.update_partners([renamed])
    wait_usage(gateway, renamed, (0, 1))
    is_limited(gateway, gateway.client().ask(upgrade(renamed)), "tunnels")
    client.close()
    wait_usage(gateway, renamed, (0, 0))
    open_tunnel(gateway, backend, renamed)
