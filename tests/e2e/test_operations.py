"""What operators see and do: command line, exit codes, signals, admin pages, both logs.

Goal: what docs/OPERATIONS.md, docs/LOGS.md and docs/METRICS.md promise is so, and no secret is in anything that the
process ever writes.

Method: most tests use the `proofgw` fixture; those about starts that fail, about outputs that nobody reads, and about
sockets that outlive their process use `start`, a plain process with its streams in the test's hand.
"""

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from support.backend import answer, chunked
from support.client import Client, request
from support.expect import is_error, is_passed
from support.gateway import BINARY, default_config, merge, parse_event, to_yaml
from support.http1 import Ended
from support.partners import Partner, write_file
from support.wait import DEADLINE_S, wait_for
from support.websocket import upgrade

EXIT_OK, EXIT_CONFIG, EXIT_USAGE, EXIT_UNCLEAN = 0, 1, 2, 3


def run(*arguments):
    """One command; returns the finished process, with its output as text."""
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S)


@pytest.fixture
def start(tmp_path, partner):
    """start(stdout=..., **changes): a process of its own with the operations log in a file; `changes` as for proofgw().
    None of them outlives the test, and none may have written a sanitizer's report."""
    started = []

    class Process:
        def __init__(self, stdout=subprocess.DEVNULL, folder=tmp_path, user=None, prefix=(), **changes):
            self.folder = folder
            self.log = folder / f"ops{len(started)}.log"
            self.config_file = folder / f"gateway{len(started)}.yaml"
            self.config_file.write_text(to_yaml(merge(default_config("127.0.0.1:9"), changes)) + "\n")
            write_file(folder / "partners.ndjson", [partner])
            with open(self.log, "wb") as log:
                self.process = subprocess.Popen(
                    [*prefix, str(BINARY), "-c", str(self.config_file)], stdout=stdout, stderr=log, user=user
                )
            started.append(self)

        def text(self):
            return self.log.read_text()

        def events(self, name):
            return [e for e in map(parse_event, self.text().splitlines()) if e.get("event") == name]

        def wait_started(self):
            wait_for(lambda: self.events("started"), self.text)
            return self

        def address(self, event="listening"):
            """(host, port), or the path of a unix socket."""
            text = self.events(event)[0]["address"]
            return text[5:] if text.startswith("unix:") else ("127.0.0.1", int(text.rsplit(":", 1)[1]))

        def wait_exit(self):
            return self.process.wait(DEADLINE_S)

        def stop(self):
            self.process.send_signal(signal.SIGTERM)
            return self.wait_exit()

    yield Process
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(DEADLINE_S)
        assert not re.search("Sanitizer|runtime error:|event=BUG", one.text()), one.text()


def get(address, path="/healthz", method="GET", host="localhost"):
    """One admin page."""
    client = Client(address)
    client.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    page = client.reader.response(method)
    client.close()
    return page


# --- command line ----------------------------------------------------------------------------------------


def test_version():
    done = run("--version")
    assert done.returncode == EXIT_OK and done.stderr == ""
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"proofgw \d+\.\d+\.\d+ \(\S+\)", lines[0])
    assert {line.split()[0] for line in lines[1:]} == {"libuv", "llhttp", "OpenSSL", "libyaml"}
    assert run("-V").stdout == done.stdout


def test_help():
    done = run("--help")
    assert done.returncode == EXIT_OK and done.stdout.startswith("proofgw - ")
    assert run("-h").stdout == done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nonsense"], "unknown command: nonsense"),
        (["check", "a.yaml", "b.yaml"], "unexpected argument: b.yaml"),
        (["config-reference", "x"], "unexpected argument: x"),
        (["--nonsense"], "--nonsense"),
        (["-c"], "requires an argument"),
    ],
)
def test_wrong_command_lines(arguments, words):
    done = run(*arguments)
    assert done.returncode == EXIT_USAGE
    assert done.stdout == "" and words in done.stderr
    assert "Try 'proofgw --help'." in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["config-reference"], ["metrics-reference"], ["check"]])
