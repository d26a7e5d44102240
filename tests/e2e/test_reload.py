"""Live reload: a changed configuration file takes over while everything goes on.

Goal: every live key changes what the next request meets; a faulty file changes nothing and says why; nothing is
dropped: no connection, no request, no tunnel; and however often it happens, memory stays where it was.

Method: the real binary. Gateways have reload_on_change off and are told by SIGHUP, so that each change is taken over
exactly once; the tests of the watch switch it on. PROOFGW_FULL=1 makes the long tests as long as they are meant to be.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.backend import answer
from support.client import request
from support.expect import is_error, is_passed
from support.redis import free_port
from support.reloading import environments, get, watched
from support.wait import wait_for


@pytest.fixture
def gateway(proofgw):
    return proofgw(reload_on_change=False, workers=2)


# --- what is live


def test_hosts(gateway, partner):
    is_error(get(gateway, partner, host="new.test"), "not_found")
    gateway.reload(**environments(hosts=["new.test"]))
    is_passed(get(gateway, partner, host="new.test"))
    is_error(get(gateway, partner, host="api.test"), "not_found")


def test_environment_appears_and_vanishes(proofgw, partner, backends):
    """A vanished one answers 404, and what was open to its backend is closed."""
    sandbox = backends()
    gateway = proofgw(reload_on_change=False, sandbox_upstream=sandbox.address)
    gateway.reload(environments={"sandbox": None})
    is_error(get(gateway, partner, host="sandbox.test"), "not_found")
    gateway.reload(environments={"sandbox": {"hosts": ["sandbox.test"], "upstream": sandbox.address}})
    is_error(get(gateway, partner, host="sandbox.test"), "forbidden_origin")
    is_passed(get(gateway, partner))


def test_upstream_address(gateway, partner, backend, backends):
    """The next request of the same connection goes to the other backend; idle connections to the old one close."""
    other = backends()
    other.answer = lambda sent: answer(body=b"other")
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    gateway.reload(**environments(upstream=other.address))
    is_passed(client.exchange(fields=partner.authorization), body=b"other")
    wait_for(lambda: backend.open_connections() == 0, lambda: "idle connections to the old backend")


def test_upstream_name(gateway, partner, backend):
    """A name is resolved before anything goes there."""
    port = backend.address.rsplit(":", 1)[1]
    gateway.reload(**environments(upstream=f"localhost:{port}"))
    is_passed(get(gateway, partner))
    gateway.reload(**environments(upstream=backend.address))
    is_passed(get(gateway, partner))


def test_upstream_name_that_does_not_exist(gateway, partner):
    (line,) = gateway.reload_refused(**environments(upstream="no-such-host.invalid:80"))
    assert "no-such-host.invalid" in line["error"]
    is_passed(get(gateway, partner))


@pytest.mark.parametrize(
    "changes, sent, code",
    [
        ({"limits": {"body": 3}}, {"method": "POST", "body": b"abcd"}, "body_too_large"),
        ({"limits": {"target": "64"}}, {"target": "/widget/" + "x" * 100}, "uri_too_long"),
        ({"limits": {"header_count": 8}}, {"extra": "".join(f"X-{i}: 1\r\n" for i in range(9))}, "headers_too_large"),
        ({"limits": {"head": "1KiB"}}, {"extra": f"X-Long: {'x' * 2000}\r\n"}, "headers_too_large"),
        ({"fields": {"alias": "reject"}}, {"extra": "x_real_ip: 1\r\n"}, "decode_error"),
    ],
    ids=["body", "target", "header_count", "head", "alias"],
)
def test_limits_of_requests(gateway, partner, changes, sent, code):
    """On a connection that was open before: it goes by the new limits from its next request on."""
    extra = sent.pop("extra", "")
    waiting, late = gateway.client(), gateway.client()
    is_passed(waiting.exchange(fields=partner.authorization + extra, **sent))
    gateway.reload(**changes)
    is_error(waiting.exchange(fields=partner.authorization + extra, **sent), code)
    is_error(late.exchange(fields=partner.authorization + extra, **sent), code)


def test_limit_of_connections(gateway, partner):
    gateway.reload(limits={"connections_per_source": 1})
    clients = [gateway.client() for _ in range(8)]
    for client in clients:
        client.send(request(fields=partner.authorization))
    assert 503 in {client.response().status for client in clients}
    gateway.reload(limits={"connections_per_source": 0})
    is_passed(get(gateway, partner))


def test_fewer_connections_to_a_backend(proofgw, partner, backend):
    """Those that are idle close at once, those that are in use after their answer: none of them is in the way of a
    request that needs a connection of its own."""
    gateway = proofgw(reload_on_change=False)
    gates = [backend.gate() for _ in range(3)]

    def script(gate):
        return lambda c: (c.read_request(), gate.wait(), c.send(answer()), c.serve())

    backend.script(*map(script, gates))
    clients = [gateway.client() for _ in gates]
    for n, client in enumerate(clients):
        client.send(request(fields=partner.authorization))
        backend.wait_requests(n + 1)
    gates[0].open()
    is_passed(clients[0].response())
    gateway.wait_metric("proofgw_upstream_connections_idle", 1)
    gateway.reload(limits={"upstream_connections": 1, "upstream_idle_connections": 1})
    gateway.wait_metric("proofgw_upstream_connections_open", 2)
    for gate, client in zip(gates[1:], clients[1:]):
        gate.open()
        is_passed(client.response())
    gateway.wait_metric("proofgw_upstream_connections_open", lambda n: n <= 1)


def test_identity(gateway, partner, backend):
    gateway.reload(identity={"remove": ["x-debug"], "pass_authorization": True})
    is_passed(get(gateway, partner))
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization + "X-Debug: 1\r\n"))
    assert backend.last["x-debug"] is None
    assert partner.token in backend.last["authorization"]


def test_timeouts_of_idle_connections(gateway, partner):
    """A connection that is idle now gets the new keep-alive time now."""
    idle, fresh = gateway.client(), gateway.client()
    is_passed(idle.exchange(fields=partner.authorization))
    gateway.reload(timeouts={"keep_alive": "300ms"})
    idle.expect_close()
    fresh.expect_close()


def test_timeouts_of_backends(gateway, partner, backend):
    gateway.reload(timeouts={"upstream_response": "200ms"})
    gate = backend.gate()
    backend.script(lambda connection: (connection.read_request(), gate.wait(), connection.close()))
    is_error(get(gateway, partner), "upstream_timeout")
    gate.open()


def test_listener_added_and_removed(gateway, partner):
    """The new one serves, the old one goes on; the connections of one that is removed live on."""
    port = free_port()
    first = gateway.config["listeners"][0]
    gateway.reload(listeners=[first, {"address": f"127.0.0.1:{port}", "backlog": 100}])
    added = gateway.client(("127.0.0.1", port))
    is_passed(added.exchange(fields=partner.authorization))
    is_passed(get(gateway, partner))
    gateway.reload(listeners=[{**first, "backlog": 200}])
    wait_for(lambda: refuses(port), lambda: "the removed listener still listens")
    is_passed(added.exchange(fields=partner.authorization))
    is_passed(get(gateway, partner))
    gateway.reload(listeners=[{"address": f"127.0.0.1:{port}"}, first])
    is_passed(gateway.client(("127.0.0.1", port)).exchange(fields=partner.authorization))
    is_passed(get(gateway, partner))


def backlogs(port):
    """Of all sockets that listen there."""
    done = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True)
    return {int(line.split()[2]) for line in done.stdout.splitlines()}


@pytest.mark.skipif(not shutil.which("ss"), reason="ss is not installed (Debian: iproute2)")
def test_backlog_of_a_listener_that_stays(gateway):
    first = gateway.config["listeners"][0]
    for backlog in (70, 7):
        gateway.reload(listeners=[{**first, "backlog": backlog}])
        assert backlogs(gateway.port) == {backlog}


def test_listener_moves_to_another_address_of_its_port(gateway, partner):
    """From one address to all and back, without a moment in which nobody listens."""
    first, port = gateway.config["listeners"][0], free_port()
    addresses = [f"127.0.0.1:{port}", f"0.0.0.0:{port}", f"*:{port}", f"127.0.0.1:{port}"]
    for address in addresses:
        gateway.reload(listeners=[first, {"address": address}])
        is_passed(gateway.client(("127.0.0.1", port)).exchange(fields=partner.authorization))
    gateway.reload(listeners=[first])
    wait_for(lambda: refuses(port), lambda: "the removed listener still listens")


def test_listener_becomes_narrower_in_a_reload_that_fails(gateway, partner):
    """The new socket would take the connections of the old one: it must not listen while a name is waited for."""
    first, port = gateway.config["listeners"][0], free_port()
    gateway.reload(listeners=[first, {"address": f"0.0.0.0:{port}"}])
    narrower = [first, {"address": f"127.0.0.1:{port}"}]
    passed = 0
    with ThreadPoolExecutor(1) as pool:
        reload = pool.submit(gateway.reload_refused, listeners=narrower, **environments(upstream="no-such-host.invalid:80"))
        while not reload.done():
            is_passed(gateway.client(("127.0.0.1", port)).exchange(fields=partner.authorization))
            passed += 1
    (line,) = reload.result()
    assert "no-such-host.invalid" in line["error"] and passed > 5


def refuses(port):
    with contextlib.closing(socket.socket()) as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def test_unix_listener_added_and_removed(gateway):
    """Its file goes with it."""
    path = gateway.folder / "gw.sock"
    first = gateway.config["listeners"][0]
    gateway.reload(listeners=[first, {"address": f"unix:{path}"}])
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
        s.connect(str(path))
    gateway.reload(listeners=[first])
    wait_for(lambda: not path.exists(), lambda: "the file of the socket is still there")


def test_listener_that_cannot_be_opened(gateway, partner):
    """Nothing changes, not even what comes before it in the file."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        port, path = free_port(), gateway.folder / "gw.sock"
        others = [{"address": a} for a in (f"127.0.0.1:{port}", f"unix:{path}", address)]
        listeners = [gateway.config["listeners"][0], *others]
        (line,) = gateway.reload_refused(listeners=listeners, limits={"body": 1})
        assert address in line["error"]
    assert refuses(port) and not path.exists()
    is_passed(get(gateway, partner, method="POST", body=b"more than one byte"))


