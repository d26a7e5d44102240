"""Whatever can go wrong on a TLS connection, at every point of it, and bytes that lie in unusual ways.

Goal: garbage, half handshakes, resets and truncation cost one connection and nothing else; what was cut off is never
taken for whole; data arrives unchanged however records, segments and requests lie across each other.
Method: TlsClient decides about every record and byte; a scripted backend looks at what arrives behind the gateway.
"""

import contextlib
import hashlib
import random
import select
import signal
import ssl
import threading

import pytest

from support.backend import answer, chunked
from support.certs import Authority
from support.client import Client, Stopwatch, request
from support.expect import is_error, is_passed
from support.http1 import Ended, Reader
from support.partners import Partner, new_token
from support.payload import MIB, pattern
from support.proxy_header import v1, v2
from support.takeover import takeover
from support.tls import RECORD, TlsClient, connect, refused, tls_listener, trusting
from support.websocket import BINARY, CLOSE, TEXT, accepting, frame, read_frame, upgrade

pytest_plugins = ["support.tls"]

SHORT = "300ms"
SHORT_S = 0.3
MASK = b"\1\2\3\4"
ECHO = "/ws?tx_id=1&echo=1&interval_ms=0"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def plain(gateway, data=b""):
    """A connection without TLS, and what it says."""
    return gateway.client().send(data)


def until_gone(client):
    """What the gateway says before it ends the connection, in whatever way."""
    try:
        return client.reader.until_end()
    except Ended as end:
        return end.rest


def half_open(gateway, **options):
    """A connection, and its ClientHello, not sent."""
    client = connect(gateway, handshake=False, **options)
    return client, client.first_flight()


def without_tls(client):
    """The same connection as a plain Client, for what comes past TLS."""
    bare = Client.__new__(Client)
    bare.socket, bare.reader = client.socket, Reader(lambda: Client._receive(bare))
    return bare


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


# --- how the bytes lie -------------------------------------------------------------------------------------------

SIZES = [1, RECORD - 1, RECORD, RECORD + 1, 2 * RECORD, 65536 - 1, 65536, 65537, 262144, 262145, MIB]


@pytest.mark.parametrize("version", VERSIONS)
def test_bodies_of_record_sizes(https, backend, partner, authority, version):
    backend.answer = lambda r: answer(body=r.body)
    gateway = https()
    client = connect(gateway, context=trusting(authority, version=version))
    for size in SIZES:
        body = pattern(size)
        is_passed(client.exchange("POST", fields=partner.authorization, body=body), body=body)
    backend.answer = lambda r: chunked(r.body)
    for size in SIZES:
        body = pattern(size)
        data = request("POST", fields=f"Transfer-Encoding: chunked\r\n{partner.authorization}")
        data = data.replace(b"Content-Length: 0\r\n", b"") + b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
        is_passed(client.ask(data, "POST"), body=body)
    assert len(backend.connections) == 1


def test_requests_and_records_that_lie_across_each_other(https, backend, partner):
    """Requests whose boundaries fall everywhere within records, and records that are cut everywhere by segments."""
    gateway = https()
    one = request("POST", fields=partner.authorization, body=b"0123456789")
    for cut in (1, 2, 3, 17, len(one) - 11, len(one) - 1, len(one), len(one) + 1):
        client = connect(gateway)
        stream = one * 4
        for at in range(0, len(stream), cut):
            client.raw(client.seal(stream[at : at + cut]))
        for _ in range(4):
            is_passed(client.response("POST"))
    records = connect(gateway)
    data = records.seal(one) + records.seal(one * 2) + records.seal(one[:5]) + records.seal(one[5:])
    for at in range(0, len(data), 3):
        records.raw(data[at : at + 3])
    for _ in range(4):
        is_passed(records.response("POST"))


def test_pipelined_in_one_record(https, backend, partner):
    gateway = https()
    client = connect(gateway)
    one = request(fields=partner.authorization)
    count = RECORD // len(one)
    client.raw(client.seal(one * count))
    for _ in range(count):
        is_passed(client.response())


def test_a_body_in_records_of_one_byte(https, backend, partner):
    backend.answer = lambda r: answer(body=r.body)
    gateway = https()
    client = connect(gateway)
    body = pattern(3000)
    client.send_bytewise(request("POST", fields=partner.authorization, body=body))
    is_passed(client.response("POST"), body=body)


