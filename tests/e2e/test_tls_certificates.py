"""Certificates, authorities and ticket keys on disk, and what becomes of them while the gateway serves.

Goal: a new pair is taken over by itself, however it is put there, and drops nobody; a bad one changes nothing and says
why; sessions survive; operators are warned in time.
Method: files are replaced as certbot, Kubernetes and careless scripts do it; connections look at what is shown.
"""

import os
import signal
import ssl
import subprocess
import threading

import pytest

from support.certs import Authority, key_pem, new_key, replace_file, ticket_key
from support.control import ask
from support.expect import is_passed
from support.gateway import BINARY, HOST, SANDBOX_HOST, default_config, merge, to_yaml
from support.redis import free_port
from support.tls import connect, refused, session_bytes, tls_listener, trusting
from support.wait import DEADLINE_S, wait_for

pytest_plugins = ["support.tls"]

NAMES = (HOST, SANDBOX_HOST)
EXPIRY = "proofgw_tls_cert_not_after_timestamp_seconds"


@pytest.fixture
def pair(authority):
    return authority.leaf(*NAMES)


def shown(gateway):
    client = connect(gateway)
    certificate = client.certificate
    client.reset()
    return certificate


def wait_shown(gateway, pair):
    wait_for(lambda: shown(gateway) == pair.der, gateway.ops_text)


def complaint(gateway, *texts, known=0):
    """Waits for a line of the log, after the first `known` ones, in which all of these texts are."""
    return wait_for(
        lambda: [e for e in gateway.events()[known:] if all(str(t) in " ".join(map(str, e.values())) for t in texts)],
        lambda: f"{texts}:\n{gateway.ops_text()}",
    )[0]


def keep_secret(gateway, *pairs):
    """No line of a key may be in anything that the gateway writes."""
    for p in pairs:
        gateway.secrets += [line for line in p.key.read_text().splitlines() if len(line) > 30 and "-" not in line]


# --- swapping ----------------------------------------------------------------------------------------------------


def by_renaming(pair, new):
    pair.become(new)


def by_overwriting(pair, new):
    pair.key.write_bytes(new.key.read_bytes())
    pair.chain.write_bytes(new.chain.read_bytes())


def chain_first(pair, new):
    """Between the two the key does not fit."""
    replace_file(pair.chain, new.chain.read_bytes(), 0o644)
    replace_file(pair.key, new.key.read_bytes())


def by_removing(pair, new):
    pair.key.unlink(), pair.chain.unlink()
    pair.key.touch(0o600)
    by_overwriting(pair, new)


@pytest.mark.parametrize("swap", [by_renaming, by_overwriting, chain_first, by_removing])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_new_pair_is_taken_over(https, backend, partner, authority, pair, swap, workers):
    gateway = https([pair], workers=workers)
    old, new = connect(gateway), authority.leaf(*NAMES)
    is_passed(old.exchange(fields=partner.authorization))
    keep_secret(gateway, pair, new)
    swap(pair, new)
    for _ in range(2 * workers):  # each worker
        wait_shown(gateway, new)
    is_passed(connect(gateway).exchange(fields=partner.authorization))
    is_passed(old.exchange(fields=partner.authorization))
    assert gateway.metrics()["proofgw_connections_open"] >= 1


def test_a_new_pair_leaves_the_log_level_alone(https, authority, pair):
    """It is "until the next reload", and this is none."""
    gateway = https([pair], admin={"control_socket": "control.sock"})
    assert ask(gateway.folder / "control.sock", "/log-level?level=error", "POST") == (200, {"level": "error"})
    new = authority.leaf(*NAMES)
    pair.become(new)
    wait_shown(gateway, new)
    gateway.wait_metric("proofgw_tls_certificate_reloads_total", 1)
    assert not gateway.events("certificates_replaced")


def test_links_of_certbot(https, backend, partner, authority, tmp_path):
    """live/fullchain.pem -> ../archive/fullchain1.pem"""
    live, archive = tmp_path / "live", tmp_path / "archive"
    live.mkdir(), archive.mkdir()

    def put(n, pair):
        for name, file in (("fullchain", pair.chain), ("privkey", pair.key)):
            target = archive / f"{name}{n}.pem"
            target.touch(0o600)
            target.write_bytes(file.read_bytes())
            link = live / f"{name}.new"
            link.symlink_to(f"../archive/{name}{n}.pem")
            link.rename(live / f"{name}.pem")

    first, second = authority.leaf(*NAMES), authority.leaf(*NAMES)
    put(1, first)
    links = type(first)(live / "fullchain.pem", live / "privkey.pem", first.certificate, first.private)
    gateway = https([links])
    assert shown(gateway) == first.der
    put(2, second)
    wait_shown(gateway, second)


