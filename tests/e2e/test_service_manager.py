"""Under a service manager: what it hears (sd_notify), sockets that it passes (LISTEN_FDS), and the unit file.

Goal: READY=1 only when requests can be answered; a reload, a stop and an upgrade are announced; the watchdog is fed;
sockets that were opened before are used, and their queues kept.

Method: a datagram socket plays the service manager; the unit file is judged by systemd-analyze.
"""

import json
import re
import shutil
import signal
import socket
import subprocess

import pytest

from support.client import Client, request
from support.expect import is_passed
from support.gateway import BINARY, ROOT
from support.hanging import hanging
from support.successor import upgrade
from support.wait import DEADLINE_S, wait_for


class Manager:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0.01)
        self.env = {"NOTIFY_SOCKET": str(path)}
        self.messages = []

    def _read(self):
        try:
            while True:
                self.messages.append(dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n")))
        except TimeoutError:
            pass

    def wait(self, key, value=None, after=0):
        """The number of the next message with this assignment, counted from `after`."""

        def found():
            self._read()
            for i, message in enumerate(self.messages[after:], after):
                if key in message and value in (None, message[key]):
                    return [i]
            return None

        return wait_for(found, lambda: f"{key}={value}: {self.messages}")[0]


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify.sock")
    yield manager
    manager.socket.close()


def test_ready(proofgw, manager):
    proofgw(process={"env": manager.env})
    i = manager.wait("READY", "1")
    assert re.fullmatch(r"serving: 0 connections, 0 tunnels, partner data \d+", manager.messages[i]["STATUS"])


def test_not_ready_before_there_are_partners(proofgw, manager, partner):
    gateway = proofgw(ready=False, partners=[], store={"file": "later.ndjson"}, process={"env": manager.env})
    assert gateway.admin("/readyz")[0] == 503
    manager._read()
    assert not manager.messages
    gateway.write_partners([partner])
    (gateway.folder / "partners.ndjson").rename(gateway.folder / "later.ndjson")
    manager.wait("READY", "1")
    assert gateway.admin("/readyz")[0] == 200


def test_ready_after_a_bounded_wait(proofgw, manager):
    """A store that is away does not make the start fail."""
    proofgw(ready=False, store={"file": "missing.ndjson"}, process={"env": manager.env})
    wait_for(lambda: manager._read() or any("READY" in m for m in manager.messages), "READY=1", 3 * DEADLINE_S)
    assert manager.messages[-1]["STATUS"].endswith("no partner data yet")


def test_reload(proofgw, manager):
    gateway = proofgw(reload_on_change=False, process={"env": manager.env})
    at = manager.wait("READY", "1")
    gateway.reload(limits={"body": "1KiB"})
    begun = manager.wait("RELOADING", "1", at + 1)
    assert int(manager.messages[begun]["MONOTONIC_USEC"]) > 0
    done = manager.wait("READY", "1", begun + 1)
    assert manager.messages[done]["STATUS"] == "configuration 2 is in force"
    gateway.reload_refused(text="nonsense: 1\n")
    begun = manager.wait("RELOADING", "1", done + 1)
    done = manager.wait("READY", "1", begun + 1)
    assert manager.messages[done]["STATUS"].startswith("reload failed: ")
    assert "gateway.yaml:1:" in manager.messages[done]["STATUS"]


def test_stop(proofgw, manager):
    gateway = proofgw(workers=2, timeouts={"drain_delay": "1s"}, process={"env": {**manager.env, "WATCHDOG_USEC": "400000"}})
    at = manager.wait("READY", "1")
    gateway.signal(signal.SIGTERM)
    i = manager.wait("STOPPING", "1", at + 1)
    assert manager.messages[i]["STATUS"].startswith("leaving_delay: ")
    for _ in range(2):  # again and again, as long as it lives
        i = manager.wait("EXTEND_TIMEOUT_USEC", "30000000", i + 1)
    assert gateway.wait_exit() == 0


def test_watchdog(proofgw, manager, partner):
    gateway = proofgw(workers=3, process={"env": {**manager.env, "WATCHDOG_USEC": "200000"}})
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    i = 0
    for _ in range(3):
        i = manager.wait("WATCHDOG", "1", i) + 1
    i = manager.wait("STATUS", after=i)
    assert manager.messages[i]["STATUS"].startswith("serving: 1 connections, 0 tunnels, ")
    assert not gateway.events("worker_silent")


@pytest.mark.parametrize("managed", [True, False], ids=["systemd", "alone"])
def test_a_worker_that_hangs(proofgw, manager, managed):
    """Its connections wait, so whoever looks after the process must hear of it, without a service manager too: after 10 to 20 s."""
    env = {**manager.env, "WATCHDOG_USEC": "200000"} if managed else {}
    gateway = proofgw(workers=2, process={"env": env})
    assert gateway.metrics()["proofgw_workers_silent"] == 0
    with hanging(gateway.process, "w1"):
        wait_for(lambda: gateway.admin("/healthz")[0] == 503, gateway.ops_text, 30)
        assert json.loads(gateway.admin("/readyz")[1])["failed"] == ["workers_answer"]
        assert gateway.admin("/livez") == (503, "a worker hangs: docs/ALERTS.md, ProofgwWorkerSilent\n")
        metrics = gateway.metrics()
        assert (metrics["proofgw_workers_silent"], metrics["proofgw_ready"]) == (1, 0)
        event = gateway.wait_event("worker_silent")[0]
        assert (event["level"], event["workers"]) == ("error", "1") and int(event["for_ms"]) >= (100 if managed else 10_000)
    wait_for(lambda: gateway.admin("/healthz") == (200, "ok\n"), gateway.ops_text)
    assert gateway.admin("/readyz")[0] == 200 and gateway.metrics()["proofgw_workers_silent"] == 0


def test_the_watchdog_needs_no_descriptors(proofgw, manager):
    """A gateway whose connections have taken all of them is not one that hangs."""
    gateway = proofgw(process={"env": {**manager.env, "WATCHDOG_USEC": "200000"}, "prefix": ["prlimit", "--nofile=64"]})
    for _ in range(64):
        gateway.client()
    gateway.wait_event("accept_failed")
    manager._read()
    i = len(manager.messages)
    for _ in range(3):
        i = manager.wait("WATCHDOG", "1", i) + 1


def test_no_watchdog_unless_it_is_wanted(proofgw, manager):
    """Nor when it is meant for another process."""
    proofgw(process={"env": {**manager.env, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}})
    manager.wait("READY", "1")
    manager._read()
    assert not [m for m in manager.messages if "WATCHDOG" in m]


def test_upgrade(proofgw, manager, partner):
    """The old process hands its name over, and says nothing more: STOPPING=1 would end the service."""
    gateway = proofgw(process={"env": {**manager.env, "WATCHDOG_USEC": "400000"}})
    at = manager.wait("READY", "1")
    old = upgrade(gateway)
    i = manager.wait("MAINPID", str(gateway.process.pid), at + 1)
    assert old.wait(DEADLINE_S) == 0
    manager.wait("WATCHDOG", "1", manager.wait("WATCHDOG", "1", i) + 1)
    assert [m for m in manager.messages[at + 1 :] if "READY" in m]
    assert not [m for m in manager.messages if "STOPPING" in m]


def test_an_abstract_socket(proofgw):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("")  # the kernel chooses an abstract name
        listener.settimeout(DEADLINE_S)
        proofgw(process={"env": {"NOTIFY_SOCKET": "@" + listener.getsockname()[1:].decode()}})
        assert listener.recv(4096).startswith(b"READY=1\n")


# --- socket activation


def passing(*sockets):
    """Arguments for a gateway that gets these sockets as the service manager passes them."""
    moves = "".join(f"exec {3 + i}<&{s.fileno() + 100} {s.fileno() + 100}<&-; " for i, s in enumerate(sockets))
    high = "".join(f"exec {s.fileno() + 100}<&{s.fileno()} {s.fileno()}<&-; " for s in sockets)
    script = f'{high}{moves}export LISTEN_PID=$$ LISTEN_FDS={len(sockets)}; exec "$@"'
    return {"prefix": ["/bin/bash", "-c", script, "bash"], "pass_fds": [s.fileno() for s in sockets]}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("reuse", [False, True], ids=["plain", "reuseport"])
def test_sockets_that_are_open_already(proofgw, partner, workers, reuse):
    """With what waits in them since before the gateway was started; and an upgrade takes them on."""
    with socket.socket() as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        early = Client(tcp.getsockname())
        early.send(request(fields=partner.authorization))
        gateway = proofgw(
            workers=workers,
            listeners=[{"address": "127.0.0.1:%d" % tcp.getsockname()[1]}],
            process=passing(tcp),
        )
        tcp.close()
        is_passed(early.response())
        early.close()
        for _ in range(2):
            for _ in range(10):
                client = gateway.client()
                is_passed(client.exchange(fields=partner.authorization))
                client.close()
            assert upgrade(gateway).wait(DEADLINE_S) == 0


def test_a_unix_socket_that_is_open_already(proofgw, partner, tmp_path):
    path, unused = tmp_path / "l.sock", tmp_path / "unused.sock"
    with socket.socket(socket.AF_UNIX) as used, socket.socket(socket.AF_UNIX) as other:
        for s, where in ((used, path), (other, unused)):
            s.bind(str(where))
            s.listen()
        gateway = proofgw(
            workers=2,
            listeners=[{"address": "127.0.0.1:0"}, {"address": f"unix:{path}"}],
            process=passing(used, other),
        )
        assert Client(path).exchange(fields=partner.authorization).status == 403
        (event,) = gateway.wait_event("inherited_socket_unused")
        assert event["address"] == f"unix:{unused}"
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_exit() == 0
        assert path.exists()  # the service manager still listens there


# --- the unit file


def test_the_unit_file(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("systemd-analyze is not installed")
    text = (ROOT / "deploy/systemd/proofgw.service.in").read_text()
    for program in ("proofgw", "proofctl"):  # something that can be executed
        text = text.replace(f"@CMAKE_INSTALL_FULL_SBINDIR@/{program}", str(BINARY))
    text = text.replace("@CMAKE_INSTALL_FULL_SYSCONFDIR@", "/etc")
    assert "@" not in re.sub(r"@(system-service|privileged|resources)\b", "", text)
    assert not re.search(r"^Exec(Condition|StartPre)=", text, re.M)  # RestartPreventExitStatus= is not for these
    text = text.replace("Documentation=man:proofgw(8)\n", "")
    unit = tmp_path / "proofgw.service"
    unit.write_text(text)
    got = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    assert "proofgw.service" not in got.stderr, got.stderr
    assert got.returncode == 0, got.stderr
