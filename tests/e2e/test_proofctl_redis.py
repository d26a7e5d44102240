"""proofctl on Redis: what an operator does counts on the gateways, nobody overwrites anybody, and every way in which Redis
can be wrong gets one clear sentence.

Method: real redis-server processes whose users are exactly those that `proofctl acl` prints, TLS with certificates made here,
a real Sentinel, real gateways; several operators at once; records spoilt by hand past the script.
"""

import contextlib
import itertools
import json
import os
import pty
import signal
import socket
import subprocess
import threading
import time

import pytest

from support.expect import is_error, is_passed
from support.following import ask, becomes, drop_connections, echo, expect_policy_close, open_tunnel, wait_following
from support.operator import Answering, Ctl, make_certificates, operating, running
from support.partners import Partner, write_file
from support.proofctl import ENVIRONMENT, PROOFCTL
from support.redis import REDIS_SERVER, Connection, RedisError, Sentinel, free_port
from support.tls import connect, trusting
from support.wait import wait_for
from support.websocket import upgrade

pytest_plugins = ["support.tls"]

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")
CONTACT = ("--contact", "ops@acme.example")


@pytest.fixture
def empty(tmp_path):
    with running(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def redis(empty):
    empty.initialise()
    return empty


@pytest.fixture
def ctl(redis):
    with operating(redis) as ctl:
        yield ctl


@pytest.fixture
def gateway_on(proofgw):
    def make(redis, *partners, **changes):
        gateway = proofgw(partners=list(partners), store=redis.config(), **changes)
        gateway.secrets += redis.passwords.values()
        return gateway

    return make


def partner_of(added, **kwargs):
    """A partner of the harness with what proofctl printed."""
    return Partner(added["partner_id"], token=added["client_token"], widget_id=added["widget_id"], **kwargs)


# --- the whole way


def test_from_an_empty_redis_to_a_revocation_that_cuts_a_live_tunnel(empty, gateway_on, demo):
    ctl = Ctl(empty)
    assert ctl("init").out == f"Redis unix:{empty.socket_path}, tag cfg: ready for partners\n"
    acme, other = partner_of(ctl.add("--id", "acme")), partner_of(ctl.add("--id", "other", company="Other"))
    gateway = gateway_on(empty, acme, other, upstream=demo.address)
    assert [ask(gateway, p).status for p in (acme, other)] == [200, 200]

    rotated = ctl("token", "rotate", "acme", "--grace", "1h", "--json").json
    new = Partner("acme", token=rotated["client_token"])
    gateway.secrets.append(new.token)
    becomes(gateway, new, 200)
    assert ask(gateway, acme).status == 200  # within its grace
    ctl("token", "finish", "acme", "--yes")
    becomes(gateway, acme, 401)

    tunnel, kept = open_tunnel(gateway, new), open_tunnel(gateway, other)
    echo(tunnel), echo(kept)
    committed = time.monotonic()
    ctl("token", "revoke", "acme", "--slot", "current", "--yes")
    expect_policy_close(tunnel)
    assert time.monotonic() - committed < 5  # proofctl, built with sanitizers, included
    is_error(ask(gateway, new), "invalid_token")
    echo(kept)

    actions = [(e["action"], e.get("partner_id")) for e in ctl("audit", "--json").json]
    assert actions == [("init", None), ("partner add", "acme"), ("partner add", "other"), ("token rotate", "acme"),
                       ("token finish", "acme"), ("token revoke", "acme")]  # fmt: skip


def test_a_certificate_as_a_second_factor(redis, ctl, https, demo, authority):
    """What proofctl writes is obeyed on connections that are open, on tunnels, and after the connection to Redis was lost."""
    acme, other = partner_of(ctl.add("--id", "acme")), partner_of(ctl.add("--id", "other", company="Other"))
    own, second = (authority.leaf(name, client=True) for name in ("own", "second"))
    ctl.certificates = [own.fingerprint, second.fingerprint]
    listener = {"client_certificates": "optional", "client_ca_file": str(authority.file)}
    gateway = https(listener=listener, partners=[acme, other], store=redis.config(), upstream=demo.address)
    gateway.secrets += redis.passwords.values()
    clients = {pair: connect(gateway, context=trusting(authority, pair=pair)) for pair in (own, second, None)}

    def answers(partner=acme):
        return [clients[pair].exchange(fields=partner.authorization).status for pair in (own, second, None)]

    def tunnel(pair):
        client = connect(gateway, context=trusting(authority, pair=pair))
        assert client.ask(upgrade(acme, "/ws?tx_id=1&echo=1&interval_ms=0")).status == 101
        return client

    assert answers() == [200, 200, 200]
    kept, cut = tunnel(own), tunnel(None)
    ctl("partner", "set", "acme", "--client-cert-sha256", own.fingerprint, "--yes", "--wait")
    assert answers() == [200, 401, 401] and answers(other) == [200, 200, 200]
    refused = is_error(clients[None].exchange(fields=acme.authorization), "invalid_token")
    assert gateway.line_of(refused)["deny"] == "client_certificate"
    expect_policy_close(cut)
    echo(kept)
    both = ("--client-cert-sha256", own.fingerprint, "--client-cert-sha256", second.fingerprint)
    ctl("partner", "set", "acme", *both, "--yes", "--wait")
    assert answers() == [200, 200, 401]
    ctl("partner", "set", "acme", "--client-cert-sha256", second.fingerprint, "--yes", "--wait")
    expect_policy_close(kept)
    drop_connections(redis)
    wait_following(gateway, 2)
    assert answers() == [401, 200, 401]
    ctl("partner", "set", "acme", "--client-cert-sha256", "none", "--wait")
    assert answers() == [200, 200, 200]


def test_every_command_works_on_redis(ctl, redis):
    ctl.add("--id", "acme", "--off-ramp", "--webhook", "https://hooks.acme.example/x")
    ctl("partner", "set", "acme", "--company", "New", "--off-ramp", "off", "--webhook", "none")
    ctl("ip", "add", "acme", "192.0.2.7", "2001:db8::/48")
    ctl("ip", "add", "acme", "203.0.113.16/28", "--env", "sandbox")
    assert ctl("ip", "remove", "acme", "127.0.0.1", code=1).err.endswith("--yes to do this without a terminal to ask on\n")
    ctl("ip", "remove", "acme", "127.0.0.1", "--yes")
    ctl("partner", "disable", "acme", "--yes")
    view = ctl("partner", "show", "acme", "--json").json
    assert (view["company"], view["off_ramp"], view["webhook_url"], view["enabled"]) == ("New", False, None, False)
    assert view["production_cidrs"] == ["192.0.2.7", "2001:db8::/48"] and view["sandbox_cidrs"] == ["203.0.113.16/28"]
    ctl("partner", "enable", "acme")
    assert ctl("partner", "enable", "acme").out == "acme: nothing to change\n"
    assert [p["partner_id"] for p in ctl("partner", "list", "--json").json] == ["acme"]
    assert ctl("verify", "--json").json["findings"] == []
    ctl("partner", "remove", "acme", "--yes")
    assert "there is no partner" in ctl("partner", "show", "acme", code=1).sentence
    before_after = [(e["before"], e["after"]) for e in ctl("audit", "--json").json if e["action"] == "partner set"]
    assert before_after == [({"company": "Acme", "off_ramp": True, "webhook_url": "https://hooks.acme.example/x"},
                             {"company": "New", "off_ramp": False, "webhook_url": None})]  # fmt: skip


def test_an_id_that_is_taken_is_refused(ctl):
    ctl.add("--id", "acme")
    run = ctl("partner", "add", "--company", "A", *CONTACT, "--ip", "192.0.2.1", "--id", "acme", code=1)
    assert run.sentence.endswith('there is a partner "acme" already; choose another --id')


# --- init


def test_init_makes_a_data_set_once(empty):
    ctl = Ctl(empty)
    assert "`proofctl init` makes it" in ctl("partner", "list", code=1).sentence
    ctl("init")
    before = empty.everything()
    assert "there is partner data under this tag already (schema 1)" in ctl("init", code=1).sentence
    assert empty.everything() == before


@pytest.mark.parametrize(
    "command, says",
    [
        (("HSET", "gw:{cfg}:meta", "schema", "2"), "already (schema 2)"),
        (("HSET", "gw:{cfg}:p:acme", "v", "1"), "1 partner records under this tag, but gw:{cfg}:meta is missing"),
    ],
)
def test_init_touches_nothing_that_is_there(empty, command, says):
    empty.admin(*command)
    before = empty.everything()
    assert says in Ctl(empty)("init", code=1).sentence
    assert empty.everything() == before


def test_data_of_another_schema_is_left_alone(ctl, redis):
    redis.admin("HSET", "gw:{cfg}:meta", "schema", "2")
    assert "another schema than 1" in ctl("partner", "list", code=1).sentence
    assert "another schema than 1" in ctl("verify", "--repair", "--yes", code=1).sentence


# --- rights


def test_each_user_can_do_its_work_and_nothing_else(ctl, redis, gateway_on):
    added = partner_of(ctl.add("--id", "acme"))
    is_passed(ask(gateway_on(redis, added), added))  # the gateway's work; the operator's is every other test
    refused = {
        "gateway": [("HSET", "gw:{cfg}:p:acme", "x", "y"), ("XRANGE", "gw:{cfg}:audit", "-", "+"), ("SET", "gw:{cfg}:seq", "1"),
                    ("DEL", "gw:{cfg}:log"), ("GET", "gw:{cfg}:g:x"), ("EVAL", "return 1", "0"), ("HGETALL", "other")],
        "operator": [("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("KEYS", "*"), ("HGETALL", "other"),
                     ("HSET", "gw:{other}:p:x", "a", "b"), ("SHUTDOWN",), ("EVAL", "return redis.call('FLUSHALL')", "0")],
        "sentinel": [("HGETALL", "gw:{cfg}:p:acme"), ("CONFIG", "GET", "*"), ("SET", "x", "y"), ("FLUSHALL",)],
        "replica": [("HGETALL", "gw:{cfg}:p:acme"), ("INFO",), ("SET", "x", "y")],
    }  # fmt: skip
    for user, commands in refused.items():
        connection = redis.connect(user)
        assert connection("PING") == "PONG"
        for command in commands:
            with pytest.raises(RedisError, match="NOPERM|permission|can't run this command"):
                connection(*command)
    gateway = redis.connect("gateway")
    assert gateway("SET", "gw:{cfg}:g:me", "{}", "PX", 1000) == "OK"


def test_acl_lines_without_a_password_let_nobody_in(redis):
    config = redis.config_file()
    lines = subprocess.run([str(PROOFCTL), "acl", "-c", str(config)], check=True, capture_output=True, text=True).stdout.splitlines()
    users = [line for line in lines if not line.startswith("#")]
    assert len(users) == 7 and not any(">" in line or " #" in line or "nopass" in line for line in users)
    for line in users:
        if "+sentinel|" in line:
            continue  # a command of Sentinels
        redis.admin("ACL", "SETUSER", "newcomer", "reset", *line.split()[2:])
        with pytest.raises(RedisError, match="WRONGPASS"):
            Connection(redis.socket_path, "newcomer", "")


def test_nobody_gets_a_password_for_the_default_user(redis):
    command = [PROOFCTL, "acl", "-c", redis.config_file(), "--role", "default", "--password-file", redis.password_of("admin")]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert run.returncode == 2 and run.stdout == "" and "nobody logs in as default" in run.stderr


def test_what_was_written_is_there_after_a_crash_of_redis(tmp_path):
    """The append-only file is replayed with the rights of the default user, whom the line of `acl` switches off."""
    with running(tmp_path / "redis", durable=True) as redis:
        ctl = Ctl(redis)
        ctl("init")
        ctl.add("--id", "acme")
        ctl("token", "rotate", "acme", "--grace", "1h")
        before = redis.everything()
        redis.kill()
        redis.start()
        assert sorted(redis.everything().splitlines()) == sorted(before.splitlines())
        ctl("verify")


def test_proofctl_finds_the_new_master_through_a_sentinel_with_users(tmp_path):
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running(tmp_path / "r0"))
        second = stack.enter_context(running(tmp_path / "r1", passwords=first.passwords))
        for server in (first, second):
            server.open_port()
        first.admin("CONFIG", "SET", "masteruser", "replica", "masterauth", first.passwords["replica"])
        second.replicate(first)
        users = [first.acl_line("asker"), f"user test on >{first.passwords['admin']} ~* &* +@all"]
        sentinel = Sentinel(tmp_path / "sentinel", first, 1, "sentinel", users, ("test", first.passwords["admin"]))
        stack.callback(sentinel.close)
        asker = {"user": "asker", "password_file": str(first.password_of("asker"))}
        keys = sentinel.config()
        keys["sentinel"] |= asker
        ctl = Ctl(first, first.config_file("sentinel.yaml", **keys))
        ctl("init")
        ctl.add("--id", "acme")  # with a replica that confirms: no warning
        sentinel("SENTINEL", "FAILOVER", Sentinel.NAME)
        sentinel.wait_master([second])
        wait_for(lambda: second.admin("ROLE")[0] == "master", "the promotion", 30)
        run = ctl("partner", "list")
        assert run.out.splitlines()[1].startswith("acme ")
        wrong = first.config_file("wrong.yaml", **(keys | {"sentinel": {**keys["sentinel"], "user": "nobody"}}))
        assert "Sentinel 127.0.0.1" in Ctl(first, wrong)("partner", "list", code=1).sentence


# --- several operators


def test_a_record_that_somebody_else_changes_meanwhile_is_a_conflict(ctl):
    ctl.add("--id", "acme", "--ip", "192.0.2.6", ip="192.0.2.7")
    master, slave = pty.openpty()
    process = ctl.start("ip", "remove", "acme", "192.0.2.7", stdin=slave, stderr=slave)
    os.close(slave)
    asked = b""
    while b"[y/N] " not in asked:
        asked += os.read(master, 4096)
    ctl("ip", "add", "acme", "192.0.2.8")
    os.write(master, b"y\n")
    ctl.finish(process, ("ip", "remove"), code=4)
    said = ""
    with contextlib.suppress(OSError):  # EIO: all of it was read, the echo of the answer in a piece of its own
        while "try again" not in said:
            said += os.read(master, 4096).decode()
    os.close(master)
    assert 'somebody else has changed "acme" meanwhile; nothing was changed: look at it and try again' in said
    assert ctl("ip", "list", "acme", "--json").json["production"] == ["192.0.2.7", "192.0.2.6", "192.0.2.8"]


def test_operators_who_race_lose_nothing(ctl):
    ctl.add("--id", "acme", ip="192.0.2.1")
    wanted = [f"198.51.100.{i}" for i in range(12)]
    made = []
    for at in range(0, len(wanted), 4):
        processes = [(ip, ctl.start("ip", "add", "acme", ip, "--json")) for ip in wanted[at : at + 4]]
        for ip, process in processes:
            run = ctl.finish(process, ("ip", "add"), code=None)
            assert run.code in (0, 4), run
            made += [ip] * (run.code == 0)
            assert run.code == 0 or json.loads(run.err)["error"] == "conflict"
    assert len(made) >= 3  # of each group at least one
    assert sorted(ctl("ip", "list", "acme", "--json").json["production"]) == sorted(["192.0.2.1", *made])
    assert len([e for e in ctl("audit", "--json", "--limit", "100").json if e["action"] == "ip add"]) == len(made)
    ctl("verify")


# --- Redis that is wrong or away


@pytest.mark.parametrize(
    "change, code, says",
    [
        ({"user": None, "password_file": None}, 1, "NOAUTH"),
        ({"user": "nobody"}, 1, "WRONGPASS"),
        ({"password_file": "/nonexistent/file"}, 1, "the password cannot be used"),
        ({"address": "unix:/nonexistent/socket"}, 3, "there is no such socket"),
        ({"address": "127.0.0.1:1"}, 3, "nobody listens there"),
        ({"address": "nowhere.invalid:6379"}, 3, "the name has no address"),
    ],
)
def test_a_login_that_fails_is_explained(redis, change, code, says):
    ctl = Ctl(redis, redis.config_file("wrong.yaml", **change), user=None)
    for arguments in (("partner", "list"), ("partner", "list", "--json")):
        run = ctl(*arguments, code=code)
        assert says in run.sentence and run.out == ""
    assert json.loads(run.err)["error"] == ("unavailable" if code == 3 else "failed")


def test_the_gateways_user_may_only_read(ctl, redis):
    ctl.add("--id", "acme")
    gateway = Ctl(redis, user=None)  # what the configuration logs in as
    assert len(gateway("partner", "list").out.splitlines()) == 2
    before = redis.everything()
    run = gateway("ip", "add", "acme", "192.0.2.8", code=1)
    assert "nothing was changed" in run.sentence and "--user" in run.sentence
    assert redis.everything() == before


def test_a_silent_redis_is_given_up(ctl, redis):
    with redis.stopped():
        run = ctl("partner", "list", code=3)
    assert "does not answer in time" in run.sentence


@pytest.mark.parametrize(
    "answers, code, says",
    [
        ((b"+OK\r\n", b"-LOADING Redis is loading the dataset in memory\r\n"), 3, "still loading"),
        ((b"-DENIED Redis is running in protected mode\r\n",), 1, "DENIED"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), 1, "no Redis server"),
        ((b"*2147483647\r\n",), 1, "no Redis server"),
        ((b"+OK\r\n", b"+OK\r\n", b"*1\r\n$5\r\nslave\r\n"), 3, "this is a replica"),
        ((b"+OK\r\n", b"+OK\r\n", b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", b"-BUSY Redis is busy\r\n"), 3, "BUSY"),
    ],
)
def test_what_answers_may_be_anything(redis, answers, code, says):
    server = Answering(*answers)
    try:
        run = Ctl(redis, redis.config_file("other.yaml", address=server.address))("partner", "list", code=code)
        assert says in run.sentence
    finally:
        server.close()


class Holding:
    """A port that leads to the server, but lets the answer to a script get lost: the connection ends instead."""

    def __init__(self, redis):
        self.redis = redis

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))

        def forward():
            with contextlib.suppress(OSError):
                client, _ = self.listener.accept()
                server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                server.connect(self.redis.socket_path)
                with client, server:
                    while data := client.recv(65536):
                        server.sendall(data)
                        answer = server.recv(65536)
                        if b"EVAL" in data:
                            if answer.startswith(b"-NOSCRIPT"):
                                client.sendall(answer)
                                continue
                            return
                        client.sendall(answer)

        self.thread = threading.Thread(target=forward, daemon=True)
        self.thread.start()
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def __exit__(self, *_):
        self.listener.close()
        self.thread.join(10)


