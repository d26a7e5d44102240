"""A change cuts the tunnels that it concerns, within a second, however many are open.

Goal: with 10,000 WebSocket tunnels through one gateway, everything that takes a partner's access away - token revoked, partner disabled,
address off the list, partner removed, grace over - ends exactly the tunnels of that partner, each with a close frame 1008
between two frames, within a second of the commit in Redis; everybody else's go on, and what a change costs is what it concerns.
Method: real Redis, real gateway, demo backend, one client process with epoll (support/fleet.py). Each kind of change hits ten
tunnels, and later all kinds together hit nearly all. The CPU time of the gateway is compared between the two.

A tunnel takes two descriptors of the gateway, so a hard limit below 20,200 makes it fewer tunnels.
"""

import statistics
import time

import pytest

from support.fleet import Fleet, cpu_seconds, many_descriptors
from support.following import PROMPT_S
from support.partners import Partner, new_token
from support.redis import REDIS_SERVER

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")
pytest_plugins = ["support.following"]

SOURCES = [f"127.0.0.{i}" for i in range(2, 10)]
FEW, OTHERS, BUSY = 10, 90, 20
OWN_DESCRIPTORS = 200  # of the gateway, beside tunnels
GRACE_S = 0.5


def revoke(redis, partner):
    partner.token = new_token()
    redis.put(partner)
    return time.monotonic()


def disable(redis, partner):
    partner.enabled = False
    redis.put(partner)
    return time.monotonic()


def take_address(redis, partner):
    partner.production = ["192.0.2.1", "127.0.0.1"]
    redis.put(partner)
    return time.monotonic()


def remove(redis, partner):
    redis.remove(partner)
    return time.monotonic()


def let_grace_end(redis, partner):
    """The commit itself cuts nobody; the end of the grace does."""
    due, until = time.monotonic() + GRACE_S, time.time() + GRACE_S
    partner.rotate(grace_until=until)
    redis.put(partner)
    return due


CUTS = {revoke: "token", remove: "token", disable: "disabled", take_address: "address", let_grace_end: "expired"}


class Group:
    """A partner and its tunnels."""

    def __init__(self, name):
        self.partner = Partner(name, production=["127.0.0.0/8"])
        self.tunnels = []

    def cut(self, redis, change):
        self.due = change(redis, self.partner)

    def check(self, change):
        for tunnel in self.tunnels:
            assert tunnel.close_code == 1008
            assert tunnel.closed_at - self.due < PROMPT_S, f"{change.__name__}: {tunnel.closed_at - self.due:.3f} s"
            assert change is not let_grace_end or tunnel.closed_at >= self.due - 0.002, "cut before the grace was over"


def closed_by_reason(gateway):
    return {
        labels["reason"]: value
        for name, labels, value in gateway.metrics().samples
        if name == "proofgw_tunnels_closed_total" and value
    }


@pytest.fixture
def descriptors():
    with many_descriptors() as number:
        yield number


@pytest.fixture
def fleet(descriptors, following, redis, request):
    """Made by a function of the partners, so that it can be closed before the gateway ends."""
    made = []

    def make(partners, upstream):
        redis.put(*partners)
        limits = {"tunnels_per_worker": 20000, "connections_per_source": 0}
        gateway = following(partners, upstream=upstream, workers=2, limits=limits)
        made.append(Fleet(gateway))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.mark.parametrize("wanted", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_change_cuts_its_tunnels_and_costs_no_more_than_these(fleet, redis, demo, descriptors, wanted):
    total = min(wanted, (descriptors - OWN_DESCRIPTORS) // 2)
    few = {change: Group(f"few-{i}") for i, change in enumerate(CUTS)}
    many = {change: Group(f"many-{i}") for i, change in enumerate(CUTS)}
    others = Group("others")
    groups = [others, *few.values(), *many.values()]
    fleet = fleet([g.partner for g in groups], demo.address)
    gateway = fleet.gateway

    others.tunnels = fleet.open(others.partner, OTHERS, SOURCES)
    for group in few.values():
        group.tunnels = fleet.open(group.partner, FEW, SOURCES)
    for group in many.values():
        share = (total - OTHERS - FEW * len(few)) // len(many)
        group.tunnels = fleet.open(group.partner, share - BUSY, SOURCES)
        group.tunnels += fleet.open(group.partner, BUSY, SOURCES, "interval_ms=50&updates=1000000")
    gateway.secrets += [token for g in groups for token in g.partner.tokens]
    opened = {g: len(g.tunnels) for g in groups}
    assert gateway.metrics()["proofgw_tunnels_open"] == sum(opened.values())

    left, costs = [t for g in groups for t in g.tunnels], []
    for change, group in few.items():
        before = cpu_seconds(gateway.process)
        group.cut(redis, change)
        fleet.wait_closed(group.tunnels)
        costs.append(cpu_seconds(gateway.process) - before)
        group.check(change)
        left = [t for t in left if t not in group.tunnels]
    fleet.echo(left)
    few_by_reason = {"token": 2 * FEW, "disabled": FEW, "address": FEW, "expired": FEW}
    assert closed_by_reason(gateway) == few_by_reason

    before = cpu_seconds(gateway.process)
    many[let_grace_end].cut(redis, let_grace_end)
    for change, group in many.items():
        if change is not let_grace_end:
            group.cut(redis, change)
    for group in many.values():
        fleet.wait_closed(group.tunnels)
    cost_of_many = cpu_seconds(gateway.process) - before
    for change, group in many.items():
        group.check(change)
    fleet.echo(others.tunnels)
    expected = dict(few_by_reason)
    for change, group in many.items():
        expected[CUTS[change]] += opened[group]
    assert closed_by_reason(gateway) == expected
    assert gateway.metrics()["proofgw_tunnels_open"] == OTHERS
    # Fifty busy tunnels take some of it in either case; without an index, both would cost nearly the same.
    assert statistics.median(costs) < cost_of_many / 5, (costs, cost_of_many)


def test_an_address_off_the_list_cuts_only_who_called_from_it(fleet, redis, demo):
    partner, other = Partner("acme", production=SOURCES), Partner("other", production=SOURCES)
    fleet = fleet([partner, other], demo.address)
    gone = fleet.open(partner, 100, SOURCES[:1])
    kept = fleet.open(partner, 100, SOURCES[1:]) + fleet.open(other, 100, SOURCES)
    partner.production = SOURCES[1:]
    redis.put(partner)
    committed = time.monotonic()
    fleet.wait_closed(gone)
    assert all(t.close_code == 1008 and t.closed_at - committed < PROMPT_S for t in gone)
    fleet.echo(kept)
    assert closed_by_reason(fleet.gateway) == {"address": len(gone)}
