"""Whatever can go wrong on a TLS connection, at every point of it.

Goal: garbage, half handshakes, resets and truncation cost one connection and nothing else; what was cut off is never
taken for whole.
Method: TlsClient decides about every record and byte; a scripted backend looks at what arrives behind the gateway.
"""

import contextlib
import random
import select
import signal
import ssl

import pytest

from support.backend import answer
from support.client import Client, Stopwatch, request
from support.expect import is_error, is_passed
from support.http1 import Ended
from support.payload import MIB, pattern
from support.proxy_header import v1, v2
from support.tls import RECORD, connect, trusting
from support.tls_faults import VERSIONS, half_open, without_tls

pytest_plugins = ["support.tls"]

SHORT = "300ms"
SHORT_S = 0.3


def plain(gateway, data=b""):
    """A connection without TLS, and what it says."""
    return gateway.client().send(data)


def until_gone(client):
    """What the gateway says before it ends the connection, in whatever way."""
    try:
        return client.reader.until_end()
    except Ended as end:
        return end.rest


def is_well(gateway, partner):
    """Everything that went wrong is gone, and new connections work."""
    gateway.wait_metric("proofgw_exchanges_active", 0)
    is_passed(connect(gateway).exchange(fields=partner.authorization))


# --- not TLS -----------------------------------------------------------------------------------------------------


NOT_TLS = {
    "HTTP": request(),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "zeros": bytes(4096),
    "text": b"hello?\r\n" * 100,
    "SSLv2 hello": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
    "a record of a version from the future": b"\x16\x09\x09\x00\x10" + bytes(16),
    "a record that is too long": b"\x16\x03\x01\xff\xff" + bytes(70000),
    "data before the handshake": b"\x17\x03\x03\x00\x10" + bytes(16),
    "a ChangeCipherSpec first": b"\x14\x03\x03\x00\x01\x01" * 3,
    "an alert first": b"\x15\x03\x03\x00\x02\x02\x28",
    "a ServerHello": b"\x16\x03\x03\x00\x2e\x02\x00\x00\x2a\x03\x03" + bytes(40),
    "a ClientHello of nothing": b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    "an empty record": b"\x16\x03\x01\x00\x00" * 50,
    "PROXY v1": v1("192.0.2.1"),
    "PROXY v2": v2("192.0.2.1"),
}


@pytest.mark.parametrize("what", NOT_TLS)
def test_what_is_not_tls(https, backend, partner, what):
    gateway = https(timeouts={"tls_handshake": SHORT})
    client = plain(gateway)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.send(NOT_TLS[what])
    said = until_gone(client)
    assert b"HTTP" not in said and len(said) <= 16, said  # an alert at most
    is_well(gateway, partner)
    assert [line["status"] for line in gateway.wait_access(1)] == [200]


def test_a_handshake_message_without_end(https, backend, partner):
    """A ClientHello of 16 MiB: OpenSSL refuses its length, and nobody buffers it."""
    gateway = https()
    client = plain(gateway)
    head = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(RECORD - 4)
    with contextlib.suppress(OSError):
        client.send(head)
        client.send_until_refused(b"\x16\x03\x01\x40\x00" + bytes(RECORD), 4 * MIB)
    assert len(until_gone(client)) <= 16
    is_well(gateway, partner)


def test_damaged_hellos(https, backend, partner):
    gateway = https(timeouts={"tls_handshake": SHORT}, limits={"connections_per_source": 10000})
    rng = random.Random(4711)
    clients = []
    for _ in range(150):
        client, hello = half_open(gateway)
        hello = bytearray(hello)
        for _ in range(rng.choice((1, 1, 2, 8))):
            hello[rng.randrange(len(hello))] = rng.randrange(256)
        client.raw(bytes(hello[: rng.choice((len(hello), len(hello), rng.randrange(1, len(hello))))]))
        clients.append(client)
    gateway.end_clients()
    is_well(gateway, partner)


