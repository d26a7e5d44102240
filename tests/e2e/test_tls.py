"""TLS in the gateway, the essentials: listeners, certificates while it runs, backends.

Goal: a listener with TLS serves requests as one without; certificates are replaced without anybody noticing, and bad ones
replace nothing; backends are verified; what handshakes may cost is bounded.
Method: curl and Python's ssl against the real binary, with certificates made at run time. test_tls_clients.py and its
siblings go through the variations.
"""

import contextlib
import json
import shutil
import socket
import ssl
import subprocess

import pytest

from support.backend import answer
from support.certs import Authority, replace_file
from support.client import request
from support.control import ask
from support.gateway import BINARY, HOST, SANDBOX_HOST, to_yaml
from support.http1 import Reader
from support.wait import DEADLINE_S
from support.websocket import accepting, read_frame, upgrade

CURL = shutil.which("curl")


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def pair(authority):
    return authority.leaf(HOST)


def listening(*pairs, **keys):
    return {
        "listeners": [{"address": "127.0.0.1:0", "tls": True, **keys}],
        "tls": {"certificates": [p.config for p in pairs]},
        "reload_on_change": False,
    }


def context_for(authority, shown=None):
    context = ssl.create_default_context(cafile=authority.file)
    if shown:
        context.load_cert_chain(shown.chain, shown.key)
    return context


@contextlib.contextmanager
def connected(gateway, authority, name=HOST, shown=None, session=None, context=None):
    context = context or context_for(authority, shown)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=DEADLINE_S) as plain:
        with context.wrap_socket(plain, server_hostname=name, session=session) as secure:
            yield secure


def exchange(secure, partner, **kwargs):
    secure.sendall(request(fields=partner.authorization, **kwargs))
    return Reader(lambda: secure.recv(65536)).response("GET")


def get(gateway, authority, partner, name=HOST, shown=None, **kwargs):
    with connected(gateway, authority, name, shown) as secure:
        return exchange(secure, partner, **kwargs)


def serial_of(gateway, authority, name=HOST):
    with connected(gateway, authority, name) as secure:
        return secure.getpeercert()["serialNumber"].lstrip("0")


# --- listeners