def test_an_answer_in_many_small_writes(https, backend, partner):
    pieces = [b"%d" % (n % 10) for n in range(2000)]

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            c.send(b"1\r\n%s\r\n" % piece)
        c.send(b"0\r\n\r\n")
        c.serve()

    backend.script(script)
    client = connect(https())
    is_passed(client.exchange(fields=partner.authorization), body=b"".join(pieces))


@pytest.mark.parametrize("version", VERSIONS)
def test_keep_alive(https, backend, partner, authority, version):
    gateway = https()
    client = connect(gateway, context=trusting(authority, version=version))
    for _ in range(200):
        is_passed(client.exchange(fields=partner.authorization))
    assert gateway.metrics()["proofgw_connections_accepted_total"] == 1
    assert len(backend.connections) == 1


def test_100_continue(https, backend, partner):

    def script(c):
        head = c.read_head()
        c.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        c.send(answer(body=c.read_body(head).body))

    backend.script(script)
    client = connect(https())
    data = request("POST", fields="Expect: 100-continue\r\n" + partner.authorization, body=b"x" * 100)
    client.send(data[:-100])
    assert client.reader.response_head().status == 100
    client.send(data[-100:])
    is_passed(client.response("POST"), body=b"x" * 100)


def test_a_client_that_reads_slowly(https, backend, partner):
    """It takes nothing until everything that can be on the way is on the way."""
    body = pattern(MIB) * 32
    backend.answer = lambda r: answer(body=body)
    gateway = https()
    client = connect(gateway)
    before = gateway.metrics()["process_resident_memory_bytes"]
    client.send(request(fields=partner.authorization))
    head = client.reader.response_head()
    gateway.wait_metric("proofgw_client_bytes_sent_total", still())
    assert gateway.metrics()["process_resident_memory_bytes"] - before < 16 * MIB
    client.reader.response_body(head)
    assert hashlib.sha256(head.body).digest() == hashlib.sha256(body).digest()
    is_passed(client.exchange(fields=partner.authorization), body=body)


def still():
    """A predicate: the value has not changed since it was last asked for, and is not nothing."""
    seen = [0]

    def check(value):
        same = value and value == seen[0]
        seen[0] = value
        return same

    return check


def test_a_backend_that_reads_slowly(https, backend, partner):
    body = pattern(MIB) * 32
    gate = backend.gate()
    backend.script(lambda c: (gate.wait(), c.read_request(), c.send(answer()), c.serve()))
    gateway = https(limits={"body": "32MiB"})
    client = connect(gateway)
    before = gateway.metrics()["process_resident_memory_bytes"]
    sending = threading.Thread(target=client.send, args=(request("POST", fields=partner.authorization, body=body),))
    sending.start()
    gateway.wait_metric("proofgw_client_bytes_received_total", still())
    assert gateway.metrics()["process_resident_memory_bytes"] - before < 16 * MIB
    gate.open()
    sending.join()
    is_passed(client.response("POST"))
    assert backend.last.body == body


def test_large_bodies_both_ways_at_once(https, demo, partner):
    gateway = https(upstream=demo.address)
    body = pattern(3 * MIB)

    def one():
        client = connect(gateway)
        for _ in range(2):
            got = client.exchange("PUT", "/widget/echo", fields=partner.authorization, body=body)
            assert hashlib.sha256(body).hexdigest().encode() in got.body
            assert len(client.exchange(target=f"/widget/bytes/{3 * MIB}", fields=partner.authorization).body) == 3 * MIB
        done.append(1)

    done = []
    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4


# --- tunnels -----------------------------------------------------------------------------------------------------


def open_tunnel(gateway, partner, **options):
    client = connect(gateway, **options)
    got = client.ask(upgrade(partner, ECHO))
    assert got.status == 101, got.raw_head
    return client


def echo(client, payload):
    client.send(frame(BINARY, payload, MASK))
    opcode = TEXT
    while opcode == TEXT:
        _, opcode, got = read_frame(client.reader)
    assert (opcode, got) == (BINARY, payload)


@pytest.mark.parametrize("version", VERSIONS)
def test_tunnels_carry_everything(https, demo, partner, authority, version):
    gateway = https(upstream=demo.address)
    client = open_tunnel(gateway, partner, context=trusting(authority, version=version))
    for size in (0, 1, 125, 126, 4096, RECORD - 8, RECORD, RECORD + 1, 65535, 65536, 262144, MIB):
        echo(client, pattern(size))


