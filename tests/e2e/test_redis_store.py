"""Partners from Redis: what an operator commits counts everywhere at once.

Goal: every change is obeyed within a second, on open connections and tunnels too, by every gateway; what is changed past
the script is found; nobody but the operator can write.
Method: a real redis-server with least-privilege users, written by the very script that the programs send; real gateways.
"""

import random
import time

import pytest

from support.expect import is_error, is_passed
from support.following import PROMPT_S, ask, becomes, echo, expect_policy_close, full_loads, open_tunnel
from support.partners import Partner, new_token
from support.redis import REDIS_SERVER, RedisError, fields_of
from support.wait import wait_for

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")
pytest_plugins = ["support.following"]


# --- changes


def test_a_new_partner_gets_in_within_a_second(following, redis):
    first, second = Partner("first"), Partner("second")
    redis.put(first)
    gateway = following([first, second])
    is_passed(ask(gateway, first))
    is_error(ask(gateway, second), "invalid_token")
    redis.put(second)
    becomes(gateway, second, 200)
    is_passed(ask(gateway, first))


def revoke(redis, partner):
    old = partner.token
    partner.token = new_token()
    redis.put(partner)
    partner.token = old


def disable(redis, partner):
    partner.enabled = False
    redis.put(partner)


def take_address(redis, partner):
    partner.production = ["192.0.2.1"]
    redis.put(partner)


def remove(redis, partner):
    redis.remove(partner)


CUTS = [
    (revoke, "invalid_token", "token"),
    (disable, "invalid_token", "disabled"),
    (take_address, "forbidden_origin", "address"),
    (remove, "invalid_token", "token"),
]


@pytest.mark.parametrize("change, code, why", CUTS)
def test_a_change_counts_on_open_connections_and_tunnels(following, redis, demo, change, code, why):
    partner, other = Partner("acme"), Partner("other")
    redis.put(partner, other)
    gateway = following([partner, other], upstream=demo.address)
    open_connection = gateway.client()
    assert open_connection.exchange(fields=partner.authorization).status == 200
    cut, kept = open_tunnel(gateway, partner), open_tunnel(gateway, other)
    echo(cut), echo(kept)
    committed = time.monotonic()
    change(redis, partner)
    expect_policy_close(cut)
    assert time.monotonic() - committed < PROMPT_S
    is_error(open_connection.exchange(fields=partner.authorization), code)
    echo(kept)
    assert gateway.metrics()("proofgw_tunnels_closed_total", reason=why) == 1


def test_a_revocation_ends_many_tunnels_at_once(following, redis, demo):
    partner, other = Partner("acme"), Partner("other")
    redis.put(partner, other)
    gateway = following([partner, other], upstream=demo.address, workers=4)
    cut = [open_tunnel(gateway, partner) for _ in range(100)]
    kept = [open_tunnel(gateway, other) for _ in range(20)]
    revoke(redis, partner)
    for client in cut:
        expect_policy_close(client)
    for client in kept:
        echo(client)
    assert gateway.metrics()("proofgw_tunnels_closed_total", reason="token") == 100


