"""Reloads: who may ask for one, and that nothing is dropped by it."""

import os
import re
import signal
import threading

import pytest

from support.backend import answer
from support.client import Client, request
from support.control import ask
from support.expect import is_error, is_passed
from support.gateway import is_sanitized, to_yaml
from support.redis import free_port
from support.reloading import environments, get, watched
from support.takeover import takeover
from support.wait import DEADLINE_S, wait_for
from support.websocket import TEXT, accepting, frame, read_frame, upgrade

MASK = b"\x01\x02\x03\x04"
FULL = bool(os.environ.get("PROOFGW_FULL"))


@pytest.fixture
def gateway(proofgw):
    return proofgw(reload_on_change=False, workers=2)


# --- who may ask


def test_changed_file(proofgw, partner):
    """Renamed over, written in place, and changed back; a file that is only touched is no change."""
    gateway = watched(proofgw)
    gateway.configure(**environments(hosts=["one.test"]))
    gateway.wait_metric("proofgw_config_generation", 2)
    is_passed(get(gateway, partner, host="one.test"))
    text = gateway.config_file.read_text().replace("one.test", "two.test")
    gateway.config_file.write_text(text)
    gateway.wait_metric("proofgw_config_generation", 3)
    is_passed(get(gateway, partner, host="two.test"))
    gateway.config_file.touch()
    gateway.configure(**environments(hosts=["three.test"]))
    gateway.wait_metric("proofgw_config_generation", 4)
    assert [e["trigger"] for e in gateway.wait_event("config_reloaded", 3)] == ["file"] * 3


def test_faulty_file_is_reported_once(proofgw, partner):
    gateway = watched(proofgw)
    gateway.config_file.write_text("listeners: [\n")
    gateway.wait_metric("proofgw_config_reloads_total", 1, result="failed")
    (gateway.folder / "other").write_text("an event in the folder")
    gateway.configure(**environments(hosts=["one.test"]))
    scrape = gateway.wait_metric("proofgw_config_generation", 2)
    assert scrape("proofgw_config_reloads_total", result="failed") == 1
    is_passed(get(gateway, partner, host="one.test"))


def test_kubernetes_links(proofgw, tmp_path, partner, backend):
    """gateway.yaml -> ..data/gateway.yaml, ..data -> a folder: the swap of ..data is the change."""
    gateway = watched(proofgw)
    for version in ("v1", "v2"):
        gateway.config["environments"]["production"]["hosts"] = [f"{version}.test"]
        (gateway.folder / version).mkdir()
        (gateway.folder / version / "gateway.yaml").write_text(to_yaml(gateway.config))
    (gateway.folder / "..data").symlink_to("v1")
    link = gateway.folder / "link"
    link.symlink_to("..data/gateway.yaml")
    link.rename(gateway.config_file)
    gateway.wait_metric("proofgw_config_generation", 2)
    (gateway.folder / "..next").symlink_to("v2")
    (gateway.folder / "..next").rename(gateway.folder / "..data")
    gateway.wait_metric("proofgw_config_generation", 3)
    is_passed(get(gateway, partner, host="v2.test"))


def test_watch_is_off(gateway):
    """A changed file waits for SIGHUP; switching the watch on is live as well."""
    gateway.configure(limits={"body": 3})
    (gateway.folder / "partners.new").write_text("")
    gateway.reload(reload_on_change=True, limits={"body": 4})
    assert gateway.metrics()["proofgw_config_generation"] == 2
    gateway.configure(limits={"body": 5})
    gateway.wait_metric("proofgw_config_generation", 3)


def test_control_socket(proofgw, partner):
    gateway = proofgw(reload_on_change=False, workers=2, admin={"control_socket": "control.sock"})
    path = gateway.folder / "control.sock"
    status, plan = ask(path, "/reload/plan")
    assert (status, plan["changes"], plan["text"]) == (200, [], "no changes\n")
    gateway.configure(limits={"body": 3}, workers=4)
    status, plan = ask(path, "/reload/plan")
    assert status == 200 and plan["generation"] == 1
    assert plan["changes"] == [
        {"key": "workers", "before": "2", "after": "4", "change": "restart"},
        {"key": "limits.body", "before": "10MiB", "after": "3", "change": "live"},
    ]
    status, done = ask(path, "/reload", "POST")
    assert status == 200 and done == {**plan, "generation": 2}
    is_error(get(gateway, partner, method="POST", body=b"abcd"), "body_too_large")
    gateway.config_file.write_text("nonsense\n")
    for target, method in (("/reload", "POST"), ("/reload/plan", "GET")):
        status, failed = ask(path, target, method)
        assert status == 422 and "gateway.yaml:1:1: error" in failed["error"]
    assert ask(path, "/status")[1]["configuration"]["generation"] == 2


def test_draining_refuses(proofgw, partner, backend):
    gateway = proofgw(reload_on_change=False)
    gate = backend.gate()
    backend.script(lambda connection: (connection.read_request(), gate.wait(), connection.send(answer())))
    client = gateway.client()
    client.send(request(fields=partner.authorization))
    backend.wait_requests(1)
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    gateway.signal(signal.SIGHUP)
    gateway.wait_event("config_reload_refused")
    gate.open()
    is_passed(client.response())
    assert gateway.wait_exit() == 0