def test_a_frame_in_records_of_one_byte(https, demo, partner):
    client = open_tunnel(https(upstream=demo.address), partner)
    client.send_bytewise(frame(BINARY, b"in small pieces", MASK))
    opcode = TEXT
    while opcode == TEXT:
        _, opcode, got = read_frame(client.reader)
    assert got == b"in small pieces"


@pytest.mark.parametrize("change", ["token", "disabled", "address"])
def test_a_tunnel_that_is_no_longer_allowed_ends(https, demo, partner, change):
    other = Partner("other")
    gateway = https(upstream=demo.address, partners=[partner, other])
    cut, kept = open_tunnel(gateway, partner), open_tunnel(gateway, other)
    if change == "token":
        partner.token = new_token()
    elif change == "disabled":
        partner.enabled = False
    else:
        partner.production = ["192.0.2.1"]
    gateway.update_partners([partner, other])
    opcode = TEXT
    while opcode == TEXT:
        _, opcode, payload = read_frame(cut.reader)
    assert opcode == CLOSE and payload[:2] == (1008).to_bytes(2, "big")
    cut.half_close().expect_close()
    echo(kept, b"still here")
    assert gateway.wait_access(1, event="tunnel_close")[0]["end"] == f"{change}/tunnel"


@pytest.mark.parametrize("how", ["reset", "truncate", "close_notify"])
def test_tunnels_that_a_client_leaves(https, backend, partner, how):
    far = takeover(backend, accepting)
    gateway = https()
    client = connect(gateway)
    assert client.ask(upgrade(partner)).status == 101
    (end, *_) = far()
    {"truncate": lambda: client.socket.close(), "close_notify": lambda: client.half_close(), "reset": client.reset}[how]()
    with contextlib.suppress(Ended):
        assert end.reader.until_end() == b""
    end.close()
    assert gateway.wait_access(1, "tunnel_close")[0]["end"] == "client/tunnel"
    gateway.wait_metric("proofgw_tunnels_open", 0)


# --- before TLS: PROXY headers, the shield -----------------------------------------------------------------------

CALLER, BALANCER, STRANGER = "192.0.2.7", "127.0.0.5", "127.0.0.77"


@pytest.fixture
def behind_proxy(https, backend, partner):
    partner.production = [CALLER]
    return https(listener={"proxy_protocol": True, "trusted_proxies": [BALANCER]})


@pytest.mark.parametrize("header", [v1(CALLER), v2(CALLER)], ids=["v1", "v2"])
@pytest.mark.parametrize("how", ["alone", "with the hello", "bytewise"])
def test_a_proxy_header_before_tls(behind_proxy, backend, partner, header, how):
    client, hello = half_open(behind_proxy, source=BALANCER)
    if how == "alone":
        client.raw(header).raw(hello)
    elif how == "with the hello":
        client.raw(header + hello)
    else:
        for i in range(len(header)):
            client.raw(header[i : i + 1])
        client.raw(hello)
    client.handshake()
    got = is_passed(client.exchange(fields=partner.authorization))
    assert backend.last.fields.all("x-forwarded-for") == [CALLER]
    line = behind_proxy.line_of(got)
    assert (line["client_ip"], line["peer_ip"]) == (CALLER, BALANCER)
    is_passed(client.exchange(fields=partner.authorization))


def test_a_proxy_header_and_everything_else_in_one_segment(behind_proxy, backend, partner):
    """Header and half a hello, and the rest."""
    client, hello = half_open(behind_proxy, source=BALANCER)
    client.raw(v2(CALLER) + hello[:30]).raw(hello[30:])
    is_passed(client.handshake().exchange(fields=partner.authorization))


@pytest.mark.parametrize("first", [b"", b"PROXY TCP4 nonsense\r\n", request()], ids=["tls", "bad header", "http"])
def test_no_tls_without_a_proxy_header(behind_proxy, backend, partner, first):
    client, hello = half_open(behind_proxy, source=BALANCER)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.raw(first + hello)
        assert without_tls(client).expect_reset() == b""
    behind_proxy.wait_metric("proofgw_proxy_headers_refused_total", 1)


