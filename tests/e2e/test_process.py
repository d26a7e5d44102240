"""The process among others: descriptors it is started without, signals meant for other programs, threads that end one by one.

Goal: nothing that a careless start script or operator does makes the gateway write its log into a connection, die, or abort.
Method: the real binary, started with closed descriptors; signals at the moments that hurt.
"""

import os
import signal
import subprocess

import pytest

from support.gateway import BINARY
from support.http1 import Ended
from support.wait import DEADLINE_S, wait_for

pytest_plugins = ["support.process"]


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("change", [False, True], ids=["nothing between", "a change of the partners between"])
def test_a_second_signal_when_one_worker_has_ended(proofgw, partner, change, workers):
    """Idle workers end at once when draining begins. What comes then must not be told to them."""
    gateway = proofgw(workers=workers, exit_code=2, timeouts={"request_head": "20s"})
    held = gateway.client().send(b"GET /widget/x HT")
    gateway.wait_metric("proofgw_connections_open", 1)
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    if change:
        partner.enabled = False
        gateway.write_partners([partner])
        gateway.signal(signal.SIGHUP)
        gateway.wait_event("store_loaded", 2)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 2
    with pytest.raises((Ended, OSError)):
        held.response()


def test_a_broken_pipe_does_not_end_it(gateway, backend, partner):
    gateway.signal(signal.SIGPIPE)
    assert gateway.client().exchange(fields=partner.authorization).status == 200


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_standard_descriptors_may_be_closed(tmp_path, closed):
    """A closed descriptor must not be given to a socket or an event queue, into which the log would then be written."""
    (tmp_path / "partners.ndjson").write_text("")
    (tmp_path / "gateway.yaml").write_text(
        "listeners: [{address: '127.0.0.1:0'}]\n"
        "environments: {production: {hosts: [api.test], upstream: '127.0.0.1:1'}}\n"
        "store: {file: partners.ndjson}\n"
        "logs: {access: stdout, operations: ops.log}\n"
        "admin: {address: 'off'}\n"
    )

    def close():
        for fd in closed:
            os.close(fd)

    process = subprocess.Popen([str(BINARY), "-c", "gateway.yaml"], cwd=tmp_path, preexec_fn=close, start_new_session=True)
    try:
        log = tmp_path / "ops.log"
        wait_for(lambda: log.exists() and "event=started" in log.read_text(), "start")
        for fd in closed:
            assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == "/dev/null"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        assert "BUG" not in log.read_text()
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def test_signals_that_were_blocked_by_whoever_started_it(start):
    """A mask is inherited: a gateway that nobody can stop, but by force."""
    blocked = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        gateway = start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    gateway.wait_started()
    for number in (signal.SIGHUP, signal.SIGUSR1):
        gateway.process.send_signal(number)
        wait_for(lambda n=number: [e for e in gateway.events("signal") if e["number"] == str(int(n))], gateway.text)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(DEADLINE_S) == 0


def test_output_that_cannot_be_written_is_a_failure():
    for arguments in (["--version"], ["--help"], ["metrics-reference"], ["errors-reference"], ["config-reference"]):
        with open("/dev/full", "wb") as full:
            assert subprocess.run([str(BINARY), *arguments], stdout=full, check=False).returncode == 1, arguments
