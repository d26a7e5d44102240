"""Certificates at the start and in `proofgw check`, what is measured of them, and sessions across renewals."""

import ssl
import subprocess

import pytest

from support.certificate_files import BAD, NAMES, bad_pairs, complaint, wait_shown
from support.certs import replace_file, ticket_key
from support.expect import is_passed
from support.gateway import BINARY, HOST, default_config, merge, to_yaml
from support.tls import connect, session_bytes, tls_listener, trusting
from support.wait import DEADLINE_S, wait_for

pytest_plugins = ["support.tls"]

EXPIRY = "proofgw_tls_cert_not_after_timestamp_seconds"


@pytest.fixture
def pair(authority):
    return authority.leaf(*NAMES)


# --- the start, check, and what is measured ----------------------------------------------------------------------


def check(tmp_path, pair, **changes):
    file = tmp_path / "check.yaml"
    tls = {"listeners": [tls_listener()], "tls": {"certificates": [pair.config]}}
    file.write_text(to_yaml(merge(merge(default_config("127.0.0.1:9"), tls), changes)) + "\n")
    (tmp_path / "partners.ndjson").touch()
    done = subprocess.run([str(BINARY), "check", str(file)], capture_output=True, text=True, timeout=DEADLINE_S)
    return done.returncode, done.stdout + done.stderr


def test_check_of_a_good_pair(tmp_path, authority):
    code, text = check(tmp_path, authority.intermediate().leaf(*NAMES))
    assert code == 0 and "warning" not in text, text


