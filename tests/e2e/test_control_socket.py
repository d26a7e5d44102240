"""The control socket: what proofctl asks a running gateway for.

Goal: status, explain, tunnels and log level tell the truth of the running process, change what they say, and nobody but the owner gets in.
Method: HTTP over the unix socket of the real binary, beside real requests and tunnels.
"""

import contextlib
import json
import os
import signal
import socket
import stat

import pytest

from support.client import request
from support.control import ask
from support.partners import Partner, digest
from support.stopped import stopped_thread
from support.wait import DEADLINE_S, wait_for
from support.websocket import CLOSE, TEXT, read_frame, upgrade

NOBODYS_REQUEST = "019aa000-0000-7000-8000-000000000000"  # constant: xdist wants the same names in each worker


@pytest.fixture
def gateway(proofgw):
    return proofgw(workers=2, admin={"control_socket": "control.sock"})


@pytest.fixture
def control(gateway):
    path = gateway.folder / "control.sock"
    wait_for(path.exists, "the control socket")

    def call(target, method="GET", status=200):
        got, answer = ask(path, target, method)
        assert got == status, answer
        return answer

    call.path = path
    return call


def explain(control, host="api.test", ip="127.0.0.1", path="/widget/x", token=None):
    sha256 = f"&token_sha256={digest(token)}" if token else ""
    return control(f"/explain?host={host}&ip={ip}&path={path}{sha256}")


def step(answer, check):
    return next(s for s in answer["steps"] if s["check"] == check)


