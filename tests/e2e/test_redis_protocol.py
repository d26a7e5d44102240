"""A Redis that answers what it must not, or too late, or only half.

Goal: whatever the server says to whichever command, partners stay in force, nobody gets 401 or 403 because of it, the
reason is counted, memory does not grow, and the gateway is in step again as soon as the server is.
Method: a server of our own that speaks just enough of the protocol, and spoils the answers to one command until it is
healed.
"""

import pytest

from support.expect import is_error, is_passed
from support.fake_redis import FakeRedis, add, encode, half, late, nothing, say
from support.following import ask, becomes, full_loads, is_ready
from support.partners import Partner
from support.wait import wait_for


@pytest.fixture
def fake():
    server = FakeRedis()
    yield server
    server.close()


@pytest.fixture
def follower(proofgw, fake):
    def make(*partners, ready=True, **keys):
        return proofgw(partners=list(partners), store=fake.config(**keys), ready=ready)

    return make


def away(gateway):
    """How often Redis was away: {reason: number}."""
    samples = gateway.metrics().samples
    return {labels["reason"]: n for name, labels, n in samples if name == "proofgw_store_away_total" and n}


def survives(gateway, fake, command, fault, reasons):
    """The command is spoilt until the gateway has seen it twice; then all is well again."""
    partner, late_one = gateway.partners
    fake.faults[command] = fault
    if command in ("SCAN", "HGETALL"):
        fake.epoch += "x"  # the next connection loads everything
    fake.drop()
    wait_for(lambda: sum(away(gateway).get(r, 0) for r in reasons) >= 2, lambda: f"{away(gateway)}\n{gateway.ops_text()}", 30)
    is_passed(ask(gateway, partner))
    assert is_ready(gateway)
    gateway.wait_metric("proofgw_store_staleness_seconds", lambda v: v > 0)
    assert set(away(gateway)) <= {*reasons, "reset", "closed"}, "for another reason than the fault's"
    fake.faults.clear()
    fake.put(late_one)
    becomes(gateway, late_one, 200, seconds=20)
    wait_for(lambda: gateway.metrics()["proofgw_store_up"] == 1, gateway.ops_text)


@pytest.fixture
def spoilt(follower, fake):
    def run(command, fault, *reasons, **keys):
        partners = Partner("acme"), Partner("late")
        fake.put(partners[0])
        gateway = follower(*partners, **keys)
        gateway.partners = partners
        survives(gateway, fake, command, fault, reasons)
        return gateway

    return run


