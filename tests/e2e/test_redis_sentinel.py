"""A master, two replicas, a Sentinel and a real failover.

Goal: the gateway finds the master by asking, follows the new one after a failover without reading everything again, never
follows a replica, and serves all the while.
Method: real processes, least-privilege users; partners are written to whichever server is the master by the project's script.
"""

import contextlib

import pytest

from support.expect import is_passed
from support.following import ask, becomes, full_loads, is_ready, wait_away
from support.partners import Partner
from support.redis import REDIS_SERVER, Sentinel, running_redis

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")


class Group:
    def __init__(self, servers, sentinel):
        self.servers, self.sentinel = servers, sentinel
        self.master = servers[0]

    def others(self):
        return [s for s in self.servers if s is not self.master]

    def wait_failover(self):
        self.master = self.sentinel.wait_master(self.others())


@pytest.fixture
def group(tmp_path):
    with contextlib.ExitStack() as stack:
        servers = []
        for i in range(3):
            passwords = servers[0].passwords if servers else None
            servers.append(stack.enter_context(running_redis(tmp_path / f"redis{i}", passwords)))
            servers[i].open_port()
        servers[0].initialise()
        for replica in servers[1:]:
            replica.replicate(servers[0])
        sentinel = Sentinel(tmp_path / "sentinel", servers[0], replicas=2)
        stack.callback(sentinel.close)
        yield Group(servers, sentinel)


@pytest.fixture
def follower(proofgw, group):
    """A gateway that knows nothing but the Sentinel, and its partner."""

    def make(*partners):
        store = group.master.config(**group.sentinel.config())
        gateway = proofgw(partners=list(partners), store=store)
        gateway.secrets += group.master.passwords.values()
        return gateway

    return make


def wait_replicated(group):
    """All replicas have what the master has."""
    assert group.master.admin("WAIT", len(group.others()), 10000) == len(group.others())


def test_the_gateway_follows_a_master_that_was_promoted_after_a_crash(group, follower):
    partner, late = Partner("acme"), Partner("late")
    group.master.put(partner)
    gateway = follower(partner, late)
    wait_replicated(group)
    group.master.kill()
    gateway.wait_event("store_away")
    is_passed(ask(gateway, partner))
    assert is_ready(gateway)
    group.wait_failover()
    group.master.put(late)
    becomes(gateway, late, 200, seconds=30)
    is_passed(ask(gateway, partner))
    assert full_loads(gateway) == {"first": 1}, "the replica had the same log: no reload was due"


def test_the_gateway_follows_a_planned_failover(group, follower):
    partner, late = Partner("acme"), Partner("late")
    group.master.put(partner)
    gateway = follower(partner, late)
    wait_replicated(group)
    assert group.sentinel("SENTINEL", "failover", Sentinel.NAME) == "OK"
    group.wait_failover()
    group.master.put(late)
    becomes(gateway, late, 200, seconds=30)
    is_passed(ask(gateway, partner))


def test_a_master_that_is_cut_off_is_left(group, follower):
    """It stays a master and says nothing about it: only the Sentinel knows that there is another one."""
    partner, late = Partner("acme"), Partner("late")
    group.master.put(partner)
    gateway = follower(partner, late)
    wait_replicated(group)
    with group.master.stopped():
        group.wait_failover()
        group.master.put(late)
        becomes(gateway, late, 200, seconds=30)
    is_passed(ask(gateway, partner))


def test_a_name_that_the_sentinel_does_not_know_is_named(group, proofgw):
    keys = group.sentinel.config()
    keys["sentinel"]["master"] = "somebody"
    gateway = proofgw(partners=[], store=group.master.config(**keys), ready=False)
    wait_away(gateway, "knows no master named somebody")
