"""proofctl and a running gateway: status, reload, explain, tunnels, log level.

Goal: what an operator types at 3 a.m. tells the truth about the running process, in words and in JSON, and finds its socket by itself.
Method: the real command beside the real gateway, over the control socket that the configuration names.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess

import pytest

from support.certs import Authority, replace_file
from support.client import request
from support.partners import Partner, digest
from support.proofctl import ENVIRONMENT, PROOFCTL, Run
from support.redis import free_port
from support.wait import DEADLINE_S, wait_for
from support.websocket import CLOSE, TEXT, read_frame, upgrade


def run(*arguments, code=0, stdin=None):
    command = [str(PROOFCTL), *map(str, arguments)]
    done = subprocess.run(
        command, input=stdin or "", capture_output=True, text=True, timeout=DEADLINE_S, env=ENVIRONMENT, check=False
    )
    result = Run(arguments, done.returncode, done.stdout, done.stderr)
    assert done.returncode == code, result
    return result


@pytest.fixture
def gateway(proofgw, demo, partner):
    """It takes its configuration over when it is told to, and not by itself."""
    return proofgw([partner], upstream=demo.address, reload_on_change=False, admin={"control_socket": "control.sock"})


@pytest.fixture
def ctl(gateway):
    wait_for((gateway.folder / "control.sock").exists, "the control socket")

    def call(*arguments, **options):
        return run("-c", gateway.config_file, *arguments, **options)

    return call


def edit(gateway, old, new):
    text = gateway.config_file.read_text(encoding="utf-8")
    assert old in text
    gateway.config_file.write_text(text.replace(old, new), encoding="utf-8")


def test_status_in_words_and_in_json(gateway, ctl):
    words = ctl("status").out
    assert f"pid {gateway.process.pid}" in words and "ready         yes\nphase         serving\n" in words
    assert "1 partners" in words
    status = ctl("status", "--json").json
    assert status["pid"] == gateway.process.pid and status["ready"] is True


def test_the_socket_may_be_named(gateway, ctl):
    path = gateway.folder / "control.sock"
    assert "ready" in run("--socket", path, "status").out
    assert "ready" in run("status", "--socket", path).out


def test_without_a_gateway_it_says_so(gateway, ctl, tmp_path):
    missing = run("--socket", tmp_path / "none", "status", code=1).sentence
    assert "no gateway runs with this socket, or its folder was missing when the gateway started" in missing
    failed = json.loads(run("--socket", tmp_path / "none", "status", "--json", code=1).err)
    assert failed["error"] == "failed"
    long_path = tmp_path / ("x" * 120)
    assert "107 bytes" in run("--socket", long_path, "status", code=1).sentence


def test_no_control_socket(tmp_path):
    config = tmp_path / "gateway.yaml"
    config.write_text("admin: {control_socket: none}\n", encoding="utf-8")
    assert "admin.control_socket is none" in run("-c", config, "status", code=1).sentence


def test_reload_shows_what_changes_and_changes_it(gateway, ctl):
    assert ctl("reload", "--plan").out == "no changes\n"
    edit(gateway, "workers: 1", "workers: 2\nlimits:\n  body: 1KiB")
    plan = ctl("reload", "--plan").out
    assert "limits.body: 10MiB -> 1KiB\n" in plan and "workers: 1 -> 2 (needs a restart)\n" in plan
    assert "limits.body: 10MiB -> 1KiB\n" in ctl("reload").out
    changes = ctl("reload", "--plan", "--json").json["changes"]
    assert [c["key"] for c in changes] == ["workers"]
    partner = gateway.partners[0]
    too_large = gateway.client().ask(
        request("POST", "/widget/session", fields=partner.authorization, body=b"x" * 2000)
    )
    assert too_large.status == 413


def test_a_faulty_configuration_is_told_with_every_place(gateway, ctl):
    edit(gateway, "workers: 1", "workers: 1\nlimitz: {}\ntimeouts: {keep_alive: 5}")
    for arguments in (["reload"], ["reload", "--plan"]):
        failed = ctl(*arguments, code=1).err
        assert "unknown key; did you mean" in failed and "timeouts.keep_alive" in failed
    assert ctl("status", "--json").json["pid"] == gateway.process.pid


def test_a_plan_judges_certificates_too(gateway, ctl, tmp_path):
    pair = Authority(tmp_path / "authority").leaf("api.test", days=-1)
    tls = f"tls: {{certificates: [{{chain_file: {pair.chain}, key_file: {pair.key}}}]}}"
    address = f"address: 127.0.0.1:{free_port()}"
    edit(gateway, "workers: 1", "workers: 1")
    edit(gateway, "listeners:\n", f"{tls}\nlisteners:\n  - {{{address}, tls: true}}\n")
    for arguments in (["reload"], ["reload", "--plan"]):
        assert "expired" in ctl(*arguments, code=1).err


def test_many_faults_are_told_to_the_last(gateway, ctl):
    keys = [f"nonsense_{i}" for i in range(20)]
    edit(gateway, "workers: 1", "workers: 1\n" + "".join(f"{k}: 1\n" for k in keys))
    failed = ctl("reload", code=1).err
    assert all(k in failed for k in keys)


def test_explain_takes_the_token_from_standard_input(gateway, ctl, partner):
    query = ["explain", "--host", "api.test", "--ip", "127.0.0.1"]
    let_in = ctl(*query, "--token-stdin", stdin=partner.token + "\n")
    assert let_in.out.startswith("let in\n") and "partner_id acme" in let_in.out
    assert ctl(*query, "--token-sha256", digest(partner.token), "--json").json["allowed"] is True
    refused = ctl("explain", "--host", "api.test", "--ip", "192.0.2.1", "--token-stdin", stdin=partner.token)
    assert '403 {"error": "forbidden", "code": "forbidden_origin"' in refused.out
    assert "not on the list; nearest entry: 127.0.0.1/32" in refused.out


def test_no_buffer_keeps_what_stands_on_standard_input(gateway, ctl, partner):
    """stdio would have read on, to where nothing wipes it."""
    explain = ["-c", gateway.config_file, "explain", "--host", "api.test", "--ip", "127.0.0.1", "--token-stdin"]
    for arguments in (explain, ["token", "inspect", "--stdin"]):
        reading, writing = os.pipe()
        os.write(writing, partner.token.encode() + b"\nrest")
        os.close(writing)
        command = list(map(str, [PROOFCTL, *arguments]))
        done = subprocess.run(command, stdin=reading, capture_output=True, text=True, timeout=DEADLINE_S, env=ENVIRONMENT, check=False)
        assert done.returncode == 0, done
        assert os.read(reading, 100) == b"rest"
        os.close(reading)


def test_explain_by_request_id(gateway, ctl, partner):
    refused = gateway.client().ask(request(host="sandbox.test", fields=partner.authorization))
    assert refused.status == 403
    words = ctl("explain", "--request-id", refused["x-request-id"]).out
    assert "was refused at" in words and "the same request now:" in words and "it is empty" in words
    assert f"\n403 {refused.body.decode()}\n" in words
    assert "address 127.0.0.1  believed_from socket" in words


def test_explain_says_whom_a_load_balancer_has_named(proofgw, demo, partner):
    listener = {"address": "127.0.0.1:0", "forwarded_for": True, "trusted_proxies": ["127.0.0.1"]}
    gateway = proofgw([partner], upstream=demo.address, listeners=[listener], admin={"control_socket": "control.sock"})
    fields = "X-Forwarded-For: 192.0.2.1\r\n" + partner.authorization
    refused = gateway.client().ask(request(fields=fields))
    assert refused.status == 403
    words = run("-c", gateway.config_file, "explain", "--request-id", refused["x-request-id"]).out
    assert "address 192.0.2.1  believed_from x_forwarded_for  peer 127.0.0.1" in words


def test_status_has_the_certificates(proofgw, demo, partner, tmp_path):
    authority = Authority(tmp_path / "authority")
    pair = authority.leaf("api.test")
    gateway = proofgw(
        [partner],
        upstream=demo.address,
        listeners=[{"address": "127.0.0.1:0", "tls": True}],
        tls={"certificates": [pair.config]},
        admin={"control_socket": "control.sock"},
    )
    words = run("-c", gateway.config_file, "status").out
    assert "certificate   api.test, valid until 2" in words and "REFUSED" not in words
    replace_file(pair.key, authority.leaf("api.test").key.read_bytes())
    gateway.wait_event("certificates_refused", 1)
    words = run("-c", gateway.config_file, "status").out
    assert "NEW ONES ARE REFUSED" in words and "does not belong to the certificate" in words


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["explain"], "give --host and --ip"),
        (["explain", "--host", "a", "--ip", "127.0.0.1", "--request-id", "x"], "--request-id alone"),
        (["explain", "--request-id", "x", "--path", "/widget/x"], "--request-id alone"),
        (["explain", "--request-id", "x", "--token-stdin"], "--request-id alone"),
        (["explain", "--host", "a&b", "--ip", "127.0.0.1"], "has a character"),
        (["tunnels", "close"], "or --all"),
        (["tunnels", "close", "--all", "--partner", "acme"], "or --all"),
        (["log-level"], "log-level"),
    ],
)
def test_wrong_usage(ctl, arguments, words):
    assert words in ctl(*arguments, code=2).err


def test_what_the_gateway_refuses_is_told_in_its_words(ctl):
    assert "level is debug, info, warn or error" in ctl("log-level", "loud", code=1).sentence
    assert "36 characters" in ctl("explain", "--request-id", "x", code=1).sentence
    assert "not an IPv4 or IPv6 address" in ctl("explain", "--host", "a", "--ip", "1.2.3", code=1).sentence


def test_tunnels_are_listed_and_closed(gateway, ctl, partner):
    client = gateway.client()
    answer = client.ask(upgrade(partner, "/ws?tx_id=1&echo=1&interval_ms=0"))
    assert answer.status == 101
    line = ctl("tunnels", "list").out
    assert line.startswith(answer["x-request-id"]) and " acme " in line and " production " in line
    assert ctl("tunnels", "list", "--partner", "nobody").out == ""
    assert "add --yes" in ctl("tunnels", "close", "--all", code=1).sentence
    assert "1 tunnels are being closed" in ctl("tunnels", "close", "--partner", "acme", "--yes").out
    opcode = TEXT
    while opcode == TEXT:
        _, opcode, payload = read_frame(client.reader)
    assert opcode == CLOSE and payload[:2] == (1012).to_bytes(2, "big")


def test_log_level(gateway, ctl):
    assert "level error" in ctl("log-level", "error").out
    ctl("tunnels", "close", "--all", "--yes")
    ctl("log-level", "info")
    ctl("tunnels", "close", "--all", "--yes")
    gateway.wait_event("tunnels_closed_by_operator")
    assert len(gateway.events("tunnels_closed_by_operator")) == 1


def test_a_gateway_that_hangs_is_given_up(gateway, ctl):
    """Also when so many wait already that nobody can even connect."""
    with contextlib.ExitStack() as waiting:
        gateway.signal(signal.SIGSTOP)
        waiting.callback(gateway.signal, signal.SIGCONT)
        for _ in range(2):
            told = ctl("status", code=1).err
            assert told.endswith("control.sock: no answer within 5 s: the gateway hangs, or is stopped\n")
            with contextlib.suppress(BlockingIOError):
                while True:
                    other = waiting.enter_context(socket.socket(socket.AF_UNIX))
                    other.setblocking(False)
                    other.connect(str(gateway.folder / "control.sock"))


def test_a_configuration_that_cannot_be_read(gateway, tmp_path):
    """Not the default socket instead: that would be another gateway's."""
    told = run("-c", tmp_path / "none.yaml", "status", code=1).err
    assert "none.yaml: cannot be read; name the gateway's socket with --socket FILE" in told


def test_two_gateways_are_told_apart_by_their_configuration(proofgw, gateway, ctl):
    other = proofgw([Partner("other")], admin={"control_socket": "control.sock"})
    wait_for((other.folder / "control.sock").exists, "the control socket")
    assert ctl("status", "--json").json["pid"] == gateway.process.pid
    assert run("-c", other.config_file, "status", "--json").json["pid"] == other.process.pid
