"""What the logs hold and where they go: no secret is in anything that the process ever writes; rotation, and outputs that
nobody reads.
"""

import fcntl
import json
import os
import re
import signal
import stat
from pathlib import Path

import pytest

from support.backend import answer
from support.client import Client, request
from support.process import EXIT_OK, get
from support.wait import wait_for
from support.websocket import upgrade

pytest_plugins = ["support.process"]


def test_each_of_the_most_workers_has_a_log(proofgw):
    """The main thread has one as well."""
    gateway = proofgw(workers=256, logs={"ring": "64KiB"})

    def names():
        return {(task / "comm").read_text().strip() for task in Path(f"/proc/{gateway.process.pid}/task").iterdir()}

    wait_for(lambda: names() >= {f"w{n}" for n in range(256)}, "256 workers")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == EXIT_OK
    assert not gateway.events("log_ring_missing")


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
