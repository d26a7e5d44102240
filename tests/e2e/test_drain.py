"""Draining: for good (SIGTERM) and for a while (POST /drain on the control socket).

Goal: readiness goes first; whoever still sends a request gets its answer; idle connections get the chance of one more;
tunnels leave one after the other with 1012; nothing takes longer than the bound; and a drain can be undone.

Method: the real binary. Lower bounds are measured, upper bounds are deadlines.
"""

import json
import select
import signal
import time

import pytest

from support.client import Stopwatch, request
from support.control import ask
from support.expect import is_error, is_passed
from support.takeover import takeover
from support.wait import wait_for
from support.websocket import CLOSE, TEXT, accepting, frame, read_frame, upgrade

COME_AGAIN = (1012).to_bytes(2, "big")
LONG = {"drain_keep_alive": "1m", "drain_tunnels": "1h", "shutdown": "1h"}


@pytest.fixture
def controlled(proofgw, tmp_path):
    """Factory of a gateway with a control socket; timeouts as arguments."""

    def make(exit_code=0, workers=1, **timeouts):
        admin = {"address": "127.0.0.1:0", "control_socket": str(tmp_path / "control.sock")}
        return proofgw(admin=admin, timeouts=timeouts, exit_code=exit_code, workers=workers)

    return make


def command(gateway, target, status=200, method="POST"):
    got, body = ask(gateway.config["admin"]["control_socket"], target, method)
    assert got == status, body
    return body


def open_tunnel(gateway, backend, partner):
    far = takeover(backend, accepting)
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    return client, far()[0]


def expect_goodbye(client):
    fin, opcode, payload = read_frame(client.reader)
    assert (fin, opcode, payload[:2]) == (True, CLOSE, COME_AGAIN)
    client.expect_close()


def is_open(client):
    return not select.select([client.socket], [], [], 0)[0]


def end_at_once(gateway):
    gateway.signal(signal.SIGTERM)
    wait_for(lambda: [event for event in gateway.events("draining") if event["exit"] == "yes"], gateway.ops_text)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 2


# --- SIGTERM


def test_during_the_delay_everything_goes_on(proofgw, backend, partner):
    gateway = proofgw(timeouts={"drain_delay": "3s"})
    old, watch = gateway.client(), Stopwatch()
    is_passed(old.exchange(fields=partner.authorization))
    gateway.signal(signal.SIGTERM)
    (event,) = gateway.wait_event("draining")
    assert (event["exit"], event["delay_ms"]) == ("yes", "3000")
    status, page = gateway.admin("/readyz")
    assert (status, json.loads(page)["failed"]) == (503, ["not_draining"])
    for client in (old, gateway.client()):
        assert is_passed(client.exchange(fields=partner.authorization))["connection"] is None
    client, far = open_tunnel(gateway, backend, partner)
    far.send(frame(TEXT, b"still here"))
    assert read_frame(client.reader)[2] == b"still here"
    expect_goodbye(client)
    assert watch.seconds() >= 3
    assert gateway.wait_exit() == 0


def test_an_idle_connection_may_ask_once_more(proofgw, partner):
    gateway = proofgw(timeouts=LONG)
    clients = [gateway.client() for _ in range(3)]
    for client in clients:
        assert is_passed(client.exchange(fields=partner.authorization))["connection"] is None
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    for client in clients:
        assert is_passed(client.exchange(fields=partner.authorization))["connection"] == "close"
        client.expect_close()
    assert gateway.wait_exit() == 0


def test_an_idle_connection_that_says_nothing_gets_a_fin(proofgw, partner):
    gateway = proofgw(timeouts={"drain_keep_alive": "1s"})
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    watch = Stopwatch()
    gateway.signal(signal.SIGTERM)
    client.expect_close()
    assert watch.seconds() >= 1
    assert gateway.wait_exit() == 0


def test_an_answer_that_had_begun_may_be_followed_by_one_more(proofgw, backend, partner):
    """Its head has promised keep-alive; the connection then waits like any idle one."""
    gateway = proofgw(timeouts=LONG)
    far = takeover(backend)
    client = gateway.client()
    client.send(request(fields=partner.authorization))
    end, _ = far()
    end.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    wait_for(lambda: select.select([client.socket], [], [], 0.1)[0], "the head")
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    end.send(b"cd")
    got = client.response()
    assert (got.body, got["connection"]) == (b"abcd", None)
    assert is_passed(client.exchange(fields=partner.authorization))["connection"] == "close"
    client.expect_close()
    assert gateway.wait_exit() == 0


def test_tunnels_leave_evenly(proofgw, backend, partner):
    gateway = proofgw(workers=2, timeouts={"drain_tunnels": "2s"})
    tunnels = [open_tunnel(gateway, backend, partner) for _ in range(20)]
    gateway.signal(signal.SIGTERM)
    waiting, left = {client.socket: client for client, _ in tunnels}, []
    while waiting:
        for sock in select.select(list(waiting), [], [], 10)[0]:
            expect_goodbye(waiting.pop(sock))
            left.append(time.monotonic())
    assert left[-1] - left[0] >= 1.5  # the last of about ten leaves at nine tenths of the time
    assert 0.2 <= (left[10] - left[0]) / (left[-1] - left[0]) <= 0.8
    assert gateway.wait_exit() == 0
    assert {line["end"] for line in gateway.access("tunnel_close")} == {"shutdown/tunnel"}