def test_a_result_that_cannot_be_printed(tmp_path, arguments):
    """A full disk: said, and no success."""
    file = tmp_path / "gateway.yaml"
    file.write_text(to_yaml(default_config("127.0.0.1:9")))
    command = [str(BINARY), *arguments, *([str(file)] if arguments == ["check"] else [])]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    assert done.returncode == EXIT_CONFIG
    assert done.stderr.endswith("proofgw: the result cannot be printed: No space left on device\n")


def test_check(tmp_path):
    file = tmp_path / "gateway.yaml"
    file.write_text(to_yaml(default_config("127.0.0.1:9")))
    write_file(tmp_path / "partners.ndjson", [Partner("acme")])
    for arguments in (["check", file], ["check", "-c", file], ["-c", file, "-t"], ["run", "-t", file]):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (EXIT_OK, ""), arguments
        assert done.stdout == f"{file}: ok\n"


@pytest.mark.parametrize(
    "content, warnings",
    [
        (None, [": warning: ", "No such file"]),
        ('{"partner_id": "a"\n', [":1:19: warning: "]),
        ("x\ny\n", [":1:1: warning: ", ":2:1: warning: "]),
    ],
    ids=["missing", "half a record", "nonsense"],
)
def test_check_looks_at_the_partners(tmp_path, content, warnings):
    """As warnings: the gateway starts without them too, and answers 503 until they are right."""
    file, partners = tmp_path / "gateway.yaml", tmp_path / "partners.ndjson"
    file.write_text(to_yaml(default_config("127.0.0.1:9")))
    if content is not None:
        partners.write_text(content)
    done = run("check", file)
    assert (done.returncode, done.stdout) == (EXIT_OK, f"{file}: ok\n")
    lines = done.stderr.splitlines()
    assert all(line.startswith(str(partners)) for line in lines)
    for text in [*warnings, "a gateway that starts now answers 503 until this file is right"]:
        assert any(text in line for line in lines), lines


def test_check_warns_of_files_that_redis_needs(tmp_path):
    """The start does not need them, because they are read at each connect: so no error."""
    config, store = default_config("127.0.0.1:9"), {"address": "127.0.0.1:6379"}
    config["store"] = {"kind": "redis", "redis": store}
    file, password = tmp_path / "gateway.yaml", tmp_path / "password"

    def warnings():
        file.write_text(to_yaml(config))
        done = run("check", file)
        assert (done.returncode, done.stdout) == (EXIT_OK, f"{file}: ok\n")
        return done.stderr.replace(f"{file}: warning: ", "")

    assert warnings() == ""
    store["password_file"] = str(password)
    assert warnings() == f"the password cannot be used: {password}: No such file or directory\n"
    password.write_text("secret canary\n")
    password.chmod(0o644)
    assert warnings() == f"the password cannot be used: {password}: everybody may read it: make it chmod 640\n"
    password.chmod(0o640)
    assert warnings() == ""
    store["tls"] = {"enabled": True, "ca_file": str(tmp_path / "none.pem")}
    assert warnings() == f"TLS: {tmp_path}/none.pem: No such file or directory\n"


FAULTY = """workers: two
listeners:
  - adress: 127.0.0.1:0
environments:
  production:
    hosts: [api.test]
    upstream: 127.0.0.1:9
store:
  file: partners.ndjson
"""


@pytest.mark.parametrize("command", [["check"], ["run"], ["-c"]])
def test_a_faulty_configuration(tmp_path, command):
    """All faults in one go, each with its place; the gateway does not start."""
    file = tmp_path / "gateway.yaml"
    file.write_text(FAULTY)
    done = run(*command, file)
    assert done.returncode == EXIT_CONFIG and done.stdout == ""
    assert f"{file}:1:10: error: workers" in done.stderr
    assert f"{file}:3:5: error: listeners[0].adress: unknown key; did you mean" in done.stderr
    assert "^" in done.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_no_configuration(tmp_path, command):
    done = run(command, tmp_path / "none.yaml")
    assert done.returncode == EXIT_CONFIG
    assert "none.yaml" in done.stderr and "No such file" in done.stderr
    assert run(command, tmp_path).returncode == EXIT_CONFIG  # a directory


