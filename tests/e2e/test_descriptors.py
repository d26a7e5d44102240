"""Clients that take all descriptors which the process may have.

Goal: the last ones are for operators: health, metrics and proofctl answer just then, and what waits is served later.

Method: a gateway with a low RLIMIT_NOFILE, and silent clients until it accepts no more.
"""

import json
import resource
import subprocess

import pytest

from support.client import request
from support.expect import is_error, is_passed
from support.http1 import Ended
from support.limits import hit
from support.partners import Partner
from support.proofctl import ENVIRONMENT, PROOFCTL
from support.wait import DEADLINE_S, wait_for

MOST, CLIENTS, GONE = 256, 220, 100
RESERVED = 32  # base/fd.h


@pytest.fixture
def gateway(proofgw):
    return proofgw(
        workers=2, admin={"control_socket": "control.sock"}, process={"prefix": ("prlimit", f"--nofile={MOST}:{MOST}")}
    )


def fill(gateway):
    """Clients that have begun a request, until no more are accepted; some of them wait in the kernel."""
    clients = [gateway.client().send(b"G") for _ in range(CLIENTS)]
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
    gateway = proofgw(process={"prefix": ("prlimit", f"--nofile={MOST}:{MOST}")})
    clients = fill(gateway)
    accepted = gateway.metrics()["proofgw_connections_accepted_total"]
    assert hit(gateway, "descriptors") == 1
    for n, client in enumerate(clients[:5], 1):
        client.close()
        gateway.wait_metric("proofgw_connections_accepted_total", accepted + n)
    gateway.wait_event("accept_failed", 3)
    assert hit(gateway, "descriptors") == 1


def test_more_may_be_given_while_it_runs(proofgw, partner):
    """As docs/ALERTS.md says: prlimit, and nothing else. SIGUSR2 would hand the limit on."""
    gateway = proofgw()
    pid = gateway.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = int(gateway.metrics()["process_open_fds"]) + 8
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, hard))
    clients = [gateway.client().send(b"G") for _ in range(40)]
    gateway.wait_event("accept_failed")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
    answered = [is_answered(client, partner) for client in clients]
    assert answered.count(False) == hit(gateway, "descriptors") <= 1


def test_partners_can_be_changed(gateway, partner):
    """A file is read, and a revoked token counts."""
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    fill(gateway)
    gateway.update_partners([Partner("other")])
    is_error(client.exchange(fields=partner.authorization), "invalid_token", closes=False)


def test_a_backend_gets_none_of_the_last_ones(gateway, backend, partner):
    """502 as without any descriptor; the backend does not even see a connection."""
    clients = fill(gateway)
    gateway.wait_event("accept_failed", 2)
    refused = hit(gateway, "descriptors")
    is_error(
        clients[0].send(request(fields=partner.authorization)[1:]).response(), "upstream_unavailable", closes=False
    )
    assert gateway.wait_event("upstream_connect_failed") and not backend.connections
    assert hit(gateway, "descriptors") > refused
    assert gateway.metrics()["proofgw_upstream_connect_failures_total"] == 0  # it is not the backend's
    for client in clients[1:20]:
        client.close()
    client = clients[0]
    wait_for(lambda: client.exchange(fields=partner.authorization).status == 200, gateway.ops_text)
