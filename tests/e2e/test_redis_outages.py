"""Redis being away harms nobody.

Goal: a Redis that is dead, empty, older, silent, locked, a replica or behind a bad line never costs a partner its access, is
never a 401 or 403, and is named in the log by its cause; a gateway ends without it.
Method: a real redis-server that is killed, stopped and restarted with whatever it had saved; a line that spoils answers.
"""

import contextlib
import random
import signal
import threading

import pytest

from support.control import ask as ask_control
from support.expect import is_error, is_passed
from support.following import ask, becomes, drop_connections, echo, full_loads, is_ready, open_tunnel, wait_away, wait_following
from support.partners import Partner
from support.redis import REDIS_SERVER
from support.wait import DEADLINE_S, wait_for

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")
pytest_plugins = ["support.following"]


def loads_are_logged(gateway, levels):
    """{reason: level of the line}; what was revoked since is valid again when the source is older."""
    wait_for(lambda: {e["reason"]: e["level"] for e in gateway.events("store_load_started")} == levels, gateway.ops_text)


# --- Redis dies


def test_redis_killed_and_restarted_with_its_data(following, redis, demo):
    partner, late = Partner("acme"), Partner("late")
    redis.put(partner)
    gateway = following([partner, late], upstream=demo.address)
    open_connection, tunnel = gateway.client(), open_tunnel(gateway, partner)
    redis.save()
    redis.kill()
    assert gateway.wait_event("store_away")[0]["server"] == f"unix:{redis.socket_path}"
    for _ in range(20):
        assert open_connection.exchange(fields=partner.authorization).status == 200
        assert ask(gateway, partner).status == 200
    echo(tunnel)
    assert is_ready(gateway)
    assert gateway.metrics()["proofgw_store_up"] == 0
    redis.start()
    wait_following(gateway, 2)
    redis.put(late)
    becomes(gateway, late, 200)
    echo(tunnel)
    assert gateway.metrics()["proofgw_store_up"] == 1
    assert full_loads(gateway) == {"first": 1}, "the log was complete: no reload was due"


def test_changes_while_a_gateway_was_cut_off_are_caught_up(following, redis):
    partner, gone = Partner("acme"), Partner("gone")
    redis.put(partner, gone)
    gateway = following([partner, gone])
    drop_connections(redis)
    redis.remove(gone)
    becomes(gateway, gone, 401, seconds=10)
    is_passed(ask(gateway, partner))
    assert full_loads(gateway) == {"first": 1}


def test_a_server_that_says_nothing_is_given_up_and_taken_up_again(following, redis):
    partner, late = Partner("acme"), Partner("late")
    redis.put(partner)
    gateway = following([partner, late])
    with redis.stopped():
        wait_for(lambda: gateway.events("store_away"), "the silence to be noticed", 20)
        is_passed(ask(gateway, partner))
        assert is_ready(gateway)
    wait_for(lambda: len(gateway.events("store_following")) >= 2, gateway.ops_text, 20)
    redis.put(late)
    becomes(gateway, late, 200)


def test_redis_restored_from_an_older_dump_is_loaded_anew(following, redis):
    partners = [Partner(f"p{i}") for i in range(10)]
    late = Partner("late")
    redis.put(*partners)
    redis.save()
    gateway = following([*partners, late])
    redis.put(late)
    becomes(gateway, late, 200)
    redis.kill()
    redis.start()
    becomes(gateway, late, 401, seconds=10)
    assert full_loads(gateway) == {"first": 1, "rewound": 1}
    loads_are_logged(gateway, {"first": "info", "rewound": "warn"})
    is_passed(ask(gateway, partners[0]))


def test_an_older_dump_that_went_on_differently_is_noticed(following, redis):
    """As after a failover that lost writes: the same numbers, other changes."""
    partners = [Partner(f"p{i}") for i in range(10)]
    lost, other = Partner("lost"), Partner("other")
    redis.put(*partners)
    redis.save()
    gateway = following([*partners, lost, other])
    redis.put(lost)
    becomes(gateway, lost, 200)
    redis.kill()
    gateway.wait_event("store_away")
    # The gateway comes back at a moment of its own: it must not see the server before the other change is in it.
    redis.start(gateway="off")
    redis.put(other)
    redis.admin("ACL", "SETUSER", "gateway", "on")
    becomes(gateway, other, 200, seconds=20)
    is_error(ask(gateway, lost), "invalid_token")
    assert full_loads(gateway) == {"first": 1, "lost_writes": 1}
    loads_are_logged(gateway, {"first": "info", "lost_writes": "warn"})