def test_only_the_owner_may_open_it(control):
    info = os.stat(control.path)
    assert stat.S_ISSOCK(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o600
    assert info.st_uid == os.geteuid()


def test_it_is_removed_at_the_end(gateway, control):
    gateway.signal(signal.SIGTERM)
    gateway.wait_exit()
    assert not control.path.exists()


def test_a_socket_file_left_behind_is_replaced(proofgw, tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    proofgw(admin={"control_socket": str(tmp_path / "left.sock")})
    assert ask(tmp_path / "left.sock", "/status")[0] == 200


def test_status_tells_of_the_running_process(gateway, control):
    status = control("/status")
    assert status["pid"] == gateway.process.pid and status["workers"] == 2
    assert status["ready"] is True and status["failed_checks"] == [] and status["draining"] is False
    assert status["policy"]["partners"] == 1 and status["store"]["up"] is True
    client = gateway.client()
    assert client.ask(request()).status == 401
    wait_for(lambda: control("/status")["connections"] == 1, "the connection in the status")


@pytest.mark.parametrize(
    "target, method, status",
    [
        ("/nothing", "GET", 404),
        ("/status", "POST", 405),
        ("/tunnels/close", "GET", 405),
        ("/tunnels/close", "POST", 400),
        ("/log-level?level=loud", "POST", 400),
        ("/confirm-deletions", "GET", 405),
        ("/confirm-deletions", "POST", 409),
        ("/explain?ip=127.0.0.1", "GET", 400),
        ("/explain?host=api.test&ip=127.0.0.01", "GET", 400),
        ("/explain?host=api.test&ip=127.0.0.1&token_sha256=abc", "GET", 400),
        ("/explain?host=api.test&ip=127.0.0.1&path=widget/x", "GET", 400),
        ("/explain?host=api.test&ip=127.0.0.1&path=/widget/../x", "GET", 400),
        ("/explain?request_id=abc", "GET", 400),
        (f"/explain?request_id={NOBODYS_REQUEST}", "GET", 404),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(control, target, method, status):
    answer = control(target, method, status)
    assert (answer["error"] if isinstance(answer, dict) else answer).strip()


# --- explain


def test_explain_agrees_with_the_answer(gateway, control, partner):
    assert explain(control, token=partner.token)["allowed"] is True
    cases = [
        ({"token": "x" * 40}, 401, "token_unknown"),
        ({}, 401, "token_missing"),
        ({"token": partner.token, "host": "other.test"}, 404, "no_host"),
        ({"token": partner.token, "path": "/admin"}, 404, "no_route"),
        ({"token": partner.token, "host": "sandbox.test"}, 403, "address"),
        ({"token": partner.token, "ip": "192.0.2.1"}, 403, "address"),
    ]
    for query, status, reason in cases:
        answer = explain(control, **query)
        assert (answer["allowed"], answer["status"], answer["reason"]) == (False, status, reason)
        if query.get("ip"):
            continue
        fields = f"Authorization: Bearer {query['token']}\r\n" if "token" in query else ""
        got = gateway.client().ask(request(target=query.get("path", "/widget/x"), host=query.get("host", "api.test"), fields=fields))
        assert got.status == status
        assert json.loads(got.body)["code"] == answer["answer"]["code"]


def test_explain_names_the_entry_or_the_nearest_one(proofgw):
    partner = Partner("acme", production=["192.0.2.0/25", "198.51.100.7", "2001:db8::/48"], sandbox=["127.0.0.1"])
    gateway = proofgw([partner], admin={"control_socket": "control.sock"})
    path = gateway.folder / "control.sock"

    def lists(ip):
        _, answer = ask(path, f"/explain?host=api.test&ip={ip}&token_sha256={digest(partner.token)}")
        return {entry["environment"]: entry for entry in step(answer, "allowlist")["lists"]}

    assert lists("192.0.2.9")["production"]["entry"] == "192.0.2.0/25"
    assert lists("192.0.2.200")["production"] == {"environment": "production", "contains": False, "nearest": "192.0.2.0/25"}
    assert lists("198.51.100.8")["production"]["nearest"] == "198.51.100.7/32"
    assert lists("2001:db8:0:5::1")["production"]["entry"] == "2001:db8::/48"
    assert lists("2001:db8:1::1")["production"]["nearest"] == "2001:db8::/48"
    both = lists("127.0.0.1")
    assert not both["production"]["contains"] and both["sandbox"] == {
        "environment": "sandbox",
        "contains": True,
        "entry": "127.0.0.1/32",
    }


def test_explain_by_request_id(gateway, control, partner):
    client = gateway.client()
    refused = client.ask(request(host="sandbox.test", target="/widget/secret?x=1", fields=partner.authorization))
    assert refused.status == 403
    answer = control(f"/explain?request_id={refused['x-request-id']}")
    assert answer["reason_then"] == "address" and answer["now"]["reason"] == "address"
    assert step(answer["now"], "route")["path"] == "/widget/secret"
    assert step(answer["now"], "token")["partner_id"] == "acme"
    partner.sandbox = ["127.0.0.1"]
    gateway.update_partners([partner])
    answer = control(f"/explain?request_id={refused['x-request-id']}")
    assert answer["reason_then"] == "address" and answer["now"]["allowed"] is True


@pytest.mark.parametrize("cut", range(3))
def test_explain_by_request_id_of_a_long_request(proofgw, partner, cut):
    """What is kept of its path ends in the middle of an escape, and it is explained all the same."""
    host = f"{'a' * 60}.{'b' * 60}.test"
    gateway = proofgw([partner], admin={"control_socket": "control.sock"}, environments={"production": {"hosts": [host]}})
    target = "/widget/" + "x" * cut + "%20" * 60
    refused = gateway.client().ask(request(host=host, target=target, fields="Authorization: Bearer nobodys-token-0123456789\r\n"))
    assert refused.status == 401
    status, answer = ask(gateway.folder / "control.sock", f"/explain?request_id={refused['x-request-id']}")
    assert status == 200
    assert answer["reason_then"] == answer["now"]["reason"] == "token_unknown"
    assert step(answer["now"], "route")["result"] == step(answer["now"], "environment")["result"] == "passed"


def test_the_oldest_denials_are_forgotten(proofgw):
    gateway = proofgw(workers=1, admin={"control_socket": "control.sock"})
    path = gateway.folder / "control.sock"
    client = gateway.client()
    ids = [client.ask(request(target="/none"))["x-request-id"] for _ in range(257)]
    assert ask(path, f"/explain?request_id={ids[0]}")[0] == 404
    assert ask(path, f"/explain?request_id={ids[1]}")[1]["reason_then"] == "no_route"
    assert ask(path, f"/explain?request_id={ids[256]}")[1]["reason_then"] == "no_route"


def test_a_token_that_was_malformed_is_not_looked_at_again(gateway, control):
    refused = gateway.client().ask(request(fields="Authorization: Bearer short\r\n"))
    answer = control(f"/explain?request_id={refused['x-request-id']}")
    assert answer["reason_then"] == "token_malformed" and answer["now"] is None


def test_a_token_that_was_missing_is_not_looked_at_again(gateway, control):
    refused = gateway.client().exchange()
    assert refused.status == 401
    answer = control(f"/explain?request_id={refused['x-request-id']}")
    assert answer["reason_then"] == "token_missing" and answer["now"] is None


def test_a_token_that_was_not_looked_at_is_not_said_to_be_missing(proofgw, partner):
    """It was refused for its host, and is not any more: nobody knows what would become of its token."""
    gateway = proofgw([partner], admin={"control_socket": "control.sock"}, reload_on_change=False)
    path = gateway.folder / "control.sock"
    refused = gateway.client().ask(request(host="new.test", fields=partner.authorization))
    assert refused.status == 404
    _, answer = ask(path, f"/explain?request_id={refused['x-request-id']}")
    assert answer["reason_then"] == answer["now"]["reason"] == "no_host"
    gateway.reload(environments={"production": {"hosts": ["api.test", "new.test"]}})
    _, answer = ask(path, f"/explain?request_id={refused['x-request-id']}")
    assert answer["reason_then"] == "no_host" and answer["now"] is None


# --- tunnels


def test_tunnels_are_listed_and_closed(proofgw, demo):
    acme, other = Partner("acme"), Partner("other")
    gateway = proofgw([acme, other], upstream=demo.address, workers=2, admin={"control_socket": "control.sock"})
    path = gateway.folder / "control.sock"
    clients = {}
    for partner in (acme, acme, acme, other):
        client = gateway.client()
        answer = client.ask(upgrade(partner, "/ws?tx_id=1&echo=1&interval_ms=0"))
        assert answer.status == 101
        clients[answer["x-request-id"]] = client
    listed = ask(path, "/tunnels")[1]
    assert listed["count"] == 4 and {t["request_id"] for t in listed["tunnels"]} == set(clients)
    of_other = ask(path, "/tunnels?partner=other")[1]["tunnels"]
    assert [t["partner_id"] for t in of_other] == ["other"]
    assert ask(path, "/tunnels/close?partner=acme", "POST")[1] == {"count": 3}
    for request_id, client in clients.items():
        if request_id == of_other[0]["request_id"]:
            continue
        opcode = TEXT
        while opcode == TEXT:
            _, opcode, payload = read_frame(client.reader)
        assert opcode == CLOSE and payload[:2] == (1012).to_bytes(2, "big")
    gateway.wait_metric("proofgw_tunnels_closed_total", 3, reason="operator")
    assert ask(path, "/tunnels")[1]["count"] == 1
    assert ask(path, f"/tunnels/close?request_id={of_other[0]['request_id']}", "POST")[1] == {"count": 1}


def test_log_level_changes_at_once(gateway, control):
    assert control("/log-level?level=error", "POST") == {"level": "error"}
    before = len(gateway.events("tunnels_closed_by_operator"))
    control("/tunnels/close?all=true", "POST")
    control("/log-level?level=info", "POST")
    control("/tunnels/close?all=true", "POST")
    gateway.wait_event("tunnels_closed_by_operator")
    assert len(gateway.events("tunnels_closed_by_operator")) == before + 1
    changes = gateway.events("log_level_changed")[-2:]  # neither level hides it
    assert [(e["level"], e["from"], e["to"]) for e in changes] == [("info", "info", "error"), ("info", "error", "info")]


# --- a worker that hangs


def test_a_worker_that_hangs_locks_nobody_out(gateway, control):
    """As many calls as may wait for it: one more is told so, others are answered, those that wait hear in the end that it is
    in vain, and then all is as before."""
    with contextlib.ExitStack() as stack, stopped_thread(gateway.process.pid, "w1"):
        asking = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(16)]
        for each in asking:
            each.connect(str(control.path))
            each.sendall(b"GET /tunnels HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert "too many calls wait" in control("/tunnels", status=503)["error"]
        assert control("/status")["workers"] == 2
        for each in asking:
            each.settimeout(DEADLINE_S)
            answer = each.recv(4096)
            assert b" 504 " in answer and b'{"error":"there was no answer in time: a worker' in answer
        assert "too many calls wait" in control("/tunnels", status=503)["error"]  # what was asked for may still be done
    assert wait_for(lambda: ask(control.path, "/tunnels")[0] == 200, "an answer of the worker")
