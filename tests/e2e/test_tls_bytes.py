"""Bytes that lie in unusual ways on a TLS connection: data arrives unchanged however records, segments, requests and
frames lie across each other.
"""

import contextlib
import hashlib
import threading

import pytest

from support.backend import answer, chunked
from support.client import request
from support.expect import is_passed
from support.http1 import Ended
from support.partners import Partner, new_token
from support.payload import MIB, pattern
from support.takeover import takeover
from support.tls import RECORD, connect, trusting
from support.tls_faults import MASK, VERSIONS, echo, open_tunnel
from support.websocket import BINARY, CLOSE, TEXT, accepting, frame, read_frame, upgrade

pytest_plugins = ["support.tls"]


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