def test_listener_that_cannot_be_opened_when_the_name_is_found(gateway, partner, backend):
    """The reload ends inside the look-up that it waited for."""
    port = backend.address.rsplit(":", 1)[1]
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        listeners = [gateway.config["listeners"][0], {"address": address}]
        (line,) = gateway.reload_refused(listeners=listeners, **environments(upstream=f"localhost:{port}"))
        assert address in line["error"]
    is_passed(get(gateway, partner))
    gateway.reload(**environments(upstream=f"localhost:{port}"))
    is_passed(get(gateway, partner))


def test_logs(gateway, partner):
    """Both go to other files, the level changes, and the access log can be switched off and on."""
    access, operations = gateway.folder / "a.log", gateway.folder / "o.log"
    gateway.reload(logs={"access": str(access), "operations": str(operations), "level": "warn"})
    is_passed(get(gateway, partner))
    wait_for(lambda: access.exists() and b'"event":"request"' in access.read_bytes(), lambda: "a line in the new log")
    gateway.reload(logs={"access": "off", "level": "info"})
    size = access.stat().st_size
    is_passed(get(gateway, partner))
    gateway.reload(logs={"access": "stdout", "operations": "stderr"})
    got = get(gateway, partner)
    assert gateway.line_of(got)["status"] == 200
    assert access.stat().st_size == size
    wait_for(lambda: "event=config_reloaded generation=3" in operations.read_text(), operations.read_text)
    text = operations.read_text()
    assert "event=config_reloaded generation=2" not in text  # level warn
    assert gateway.metrics()["proofgw_log_dropped_lines_total"] == 0