# --- half handshakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["one byte", "half a hello", "a hello"])
def test_a_handshake_that_stops(https, backend, partner, part):
    gateway = https(timeouts={"tls_handshake": SHORT})
    client, hello = half_open(gateway)
    watch = Stopwatch()
    client.raw({"one byte": hello[:1], "half a hello": hello[: len(hello) // 2], "a hello": hello}[part])
    until_gone(without_tls(client))
    assert watch.seconds() >= SHORT_S
    gateway.wait_metric("proofgw_tls_handshake_failures_total", 1, reason="timeout")
    gateway.wait_metric("proofgw_connections_open", 0)
    assert not gateway.access()
    is_well(gateway, partner)


def test_a_handshake_is_not_extended_by_single_bytes(https, backend, partner):
    gateway = https(timeouts={"tls_handshake": SHORT})
    client, hello = half_open(gateway)
    for i in range(len(hello) - 1):
        readable, _, _ = select.select([client.socket], [], [], 0.02)
        if readable:
            break
        client.raw(hello[i : i + 1])
    assert i < len(hello) - 2
    gateway.wait_metric("proofgw_tls_handshake_failures_total", 1, reason="timeout")


def test_a_hello_in_single_bytes(https, backend, partner):
    gateway = https()
    client, hello = half_open(gateway)
    for i in range(len(hello)):
        client.raw(hello[i : i + 1])
    client.handshake()
    is_passed(client.exchange(fields=partner.authorization))


def test_a_hello_in_many_records(https, backend, partner):
    gateway = https()
    client, hello = half_open(gateway)
    body = hello[5:]
    client.raw(b"".join(b"\x16\x03\x01\0\x07" + body[i : i + 7] for i in range(0, len(body) - 7, 7)))
    rest = body[(len(body) - 1) // 7 * 7 :] if len(body) % 7 else body[-7:]
    client.raw(b"\x16\x03\x01\0" + bytes([len(rest)]) + rest)
    client.handshake()
    is_passed(client.exchange(fields=partner.authorization))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_request_right_behind_the_handshake(https, backend, partner, authority, version):
    """In TLS 1.3 Finished and request are one segment."""
    gateway = https()
    client = connect(gateway, context=trusting(authority, version=version), handshake=False)
    while True:
        try:
            client.tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            client.flush()
            client._take()
    client.send(request(fields=partner.authorization))  # in TLS 1.3 the Finished has not left before it
    is_passed(client.response())


def test_handshakes_in_flight_are_limited(https, backend, partner):
    gateway = https(limits={"tls_handshakes_per_worker": 3})
    waiting = []
    for _ in range(3):
        client, hello = half_open(gateway)
        client.raw(hello)
        client._take()  # the gateway's flight: it waits for ours
        waiting.append(client)
    over, hello = half_open(gateway)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        over.raw(hello)
        assert without_tls(over).expect_reset() == b""
    for client in waiting:  # those that were let in are not touched
        is_passed(client.handshake().exchange(fields=partner.authorization))
    is_passed(connect(gateway).exchange(fields=partner.authorization))


# --- resets and truncation ---------------------------------------------------------------------------------------

PHASES = ["connect", "half hello", "hello", "handshake", "half record", "head", "body", "waiting", "answer"]


def bring_to(gateway, backend, partner, phase):
    """A connection in that phase."""
    client, hello = half_open(gateway)
    if phase == "connect":
        return client
    client.raw(hello[:20])
    if phase == "half hello":
        return client
    client.raw(hello[20:])
    client._take()
    if phase == "hello":
        return client
    client.handshake()
    if phase == "handshake":
        return client
    if phase == "half record":
        return client.raw(client.seal(request(fields=partner.authorization))[:-5])
    if phase == "head":
        return client.send(request(fields=partner.authorization)[:-2])
    if phase == "body":
        backend.script(lambda c: (c.read_head(), c.drain()))
        client.send(request("POST", fields=partner.authorization, body=b"x" * 5000)[:-4000])
        backend.wait_requests(1)
        return client
    if phase == "waiting":
        backend.script(lambda c: (c.read_request(), c.drain()))
    else:
        backend.script(lambda c: (c.read_request(), c.send(answer(body=pattern(100000))[:50000]), c.drain()))
    client.send(request(fields=partner.authorization))
    backend.wait_requests(1)
    if phase == "answer":
        client.reader.response_head()
    return client


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("how", ["reset", "truncate", "close_notify"])
def test_a_client_that_goes_away(https, backend, partner, phase, how):
    gateway = https()
    backend.answer = lambda r: answer()
    client = bring_to(gateway, backend, partner, phase)
    if how == "close_notify" and phase not in ("connect", "half hello", "hello"):
        client.close_notify()
    client.reset() if how == "reset" else client.socket.close()
    gateway.wait_metric("proofgw_connections_open", 0)
    gateway.wait_metric("proofgw_exchanges_active", 0)
    gateway.wait_metric("proofgw_upstream_connections_open", lambda n: n <= 1)
    is_well(gateway, partner)
    ends = {line["end"].split("/")[0] for line in gateway.wait_access(1)}
    assert ends <= {"ok", "client"}, ends


BODIES = {
    "length": request("POST", fields="", body=b"x" * 3000)[:-1000],
    "length, on the last byte": request("POST", fields="", body=b"x" * 3000)[:-1],
    "chunked": request("POST", fields="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"") + b"5\r\nhello\r\n",
}


@pytest.mark.parametrize("what", BODIES)
@pytest.mark.parametrize("how", ["truncate", "close_notify"])
def test_a_body_that_is_cut_off_is_not_passed_on_as_whole(https, backend, partner, what, how):
    gateway = https()
    gate = backend.gate()

    def script(c):
        head = c.read_head()
        with pytest.raises(Ended):
            c.read_body(head)
        gate.open()

    backend.script(script)
    client = connect(gateway)
    client.send(BODIES[what].replace(b"\r\n", b"\r\n" + partner.authorization.encode(), 1))
    backend.wait_requests(1)
    if how == "close_notify":
        client.half_close()
    else:
        Client.half_close(client)
    gate.wait()
    assert gateway.wait_access(1)[0]["end"] == "client/request_body"
    is_well(gateway, partner)


def test_truncation_right_behind_a_request(https, backend, partner):
    """The request is whole, but whoever cut the connection might have cut off more: nobody waits for the answer."""
    gateway = https()
    done = backend.gate()
    backend.script(lambda c: (c.read_request(), c.drain(), done.open()))
    client = connect(gateway).send(request(fields=partner.authorization))
    backend.wait_requests(1)
    Client.half_close(client)
    done.wait()
    assert gateway.wait_access(1)[0]["end"].startswith("client/")


def test_close_notify_right_behind_a_request(https, backend, partner):
    """A half-closed connection in an orderly way, as without TLS: the answer still comes."""
    gateway = https()
    client = connect(gateway).send(request(fields=partner.authorization))
    client.close_notify()
    is_passed(client.response())
    client.expect_close()


@pytest.mark.parametrize("how", ["truncate", "close_notify", "reset"])
def test_the_end_of_an_idle_connection(https, backend, partner, how):
    gateway = https()
    client = connect(gateway)
    is_passed(client.exchange(fields=partner.authorization))
    {"truncate": lambda: Client.half_close(client), "close_notify": client.half_close, "reset": client.reset}[how]()
    gateway.wait_metric("proofgw_connections_open", 0)
    assert [line["end"] for line in gateway.wait_access(1)] == ["ok/done"]


@pytest.mark.parametrize("version", VERSIONS)
def test_closing_answers_end_with_close_notify(https, backend, partner, authority, version):
    gateway = https()
    client = connect(gateway, context=trusting(authority, version=version))
    is_error(client.exchange(fields="Connection: close\r\n"), "missing_token", closes=True)
    client.expect_close()
    client = connect(gateway, context=trusting(authority, version=version))
    is_passed(client.exchange(fields="Connection: close\r\n" + partner.authorization))
    client.expect_close()
    client = connect(gateway, context=trusting(authority, version=version))
    client.send(b"nonsense\r\n\r\n")
    is_error(client.response(), "decode_error", closes=True)
    client.expect_close()


def test_idle_connections_end_with_close_notify(https, backend, partner):
    gateway = https(timeouts={"keep_alive": SHORT})
    client = connect(gateway)
    is_passed(client.exchange(fields=partner.authorization))
    client.expect_close()
    connect(gateway).expect_close()


@pytest.mark.parametrize("part", [b"G", request()[:-1], request("POST", body=b"x" * 10)[:-1]])
def test_slow_requests_are_told_so(https, backend, partner, part):
    gateway = https(timeouts={"request_head": SHORT, "request_body": SHORT})
    client = connect(gateway)
    client.send(part.replace(b"\r\n", b"\r\n" + partner.authorization.encode(), 1))
    is_error(client.response(), "request_timeout", closes=True)
    client.expect_close()


def test_a_client_that_takes_nothing_is_cut_off(https, backend, partner):
    gateway = https(timeouts={"client_write": SHORT})
    backend.answer = lambda r: answer(body=bytes(32 * MIB))
    client = connect(gateway).send(request(fields=partner.authorization))
    client.reader.response_head()
    gateway.wait_metric("proofgw_connections_open", 0)
    client.expect_reset()
    assert gateway.wait_access(1)[0]["end"] == "timeout/response_body"


def test_the_end_of_the_gateway(https, backend, partner):
    """Idle connections are closed in an orderly way, a request in flight is answered, half a handshake gets no longer than
    it would have got."""
    gateway = https(timeouts={"tls_handshake": "2s"})
    gate = backend.gate()
    idle, busy = connect(gateway), connect(gateway)
    waiting, hello = half_open(gateway)
    waiting.raw(hello[:50])
    is_passed(idle.exchange(fields=partner.authorization))
    backend.script(lambda c: (c.read_request(), gate.wait(), c.send(answer(fields="Connection: close\r\n"))))
    backend.connections[0].end()
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    busy.send(request(fields=partner.authorization))
    backend.wait_requests(2)
    gateway.signal(signal.SIGTERM)
    idle.expect_close()
    gate.open()
    is_passed(busy.response())
    busy.expect_close()
    assert gateway.wait_exit() == 0


def test_connections_of_one_source_are_limited(https, backend, partner):
    gateway = https(limits={"connections_per_source": 2})
    kept = [connect(gateway) for _ in range(2)]
    over, hello = half_open(gateway)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        over.raw(hello)
        assert without_tls(over).expect_reset() == b""
    for client in kept:
        is_passed(client.exchange(fields=partner.authorization))


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_is_cut_off_shows(https, backend, partner, framing, version):
    """The backend dies in the middle. What has a length or chunks shows that; what is as long as the connection must
    not end with close_notify."""
    heads = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\nhalf",
    }
    gateway = https()
    gate = backend.gate()
    backend.script(lambda c: (c.read_request(), c.send(heads[framing]), gate.wait(), c.reset()))
    client = connect(gateway).send(request(fields=partner.authorization, version=version))
    head = client.reader.response_head()
    gate.open()
    with pytest.raises(Ended) as end:
        client.reader.response_body(head)
    assert end.value.reset or head.framing != "close"
    assert gateway.wait_access(1)[0]["end"].startswith("backend/")


def test_damage_in_the_middle(https, backend, partner):
    """One bit of a sealed request: the record is refused, nothing of it reaches the backend."""
    gateway = https()
    for at in (6, 60, -1):
        client = connect(gateway)
        record = bytearray(client.seal(request(fields=partner.authorization)))
        record[at] ^= 1
        client.raw(bytes(record))
        client.expect_alert("SSLV3_ALERT_BAD_RECORD_MAC")
    client = connect(gateway).raw(b"\x17\x03\x03\x48\x00" + bytes(18432))
    with contextlib.suppress(Ended):
        client.expect_alert("TLSV1_ALERT_RECORD_OVERFLOW", "SSLV3_ALERT_BAD_RECORD_MAC")
    client = connect(gateway).raw(request(fields=partner.authorization))  # past TLS, on a TLS connection
    with contextlib.suppress(Ended):
        client.expect_alert()
    assert not backend.requests
    is_well(gateway, partner)


def test_replayed_records_are_refused(https, backend, partner):
    gateway = https()
    client = connect(gateway)
    record = client.seal(request(fields=partner.authorization))
    is_passed(client.raw(record).response())
    client.raw(record).expect_alert("SSLV3_ALERT_BAD_RECORD_MAC")
    assert len(backend.requests) == 1