@pytest.mark.parametrize("what", [w for w in BAD if w != "a pipe"])
def test_check_says_what_is_wrong(tmp_path, authority, pair, what):
    spoil, text = bad_pairs(authority)[what]
    spoil(pair)
    code, told = check(tmp_path, pair)
    assert code == 1 and text in told, told
    assert str(pair.chain) in told or str(pair.key) in told
    done = subprocess.run(
        [str(BINARY), "run", "-c", str(tmp_path / "check.yaml")], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 1, done


@pytest.mark.parametrize("days, warns", [(13, True), (15, False)])
def test_check_warns_fourteen_days_ahead(tmp_path, authority, days, warns):
    pair = authority.intermediate().leaf(*NAMES, days=days)
    code, text = check(tmp_path, pair)
    assert code == 0
    assert ("warning" in text and "expires in 1" in text and str(pair.chain) in text) == warns, text


def test_check_warns_once_however_many_listeners(tmp_path, authority):
    pair = authority.intermediate().leaf(*NAMES, days=13)
    authorities = {"client_certificates": "optional", "client_ca_file": str(authority.file)}
    code, text = check(tmp_path, pair, listeners=[tls_listener(), tls_listener() | authorities])
    assert code == 0 and text.count("warning") == 1, text


def test_check_warns_of_a_missing_intermediate(tmp_path, authority):
    code, text = check(tmp_path, authority.intermediate().leaf(*NAMES, full_chain=False))
    assert code == 0 and "warning" in text and "intermediate" in text, text


def test_check_of_a_chain_in_the_wrong_order(tmp_path, authority):
    pair = authority.intermediate().leaf(*NAMES)
    leaf, issuer = pair.chain.read_bytes().split(b"-----END CERTIFICATE-----\n")[:2]
    end = b"-----END CERTIFICATE-----\n"
    pair.chain.write_bytes(issuer + end + leaf + end)
    code, text = check(tmp_path, pair)
    assert code == 1, text


@pytest.mark.parametrize("content", ["", "zz" * 80, "00" * 79, "\n".join("%0160x" % n for n in range(5))])
def test_check_of_ticket_keys(tmp_path, pair, content):
    keys = tmp_path / "tickets"
    keys.touch(0o600)
    keys.write_text(content + "\n", encoding="utf-8")
    code, text = check(tmp_path, pair, tls={"certificates": [pair.config], "ticket_keys_file": str(keys)})
    assert code == 1 and str(keys) in text, text
    assert not content or content.split("\n")[0] not in text


def test_check_of_the_other_files(tmp_path, authority, pair):
    """Authorities of clients, and what is used towards the backend."""
    missing = str(tmp_path / "missing.pem")
    listener = tls_listener(client_certificates="required", client_ca_file=missing)
    code, text = check(tmp_path, pair, listeners=[listener])
    assert code == 1 and missing in text, text
    upstream = {"production": {"upstream_tls": {"enabled": True, "ca_file": missing}}}
    code, text = check(tmp_path, pair, environments=upstream)
    assert code == 1 and missing in text, text


def test_the_expiry_is_a_metric(https, backend, authority, pair):
    gateway = https([pair])
    metrics = gateway.metrics()
    assert abs(metrics(EXPIRY, file=pair.chain) - pair.not_after) < 1.5, metrics.text
    new = authority.leaf(*NAMES, days=60)
    pair.become(new)
    gateway.wait_metric(EXPIRY, lambda v: abs(v - new.not_after) < 1.5, file=pair.chain)


# --- sessions ----------------------------------------------------------------------------------------------------


def resumes(gateway, context, session, partner):
    client = connect(gateway, context=context, session=session)
    is_passed(client.exchange(fields=partner.authorization))
    return client.tls.session_reused


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def context(request, authority):
    return trusting(authority, version=request.param)


def session_of(gateway, context, partner):
    client = connect(gateway, context=context)
    is_passed(client.exchange(fields=partner.authorization))
    assert not client.tls.session_reused
    return client.tls.session


def test_sessions_survive_a_reload(https, backend, partner, authority, pair, context):
    gateway = https([pair], reload_on_change=False, workers=2)
    session = session_of(gateway, context, partner)
    gateway.reload(timeouts={"keep_alive": "50s"})
    assert resumes(gateway, context, session, partner)
    new = authority.leaf(*NAMES)
    pair.become(new)
    wait_shown(gateway, new)
    assert resumes(gateway, context, session, partner)
    metrics = gateway.metrics()
    version = {ssl.TLSVersion.TLSv1_2: "1.2", ssl.TLSVersion.TLSv1_3: "1.3"}[context.minimum_version]
    assert metrics("proofgw_tls_handshakes_total", version=version, resumed="true") == 2


def test_the_log_tells_about_tls(https, backend, partner, pair, context):
    gateway = https([pair])
    session = session_of(gateway, context, partner)
    assert resumes(gateway, context, session, partner)
    first, second = gateway.wait_access(2)
    version = context.minimum_version.name.replace("_", ".")
    assert (first["tls_version"], first["sni"], first["tls_resumed"]) == (version, HOST, False)
    assert second["tls_resumed"] is True and "client_cert_sha256" not in second


def put_keys(file, *keys):
    if not file.exists():
        file.touch(0o600)
        file.write_text("".join(key + "\n" for key in keys), encoding="utf-8")
    else:
        replace_file(file, "".join(key + "\n" for key in keys).encode())


def test_gateways_share_ticket_keys(https, backend, partner, authority, pair, context, tmp_path):
    file, key = tmp_path / "tickets", ticket_key()
    put_keys(file, "# made for a test", key)
    one = https([pair], tls={"ticket_keys_file": str(file)})
    two = https([pair], tls={"ticket_keys_file": str(file)})
    alone = https([pair])
    for gateway in (one, two, alone):
        gateway.secrets += [key, key[32:96], key[96:]]
    session = session_of(one, context, partner)
    assert resumes(two, context, session, partner)
    assert not resumes(alone, context, session, partner)


def test_the_keys_are_replaced(https, backend, partner, authority, pair, context, tmp_path):
    """A new key in front: sessions of the old one still resume. Once it is gone, they do not."""
    file, first, second, third = tmp_path / "tickets", ticket_key(), ticket_key(), ticket_key()
    put_keys(file, first)
    gateway = https([pair], tls={"ticket_keys_file": str(file)})

    def is_sealed_by(key):
        return bytes.fromhex(key[:32]) in session_bytes(gateway, tmp_path / "session")

    assert is_sealed_by(first)
    session = session_of(gateway, context, partner)
    put_keys(file, second, first)
    wait_for(lambda: is_sealed_by(second), gateway.ops_text)
    fresh = session_of(gateway, context, partner)
    assert resumes(gateway, context, session, partner)
    put_keys(file, "nonsense")
    complaint(gateway, file)
    assert "nonsense" not in gateway.ops_text()
    assert resumes(gateway, context, session, partner)
    put_keys(file, third, second)
    wait_for(lambda: is_sealed_by(third), gateway.ops_text)
    assert not resumes(gateway, context, session, partner)
    assert resumes(gateway, context, fresh, partner)