def test_redis_restarted_empty_costs_nobody_access(following, redis):
    partners = [Partner(f"p{i}") for i in range(10)]
    redis.put(*partners)
    gateway = following(partners)
    redis.kill()
    redis.forget_saved()
    redis.start()
    wait_away(gateway, "no partner data")
    assert all(ask(gateway, p).status == 200 for p in partners)
    assert is_ready(gateway)


def test_a_data_set_made_anew_is_held_until_an_operator_confirms(following, redis):
    partners = [Partner(f"p{i}") for i in range(10)]
    redis.put(*partners)
    gateway = following(partners, admin={"control_socket": "control.sock"})
    control = gateway.folder / "control.sock"
    assert ask_control(control, "/confirm-deletions", "POST")[0] == 409
    redis.kill()
    redis.forget_saved()
    redis.start()
    redis.initialise()
    redis.put(partners[0])
    held = gateway.wait_event("store_deletion_held")[-1]
    assert (held["partners"], held["would_drop"]) == ("10", "9")
    assert all(ask(gateway, p).status == 200 for p in partners)
    assert is_ready(gateway)
    gateway.signal(signal.SIGHUP)  # reads again; that is no confirmation
    wait_for(lambda: len(gateway.events("store_deletion_held")) >= 2, "the load to be held again")
    assert all(ask(gateway, p).status == 200 for p in partners)
    status, answer = ask_control(control, "/confirm-deletions?partners=8", "POST")
    assert status == 409 and "would drop 9 partners" in answer["error"]
    assert ask_control(control, "/status")[1]["store"]["deletions_held"] == 9
    assert ask_control(control, "/confirm-deletions?partners=9", "POST") == (200, {"confirmed": 9})
    becomes(gateway, partners[9], 401, seconds=10)
    is_passed(ask(gateway, partners[0]))