def test_a_proxy_header_inside_tls_is_nonsense(https, backend, partner):
    client = connect(https())
    client.send(v1(CALLER) + request(fields=partner.authorization))
    is_error(client.response(), "decode_error", closes=True)
    assert not backend.requests


def test_the_shield_is_before_tls(https, backend, partner):
    """No byte is answered, no handshake is begun."""
    partner.production = ["127.0.0.1"]
    gateway = https(listener={"shield": True})
    is_passed(connect(gateway).exchange(fields=partner.authorization))
    for n in range(1, 4):
        client, hello = half_open(gateway, source=STRANGER)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.raw(hello)
            assert without_tls(client).expect_reset() == b""
        gateway.wait_metric("proofgw_shield_dropped_total", n)


def test_the_shield_behind_a_proxy_header_is_before_tls(https, backend, partner):
    partner.production = [CALLER]
    gateway = https(listener={"proxy_protocol": True, "trusted_proxies": [BALANCER], "shield": True})
    client, hello = half_open(gateway, source=BALANCER)
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.raw(v2("198.51.100.1") + hello)
        assert without_tls(client).expect_reset() == b""
    gateway.wait_metric("proofgw_shield_dropped_total", 1)
    is_passed(connect(gateway, source=BALANCER, before=v2(CALLER)).exchange(fields=partner.authorization))


# --- certificates of clients -------------------------------------------------------------------------------------


@pytest.fixture
def clients(tmp_path):
    """Certificates that clients show, and the authority that is trusted."""
    authority, other = Authority(tmp_path / "clients", "clients"), Authority(tmp_path / "strangers", "strangers")
    between = authority.intermediate()
    return authority, {
        "good": authority.leaf("acme", client=True),
        "good, RSA": authority.leaf("acme", client=True, key="rsa"),
        "good, through an intermediate": between.leaf("acme", client=True),
        "another authority": other.leaf("acme", client=True),
        "expired": authority.leaf("acme", client=True, days=-1),
        "not valid yet": authority.leaf("acme", client=True, not_before_days=1),
        "for servers": authority.leaf("acme"),
        "without its intermediate": between.leaf("acme", client=True, full_chain=False),
    }


GOOD = ["good", "good, RSA", "good, through an intermediate"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["off", "optional", "required"])
def test_certificates_of_clients(https, backend, partner, authority, clients, mode, version):
    signer, pairs = clients
    listener = {"client_certificates": mode, "client_ca_file": str(signer.file)} if mode != "off" else {}
    gateway = https(listener=listener)
    for what, pair in pairs.items():
        context = trusting(authority, pair=pair, version=version)
        if mode == "off" or what in GOOD:
            is_passed(connect(gateway, context=context).exchange(fields=partner.authorization))
        else:
            assert "ALERT" in refused(gateway, context=context), what
    without = trusting(authority, version=version)
    if mode == "required":
        wanted = {ssl.TLSVersion.TLSv1_2: "SSLV3_ALERT_HANDSHAKE_FAILURE", ssl.TLSVersion.TLSv1_3: "TLSV13_ALERT_CERTIFICATE_REQUIRED"}
        assert refused(gateway, context=without) == wanted[version]
    else:
        is_passed(connect(gateway, context=without).exchange(fields=partner.authorization))


def test_a_certificate_does_not_replace_a_token(https, backend, partner, authority, clients):
    signer, pairs = clients
    gateway = https(listener={"client_certificates": "required", "client_ca_file": str(signer.file)})
    client = connect(gateway, context=trusting(authority, pair=pairs["good"]))
    is_error(client.exchange(), "missing_token")


def test_a_session_of_a_client_with_a_certificate(https, backend, partner, authority, clients):
    """It resumes where the same rules hold, and only there."""
    signer, pairs = clients
    demanding = tls_listener(client_certificates="required", client_ca_file=str(signer.file))
    gateway = https(listeners=[demanding, tls_listener()])
    context = trusting(authority, pair=pairs["good"], version=ssl.TLSVersion.TLSv1_2)
    first = connect(gateway, context=context)
    is_passed(first.exchange(fields=partner.authorization))
    again = connect(gateway, context=context, session=first.tls.session)
    is_passed(again.exchange(fields=partner.authorization))
    assert again.tls.session_reused
    open_door = ("127.0.0.1", gateway.ports[1])
    elsewhere = TlsClient(open_door, context, "api.test").handshake()
    gateway.clients.append(elsewhere)
    session = elsewhere.tls.session
    back = connect(gateway, context=context, session=session)
    is_passed(back.exchange(fields=partner.authorization))
    assert not back.tls.session_reused


