"""Every timeout of the configuration: who is waited for, what the client is told, and `end=` in the access log.

Method: one timeout is set to a few hundred milliseconds, the others stay at their defaults of many seconds, and somebody
does nothing. Nothing here measures how late a timeout is; only that it is not early, and that it comes.
"""

import select
import signal
import socket

import pytest

from support.backend import Connection, answer
from support.client import Stopwatch, request
from support.expect import is_error, is_passed
from support.payload import MIB, PLENTY
from support.wait import DEADLINE_S, wait_for

SHORT = "300ms"
SHORT_S = 0.3


def trickle(client, data, every=0.05):
    """Sends byte after byte, slowly, until the gateway says something or `data` is out."""
    for i in range(len(data)):
        readable, _, _ = select.select([client.socket], [], [], every)
        if readable:
            return
        client.send(data[i : i + 1])


# --- the client's side: heads ----------------------------------------------------------------------------


@pytest.mark.parametrize("part", [b"G", b"GET /widget/x HTTP/1.1\r\n", request()[:-1]])
def test_request_head(proofgw, backend, part):
    gateway = proofgw(timeouts={"request_head": SHORT})
    watch = Stopwatch()
    client = gateway.client().send(part)
    got = client.response()
    assert watch.seconds() >= SHORT_S
    is_error(got, "request_timeout", closes=True)
    client.expect_close()
    line = gateway.line_of(got)
    assert (line["end"], line["status"], line["bytes_in"]) == ("timeout/request_head", 408, len(part))


def test_request_head_is_not_extended_by_single_bytes(proofgw, backend, partner):
    gateway = proofgw(timeouts={"request_head": SHORT})
    client = gateway.client()
    trickle(client, request(fields="X-Pad: " + "x" * 1000 + "\r\n" + partner.authorization))
    is_error(client.response(), "request_timeout", closes=True)
    assert not backend.requests


def test_request_head_begins_with_the_first_byte(proofgw, partner):
    """Not with the connection, nor with the last answer: an idle connection has its own timeout."""
    gateway = proofgw(timeouts={"request_head": SHORT})
    client, other = gateway.client(), gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    is_error(other.send(b"G").response(), "request_timeout")  # as much time has passed as a head may take
    is_passed(client.exchange(fields=partner.authorization))


def test_an_empty_line_is_not_the_begin_of_a_head(proofgw, partner):
    gateway = proofgw(timeouts={"request_head": SHORT})
    client, other = gateway.client(), gateway.client()
    client.send(b"\r").send(b"\n")
    is_error(other.send(b"G").response(), "request_timeout")
    is_passed(client.exchange(fields=partner.authorization))


# --- the client's side: bodies ---------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"x" * 10])
def test_request_body(proofgw, backend, partner, sent):
    gateway = proofgw(timeouts={"request_body": SHORT})
    if sent:
        backend.script(lambda c: (c.read_head(), c.drain()))
    watch = Stopwatch()
    client = gateway.client().send(request("POST", fields=partner.authorization, body=b"x" * 1000)[:-1000] + sent)
    got = client.response()
    assert watch.seconds() >= SHORT_S
    is_error(got, "request_timeout", closes=True)
    client.expect_close()
    line = gateway.line_of(got)
    assert (line["end"], line["status"]) == ("timeout/request_body", 408)
    assert all(not r.body for r in backend.requests)


def test_request_body_may_not_pause_for_long_after_it_was_fast(proofgw, backend, partner):
    """A head start in bytes is no leave to hold the backend for as long as they would have taken at the slowest rate."""
    gateway = proofgw(timeouts={"request_body": SHORT, "request_body_rate": "500"})
    backend.script(lambda c: (c.read_head(), c.drain()))
    client = gateway.client()
    client.send(request("POST", fields=partner.authorization, body=b"x" * 200_000)[:-100_000])
    is_error(client.response(), "request_timeout", closes=True)


def test_request_body_rate(proofgw, backend, partner):
    """Bytes that come one by one are too slow, although none is late by itself."""
    gateway = proofgw(timeouts={"request_body": SHORT, "request_body_rate": "1000"})
    backend.script(lambda c: (c.read_head(), c.drain()))
    data = request("POST", fields=partner.authorization, body=b"x" * 1000)
    client = gateway.client().send(data[:-1000])
    trickle(client, data[-1000:], every=0.02)
    got = client.response()
    is_error(got, "request_timeout", closes=True)
    assert gateway.line_of(got)["end"] == "timeout/request_body"