# --- starts that fail ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["listener", "admin", "second listener"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_in_use(start, which, workers):
    first = start().wait_started()
    taken = "%s:%d" % first.address("admin_listening" if which == "admin" else "listening")
    changes = {
        "listener": {"listeners": [{"address": taken}]},
        "admin": {"admin": {"address": taken}},
        "second listener": {"listeners": [{"address": "127.0.0.1:0"}, {"address": taken}]},
    }[which]
    second = start(workers=workers, **changes)
    assert second.wait_exit() == EXIT_CONFIG
    (event,) = second.events("listen_failed")
    assert taken in event["cause"] and "another process has this address" in event["cause"]
    assert not second.events("started")
    assert get(first.address("admin_listening")).status == 200
    assert first.stop() == EXIT_OK


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"listeners": [{"address": "unix:no/such/folder/x.sock"}]}, "No such file or directory; make its folder first"),
        ({"listeners": [{"address": "unix:" + "x" * 200}]}, "at most 107 bytes"),
        ({"listeners": [{"address": "192.0.2.1:8080"}]}, "no interface of this machine has it; `ip address` shows"),
        ({"logs": {"access": "no/such/folder/access.log"}}, "No such file or directory; make its folder first"),
        ({"admin": {"control_socket": "no/c.sock"}}, "no/c.sock: No such file or directory; make its folder first"),
    ],
    ids=["folder", "path", "address", "log", "control socket"],
)
def test_what_cannot_be_had(start, changes, words):
    """What, where, and what to do about it."""
    process = start(**changes)
    assert process.wait_exit() == EXIT_CONFIG
    assert words in process.text(), process.text()


def test_a_unix_socket_of_a_process_that_is_gone(start):
    """Its file stays after a crash and after an orderly end; the next start takes it over. One that is in use is not
    taken away."""
    changes = {"listeners": [{"address": "unix:client.sock"}], "admin": {"address": "unix:admin.sock"}}
    first = start(**changes).wait_started()
    first.process.kill()
    first.wait_exit()
    second = start(**changes).wait_started()
    assert get(second.address("admin_listening")).status == 200
    third = start(**changes)
    assert third.wait_exit() == EXIT_CONFIG
    assert "another process has this address" in third.text()
    assert get(second.address("admin_listening")).status == 200
    assert second.stop() == EXIT_OK
    fourth = start(**changes).wait_started()
    assert fourth.stop() == EXIT_OK


def test_a_file_in_the_place_of_a_socket_is_not_removed(start, tmp_path):
    precious = tmp_path / "client.sock"
    precious.write_text("precious")
    process = start(listeners=[{"address": "unix:client.sock"}])
    assert process.wait_exit() == EXIT_CONFIG
    assert precious.read_text() == "precious"
    assert "a file that is no socket is there; choose another path" in process.text()


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


def test_the_admin_listener_needs_no_host(gateway):
    client = gateway.client(("127.0.0.1", gateway.admin_port))
    client.send(b"GET /readyz HTTP/1.0\r\n\r\n")
    assert client.reader.response().status == 200


def test_admin_connections_that_say_nothing_do_not_shut_it(gateway):
    """More of them than it takes: further ones are dropped, and the page is there again when they are gone."""
    address = ("127.0.0.1", gateway.admin_port)
    silent = [gateway.client(address) for _ in range(200)]

    def page():
        with contextlib.suppress(Ended, ConnectionResetError):
            return get(address).status == 200

    for client in silent:
        client.close()
    wait_for(page, "the page")


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


# --- access log ------------------------------------------------------------------------------------------

ALWAYS = {
    *("time", "event", "request_id", "method", "bytes_in", "bytes_out"),
    *("duration_ms", "client_ip", "client_ip_source", "end"),
}
KNOWN = {"env", "path", "status"}  # a route and a host of ours, and an answer
CALLER = {"partner_id", "token_slot"}
LEASED = {"queue_ms", "backend_reused"}  # it had a connection to the backend
SENT = LEASED | {"send_ms"}
ANSWERED = SENT | {"backend_ms", "receive_ms"}


def fields_of(line):
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert (line["client_ip"], line["client_ip_source"]) == ("127.0.0.1", "socket")
    for key, value in line.items():
        if key.endswith("_ms"):
            assert 0 <= value <= line["duration_ms"], (key, line)
    assert "?" not in line.get("path", "")
    return set(line)


