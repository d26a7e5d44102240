"""The admin pages: health, readiness, and metrics, as docs/OPERATIONS.md and docs/METRICS.md promise them."""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from support.client import Client, request
from support.control import ask
from support.expect import is_error, is_passed
from support.partners import Partner
from support.process import EXIT_OK, get, run
from support.wait import wait_for

pytest_plugins = ["support.process"]


# --- admin pages -----------------------------------------------------------------------------------------


def test_health_and_readiness(gateway):
    assert gateway.admin("/healthz") == (200, "ok\n")
    assert gateway.admin("/livez") == (200, "ok\n")
    status, page = gateway.admin("/readyz")
    page = json.loads(page)
    assert status == 200
    assert page == {"failed": [], "ready": True, "store_up": True, "store_error": ""}
    assert gateway.admin("/readyz?verbose=1")[0] == 200
    assert gateway.metrics()["proofgw_ready"] == 1


def test_not_ready_while_draining(gateway, backend, partner):
    gate = backend.hold()
    client = gateway.client().send(request(fields=partner.authorization))
    backend.wait_requests(1)
    gateway.signal(signal.SIGTERM)
    gateway.wait_event("draining")
    status, page = gateway.admin("/readyz")
    assert status == 503
    assert json.loads(page)["failed"] == ["not_draining"]
    assert gateway.admin("/healthz")[0] == 200
    assert gateway.metrics()["proofgw_ready"] == 0
    gate.open()
    is_passed(client.response())
    assert gateway.wait_exit() == EXIT_OK


def test_the_admin_listener_is_strict_and_small(gateway):
    address = ("127.0.0.1", gateway.admin_port)
    assert get(address, "/").status == 404
    assert get(address, "/widget/transactions/1").status == 404
    assert get(address, "/metrics", "POST").status == 405
    head = get(address, "/healthz", "HEAD")
    assert head.status == 200 and head["content-length"] == "3" and head["connection"] == "close"
    for data, status in ((b"nonsense\r\n\r\n", 400), (b"GET /healthz HTTP/1.1\n\n", 400), (b"x" * 70_000, 431)):
        client = Client(address)
        client.send_until_refused(data, len(data))
        assert client.reader.response_head().status == status, data[:20]
        client.close()
    assert get(address).status == 200


@pytest.mark.parametrize(
    "host, status",
    [
        ("localhost", 200),
        ("LocalHost:9901", 200),
        ("127.0.0.1", 200),
        ("10.1.2.3:80", 200),
        ("[::1]:9901", 200),
        ("gateway", 421),
        ("127.0.0.1.attacker.test:9901", 421),
        ("localhost.attacker.test", 421),
    ],
)
def test_the_admin_listener_is_asked_by_address(gateway, host, status):
    """A web page whose name points to loopback (DNS rebinding) cannot read it with the browser of this machine."""
    assert get(("127.0.0.1", gateway.admin_port), "/metrics", host=host).status == status