def test_a_write_whose_answer_is_lost_says_that_it_may_have_been_made(ctl, redis):
    ctl.add("--id", "acme")
    with Holding(redis) as address:
        held = Ctl(redis, redis.config_file("held.yaml", address=address))
        run = held("ip", "add", "acme", "192.0.2.9", code=3)
    assert "whether the change was made is not known: look before you try again" in run.sentence
    assert "192.0.2.9" in ctl("ip", "list", "acme", "--json").json["production"]


def test_a_replica_is_not_written(ctl, redis, tmp_path):
    redis.open_port()
    ctl.add("--id", "acme")
    with running(tmp_path / "replica", passwords=redis.passwords) as replica:
        replica.replicate(redis)
        wait_for(lambda: redis.admin("ROLE")[2], "the master's word that the replica follows")
        run = Ctl(replica)("ip", "add", "acme", "192.0.2.8", code=3)
        assert "this is a replica, which cannot be written" in run.sentence
        quiet = ctl("ip", "add", "acme", "192.0.2.8")
        assert quiet.err == ""  # the replica has confirmed it
        with replica.stopped():
            run = ctl("ip", "add", "acme", "192.0.2.9")
        assert "no replica has confirmed it" in run.sentence
        redis.admin("CONFIG", "SET", "min-replicas-to-write", "2")
        assert "NOREPLICAS" in ctl("ip", "add", "acme", "192.0.2.10", code=3).sentence
        assert "192.0.2.10" not in ctl("ip", "list", "acme").out


