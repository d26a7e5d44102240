"""A gateway that starts while Redis is away.

Goal: with a snapshot it starts from that, ready, and takes up the log when Redis is there; without one, or with one that
cannot be trusted, it answers 503 and recovers by itself; kill -9 never leaves a snapshot that is half.
Method: a real redis-server that is killed and restarted; files that are damaged, cut, foreign, or open to others.
"""

import resource
import signal

import pytest

from support.client import request
from support.expect import is_error, is_passed
from support.following import ask, becomes, full_loads, is_ready, wait_away, wait_following
from support.partners import Partner
from support.redis import REDIS_SERVER

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")
pytest_plugins = ["support.following", "support.hosts"]


# --- boot


def test_a_boot_without_redis_recovers_by_itself(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    redis.save()
    redis.kill()
    gateway = following([partner], ready=False)
    gateway.wait_event("store_away")
    is_error(ask(gateway, partner), "unavailable")
    is_error(gateway.client().ask(request()), "unavailable")
    assert not is_ready(gateway)
    redis.start()
    becomes(gateway, partner, 200, seconds=20)
    assert is_ready(gateway)


def test_a_name_with_several_addresses(following, redis, hosts):
    """Nobody listens at the first one (resolvers prefer it: it is nearest): the next try takes the next one."""
    hosts({"redis.test": ["127.0.0.1", "127.0.0.2"]})
    redis.admin("CONFIG", "SET", "bind", "127.0.0.2")
    partner = Partner("acme")
    redis.put(partner)
    gateway = following([partner], redis_keys={"address": f"redis.test:{redis.open_port()}"})
    is_passed(ask(gateway, partner))


def write_snapshot(following, partners, snapshot):
    """A gateway that lived long enough to write it."""
    gateway = following(partners, snapshot=snapshot)
    gateway.wait_event("store_snapshot")
    assert snapshot.stat().st_mode & 0o777 == 0o600
    content = snapshot.read_bytes()
    assert not any(token.encode() in content for p in partners for token in p.tokens)
    return gateway


def test_a_boot_without_redis_starts_from_the_snapshot(following, redis, tmp_path):
    partner, late, snapshot = Partner("acme"), Partner("late"), tmp_path / "partners.snapshot"
    redis.put(partner)
    write_snapshot(following, [partner], snapshot)
    redis.save()
    redis.kill()
    gateway = following([partner, late], snapshot=snapshot, ready=False)
    assert gateway.events("store_snapshot_loaded")
    is_passed(ask(gateway, partner))
    assert is_ready(gateway)
    redis.start()
    wait_following(gateway, 1)
    redis.put(late)
    becomes(gateway, late, 200)
    assert full_loads(gateway) == {}, "the log reaches back to the snapshot: no load was due"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "another tag", "others may write"])
def test_a_snapshot_that_cannot_be_trusted_is_refused(following, redis, tmp_path, damage):
    partner, snapshot = Partner("acme"), tmp_path / "partners.snapshot"
    redis.put(partner)
    write_snapshot(following, [partner], snapshot).finish()
    redis.save()
    redis.kill()
    content = bytearray(snapshot.read_bytes())
    if damage == "cut":
        snapshot.write_bytes(content[:-1])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        snapshot.write_bytes(content)
    elif damage in ("empty", "foreign"):
        snapshot.write_bytes(b"" if damage == "empty" else b"#!/bin/sh\n" * 100)
    elif damage == "others may write":
        snapshot.chmod(0o666)
    keys = {"tag": "other"} if damage == "another tag" else {}
    gateway = following([partner], snapshot=snapshot, ready=False, redis_keys=keys)
    assert gateway.events("store_snapshot_refused")[0]["cause"]
    assert gateway.metrics()["proofgw_store_snapshot_failures_total"] == 1
    is_error(ask(gateway, partner), "unavailable")
    assert not is_ready(gateway)
    redis.start()
    if damage == "another tag":
        wait_away(gateway, "NOPERM")  # the rights are for one tag
    else:
        becomes(gateway, partner, 200, seconds=20)


def test_a_snapshot_that_may_not_be_so_large(following, redis, tmp_path):
    """The limit comes when it is written at the end. It is an error like others, not a signal."""
    snapshot = tmp_path / "partners.snapshot"
    partners = [Partner(f"p{i}") for i in range(1000)]
    redis.put(*partners)
    gateway = following(partners[:1], snapshot=snapshot)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert "File too large" in gateway.wait_event("store_snapshot_failed")[0]["cause"]
    assert not snapshot.exists()