def test_the_line_of_an_answer(gateway, backend, partner):
    client = gateway.client()
    data = request("POST", "/widget/session?secret=1", fields=partner.authorization, body=b"x" * 1000)
    got = client.ask(data, "POST")
    line = gateway.line_of(got)
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | ANSWERED | {"connect_ms"}
    assert (line["event"], line["end"], line["status"], line["method"]) == ("request", "ok/done", 200, "POST")
    assert (line["env"], line["partner_id"], line["token_slot"]) == ("production", "acme", "current")
    assert line["path"] == "/widget/session"
    assert line["backend_reused"] is False
    assert line["bytes_in"] == len(data)
    assert line["bytes_out"] == len(got.raw_head) + len(got.body)
    line = gateway.line_of(client.exchange(fields=partner.authorization))
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | ANSWERED
    assert line["backend_reused"] is True


DENIALS = {
    "no token": ({}, "token_missing", KNOWN),
    "unknown token": ({"fields": "Authorization: Bearer nobodys-token-0123456789\r\n"}, "token_unknown", KNOWN),
    "another scheme": ({"fields": "Authorization: Basic YTpi\r\n"}, "token_scheme", KNOWN),
    "malformed token": ({"fields": "Authorization: Bearer a b\r\n"}, "token_malformed", KNOWN),
    "no route": ({"target": "/elsewhere"}, "no_route", KNOWN),
    "no host": ({"host": "nobody.test"}, "no_host", KNOWN - {"env"}),
}


@pytest.mark.parametrize("kwargs, deny, fields", DENIALS.values(), ids=DENIALS)
def test_the_line_of_a_denial(gateway, kwargs, deny, fields):
    got = gateway.client().exchange(**kwargs)
    line = gateway.line_of(got)
    assert fields_of(line) == ALWAYS | fields | {"deny"}
    assert (line["deny"], line["status"], line["end"]) == (deny, got.status, "gateway/decide")


def test_the_line_of_a_denied_address(gateway, partner):
    """Who it was is known here."""
    got = gateway.client().exchange(host="sandbox.test", fields=partner.authorization)
    line = gateway.line_of(got)
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | {"deny"}
    assert (line["deny"], line["env"], line["end"]) == ("address", "sandbox", "gateway/decide")


def test_the_line_of_a_refused_head(gateway):
    got = gateway.client().ask(b"GET /widget/x HTTP/1.1\r\nHost: api.test\r\nBad Name: x\r\n\r\n")
    line = gateway.line_of(got)
    assert fields_of(line) == ALWAYS | {"status", "refused"}
    assert (line["refused"], line["end"]) == ("field_name", "client/request_head")


def test_the_line_of_a_broken_body(gateway, backend, partner):
    data = request("POST", fields=partner.authorization + "Transfer-Encoding: chunked\r\n")
    got = gateway.client().ask(data.replace(b"Content-Length: 0\r\n", b"") + b"zz\r\n", "POST")
    line = gateway.line_of(got)
    assert fields_of(line) >= ALWAYS | KNOWN | CALLER
    assert (line["status"], line["end"]) == (400, "client/request_body")


def test_the_line_of_a_backend_that_refuses(proofgw, backends, partner):
    nobody = backends()
    nobody.close()
    gateway = proofgw(upstream=nobody.address)
    line = gateway.line_of(gateway.client().exchange(fields=partner.authorization))
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | LEASED
    assert (line["status"], line["end"]) == (502, "backend/connect")


def test_the_line_of_a_backend_that_goes_away(gateway, backend, partner):
    backend.script(lambda c: (c.read_request(), c.close()))
    line = gateway.line_of(gateway.client().exchange(fields=partner.authorization))
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | SENT | {"connect_ms"}
    assert (line["status"], line["end"]) == (502, "backend/response_head")


def test_the_line_of_a_cut_answer(gateway, backend, partner):
    backend.script(lambda c: (c.read_request(), c.send(chunked(b"part", end=False)), c.close()))
    client = gateway.client().send(request(fields=partner.authorization))
    with pytest.raises(Ended):
        client.response()
    (line,) = gateway.wait_access(1)
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | ANSWERED | {"connect_ms"}
    assert (line["status"], line["end"]) == (200, "backend/response_body")


