"""A master, two replicas and a Sentinel: the fixture `group`.

A test module takes it with pytest_plugins = ["support.failover"].
"""

import contextlib

import pytest

from support.redis import Sentinel, running_redis

_SYNC_MS = 10_000


class Group:
    def __init__(self, servers, sentinel):
        self.servers, self.sentinel = servers, sentinel
        self.master = servers[0]
        self.replicas = len(servers) - 1  # how many there are just now

    def others(self):
        return [s for s in self.servers if s is not self.master]

    def wait_replicated(self):
        """All replicas have what the master has."""
        assert self.master.operator("WAIT", self.replicas, _SYNC_MS) == self.replicas

    def wait_failover(self):
        self.master = self.sentinel.wait_master(self.others())

    def kill_master(self):
        """kill -9; see wait_failover() and heal()."""
        self.replicas -= 1
        self.master.kill()

    def plan_failover(self):
        """The Sentinel makes a replica the master, and the master its replica."""
        assert self.sentinel("SENTINEL", "failover", Sentinel.NAME) == "OK"
        self.wait_failover()

    def heal(self):
        """Brings back whoever was killed, as a replica, and waits until another failover is possible."""
        for server in self.others():
            if server.process.poll() is not None:
                server.start()
                server.open_port(server.port)
                server.follow(self.master)  # the Sentinel may close this connection at any time
        self.replicas = len(self.servers) - 1
        self.sentinel.wait_replicas(self.replicas)


@pytest.fixture
def group(tmp_path):
    with contextlib.ExitStack() as stack:
        servers = []
        for i in range(3):
            passwords = servers[0].passwords if servers else None
            servers.append(stack.enter_context(running_redis(tmp_path / f"redis{i}", passwords)))
            servers[i].open_port()
        servers[0].initialise()
        for replica in servers[1:]:
            replica.replicate(servers[0])
        sentinel = Sentinel(tmp_path / "sentinel", servers[0], replicas=2)
        stack.callback(sentinel.close)
        yield Group(servers, sentinel)
