"""Gateways that follow a Redis: the fixtures `redis`, `following` and `bad_line`, and what their tests ask over and over.

A test module takes them with pytest_plugins = ["support.following"].
"""

import pytest

from support.redis import BadLine, running_redis
from support.wait import wait_for
from support.websocket import BINARY, CLOSE, TEXT, frame, read_frame, upgrade

PROMPT_S = 1.0  # from the commit in Redis to the effect
_ECHO = "/ws?tx_id=1&echo=1&interval_ms=0"
_MASK = b"\x01\x02\x03\x04"


@pytest.fixture
def redis(tmp_path):
    """A server with an empty data set."""
    with running_redis(tmp_path / "redis") as server:
        server.initialise()
        yield server


@pytest.fixture
def following(proofgw, redis):
    """Factory of gateways on `redis`. Keys of store.redis as redis={...}; no password may show up anywhere."""

    def make(partners, redis_keys=None, snapshot=None, **changes):
        store = redis.config(**(redis_keys or {}))
        if snapshot:
            store["snapshot"] = str(snapshot)
        gateway = proofgw(partners=partners, store=store, **changes)
        gateway.secrets += redis.passwords.values()
        return gateway

    return make


def ask(gateway, partner):
    """The answer to one request on a connection of its own."""
    client = gateway.client()
    answer = client.exchange(fields=partner.authorization)
    client.close()
    return answer


def becomes(gateway, partner, status, seconds=PROMPT_S):
    wait_for(lambda: ask(gateway, partner).status == status, f"{partner.partner_id} to get {status}", seconds)


def is_ready(gateway):
    return gateway.admin("/readyz")[0] == 200


def wait_away(gateway, cause):
    """Redis is reported as away, with `cause` in the reason."""
    return wait_for(
        lambda: [e for e in gateway.events("store_away") if cause in e["cause"]],
        lambda: f"store_away with {cause!r}:\n{gateway.ops_text()}",
    )[-1]


def full_loads(gateway):
    """How often everything was read: {reason: number}."""
    metrics = gateway.metrics()
    return {
        labels["reason"]: value
        for name, labels, value in metrics.samples
        if name == "proofgw_store_full_loads_total" and value
    }


def wait_following(gateway, n):
    gateway.wait_event("store_following", n)


def drop_connections(redis):
    """Those of the gateways, which come back at once."""
    assert redis.admin("CLIENT", "KILL", "USER", "gateway") > 0


def open_tunnel(gateway, partner):
    client = gateway.client()
    assert client.ask(upgrade(partner, _ECHO)).status == 101
    return client


def echo(client):
    client.send(frame(BINARY, b"still here", _MASK))
    while True:
        _, opcode, got = read_frame(client.reader)
        if opcode == BINARY:
            assert got == b"still here"
            return


def expect_policy_close(client):
    opcode = TEXT
    while opcode == TEXT:
        _, opcode, payload = read_frame(client.reader)
    assert opcode == CLOSE and payload[:2] == (1008).to_bytes(2, "big"), (opcode, payload)
    client.half_close().expect_close()


@pytest.fixture
def bad_line(redis):
    lines = []

    def make(**kwargs):
        lines.append(BadLine(redis, **kwargs))
        return lines[-1]

    yield make
    for line in lines:
        line.close()