# --- certificates of partners: a second factor -------------------------------------------------------------------


def is_without_factor(gateway, answer):
    is_error(answer, "invalid_token")
    assert gateway.line_of(answer)["deny"] == "client_certificate"


@pytest.mark.parametrize("mode", ["optional", "required"])
def test_a_partner_with_certificates(https, backend, partner, authority, clients, mode):
    """Any of its own will do; another partner's, or none, is refused as a wrong token is. Others are not concerned."""
    signer, pairs = clients
    own, second, foreign = pairs["good"], pairs["good, RSA"], pairs["good, through an intermediate"]
    free, bound = partner, Partner("bound", client_certificates=[own.fingerprint, second.fingerprint])
    listener = {"client_certificates": mode, "client_ca_file": str(signer.file)}
    gateway = https(listener=listener, partners=[free, bound])
    for pair in (own, second):
        client = connect(gateway, context=trusting(authority, pair=pair))
        got = is_passed(client.exchange(fields=bound.authorization))
        assert gateway.line_of(got)["client_cert_sha256"] == pair.fingerprint
        is_passed(client.exchange(fields=free.authorization))
        is_passed(client.exchange(fields=bound.authorization))
    for pair in (foreign, None) if mode == "optional" else (foreign,):
        client = connect(gateway, context=trusting(authority, pair=pair))
        for _ in range(2):
            is_without_factor(gateway, client.exchange(fields=bound.authorization))
            is_passed(client.exchange(fields=free.authorization))
    assert len(backend.requests) == 6 + 2 * (2 if mode == "optional" else 1)


def test_a_partner_with_certificates_elsewhere(https, backend, partner, authority, clients):
    """Where no certificate can be shown, it cannot call."""
    signer, pairs = clients
    partner.client_certificates = [pairs["good"].fingerprint]
    gateway = https(listeners=[tls_listener(), {"address": "127.0.0.1:0"}])
    secure = connect(gateway, context=trusting(authority, pair=pairs["good"]))
    is_without_factor(gateway, secure.exchange(fields=partner.authorization))
    plain_client = gateway.client(("127.0.0.1", gateway.ports[1]))
    is_without_factor(gateway, plain_client.exchange(fields=partner.authorization))
    assert not backend.requests


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_still_knows_the_certificate(https, backend, partner, authority, clients, version):
    signer, pairs = clients
    partner.client_certificates = [pairs["good"].fingerprint]
    gateway = https(listener={"client_certificates": "optional", "client_ca_file": str(signer.file)})
    for pair, status in ((pairs["good"], 200), (pairs["good, RSA"], 401), (None, 401)):
        context = trusting(authority, pair=pair, version=version)
        first = connect(gateway, context=context)
        assert first.exchange(fields=partner.authorization).status == status
        again = connect(gateway, context=context, session=first.tls.session)
        assert again.exchange(fields=partner.authorization).status == status
        assert again.tls.session_reused


def test_open_connections_obey_changes_of_certificates(https, demo, partner, authority, clients):
    signer, pairs = clients
    own, other = pairs["good"], pairs["good, RSA"]
    gateway = https(listener={"client_certificates": "optional", "client_ca_file": str(signer.file)}, upstream=demo.address)
    bare, shown = connect(gateway), connect(gateway, context=trusting(authority, pair=own))
    tunnels = {pair: open_tunnel(gateway, partner, context=trusting(authority, pair=pair)) for pair in (own, other)}
    assert bare.exchange(fields=partner.authorization).status == 200
    partner.client_certificates = [own.fingerprint]
    gateway.update_partners([partner])
    opcode = TEXT
    while opcode == TEXT:
        _, opcode, payload = read_frame(tunnels[other].reader)
    assert opcode == CLOSE and payload[:2] == (1008).to_bytes(2, "big")
    echo(tunnels[own], b"still here")
    is_without_factor(gateway, bare.exchange(fields=partner.authorization))
    assert shown.exchange(fields=partner.authorization).status == 200
    partner.client_certificates = []
    gateway.update_partners([partner])
    assert bare.exchange(fields=partner.authorization).status == 200
