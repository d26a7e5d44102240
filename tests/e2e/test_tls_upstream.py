"""TLS to the backend.

Goal: the backend is who it should be, by authority and name, or gets no byte of a request; what it sends is whole or the
client sees that it is not; sessions and connections are used again.
Method: a scripted backend with certificates made at run time, right or wrong in one thing.
"""

import contextlib
import socket
import ssl
import threading

import pytest

from support.backend import Gate
from support.certs import Authority
from support.client import request
from support.expect import is_error, is_passed
from support.faults import is_sampled
from support.following import is_ready
from support.tls_upstream import NAME, VERSIONS, serving
from support.wait import wait_for

pytest_plugins = ["support.tls", "support.tls_upstream"]


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
        wait_for(lambda: is_ready(gateway), "the backend's name is resolved")
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


def test_lines_about_a_backend_that_is_not_who_it_should_be_are_sampled(to_backend, backends, authority, partner):
    backend = backends(tls=serving(authority.leaf("other.test")))
    is_sampled(to_backend(backend, listener={"workers": 1}, server_name=NAME), partner, "upstream_tls_failed")


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