def test_many_at_once_become_one_more(gateway, partner):
    """Signals that come while one runs ask for one more together; the last content of the file is what counts."""
    for i in range(50):
        gateway.configure(limits={"body": 1000 + i})
        gateway.signal(signal.SIGHUP)
    gateway.configure(limits={"body": 3})
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: get(gateway, partner, method="POST", body=b"abcd").status == 413, gateway.ops_text)
    assert 1 < gateway.metrics()["proofgw_config_generation"] <= 52
    assert not gateway.events("config_reload_failed")


# --- nothing is dropped


def test_request_in_flight_finishes_on_what_it_began_with(gateway, partner, backend, backends):
    """Its body limit, its backend and its timeouts are those of its beginning; the next one on the same connection goes
    by the new ones."""
    gate = backend.gate()

    def slow(connection):
        connection.read_head()
        gate.wait()
        connection.send(answer(body=b"old"))
        connection.drain()

    backend.script(slow)
    other = backends()
    other.answer = lambda sent: answer(body=b"new")
    client = gateway.client()
    client.send(request("POST", fields=partner.authorization, body=b"1234567890")[:-5])
    backend.wait_requests(1)
    gateway.reload(**environments(upstream=other.address, hosts=["new.test"]), limits={"body": 3})
    client.send(b"67890")
    gate.open()
    is_passed(client.response("POST"), body=b"old")
    is_passed(client.exchange(fields=partner.authorization, host="new.test"), body=b"new")
    is_error(client.exchange("POST", fields=partner.authorization, host="new.test", body=b"1234"), "body_too_large")


def test_head_in_flight(gateway, partner):
    """A head whose first byte came before the reload goes by the hosts of then."""
    client = gateway.client()
    head = request(fields=partner.authorization)
    client.send(head[:20])
    gateway.wait_metric("proofgw_client_bytes_received_total", lambda v: v >= 20)
    gateway.reload(**environments(hosts=["new.test"]))
    client.send(head[20:])
    is_passed(client.response())


def test_tunnels_live_on(gateway, partner, backend):
    """Over a reload that changes their backend, host and listener; a new idle time counts for them too."""
    far = takeover(backend, accepting)
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    (end,) = far()[:1]
    changes = environments(hosts=["new.test"], upstream="127.0.0.1:1")
    gateway.reload(**changes, listeners=[{"address": f"127.0.0.1:{free_port()}"}])
    client.send(frame(TEXT, b"hello", MASK))
    assert end.reader.exactly(11) == frame(TEXT, b"hello", MASK)
    end.send(frame(TEXT, b"world"))
    assert read_frame(client.reader)[1:3] == (TEXT, b"world")
    gateway.reload(timeouts={"tunnel_idle": "300ms"})
    end.send(frame(TEXT, b"last"))
    assert read_frame(client.reader)[1:3] == (TEXT, b"last")
    gateway.wait_metric("proofgw_tunnels_open", 0)


class Load:
    """Threads that ask one after the other, on kept and on new connections; every answer must be right."""

    def __init__(self, gateway, partner, threads=4):
        self.gateway, self.partner = gateway, partner
        self.stopping = threading.Event()
        self.asked, self.problems = 0, []
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]

    def _run(self, i):
        try:
            client = None
            while not self.stopping.is_set():
                if client is None or i % 2:
                    if client:
                        client.close()
                    client = Client(("127.0.0.1", self.gateway.port))
                is_passed(client.exchange(fields=self.partner.authorization))
                self.asked += 1
            client.close()
        except Exception as problem:  # whatever it is, the test must hear of it
            self.problems.append(repr(problem))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(DEADLINE_S)
        assert not self.problems, self.problems
        assert self.asked > 0


def test_reloads_under_load(gateway, partner, backends):
    """No request fails while limits, backends, listeners and logs change all the time."""
    rounds = 1000 if FULL else 100
    second = backends()
    upstreams = [second.address, gateway.config["environments"]["production"]["upstream"]]
    first, extra = gateway.config["listeners"][0], {"address": f"127.0.0.1:{free_port()}"}
    with Load(gateway, partner):
        for i in range(rounds):
            gateway.reload(
                **environments(upstream=upstreams[i % 2]),
                limits={"body": 1000 + i},
                listeners=[extra, first] if i % 2 else [first],
            )
    scrape = gateway.metrics()
    assert scrape["proofgw_config_generation"] == rounds + 1
    assert scrape("proofgw_config_reloads_total", result="done") == rounds
    assert not gateway.events("config_reload_failed")


def anonymous_kib(pid):
    """Not Pss: what is shared of the binary counts less while other gateways run."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return int(re.search(r"^Anonymous: +(\d+) kB", file.read(), re.M)[1])


@pytest.mark.slow
@pytest.mark.skipif(is_sanitized(), reason="a sanitizer keeps freed memory")
def test_memory_stays_where_it_was(proofgw, partner):
    """1,000 reloads in a row that change limits, hosts and listeners, with requests between. The log rings are small, so
    that their pages are all in use before it counts."""
    gateway = proofgw(reload_on_change=False, workers=2, logs={"ring": "64KiB"})
    client = gateway.client()
    first, extra = gateway.config["listeners"][0], {"address": f"127.0.0.1:{free_port()}"}

    def reload_many(n):
        for i in range(n):
            hosts = ["api.test", *(f"h{j}.test" for j in range(i % 50))]
            gateway.reload(**environments(hosts=hosts), listeners=[first, extra] if i % 2 else [first])
            is_passed(client.exchange(fields=partner.authorization))

    reload_many(200)
    before = anonymous_kib(gateway.process.pid)
    reload_many(1000)
    after = anonymous_kib(gateway.process.pid)
    assert after < before + 256, f"{before} KiB before, {after} KiB after"
