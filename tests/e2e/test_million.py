"""A million partners.

Goal: a gateway loads them from Redis, answers right for each, obeys a change within a second, stays within its memory, and starts again
from its snapshot in seconds, with Redis and without.
Method: a real Redis that is filled in pipelines, one real gateway at a time, sampled partners who call from their own addresses.
"""

import random

import pytest

from support import bulk
from support.expect import is_error, is_passed
from support.following import PROMPT_S, full_loads, is_ready
from support.partners import Partner, new_token
from support.redis import REDIS_SERVER
from support.wait import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)"),
]
pytest_plugins = ["support.following"]

NUMBER = 1_000_000
LOAD_S, START_S = 90, 15  # two busy cores; a quiet machine takes a fifth of it
RESIDENT_MIB = 260
SAMPLES = 500


def ask(gateway, i, token=None):
    """One request from the address of partner i."""
    client = gateway.client(source=bulk.address(i))
    answer = client.exchange(fields=Partner(token=token or bulk.partner(i).token).authorization)
    client.close()
    return answer


def check_samples(gateway):
    """Partners from everywhere in the data: let in from their own address, and from nobody else's."""
    rng = random.Random(5)
    for i in [0, 1, NUMBER - 2, NUMBER - 1, *(rng.randrange(NUMBER) for _ in range(SAMPLES))]:
        is_passed(ask(gateway, i))
        is_error(ask(gateway, i ^ 1, bulk.partner(i).token), "forbidden_origin")
    is_error(ask(gateway, 0, new_token()), "invalid_token")


def check_change(gateway, redis, i):
    """A new token counts at once, and the old one no more, also with so many others."""
    partner = bulk.partner(i)
    partner.token = new_token()
    gateway.secrets.append(partner.token)
    redis.put(partner)
    wait_for(lambda: ask(gateway, i, partner.token).status == 200, "the new token", PROMPT_S)
    is_error(ask(gateway, i), "invalid_token")


def wait_all(gateway, seconds):
    wait_for(lambda: is_ready(gateway), lambda: f"readiness:\n{gateway.ops_text()}", seconds)
    assert gateway.metrics()["proofgw_policy_partners"] == NUMBER


def test_a_million_partners(following, redis, tmp_path):
    last = bulk.fill(redis, NUMBER)

    def start():
        return following([], snapshot=tmp_path / "partners.snapshot", ready=False, workers=2)

    first = start()
    wait_all(first, LOAD_S)
    metrics = first.metrics()
    assert (metrics["proofgw_store_sequence"], metrics["proofgw_store_inconsistent"]) == (last, 0)
    assert full_loads(first) == {"first": 1}
    check_samples(first)
    check_change(first, redis, 11)
    wait_for(lambda: first.events("store_snapshot"), "the snapshot", LOAD_S)
    resident = first.metrics()["process_resident_memory_bytes"] / 2**20
    print(f"resident: {resident:.0f} MiB")
    first.finish()

    second = start()
    wait_all(second, START_S)
    check_change(second, redis, 12)
    check_samples(second)
    assert full_loads(second) == {}, "the log reaches back to the snapshot: no load was due"
    redis.kill()
    second.finish()

    third = start()
    wait_all(third, START_S)
    check_samples(third)
    assert resident < RESIDENT_MIB