def test_the_line_of_a_client_that_does_not_wait(gateway, backend, partner):
    backend.script(lambda c: (c.read_request(), c.drain()))
    client = gateway.client().send(request(fields=partner.authorization))
    backend.wait_requests(1)
    client.reset()
    (line,) = gateway.wait_access(1)
    assert fields_of(line) == ALWAYS | KNOWN - {"status"} | CALLER | SENT | {"connect_ms"}
    assert line["end"] == "client/response_head"


def test_the_line_of_a_client_that_leaves_its_answer(gateway, backend, partner):
    def script(c):
        c.read_request()
        c.send(chunked(b"part", end=False))
        c.drain()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization))
    client.reader.response_head()
    client.reset()
    (line,) = gateway.wait_access(1)
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | ANSWERED | {"connect_ms"}
    assert (line["status"], line["end"]) == (200, "client/response_body")


def test_the_line_of_a_request_on_a_unix_socket(start, backend, partner):
    """There is no address; whatever is written must not look like one."""
    read, write = os.pipe()
    process = start(stdout=write, listeners=[{"address": "unix:client.sock"}]).wait_started()
    os.close(write)
    client = Client(process.address())
    assert client.exchange().status == 401
    client.close()
    assert process.stop() == EXIT_OK
    with open(read, encoding="utf-8") as log:
        (line,) = [json.loads(text) for text in log]
    with pytest.raises(ValueError):
        ipaddress.ip_address(line["client_ip"])


def test_long_and_odd_paths(gateway, partner):
    """At most 1,024 bytes of a path; nothing in it can break the line."""
    client = gateway.client()
    got = client.exchange(target="/widget/" + "a" * 3000, fields=partner.authorization)
    assert gateway.line_of(got)["path"] == "/widget/" + "a" * 1016
    odd = "/widget/%22,%22end%22:%22x%C3%A9'!$&()*+=:@~"
    got = is_passed(client.exchange(target=odd, fields=partner.authorization))
    assert gateway.line_of(got)["path"] == odd


def test_no_access_log(start):
    read, write = os.pipe()
    process = start(stdout=write, logs={"access": "off"}).wait_started()
    os.close(write)
    client = Client(process.address())
    assert client.exchange().status == 401
    client.close()
    assert process.stop() == EXIT_OK
    with open(read, "rb") as log:
        assert log.read() == b""


# --- secrets ---------------------------------------------------------------------------------------------


def canary(gateway, where):
    text = f"canary-{where}-5f3b1e9a7c"
    gateway.secrets.append(text)
    return text