# --- TLS


@pytest.fixture
def tls(tmp_path):
    """A server that speaks nothing but TLS and wants a client certificate; the folder of the certificates."""
    folder = make_certificates(tmp_path / "certificates")
    port = free_port()
    extra = [f"tls-port {port}", f"tls-cert-file {folder}/server.crt", f"tls-key-file {folder}/server.key",
             f"tls-ca-cert-file {folder}/ca.crt", "tls-auth-clients yes"]  # fmt: skip
    with running(tmp_path / "redis", extra=extra) as server:
        server.tls_address = f"127.0.0.1:{port}"
        server.initialise()
        yield server, folder


@pytest.mark.parametrize(
    "change, says",
    [
        ({}, None),
        ({"ca_file": "other-ca.crt"}, "no TLS with this server"),
        ({"server_name": "stranger.test"}, "no TLS with this server"),
        ({"server_name": "server"}, "no TLS with this server"),  # a common name is no name: RFC 6125 section 6.4.4
        ({"certificate_file": None, "key_file": None}, "TLS"),
        ({"enabled": False}, "closed the connection"),
    ],
)
def test_tls_is_verified_both_ways(tls, change, says):
    server, folder = tls
    settings = {"enabled": True, "ca_file": "ca.crt", "certificate_file": "client.crt", "key_file": "client.key", **change}
    files = {k: str(folder / v) if k.endswith("_file") and v else v for k, v in settings.items() if v is not None}
    ctl = Ctl(server, server.config_file("tls.yaml", address=server.tls_address, tls=files))
    if says is None:
        ctl.add("--id", "acme")
        assert len(ctl("partner", "list").out.splitlines()) == 2
    else:
        run = ctl("partner", "list", code=None)
        assert run.code in (1, 3) and says in run.sentence


