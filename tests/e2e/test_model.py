"""Any sequence of operations leaves every gateway as a model says.

Goal: whatever operators do, in whatever order, and whatever happens to Redis and to gateways in between, each gateway answers each
(token, address, environment) as support/model.py expects: who may come in, as whom, and by which error code not.
Method: seeded random sequences against a real Redis and real gateways with snapshots. In between Redis is killed and comes back, with
everything (append-only file) or with what it had saved last; its log is trimmed, connections are cut, gateways get SIGHUP, are
restarted and killed. After each sequence a marker is written, and when it counts, so must everything before it.
"""

import random
import signal

import pytest

from support.following import becomes, drop_connections
from support.model import Model, Probe, tell_identity
from support.partners import Partner, new_token
from support.redis import REDIS_SERVER, running_redis
from support.wait import DEADLINE_S

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")

SEQUENCES, STEPS = 6, 15
BACK_S = 30  # Redis was away: back-off, and a full load where one is due


class World:
    """A Redis, gateways on it, and the model of what they must do."""

    EVENTS = ["redis_dies", "redis_dies", "connections_are_cut", "log_is_trimmed", "save", "hup", "restart", "kill_gateway"]

    def __init__(self, redis, start_gateway, model, gateways=2):
        self.redis, self.start_gateway, self.model = redis, start_gateway, model
        self.rng = model.rng
        self.marker = Partner("marker", production=["127.0.0.0/8"])
        self.save()
        self.gateways = [self.start_gateway(i) for i in range(gateways)]
        self.probes = [Probe(gateway) for gateway in self.gateways]

    def sequence(self):
        for _ in range(STEPS):
            if self.rng.random() < 0.15:
                name = self.rng.choice(self.EVENTS)
                self.model.history.append(name.upper())
                print(name.upper(), end=" ")
                getattr(self, name)()
            else:
                self.model.step(self.redis)

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
        """While nobody looks: a gateway that comes back finds a log without its place."""
        self.redis.admin("XTRIM", self.redis.key("log"), "MAXLEN", 1)

    # --- what happens to gateways

    def hup(self):
        self.rng.choice(self.gateways).signal(signal.SIGHUP)

    def restart(self, number=signal.SIGTERM, code=0):
        i = self.rng.randrange(len(self.gateways))
        old = self.gateways[i]
        self.probes[i].close()
        old.exit_code = code
        old.signal(number)
        old.process.wait(DEADLINE_S)
        self.gateways[i] = self.start_gateway(i)
        self.probes[i] = Probe(self.gateways[i])

    def kill_gateway(self):
        self.restart(signal.SIGKILL, -signal.SIGKILL)


@pytest.fixture(params=["everything", "what it saved"])
def redis(tmp_path, request):
    """What it has after kill -9."""
    with running_redis(tmp_path / "redis", durable=request.param == "everything") as server:
        server.initialise()
        yield server


@pytest.fixture
def world(proofgw, backend, redis, tmp_path):
    backend.answer = tell_identity
    started = []

    def start_gateway(i):
        store = {**redis.config(deletion_limit=100), "snapshot": str(tmp_path / f"{i}.snapshot")}
        # A gateway that was started without Redis is not ready yet: what counts is settle().
        started.append(proofgw(partners=[], store=store, workers=1 + i % 2, ready=False))
        started[-1].secrets += redis.passwords.values()
        return started[-1]

    def make(seed):
        made.append(World(redis, start_gateway, Model(random.Random(seed))))
        return made[-1]

    made = []
    yield make
    for gateway in started:
        gateway.secrets += made[0].model.tokens


@pytest.mark.parametrize("seed", range(3))
def test_random_operations_leave_every_gateway_as_the_model(world, seed):
    world = world(seed)
    for _ in range(SEQUENCES):
        world.sequence()
        world.settle()
        world.check()
