"""Any sequence of operations leaves every gateway as a model says.

Goal: whatever operators do, in whatever order, and whatever happens to Redis and to gateways in between, each gateway answers each
(token, address, environment) as support/model.py expects: who may come in, as whom, and by which error code not.
Method: seeded random sequences against a real Redis and real gateways with snapshots. In between Redis is killed and comes back, with
everything (append-only file) or with what it had saved last; or its master dies or is changed by a Sentinel; its log is trimmed,
connections are cut, gateways get SIGHUP, are restarted and killed. After each sequence a marker is written, and when it counts, so
must everything before it.
"""

import random
import signal

import pytest

from support.following import becomes
from support.model import Model, Probe, tell_identity
from support.partners import Partner, new_token
from support.redis import REDIS_SERVER, running_redis
from support.wait import DEADLINE_S

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")
pytest_plugins = ["support.failover"]

GATEWAYS, STEPS = 2, 20
BACK_S = 30  # Redis was away: back-off, and a full load where one is due


class World:
    """A Redis, gateways on it, and the model of what they must do."""

    SEQUENCES = 6
    EVENTS = ["redis_dies", "redis_dies", "connections_are_cut", "log_is_trimmed", "save", "hup", "restart", "kill_gateway"]

    def __init__(self, redis, start_gateway, model):
        self.redis, self.start_gateway, self.model = redis, start_gateway, model
        self.rng = model.rng
        self.marker = Partner("marker")
        self.save()
        self.gateways = [self.start_gateway(i) for i in range(GATEWAYS)]
        self.probes = [Probe(gateway) for gateway in self.gateways]

    def run(self):
        for sequence in range(self.SEQUENCES):
            if sequence == self.SEQUENCES // 2:
                self.start_from_snapshot()
            for _ in range(STEPS):
                self.step()
            self.settle()
            self.check()

    def step(self):
        if self.rng.random() < 0.85:
            self.model.step(self.redis)
            return
        name = self.rng.choice(self.EVENTS)
        self.model.note(name.upper())
        getattr(self, name)()

    def settle(self):
        """Every gateway has everything."""
        self.marker.token = new_token()
        self.model.tokens.add(self.marker.token)
        last = self.redis.put(self.marker)
        for gateway in self.gateways:
            becomes(gateway, self.marker, 200, seconds=BACK_S)
            gateway.wait_metric("proofgw_store_sequence", last)

    def check(self):
        for probe in self.probes:
            probe.check(self.model)

    # --- what happens to Redis

    def save(self):
        self.redis.save()
        self.saved = self.model.saved()

    def redis_dies(self):
        self.redis.kill()
        self.redis.start()
        if not self.redis.durable:
            self.model.rewind(self.saved)

    def connections_are_cut(self):
        self.redis.admin("CLIENT", "KILL", "USER", "gateway")

    def log_is_trimmed(self):
        """While nobody looks: gateways that come back find a log without their place."""
        self.redis.admin("ACL", "SETUSER", "gateway", "off")
        self.connections_are_cut()
        for _ in range(3):
            self.model.step(self.redis)
        self.redis.admin("XTRIM", self.redis.key("log"), "MAXLEN", 1)
        self.redis.admin("ACL", "SETUSER", "gateway", "on")

    # --- what happens to gateways

    def hup(self):
        self.rng.choice(self.gateways).signal(signal.SIGHUP)

    def restart(self, i=None, number=signal.SIGTERM, code=0):
        i = self.rng.randrange(GATEWAYS) if i is None else i
        old = self.gateways[i]
        self.probes[i].close()
        old.exit_code = code
        old.signal(number)
        old.process.wait(DEADLINE_S)
        self.gateways[i] = self.start_gateway(i)
        self.probes[i] = Probe(self.gateways[i])

    def start_from_snapshot(self):
        """From one that may hold more than the database, after Redis has died."""
        gateway, number = self.gateways[0], len(self.gateways[0].events("store_snapshot"))
        self.model.step(self.redis)
        gateway.wait_event("store_snapshot", number + 1)
        self.redis_dies()
        self.kill_gateway(0)
        self.gateways[0].wait_event("store_snapshot_loaded")

    def kill_gateway(self, i=None):
        self.restart(i, signal.SIGKILL, -signal.SIGKILL)


class FailoverWorld(World):
    """The same with a master, replicas and a Sentinel."""

    SEQUENCES = 3  # a failover takes seconds
    EVENTS = ["redis_dies", "master_is_changed", "connections_are_cut", "hup", "restart", "kill_gateway"]

    def __init__(self, group, start_gateway, model):
        self.group = group
        super().__init__(group.master, start_gateway, model)

    def save(self):
        """What has reached the replicas is safe: the model never goes back."""

    def redis_dies(self):
        self.group.wait_replicated()
        self.group.kill_master()
        self.group.wait_failover()
        self.redis = self.group.master
        for _ in range(3):
            self.model.step(self.redis)
        self.group.heal()

    def master_is_changed(self):
        self.group.wait_replicated()
        self.group.plan_failover()
        self.redis = self.group.master
        self.group.heal()


@pytest.fixture
def start_world(proofgw, backend, tmp_path):
    """Makes a World of the given class, whose gateways have this section `store`."""
    backend.answer = tell_identity
    started, models = [], []

    def make(world, redis, seed, passwords, store):
        def start_gateway(i):
            section = {**store, "snapshot": str(tmp_path / f"{i}.snapshot")}
            # A gateway that was started without Redis is not ready yet: what counts is settle().
            started.append(proofgw(partners=[], store=section, workers=1 + i % 2, ready=False))
            started[-1].secrets += passwords.values()
            return started[-1]

        models.append(Model(random.Random(seed)))
        return world(redis, start_gateway, models[-1])

    yield make
    for gateway in started:
        gateway.secrets += models[0].tokens


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("durable", [True, False], ids=["redis keeps all", "redis keeps what it saved"])
def test_random_operations_leave_every_gateway_as_the_model(start_world, tmp_path, durable, seed):
    with running_redis(tmp_path / "redis", durable=durable) as redis:
        redis.initialise()
        start_world(World, redis, seed, redis.passwords, redis.config(deletion_limit=100)).run()


def test_random_operations_and_failovers_leave_every_gateway_as_the_model(start_world, group):
    store = group.master.config(**group.sentinel.config(), deletion_limit=100)
    start_world(FailoverWorld, group, 1, group.master.passwords, store).run()
