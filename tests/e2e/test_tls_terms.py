"""What clients and the gateway agree on: versions, ciphers, groups, tickets, ALPN, and the certificate that a name gets.
The other side is OpenSSL.
"""

import base64
import re
import ssl
import subprocess

import pytest

from support.client import request
from support.expect import is_error, is_passed
from support.gateway import HOST, SANDBOX_HOST
from support.partners import LOOPBACK, Partner
from support.tls import OPENSSL, connect, refused, s_client, tls_listener, trusting, CIPHERS_1_2, CIPHERS_1_3

pytest_plugins = ["support.tls"]


WEAK = [
    "AES128-GCM-SHA256",  # no forward secrecy
    "ECDHE-ECDSA-AES128-SHA256",  # CBC
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-CCM8",
    "DHE-RSA-AES128-GCM-SHA256",
    "AES128-SHA",
    "NULL",
    "aNULL",
]


@pytest.fixture
def pairs(authority):
    """ECDSA and RSA for the same names, through an intermediate."""
    between = authority.intermediate()
    names = (HOST, SANDBOX_HOST)
    return [between.leaf(*names), between.leaf(*names, key="rsa")]


@pytest.fixture
def simple(https, pairs, backend):
    """Behind it the scripted backend: for what happens before a request."""
    return https(pairs)


# --- openssl s_client --------------------------------------------------------------------------------------------