def test_flushall_under_a_running_gateway_costs_nobody_access(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    gateway = following([partner])
    redis.admin("FLUSHALL")
    wait_for(lambda: gateway.events("store_away"), "the loss to be noticed", 20)
    is_passed(ask(gateway, partner))
    assert is_ready(gateway)


def test_max_staleness_ends_readiness_but_not_service(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    gateway = following([partner], redis_keys={"max_staleness": "15s"})
    assert is_ready(gateway)
    redis.save()
    redis.kill()
    wait_for(lambda: not is_ready(gateway), "readiness to end", 30)
    is_passed(ask(gateway, partner))
    redis.start()
    wait_for(lambda: is_ready(gateway), "readiness to come back", 20)


def test_redis_killed_while_operators_write(following, redis):
    """It comes back with what it had saved in the middle. Whatever that was: every gateway is as it is."""
    partners = [Partner(f"p{i}") for i in range(30)]
    redis.put(*partners)
    gateways = [following(partners, redis_keys={"deletion_limit": 100}) for _ in range(3)]
    rng = random.Random(7)
    writing = threading.Event()

    def write():
        with contextlib.suppress(OSError, ValueError):  # until Redis dies; ValueError: read from a closed file
            while True:
                partner = rng.choice(partners)
                partner.enabled = not partner.enabled
                redis.put(partner)
                writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert writing.wait(DEADLINE_S)
    redis.save()
    saved = int(redis.admin("HGET", redis.key("meta"), "seq"))  # or a little before that
    for gateway in gateways:
        gateway.wait_metric("proofgw_store_sequence", lambda now: now > saved + 100)
    redis.process.kill()
    writer.join()
    redis.kill()
    redis.start()
    redis.put(*partners[:10])
    last = redis.put(partners[10])
    enabled = redis.enabled()
    for gateway in gateways:
        gateway.wait_metric("proofgw_store_sequence", last)
        for partner in partners:
            assert ask(gateway, partner).status == (200 if partner.partner_id in enabled else 401), partner.partner_id


# --- a bad line


@pytest.mark.parametrize("kind", ["close", "reset", "garbage"])
@pytest.mark.parametrize("after", [[0, 3, 17], [40, 100, 160], [250, 900, 2500]])
def test_an_answer_that_breaks_off_anywhere_is_no_answer(following, redis, bad_line, kind, after):
    partners, late = [Partner(f"p{i}") for i in range(10)], Partner("late")
    redis.put(*partners)
    line = bad_line(faults=[(kind, n) for n in after])
    gateway = following([*partners, late], redis_keys={"address": line.address}, ready=False)
    becomes(gateway, partners[0], 200, seconds=20)
    assert gateway.wait_event("store_away")[0]["cause"]
    redis.remove(partners[1])
    redis.put(late)
    becomes(gateway, late, 200, seconds=20)
    is_error(ask(gateway, partners[1]), "invalid_token")
    assert all(ask(gateway, p).status == 200 for p in partners[2:])


def test_a_large_load_that_breaks_off_is_begun_again(following, redis, bad_line):
    partners = [Partner(f"p{i}") for i in range(3000)]
    redis.put(*partners)
    line = bad_line(faults=[("reset", 200_000), ("close", 600_000), ("garbage", 900_000)])
    gateway = following(partners[:1], redis_keys={"address": line.address}, ready=False)
    becomes(gateway, partners[0], 200, seconds=30)
    assert gateway.metrics()["proofgw_policy_partners"] == 3000
    assert not line.faults
    assert all(ask(gateway, p).status == 200 for p in partners[::300])


def test_a_load_under_way_never_shows_half_of_the_partners(following, redis, bad_line):
    """The partners in force are the old ones or the new ones: a load that breaks off leaves all as it was."""
    partners = [Partner(f"p{i}") for i in range(1000)]
    redis.put(*partners)
    line = bad_line()
    gateway = following(partners[:1], redis_keys={"address": line.address})
    line.faults += [("reset", 100_000), ("reset", 200_000)]
    loads = gateway.metrics()["proofgw_store_loads_total"]
    drop_connections(redis)
    gateway.signal(signal.SIGHUP)
    seen = set()

    def loaded_again():
        metrics = gateway.metrics()
        seen.add(metrics["proofgw_policy_partners"])
        return metrics["proofgw_store_loads_total"] > loads

    wait_for(loaded_again, gateway.ops_text, 30)
    assert seen == {1000}
    assert not line.faults


def test_answers_byte_by_byte(following, redis, bad_line):
    partners, late = [Partner(f"p{i}") for i in range(10)], Partner("late")
    redis.put(*partners)
    gateway = following([*partners, late], redis_keys={"address": bad_line(slice=1).address})
    assert all(ask(gateway, p).status == 200 for p in partners)
    redis.put(late)
    becomes(gateway, late, 200)
    assert not gateway.events("store_away")


# --- the end of the gateway


def test_sighup_reads_everything_again(following, redis):
    partner = Partner("acme")
    redis.put(partner)
    gateway = following([partner])
    gateway.signal(signal.SIGHUP)
    gateway.wait_metric("proofgw_store_full_loads_total", 1, reason="operator")
    is_passed(ask(gateway, partner))


def test_sigterm_while_redis_says_nothing(following, redis):
    """In every state of the connection: following, connecting again, and from the start."""
    partner = Partner("acme")
    redis.put(partner)
    gateway = following([partner])
    with redis.stopped():
        at_start = following([partner], ready=False)
        at_start.signal(signal.SIGTERM)
        assert at_start.wait_exit() == 0
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_exit() == 0


def test_sigterm_in_the_middle_of_a_load(following, redis, bad_line):
    partners = [Partner(f"p{i}") for i in range(500)]
    redis.put(*partners)
    gateway = following([], redis_keys={"address": bad_line(slice=7).address}, ready=False)
    gateway.wait_event("store_load_started")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert not gateway.events("store_loaded"), "the load was over already: it tests nothing"
