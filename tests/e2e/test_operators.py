"""Operators write while Redis and gateways die.

Goal: three gateways on one Redis, or on a master that changes, end up as the database says, whatever was killed in the middle
of writing; no acknowledged change is lost on the way; tunnels of partners whom nobody changed are never touched, and a revocation
after it all cuts its tunnels within a second.
Method: real processes and kill -9; operators in threads (support/operators.py) who write all the while, and a model of what they did.
"""

import random
import signal
import time

import pytest

from support.following import PROMPT_S, becomes, echo, expect_policy_close, is_ready, open_tunnel
from support.model import ADDRESSES, Model, Probe
from support.operators import Operators
from support.partners import Partner, new_token
from support.redis import REDIS_SERVER, running_redis

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")
pytest_plugins = ["support.failover"]

PARTNERS, WRITES = 12, 40
BACK_S = 30  # longest back-off, and a full load where one is due


class Site:
    """Gateways on the same data, two partners with tunnels, and those whom operators change."""

    def __init__(self, proofgw, tmp_path, master, store, demo):
        self.proofgw, self.tmp_path, self.master, self.store, self.demo = proofgw, tmp_path, master, store, demo
        self.model = Model(random.Random(0))
        self.changed = [Partner(f"p{i}", production=["127.0.0.0/8"]) for i in range(PARTNERS)]
        self.kept, self.cut = Partner("kept"), Partner("cut")
        self.marker = Partner("marker")
        self.started = []
        master().put(*self.changed, self.kept, self.cut)
        self.gateways = [self.start(i) for i in range(3)]
        for gateway in self.gateways:
            becomes(gateway, self.kept, 200)
        self.tunnels = [(open_tunnel(g, self.kept), open_tunnel(g, self.cut)) for g in self.gateways[:2]]

    def start(self, i):
        store = {**self.store, "snapshot": str(self.tmp_path / f"{i}.snapshot")}
        gateway = self.proofgw(partners=[], store=store, upstream=self.demo.address, ready=False)
        gateway.secrets += [self.kept.token, self.cut.token, *self.master().passwords.values()]
        self.started.append(gateway)
        return gateway

    def restart_killed(self):
        """The third gateway, which has no tunnels."""
        self.gateways[2].exit_code = -signal.SIGKILL
        self.gateways[2].signal(signal.SIGKILL)
        self.gateways[2].wait_exit()
        self.gateways[2] = self.start(2)

    def echo(self):
        for tunnels in self.tunnels:
            for tunnel in tunnels:
                echo(tunnel)

    def settle(self):
        """Every gateway has everything."""
        self.marker.token = new_token()
        last = self.master().put(self.marker)
        for gateway in self.gateways:
            becomes(gateway, self.marker, 200, seconds=BACK_S)
            gateway.wait_metric("proofgw_store_sequence", last)

    def revoke(self):
        """The tunnels of one partner end at once, those of the other go on."""
        self.cut.token = new_token()
        begin = time.monotonic()
        self.master().put(self.cut)
        for kept, cut in self.tunnels:
            expect_policy_close(cut)
            assert time.monotonic() - begin < PROMPT_S
            echo(kept)

    def check(self, operators):
        """Each gateway against what the operators know. A token can be a secret of any gateway."""
        operators.settle(self.model, self.master())
        statuses = {self.model.expected(p.token, a, "production", 0)[0] for p in self.model.state.partners.values() for a in ADDRESSES}
        assert statuses == {200, 401, 403}, "too little has happened: this tests nothing"
        for gateway in self.gateways:
            Probe(gateway, identity=False).check(self.model)
        for gateway in self.started:
            gateway.secrets += [*self.model.tokens, self.cut.token, self.marker.token]


@pytest.fixture
def site(proofgw, tmp_path, demo):
    return lambda master, store: Site(proofgw, tmp_path, master, store, demo)


def test_redis_and_a_gateway_die_while_operators_write(site, tmp_path):
    """Redis keeps what it has acknowledged, and so must everybody."""
    with running_redis(tmp_path / "redis", durable=True) as redis:
        redis.initialise()
        site = site(lambda: redis, redis.config(deletion_limit=100))
        with Operators(site.changed, lambda: redis) as operators:
            operators.wait_written(WRITES)
            redis.process.kill()
            site.gateways[0].wait_event("store_away")
            site.echo()
            assert all(is_ready(gateway) for gateway in site.gateways)
            redis.kill()
            redis.start()
            operators.wait_written(WRITES)
            site.restart_killed()
            operators.wait_written(WRITES)
            redis.process.kill()
            site.restart_killed()  # without Redis: from its snapshot
            redis.kill()
            redis.start()
            operators.wait_written(WRITES)
            site.echo()
        site.settle()
        site.check(operators)
        site.revoke()


def test_the_master_dies_and_changes_while_operators_write(site, group):
    """What has reached every replica is never lost, whoever is the master afterwards."""
    site = site(lambda: group.master, group.master.config(**group.sentinel.config(), deletion_limit=100))
    with Operators(site.changed, lambda: group.master, lambda: group.replicas) as operators:
        operators.wait_written(WRITES)
        group.kill_master()
        site.gateways[0].wait_event("store_away")
        site.echo()
        assert all(is_ready(gateway) for gateway in site.gateways)
        site.restart_killed()  # in the middle of the failover
        group.wait_failover()
        operators.wait_written(WRITES)
        group.heal()
        operators.wait_written(WRITES)
        group.wait_replicated()
        group.plan_failover()
        operators.wait_written(WRITES, BACK_S)
        site.echo()
    site.settle()
    site.check(operators)
    site.revoke()