# --- verify


FIELDS = ("company", "contact", "client_token_sha256", "widget_id", "off_ramp", "production_cidrs", "enabled")

SPOILT = [
    (("HSET", "gw:{cfg}:p:acme", "company", "By hand"), "acme", "rewrite", "changed by hand"),
    (("HDEL", "gw:{cfg}:p:acme", "v"), "acme", "rewrite", "no version"),
    (("HSET", "gw:{cfg}:p:acme", "v", "1000000000000"), "acme", "rewrite", "there were only"),
    (("HSET", "gw:{cfg}:p:acme", "v", "abc"), "acme", "rewrite", "no number"),
    (("DEL", "gw:{cfg}:p:acme"), "acme", "remove", "removed by hand"),
    (("HDEL", "gw:{cfg}:p:acme", *FIELDS), "acme", "remove", "nothing but its version"),  # a repair of that, half-way
    (("HSET", "gw:{cfg}:meta", "count", "77"), None, "mend", "the count is 77, but should be 2"),
    (("HSET", "gw:{cfg}:meta", "digest", "0000000000000001"), None, "mend", "the digest is"),
    (("HSET", "gw:{cfg}:meta", "count", "many"), None, "mend", "no numbers"),
    (("HSET", "gw:{cfg}:meta", "seq", "1"), None, "mend", "meta knows 1 changes"),
    (("SET", "gw:{cfg}:seq", "1"), None, "mend", "the counter is at 1"),
    (("DEL", "gw:{cfg}:seq"), None, "mend", "the counter is at 0"),
]


