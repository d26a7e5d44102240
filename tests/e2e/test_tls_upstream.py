"""TLS to the backend.

Goal: the backend is who it should be, by authority and name, or gets no byte of a request; what it sends is whole or the
client sees that it is not; sessions and connections are used again.
Method: a scripted backend with certificates made at run time, right or wrong in one thing.
"""

import contextlib
import hashlib
import socket
import ssl
import threading

import pytest

from support.backend import Gate, answer, chunked
from support.certs import Authority
from support.client import request
from support.expect import is_error, is_passed
from support.http1 import Ended
from support.payload import MIB
from support.tls import RECORD, connect, tls_listener
from support.wait import wait_for
from support.websocket import BINARY, CLOSE, accepting, frame, read_frame, upgrade

pytest_plugins = ["support.tls"]

NAME = "backend.test"
MASK = b"\1\2\3\4"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def serving(pair, version=None, clients=None):
    """A backend's context. `clients`: the authority of the certificates that it demands."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.chain, pair.key)
    if version:
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.file)
    return context


@pytest.fixture
def to_backend(proofgw, authority):
    """Factory of gateways that speak TLS to this backend."""

    def make(backend, address=None, listener=None, **keys):
        keys = {"enabled": True, "ca_file": str(authority.file), **keys}
        keys = {key: value for key, value in keys.items() if value is not None}
        production = {"hosts": ["api.test"], "upstream": address or backend.address, "upstream_tls": keys}
        return proofgw(upstream=backend.address, environments={"production": production, "sandbox": None}, **(listener or {}))

    return make


def port_of(backend):
    return backend.address.rsplit(":", 1)[1]


def is_refused(gateway, backend, partner, cause):
    """502, the reason is in the log and counted, and the backend got nothing of the request."""
    is_error(gateway.client().exchange(fields=partner.authorization), "upstream_unavailable")
    assert not backend.requests
    event = gateway.wait_event("upstream_tls_failed")[0]
    assert cause in event["cause"] and event["env"] == "production", event
    metrics = gateway.metrics()
    assert metrics("proofgw_upstream_tls_failures_total", env="production") >= 1
    assert metrics("proofgw_upstream_tls_handshakes_total", env="production") == 0 or "alert" in cause


# --- who it is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_a_good_backend(to_backend, backends, authority, partner, version, key):
    pair = authority.intermediate().leaf("localhost", "127.0.0.1", key=key)
    backend = backends(tls=serving(pair, version))
    for address in (f"127.0.0.1:{port_of(backend)}", f"localhost:{port_of(backend)}"):
        gateway = to_backend(backend, address)
        client = gateway.client()
        for _ in range(3):
            is_passed(client.exchange(fields=partner.authorization))
        assert gateway.metrics()("proofgw_upstream_tls_handshakes_total", env="production") == 1
        assert gateway.metrics()["proofgw_upstream_tls_failures_total"] == 0
        gateway.finish()


def test_a_name_of_its_own(to_backend, backends, authority, partner):
    """server_name is asked for (SNI) and demanded, whatever the address is."""
    context = serving(authority.leaf(NAME))
    asked = []
    context.sni_callback = lambda sock, name, _: asked.append(name)
    backend = backends(tls=context)
    is_passed(to_backend(backend, server_name=NAME).client().exchange(fields=partner.authorization))
    assert asked == [NAME]


def test_no_sni_for_addresses(to_backend, backends, authority, partner):
    context = serving(authority.leaf("127.0.0.1"))
    asked = []
    context.sni_callback = lambda sock, name, _: asked.append(name)
    is_passed(to_backend(backends(tls=context)).client().exchange(fields=partner.authorization))
    assert asked == [None]


def test_wildcards(to_backend, backends, authority, partner):
    backend = backends(tls=serving(authority.leaf("*.wild.test")))
    is_refused(to_backend(backend, server_name="a.b.wild.test"), backend, partner, "hostname mismatch")
    is_passed(to_backend(backend, server_name="a.wild.test").client().exchange(fields=partner.authorization))


WRONG = {
    "another name": (["other.test"], {}, "hostname mismatch"),
    "the name only as the common name": (["other.test"], {"common_name": NAME}, "hostname mismatch"),
    "expired": ([NAME], {"days": -1}, "certificate has expired"),
    "not valid yet": ([NAME], {"not_before_days": 1}, "certificate is not yet valid"),
    "for clients": ([NAME], {"client": True}, "unsuitable certificate purpose"),
    "a weak key": ([NAME], {"key": "rsa1024"}, "EE certificate key too weak"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_backend_that_is_not_who_it_should_be(to_backend, backends, authority, partner, what):
    names, options, cause = WRONG[what]
    pair = authority.leaf(*names, **options)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(pair.chain, pair.key)
    backend = backends(tls=context)
    gateway = to_backend(backend, server_name=NAME)
    is_error(gateway.client().exchange(fields=partner.authorization), "upstream_unavailable")
    assert not backend.requests
    event = gateway.wait_event("upstream_tls_failed")[0]
    assert cause in event["cause"], event
    assert gateway.metrics()("proofgw_upstream_tls_failures_total", env="production") >= 1


@pytest.mark.parametrize("what", ["another authority", "a missing intermediate", "an unknown root beside it", "the system's authorities"])
def test_a_chain_that_leads_nowhere(to_backend, backends, authority, partner, tmp_path, what):
    if what == "another authority":
        pair = Authority(tmp_path / "others", "others").leaf(NAME)
    elif what == "a missing intermediate":
        pair = authority.intermediate().leaf(NAME, full_chain=False)
    elif what == "an unknown root beside it":
        own = Authority(tmp_path / "others", NAME)
        pair = own.leaf(NAME)
        pair.chain.write_bytes(pair.chain.read_bytes() + own.file.read_bytes())
    else:
        pair = authority.leaf(NAME)
    backend = backends(tls=serving(pair))
    options = {"ca_file": None} if what == "the system's authorities" else {}
    gateway = to_backend(backend, server_name=NAME, **options)
    root_is_sent = what == "an unknown root beside it"
    cause = "self-signed certificate in certificate chain" if root_is_sent else "unable to get local issuer certificate"
    is_refused(gateway, backend, partner, cause)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_a_backend_of_old(to_backend, backends, authority, partner):
    backend = backends(tls=serving(authority.leaf(NAME), ssl.TLSVersion.TLSv1_1))
    is_refused(to_backend(backend, server_name=NAME), backend, partner, "protocol version")


def test_a_backend_without_tls_gets_no_request(to_backend, backend, partner):
    backend.script(lambda c: (c.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), c.drain()))
    is_refused(to_backend(backend, server_name=NAME), backend, partner, "")


def test_a_gateway_without_tls_before_a_backend_with_tls(proofgw, backends, authority, partner):
    backend = backends(tls=serving(authority.leaf(NAME)))
    gateway = proofgw(upstream=backend.address)
    answer_ = gateway.client().exchange(fields=partner.authorization)
    assert answer_.status == 502 and not backend.requests


def test_a_backend_that_says_nothing(to_backend, backends, backend, partner):
    """Neither TLS nor anything else: timeouts.upstream_connect."""
    backend.script(lambda c: c.drain())
    gateway = to_backend(backend, listener={"timeouts": {"upstream_connect": "300ms"}})
    got = gateway.client().exchange(fields=partner.authorization)
    is_error(got, "upstream_timeout")
    assert gateway.line_of(got)["end"] == "timeout/tls"


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_backend_that_goes_away_in_the_handshake(to_backend, backend, partner, how):
    backend.script(*[lambda c: (c.socket.recv(10), getattr(c, how)())] * 4)
    gateway = to_backend(backend)
    is_error(gateway.client().exchange(fields=partner.authorization), "upstream_unavailable")
    assert gateway.wait_access(1)[0]["end"] == "backend/tls"


# --- who we are --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_a_backend_that_wants_a_certificate(to_backend, backends, authority, partner, tmp_path, version, key):
    clients = Authority(tmp_path / "clients", "clients")
    backend = backends(tls=serving(authority.leaf(NAME), version, clients))
    own = clients.intermediate().leaf("gateway", client=True, key=key)
    keys = {"certificate_file": str(own.chain), "key_file": str(own.key)}
    gateway = to_backend(backend, server_name=NAME, **keys)
    is_passed(gateway.client().exchange(fields=partner.authorization))
    shown = backend.connections[-1].socket.getpeercert(binary_form=True)
    assert shown == own.der


@pytest.mark.parametrize("version", VERSIONS)
def test_without_the_certificate_that_is_wanted(to_backend, backends, authority, partner, tmp_path, version):
    clients = Authority(tmp_path / "clients", "clients")
    backend = backends(tls=serving(authority.leaf(NAME), version, clients))
    gateway = to_backend(backend, server_name=NAME)
    is_error(gateway.client().exchange(fields=partner.authorization), "upstream_unavailable")
    assert not backend.requests
    assert "alert" in gateway.wait_event("upstream_tls_failed")[0]["cause"]


# --- what it sends -----------------------------------------------------------------------------------------------


@pytest.fixture
def secure(to_backend, backends, authority):
    """A gateway and its good backend."""
    backend = backends(tls=serving(authority.leaf(NAME)))
    return to_backend(backend, server_name=NAME), backend


HALF = {
    "close-delimited": b"HTTP/1.1 200 OK\r\n\r\n" + b"half of " * 100,
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
}


@pytest.mark.parametrize("framing", HALF)
@pytest.mark.parametrize("how", ["fin", "close_notify", "reset"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_is_cut_off(secure, partner, framing, how, version):
    """The client must not take it for whole. Only close_notify is an end, and only where the end has no other mark."""
    gateway, backend = secure
    gate = backend.gate()

    def script(c):
        c.read_request()
        c.send(HALF[framing])
        gate.wait()
        if how == "close_notify":
            c.close_notify()
        c.reset() if how == "reset" else c.close()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization, version=version))
    head = client.reader.response_head()
    gate.open()
    if framing == "close-delimited" and how == "close_notify":
        client.reader.response_body(head)
        assert head.body == b"half of " * 100
        assert gateway.wait_access(1)[0]["end"] == "ok/done"
        return
    with pytest.raises(Ended) as end:
        client.reader.response_body(head)
    assert end.value.reset or head.framing != "close"
    assert gateway.wait_access(1)[0]["end"] == "backend/response_body"


def test_a_head_that_is_cut_off(secure, partner):
    gateway, backend = secure
    backend.script(*[lambda c: (c.read_request(), c.send(b"HTTP/1.1 200 OK\r\nContent-"), c.close())] * 2)
    got = gateway.client().exchange(fields=partner.authorization)
    assert got.status == 502


def test_whole_answers_before_truncation(secure, partner):
    """The length says where the end is; that there was no close_notify behind it does not matter."""
    gateway, backend = secure
    backend.script(lambda c: (c.read_request(), c.send(answer(fields="Connection: close\r\n")), c.close()))
    is_passed(gateway.client().exchange(fields=partner.authorization))
    is_passed(gateway.client().exchange(fields=partner.authorization))
    assert [line["end"] for line in gateway.wait_access(2)] == ["ok/done"] * 2


@pytest.mark.parametrize("size", [0, 1, RECORD - 1, RECORD, RECORD + 1, 262145, 3 * MIB])
def test_bodies(secure, partner, size):
    gateway, backend = secure
    body = b"".join(b"%031d\n" % i for i in range(size // 32 + 1))[:size]
    backend.answer = lambda r: answer(body=r.body)
    client = gateway.client()
    is_passed(client.exchange("POST", fields=partner.authorization, body=body), body=body)
    backend.answer = lambda r: chunked(*([r.body] if r.body else []))
    is_passed(client.exchange("POST", fields=partner.authorization, body=body), body=body)
    assert len(backend.connections) == 1


def test_a_client_that_reads_slowly(secure, partner):
    gateway, backend = secure
    body = b"".join(b"%031d\n" % i for i in range(MIB // 32)) * 32
    backend.answer = lambda r: answer(body=body)
    before = gateway.metrics()["process_resident_memory_bytes"]
    client = gateway.client().send(request(fields=partner.authorization))
    head = client.reader.response_head()
    seen = []

    def is_still(value):
        seen.append(value)
        return len(seen) > 1 and seen[-2] == value

    gateway.wait_metric("proofgw_client_bytes_sent_total", is_still)
    assert gateway.metrics()["process_resident_memory_bytes"] - before < 16 * MIB
    client.reader.response_body(head)
    assert hashlib.sha256(head.body).digest() == hashlib.sha256(body).digest()


# --- again -------------------------------------------------------------------------------------------------------


def test_connections_are_kept(secure, partner):
    gateway, backend = secure
    for _ in range(20):
        is_passed(gateway.client().exchange(fields=partner.authorization))
    assert len(backend.connections) == 1
    metrics = gateway.metrics()
    assert metrics("proofgw_upstream_reuses_total", env="production") == 19
    assert metrics("proofgw_upstream_tls_handshakes_total", env="production") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_resume(to_backend, backends, authority, partner, version):
    backend = backends(tls=serving(authority.leaf(NAME), version))
    gateway = to_backend(backend, server_name=NAME)
    for n in range(4):
        backend.script(lambda c: (c.read_request(), c.send(answer(fields="Connection: close\r\n")), c.close_notify()))
        is_passed(gateway.client().exchange(fields=partner.authorization))
    assert [c.socket.session_reused for c in backend.connections][1:] == [True] * 3 or backend.tls.session_stats()["hits"] == 3
    metrics = gateway.metrics()
    assert metrics("proofgw_upstream_tls_handshakes_total", env="production", resumed="true") == 3
    assert metrics("proofgw_upstream_tls_handshakes_total", env="production", resumed="false") == 1


@pytest.mark.parametrize("how", ["close_notify", "close", "reset"])
def test_a_kept_connection_that_ends(secure, partner, how):
    """While it is idle: the next request goes on a new one, and nobody notices."""
    gateway, backend = secure
    ended = backend.gate()

    def script(c):
        c.read_request()
        c.send(answer())
        wait_for(lambda: gateway.access(), "the answer")
        if how == "close_notify":
            c.close_notify()
        c.reset() if how == "reset" else c.close()
        ended.open()

    backend.script(script)
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    ended.wait()
    gateway.wait_metric("proofgw_upstream_connections_open", 0)
    is_passed(client.exchange(fields=partner.authorization))


def test_many_at_once(secure, partner):
    gateway, backend = secure
    failures = []

    def one():
        client = gateway.client()
        try:
            for _ in range(20):
                is_passed(client.exchange(fields=partner.authorization))
        except AssertionError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(backend.requests) == 200
    assert len(backend.connections) <= 10


# --- tunnels -----------------------------------------------------------------------------------------------------


def echo_frames(c):
    """The backend of a tunnel that sends back what it gets."""
    sent = c.read_head()
    c.send(accepting(sent))
    with contextlib.suppress(Ended):
        while True:
            if not c.reader.buffer:
                c.reader.more()
            data = bytes(c.reader.buffer)
            c.reader.buffer.clear()
            c.send(data)


@pytest.mark.parametrize("both", [False, True], ids=["tls to the backend", "tls on both sides"])
def test_tunnels(to_backend, backends, authority, partner, both):
    backend = backends(tls=serving(authority.leaf(NAME)))
    listener = {}
    if both:
        pair = authority.leaf("api.test")
        listener = {"listeners": [tls_listener()], "tls": {"certificates": [pair.config]}}
    gateway = to_backend(backend, server_name=NAME, listener=listener)
    gateway.authority = authority
    backend.script(echo_frames)
    client = connect(gateway) if both else gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    for size in (1, 125, 126, RECORD, 65536, MIB):
        data = frame(BINARY, b"x" * size, MASK)
        sending = threading.Thread(target=client.send, args=(data,))
        sending.start()
        assert client.reader.exactly(len(data)) == data
        sending.join()
    client.half_close()
    gateway.wait_access(1, "tunnel_close")


@pytest.mark.parametrize("how", ["close_notify", "fin"])
def test_the_last_frames_of_a_tunnel_arrive(secure, partner, how):
    """Many servers close without close_notify once the WebSocket has said its goodbye: nothing of that may get lost."""
    gateway, backend = secure
    last = frame(BINARY, b"x" * 300000) + frame(CLOSE, b"\x03\xe8")

    def script(c):
        c.send(accepting(c.read_head()) + last)
        if how == "close_notify":
            c.close_notify()
        c.close()

    backend.script(script)
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    assert client.reader.exactly(len(last)) == last
    client.half_close().expect_close()


@pytest.mark.parametrize("how", ["close_notify", "fin", "reset"])
def test_tunnels_that_the_backend_leaves(secure, partner, how):
    gateway, backend = secure
    gate = backend.gate()

    def script(c):
        c.send(accepting(c.read_head()) + frame(BINARY, b"last words"))
        gate.wait()
        if how == "close_notify":
            c.close_notify()
        c.reset() if how == "reset" else c.close()

    backend.script(script)
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    assert read_frame(client.reader) == (True, BINARY, b"last words")
    gate.open()
    with contextlib.suppress(Ended):
        client.reader.until_end()
    client.close()
    assert gateway.wait_access(1, "tunnel_close")[0]["end"] == "backend/tunnel"


# --- reload ------------------------------------------------------------------------------------------------------


def test_a_reload_turns_it_on(proofgw, backends, authority, partner):
    plain, secure_backend = backends(), backends(tls=serving(authority.leaf(NAME)))
    gateway = proofgw(upstream=plain.address, environments={"sandbox": None}, reload_on_change=False)
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    keys = {"enabled": True, "ca_file": str(authority.file), "server_name": NAME}
    gateway.reload(environments={"production": {"upstream": secure_backend.address, "upstream_tls": keys}})
    is_passed(client.exchange(fields=partner.authorization))
    assert (len(plain.requests), len(secure_backend.requests)) == (1, 1)


def test_a_reload_with_another_name(to_backend, backends, authority, partner):
    """Kept connections were verified by other rules: they are not used again."""
    backend = backends(tls=serving(authority.leaf(NAME)))
    gateway = to_backend(backend, server_name=NAME, listener={"reload_on_change": False})
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    gateway.reload(environments={"production": {"upstream_tls": {"server_name": "other.test"}}})
    is_error(client.exchange(fields=partner.authorization), "upstream_unavailable")
    gateway.reload(environments={"production": {"upstream_tls": {"server_name": NAME}}})
    is_passed(client.exchange(fields=partner.authorization))


@contextlib.contextmanager
def late_tickets(backend, gate):
    """An address before the backend. On its first connection, what the backend sends behind the handshake, the tickets first of all,
    waits for the gate."""
    server, connections = socket.create_server(("127.0.0.1", 0)), []

    def carry(source, sink, before):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                before()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve(first):
        hellos = []

        def count():
            hellos.append(None)

        def hold():
            if first and len(hellos) > 1:  # the client's second flight: the handshake is over
                gate.wait()

        near, _ = server.accept()
        far = socket.create_connection(("127.0.0.1", int(port_of(backend))))
        connections.extend([near, far])
        for arguments in ((near, far, count), (far, near, hold)):
            threading.Thread(target=carry, args=arguments, daemon=True).start()

    def accept():
        with contextlib.suppress(OSError):
            serve(True)
            while True:
                serve(False)

    threading.Thread(target=accept, daemon=True).start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    for each in (server, *connections):
        each.close()


def test_a_session_of_the_name_before_is_not_resumed(to_backend, backends, authority, partner):
    """Whoever resumes is not asked for a certificate: a ticket that comes on an old connection after the reload was given to
    another name."""
    gate, backend = Gate(), backends(tls=serving(authority.leaf(NAME), ssl.TLSVersion.TLSv1_3))
    with late_tickets(backend, gate) as address:
        gateway = to_backend(backend, address=address, server_name=NAME, listener={"reload_on_change": False})
        client = gateway.client()
        client.send(request(fields=partner.authorization))
        wait_for(lambda: backend.requests, "the request at the backend")
        gateway.reload(environments={"production": {"upstream_tls": {"server_name": "other.test"}}})
        gate.open()
        is_passed(client.response())
        is_error(client.exchange(fields=partner.authorization), "upstream_unavailable")
        assert len(backend.requests) == 1


@pytest.mark.parametrize("file", ["ca_file", "certificate_file"])
def test_files_that_cannot_be_used_change_nothing(to_backend, backends, authority, tmp_path, file):
    backend = backends(tls=serving(authority.leaf(NAME)))
    gateway = to_backend(backend, server_name=NAME, listener={"reload_on_change": False})
    bad = tmp_path / "bad.pem"
    bad.write_text("nonsense\n", encoding="utf-8")
    keys = {file: str(bad)} if file == "ca_file" else {file: str(bad), "key_file": str(authority.leaf("x").key)}
    events = gateway.reload_refused(environments={"production": {"upstream_tls": keys}})
    assert str(bad) in str(events)