def test_a_rotation_keeps_both_tokens_until_the_grace_ends(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    gateway = following([partner])
    old = Partner("acme", token=partner.token)
    until = time.time() + 2
    partner.rotate(grace_until=until)
    gateway.secrets.append(partner.token)
    redis.put(partner)
    becomes(gateway, partner, 200)
    is_passed(ask(gateway, old))
    becomes(gateway, old, 401, seconds=2 + PROMPT_S)
    assert time.time() >= until - 0.001  # the record holds whole milliseconds
    is_passed(ask(gateway, partner))


def test_a_partner_that_comes_back_gets_in_again(following, redis):
    partner, other = Partner("acme"), Partner("other")
    redis.put(partner, other)
    gateway = following([partner, other])
    for _ in range(3):
        redis.remove(partner)
        becomes(gateway, partner, 401)
        redis.put(partner)
        becomes(gateway, partner, 200)
    assert full_loads(gateway) == {"first": 1}


def test_three_gateways_obey_the_same_changes(following, redis):
    partner, other = Partner("acme"), Partner("other")
    redis.put(other)
    gateways = [following([partner, other]) for _ in range(3)]
    steps = [
        (lambda: redis.put(partner), 200),
        (lambda: take_address(redis, partner), 403),
        (lambda: redis.put(Partner("acme", token=partner.token, widget_id=partner.widget_id)), 200),
        (lambda: redis.remove(partner), 401),
    ]
    for change, status in steps:
        change()
        for gateway in gateways:
            becomes(gateway, partner, status)
            is_passed(ask(gateway, other))


def test_a_thousand_changes_in_a_row_arrive_without_a_reload(following, redis):
    partners = [Partner(f"p{i}") for i in range(50)]
    redis.put(*partners)
    gateway = following(partners)
    for i in range(20):
        for partner in partners:
            partner.off_ramp = not partner.off_ramp
        redis.put(*partners)
    last = Partner("last")
    redis.put(last)
    gateway.secrets.append(last.token)
    becomes(gateway, last, 200, seconds=10)
    assert full_loads(gateway) == {"first": 1}


def test_a_record_that_does_not_validate_is_refused_alone(following, redis):
    good, bad = Partner("good"), Partner("bad")
    record = {**bad.record(), "production_cidrs": ["10.1.2.3/8"]}
    redis.put(good)
    redis.put_fields("bad", fields_of(record))
    gateway = following([good, bad])
    assert [e["partner"] for e in gateway.events("store_record_error")] == ["bad"]
    is_passed(ask(gateway, good))
    is_error(ask(gateway, bad), "invalid_token")
    redis.put(bad)
    becomes(gateway, bad, 200)


def test_a_load_names_only_the_first_records_it_refuses(following, redis):
    good = Partner("good")
    redis.put(good)
    for i in range(25):
        bad = Partner(f"bad{i}")
        redis.put_fields(f"bad{i}", fields_of({**bad.record(), "production_cidrs": ["10.1.2.3/8"]}))
    gateway = following([good])
    is_passed(ask(gateway, good))
    assert [event["records"] for event in gateway.wait_event("store_record_more")] == ["5"]
    assert len(gateway.events("store_record_error")) == 20


def test_two_partners_never_share_a_token(following, redis):
    first = Partner("first")
    redis.put(first)
    gateway = following([first])
    redis.put(Partner("second", token=first.token))
    event = gateway.wait_event("store_record_error")[-1]
    assert event["partner"] == "second"
    is_passed(ask(gateway, first))


class Model:
    """What operators did, and what every gateway must therefore answer."""

    def __init__(self, redis, rng):
        self.redis, self.rng = redis, rng
        self.partners = {}  # those that exist
        self.dead = []  # tokens that have been replaced or removed, as partners to ask with
        self.number = 0

    def step(self):
        change = self.rng.choice([self.add, self.add, self.remove, self.revoke, self.toggle, self.move])
        if change == self.add or not self.partners:
            self.add()
        else:
            change(self.rng.choice(list(self.partners.values())))

    def add(self):
        self.number += 1
        partner = Partner(f"p{self.number}")
        self.partners[partner.partner_id] = partner
        self.redis.put(partner)

    def bury(self, partner):
        self.dead.append(Partner(partner.partner_id, token=partner.token))

    def remove(self, partner):
        self.bury(partner)
        del self.partners[partner.partner_id]
        self.redis.remove(partner)

    def revoke(self, partner):
        self.bury(partner)
        partner.token = new_token()
        self.redis.put(partner)

    def toggle(self, partner):
        partner.enabled = not partner.enabled
        self.redis.put(partner)

    def move(self, partner):
        partner.production = ["192.0.2.1"] if "127.0.0.1" in partner.production else ["127.0.0.1", "10.0.0.0/8"]
        self.redis.put(partner)

    def expected(self, partner):
        if not partner.enabled:
            return 401
        return 200 if "127.0.0.1" in partner.production else 403

    def check(self, gateway):
        for partner in self.partners.values():
            assert ask(gateway, partner).status == self.expected(partner), partner.partner_id
        for partner in self.dead:
            assert ask(gateway, partner).status == 401, f"a token of {partner.partner_id} that is no more"


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_leave_every_gateway_as_the_model(following, redis, seed):
    """With a Redis that dies in the middle: what was saved last is what it has afterwards."""
    model = Model(redis, random.Random(seed))
    marker = Partner("marker")
    gateways = [following([marker], redis_keys={"deletion_limit": 100}) for _ in range(2)]
    for _ in range(3):
        for _ in range(40):
            model.step()
        redis.save()
        redis.kill()
        redis.start()
        model.step()
        redis.put(marker)
        for gateway in gateways:
            becomes(gateway, marker, 200, seconds=20)
            model.check(gateway)
        redis.remove(marker)
        for gateway in gateways:
            becomes(gateway, marker, 401)
    for gateway in gateways:
        gateway.secrets += [p.token for p in [*model.partners.values(), *model.dead]]
        assert full_loads(gateway) == {"first": 1}


def test_redis_on_a_tcp_port(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    gateway = following([partner], redis_keys={"address": f"localhost:{redis.open_port()}"})
    is_passed(ask(gateway, partner))
    redis.remove(partner)
    becomes(gateway, partner, 401)


# --- the writer


def test_a_write_that_expects_another_version_changes_nothing(redis):
    partner = Partner("acme")
    version = redis.put(partner)
    with pytest.raises(RedisError, match=f"^CONFLICT {version}$"):
        redis.put(partner, expected=version + 1)
    assert redis.put(partner, expected=version) == version + 1


def test_the_user_of_the_gateway_can_write_nothing_but_its_position(redis):
    redis.put(Partner("acme"))
    gateway = redis.connect("gateway")
    refused = [
        ("HSET", redis.key("p:acme"), "enabled", "false"),
        ("SET", redis.key("p:acme"), "x"),
        ("SET", redis.key("seq"), "1"),
        ("DEL", redis.key("meta")),
        ("DEL", redis.key("p:acme")),
        ("GET", redis.key("g:0123456789abcdef")),
        ("FLUSHALL",),
    ]
    for command in refused:
        with pytest.raises(RedisError, match="^NOPERM"):
            gateway(*command)


# --- changes by hand


def test_the_scrub_finds_a_changed_record(following, redis):
    partner, other = Partner("acme"), Partner("other")
    redis.put(partner, other)
    gateway = following([partner, other], redis_keys={"scrub_interval": "1s"})
    redis.admin("HSET", redis.key("p:acme"), "enabled", "false")
    becomes(gateway, partner, 401, seconds=20)
    is_passed(ask(gateway, other))
    assert gateway.wait_event("store_scrub_repair")[0]["partner"] == "acme"


def test_the_scrub_finds_a_deleted_record(following, redis):
    partners = [Partner(f"p{i}") for i in range(10)]
    redis.put(*partners)
    gateway = following(partners, redis_keys={"scrub_interval": "1s"})
    redis.admin("DEL", redis.key("p:p3"))
    becomes(gateway, partners[3], 401, seconds=30)
    assert all(ask(gateway, p).status == 200 for p in partners if p is not partners[3])
    assert gateway.events("store_inconsistent")


def test_the_scrub_leaves_records_alone_that_are_as_they_should_be(following, redis):
    partners = [Partner(f"p{i}") for i in range(10)]
    redis.put(*partners)
    gateway = following(partners, redis_keys={"scrub_interval": "1s"})
    for partner in partners:
        redis.put(partner)
    assert {e["repairs"] for e in gateway.wait_event("store_scrubbed", 3)} == {"0"}
    assert full_loads(gateway) == {"first": 1}


# --- what gateways report of themselves


def test_gateways_report_their_position(following, redis):
    partner, late = Partner("acme"), Partner("late")
    redis.put(partner)
    gateways = [following([partner, late]) for _ in range(3)]
    sequence = redis.put(late)
    reports = wait_for(lambda: [r for r in redis.reports().values() if r["seq"] == sequence][2:] and redis.reports(), redis.reports)
    assert {r["pid"] for r in reports.values()} == {g.process.pid for g in gateways}
    for instance, report in reports.items():
        assert report["instance"] == instance
        assert (report["state"], report["partners"]) == ("live", 2)
        assert report["started_ms"] <= report["last_change_ms"] <= time.time() * 1000
        assert 0 < redis.admin("PTTL", redis.key(f"g:{instance}")) <= 15000
    gateways[0].finish()
    left = {g.process.pid for g in gateways[1:]}
    wait_for(lambda: {r["pid"] for r in redis.reports().values()} == left, redis.reports)


def test_the_position_is_reported_promptly(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    following([partner])
    wait_for(redis.reports, "a report")
    for _ in range(10):
        sequence = redis.put(partner)
        wait_for(lambda: [r for r in redis.reports().values() if r["seq"] == sequence], redis.reports, PROMPT_S)


def test_a_gateway_without_the_right_to_report_works(following, redis):
    partner, late = Partner("acme"), Partner("late")
    redis.put(partner)
    redis.admin("ACL", "SETUSER", "gateway", "-set", "-del")
    gateway = following([partner, late])
    event = gateway.wait_event("store_report_refused")[0]
    assert "NOPERM" in event["cause"]
    for _ in range(3):
        sequence = redis.put(late)
    becomes(gateway, late, 200)
    gateway.wait_metric("proofgw_store_report_failures_total", lambda n: n >= 2)
    assert len(gateway.events("store_report_refused")) == 1
    assert not gateway.events("store_away")
    redis.admin("ACL", "SETUSER", "gateway", "+set", "+del")
    wait_for(lambda: [r for r in redis.reports().values() if r["seq"] == sequence], redis.reports)