@pytest.mark.parametrize("command, partner_id, remedy, says", SPOILT, ids=lambda v: None)
def test_what_was_done_by_hand_is_found_and_mended(ctl, redis, gateway_on, command, partner_id, remedy, says):
    acme, other = partner_of(ctl.add("--id", "acme")), partner_of(ctl.add("--id", "other", company="Other"))
    ctl("ip", "add", "acme", "192.0.2.7")
    gateway = gateway_on(redis, acme, other)
    redis.admin(*command)
    run = ctl("verify", "--json", code=1)
    assert (partner_id, remedy) in [(f["partner_id"], f["remedy"]) for f in run.json["findings"]], run
    assert any(says in f["problem"] for f in run.json["findings"]), run
    before = redis.everything(reports=False)
    assert says in ctl("verify", "--repair", code=1).out  # shown, but nobody says yes
    assert redis.everything(reports=False) == before
    ctl("verify", "--repair", "--yes")
    assert ctl("verify", "--json").json["findings"] == []
    ctl("ip", "add", "other", "192.0.2.8")  # the data set takes changes again, and the gateway follows
    sequence = int(redis.admin("HGET", "gw:{cfg}:meta", "seq"))
    gateway.wait_metric("proofgw_store_sequence", sequence)
    assert gateway.metrics()("proofgw_store_inconsistent") == 0
    is_passed(ask(gateway, other))