def is_served(text):
    assert "HTTP/1.1 200 OK" in text and "Verify return code: 0 (ok)" in text, text
    return text


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_what_a_connection_is(simple, version):
    text = is_served(s_client(simple, f"-{version}", "-status", "-alpn", "http/1.1", "-comp"))
    assert "OCSP response: no response sent" in text
    assert "Compression: NONE" in text
    assert "ALPN protocol: http/1.1" in text
    assert "Peer signature type: ECDSA" in text
    assert "Server Temp Key: X25519" in text
    assert "CN = intermediate" in text
    assert "self-signed" not in text and "self signed" not in text


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
@pytest.mark.parametrize("sigalgs, kind", [("ECDSA+SHA256", "ECDSA"), ("RSA-PSS+SHA256", "RSA-PSS"), ("ECDSA+SHA256:RSA-PSS+SHA256", "ECDSA")])
def test_the_key_fits_the_client(simple, version, sigalgs, kind):
    text = s_client(simple, f"-{version}", "-sigalgs", f"{sigalgs}:RSA+SHA256" if kind == "RSA-PSS" else f"{sigalgs}")
    if kind == "ECDSA":
        assert "Peer signature type: ECDSA" in text, text
    else:
        assert "Peer signature type: RSA-PSS" in text or "Peer signature type: RSA" in text, text
    assert "HTTP/1.1 200 OK" in text


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_old_versions_are_refused(simple, version):
    text = s_client(simple, f"-{version}", "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in text and "HTTP/" not in text, text


def test_the_minimum_can_be_raised(https, pairs, backend):
    gateway = https(pairs, tls={"minimum": "1.3"})
    assert "alert protocol version" in s_client(gateway, "-tls1_2")
    is_served(s_client(gateway, "-tls1_3"))


@pytest.mark.parametrize("cipher", WEAK)
def test_weak_ciphers_are_refused(simple, cipher):
    text = s_client(simple, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
    assert "alert handshake failure" in text and "HTTP/" not in text, text


@pytest.mark.parametrize("group", ["P-521", "ffdhe2048", "X448"])
def test_groups_that_are_not_offered(simple, group):
    text = s_client(simple, "-tls1_3", "-groups", group)
    assert "alert handshake failure" in text, text


@pytest.mark.parametrize("group", ["P-256", "P-384", "X25519", "P-521:P-256"])
def test_groups_that_are(simple, group):
    is_served(s_client(simple, "-tls1_3", "-groups", group))
    is_served(s_client(simple, "-tls1_2", "-groups", group))


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_a_session_resumes(simple, tmp_path, version):
    session, options = tmp_path / "session", (f"-{version}",)
    first = is_served(s_client(simple, *options, "-sess_out", session))
    assert "New, TLSv1." in first and session.stat().st_size
    for _ in range(3):  # also with the ticket that a resumption brings
        again = is_served(s_client(simple, *options, "-sess_in", session, "-sess_out", session))
        assert "Reused, TLSv1." in again, again


def test_one_ticket_and_no_early_data(simple, tmp_path):
    session, early = tmp_path / "session", tmp_path / "early"
    text = is_served(s_client(simple, "-tls1_3", "-sess_out", session))
    assert text.count("Post-Handshake New Session Ticket arrived") == 1
    assert "Max Early Data: 0" in text
    early.write_bytes(request())
    again = is_served(s_client(simple, "-tls1_3", "-sess_in", session, "-early_data", early))
    assert "Early data was not sent" in again and "Reused" in again, again
    assert again.count("HTTP/1.1 ") == 1


def der(tag, content):
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def der_elements(data):
    """(tag, content) of each element, in order."""
    elements = []
    while data:
        tag, size, at = data[0], data[1], 2
        if size & 0x80:
            at += size & 0x7F
            size = int.from_bytes(data[2:at], "big")
        elements.append((tag, data[at : at + size]))
        data = data[at + size :]
    return elements


def test_early_data_of_a_client_that_was_told_not_to(simple, tmp_path):
    """The session is changed to say that early data is welcome: it is skipped, and nothing of it is acted upon."""
    session, early = tmp_path / "session", tmp_path / "early"
    is_served(s_client(simple, "-tls1_3", "-sess_out", session))
    text = session.read_text()
    ((_, content),) = der_elements(base64.b64decode("".join(text.splitlines()[1:-1])))
    elements = [(tag, c) for tag, c in der_elements(content) if tag != 0xAF] + [(0xAF, b"\x02\x02\x40\x00")]
    changed = der(0x30, b"".join(der(tag, c) for tag, c in sorted(elements, key=lambda e: e[0] if e[0] >= 0xA0 else 0)))
    pem = base64.encodebytes(changed).decode()
    session.write_text(f"{text.splitlines()[0]}\n{pem}{text.splitlines()[-1]}\n")
    early.write_bytes(request(target="/widget/early", fields=simple.partners[0].authorization))
    again = is_served(s_client(simple, "-tls1_3", "-sess_in", session, "-early_data", early))
    assert "Early data was rejected" in again, again
    assert "/widget/early" not in {line["path"] for line in simple.wait_access(2)}


def test_reconnects_in_1_2(simple):
    text = s_client(simple, "-tls1_2", "-reconnect")
    assert text.count("Reused, TLSv1.2") == 5, text


def test_no_session_by_id(simple):
    """Without tickets there is no resumption: no worker keeps sessions."""
    text = s_client(simple, "-tls1_2", "-no_ticket", "-reconnect")
    assert "Reused" not in text and text.count("New, TLSv1.2") == 6, text


def test_renegotiation_is_refused(simple):
    text = s_client(simple, "-tls1_2", data=b"R\n")
    assert "RENEGOTIATING" in text and "no renegotiation" in text, text
    assert "Secure Renegotiation IS supported" in text


def test_key_updates(simple):
    """K changes our key and asks for the gateway's to change as well. The connection goes on."""
    command = [OPENSSL, "s_client", "-connect", f"127.0.0.1:{simple.port}", "-servername", HOST, "-tls1_3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:

        def say(data, until):
            client.stdin.write(data)
            client.stdin.flush()
            seen = b""
            while until not in seen:
                data = client.stdout.read1()
                assert data, seen
                seen += data

        one = request(fields=simple.partners[0].authorization)
        say(one, b"ok")
        for _ in range(3):
            say(b"K\n", b"KEYUPDATE")
            say(one, b"ok")
        say(one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"closed")


# --- ALPN --------------------------------------------------------------------------------------------------------


OFFERS = [
    (None, None),
    (["http/1.1"], "http/1.1"),
    (["h2", "http/1.1"], "http/1.1"),
    (["http/1.0"], "http/1.0"),
    (["http/1.0", "http/1.1"], "http/1.1"),
]


@pytest.mark.parametrize("offered, chosen", OFFERS)
def test_alpn(simple, authority, partner, offered, chosen):
    client = connect(simple, context=trusting(authority, alpn=offered))
    assert client.tls.selected_alpn_protocol() == chosen
    is_passed(client.exchange(fields=partner.authorization))
    assert is_passed(client.exchange(fields=partner.authorization, version="1.0"))["connection"] == "close"
    client.expect_close()


@pytest.mark.parametrize("offered", ["h2", "h2,spdy/3.1", "HTTP/1.1", "http/0.9"])
def test_alpn_without_ours_is_refused(simple, offered):
    assert "alert no application protocol" in s_client(simple, "-alpn", offered)


# --- SNI ---------------------------------------------------------------------------------------------------------

UNKNOWN = "TLSV1_UNRECOGNIZED_NAME"


@pytest.fixture
def named(authority):
    """First, by its very name, by a wildcard, and the very name of something that the wildcard has as well."""
    return {
        "first": authority.leaf(HOST),
        "second": authority.leaf(SANDBOX_HOST, "also.test"),
        "wildcard": authority.leaf("*.wild.test"),
        "exact": authority.leaf("exact.wild.test"),
    }


def shown(gateway, name, version=None):
    context = trusting(gateway.authority, version=version)
    context.check_hostname = False
    return connect(gateway, name=name, context=context).certificate


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_name_chooses(https, named, version):
    gateway = https(list(named.values()))
    expected = {
        HOST: "first",
        HOST.upper(): "first",
        SANDBOX_HOST: "second",
        "also.test": "second",
        "a.wild.test": "wildcard",
        "exact.wild.test": "exact",
        None: "first",
        "127.0.0.1": "first",  # clients send no SNI for addresses
    }
    for name, which in expected.items():
        assert shown(gateway, name, version) == named[which].der, name


@pytest.mark.parametrize("name", ["other.test", "wild.test", "a.b.wild.test", "x" + HOST, "test"])
def test_unknown_names(https, named, name, authority):
    gateway = https(list(named.values()))
    assert refused(gateway, name=name) == UNKNOWN
    lenient = https(list(named.values()), tls={"unknown_names": "first"})
    assert shown(lenient, name) == named["first"].der


def test_a_host_of_another_certificate(https, backend, authority):
    """What was asked for in the handshake is what the connection is for: a host that has another certificate is not found
    on it. Hosts of the same certificate share connections."""
    partner = Partner(sandbox=LOOPBACK)
    gateway = https([authority.leaf(HOST), authority.leaf(SANDBOX_HOST)], partners=[partner])
    for name in (HOST, None):
        context = trusting(authority)
        context.check_hostname = False
        client = connect(gateway, name=name, context=context)
        is_passed(client.exchange(fields=partner.authorization))
        got = client.exchange(host=SANDBOX_HOST, fields=partner.authorization)
        is_error(got, "not_found")
        assert gateway.line_of(got)["deny"] == "other_certificate"
        is_passed(client.exchange(fields=partner.authorization))
    assert {r["host"] for r in backend.requests} == {HOST}
    one = https([authority.leaf(HOST, SANDBOX_HOST)], partners=[partner])
    client = connect(one)
    for host in (HOST, SANDBOX_HOST, HOST.upper(), f"{HOST}:443"):
        is_passed(client.exchange(host=host, fields=partner.authorization))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_hosts_of_resumed_connections(https, backend, authority, version):
    """A session that is resumed for another name (RFC 6066 section 3 forbids it; OpenSSL lets it pass in TLS 1.2, with the
    name of the session) still serves the host of one certificate only."""
    partner = Partner(sandbox=LOOPBACK)
    gateway = https([authority.leaf(HOST), authority.leaf(SANDBOX_HOST)], partners=[partner])
    context = trusting(authority, version=version)
    first = connect(gateway, context=context)
    is_passed(first.exchange(fields=partner.authorization))
    for name in (HOST, SANDBOX_HOST):
        again = connect(gateway, name=name, context=context, session=first.tls.session)
        answers = [again.exchange(host=host, fields=partner.authorization).status for host in (HOST, SANDBOX_HOST)]
        assert sorted(answers) == [200, 404], (name, answers)


def test_listeners_with_and_without_tls(https, backend, partner):
    gateway = https(listeners=[tls_listener(), {"address": "127.0.0.1:0"}])
    is_passed(connect(gateway).exchange(fields=partner.authorization))
    is_passed(gateway.client(("127.0.0.1", gateway.ports[1])).exchange(fields=partner.authorization))


def test_the_sandbox_over_tls(https, backend):
    partner = Partner(sandbox=LOOPBACK)
    gateway = https(partners=[partner])
    is_passed(connect(gateway, name=SANDBOX_HOST).exchange(host=SANDBOX_HOST, fields=partner.authorization))
    is_error(connect(gateway).exchange(host="elsewhere.test", fields=partner.authorization), "not_found")


def test_what_the_backend_is_told(https, backend, partner):
    gateway = https()
    is_passed(connect(gateway).exchange(fields="X-Forwarded-Proto: gopher\r\n" + partner.authorization))
    assert backend.last.fields.all("x-forwarded-proto") == ["https"]


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_the_log_and_the_metrics_tell(https, backend, partner, pairs, version):
    gateway = https(pairs)
    context = trusting(gateway.authority, version=ssl.TLSVersion[version.replace(".", "_")])
    line = gateway.line_of(is_passed(connect(gateway, context=context).exchange(fields=partner.authorization)))
    assert (line["tls_version"], line["tls_resumed"], line["sni"]) == (version, False, HOST)
    assert line["tls_cipher"] in CIPHERS_1_3 + CIPHERS_1_2 and "client_cert_sha256" not in line
    assert refused(gateway, name="other.test") == UNKNOWN
    metrics = gateway.wait_metric("proofgw_tls_handshake_failures_total", 1, reason="unknown_name")  # after its alert
    assert metrics("proofgw_tls_handshakes_total", version=version[4:], resumed="false") == 1
    gateway.wait_metric("proofgw_tls_handshakes_active", 0)


def test_tickets_have_no_secrets_in_the_clear(simple, tmp_path):
    """The ticket is opaque: the session's secret is not in it."""
    session = tmp_path / "session"
    text = is_served(s_client(simple, "-tls1_3", "-sess_out", session))
    secret = re.search(r"Resumption PSK: ([0-9A-F]{64,})", text)[1]
    ticket = "".join(re.findall(r"^ +[0-9a-f]{4} - ((?:[0-9a-f]{2}[ -]){16})", text, re.M)).replace(" ", "").replace("-", "")
    assert ticket and secret.lower() not in ticket
