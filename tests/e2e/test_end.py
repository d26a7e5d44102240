"""How the process ends: signals, what is in flight, what waits to be accepted, and that clients which honour
`Connection: close` lose nothing, nor does a worker that hangs hold it up. Drains that are asked for by the operator are in test_drain.py.
"""

import contextlib
import signal
import socket
import time
from pathlib import Path

import pytest

from support.backend import chunked
from support.client import request
from support.control import ask
from support.expect import is_passed
from support.hanging import hanging, state_of, task_of, wait_end
from support.http1 import Ended
from support.process import EXIT_OK, EXIT_UNCLEAN, EXIT_USAGE
from support.successor import upgrade
from support.wait import DEADLINE_S, wait_for


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("workers", [1, 4])
def test_signals_that_end_it(proofgw, partner, number, workers):
    gateway = proofgw(workers=workers)
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    gateway.signal(number)
    client.expect_close()
    assert gateway.wait_exit() == EXIT_OK
    assert gateway.events("signal")[-1]["number"] == str(number.value)
    assert gateway.events("draining") and gateway.events("stopped")[-1]["exit_code"] == "0"


def in_flight(gateway, backend, partner):
    """A request whose answer has begun and does not end."""

    def script(c):
        c.read_request()
        c.send(chunked(b"part", end=False))
        c.drain()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization))
    client.wait_bytes(b"part")
    return client


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(proofgw, backend, partner, second):
    gateway = proofgw(exit_code=EXIT_USAGE)
    client = in_flight(gateway, backend, partner)
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    assert gateway.process.poll() is None
    gateway.signal(second)
    assert gateway.wait_exit() == EXIT_USAGE
    assert gateway.events("forced_quit")
    with pytest.raises(Ended):
        client.response()
    (line,) = gateway.access()
    assert line["end"] == "shutdown/response_body"


def test_the_shutdown_bound(proofgw, backend, partner):
    gateway = proofgw(timeouts={"shutdown": "300ms"}, exit_code=EXIT_UNCLEAN)
    client = in_flight(gateway, backend, partner)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == EXIT_UNCLEAN
    (event,) = gateway.events("shutdown_bound_met")
    assert event["connections"] == "1"
    assert gateway.events("stopped")[-1]["exit_code"] == "3"
    with pytest.raises(Ended):
        client.response()


def test_no_patience_at_all(proofgw, backend, partner):
    """shutdown: 0s."""
    gateway = proofgw(timeouts={"shutdown": "0s"}, exit_code=EXIT_UNCLEAN)
    in_flight(gateway, backend, partner)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == EXIT_UNCLEAN


def test_an_answer_for_1_0_that_is_cut_by_the_end_does_not_look_whole(proofgw, backend, partner):
    gateway = proofgw(timeouts={"shutdown": "300ms"}, exit_code=EXIT_UNCLEAN)

    def script(c):
        c.read_request()
        c.send(chunked(b"part", end=False))
        c.drain()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization, version="1.0"))
    client.wait_bytes(b"part")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == EXIT_UNCLEAN
    with pytest.raises(Ended) as ended:
        client.response()
    assert ended.value.reset


@pytest.mark.parametrize("workers", [1, 4])
def test_the_accept_queue_is_served(proofgw, backend, partner, workers):
    """Connections that the kernel has taken before the end, and the gateway (stopped meanwhile) has not: more of them
    than it accepts in one turn."""
    gateway = proofgw(workers=workers)
    gateway.signal(signal.SIGSTOP)
    clients = [gateway.client().send(request(fields=partner.authorization)) for _ in range(300)]
    gateway.signal(signal.SIGTERM)
    gateway.signal(signal.SIGCONT)
    for client in clients:
        is_passed(client.response())
        client.expect_close()
    assert gateway.wait_exit() == EXIT_OK
    assert len(backend.requests) == len(clients)


def test_a_client_that_honours_connection_close_loses_nothing(proofgw, partner):
    """Sixteen clients between two requests when the gateway begins to end: the next answer of each says `Connection: close`,
    and none finds its connection closed before."""
    gateway = proofgw(timeouts={"drain_keep_alive": "9s"})
    clients = [gateway.client() for _ in range(16)]
    for client in clients:
        assert client.exchange(fields=partner.authorization)["connection"] != "close"
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    for client in clients:
        got = client.exchange(fields=partner.authorization)
        is_passed(got)
        assert got["connection"] == "close"
        client.expect_close()
    assert gateway.wait_exit() == EXIT_OK


def test_a_request_on_its_way_to_an_idle_connection_is_served(gateway, backend, partner):
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    gateway.signal(signal.SIGSTOP)
    client.send(request("POST", fields=partner.authorization, body=b"on its way"))
    gateway.signal(signal.SIGTERM)
    gateway.signal(signal.SIGCONT)
    is_passed(client.response("POST"))
    client.expect_close()
    assert gateway.wait_exit() == EXIT_OK


def test_a_request_that_waits_for_the_pool_is_served_to_the_end(proofgw, backend, partner):
    gateway = proofgw(limits={"upstream_connections": 1})
    gate = backend.hold()
    first, second = (gateway.client().send(request(fields=partner.authorization)) for _ in range(2))
    backend.wait_requests(1)
    gateway.wait_metric("proofgw_exchanges_active", 2)
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    gate.open()
    for client in (first, second):
        assert is_passed(client.response())["connection"] == "close"
        client.expect_close()
    assert gateway.wait_exit() == EXIT_OK