def test_log_that_cannot_be_opened(gateway, partner):
    (line,) = gateway.reload_refused(logs={"access": "/no/such/folder/access.log"})
    assert "/no/such/folder/access.log" in line["error"]
    assert gateway.line_of(get(gateway, partner))["status"] == 200


# --- what is not


def test_faulty_file(gateway, partner):
    """All of its errors are in the log, with their places; what was in force stays."""
    gateway.reload_refused("workers: many\nlimits:\n  body: 64kb\n")

    def reasons():
        return "\n".join(line.get("error", "") for line in gateway.events("config_reload_failed"))

    text = wait_for(lambda: " errors" in reasons() and reasons(), reasons)  # the last line counts them
    assert re.search(r"gateway\.yaml:1:10: error: workers", text), text
    assert re.search(r"gateway\.yaml:3:9: error: limits\.body", text), text
    assert '"listeners" is missing' in text
    is_passed(get(gateway, partner))
    scrape = gateway.metrics()
    assert scrape["proofgw_config_generation"] == 1
    gateway.reload()
    assert gateway.metrics()["proofgw_config_last_reload_successful"] == 1


def test_missing_file(gateway, partner):
    gateway.config_file.rename(gateway.folder / "elsewhere")
    gateway.signal(signal.SIGHUP)
    (line,) = gateway.wait_event("config_reload_failed")
    assert "cannot be read" in line["error"]
    is_passed(get(gateway, partner))