# --- kill -9 of the gateway


def kill_9(gateway):
    gateway.exit_code = -signal.SIGKILL
    gateway.signal(signal.SIGKILL)
    gateway.wait_exit()


def test_a_killed_gateway_starts_again_with_what_changed_meanwhile(following, redis, tmp_path):
    partner, gone, late = Partner("acme"), Partner("gone"), Partner("late")
    snapshot = tmp_path / "partners.snapshot"
    redis.put(partner, gone)
    kill_9(write_snapshot(following, [partner, gone], snapshot))
    redis.remove(gone)
    redis.put(late)
    gateway = following([partner, gone, late], snapshot=snapshot, ready=False)
    becomes(gateway, late, 200, seconds=10)
    is_passed(ask(gateway, partner))
    is_error(ask(gateway, gone), "invalid_token")


def test_a_gateway_killed_while_changes_arrive_leaves_a_usable_snapshot(following, redis, tmp_path):
    partners, snapshot = [Partner(f"p{i}") for i in range(100)], tmp_path / "partners.snapshot"
    redis.put(*partners)
    gateway = write_snapshot(following, partners, snapshot)
    for partner in partners:
        partner.off_ramp = True
        redis.put(partner)
    kill_9(gateway)
    redis.kill()
    again = following(partners, snapshot=snapshot, ready=False)
    assert again.events("store_snapshot_loaded")[0]["records"] == "100"
    assert all(ask(again, p).status == 200 for p in partners)


# --- not let in


def test_a_wrong_password_is_named_and_read_again(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    wrong = "pw_canary_wrong"
    redis.write_password(wrong)
    gateway = following([partner], ready=False)
    gateway.secrets.append(wrong)
    wait_away(gateway, "WRONGPASS")
    is_error(ask(gateway, partner), "unavailable")
    redis.write_password(redis.passwords["gateway"])
    becomes(gateway, partner, 200, seconds=20)


def test_an_unknown_user_is_named(following, redis):
    gateway = following([], redis_keys={"user": "nobody"}, ready=False)
    wait_away(gateway, "WRONGPASS")


def test_no_password_at_all_is_named(following, redis):
    gateway = following([], redis_keys={"user": None, "password_file": None}, ready=False)
    wait_away(gateway, "NOAUTH")


@pytest.mark.parametrize("right", ["role", "hmget", "scan", "hgetall", "xrange", "xread"])
def test_a_missing_right_is_named(following, redis, right):
    partner = Partner("acme")
    redis.put(partner)
    redis.admin("ACL", "SETUSER", "gateway", f"-{right}")
    gateway = following([partner], ready=False)
    event = wait_away(gateway, "NOPERM")
    assert right.upper() in event["cause"].upper()
    redis.admin("ACL", "SETUSER", "gateway", f"+{right}")
    becomes(gateway, partner, 200, seconds=20)


def test_a_password_file_that_everybody_may_read_is_refused(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    redis.password_file.chmod(0o644)
    gateway = following([partner], ready=False)
    wait_away(gateway, "everybody may read it")
    redis.password_file.chmod(0o600)
    becomes(gateway, partner, 200, seconds=20)


def test_a_replica_is_not_followed(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    redis.admin("REPLICAOF", "127.0.0.1", "1")
    gateway = following([partner], ready=False)
    wait_away(gateway, "master")
    is_error(ask(gateway, partner), "unavailable")
    redis.admin("REPLICAOF", "NO", "ONE")
    becomes(gateway, partner, 200, seconds=20)


def test_a_master_that_becomes_a_replica_is_left(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    gateway = following([partner])
    redis.admin("REPLICAOF", "127.0.0.1", "1")
    gateway.wait_event("store_away")
    is_passed(ask(gateway, partner))
    assert is_ready(gateway)
    redis.admin("REPLICAOF", "NO", "ONE")
    wait_following(gateway, 2)


def test_rights_taken_away_while_it_follows_cost_nobody_access(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    gateway = following([partner])
    redis.admin("ACL", "SETUSER", "gateway", "-@all")
    redis.put(partner)
    wait_away(gateway, "NOPERM")
    is_passed(ask(gateway, partner))
    assert is_ready(gateway)


def test_another_schema_is_refused_in_words(following, redis):
    redis.admin("HSET", redis.key("meta"), "schema", "2")
    gateway = following([], ready=False)
    wait_away(gateway, "schema 2")