def test_a_copy_by_hand_is_found_and_so_is_its_token(ctl, redis, gateway_on):
    acme = partner_of(ctl.add("--id", "acme"))
    ctl.add("--id", "other", company="Other")
    gateway = gateway_on(redis, acme)
    redis.admin("COPY", redis.key("p:acme"), redis.key("p:copy"))

    def findings(**kwargs):
        return {(f["partner_id"], f["remedy"], f["problem"][:22]) for f in ctl("verify", "--json", **kwargs).json["findings"]}

    shared = ("copy", None, "has a token that \"acme")
    assert {("copy", "rewrite", "has version 1, but the"), shared} <= findings(code=1)
    ctl("verify", "--repair", "--yes", code=1)
    assert findings(code=1) == {shared}
    gateway.wait_metric("proofgw_store_records_rejected", 1)
    ctl("token", "rotate", "copy", "--grace", "0s", "--yes")
    assert findings() == set()
    gateway.wait_metric("proofgw_store_records_rejected", 0)
    is_passed(ask(gateway, acme))


def test_a_foreign_entry_in_the_log_is_named_with_the_way_out(ctl, redis, gateway_on):
    acme = partner_of(ctl.add("--id", "acme"))
    gateway = gateway_on(redis, acme)
    redis.admin("XADD", redis.key("log"), "*", "note", "by hand")  # its number is a time, far above ours
    gateway.wait_event("store_gap")
    ctl("ip", "add", "acme", "192.0.2.7", code=1)
    assert f"DEL {redis.key('log')}" in ctl("verify", code=1).sentence
    is_passed(ask(gateway, acme))
    redis.admin("DEL", redis.key("log"))
    ctl("verify", "--repair", "--yes")
    ctl("ip", "add", "acme", "192.0.2.8")
    gateway.wait_metric("proofgw_store_sequence", int(redis.admin("HGET", redis.key("meta"), "seq")))
    assert ctl("verify", "--json").json["findings"] == []


def test_nothing_from_redis_steers_the_terminal(ctl, redis):
    redis.admin("SET", redis.key("p:\x1b[2Jgone"), "x")
    run = ctl("verify", code=1)
    assert "ends in \"?[2Jgone\"" in run.out and "\x1b" not in run.out + run.err
    assert "\x1b" not in ctl("partner", "list", code=1).err
    line = {"action": "ip add", "before": {"ips\x1b[2J": ["\x1b[2Jwas"]}, "after": {"ips\x1b[2J": ["\x1b[2Jis"]}}
    redis.admin("XADD", redis.key("audit"), "*", "n", "1", "line", json.dumps(line))
    assert ctl("audit").out.endswith("ips?[2J: -?[2Jwas +?[2Jis\n")


def test_verify_is_not_misled_by_operators_at_work(ctl, redis):
    partners = [Partner(f"p{i:03}") for i in range(300)]
    redis.put(*partners)
    done = threading.Event()

    def work():
        for i in itertools.count():
            if done.is_set():
                return
            partner = Partner(f"p{i * 7 % 400:03}")  # some of them new
            redis.put(partner)
            if i % 5 == 0:
                redis.remove(partner)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(5):
            assert ctl("verify", "--json").json["findings"] == []
    finally:
        done.set()
        worker.join()


