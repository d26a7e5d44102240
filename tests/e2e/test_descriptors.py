"""Clients that take all descriptors which the process may have.

Goal: the last ones are for operators: health, metrics and proofctl answer just then, and what waits is served later.

Method: a gateway with a low RLIMIT_NOFILE, and silent clients until it accepts no more.
"""

import json
import resource
import subprocess

import pytest

from support.backend import answer
from support.caller import BALANCER, balancer, listener
from support.client import request
from support.expect import is_error, is_passed
from support.http1 import Ended
from support.limits import hit
from support.partners import Partner
from support.proofctl import ENVIRONMENT, PROOFCTL
from support.proxy_header import v1
from support.tls import connect
from support.wait import DEADLINE_S, wait_for
from support.websocket import upgrade

pytest_plugins = ["support.tls"]

MOST, CLIENTS, GONE = 256, 220, 100
RESERVED = 32  # base/fd.h
FEW = {"prefix": ("prlimit", f"--nofile={MOST}:{MOST}")}


@pytest.fixture
def gateway(proofgw):
    return proofgw(workers=2, admin={"control_socket": "control.sock"}, process=FEW)


def fill(gateway, first=b"G", **options):
    """Clients that have begun what they say, until no more are accepted; some of them wait in the kernel."""
    clients = [gateway.client(**options).send(first) for _ in range(CLIENTS)]
    gateway.wait_event("accept_failed")
    return clients


def test_operators_are_answered(gateway, partner):
    fill(gateway)
    for _ in range(5):
        metrics = gateway.metrics()
        assert MOST - RESERVED <= metrics["process_open_fds"] < MOST
        assert gateway.admin("/healthz")[0] == gateway.admin("/readyz")[0] == 200
        status = subprocess.run(
            [PROOFCTL, "-c", gateway.config_file, "status", "--json"],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env=ENVIRONMENT,
            check=True,
        )
        assert json.loads(status.stdout)["pid"] == gateway.process.pid


def is_answered(client, partner):
    """False when it was reset."""
    try:
        is_passed(client.send(request(fields=partner.authorization)[1:]).response())
        return True
    except (ConnectionResetError, BrokenPipeError, Ended):
        return False


def test_those_that_wait_are_served_when_others_have_gone(gateway, partner):
    """But one for each socket of a listener, by which it finds out."""
    clients = fill(gateway)
    gateway.wait_event("accept_failed", 2)
    refused, accepted = hit(gateway, "descriptors"), gateway.metrics()["proofgw_connections_accepted_total"]
    gateway.wait_event("accept_failed", 4)
    assert 1 <= hit(gateway, "descriptors") == refused <= 2  # it has looked again since, at the cost of nobody
    assert gateway.metrics()["proofgw_connections_accepted_total"] == accepted
    for client in clients[:GONE]:
        client.close()
    gateway.wait_metric("proofgw_connections_accepted_total", CLIENTS)
    answered = [is_answered(client, partner) for client in clients[GONE:]]
    assert answered.count(False) == refused == hit(gateway, "descriptors")
    assert gateway.metrics()["proofgw_connections_refused_total"] == refused


def test_one_goes_and_one_comes(proofgw):
    """While it is full nobody but the first is reset: those behind wait until there is a descriptor for them."""
    gateway = proofgw(process=FEW)
    clients = fill(gateway)
    accepted = gateway.metrics()["proofgw_connections_accepted_total"]
    assert hit(gateway, "descriptors") == 1
    for n, client in enumerate(clients[:5], 1):
        client.close()
        gateway.wait_metric("proofgw_connections_accepted_total", accepted + n)
    gateway.wait_event("accept_failed", 3)
    assert hit(gateway, "descriptors") == 1


def take_away(gateway, left=8):
    """Lets it open only so many more. Returns what gives them back."""
    pid = gateway.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = int(gateway.metrics()["process_open_fds"]) + left
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, hard))
    return lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def test_more_may_be_given_while_it_runs(proofgw, partner):
    """As docs/ALERTS.md says: prlimit, and nothing else. SIGUSR2 would hand the limit on."""
    gateway = proofgw()
    give_back = take_away(gateway)
    clients = [gateway.client().send(b"G") for _ in range(40)]
    gateway.wait_event("accept_failed")
    give_back()
    answered = [is_answered(client, partner) for client in clients]
    assert answered.count(False) == hit(gateway, "descriptors") <= 1


def test_partners_can_be_changed(gateway, partner):
    """A file is read, and a revoked token counts."""
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    fill(gateway)
    gateway.update_partners([Partner("other")])
    is_error(client.exchange(fields=partner.authorization), "invalid_token", closes=False)


# --- connections to the backend --------------------------------------------------------------------------


def plain(proofgw, https):
    gateway = proofgw(process=FEW)
    return gateway, gateway.client(), {}


def balanced(proofgw, https):
    gateway = proofgw(process=FEW, listeners=listener(proxy_protocol=True))
    return gateway, balancer(gateway, v1("127.0.0.1")), {"first": b"P", "source": BALANCER}


def encrypted(proofgw, https):
    gateway = https(process=FEW)
    return gateway, connect(gateway), {"first": b"\x16"}


def is_overloaded(gateway, got):
    """The gateway has too few, and does not blame the backend."""
    is_error(got, "unavailable", closes=False)
    assert gateway.line_of(got)["end"] == "gateway/queue"
    assert not gateway.events("upstream_connect_failed")


@pytest.mark.parametrize("listening", [plain, balanced, encrypted])
def test_a_backend_gets_none_of_the_last_ones(proofgw, https, backend, partner, listening):
    """503 as without any descriptor, whatever the listener; the backend does not even see a connection."""
    gateway, client, silent = listening(proofgw, https)
    is_error(client.exchange(), "missing_token", closes=False)  # it has its descriptor
    clients = fill(gateway, **silent)
    assert hit(gateway, "descriptors") == 1
    is_overloaded(gateway, client.exchange(fields=partner.authorization))
    is_overloaded(gateway, client.ask(upgrade(partner)))
    metrics = gateway.metrics()
    assert MOST - RESERVED <= metrics["process_open_fds"] < MOST
    assert metrics["proofgw_upstream_connect_failures_total"] == 0 and not backend.connections
    assert hit(gateway, "descriptors") == 3
    for silent_one in clients[:GONE]:
        silent_one.close()
    wait_for(lambda: client.exchange(fields=partner.authorization).status == 200, gateway.ops_text)


def test_those_that_wait_for_a_backend_are_told_too(proofgw, backend, partner):
    """Its only connection ends, and there is no other one to be had for those in the queue."""
    gateway = proofgw(limits={"upstream_connections": 1}, timeouts={"upstream_connect": "30s"})
    gate = backend.gate()

    def last_answer(c):
        c.read_request()
        gate.wait()
        c.send(answer(fields="Connection: close\r\n")).close()

    backend.script(last_answer)
    first, *others = [gateway.client() for _ in range(3)]
    first.send(request(fields=partner.authorization))
    backend.wait_requests(1)
    for n, client in enumerate(others, 2):
        client.send(request(fields=partner.authorization))
        gateway.wait_metric("proofgw_exchanges_active", n)
    give_back = take_away(gateway, left=1)
    for _ in range(40):
        gateway.client().send(b"G")
    gateway.wait_event("accept_failed", 2)  # it has looked again: what is open is among the last ones now
    gate.open()
    is_passed(first.response())
    for client in others:
        is_overloaded(gateway, client.response())
    give_back()
    is_passed(first.exchange(fields=partner.authorization))
    assert gateway.metrics()["proofgw_upstream_connect_failures_total"] == 0
