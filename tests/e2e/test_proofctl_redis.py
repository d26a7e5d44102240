"""proofctl on Redis: what an operator does counts on the gateways, nobody overwrites anybody, and every way in which Redis
can be wrong gets one clear sentence.

Method: real redis-server processes whose users are exactly those that `proofctl acl` prints, TLS with certificates made here,
a real Sentinel, real gateways; several operators at once; records spoilt by hand past the script.
"""

import contextlib
import json
import os
import pty
import signal
import subprocess
import time

import pytest

from support.ctl_redis import partner_of
from support.expect import is_error, is_passed
from support.following import ask, becomes, drop_connections, echo, expect_policy_close, open_tunnel, wait_following
from support.operator import Ctl, operating, running
from support.partners import Partner, digest, write_file
from support.proofctl import ENVIRONMENT, PROOFCTL
from support.redis import REDIS_SERVER, Connection, RedisError, Sentinel
from support.tls import connect, trusting
from support.wait import wait_for
from support.websocket import upgrade

pytest_plugins = ["support.tls", "support.ctl_redis"]

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
    said = ': there is no partner data under this tag: restore it (docs/DATA.md, "Back up and restore"), or begin with `proofctl init`'
    assert ctl("partner", "list", code=1).sentence.endswith(said)
    assert ctl("gateways", code=1).sentence.endswith(said)
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


def test_an_import_does_not_take_the_token_of_another_partner(ctl, redis, tmp_path):
    acme = partner_of(ctl.add("--id", "acme"))
    old = acme.token
    acme.token = ctl("token", "rotate", "acme", "--json").json["client_token"]
    file = tmp_path / "partners.ndjson"
    for token in (acme.token, old):
        write_file(file, [Partner("first"), Partner("newco", token=token)])
        before = redis.everything()
        for arguments in ((), ("--dry-run",), ("--json",)):
            run = ctl("import", file, *arguments, code=1)
            says = f'newco: its token (fingerprint {digest(token)[:8]}) belongs to \\"acme\\"'
            assert (says if "--json" in arguments else says.replace("\\", "")) in run.err and run.out == ""
            assert redis.everything() == before


def test_an_import_may_give_the_token_of_a_partner_to_a_new_one(ctl, redis, gateway_on, tmp_path):
    acme = partner_of(ctl.add("--id", "acme"))
    newco, other = Partner("newco", token=acme.token), Partner("acme")
    gateway = gateway_on(redis, acme, other)
    file = tmp_path / "partners.ndjson"
    write_file(file, [newco, other])  # the one that gets it stands first
    assert ctl("import", file, "--dry-run").out.splitlines()[-1] == "dry run: 1 added, 1 changed, 0 unchanged"
    assert ctl("import", file, "--yes", "--wait").out.splitlines()[-1] == "1 added, 1 changed, 0 unchanged"
    assert [ask(gateway, p).status for p in (newco, other)] == [200, 200]
    assert not gateway.events("store_record_error")
    ctl("verify")


def test_an_import_that_moves_a_token_is_in_the_order_in_which_gateways_obey(ctl, redis, gateway_on, tmp_path):
    """They see one change after the other, and refuse a record with a token that another one still has."""
    acme, bee = partner_of(ctl.add("--id", "acme")), partner_of(ctl.add("--id", "bee"))
    gateway = gateway_on(redis, acme, bee)
    file = tmp_path / "partners.ndjson"
    moved, renewed = Partner("acme", token=bee.token), Partner("bee")
    for partners in ([moved, renewed], [moved, Partner("bee", token=acme.token)], [Partner("bee", token=acme.token), moved]):
        write_file(file, partners)
        before = ctl("export").out
        for last in ("--yes", "--dry-run"):
            run = ctl("import", file, last, code=1)
            late = partners[1].partner_id
            assert f'gets a token of "{late}"' in run.err and f'import "{late}" first' in run.err, run
        assert ctl("export").out == before
    write_file(file, [renewed, moved])
    ctl("import", file, "--yes", "--wait")
    assert [ask(gateway, p).status for p in (moved, renewed, acme)] == [200, 200, 401]
    assert not gateway.events("store_record_error")


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
    assert ctl("gateways").out == "no gateway is reporting\n"
    ctl.add("--id", "acme")
    report(redis, "b-there", 2)  # the change that comes now
    report(redis, "a-behind", 1)
    run = ctl("ip", "add", "acme", "192.0.2.8", "--wait=1", code=5)
    assert run.out == "acme: added\n" and "1 of 2 gateways has not applied it within 1 s (number 2): a-behind (at 1)" in run.err
    listed = ctl("gateways", "--json").json
    assert [(g["instance"], g["lag"]) for g in listed] == [("a-behind", 1), ("b-there", 0)]
    assert "a-behind" in ctl("gateways").out.splitlines()[1]
    report(redis, "a-behind", 3, epoch="another")
    report(redis, "b-there", 3)
    run = ctl("token", "rotate", "acme", "--wait=1", code=5)
    assert run.out.count("proof_live_") == 1  # the token is not lost
    assert "1 of 2 gateways has not applied it within 1 s (number 3): a-behind (at 0)" in run.err
    for instance in ("a-behind", "b-there"):
        report(redis, instance, 4)
    assert "applied by 2 gateways" in ctl("ip", "add", "acme", "192.0.2.9", "--wait").sentence
    redis.admin("SET", "gw:{cfg}:g:odd", "\x1b]0;no JSON")
    assert len(ctl("gateways", "--json").json) == 2


def test_a_gateway_in_another_history_is_waited_for(ctl, redis, gateway_on):
    """Redis is back from an older dump, and the load is held: what is in force there has higher numbers, and our tokens."""
    partners = [partner_of(ctl.add("--id", f"p{i}")) for i in range(2)]
    redis.save()
    partners += [partner_of(ctl.add("--id", f"p{i}")) for i in range(2, 5)]
    gateway = gateway_on(redis, *partners)
    redis.kill()
    redis.start()
    gateway.wait_event("store_deletion_held")
    wait_for(lambda: [(r["seq"], r["state"]) for r in redis.reports().values()] == [(5, "stale")], redis.reports)
    run = ctl("token", "revoke", "p0", "--slot", "current", "--yes", "--wait=1", code=5)
    assert "1 of 1 gateways has not applied it within 1 s (number 3): " in run.err and "(at 0, not live)" in run.err
    assert [g["lag"] for g in ctl("gateways", "--json").json] == [3]
    ctl("ip", "add", "p0", "192.0.2.8")
    run = ctl("token", "revoke", "p1", "--slot", "current", "--yes", "--wait=1", code=5)  # the new history has come as far
    assert "(number 5): " in run.err and "(at 5, not live)" in run.err
    assert [ask(gateway, p).status for p in partners] == [200] * 5


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
