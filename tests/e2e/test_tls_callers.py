"""Who is calling over TLS: PROXY headers and the shield before the first record, certificates of clients, and certificates
as a second factor of partners.
"""

import contextlib
import ssl

import pytest

from support.certs import Authority
from support.client import request
from support.expect import is_error, is_passed
from support.partners import Partner
from support.proxy_header import v1, v2
from support.tls import TlsClient, connect, refused, tls_listener, trusting
from support.tls_faults import VERSIONS, echo, half_open, open_tunnel, without_tls
from support.websocket import CLOSE, TEXT, read_frame

pytest_plugins = ["support.tls"]


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