def test_a_body_that_keeps_its_rate_may_take_as_long_as_it_likes(proofgw, backend, partner):
    gateway = proofgw(timeouts={"request_body": SHORT, "request_body_rate": "10"})
    data = request("POST", fields=partner.authorization, body=b"x" * 40)
    watch = Stopwatch()
    client = gateway.client().send(data[:-40])
    trickle(client, data[-40:], every=0.03)
    assert watch.seconds() > 2 * SHORT_S
    is_passed(client.response())


def test_the_clock_of_a_body_stands_still_while_the_backend_does_not_read(proofgw, backend, partner):
    gateway = proofgw(timeouts={"request_body": "2s", "request_body_rate": "1GiB"}, limits={"body": "1GiB"})
    gate = backend.gate()

    def script(c):
        sent = c.read_head()
        gate.wait()
        c.read_body(sent)
        c.send(answer())
        c.expect_end()

    backend.script(script)
    total, sent = PLENTY, 0
    client = gateway.client()
    client.send(request("POST", fields=partner.authorization).replace(b"Length: 0", b"Length: %d" % total))
    client.socket.settimeout(2.5)  # more than the clock has; what it has is for the sending, on a slow machine too
    block = bytes(MIB)
    with pytest.raises(TimeoutError):
        while sent < total:
            sent += client.socket.send(block)
    gate.open()
    client.socket.settimeout(DEADLINE_S)
    while sent < total:
        sent += client.socket.send(block[: total - sent])
    is_passed(client.response())


def test_the_clock_of_a_body_does_not_run_while_the_backend_is_awaited(proofgw, backend, partner):
    """A client that waits for 100 Continue is not slow; the backend is."""
    gateway = proofgw(timeouts={"request_body": SHORT, "upstream_response": "1s"})
    backend.script(lambda c: (c.read_head(), c.drain()))
    head = request("POST", fields="Expect: 100-continue\r\n" + partner.authorization, body=b"later")[:-5]
    got = gateway.client().send(head).response()
    is_error(got, "upstream_timeout")


def test_only_100_ends_the_wait_for_100(proofgw, backend, partner):
    """Another interim answer is no leave to send the body: it is still the backend that is awaited."""
    gateway = proofgw(timeouts={"request_body": SHORT, "upstream_response": "1s"})
    backend.script(lambda c: (c.read_head(), c.send(b"HTTP/1.1 102 Processing\r\n\r\n"), c.drain()))
    head = request("POST", fields="Expect: 100-continue\r\n" + partner.authorization, body=b"later")[:-5]
    got = gateway.client().send(head).response()
    assert [i.status for i in got.interim] == [102]
    is_error(got, "upstream_timeout", closes=True)
    assert gateway.line_of(got)["end"] == "timeout/response_head"


def test_a_client_that_waits_for_100_in_vain_may_send_its_body(proofgw, backend, partner):
    """RFC 9110 10.1.1: nobody has to wait for ever, and many a backend never says 100. The clock of the body begins
    with the body."""
    gateway = proofgw(timeouts={"request_body": SHORT, "request_body_rate": "10"})
    data = request("POST", fields="Expect: 100-continue\r\n" + partner.authorization, body=b"x" * 40)
    watch = Stopwatch()
    client = gateway.client().send(data[:-40])
    wait_for(lambda: watch.seconds() > 4 * SHORT_S, "a client that has waited for long")
    trickle(client, data[-40:], every=0.03)
    is_passed(client.response())
    assert backend.last.body == b"x" * 40


def test_the_clock_of_a_body_does_not_run_while_a_connection_is_awaited(proofgw, backend, partner):
    """The body was not read before the refusal; the answer says that the connection goes on, so there is time to send it."""
    gateway = proofgw(limits={"upstream_connections": 1}, timeouts={"request_body": SHORT, "upstream_connect": "1s"})
    gate = backend.hold(Connection.serve)
    first = gateway.client().send(request(fields=partner.authorization))
    backend.wait_requests(1)
    client = gateway.client().send(request("POST", fields=partner.authorization, body=b"x" * 1000)[:-999])
    is_error(client.response(), "unavailable", closes=False)
    watch = Stopwatch()
    wait_for(lambda: watch.seconds() > SHORT_S / 2, "a client that takes its time")
    client.send(b"x" * 999)
    gate.open()
    is_passed(first.response())
    is_passed(client.exchange(fields=partner.authorization))


