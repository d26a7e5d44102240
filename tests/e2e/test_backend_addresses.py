"""Where the backend is: names, several addresses, and none."""

import os
import signal
import socket

import pytest

from support.backend import answer
from support.expect import is_error, is_passed
from support.wait import DEADLINE_S, wait_for

pytest_plugins = ["support.hosts"]


def test_a_backend_by_name(proofgw, backend, partner):
    gateway = proofgw(upstream="localhost:" + backend.address.split(":")[1])
    gateway.wait_event("resolved", 2)
    client = gateway.client()
    for _ in range(4):
        is_passed(client.exchange(fields=partner.authorization + "X-A: b\r\n"))
    status, _ = gateway.admin("/readyz")
    assert status == 200


@pytest.fixture
def silent_name_server():
    """The address of one that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        address = "127.53.%d.%d" % divmod(os.getpid() % 65025, 255)
        try:
            server.bind((address, 53))
        except OSError as problem:
            pytest.skip(f"no name server here: {problem}")
        yield address


def test_silent_name_servers_hold_up_no_other_name(proofgw, backend, partner, hosts, silent_name_server):
    """Two names are being looked up for as long as the system's resolver likes; a third one is known at once."""
    hosts({"localhost": ["127.0.0.1"]}, silent_name_server, timeout_s=30)
    gateway = proofgw(upstream="one.test:80", sandbox_upstream="two.test:80", reload_on_change=False)
    gateway.reload(environments={"production": {"upstream": "localhost:" + backend.address.split(":")[1]}})
    is_passed(gateway.client().exchange(fields=partner.authorization))


def test_as_many_silent_name_servers_as_there_can_be_names(proofgw, hosts, silent_name_server):
    """Sixteen Sentinels, and a backend: the other backend is known at once."""
    hosts({"localhost": ["127.0.0.1"]}, silent_name_server, timeout_s=30)
    sentinels = [{"address": f"s{number}.test:26379"} for number in range(16)]
    redis = {"sentinel": {"master": "partners", "addresses": sentinels}}
    gateway = proofgw(
        upstream="localhost:80",
        sandbox_upstream="one.test:80",
        ready=False,
        store={"kind": "redis", "file": None, "redis": redis},
    )
    assert gateway.wait_event("resolved")[0]["host"] == "localhost"


def test_the_end_while_a_reload_waits_for_a_name(proofgw, backend, partner, hosts, silent_name_server):
    """Whoever asked for the reload is told that there is none."""
    hosts({"localhost": ["127.0.0.1"]}, silent_name_server, timeout_s=30)
    gateway = proofgw(reload_on_change=False, admin={"control_socket": "control.sock"})
    gateway.configure(environments={"production": {"upstream": "one.test:80"}})
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(gateway.folder / "control.sock"))
        asking.sendall(b"POST /reload HTTP/1.1\r\nHost: gateway\r\n\r\n")
        is_passed(gateway.client().exchange(fields=partner.authorization))
        gateway.signal(signal.SIGTERM)
        asking.settimeout(DEADLINE_S)
        assert b" 409 " in asking.recv(4096)
    assert gateway.wait_exit() == 0


@pytest.mark.parametrize("whose", ["a backend", "Redis"])
def test_the_end_does_not_wait_for_a_name_server(proofgw, hosts, silent_name_server, whose):
    hosts({"localhost": ["127.0.0.1"]}, silent_name_server, timeout_s=30)
    redis = {"store": {"kind": "redis", "file": None, "redis": {"address": "one.test:6379"}}}
    gateway = proofgw(ready=False, **(redis if whose == "Redis" else {"upstream": "one.test:80"}))
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert gateway.events("stopped")[-1]["cause"] == "a name server did not answer"


def test_the_next_address_is_tried_when_one_refuses(proofgw, backend, partner, hosts):
    """Nobody listens at 127.0.0.2 and 127.0.0.3. Every request opens a connection; each is served."""
    hosts({"backend.test": ["127.0.0.2", "127.0.0.1", "127.0.0.3"]})
    gateway = proofgw(upstream="backend.test:" + backend.address.split(":")[1])
    assert gateway.wait_event("resolved", 2)[0]["addresses"] == "3"
    backend.answer = lambda r: answer(fields="Connection: close\r\n")
    client = gateway.client()
    for n in range(6):
        is_passed(client.exchange("POST", fields=partner.authorization, body=b"%d" % n))
    assert [r.body for r in backend.requests] == [b"%d" % n for n in range(6)]
    assert gateway.metrics()["proofgw_upstream_connect_failures_total"] >= 2


def test_every_address_refuses(proofgw, backends, partner, hosts):
    hosts({"backend.test": ["127.0.0.2", "127.0.0.3"]})
    backend = backends()
    gateway = proofgw(upstream="backend.test:" + backend.address.split(":")[1])
    gateway.wait_event("resolved", 2)
    got = gateway.client().exchange(fields=partner.authorization)
    is_error(got, "upstream_unavailable", closes=False)
    assert gateway.line_of(got)["end"] == "backend/connect"
    assert gateway.metrics()["proofgw_upstream_connect_failures_total"] == 2
    assert not backend.connections


def test_a_name_that_nobody_knows(proofgw, partner, hosts):
    hosts({"localhost": ["127.0.0.1"]})
    gateway = proofgw(upstream="nobody.invalid:80")
    gateway.wait_event("resolve_failed", 2)
    status, text = gateway.admin("/readyz")
    assert status == 503 and "backend_resolved" in text
    got = gateway.client().exchange(fields=partner.authorization)
    is_error(got, "upstream_unavailable", closes=False)
    assert gateway.line_of(got)["end"] == "backend/connect"


def test_a_look_up_that_hangs_does_not_hold_up_the_end(proofgw, partner, hosts, tmp_path):
    """Nor does it change the exit code, or leave a file behind: a request that had begun is cut."""
    hosts(None)
    path = tmp_path / "l.sock"
    listeners = [{"address": "127.0.0.1:0"}, {"address": f"unix:{path}"}]
    gateway = proofgw(upstream="backend.test:80", listeners=listeners, timeouts={"shutdown": "100ms"}, exit_code=3)
    client = gateway.client()
    client.send(b"GET / HTTP/1.1\r\n")
    wait_for(lambda: gateway.metrics()["proofgw_connections_open"] == 1, "the connection")
    assert path.exists()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 3
    (event,) = gateway.events("stopped")
    assert (event["exit_code"], event["cause"]) == ("3", "a name server did not answer")
    assert not path.exists()