def test_links_of_kubernetes(https, backend, partner, authority, tmp_path):
    """tls.crt -> ..data/tls.crt, ..data -> ..2026; only ..data is replaced."""
    volume = tmp_path / "volume"
    volume.mkdir()

    def put(n, pair):
        folder = volume / f"..{n}"
        folder.mkdir()
        (folder / "tls.crt").write_bytes(pair.chain.read_bytes())
        (folder / "tls.key").touch(0o600)
        (folder / "tls.key").write_bytes(pair.key.read_bytes())
        (volume / "..new").symlink_to(folder.name)
        (volume / "..new").rename(volume / "..data")

    first, second = authority.leaf(*NAMES), authority.leaf(*NAMES)
    put(1, first)
    (volume / "tls.crt").symlink_to("..data/tls.crt")
    (volume / "tls.key").symlink_to("..data/tls.key")
    gateway = https([type(first)(volume / "tls.crt", volume / "tls.key", first.certificate, first.private)])
    assert shown(gateway) == first.der
    put(2, second)
    wait_shown(gateway, second)


def test_swaps_under_load(https, demo, partner, authority, pair):
    """New connections and kept ones: nobody is refused and nothing is lost while the pair is swapped 10 times."""
    gateway = https([pair], upstream=demo.address, workers=2)
    ending, failures, done = threading.Event(), [], []

    def run(keep):
        client = None
        while not ending.is_set():
            try:
                client = client or connect(gateway)
                is_passed_status(client.exchange(fields=partner.authorization))
                done.append(1)
                if not keep:
                    client.reset()
                    gateway.clients.remove(client)
                    client = None
            except Exception as failure:  # whatever it is, it is a failure
                failures.append(repr(failure))
                return

    threads = [threading.Thread(target=run, args=(keep,)) for keep in (True, True, False, False)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            new = authority.leaf(*NAMES)
            pair.become(new)
            wait_shown(gateway, new)
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert len(done) > 100


def is_passed_status(answer):
    assert answer.status == 200, answer.raw_head


# --- bad ones ----------------------------------------------------------------------------------------------------


def half(content):
    return content[: len(content) // 2]


def bad_pairs(authority):
    """What -> (a function that spoils the pair on disk, a text that the log must have)."""
    new = authority.leaf(*NAMES)
    return {
        "another key": (lambda p: replace_file(p.key, key_pem(new_key())), "does not belong to the certificate"),
        "expired": (lambda p: p.become(authority.leaf(*NAMES, days=-1)), "expired"),
        "not valid yet": (lambda p: p.become(authority.leaf(*NAMES, not_before_days=1)), "not valid before"),
        "no PEM": (lambda p: replace_file(p.chain, b"nonsense\n"), "no certificate"),
        "empty": (lambda p: replace_file(p.chain, b""), ""),
        "half a certificate": (lambda p: replace_file(p.chain, half(new.chain.read_bytes())), ""),
        "half a key": (lambda p: replace_file(p.key, half(new.key.read_bytes())), ""),
        "certificate without its key": (lambda p: replace_file(p.chain, new.chain.read_bytes()), "does not belong"),
        "an encrypted key": (lambda p: replace_file(p.key, key_pem(p.private, b"secret")), "encrypted"),
        "a key for everybody": (lambda p: p.key.chmod(0o644), ""),
        "a weak key": (lambda p: p.become(authority.leaf(*NAMES, key="rsa1024")), "too weak"),
        "for clients": (lambda p: p.become(authority.leaf(*NAMES, client=True)), "not for servers"),
        "no file": (lambda p: p.chain.unlink(), ""),
        "a directory": (lambda p: (p.chain.unlink(), p.chain.mkdir()), ""),
        "a pipe": (lambda p: (p.chain.unlink(), os.mkfifo(p.chain)), ""),
    }


BAD_KEYS = ["another key", "half a key", "an encrypted key", "a key for everybody"]
BAD = [
    "another key", "expired", "not valid yet", "no PEM", "empty", "half a certificate", "half a key",
    "certificate without its key", "an encrypted key", "a key for everybody", "a weak key", "for clients", "no file",
    "a directory", "a pipe",
]  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_pair_changes_nothing(https, backend, partner, authority, pair, what):
    gateway = https([pair])
    old, kept = pair.der, connect(gateway)
    keep_secret(gateway, pair)
    known = len(gateway.events())
    spoil, text = bad_pairs(authority)[what]
    spoil(pair)
    if what == "a key for everybody":
        gateway.signal(signal.SIGHUP)  # a mode is no content: nobody need notice it before the next reload
    blamed = pair.key if what in BAD_KEYS else ""
    complaint(gateway, blamed, text, known=known)
    assert any(str(f) in gateway.ops_text() for f in (pair.chain, pair.key))
    assert shown(gateway) == old
    is_passed(kept.exchange(fields=partner.authorization))
    if what in ("a directory", "a pipe"):
        pair.chain.rmdir() if pair.chain.is_dir() else pair.chain.unlink()
    new = authority.leaf(*NAMES)
    pair.become(new)
    wait_shown(gateway, new)


def test_one_of_several_is_bad(https, backend, authority):
    """What is in force stays for both names; as soon as all are good, all are taken over."""
    first, second = authority.leaf(HOST), authority.leaf(SANDBOX_HOST)
    gateway = https([first, second])
    before = second.der
    replace_file(second.chain, b"nonsense\n")
    complaint(gateway, second.chain)
    assert connect(gateway, name=SANDBOX_HOST).certificate == before
    second.become(authority.leaf(SANDBOX_HOST))
    new = authority.leaf(HOST)
    first.become(new)
    wait_shown(gateway, new)


def test_certificates_can_be_added_and_removed(https, backend, partner, authority):
    first, second = authority.leaf(HOST), authority.leaf(SANDBOX_HOST)
    gateway = https([first], reload_on_change=False)
    assert refused(gateway, name=SANDBOX_HOST) == "TLSV1_UNRECOGNIZED_NAME"
    kept = connect(gateway)
    gateway.reload(tls={"certificates": [first.config, second.config]})
    assert connect(gateway, name=SANDBOX_HOST).certificate == second.der
    gateway.reload(tls={"certificates": [second.config]})
    assert refused(gateway) == "TLSV1_UNRECOGNIZED_NAME"
    is_passed(kept.exchange(fields=partner.authorization))


def test_what_is_asked_of_clients_follows_a_reload(https, backend, partner, authority):
    """The files stay the same: what is made of them does not."""
    gateway = https(reload_on_change=False)
    assert refused(gateway, name="other.test") == "TLSV1_UNRECOGNIZED_NAME"
    gateway.reload(tls={"unknown_names": "first"})
    context = trusting(authority)
    context.check_hostname = False
    connect(gateway, name="other.test", context=context)
    ask = {"client_ca_file": str(authority.file)}
    gateway.reload(listeners=[tls_listener(client_certificates="optional", **ask)])
    is_passed(connect(gateway).exchange(fields=partner.authorization))
    gateway.reload(listeners=[tls_listener(client_certificates="required", **ask)])
    assert "CERTIFICATE_REQUIRED" in refused(gateway)


def test_tls_can_be_switched_on_by_a_reload(https, backend, partner, pair):
    address = f"127.0.0.1:{free_port()}"
    gateway = https([pair], listeners=[{"address": address}], reload_on_change=False)
    kept = gateway.client()
    is_passed(kept.exchange(fields=partner.authorization))
    gateway.reload(listeners=[tls_listener(address=address)])
    is_passed(connect(gateway).exchange(fields=partner.authorization))
    is_passed(kept.exchange(fields=partner.authorization))
    gateway.reload(listeners=[{"address": address}])
    is_passed(gateway.client().exchange(fields=partner.authorization))


def test_authorities_of_clients_are_watched(https, backend, partner, authority, tmp_path):
    one, other = Authority(tmp_path / "one", "one"), Authority(tmp_path / "other", "other")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(one.file.read_bytes())
    gateway = https(listener={"client_certificates": "required", "client_ca_file": str(trusted)})
    context = trusting(authority, pair=other.leaf("acme", client=True))
    assert "UNKNOWN_CA" in refused(gateway, context=context)
    replace_file(trusted, other.file.read_bytes())

    def is_let_in():
        try:
            is_passed(connect(gateway, context=context).exchange(fields=partner.authorization))
            return True
        except ssl.SSLError:
            return False

    wait_for(is_let_in, gateway.ops_text)
    assert "UNKNOWN_CA" in refused(gateway, context=trusting(authority, pair=one.leaf("acme", client=True)))


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