def test_file_that_comes_back(proofgw, partner):
    """It could not be read when a reload was asked for. When it is there again, what was true is true again, though its
    content is that of before."""
    gateway = watched(proofgw)
    away = gateway.folder / "elsewhere"
    gateway.config_file.rename(away)
    gateway.signal(signal.SIGHUP)
    gateway.wait_metric("proofgw_config_last_reload_successful", 0)
    away.rename(gateway.config_file)
    gateway.wait_metric("proofgw_config_last_reload_successful", 1)
    assert [e["trigger"] for e in gateway.events("config_reloaded")] == ["file"]
    is_passed(get(gateway, partner))


def test_a_pipe_in_the_place_of_the_file(proofgw, partner):
    """Nobody writes into it: whoever waited for that would answer neither health checks nor changes of partners."""
    gateway = watched(proofgw)
    away, pipe = gateway.folder / "elsewhere", gateway.folder / "pipe"
    gateway.config_file.rename(away)
    os.mkfifo(pipe)
    pipe.rename(gateway.config_file)
    gateway.signal(signal.SIGHUP)
    (line,) = gateway.wait_event("config_reload_failed")
    assert line["error"].endswith("gateway.yaml: error: cannot be read: it is no regular file")
    is_passed(get(gateway, partner))
    away.rename(gateway.config_file)
    gateway.wait_metric("proofgw_config_last_reload_successful", 1)


def test_keys_that_need_a_restart(gateway, partner):
    """They keep their value, and each reload says so until it is true; the others of the file count."""
    gateway.reload(workers=3, limits={"buffer": "512KiB", "body": 3})
    assert gateway.metrics()["proofgw_workers"] == 2
    is_error(get(gateway, partner, method="POST", body=b"abcd"), "body_too_large")
    gateway.reload()
    lines = gateway.wait_event("config_needs_restart", 4)
    for event in (lines[:2], lines[2:]):
        assert [(e["key"], e["running"], e["file"]) for e in event] == [
            ("workers", "2", "3"),
            ("limits.buffer", "256KiB", "512KiB"),
        ]
    changed = [e["key"] for e in gateway.events("config_changed")]
    assert changed == ["limits.body"]
    gateway.reload(workers=2, limits={"buffer": None})
    gateway.wait_event("config_reloaded", 3)
    assert len(gateway.events("config_needs_restart")) == 4


def test_head_that_does_not_fit_the_running_buffer(gateway, partner):
    (line,) = gateway.reload_refused(limits={"buffer": "1MiB", "head": "400KiB"})
    assert "limits.buffer" in line["error"]
    is_passed(get(gateway, partner))