def test_tunnels_leave_within_the_bound(proofgw, backend, partner):
    """Three quarters of it, so that the last one has time to close: the fifth of five leaves after 4.8 s, not 6.4."""
    gateway = proofgw(timeouts={"drain_tunnels": "1h", "shutdown": "8s"})
    tunnels = [open_tunnel(gateway, backend, partner) for _ in range(5)]
    gateway.signal(signal.SIGTERM)
    left = []
    for client, _ in tunnels:
        expect_goodbye(client)
        left.append(time.monotonic())
    assert left[-1] - left[0] < 6
    assert gateway.wait_exit() == 0


def test_a_second_signal_does_not_wait_for_the_delay(proofgw, partner):
    gateway = proofgw(timeouts={"drain_delay": "1h"}, exit_code=2)
    end_at_once(gateway)


def test_the_file_of_a_unix_socket_goes(proofgw, partner, tmp_path):
    path = tmp_path / "listen.sock"
    gateway = proofgw(listeners=[{"address": "127.0.0.1:0"}, {"address": f"unix:{path}"}])
    assert path.is_socket()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert not path.exists()


# --- the control socket


def test_drain_and_back(controlled, backend, partner):
    gateway = controlled(workers=2, **LONG)
    old = gateway.client()
    is_passed(old.exchange(fields=partner.authorization))
    client, _ = open_tunnel(gateway, backend, partner)
    assert command(gateway, "/status", method="GET")["phase"] == "serving"
    assert command(gateway, "/drain") == {"draining": True}
    assert command(gateway, "/drain") == {"draining": True}
    expect_goodbye(client)
    status = command(gateway, "/status", method="GET")
    assert (status["draining"], status["phase"], status["ready"]) == (True, "draining", False)
    assert gateway.admin("/readyz")[0] == 503
    for c in (old, gateway.client()):  # the listeners are open
        assert is_passed(c.exchange(fields=partner.authorization))["connection"] == "close"
        c.expect_close()
    is_error(gateway.client().ask(upgrade(partner)), "unavailable", closes=True)
    assert command(gateway, "/undrain") == {"draining": False}
    assert command(gateway, "/undrain") == {"draining": False}
    assert gateway.admin("/readyz")[0] == 200
    c = gateway.client()
    for _ in range(2):
        assert is_passed(c.exchange(fields=partner.authorization))["connection"] is None
    open_tunnel(gateway, backend, partner)
    assert len(gateway.wait_event("draining")) == len(gateway.wait_event("drain_undone")) == 1


def test_tunnels_that_have_not_left_may_stay(controlled, backend, partner):
    gateway = controlled(**LONG)
    tunnels = [open_tunnel(gateway, backend, partner) for _ in range(3)]
    command(gateway, "/drain")
    gateway.wait_metric("proofgw_tunnels_open", 2)
    command(gateway, "/undrain")
    staying = [(client, far) for client, far in tunnels if is_open(client)]
    assert len(staying) == 2
    for client, far in staying:
        far.send(frame(TEXT, b"x"))
        assert read_frame(client.reader)[2] == b"x"


def test_an_idle_connection_outlives_a_drain_that_is_undone(controlled, partner):
    gateway = controlled(drain_keep_alive="1m")
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    command(gateway, "/drain")
    command(gateway, "/undrain")
    assert is_passed(client.exchange(fields=partner.authorization))["connection"] is None


def test_the_delay_can_be_undone(controlled, backend, partner):
    gateway = controlled(drain_delay="1h", exit_code=2)
    client, _ = open_tunnel(gateway, backend, partner)
    command(gateway, "/drain")
    assert command(gateway, "/status", method="GET")["phase"] == "drain_delay"
    assert is_passed(gateway.client().exchange(fields=partner.authorization))["connection"] is None
    command(gateway, "/undrain")
    assert gateway.admin("/readyz")[0] == 200
    assert is_open(client)
    end_at_once(gateway)


def test_a_drained_gateway_ends_without_a_second_delay(controlled, partner):
    """What was waited already counts."""
    gateway = controlled(drain_delay="1s", drain_keep_alive="1m")
    command(gateway, "/drain")
    wait_for(lambda: command(gateway, "/status", method="GET")["phase"] == "draining", "the delay to pass")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert gateway.events("draining")[-1]["delay_ms"] == "0"


def test_the_end_cannot_be_undone(controlled, partner):
    gateway = controlled(exit_code=2, drain_delay="1h")
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    assert command(gateway, "/undrain", 409) == {"error": "the gateway is about to end"}
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 2


def test_a_drained_gateway_can_be_reloaded(controlled, partner):
    gateway = controlled()
    command(gateway, "/drain")
    gateway.configure(limits={"body": "1KiB"})
    assert command(gateway, "/reload")["generation"] == 2