def test_no_secret_is_ever_written(proofgw, backend, partner):
    """A different text in every place where a client, a backend or an operator could put a secret, in requests that are
    served, denied, refused and broken. finish() looks for each in both logs and on every metrics page."""
    gateway = proofgw(
        logs={"level": "debug"},
        timeouts={"request_head": "300ms"},
        limits={"body": "1KiB", "upstream_idle_connections": 0},  # each script at the backend gets its request
    )

    def c(where):
        return canary(gateway, where)

    cookies = f"Cookie: session={c('cookie')}\r\nX-Api-Key: {c('field')}\r\nX-{c('name')}: 1\r\n"
    backend.answer = lambda r: answer(
        f"200 {c('reason')}", c("answer").encode(), f"Set-Cookie: id={c('setcookie')}\r\nX-Theirs: {c('theirs')}\r\n"
    )
    client = gateway.client()
    target = f"/widget/session?token={c('query')}&{c('querykey')}"
    got = client.exchange("POST", target, fields=cookies + partner.authorization, body=c("body").encode())
    assert got.status == 200
    for authorization in (
        f"Bearer {c('unknown')}",
        f"Bearer {c('malformed')} x",
        f"Basic {c('basic')}",
        f"{c('scheme')} abc",
        c("bare"),
        f"Bearer {c('repeated')}\r\nAuthorization: Bearer {c('repeated2')}",
    ):
        assert client.exchange(target=target, fields=f"Authorization: {authorization}\r\n{cookies}").status == 401
    assert client.exchange(host=f"{c('host')}.test", fields=cookies).status == 404
    assert client.exchange(target=f"/elsewhere?x={c('elsewhere')}", fields=cookies).status == 404
    assert client.exchange(target=f"/ws?tx_id={c('txid')}", fields=partner.authorization + cookies).status == 426

    for broken in (
        f"GET http://{c('user')}:{c('password')}@api.test/widget/x HTTP/1.1\r\nHost: api.test\r\n{cookies}\r\n",
        f"GET /widget/{c('refused')}//x HTTP/1.1\r\nHost: api.test\r\n{partner.authorization}{cookies}\r\n",
        f"GET /widget/x HTTP/1.1\r\nHost: api.test\r\n{c('line')}\r\n{partner.authorization}\r\n",
        f"GET /widget/x HTTP/1.1\r\nHost: api.test\r\nX: \x01{c('control')}\r\n\r\n",
        f"{c('method')} /widget/x HTTP/1.1\r\nHost: api.test\r\n\r\n",
        f"GET /widget/x {c('version')}\r\nHost: api.test\r\n\r\n",
    ):
        assert gateway.client().ask(broken.encode("latin-1")).status == 400, broken
    chunked_post = request("POST", fields=partner.authorization + "Transfer-Encoding: chunked\r\n")
    chunked_post = chunked_post.replace(b"Content-Length: 0\r\n", b"")
    ending = f"1;{c('extension')}={c('value')}\r\nx\r\n0\r\nX-T: {c('trailer')}\r\n\r\n"
    assert gateway.client().ask(chunked_post + ending.encode()).status == 200
    bad = gateway.client().ask(chunked_post + f"z{c('chunk')}\r\n".encode())
    assert bad.status in (400, 502)
    large = gateway.client().exchange("POST", fields=partner.authorization, body=c("large").encode() * 100)
    assert large.status == 413
    late = gateway.client().send(f"GET /widget/x?{c('late')} HTTP/1.1\r\n{partner.authorization}".encode())
    assert late.response().status == 408
    lost = gateway.client().send(f"GET /widget/x?{c('lost')} HTTP/1.1\r\n{partner.authorization}".encode())
    lost.half_close()
    lost.expect_close()

    backend.script(lambda far: (far.read_request(), far.send(f"{c('nonsense')}\r\n\r\n".encode()), far.expect_end()))
    assert client.exchange(fields=partner.authorization).status == 502
    backend.script(lambda far: (far.read_request(), far.send(answer() + c("behind").encode()), far.expect_end()))
    assert client.exchange(fields=partner.authorization).status == 200
    backend.script(lambda far: (far.read_request(), far.close()))
    assert gateway.client().ask(upgrade(partner, f"/ws?tx_id={c('ws')}")).status == 502
    gateway.wait_access(20)