@pytest.mark.skipif(not CURL, reason="needs curl")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl(proofgw, backend, partner, authority, pair, version):
    gateway = proofgw(**listening(pair))
    done = subprocess.run(
        [CURL, "-sS", "--cacert", authority.file, "--tls-max", version, "--resolve", f"{HOST}:{gateway.port}:127.0.0.1"]
        + ["-H", partner.authorization.strip(), f"https://{HOST}:{gateway.port}/widget/x"],
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (0, b"ok"), done.stderr
    assert backend.requests[0]["x-forwarded-proto"] == "https"
    (line,) = gateway.wait_access(1)
    assert (line["tls_version"], line["sni"], line["tls_resumed"]) == (f"TLSv{version}", HOST, False)
    assert gateway.metrics()("proofgw_tls_handshakes_total", version=version, resumed="false") == 1


def test_a_host_of_another_certificate(proofgw, backend, partner, authority, pair):
    gateway = proofgw([partner], **listening(pair, authority.leaf(SANDBOX_HOST)))
    with connected(gateway, authority) as secure:
        got = exchange(secure, partner, host=SANDBOX_HOST)
        assert got.status == 404
        assert gateway.line_of(got)["deny"] == "other_certificate"
        assert exchange(secure, partner).status == 200
    assert get(gateway, authority, partner, name=SANDBOX_HOST, host=SANDBOX_HOST).status == 403
    both = proofgw([partner], **listening(authority.leaf(HOST, SANDBOX_HOST)))
    assert get(both, authority, partner, host=SANDBOX_HOST).status == 403


def test_explain_knows_of_the_other_certificate(proofgw, backend, partner, authority, pair):
    gateway = proofgw([partner], admin={"control_socket": "control.sock"}, **listening(pair, authority.leaf(SANDBOX_HOST)))
    with connected(gateway, authority) as secure:
        refused = exchange(secure, partner, host=SANDBOX_HOST)
    now = ask(gateway.folder / "control.sock", f"/explain?request_id={refused['x-request-id']}")[1]["now"]
    assert (now["reason"], now["status"]) == ("other_certificate", 404)
    results = {step["check"]: step["result"] for step in now["steps"]}
    assert (results["environment"], results["token"]) == ("failed", "not reached")


def test_unknown_names_are_refused(proofgw, backend, authority, pair):
    gateway = proofgw(**listening(pair))
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"), connected(gateway, authority, "other.test"):
        pass
    gateway.wait_metric("proofgw_tls_handshake_failures_total", 1, reason="unknown_name")


def test_client_certificates(proofgw, backend, partner, authority, pair):
    gateway = proofgw(**listening(pair, client_certificates="required", client_ca_file=str(authority.file)))
    shown = authority.leaf("acme", client=True)
    got = get(gateway, authority, partner, shown=shown)
    assert gateway.line_of(got)["client_cert_sha256"] == shown.fingerprint
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(gateway, authority, partner)
    gateway.wait_metric("proofgw_tls_handshake_failures_total", 1, reason="certificate")


def test_a_second_factor(proofgw, backend, partner, authority, pair):
    """Token and certificate: the partner's own one must be shown; what is open obeys a change of it."""
    own, other = (authority.leaf(name, client=True) for name in ("acme", "other"))
    partner.client_certificates = [own.fingerprint]
    settings = listening(pair, client_certificates="optional", client_ca_file=str(authority.file))
    gateway = proofgw([partner], **settings)
    assert get(gateway, authority, partner, shown=own).status == 200
    for shown in (None, other):
        got = get(gateway, authority, partner, shown=shown)
        assert (got.status, json.loads(got.body)["code"]) == (401, "invalid_token")
        assert gateway.line_of(got)["deny"] == "client_certificate"
    with connected(gateway, authority, shown=own) as kept, connected(gateway, authority, shown=own) as tunnel:
        assert exchange(kept, partner).status == 200
        backend.script(lambda c: (c.send(accepting(c.read_request())), c.drain()))
        tunnel.sendall(upgrade(partner))
        reader = Reader(lambda: tunnel.recv(65536))
        assert reader.response_head().status == 101
        partner.client_certificates = [other.fingerprint]
        gateway.update_partners([partner])
        assert read_frame(reader)[2][:2] == (1008).to_bytes(2, "big")
        assert exchange(kept, partner).status == 401
    assert gateway.wait_access(1, "tunnel_close")[0]["end"] == "certificate/tunnel"
    partner.client_certificates = []
    gateway.update_partners([partner])
    assert get(gateway, authority, partner).status == 200


def test_handshakes_are_bounded(proofgw, backend, partner, authority, pair):
    """Over the limit: a reset. In time: done, or cut."""
    changes = {"limits": {"tls_handshakes_per_worker": 2}, "timeouts": {"tls_handshake": "1s"}}
    gateway = proofgw(**listening(pair), **changes)
    waiting = [gateway.client().send(b"\x16") for _ in range(2)]
    gateway.wait_metric("proofgw_tls_handshakes_active", 2)
    gateway.client().send(b"\x16").expect_reset()
    metrics = gateway.metrics()
    assert metrics("proofgw_limits_hit_total", limit="tls_handshakes_per_worker") == 1
    for client in waiting:
        client.expect_close()
    gateway.wait_metric("proofgw_tls_handshake_failures_total", 2, reason="timeout")
    assert get(gateway, authority, partner).status == 200


def test_plain_http_is_refused(proofgw, backend, partner, pair):
    gateway = proofgw(**listening(pair))
    gateway.client().send(request(fields=partner.authorization))
    gateway.wait_metric("proofgw_tls_handshake_failures_total", 1, reason="not_tls")
    assert gateway.wait_event("tls_handshake_failed")[0]["reason"] == "not_tls"


# --- certificates while it runs


def test_a_new_pair_takes_over(proofgw, backend, partner, authority, pair, tmp_path):
    """A connection that is open goes on; the number of the configuration stays."""
    control = str(tmp_path / "control.sock")
    gateway = proofgw(**listening(pair), admin={"control_socket": control})
    new = authority.leaf(HOST, days=60)
    with connected(gateway, authority) as secure:
        assert exchange(secure, partner).status == 200
        pair.become(new)
        assert gateway.wait_event("certificates_replaced")[0]["file"] == str(pair.chain)
        assert serial_of(gateway, authority) == new.serial
        assert exchange(secure, partner).status == 200
    metrics = gateway.metrics()
    assert metrics("proofgw_tls_cert_not_after_timestamp_seconds", file=pair.chain) == new.not_after
    assert metrics["proofgw_config_generation"] == 1
    assert metrics["proofgw_tls_certificate_reloads_total"] == 1
    (shown,) = ask(control, "/status")[1]["certificates"]
    assert (shown["names"], shown["file"]) == (HOST, str(pair.chain))


def test_a_half_written_pair_waits(proofgw, backend, partner, authority, pair):
    gateway = proofgw(**listening(pair))
    before, new = serial_of(gateway, authority), authority.leaf(HOST)
    replace_file(pair.chain, new.chain.read_bytes())
    gateway.wait_event("certificates_wait")
    assert serial_of(gateway, authority) == before
    replace_file(pair.key, new.key.read_bytes())
    gateway.wait_event("certificates_replaced")
    assert serial_of(gateway, authority) == new.serial
    assert gateway.metrics()["proofgw_tls_certificate_reload_failures_total"] == 0


def test_a_bad_pair_replaces_nothing(proofgw, backend, partner, authority, pair):
    gateway = proofgw(**listening(pair))
    before, good = serial_of(gateway, authority), authority.leaf(HOST)
    pair.become(authority.leaf(HOST, days=-1))
    gateway.wait_metric("proofgw_tls_certificate_reload_failures_total", 1)
    (event,) = gateway.wait_event("certificates_refused")
    assert str(pair.chain) in event["cause"] and "expired" in event["cause"]
    assert serial_of(gateway, authority) == before
    pair.become(good)
    gateway.wait_event("certificates_replaced")
    assert serial_of(gateway, authority) == good.serial


def test_sessions_survive_reloads_and_renewals(proofgw, backend, partner, authority, pair):
    gateway = proofgw(**listening(pair))
    context = context_for(authority)
    with connected(gateway, authority, context=context) as secure:
        exchange(secure, partner)
        session = secure.session
    gateway.reload(limits={"header_count": 50})
    pair.become(authority.leaf(HOST))
    gateway.wait_event("certificates_replaced")
    with connected(gateway, authority, context=context, session=session) as secure:
        got = exchange(secure, partner)
        assert secure.session_reused
    assert gateway.line_of(got)["tls_resumed"] is True


def test_a_reload_with_a_bad_certificate_is_refused(proofgw, backend, partner, authority, pair):
    gateway = proofgw(**listening(pair))
    bad = authority.leaf(HOST, days=-1)
    (line,) = gateway.reload_refused(tls={"certificates": [bad.config]})
    assert str(bad.chain) in line["error"]
    assert get(gateway, authority, partner).status == 200


def check(folder, config):
    file = folder / "checked.yaml"
    file.write_text(to_yaml(config) + "\n", encoding="utf-8")
    done = subprocess.run([BINARY, "check", file], capture_output=True, text=True)
    return done.returncode, done.stderr


def test_check_judges_certificates(tmp_path, authority, pair):
    config = listening(pair) | {
        "environments": {"production": {"hosts": [HOST], "upstream": "127.0.0.1:9"}},
        "store": {"file": "partners.ndjson"},
    }
    assert check(tmp_path, config)[0] == 0
    pair.become(authority.leaf(HOST, days=13))
    code, text = check(tmp_path, config)
    assert code == 0 and f"{pair.chain}: the certificate expires in 12 days" in text
    replace_file(pair.key, authority.leaf(HOST).key.read_bytes())
    code, text = check(tmp_path, config)
    assert code == 1 and "the key does not belong to the certificate" in text


# --- backends


@pytest.fixture
def behind_tls(proofgw, backends, authority):
    def make(pair, **keys):
        backend = backends()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.chain, pair.key)

        def serve(connection):
            try:
                connection.socket = context.wrap_socket(connection.socket, server_side=True)
            except (ssl.SSLError, OSError):
                return
            connection.read_request()
            connection.send(answer())
            connection.drain()

        for _ in range(2):
            backend.script(serve)
        tls = {"enabled": True, "ca_file": str(authority.file), "server_name": "backend.test", **keys}
        return proofgw(upstream=backend.address, environments={"production": {"upstream_tls": tls}})

    return make


def plain_get(gateway, partner):
    return gateway.client().exchange(fields=partner.authorization)


def test_a_backend_with_tls(behind_tls, authority, partner):
    gateway = behind_tls(authority.leaf("backend.test"))
    assert plain_get(gateway, partner).status == 200
    assert gateway.metrics()("proofgw_upstream_tls_handshakes_total", env="production", resumed="false") == 1


@pytest.mark.parametrize("what", ["name", "expired", "authority"])
def test_a_backend_that_is_not_who_it_should_be(behind_tls, tmp_path, authority, partner, what):
    signer = Authority(tmp_path / "other") if what == "authority" else authority
    name = "other.test" if what == "name" else "backend.test"
    gateway = behind_tls(signer.leaf(name, days=-1 if what == "expired" else 30))
    got = plain_get(gateway, partner)
    assert (got.status, json.loads(got.body)["code"]) == (502, "upstream_unavailable")
    assert gateway.line_of(got)["end"] == "backend/tls"
    assert gateway.wait_event("upstream_tls_failed")[0]["cause"]
    assert gateway.metrics()("proofgw_upstream_tls_failures_total", env="production") == 1
