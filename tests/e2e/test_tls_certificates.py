"""Certificates, authorities and ticket keys on disk, and what becomes of them while the gateway serves.

Goal: a new pair is taken over by itself, however it is put there, and drops nobody; a bad one changes nothing and says
why; sessions survive; operators are warned in time.
Method: files are replaced as certbot, Kubernetes and careless scripts do it; connections look at what is shown.
"""

import signal
import ssl
import threading
import time

import pytest

from support.certificate_files import BAD, NAMES, bad_pairs, complaint, shown, wait_shown
from support.certs import Authority, replace_file
from support.control import ask
from support.expect import is_passed
from support.gateway import HOST, SANDBOX_HOST
from support.redis import free_port
from support.tls import connect, refused, tls_listener, trusting
from support.wait import wait_for

pytest_plugins = ["support.tls"]


@pytest.fixture
def pair(authority):
    return authority.leaf(*NAMES)


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


def test_a_certificate_that_expires_holds_nothing_up(https, authority):
    """It stays in force until it is renewed, and neither another one's renewal nor a reload waits for that."""
    expires, other = authority.leaf(HOST, days=10 / 86400), authority.leaf(SANDBOX_HOST)
    gateway = https([expires, other], admin={"control_socket": "control.sock"})
    wait_for(lambda: time.time() > expires.not_after, "the expiry", 15)
    renewed = authority.leaf(SANDBOX_HOST)
    other.become(renewed)
    wait_for(lambda: connect(gateway, SANDBOX_HOST).certificate == renewed.der, gateway.ops_text)
    complaint(gateway, "certificate_warning", "has expired", expires.chain)
    assert not gateway.events("certificates_refused")
    gateway.reload(tls={"minimum": 1.3, "certificates": [expires.config, other.config]})
    listed = ask(gateway.folder / "control.sock", "/status")[1]["certificates"]
    assert [(c["names"], c["expired"]) for c in listed] == [(HOST, True), (SANDBOX_HOST, False)]
    expires.become(authority.leaf(HOST, days=-1))  # another one that has expired is no better
    assert "expired" in gateway.wait_event("certificates_refused")[0]["cause"]


def test_a_new_pair_leaves_the_log_level_alone(https, authority, pair):
    """It is "until the next reload", and this is none."""
    gateway = https([pair], admin={"control_socket": "control.sock"})
    assert ask(gateway.folder / "control.sock", "/log-level?level=error", "POST") == (200, {"level": "error"})
    new = authority.leaf(*NAMES)
    pair.become(new)
    wait_shown(gateway, new)
    gateway.wait_metric("proofgw_tls_certificate_reloads_total", 1)
    assert not gateway.events("certificates_replaced")


def test_a_new_pair_is_no_new_configuration(https, authority, pair):
    """Its number counts reloads."""
    gateway = https([pair], reload_on_change=False)
    for n in (1, 2):
        new = authority.leaf(*NAMES)
        keep_secret(gateway, new)
        pair.become(new)
        gateway.wait_event("certificates_replaced", n)
    assert gateway.metrics()["proofgw_config_generation"] == 1
    assert gateway.reload() == 2
    assert gateway.wait_event("config_reloaded")[0]["generation"] == "2"


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

BAD_KEYS = ["another key", "half a key", "an encrypted key", "a key for everybody"]


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
