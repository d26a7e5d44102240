"""Redis and Sentinel behind TLS.

Goal: changes are followed over TLS; a server that is not who it should be is never logged in to, and named as such; what
is renewed on disk needs no restart.
Method: a real redis-server with certificates made at run time.
"""

import pytest

from support.certs import Authority
from support.expect import is_error, is_passed
from support.following import ask, becomes, drop_connections, wait_away
from support.partners import Partner
from support.redis import REDIS_SERVER, Sentinel
from support.wait import wait_for

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="needs redis-server (a Debian package)")
pytest_plugins = ["support.following"]

HERE = ("localhost", "127.0.0.1")  # the names of a good certificate


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "certificates")


def tls(authority, **changes):
    keys = {"enabled": True, "ca_file": str(authority.file), **changes}
    return {key: str(value) if key.endswith("_file") else value for key, value in keys.items()}


def wait_tls_away(gateway, cause=""):
    event = wait_for(
        lambda: [e for e in gateway.events("store_away") if e["reason"] == "tls" and cause in e["cause"]],
        gateway.ops_text,
    )[-1]
    assert gateway.metrics()("proofgw_store_away_total", reason="tls") >= 1
    return event


def never_logged_in(redis):
    assert "gateway" not in redis.admin("CLIENT", "LIST"), "the password went to a server that nobody has verified"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_changes_are_followed(following, redis, authority, host):
    partner, late = Partner("acme"), Partner("late")
    redis.put(partner)
    port = redis.open_tls_port(authority, *authority.leaf(*HERE).files)
    gateway = following([partner, late], redis_keys={"address": f"{host}:{port}", "tls": tls(authority)})
    redis.put(late)
    becomes(gateway, late, 200)
    wait_for(lambda: [r for r in redis.reports().values() if r["seq"] == 2], redis.reports)
    redis.remove(partner)
    becomes(gateway, partner, 401)
    gateway.finish()
    wait_for(lambda: not redis.reports(), "the report to be taken back")


def test_a_large_load(following, redis, authority):
    partners = [Partner(f"p{i}") for i in range(2000)]
    redis.put(*partners)
    port = redis.open_tls_port(authority, *authority.leaf(*HERE).files)
    gateway = following(partners[:1], redis_keys={"address": f"localhost:{port}", "tls": tls(authority)})
    assert gateway.metrics()["proofgw_policy_partners"] == 2000
    assert all(ask(gateway, p).status == 200 for p in partners[::200])


def test_a_name_of_its_own(following, redis, authority):
    partner = Partner("acme")
    redis.put(partner)
    port = redis.open_tls_port(authority, *authority.leaf("redis.internal").files)
    keys = {"address": f"127.0.0.1:{port}", "tls": tls(authority, server_name="redis.internal")}
    is_passed(ask(following([partner], redis_keys=keys), partner))


WRONG = {
    "another authority": (HERE, {}),
    "another name": (("other.example", "127.0.0.2"), {}),
    "the name only as the common name": (("other.example",), {"common_name": "localhost"}),
    "expired": (HERE, {"days": -1}),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_server_that_is_not_who_it_should_be(following, redis, authority, tmp_path, what):
    partner = Partner("acme")
    redis.put(partner)
    signer = Authority(tmp_path / "others", "other") if what == "another authority" else authority
    names, options = WRONG[what]
    port = redis.open_tls_port(authority, *signer.leaf(*names, **options).files)
    gateway = following([partner], redis_keys={"address": f"localhost:{port}", "tls": tls(authority)}, ready=False)
    assert wait_tls_away(gateway)["cause"].startswith("TLS: ")
    never_logged_in(redis)
    is_error(ask(gateway, partner), "unavailable")
    redis.use_certificate(*authority.leaf(*HERE).files)
    becomes(gateway, partner, 200, seconds=20)


def test_a_server_that_does_not_speak_tls(following, redis, authority):
    partner = Partner("acme")
    redis.put(partner)
    address = f"127.0.0.1:{redis.open_port()}"
    gateway = following([partner], redis_keys={"address": address, "tls": tls(authority)}, ready=False)
    wait_away(gateway, "no TLS handshake")  # it waits for the end of a line
    never_logged_in(redis)


def test_the_client_shows_a_certificate(following, redis, authority):
    partner = Partner("acme")
    redis.put(partner)
    port = redis.open_tls_port(authority, *authority.leaf(*HERE).files, clients="yes")
    certificate, key = authority.leaf("gateway", client=True).files
    own = {"certificate_file": certificate, "key_file": key}
    without = {"address": f"localhost:{port}", "tls": tls(authority)}
    gateway = following([partner], redis_keys=without, ready=False)
    wait_tls_away(gateway)
    gateway.finish()
    gateway = following([partner], redis_keys={**without, "tls": tls(authority, **own)})
    is_passed(ask(gateway, partner))


def test_files_are_read_at_each_connect(following, redis, authority, tmp_path):
    partner, late = Partner("acme"), Partner("late")
    redis.put(partner)
    port = redis.open_tls_port(authority, *authority.leaf(*HERE).files)
    trusted = tmp_path / "trusted.pem"
    keys = {"address": f"localhost:{port}", "tls": tls(authority, ca_file=trusted)}
    gateway = following([partner, late], redis_keys=keys, ready=False)
    assert str(trusted) in wait_tls_away(gateway)["cause"]
    trusted.write_bytes(authority.file.read_bytes())
    becomes(gateway, partner, 200, seconds=20)
    renewed = Authority(tmp_path / "renewed", "renewed")
    trusted.write_bytes(trusted.read_bytes() + renewed.file.read_bytes())
    redis.use_certificate(*renewed.leaf(*HERE).files)
    drop_connections(redis)
    redis.put(late)
    becomes(gateway, late, 200, seconds=20)


def test_a_key_that_everybody_may_read(following, redis, authority):
    port = redis.open_tls_port(authority, *authority.leaf(*HERE).files)
    certificate, key = authority.leaf("gateway", client=True).files
    key.chmod(0o644)
    keys = {"address": f"localhost:{port}", "tls": tls(authority, certificate_file=certificate, key_file=key)}
    gateway = following([], redis_keys=keys, ready=False)
    wait_tls_away(gateway, str(key))
    never_logged_in(redis)


def test_the_sentinel_and_the_master_it_names(following, redis, authority, tmp_path):
    partner, late = Partner("acme"), Partner("late")
    redis.put(partner)
    leaf = authority.leaf(*HERE).files
    redis.port = redis.open_tls_port(authority, *leaf)
    sentinel = Sentinel(tmp_path / "sentinel", redis, replicas=0, tls=(authority, *leaf))
    try:
        keys = {**sentinel.config(), "tls": tls(authority)}
        gateway = following([partner, late], redis_keys=keys)
        gateway.secrets += sentinel.passwords.values()
        is_passed(ask(gateway, partner))
        redis.put(late)
        becomes(gateway, late, 200)
        gateway.finish()
        keys["tls"]["ca_file"] = str(Authority(tmp_path / "others", "other").file)
        gateway = following([partner], redis_keys=keys, ready=False)
        event = wait_away(gateway, "TLS: ")
        assert event["reason"] == "sentinel", event
    finally:
        sentinel.close()