MISTAKES = {
    "a token for its hash": lambda record, token: {**record, "client_token_sha256": token},
    "a key that is none": lambda record, token: {**record, "client_token": token},
    "a token for an address": lambda record, token: {**record, "production_cidrs": [token]},
    "a token for a flag": lambda record, token: {**record, "enabled": token},
    "a token for a time": lambda record, token: {
        **record,
        "previous_token_sha256": "0" * 64,
        "previous_token_expires_at": token,
    },
    "a token in a URL": lambda record, token: {**record, "webhook_url": f"https://user:{token}@example.com/"},
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_token_in_the_partner_file_is_not_repeated(gateway, partner, mistake):
    """An operator pastes the token itself into the record: the fault is named, the token is not."""
    token = canary(gateway, "pasted")
    (gateway.folder / "partners.ndjson").write_text(json.dumps(mistake(partner.record(), token)) + "\n")
    gateway.wait_event("store_load_failed")
    gateway.admin("/readyz")
    assert token not in gateway.admin("/readyz")[1]


# --- log files -------------------------------------------------------------------------------------------


def test_logs_are_opened_again(proofgw, partner):
    """logrotate: rename, SIGUSR1. Nothing is lost, and nothing more goes into the old file."""
    gateway = proofgw(logs={"access": "access.log", "operations": "ops.log"})
    client = gateway.client()
    first = gateway.line_of(client.exchange(fields=partner.authorization))
    old, new = gateway.folder / "access.1.log", gateway.folder / "access.log"
    new.rename(old)
    during = client.exchange(fields=partner.authorization)
    wait_for(lambda: during["x-request-id"] in old.read_text(), "the line in the renamed file")
    (gateway.folder / "ops.log").rename(gateway.folder / "ops.1.log")
    gateway.signal(signal.SIGUSR1)
    wait_for(new.exists, "a new file")
    after = gateway.line_of(client.exchange(fields=partner.authorization))
    lines = [json.loads(line)["request_id"] for line in old.read_text().splitlines()]
    assert lines == [first["request_id"], during["x-request-id"]]
    assert [line["request_id"] for line in gateway.access()] == [after["request_id"]]
    assert stat.S_IMODE(new.stat().st_mode) & 0o007 == 0
    gateway.signal(signal.SIGHUP)
    gateway.wait_event("store_loaded")
    assert "event=started" in (gateway.folder / "ops.1.log").read_text()


def test_a_log_that_cannot_be_opened_again_goes_on(proofgw, partner):
    gateway = proofgw(logs={"access": "access.log"})
    client = gateway.client()
    gateway.line_of(client.exchange(fields=partner.authorization))
    path = gateway.folder / "access.log"
    old = gateway.folder / "kept.log"
    path.rename(old)
    path.mkdir()
    gateway.signal(signal.SIGUSR1)
    gateway.wait_event("log_reopen_failed")
    got = client.exchange(fields=partner.authorization)
    wait_for(lambda: got["x-request-id"] in old.read_text(), "the line in the old file")
    path.rmdir()
    gateway.signal(signal.SIGUSR1)
    wait_for(path.exists, "a new file")
    gateway.line_of(client.exchange(fields=partner.authorization))


def ask_until_lines_are_lost(process, client):
    """Requests until log lines do not fit any more; returns how many. Each of them is answered."""
    asked = 0
    while asked < 100_000:
        client.send(request() * 200)
        for _ in range(200):
            assert client.response().status == 401
        asked += 200
        if dropped_of(process):
            return asked
    raise AssertionError("no line was ever lost")


def dropped_of(process):
    page = get(process.address("admin_listening"), "/metrics").body.decode()
    return int(re.search(r"^proofgw_log_dropped_lines_total (\d+)$", page, re.M)[1])


def test_a_pipe_that_nobody_reads(start):
    """Requests go on, lost lines are counted exactly, and what is written is whole lines."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = start(stdout=write, logs={"ring": "64KiB"}).wait_started()
    os.close(write)
    client = Client(process.address())
    asked = ask_until_lines_are_lost(process, client)
    client.close()
    wait_for(lambda: process.events("log_dropped"), "the line that says so")
    with open(read, "rb") as log:
        process.process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in log]
    assert process.wait_exit() == EXIT_OK
    assert all(line["status"] == 401 for line in lines)
    dropped = sum(int(event["lines"]) for event in process.events("log_dropped"))
    assert len(lines) + dropped == asked


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_end(start):
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = start(stdout=write, logs={"ring": "64KiB"}).wait_started()
    os.close(write)
    client = Client(process.address())
    ask_until_lines_are_lost(process, client)
    client.close()
    assert process.stop() == EXIT_OK
    os.close(read)


def test_a_pipe_whose_reader_is_gone(start):
    """No SIGPIPE; failed writes are counted."""
    read, write = os.pipe()
    process = start(stdout=write).wait_started()
    os.close(write)
    os.close(read)
    client = Client(process.address())
    for _ in range(3):
        assert client.exchange().status == 401

    def errors():
        page = get(process.address("admin_listening"), "/metrics").body.decode()
        return int(re.search(r"^proofgw_log_write_errors_total (\d+)$", page, re.M)[1])

    wait_for(errors, "a failed write")
    assert client.exchange().status == 401
    client.close()
    assert process.stop() == EXIT_OK


# --- the end ---------------------------------------------------------------------------------------------


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


def test_a_client_that_honours_connection_close_loses_nothing(gateway, partner):
    """Sixteen clients that think for a moment between two requests, while the gateway ends: each goes on until an
    answer says `Connection: close`, and never finds its connection closed before."""
    ended, trouble = [], []

    def ask(client):
        try:
            while client.exchange(fields=partner.authorization)["connection"] != "close":
                time.sleep(0.05)  # what is tested is this pause, far shorter than the gateway's patience
            client.expect_close()
            ended.append(client)
        except Exception as e:
            trouble.append(e)

    threads = [threading.Thread(target=ask, args=(gateway.client(),)) for _ in range(16)]
    for thread in threads:
        thread.start()
    gateway.wait_metric("proofgw_http_requests_total", lambda value: value > 32)
    gateway.signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert not trouble, trouble
    assert len(ended) == 16
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


# --- the process -----------------------------------------------------------------------------------------


def test_no_core_dumps(gateway):
    limits = Path(f"/proc/{gateway.process.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.M)


@pytest.fixture
def other_user():
    """(user, folder): as root somebody else, with a folder where that user may be; else nobody in particular."""
    user = os.getuid() or 65534
    folder = Path(tempfile.mkdtemp())
    if os.getuid() == 0:
        if not all(p.stat().st_mode & 1 for p in [BINARY, *BINARY.parents]):
            pytest.skip("only root can reach the binary")
        folder.chmod(0o755)
    yield user, folder
    shutil.rmtree(folder)


def test_others_of_the_same_user_cannot_look_into_it(other_user, start):
    """What may not be dumped belongs to root in /proc, whoever runs it."""
    user, folder = other_user
    process = start(folder=folder, user=user if os.getuid() == 0 else None).wait_started()
    proc = Path(f"/proc/{process.process.pid}")
    assert re.search(rf"^Uid:\s+{user}\s", (proc / "status").read_text(), re.M)
    assert (proc / "mem").stat().st_uid == 0
    assert process.stop() == EXIT_OK


@pytest.mark.skipif(os.getuid() != 0, reason="needs a user of whom nothing else runs")
@pytest.mark.parametrize("ends", [False, True], ids=["alone", "with a signal"])
def test_too_few_threads(other_user, start, ends):
    """It ends with those workers that did start, and a signal meanwhile makes no difference."""
    _, folder = other_user
    limited = ["env", "ASAN_OPTIONS=detect_leaks=0", "prlimit", "--nproc=10"]  # of 14 threads; leaks are looked for by one
    for _ in range(10 if ends else 1):
        process = start(folder=folder, user=60000 + os.getpid() % 5000, prefix=limited, workers=8)
        if ends:
            wait_for(lambda: process.events("listening"), process.text)
            process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(DEADLINE_S) == EXIT_CONFIG, process.text()
        assert "TasksMax" in process.events("worker_not_started")[0]["hint"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"listeners": [{"address": "127.0.0.1:81"}]}, "Permission denied; ports below 1024 need CAP_NET_BIND_SERVICE"),
        ({"listeners": [{"address": "unix:/etc/x.sock"}]}, "the user of this process may not write in its folder"),
        ({"logs": {"access": "/etc/proofgw-test.log"}}, "the user of this process may not write there"),
    ],
    ids=["port", "folder", "log"],
)
def test_what_an_ordinary_user_may_not(other_user, start, changes, words):
    user, folder = other_user
    process = start(folder=folder, user=user if os.getuid() == 0 else None, **changes)
    assert process.wait_exit() == EXIT_CONFIG
    assert words in process.text(), process.text()


def test_it_raises_its_descriptor_limit_and_says_when_that_is_not_enough(gateway):
    hard = gateway.metrics()["process_max_fds"]
    limits = Path(f"/proc/{gateway.process.pid}/limits").read_text()
    soft_and_hard = re.search(r"^Max open files +(\d+) +(\d+) ", limits, re.M).groups()
    assert soft_and_hard == (str(int(hard)),) * 2
    assert bool(gateway.events("few_descriptors")) == (hard < 2 * 20_000 + 64)


def test_nothing_is_left_behind(proofgw, partner):
    """No file but its logs, no descriptor per past connection, no process."""
    gateway = proofgw()
    files = set(gateway.folder.iterdir())
    for _ in range(3):
        is_passed(gateway.client().exchange(fields=partner.authorization))
    gateway.end_clients()
    gateway.wait_metric("proofgw_connections_open", 0)
    first = gateway.metrics()["process_open_fds"]
    for _ in range(50):
        client = gateway.client()
        is_passed(client.exchange(fields=partner.authorization))
        client.close()
    gateway.wait_metric("proofgw_connections_open", 0)
    gateway.wait_metric("process_open_fds", lambda value: value <= first)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == EXIT_OK
    assert set(gateway.folder.iterdir()) == files