def test_a_record_that_is_not_valid_is_named_and_can_be_replaced(ctl, redis, tmp_path):
    ctl.add("--id", "acme")
    ctl.add("--id", "other", company="Other")
    redis.admin("HSET", "gw:{cfg}:p:acme", "contact", "nobody")
    redis.admin("SET", "gw:{cfg}:p:odd name", "x")
    run = ctl("partner", "list", code=1)
    assert run.out.splitlines()[1].startswith("other ") and len(run.err.splitlines()) == 2
    assert "acme: " in run.err and "odd name" in run.err
    assert "contact" in ctl("ip", "add", "acme", "192.0.2.8", code=1).err
    findings = ctl("verify", "--json", code=1).json["findings"]
    assert [f["partner_id"] for f in findings if not f["remedy"]] == ["acme", None]
    file = tmp_path / "good.ndjson"
    write_file(file, [Partner("acme")])
    ctl("import", file)
    redis.admin("DEL", "gw:{cfg}:p:odd name")
    ctl("verify")


def test_a_record_that_is_not_valid_does_not_keep_others_from_being_mended(ctl, redis):
    ctl.add("--id", "acme")
    redis.admin("HSET", "gw:{cfg}:p:odd", "company", "By hand", "v", "1000")
    redis.admin("HSET", "gw:{cfg}:p:acme", "company", "By hand")
    ctl("verify", "--repair", "--yes", code=1)
    findings = ctl("verify", "--json", code=1).json["findings"]
    assert {(f["partner_id"], f["remedy"]) for f in findings} == {("odd", None)}
    redis.admin("DEL", "gw:{cfg}:p:odd")
    ctl("verify", "--repair", "--yes")
    ctl("verify")


# --- import, export


def test_import_of_many_and_what_comes_out_again(ctl, tmp_path):
    partners = [Partner(f"p{i:04}", production=[f"198.18.{i // 250}.{i % 250}"]) for i in range(2000)]
    file = tmp_path / "many.ndjson"
    write_file(file, partners)
    before = ctl.redis.everything()
    assert ctl("import", file, "--dry-run").out.splitlines()[-1] == "dry run: 2000 added, 0 changed, 0 unchanged"
    assert ctl.redis.everything() == before
    run = ctl("import", file)
    assert run.out.splitlines()[-1] == "2000 added, 0 changed, 0 unchanged" and run.err == ""  # no bar: this is no terminal
    assert ctl("import", file).out == "0 added, 0 changed, 2000 unchanged\n"
    exported = [json.loads(line) for line in ctl("export").out.splitlines()]
    assert [r["partner_id"] for r in exported] == [p.partner_id for p in partners]
    partners[7].production = ["192.0.2.77"]
    write_file(file, partners)
    run = ctl("import", file, "--dry-run")
    assert run.out.splitlines()[0] == "~ p0007: production_cidrs: -198.18.0.7 +192.0.2.77"
    run = ctl("verify", "--json").json
    assert (run["partners"], run["findings"]) == (2000, [])


def test_an_import_that_breaks_off_says_how_far_it_came_and_can_be_run_again(ctl, redis, tmp_path):
    file = tmp_path / "some.ndjson"
    write_file(file, [Partner(f"p{i:04}") for i in range(1000)])
    redis.admin("SET", "gw:{cfg}:p:p0700", "in the way")
    run = ctl("import", file, code=1)
    done = int(redis.admin("HGET", "gw:{cfg}:meta", "count"))
    assert 0 < done < 1000 and f"{done} of 1000 changes were made before that" in run.err
    redis.admin("DEL", "gw:{cfg}:p:p0700")
    run = ctl("import", file)
    assert run.out.splitlines()[-1] == f"{1000 - done} added, 0 changed, {done} unchanged"
    ctl("verify")


def test_a_bar_is_drawn_on_a_terminal_only(ctl, tmp_path):
    file = tmp_path / "many.ndjson"
    write_file(file, [Partner(f"p{i:04}") for i in range(3000)])
    master, slave = pty.openpty()
    with open(tmp_path / "out", "w+b") as out:  # a pipe that nobody reads would be full
        process = ctl.start("import", file, stderr=slave, stdout=out)
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # EIO at the end
            while chunk := os.read(master, 4096):
                shown += chunk
        os.close(master)
        ctl.finish(process, ("import",))
        out.seek(0)
        assert out.read().splitlines()[-1].startswith(b"3000 added")
    assert b"import [" in shown and b" of 3000" in shown


# --- gateways


def report(redis, instance, sequence, **changes):
    epoch = redis.admin("HGET", "gw:{cfg}:meta", "epoch")
    value = {"instance": instance, "version": "0.1", "pid": 1, "host": "h", "seq": sequence, "epoch": epoch, "state": "live",
             "partners": 1, "last_change_ms": 0, "staleness_ms": 1234, "started_ms": 0, **changes}  # fmt: skip
    redis.admin("SET", f"gw:{{cfg}}:g:{instance}", json.dumps(value), "PX", 60000)