def test_nobody_can_connect_while_it_drains(gateway, backend, partner):
    client = in_flight(gateway, backend, partner)
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")

    def refused():
        try:
            socket.create_connection(("127.0.0.1", gateway.port), timeout=DEADLINE_S).close()
        except ConnectionRefusedError:
            return True

    wait_for(refused, "a closed listener")
    client.reset()
    assert gateway.wait_exit() == EXIT_OK


def test_signals_before_and_after_do_no_harm(gateway, partner):
    """SIGHUP and SIGUSR1 at any time, also many of them, also while it ends; SIGPIPE and SIGWINCH mean nothing."""
    client = gateway.client()
    for _ in range(20):
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGWINCH):
            gateway.signal(number)
        is_passed(client.exchange(fields=partner.authorization))
    gateway.signal(signal.SIGTERM)
    with contextlib.suppress(ProcessLookupError):
        for _ in range(20):
            gateway.signal(signal.SIGHUP)
            gateway.signal(signal.SIGUSR1)
    assert gateway.wait_exit() == EXIT_OK


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1], ids=lambda n: n.name)
def test_a_signal_in_the_last_moment_is_not_the_end(proofgw, number):
    for _ in range(10):
        gateway = proofgw(workers=1)
        gateway.signal(signal.SIGTERM)
        end = time.monotonic() + DEADLINE_S
        while gateway.process.poll() is None and time.monotonic() < end:
            gateway.signal(number)
        assert gateway.wait_exit() == EXIT_OK


# --- a worker that hangs


def unix_listener(tmp_path):
    path = tmp_path / "l.sock"
    return path, [{"address": "127.0.0.1:0"}, {"address": f"unix:{path}"}]


@pytest.mark.parametrize("signals", [1, 2], ids=["one signal", "two signals"])
def test_a_worker_that_hangs_does_not_hold_up_the_end(proofgw, backend, partner, tmp_path, signals):
    """The other one cuts what it has, and its lines are in the access log; no socket file is left behind."""
    path, listeners = unix_listener(tmp_path)
    code = EXIT_UNCLEAN if signals == 1 else EXIT_USAGE
    timeouts = {"shutdown": "300ms" if signals == 1 else "1h"}
    gateway = proofgw(
        workers=2, listeners=listeners, admin={"control_socket": "control.sock"}, timeouts=timeouts, exit_code=code
    )
    for _ in range(16):  # some for each worker: the kernel deals them out
        in_flight(gateway, backend, partner)
    assert path.exists() and (gateway.folder / "control.sock").exists()
    with hanging(gateway.process, "w1"):
        for n in range(signals):
            gateway.signal(signal.SIGTERM)
            gateway.wait_event("signal", n + 1)
        if signals == 1:
            cut = int(gateway.wait_event("shutdown_bound_met")[0]["connections"])
        wait_end(gateway.process)
    assert gateway.wait_exit() == code
    (event,) = gateway.events("stopped")
    assert (event["level"], event["exit_code"], event["cause"]) == ("error", str(code), "a worker hangs")
    lines = [line["end"] for line in gateway.access()]
    assert set(lines) == {"shutdown/response_body"} and (signals == 2 or len(lines) == cut)
    assert not path.exists() and not (gateway.folder / "control.sock").exists()


def test_a_worker_that_goes_on_in_the_last_moment(proofgw):
    """It finds its event queue closed, which libuv takes for a reason to abort."""
    gateway = proofgw(workers=2, timeouts={"shutdown": "300ms"}, exit_code=EXIT_UNCLEAN)
    process, folder = Path(f"/proc/{gateway.process.pid}"), Path(f"/proc/{gateway.process.pid}/fd")
    worker = task_of(gateway.process, "w1")
    with hanging(gateway.process, None, "close_range", "delay_exit"):
        with hanging(gateway.process, "w1"):
            gateway.signal(signal.SIGTERM)
            wait_for(lambda: len(list(folder.iterdir())) == 3, gateway.ops_text)
        wait_for(lambda: state_of(process / "stat") == "Z" or state_of(worker / "stat") == "S", gateway.ops_text)
    assert gateway.wait_exit() == EXIT_UNCLEAN


def test_a_worker_that_is_slow_is_waited_for(proofgw, backend, partner):
    """Its time is over and it has not cut anything yet: it still gets to do so."""
    gateway = proofgw(
        workers=2, admin={"control_socket": "control.sock"}, timeouts={"shutdown": "300ms"}, exit_code=EXIT_UNCLEAN
    )
    clients = [in_flight(gateway, backend, partner) for _ in range(16)]
    with hanging(gateway.process, "w1"):
        gateway.signal(signal.SIGTERM)
        path = gateway.folder / "control.sock"
        wait_for(lambda: ask(path, "/status")[1]["phase"] == "cutting", gateway.ops_text)
    assert gateway.wait_exit() == EXIT_UNCLEAN
    assert "cause" not in gateway.events("stopped")[-1]
    assert [line["end"] for line in gateway.access()] == ["shutdown/response_body"] * len(clients)


def test_a_worker_that_hangs_after_an_upgrade(proofgw, backend, partner, tmp_path):
    """The old process ends, and leaves the socket files to the new one."""
    path, listeners = unix_listener(tmp_path)
    gateway = proofgw(listeners=listeners, timeouts={"shutdown": "1h"})
    in_flight(gateway, backend, partner)
    old = upgrade(gateway)
    with hanging(old, "w0"):
        old.send_signal(signal.SIGTERM)
        wait_end(old)
    assert old.wait(DEADLINE_S) == EXIT_USAGE
    assert gateway.wait_event("stopped")[0]["cause"] == "a worker hangs"
    assert gateway.client(str(path)).exchange(fields=partner.authorization).status == 403  # answered: it has no address
