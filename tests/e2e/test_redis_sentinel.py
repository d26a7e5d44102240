"""A master, two replicas, a Sentinel and a real failover.

Goal: the gateway finds the master by asking, follows the new one after a failover without reading everything again, never
follows a replica, and serves all the while.
Method: real processes, least-privilege users; partners are written to whichever server is the master by the project's script.
"""

import pytest

from support.expect import is_passed
from support.following import ask, becomes, full_loads, is_ready, wait_away
from support.partners import Partner
from support.redis import REDIS_SERVER

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")
pytest_plugins = ["support.failover"]


@pytest.fixture
def follower(proofgw, group):
    """A gateway that knows nothing but the Sentinel, and its partner."""

    def make(*partners):
        store = group.master.config(**group.sentinel.config())
        gateway = proofgw(partners=list(partners), store=store)
        gateway.secrets += [*group.master.passwords.values(), *group.sentinel.passwords.values()]
        return gateway

    return make


def test_the_gateway_follows_a_master_that_was_promoted_after_a_crash(group, follower):
    partner, late = Partner("acme"), Partner("late")
    group.master.put(partner)
    gateway = follower(partner, late)
    group.wait_replicated()
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
    group.wait_replicated()
    group.plan_failover()
    group.master.put(late)
    becomes(gateway, late, 200, seconds=30)
    is_passed(ask(gateway, partner))


def test_a_master_that_is_cut_off_is_left(group, follower):
    """It stays a master and says nothing about it: only the Sentinel knows that there is another one."""
    partner, late = Partner("acme"), Partner("late")
    group.master.put(partner)
    gateway = follower(partner, late)
    group.wait_replicated()
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


LOGINS = [
    ({"user": None, "password_file": None}, "NOAUTH"),
    ({"user": None}, "WRONGPASS"),
    ({"password_file": "/nonexistent/password"}, "/nonexistent/password"),
]


@pytest.mark.parametrize("changes, cause", LOGINS)
def test_a_sentinel_that_does_not_let_us_in_is_named(group, proofgw, changes, cause):
    keys = group.sentinel.config()
    keys["sentinel"] = {key: value for key, value in {**keys["sentinel"], **changes}.items() if value}
    gateway = proofgw(partners=[], store=group.master.config(**keys), ready=False)
    event = wait_away(gateway, cause)
    assert event["reason"] == "sentinel"
    assert "Sentinel 127.0.0.1" in event["cause"]


def test_a_changed_password_of_the_sentinel_needs_no_restart(group, follower):
    """The gateway is let in again as soon as its file says what the Sentinel wants."""
    partner, late = Partner("acme"), Partner("late")
    group.master.put(partner)
    gateway = follower(partner, late)
    group.sentinel("ACL", "SETUSER", "gateway", "resetpass", ">another-one")
    group.sentinel("CLIENT", "KILL", "USER", "gateway")
    group.master.admin("CLIENT", "KILL", "USER", "gateway")
    wait_away(gateway, "WRONGPASS")
    is_passed(ask(gateway, partner))
    group.sentinel.password_file.write_text("another-one\n", encoding="utf-8")
    group.master.put(late)
    becomes(gateway, late, 200, seconds=30)
