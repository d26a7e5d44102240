"""Many requests at once: every one gets its own right answer, also while partners change under them.

Goal: functional, not speed: nothing is lost, mixed up, refused or left open under concurrency.

Method: the project's proof-load (which checks the status and framing of every answer) and proof-demo-backend, with one
worker and with four. Counts at the end must be exact: what proof-load sent is what the metrics say and what the access
log holds. Under ThreadSanitizer the same file runs with PROOFGW_BIN set to that build.
"""

import json
import os
import re
import subprocess
import threading

import pytest

from support.backend import answer
from support.gateway import BINARY
from support.partners import Partner, write_file

LOAD = os.environ.get("PROOFGW_LOAD", BINARY.parent / "bench/proof-load")
REQUESTS, CONNECTIONS = 20_000, 64
PATIENCE_S = 100


def load(gateway, partner, *options):
    """Runs proof-load; returns its counts."""
    done = subprocess.run(
        [
            str(LOAD),
            *("--target", f"127.0.0.1:{gateway.port}", "--host", "api.test"),
            *("--header", f"Authorization: Bearer {partner.token}"),
            *map(str, options),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {key: float(value) for key, value in re.findall(r"(\w+)=([\d.]+)", done.stdout)}
    assert counts["errors"] == counts["non_2xx"] == counts["reconnects"] == 0, done.stdout
    return counts


def settled(gateway):
    """Nothing is open any more."""
    for gauge in ("proofgw_connections_open", "proofgw_exchanges_active", "proofgw_tunnels_open"):
        gateway.wait_metric(gauge, 0)
    return gateway.metrics()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("body", [None, '{"merchant_transaction_id":"m-1"}'], ids=["GET", "POST"])
def test_many_requests(proofgw, demo, partner, workers, body):
    gateway = proofgw(upstream=demo.address, workers=workers)
    options = ["--path", "/widget/session", "--body", body] if body else []
    counts = load(gateway, partner, "--requests", REQUESTS, "--connections", CONNECTIONS, *options)
    assert counts["requests"] == REQUESTS
    scrape = settled(gateway)
    assert scrape("proofgw_http_requests_total") == REQUESTS
    assert scrape("proofgw_ends_total", who="ok", phase="done") == REQUESTS
    assert scrape["proofgw_connections_accepted_total"] == CONNECTIONS
    assert scrape["proofgw_upstream_connects_total"] <= CONNECTIONS
    assert scrape["proofgw_upstream_retries_total"] == 0
    assert scrape["proofgw_limits_hit_total"] == 0
    lines = gateway.wait_access(REQUESTS - int(scrape["proofgw_log_dropped_lines_total"]))
    assert len({line["request_id"] for line in lines}) == len(lines)


@pytest.mark.parametrize("workers", [1, 4])
def test_many_requests_while_partners_change(proofgw, demo, partner, workers):
    """Other partners come and go, and the caller's own record changes in what does not concern its access; SIGHUP now
    and then."""
    gateway = proofgw(upstream=demo.address, workers=workers)
    over = threading.Event()
    strangers = [Partner(f"stranger{n}", production=["192.0.2.0/24"], sandbox=["198.51.100.7"]) for n in range(200)]
    gateway.secrets += [token for stranger in strangers for token in stranger.tokens]
    changes = []

    def churn():
        n = 0
        while not over.is_set():
            n += 1
            partner.off_ramp = not partner.off_ramp
            loads = gateway.metrics()["proofgw_store_loads_total"]
            write_file(gateway.folder / "partners.ndjson", [partner, *strangers[n % 3 :: 3]])
            gateway.wait_metric("proofgw_store_loads_total", lambda value: value > loads)
            changes.append(n)

    changing = threading.Thread(target=churn)
    changing.start()
    try:
        done = 0
        while done < REQUESTS or len(changes) < 3:
            done += load(gateway, partner, "--requests", REQUESTS // 4, "--connections", CONNECTIONS)["requests"]
    finally:
        over.set()
        changing.join()
    scrape = settled(gateway)
    assert scrape("proofgw_ends_total", who="ok", phase="done") == done
    assert scrape["proofgw_auth_denied_total"] == 0
    assert scrape["proofgw_store_load_failures_total"] == 0
    gateway.wait_metric("proofgw_policy_limbo_bytes", 0)


@pytest.mark.parametrize("workers", [1, 4])
def test_many_messages_through_tunnels(proofgw, demo, partner, workers):
    gateway = proofgw(upstream=demo.address, workers=workers)
    counts = load(gateway, partner, "--ws", "--requests", 200, "--connections", CONNECTIONS)
    assert counts["messages"] == 200 * CONNECTIONS
    scrape = settled(gateway)
    assert scrape("proofgw_tunnel_messages_total", direction="client") == 200 * CONNECTIONS
    assert scrape("proofgw_tunnel_messages_total", direction="backend") == 200 * CONNECTIONS
    assert scrape("proofgw_tunnels_closed_total") == CONNECTIONS


@pytest.mark.parametrize("workers", [1, 4])
def test_each_caller_is_who_it_is(proofgw, backend, workers):
    """Thirty-two partners at once, each on its own connection, through a pool of eight connections to the backend:
    each answer goes to the partner whose identity the backend was told."""
    partners = [Partner(f"partner-{n}") for n in range(32)]
    gateway = proofgw(partners=partners, workers=workers, limits={"upstream_connections": 8})
    backend.answer = lambda r: answer(
        body=json.dumps([r["x-proof-partner-id"], r["x-proof-widget-id"], r.target]).encode()
    )
    wrong = []

    def ask(partner, client):
        for n in range(60):
            target = f"/widget/{partner.partner_id}/{n}"
            got = client.exchange(target=target, fields=partner.authorization)
            expected = [partner.partner_id, partner.widget_id, target]
            if got.status != 200 or json.loads(got.body) != expected:
                wrong.append((got.status, got.body, expected))

    threads = [threading.Thread(target=ask, args=(p, gateway.client())) for p in partners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not wrong, wrong[:3]
    assert len(backend.requests) == 32 * 60
    assert len(backend.connections) <= 8 * workers