# --- the client's side: idle -----------------------------------------------------------------------------


def test_keep_alive(proofgw, partner):
    gateway = proofgw(timeouts={"keep_alive": SHORT})
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    watch = Stopwatch()
    client.expect_close()
    assert watch.seconds() >= SHORT_S * 0.9  # the answer was read a little after it was sent


@pytest.mark.parametrize("data, answered", [(b"", False), (b"\r\n", False), (request("POST", body=b"in time"), True)])
def test_keep_alive_ends_no_connection_with_a_request_that_is_there(proofgw, partner, data, answered):
    """The gateway is stopped meanwhile: the request has come in time, and the time is over before it is read."""
    gateway = proofgw(timeouts={"keep_alive": SHORT})
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    gateway.signal(signal.SIGSTOP)
    client.send(data)
    watch = Stopwatch()
    wait_for(lambda: watch.seconds() > 2 * SHORT_S, "its time is over")
    gateway.signal(signal.SIGCONT)
    if answered:
        is_error(client.response("POST"), "missing_token", closes=False)
    client.expect_close()


def test_keep_alive_of_a_connection_that_never_sends(proofgw, tmp_path):
    """On a unix socket, where the kernel hands over a connection before its first byte."""
    path = tmp_path / "listen.sock"
    gateway = proofgw(timeouts={"keep_alive": SHORT}, listeners=[{"address": f"unix:{path}"}])
    gateway.client(path).expect_close()


def test_keep_alive_does_not_run_during_a_request(proofgw, backend, partner):
    gateway = proofgw(timeouts={"keep_alive": SHORT})
    gate = backend.hold(then=Connection.serve)
    client, other = gateway.client(), gateway.client()
    client.send(request(fields=partner.authorization))
    backend.wait_requests(1)
    is_error(other.exchange(), "missing_token")
    other.expect_close()  # as much time has passed as a connection may idle
    gate.open()
    is_passed(client.response())


# --- the client's side: answers --------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_client_write(proofgw, backend, partner, version):
    """A client that takes nothing is cut off with a reset: what it has must not look whole."""
    gateway = proofgw(timeouts={"client_write": SHORT})

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                c.send(bytes(65536))
        except (BrokenPipeError, ConnectionResetError):
            pass

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization, version=version))
    (line,) = gateway.wait_access(1)
    assert (line["end"], line["status"]) == ("timeout/response_body", 200)
    client.expect_reset()


def test_client_write_is_about_progress_not_about_the_whole(proofgw, backend, partner):
    gateway = proofgw(timeouts={"client_write": "500ms"})
    total = 16 * MIB
    backend.answer = lambda r: answer(body=bytes(total))
    client = gateway.client()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 * 1024)
    client.send(request(fields=partner.authorization))
    watch = Stopwatch()
    got = 0
    while got < total:
        readable, _, _ = select.select([], [], [], 0.03) if got < 8 * MIB else ([], [], [])
        got += len(client.socket.recv(256 * 1024))
    assert watch.seconds() > 0.5
    assert gateway.wait_access(1)[0]["end"] == "ok/done"


def test_linger(proofgw):
    """After an error that closes, a client that does not close is not waited for any longer."""
    gateway = proofgw(timeouts={"linger": SHORT})
    client = gateway.client()
    watch = Stopwatch()
    is_error(client.ask(b"NONSENSE\r\n\r\n"), "decode_error", closes=True)
    gateway.wait_metric("proofgw_connections_open", 1)
    gateway.wait_metric("proofgw_connections_open", 0)
    assert watch.seconds() >= SHORT_S


def test_no_linger(proofgw):
    gateway = proofgw(timeouts={"linger": "0s"})
    client = gateway.client()
    is_error(client.ask(b"NONSENSE\r\n\r\n"), "decode_error", closes=True)
    gateway.wait_metric("proofgw_connections_open", 0)