def test_gateways_are_listed_and_waited_for(ctl, redis):
    assert ctl("gateways").out == "no gateway reports itself\n"
    ctl.add("--id", "acme")
    report(redis, "b-far", 1000)
    report(redis, "a-behind", 1)
    run = ctl("ip", "add", "acme", "192.0.2.8", "--wait=1", code=5)
    assert run.out == "acme: added\n" and "1 of 2 gateways has not applied it within 1 s (number 2): a-behind (at 1)" in run.err
    listed = ctl("gateways", "--json").json
    assert [(g["instance"], g["lag"]) for g in listed] == [("a-behind", 1), ("b-far", 0)]
    assert "a-behind" in ctl("gateways").out.splitlines()[1]
    report(redis, "a-behind", 1000, epoch="another")
    assert ctl("token", "rotate", "acme", "--wait=1", code=5).out.count("proof_live_") == 1  # the token is not lost
    report(redis, "a-behind", 1000)
    assert "applied by 2 gateways" in ctl("ip", "add", "acme", "192.0.2.9", "--wait").sentence
    redis.admin("SET", "gw:{cfg}:g:odd", "\x1b]0;no JSON")
    assert len(ctl("gateways", "--json").json) == 2


def test_real_gateways_report_and_are_waited_for(ctl, redis, gateway_on):
    acme = partner_of(ctl.add("--id", "acme"))
    first, second = (gateway_on(redis, acme) for _ in range(2))

    def positions():
        return {g["pid"]: (g["state"], g["lag"]) for g in ctl("gateways", "--json").json}

    pids = {gateway.process.pid for gateway in (first, second)}
    wait_for(lambda: positions() == dict.fromkeys(pids, ("live", 0)), lambda: positions())
    assert "applied by 2 gateways" in ctl("ip", "add", "acme", "192.0.2.8", "--wait").sentence

    second.process.send_signal(signal.SIGSTOP)
    try:
        run = ctl("ip", "remove", "acme", "127.0.0.1", "--yes", "--wait=1", code=5)
        assert run.out == "acme: removed\n" and "1 of 2 gateways has not applied it within 1 s" in run.err
        assert positions() == {first.process.pid: ("live", 0), second.process.pid: ("live", 1)}
        is_error(ask(first, acme), "forbidden_origin")  # those that can obey have obeyed
    finally:
        second.process.send_signal(signal.SIGCONT)
    assert "applied by 2 gateways" in ctl("ip", "add", "acme", "127.0.0.1", "--wait").sentence
    assert [ask(gateway, acme).status for gateway in (first, second)] == [200, 200]  # no waiting: it has been waited for

    second.signal(signal.SIGTERM)
    second.wait_exit()
    assert set(positions()) == {first.process.pid}
    assert "applied by 1 gateway\n" in ctl("partner", "disable", "acme", "--yes", "--wait").err
    is_error(ask(first, acme), "invalid_token")


def test_held_deletions_are_confirmed_by_their_number(ctl, redis, gateway_on):
    partners = [partner_of(ctl.add("--id", f"p{i}")) for i in range(5)]
    gateway = gateway_on(redis, *partners, admin={"control_socket": "control.sock"})
    here = Ctl(redis, gateway.config_file, user=None)  # on the gateway's machine
    assert "no load is held" in here("confirm-deletions", "--yes", code=1).sentence
    redis.admin("FLUSHALL")
    ctl("init")
    kept = partner_of(ctl.add("--id", "kept"))
    gateway.wait_event("store_deletion_held")
    assert "5 deletions are held" in here("status").out
    assert here("confirm-deletions", code=1).sentence.startswith("proofctl: 5 held deletions: ")
    is_passed(ask(gateway, partners[0]))
    assert here("confirm-deletions", "--yes", "--json").json == {"confirmed": 5}
    becomes(gateway, kept, 200, seconds=10)
    assert {ask(gateway, p).status for p in partners} == {401}


@pytest.mark.parametrize("value", ["0", "601", "soon", ""])
def test_wait_takes_seconds(ctl, value):
    assert "--wait must be a number of seconds" in ctl("partner", "enable", "acme", f"--wait={value}", code=2).err


def test_what_is_for_redis_is_refused_on_a_file(tmp_path):
    file = tmp_path / "partners.ndjson"
    write_file(file, [Partner("acme")])
    for arguments in (("init",), ("gateways",), ("verify", "--repair"), ("partner", "enable", "acme", "--wait")):
        run = subprocess.run([str(PROOFCTL), "--store", str(file), *arguments], capture_output=True, text=True, env=ENVIRONMENT)
        assert run.returncode == 2 and "Redis" in run.stderr
