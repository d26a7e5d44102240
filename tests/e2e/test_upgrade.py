"""SIGUSR2: a new process takes the sockets over, the old one drains.

Goal: no request is lost and no connection is refused, however often; every tunnel gets a 1012; a new process that
cannot start, for whatever reason, changes nothing; and addresses, files and counts of workers may change on the way.

Method: the real binary. The new process is started by the old one; once that has ended it is this process's child
(support/successor.py), so that its exit code is checked like any other. PROOFGW_FULL=1 makes the load test longer.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
from pathlib import Path

import pytest

from support.client import Client, request
from support.control import ask
from support.expect import is_passed
from support.gateway import BINARY, HOST, SANDBOX_HOST
from support.hanging import hanging, wait_end
from support.http1 import Ended
from support.process import EXIT_UNCLEAN
from support.successor import upgrade, upgrade_refused, wait_left
from support.takeover import takeover
from support.tls import connect, tls_listener
from support.wait import DEADLINE_S, wait_for
from support.websocket import CLOSE, TEXT, accepting, frame, read_frame
from support.websocket import upgrade as upgrade_request

pytest_plugins = ["support.tls"]

COME_AGAIN = (1012).to_bytes(2, "big")
PATIENT = {"drain_keep_alive": "1m"}  # idle connections are ended by their clients
UPGRADES = 40 if os.environ.get("PROOFGW_FULL") else 10


def get(gateway, partner, address=None):
    with contextlib.closing(gateway.client(address)) as client:
        return is_passed(client.exchange(fields=partner.authorization))


def upgrade_and_wait(gateway):
    old = upgrade(gateway)
    assert old.wait(DEADLINE_S) == 0


# --- what goes over


def test_the_new_process_serves_and_the_old_one_ends(proofgw, partner):
    gateway = proofgw(timeouts=PATIENT)
    kept = gateway.client()
    is_passed(kept.exchange(fields=partner.authorization))
    first = gateway.process.pid
    old = upgrade(gateway)
    wait_left(old)
    assert gateway.process.pid != first
    assert get(gateway, partner)["connection"] is None
    assert gateway.admin("/readyz")[0] == 200
    assert old.poll() is None
    assert is_passed(kept.exchange(fields=partner.authorization))["connection"] == "close"
    kept.expect_close()
    assert old.wait(DEADLINE_S) == 0
    assert [event["upgrade"] for event in gateway.wait_event("started", 2)] == ["no", "yes"]
    get(gateway, partner)


def test_a_request_in_flight_is_answered_by_the_old_process(proofgw, backend, partner):
    gateway = proofgw()
    far = takeover(backend)
    client = gateway.client().send(request(fields=partner.authorization))
    end, _ = far()
    old = upgrade(gateway)
    get(gateway, partner)
    end.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (client.response().body, old.poll()) == (b"ok", None)
    assert old.wait(DEADLINE_S) == 0


def test_tunnels_get_1012(proofgw, backend, partner):
    gateway = proofgw(workers=2, timeouts={"drain_tunnels": "300ms"})
    tunnels = []
    for _ in range(10):
        far = takeover(backend, accepting)
        client = gateway.client()
        assert client.ask(upgrade_request(partner)).status == 101
        tunnels.append((client, far()[0]))
    old = upgrade(gateway)
    for client, _ in tunnels:
        fin, opcode, payload = read_frame(client.reader)
        assert (fin, opcode, payload[:2]) == (True, CLOSE, COME_AGAIN)
        client.expect_close()
    assert old.wait(DEADLINE_S) == 0
    far = takeover(backend, accepting)
    client = gateway.client()
    assert client.ask(upgrade_request(partner)).status == 101
    far()[0].send(frame(TEXT, b"again"))
    assert read_frame(client.reader)[2] == b"again"


def test_what_waits_in_the_queue_is_served(proofgw, partner):
    """Connections that nobody has accepted yet: TCP_DEFER_ACCEPT keeps them in the kernel until they say something."""
    gateway = proofgw(workers=2)
    waiting = [gateway.client() for _ in range(20)]
    upgrade_and_wait(gateway)
    for client in waiting:
        is_passed(client.exchange(fields=partner.authorization))


class Load:
    """Clients that ask one request after the other, on keep-alive and on new connections."""

    def __init__(self, gateway, partner, threads=4, address=None):
        self.address = address or ("127.0.0.1", gateway.port)
        self.request = request(fields=partner.authorization)
        self.stop = threading.Event()
        self.answered, self.problems = 0, []
        self.threads = [threading.Thread(target=self._run, args=(i % 2 == 0,)) for i in range(threads)]

    def _run(self, keeps):
        client = None
        try:
            while not self.stop.is_set():
                client = client or Client(self.address)
                got = client.ask(self.request)
                assert got.status == 200, got.body
                self.answered += 1
                if not keeps or got["connection"] == "close":
                    client.close()
                    client = None
        except (AssertionError, OSError, Ended) as problem:
            self.problems.append(repr(problem))
        if client:
            client.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def more(self, n):
        """Waits until so many further requests were answered."""
        wanted = self.answered + n
        wait_for(lambda: self.answered >= wanted or self.problems, "answers")

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_upgrades_under_load_lose_nothing(proofgw, partner):
    gateway = proofgw(workers=2, timeouts=PATIENT)
    with Load(gateway, partner) as load:
        for _ in range(UPGRADES):
            load.more(20)
            upgrade_and_wait(gateway)
            assert not load.problems
        load.more(20)
    assert not load.problems
    assert len(gateway.events("upgraded")) == UPGRADES


# --- addresses and workers


@pytest.mark.parametrize("before, after", [(1, 3), (3, 1), (4, 3), (2, 2)])
def test_other_numbers_of_workers(proofgw, partner, before, after):
    gateway = proofgw(workers=before, reload_on_change=False, timeouts=PATIENT)
    gateway.configure(workers=after)
    with Load(gateway, partner) as load:
        load.more(10)
        upgrade_and_wait(gateway)
        load.more(100)
        upgrade_and_wait(gateway)  # what it has taken over can be handed over again
        load.more(100)
    assert not load.problems
    assert gateway.metrics()["proofgw_workers"] == after


def test_unix_sockets(proofgw, partner, tmp_path):
    path, control = tmp_path / "l.sock", tmp_path / "control.sock"
    gateway = proofgw(
        workers=2,
        listeners=[{"address": "127.0.0.1:0"}, {"address": f"unix:{path}"}],
        admin={"address": "127.0.0.1:0", "control_socket": str(control)},
    )
    for _ in range(2):
        inode = path.stat().st_ino
        upgrade_and_wait(gateway)
        assert path.stat().st_ino == inode
        assert Client(path).exchange(fields=partner.authorization).status == 403  # it has no address
        status, body = ask(control, "/status")
        assert (status, body["pid"]) == (200, gateway.process.pid)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert not path.exists() and not control.exists()


def test_listeners_on_port_0(proofgw, partner):
    """The address as it is written is the same for both: each keeps its own port, and the admin listener too."""
    gateway = proofgw(workers=2, listeners=[{"address": "127.0.0.1:0"}, {"address": "127.0.0.1:0"}])
    assert len(set(gateway.ports)) == 2
    for _ in range(2):
        upgrade_and_wait(gateway)
        for port in gateway.ports:
            get(gateway, partner, ("127.0.0.1", port))
    assert gateway.admin("/healthz")[0] == 200


def free_port():
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_a_listener_comes_and_another_one_goes(proofgw, partner, tmp_path):
    going, coming, path = free_port(), free_port(), tmp_path / "going.sock"
    gateway = proofgw(
        workers=2,
        reload_on_change=False,
        listeners=[{"address": "127.0.0.1:0"}, {"address": f"127.0.0.1:{going}"}, {"address": f"unix:{path}"}],
    )
    get(gateway, partner, ("127.0.0.1", going))
    gateway.configure(listeners=[{"address": "127.0.0.1:0"}, {"address": f"127.0.0.1:{coming}"}])
    upgrade_and_wait(gateway)
    get(gateway, partner)
    get(gateway, partner, ("127.0.0.1", coming))
    with pytest.raises(ConnectionRefusedError):
        Client(("127.0.0.1", going))
    assert not path.exists()


def test_a_listener_widens_to_all_addresses_of_its_port(replaceable, partner):
    """127.0.0.1 becomes 0.0.0.0, and that becomes *; a start that fails meanwhile changes nothing."""
    port = free_port()
    gateway = replaceable(workers=2, listeners=[{"address": "127.0.0.1:0"}, {"address": f"127.0.0.1:{port}"}])
    for address in (f"0.0.0.0:{port}", f"*:{port}"):
        listeners = [{"address": "127.0.0.1:0"}, {"address": address}]
        gateway.configure(listeners=[*listeners, {"address": "192.0.2.1:80"}])  # which this machine does not have
        with Load(gateway, partner, address=("127.0.0.1", port)) as load:
            load.more(10)
            assert "ended with code 1" in upgrade_refused(gateway)
            load.more(10)
        assert not load.problems
        gateway.configure(listeners=listeners)
        upgrade_and_wait(gateway)
        get(gateway, partner, ("127.0.0.1", port))
        get(gateway, partner, ("127.0.0.2", port))


def test_listeners_of_both_families_widen_at_once(replaceable, partner):
    port = free_port()
    first = {"address": "127.0.0.1:0"}
    gateway = replaceable(listeners=[first, {"address": f"127.0.0.1:{port}"}, {"address": f"[::1]:{port}"}])
    gateway.configure(listeners=[first, {"address": f"0.0.0.0:{port}"}, {"address": f"[::]:{port}"}])
    upgrade_and_wait(gateway)
    for host in ("127.0.0.1", "127.0.0.2", "::1"):
        get(gateway, partner, (host, port))


@pytest.mark.parametrize("before, after", [("0.0.0.0", "127.0.0.1"), ("*", "0.0.0.0")])
def test_a_listener_narrows_with_a_reload_only(replaceable, partner, before, after):
    """Its sockets would take connections from those that serve, before anybody knows whether the start succeeds."""
    port = free_port()
    gateway = replaceable(workers=2, listeners=[{"address": "127.0.0.1:0"}, {"address": f"{before}:{port}"}])
    gateway.configure(listeners=[{"address": "127.0.0.1:0"}, {"address": f"{after}:{port}"}])
    with Load(gateway, partner, address=("127.0.0.1", port)) as load:
        load.more(10)
        assert "ended with code 1" in upgrade_refused(gateway)
        load.more(10)
    assert not load.problems
    assert "let it reload this file first" in gateway.events("listen_failed")[0]["cause"]
    gateway.reload()
    upgrade_and_wait(gateway)
    get(gateway, partner, ("127.0.0.1", port))


# --- failures


@pytest.fixture
def replaceable(proofgw, tmp_path):
    """A gateway that runs from a copy of the binary, and a function that puts another program in its place."""
    binary = tmp_path / "proofgw"
    shutil.copy(BINARY, binary)

    def replace(script):
        new = tmp_path / "new"
        new.write_text(script or "")
        new.chmod(0o755 if script else 0o644)
        new.rename(binary)

    def restore():
        new = tmp_path / "new"
        shutil.copy(BINARY, new)
        new.rename(binary)

    def make(**changes):
        gateway = proofgw(process={"binary": binary}, reload_on_change=False, **changes)
        gateway.replace, gateway.restore = replace, restore
        return gateway

    return make


def goes_on(gateway, partner, kept, failed=1):
    assert is_passed(kept.exchange(fields=partner.authorization))["connection"] is None
    assert get(gateway, partner)["connection"] is None
    metrics = gateway.metrics()
    assert metrics("proofgw_upgrades_total", result="failed") == failed
    assert metrics("proofgw_upgrades_total", result="done") == 0
    assert gateway.admin("/readyz")[0] == 200


@pytest.mark.parametrize(
    "program, reason",
    [
        (None, "cannot be started: permission denied"),
        ("no program at all", "ended with code 127"),  # the C library hands it to the shell
        ("#!/bin/sh\nexit 7\n", "ended with code 7"),
        ("#!/bin/sh\nkill -9 $$\n", "ended by signal 9"),
        ("#!/bin/sh\nprintf nonsense >&3\nexec sleep 1000\n", "does not take the sockets"),
    ],
    ids=["not executable", "no program", "ends", "dies", "says nonsense"],
)
def test_a_broken_binary(replaceable, partner, program, reason):
    gateway = replaceable()
    kept = gateway.client()
    is_passed(kept.exchange(fields=partner.authorization))
    gateway.replace(program)
    assert reason in upgrade_refused(gateway)
    goes_on(gateway, partner, kept)
    gateway.restore()
    upgrade_and_wait(gateway)
    get(gateway, partner)


def test_a_program_that_never_gets_ready(replaceable, partner):
    gateway = replaceable(timeouts={"upgrade": "500ms"})
    kept = gateway.client()
    gateway.replace("#!/bin/sh\nexec sleep 1000\n")
    assert "not ready within timeouts.upgrade" in upgrade_refused(gateway)
    goes_on(gateway, partner, kept)


def test_an_invalid_configuration(replaceable, partner):
    gateway = replaceable()
    kept = gateway.client()
    good = gateway.config_file.read_text()
    gateway.config_file.write_text("listeners: {}\n")
    assert "ended with code 1" in upgrade_refused(gateway)
    goes_on(gateway, partner, kept)
    assert "gateway.yaml:1:" in gateway.ops_text()
    gateway.config_file.write_text(good)
    upgrade_and_wait(gateway)
    get(gateway, partner)


def test_an_address_that_is_taken(replaceable, partner):
    gateway = replaceable(workers=2)
    kept = gateway.client()
    with contextlib.closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        gateway.configure(listeners=[{"address": "127.0.0.1:0"}, {"address": taken}])
        with Load(gateway, partner) as load:
            load.more(10)
            assert "ended with code 1" in upgrade_refused(gateway)
            load.more(10)
        assert not load.problems
    goes_on(gateway, partner, kept)


def test_no_partner_data_in_time(replaceable, partner):
    """The old process has its partners: one without them must not take over."""
    gateway = replaceable(timeouts={"upgrade": "1s"})
    kept = gateway.client()
    (gateway.folder / "partners.ndjson").write_text("broken\n")
    with Load(gateway, partner) as load:
        load.more(10)
        assert "not ready within timeouts.upgrade" in upgrade_refused(gateway)
        load.more(10)
    assert not load.problems
    is_passed(kept.exchange(fields=partner.authorization))
    gateway.write_partners([partner])
    upgrade_and_wait(gateway)
    get(gateway, partner)


def test_a_gateway_without_partner_data_can_be_replaced(proofgw, partner):
    gateway = proofgw(partners=[], ready=False, store={"file": "missing.ndjson"})
    assert gateway.admin("/readyz")[0] == 503
    upgrade_and_wait(gateway)
    assert gateway.admin("/readyz")[0] == 503


def test_one_at_a_time(replaceable, partner):
    gateway = replaceable(timeouts={"upgrade": "1h"})
    kept = gateway.client()
    gateway.replace("#!/bin/sh\nread line <&3\nexec sleep 1000\n")
    gateway.signal(signal.SIGUSR2)
    (event,) = gateway.wait_event("upgrading")
    assert upgrade_refused(gateway) == "an upgrade is going on"
    assert gateway.metrics()("proofgw_upgrades_total", result="refused") == 1
    os.kill(int(event["pid"]), signal.SIGKILL)
    gateway.wait_event("upgrade_failed", 2)
    goes_on(gateway, partner, kept)


def test_the_end_during_an_upgrade(replaceable, partner):
    """The new process ends with it: the harness finds nothing left behind."""
    gateway = replaceable(timeouts={"upgrade": "1h"})
    gateway.replace("#!/bin/sh\nexec sleep 1000\n")
    gateway.signal(signal.SIGUSR2)
    gateway.wait_event("upgrading")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0


def test_a_reload_waits_for_the_end_of_an_upgrade(replaceable, partner):
    gateway = replaceable(timeouts={"upgrade": "1h"})
    gateway.replace("#!/bin/sh\nexec sleep 1000\n")
    gateway.signal(signal.SIGUSR2)
    (event,) = gateway.wait_event("upgrading")
    gateway.configure(limits={"body": "1KiB"})
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: [e for e in gateway.events("signal") if e["number"] == "1"], gateway.ops_text)
    assert gateway.metrics()["proofgw_config_generation"] == 1
    os.kill(int(event["pid"]), signal.SIGKILL)
    gateway.wait_metric("proofgw_config_generation", 2)


def test_a_reload_that_an_upgrade_overtakes_is_refused(replaceable, partner):
    """The new process had read the file already: what is in force now is not what is in it, and somebody must say so."""
    gateway = replaceable(timeouts={"upgrade": "1h"})
    (gateway.folder / "partners.ndjson").write_text("broken\n")

    def meanwhile():
        wait_for(lambda: len(gateway.events("store_load_failed")) >= 2, gateway.ops_text)  # of both processes
        gateway.configure(limits={"body": "1KiB"})
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: [e for e in gateway.events("signal") if e["number"] == "1"], gateway.ops_text)
        gateway.write_partners([partner])

    assert upgrade(gateway, meanwhile).wait(DEADLINE_S) == 0
    (event,) = gateway.events("config_reload_refused")
    assert event["trigger"] == "signal"
    assert gateway.metrics()["proofgw_config_generation"] == 1


def test_who_waits_for_a_reload_during_an_upgrade_gets_an_answer(replaceable, partner):
    gateway = replaceable(timeouts={"upgrade": "1h"}, admin={"control_socket": "control.sock"})
    path = gateway.folder / "control.sock"
    waiting = Client(path)
    (gateway.folder / "partners.ndjson").write_text("broken\n")

    def meanwhile():
        gateway.wait_event("upgrading")
        waiting.send(b"POST /reload HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(2):  # then it has been read
            assert ask(path, "/status")[0] == 200
        gateway.write_partners([partner])

    assert upgrade(gateway, meanwhile).wait(DEADLINE_S) == 0
    answer = waiting.reader.response()
    assert (answer.status, json.loads(answer.body)["error"]) == (409, "the gateway is draining\n")


def test_a_renewal_does_not_take_the_place_of_a_reload(replaceable, authority):
    """Both were asked for while an upgrade was going on, the renewal last: the configuration is read all the same."""
    pair = authority.leaf(HOST, SANDBOX_HOST)
    gateway = replaceable(timeouts={"upgrade": "2s"}, listeners=[tls_listener()], tls={"certificates": [pair.config]})
    gateway.authority = authority
    gateway.replace("#!/bin/sh\nexec sleep 1000\n")
    gateway.signal(signal.SIGUSR2)
    gateway.wait_event("upgrading")
    gateway.configure(limits={"body": "1KiB"})
    gateway.signal(signal.SIGHUP)
    wait_for(lambda: [e for e in gateway.events("signal") if e["number"] == "1"], gateway.ops_text)
    new = authority.leaf(HOST, SANDBOX_HOST)
    pair.become(new)  # noticed long before the upgrade is given up
    gateway.wait_event("upgrade_failed")
    gateway.wait_metric("proofgw_config_generation", 2)
    wait_for(lambda: connect(gateway).certificate == new.der, gateway.ops_text)


def test_a_draining_gateway_is_not_upgraded(proofgw, partner):
    gateway = proofgw(timeouts={"drain_delay": "1h"}, exit_code=2)
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    assert upgrade_refused(gateway) == "the gateway is draining"
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 2


# --- a worker that hangs


def test_an_upgrade_goes_on_without_a_worker_that_hangs(proofgw, partner):
    """It is the way out: the port stays, and what the other worker has is served to its end."""
    gateway = proofgw(workers=2, timeouts={"shutdown": "300ms"})
    with hanging(gateway.process, "w1"):
        old = upgrade(gateway)
        (event,) = gateway.events("upgrade_incomplete")
        assert (event["level"], event["silent_workers"]) == ("warn", "1")
        assert gateway.events("upgrading")[0]["sockets"] == "2"  # of w0 and of the admin listener
        wait_end(old)
    assert old.wait(DEADLINE_S) == EXIT_UNCLEAN
    for _ in range(16):  # some for each worker
        get(gateway, partner)
    upgrade_and_wait(gateway)
    assert gateway.events("upgrading")[1]["sockets"] == "3"


def test_sockets_that_come_too_late_are_closed(replaceable, partner):
    """When the worker goes on, after an upgrade that went on without it and failed."""
    gateway = replaceable(workers=2)
    folder = Path(f"/proc/{gateway.process.pid}/fd")
    before = len(list(folder.iterdir()))
    gateway.replace("#!/bin/sh\nexit 1\n")
    with hanging(gateway.process, "w1"):
        assert "ended with code 1" in upgrade_refused(gateway)
        assert gateway.events("upgrade_incomplete")
    gateway.reload(limits={"body": "1KiB"})  # it is not held any more, and every worker has answered
    wait_for(lambda: len(list(folder.iterdir())) == before, lambda: f"{before} {[p.readlink() for p in folder.iterdir()]}")
    gateway.restore()
    upgrade_and_wait(gateway)
    assert len(gateway.events("upgrade_incomplete")) == 1


def test_no_upgrade_while_every_worker_hangs(proofgw, partner):
    """The new process would find nothing to take over: it is said, each time, and is over when they go on."""
    gateway = proofgw(workers=1)
    with hanging(gateway.process, "w0"):
        for _ in range(2):
            assert upgrade_refused(gateway) == "every worker hangs: start the gateway anew (docs/ALERTS.md, ProofgwWorkerSilent)"
        assert not gateway.events("upgrading")
    gateway.reload(limits={"body": "1KiB"})
    upgrade_and_wait(gateway)


def test_a_reload_that_a_worker_missed_waits_for_the_end_of_an_upgrade(replaceable, partner):
    """The worker goes on while the upgrade runs."""
    gateway = replaceable(workers=2, timeouts={"upgrade": "1h"}, admin={"control_socket": "control.sock"})
    gateway.replace("#!/bin/sh\nexec sleep 1000\n")
    with hanging(gateway.process, "w1"):
        gateway.configure(limits={"body": "1KiB"})
        gateway.signal(signal.SIGHUP)
        gateway.wait_event("config_reload_failed")
        gateway.signal(signal.SIGUSR2)
        (event,) = gateway.wait_event("upgrading")
    assert ask(gateway.folder / "control.sock", "/tunnels")[0] == 200  # every worker has answered
    assert not gateway.events("config_reloaded")
    os.kill(int(event["pid"]), signal.SIGKILL)
    gateway.wait_event("upgrade_failed")
    gateway.wait_event("config_reloaded")
    assert gateway.metrics()["proofgw_config_last_reload_successful"] == 1