@pytest.mark.parametrize("host, status", [("localhost", 200), ("gateway", 421)])
def test_the_admin_listener_takes_a_whole_uri(gateway, host, status):
    """RFC 9112 section 3.2.2: a server accepts the absolute form. Its host counts like the field."""
    client = gateway.client(("127.0.0.1", gateway.admin_port))
    client.send(f"GET http://{host}/readyz?verbose=1 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert client.reader.response().status == status


def test_the_admin_listener_needs_no_host(gateway):
    client = gateway.client(("127.0.0.1", gateway.admin_port))
    client.send(b"GET /readyz HTTP/1.0\r\n\r\n")
    assert client.reader.response().status == 200


def test_slow_admin_connections_do_not_shut_it(gateway):
    """More of them than it takes, silent or in the middle of a request: those that have waited for longest go."""
    address = ("127.0.0.1", gateway.admin_port)
    slow = [gateway.client(address) for _ in range(100)]
    slow += [gateway.client(address).send(b"GET /metrics HTTP/1.1\r\n") for _ in range(100)]
    for path in ("/healthz", "/readyz", "/metrics"):
        assert gateway.admin(path)[0] == 200
    slow[0].expect_close()
    slow[-1].send(b"Host: localhost\r\n\r\n")  # the newest is not one of them
    assert slow[-1].reader.response("GET").status == 200


def test_slow_admin_connections_leave_descriptors(proofgw, partner):
    """Clients have taken all but the last ones: the main thread needs some for itself."""
    most = 256
    gateway = proofgw(
        admin={"control_socket": "control.sock"}, process={"prefix": ("prlimit", f"--nofile={most}:{most}")}
    )
    for _ in range(most):
        gateway.client().send(b"G")
    gateway.wait_event("accept_failed")
    control = gateway.folder / "control.sock"

    def slow(address):
        with contextlib.suppress(BlockingIOError):  # the queue of a unix socket is full: in a moment
            return gateway.client(address)

    for address in [("127.0.0.1", gateway.admin_port), control] * 32:
        wait_for(lambda: slow(address), gateway.ops_text)
    for _ in range(5):
        assert gateway.metrics()["process_open_fds"] < most - 8
        assert ask(control, "/status")[0] == gateway.admin("/healthz")[0] == 200
    gateway.update_partners([partner, Partner("late")])
    assert not [event for event in gateway.events("accept_failed") if event["thread"] == "control"]


def test_admin_on_a_unix_socket(start):
    process = start(admin={"address": "unix:admin.sock"}).wait_started()
    path = process.address("admin_listening")
    assert Path(path) == process.folder / "admin.sock"
    mode = os.stat(path).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    assert get(path, "/readyz").status == 200
    assert get(path, "/readyz", host="gateway").status == 200  # no browser comes here
    assert b"proofgw_build_info" in get(path, "/metrics").body
    assert process.stop() == EXIT_OK


def test_no_admin_at_all(start):
    process = start(admin={"address": "off"}).wait_started()
    assert not process.events("admin_listening")
    assert process.stop() == EXIT_OK


# --- metrics ---------------------------------------------------------------------------------------------


def exercised(gateway, backend, partner):
    """Some of everything, so that no family is empty."""
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    is_passed(client.exchange("POST", "/widget/session", fields=partner.authorization, body=b"{}"))
    client.exchange()
    client.exchange(target="/elsewhere")
    client.exchange(host="nobody.test")
    client.exchange(target="/ws", fields=partner.authorization)
    client.ask(b"GET / HTTP/1.1\r\nbroken\r\n\r\n")
    client.close()
    return gateway.wait_metric("proofgw_connections_open", 0)


def test_promtool(gateway, backend, partner):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed")
    scrape = exercised(gateway, backend, partner)
    done = subprocess.run([promtool, "check", "metrics"], input=scrape.text, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_metrics_page_is_well_formed(gateway, backend, partner):
    """Each family with HELP and TYPE before its samples and never again; no series twice; histograms add up."""
    scrape = exercised(gateway, backend, partner)
    types, seen, current = {}, set(), None
    for line in scrape.text.splitlines():
        if line.startswith("# TYPE "):
            _, _, current, kind = line.split()
            assert current not in types
            types[current] = kind
        elif not line.startswith("#"):
            series = line.rsplit(" ", 1)[0]
            assert series not in seen
            seen.add(series)
            family = re.match(r"[a-z_0-9]+", series)[0]
            assert current in (family, re.sub("_(bucket|sum|count)$", "", family)), series
            assert (types[current] == "counter") == family.endswith("_total"), series
    for name in (n for n, kind in types.items() if kind == "histogram"):
        by_series = {}
        for key, labels, value in scrape.samples:
            rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
            if key == f"{name}_bucket":
                by_series.setdefault(rest, []).append((float(labels["le"]), value))
        for rest, buckets in by_series.items():
            counts = [value for _, value in sorted(buckets)]
            assert counts == sorted(counts)
            assert counts[-1] == scrape(f"{name}_count", **dict(rest))


def test_the_metrics_are_those_of_the_reference(gateway, backend, partner):
    """docs/METRICS.md is the output of this command; tests/structure compares them."""
    text = run("metrics-reference").stdout
    documented = dict(re.findall(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|", text, re.M))
    scraped = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exercised(gateway, backend, partner).text, re.M))
    assert scraped == documented


def test_requests_are_counted(proofgw, backend, partner):
    gateway = proofgw(workers=4)
    for _ in range(5):
        is_passed(gateway.client().exchange(fields=partner.authorization))
    is_error(gateway.client().exchange("POST"), "missing_token")
    gateway.end_clients()
    scrape = gateway.wait_metric("proofgw_connections_open", 0)
    name = "proofgw_http_requests_total"
    assert scrape(name, env="production", route="widget", method="GET", code="200") == 5
    assert scrape(name, env="production", route="widget", method="POST", code="401") == 1
    assert scrape("proofgw_auth_denied_total", reason="token_missing", env="production") == 1
    assert scrape("proofgw_ends_total", who="ok", phase="done") == 5
    assert scrape("proofgw_connections_accepted_total") == 6
    assert scrape("proofgw_http_request_duration_seconds_count", route="widget") == 6
    assert scrape("proofgw_upstream_response_seconds_count", env="production") == 5
    assert scrape("proofgw_workers") == 4