# --- errors

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
REFUSALS = [
    ("ROLE", LOADING, "loading"),
    ("HMGET", LOADING, "loading"),
    ("SCAN", b"-BUSY Redis is busy running a script.\r\n", "loading"),
    ("HMGET", b"-NOAUTH Authentication required.\r\n", "login"),
    ("XRANGE", b"-NOPERM this user has no permissions to run the 'xrange' command\r\n", "login"),
    ("HMGET", b"-READONLY You can't write against a read only replica.\r\n", "not_master"),
    ("HGETALL", b"-MASTERDOWN Link with MASTER is down\r\n", "not_master"),
    ("XREAD", b"-UNBLOCKED force unblock from blocking operation\r\n", "not_master"),
    ("ROLE", b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:1\r\n$9\r\nconnected\r\n:0\r\n", "not_master"),
    ("XRANGE", b"-ERR something that nobody has heard of\r\n", "other"),
    ("HMGET", b"*5\r\n$1\r\n2\r\n$1\r\ne\r\n$1\r\n1\r\n$1\r\n1\r\n$16\r\n0123456789abcdef\r\n", "schema"),
    ("HMGET", b"*5\r\n" + 5 * b"$-1\r\n", "no_data"),
]


@pytest.mark.parametrize("command, answer, reason", REFUSALS)
def test_a_server_that_refuses(spoilt, command, answer, reason):
    spoilt(command, say(answer), reason)


def test_a_start_while_the_server_loads_its_data(follower, fake):
    partner = Partner("acme")
    fake.put(partner)
    fake.faults["HMGET"] = say(LOADING)
    gateway = follower(partner, ready=False)
    wait_for(lambda: away(gateway).get("loading", 0) >= 3, gateway.ops_text)
    is_error(ask(gateway, partner), "unavailable")
    assert not is_ready(gateway)
    assert len(gateway.events("store_away")) == 1, "the same cause is said once"
    fake.faults.clear()
    becomes(gateway, partner, 200, seconds=20)
    assert is_ready(gateway)


# --- half an answer, none, or late

COMMANDS = ["ROLE", "HMGET", "SCAN", "HGETALL", "XRANGE"]
ENDS = [("silence", "timeout"), ("reset", "reset"), ("close", "closed")]


@pytest.mark.parametrize("end, reason", ENDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_half_an_answer(spoilt, command, end, reason):
    spoilt(command, half(end), reason)


@pytest.mark.parametrize("end, reason", ENDS)
@pytest.mark.parametrize("command", ["CLIENT", "XRANGE"])
def test_no_answer(spoilt, command, end, reason):
    spoilt(command, nothing(end), reason)


def test_an_answer_that_is_too_late(spoilt):
    """The answer to a command that was given up never counts for another one."""
    spoilt("XRANGE", late(0.6), "timeout")


def test_a_slow_server_is_followed(follower, fake):
    partner, late_one = Partner("acme"), Partner("late")
    fake.put(partner)
    for command in [*COMMANDS, "CLIENT", "XREAD"]:
        fake.faults[command] = late(0.1)
    gateway = follower(partner, late_one, connect_timeout="2s", command_timeout="2s")
    fake.put(late_one)
    becomes(gateway, late_one, 200, seconds=5)
    assert not away(gateway)


def test_answers_byte_by_byte(follower, fake):
    partner, late_one = Partner("acme"), Partner("late")
    fake.put(partner)
    fake.slice = 1
    gateway = follower(partner, late_one)
    fake.put(late_one)
    becomes(gateway, late_one, 200)
    assert not away(gateway)
    assert full_loads(gateway) == {"first": 1}


# --- nonsense

NONSENSE = {
    "an absurd length": b"$99999999999999999999\r\n",
    "an endless text": b"$2147483647\r\n" + 20_000_000 * b"x",
    "an absurd number of elements": b"*1000000000\r\n",
    "a negative length": b"$-7\r\n",
    "nested too deep": 64 * b"*1\r\n",
    "another type": b":1\r\n",
    "another shape": b"*2\r\n*1\r\n$1\r\nx\r\n*2\r\n:1\r\n:2\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "RESP3": b"%1\r\n+server\r\n+redis\r\n",
    "NUL bytes": 64 * b"\0",
    "no number": b"*x\r\n",
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
@pytest.mark.parametrize("command", ["ROLE", "HMGET", "SCAN", "XRANGE", "XREAD"])
def test_an_answer_that_makes_no_sense(spoilt, command, answer):
    # What looks like an answer is judged by what is in it: the log says that. Long times: the bounds shall end it.
    reasons = ("protocol", "other") if answer == NONSENSE["another shape"] else ("protocol",)
    gateway = spoilt(command, say(answer), *reasons, connect_timeout="20s", command_timeout="20s")
    assert gateway.metrics()["process_resident_memory_bytes"] < 500e6


@pytest.mark.parametrize("command, answer", [("SCAN", b"*1\r\n$1\r\n0\r\n"), ("HGET", b"$1\r\nx\r\n")])
def test_a_scrub_that_breaks_off_says_why(follower, fake, command, answer):
    partner = Partner("acme")
    fake.put(partner)
    gateway = follower(partner, scrub_interval="1s")
    version, fields = fake.records["acme"]
    fake.records["acme"] = version + (command == "HGET"), fields  # it asks again for what differs
    fake.faults[command] = say(answer)
    failed = gateway.wait_event("store_scrub_failed")[0]
    assert (failed["command"], failed["cause"]) == (command, "the answer is malformed")
    fake.faults.clear()
    fake.records["acme"] = version, fields
    gateway.wait_event("store_scrubbed")
    is_passed(ask(gateway, partner))
    assert not away(gateway) and full_loads(gateway) == {"first": 1}


@pytest.mark.parametrize("command", ["ROLE", "HMGET", "XRANGE"])
def test_an_answer_that_nobody_asked_for(spoilt, command):
    spoilt(command, add(b"+surprise\r\n"), "protocol")


def test_an_entry_of_the_log_that_is_none(follower, fake):
    partner, late_one = Partner("acme"), Partner("late")
    fake.put(partner)
    gateway = follower(partner, late_one)
    fake.faults["XREAD"] = say(encode([["gw:{cfg}:log", [["2-1", ["op", "set"]]]]]))
    fake.drop()
    gateway.wait_metric("proofgw_store_full_loads_total", lambda n: n >= 2, reason="gap")
    is_passed(ask(gateway, partner))
    fake.faults.clear()
    fake.put(late_one)
    becomes(gateway, late_one, 200, seconds=20)


# --- the report of the position


REPORT_FAULTS = {
    "refused": say(b"-NOPERM this user has no permissions to run the 'set' command\r\n"),
    "no space": say(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
    "too few replicas": say(b"-NOREPLICAS Not enough good replicas to write.\r\n"),
    "reset": nothing("reset"),
    "silence": nothing("silence"),
    "nonsense": say(b"*1000000000\r\n"),
}


@pytest.mark.parametrize("name", REPORT_FAULTS)
def test_a_position_that_is_not_taken_harms_nothing(follower, fake, name):
    partner, late_one = Partner("acme"), Partner("late")
    fake.put(partner)
    fake.faults["SET"] = REPORT_FAULTS[name]
    gateway = follower(partner, late_one)
    gateway.wait_metric("proofgw_store_report_failures_total", lambda n: n >= 1)
    fake.put(late_one)
    becomes(gateway, late_one, 200)
    assert not away(gateway) and gateway.metrics()["proofgw_store_up"] == 1
    is_refused = name in ("refused", "no space", "too few replicas")
    assert len(gateway.events("store_report_refused")) == is_refused, "said once, and only what Redis said"
    fake.faults.clear()
    wait_for(lambda: fake.report()["seq"] == 2, gateway.ops_text, 20)


def test_the_position_follows_the_changes(follower, fake):
    partners = [Partner(f"p{i}") for i in range(20)]
    fake.put(partners[0])
    gateway = follower(*partners)
    for partner in partners[1:]:
        fake.put(partner)
    wait_for(lambda: fake.report()["seq"] == 20, lambda: fake.reported)
    report = fake.report()
    assert (report["state"], report["partners"], report["epoch"]) == ("live", 20, fake.epoch)
    assert report["pid"] == gateway.process.pid
    gateway.finish()
    wait_for(lambda: "DEL" in fake.heard, "the report to be taken back")
