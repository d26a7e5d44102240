"""proofctl on a Redis that is wrong, away, behind TLS, or was changed by hand."""

import contextlib
import itertools
import json
import select
import signal
import socket
import threading

import pytest

from support.ctl_redis import partner_of
from support.expect import is_passed
from support.following import ask
from support.operator import Answering, Ctl, make_certificates, operating, running
from support.partners import Partner, digest, new_token, write_file
from support.proofctl import TOKEN
from support.redis import REDIS_SERVER, BadLine, free_port
from support.wait import DEADLINE_S, wait_for

pytest_plugins = ["support.ctl_redis"]

pytestmark = pytest.mark.skipif(not REDIS_SERVER, reason="there is no redis-server on this machine (Debian: redis-server)")


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


@pytest.mark.parametrize("option", [(), ("--json",)])
@pytest.mark.parametrize(
    "command", [("token", "rotate", "acme"), ("partner", "add", "--id", "acme", "--company", "A", "--contact", "a@b.test", "--ip", "192.0.2.7")]
)
def test_a_token_that_may_be_in_force_is_printed(ctl, redis, command, option):
    ctl.add("--id", "acme" if command[0] == "token" else "other")
    with Holding(redis) as address:
        held = Ctl(redis, redis.config_file("held.yaml", address=address))
        run = held(*command, *option, code=3)
    (token,) = held.tokens
    ctl.tokens.append(token)
    assert digest(token) == redis.admin("HGET", "gw:{cfg}:p:acme", "client_token_sha256")
    unknown, advice = run.err.splitlines()
    assert "whether the change was made is not known" in unknown
    assert f"it is in force only if `proofctl partner show acme` has fingerprint {digest(token)[:8]}" in advice
    assert f"fingerprint {digest(token)[:8]}" in ctl("partner", "show", "acme").out
    if option:
        assert run.json["client_token"] == token and json.loads(advice)["error"] == "unavailable"


def test_an_export_that_fails_prints_nothing(ctl, redis):
    redis.put(*(Partner(f"p{i:03}") for i in range(600)))
    line = BadLine(redis, [("close", 100_000)])  # about half of it
    try:
        assert Ctl(redis, redis.config_file("bad.yaml", address=line.address))("export", code=3).out == ""
    finally:
        line.close()
    assert len(ctl("export").out.splitlines()) == 600
    redis.admin("HSET", "gw:{cfg}:p:p300", "contact", "nobody")
    run = ctl("export", code=1)
    assert "p300: " in run.err and run.out == ""


class Meddling:
    """A way to the server on which something else happens first when a script is sent for the `at`th time."""

    def __init__(self, redis, action, at=1):
        self.redis, self.action, self.left = redis, action, at

    def _meddle(self, data):
        self.left -= b"EVAL" in data
        if self.left == 0:
            self.left = -1
            self.action()

    def _forward(self):
        client, _ = self.listener.accept()
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.connect(self.redis.socket_path)
        with client, server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    if not (data := source.recv(65536)):
                        return
                    if source is client:
                        self._meddle(data)
                    (server if source is client else client).sendall(data)

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._forward, daemon=True)
        self.thread.start()
        return Ctl(self.redis, self.redis.config_file("meddling.yaml", address=f"127.0.0.1:{self.listener.getsockname()[1]}"))

    def __exit__(self, *_):
        self.listener.close()
        self.thread.join(10)
        assert self.left < 0, "nothing happened on the way"


@pytest.mark.parametrize("at", [1, 2, 3])
def test_two_imports_at_once_do_not_share_a_token(ctl, redis, tmp_path, at):
    ours, theirs, token = tmp_path / "ours.ndjson", tmp_path / "theirs.ndjson", new_token()
    write_file(ours, [*(Partner(f"p{i:03}") for i in range(200)), Partner("zulu", token=token)])
    write_file(theirs, [Partner("yankee", token=token)])
    with Meddling(redis, lambda: ctl("import", theirs), at) as meddled:
        run = meddled("import", ours, code=4)
    assert f'zulu: its token (fingerprint {digest(token)[:8]}) belongs to "yankee"' in run.err
    assert redis.admin("EXISTS", "gw:{cfg}:p:zulu") == 0
    assert "yankee" in ctl("partner", "list").out
    ctl("verify")


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_import_goes_on_beside_other_operators(ctl, redis, tmp_path, at):
    file = tmp_path / "partners.ndjson"
    write_file(file, [Partner(f"p{i:03}") for i in range(200)])
    with Meddling(redis, lambda: (ctl.add("--id", "acme"), ctl("ip", "add", "acme", "192.0.2.1")), at) as meddled:
        assert meddled("import", file).out.splitlines()[-1] == "200 added, 0 changed, 0 unchanged"
    assert len(ctl("partner", "list").out.splitlines()) == 1 + 201
    ctl("verify")


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_import_brings_the_script_again(ctl, redis, tmp_path, at):
    """SCRIPT FLUSH on its way; and then somebody whose change is refused brings the script before it does."""
    file = tmp_path / "partners.ndjson"
    write_file(file, [Partner(f"p{i:03}") for i in range(500)])
    again = ("partner", "add", "--id", "acme", "--company", "Acme", "--contact", "ops@acme.example", "--ip", "127.0.0.1")
    ctl(*again)

    def flush():
        redis.admin("SCRIPT", "FLUSH")
        way.action, way.left = lambda: ctl(*again, code=1), 1

    way = Meddling(redis, flush, at)
    with way as meddled:
        assert meddled("import", file).out.splitlines()[-1] == "500 added, 0 changed, 0 unchanged"
    ctl("verify")


@pytest.mark.parametrize("field", ["client_token_sha256", "previous_token_sha256"])
def test_an_import_sees_the_tokens_of_a_record_that_is_not_valid(ctl, redis, tmp_path, field):
    """Spoilt by hand: gateways keep what it was, and would refuse another partner with its token."""
    acme = ctl.add("--id", "acme")
    if field == "previous_token_sha256":
        ctl("token", "rotate", "acme")
    redis.admin("HSET", "gw:{cfg}:p:acme", "production_cidrs", "nonsense")
    file = tmp_path / "partners.ndjson"
    write_file(file, [Partner("zulu", token=acme["client_token"])])
    for options in (("--dry-run",), ()):
        run = ctl("import", file, *options, code=1)
        assert f'zulu: its token (fingerprint {digest(acme["client_token"])[:8]}) belongs to "acme"' in run.err
    assert redis.admin("EXISTS", "gw:{cfg}:p:zulu") == 0
    write_file(file, [Partner("acme", token=acme["client_token"]), Partner("zulu")])
    ctl("import", file)  # what replaces it is in nobody's way
    ctl("verify")


def test_an_import_does_not_go_on_when_nobody_can_say_what_others_have_written(ctl, redis, tmp_path):
    file = tmp_path / "partners.ndjson"
    write_file(file, [Partner("new")])
    with Meddling(redis, lambda: (ctl.add("--id", "acme"), redis.admin("XTRIM", "gw:{cfg}:log", "MAXLEN", "0"))) as meddled:
        run = meddled("import", file, code=4)
    assert "somebody else writes, and the log does not say what" in run.sentence
    assert redis.admin("EXISTS", "gw:{cfg}:p:new") == 0


def test_an_import_that_breaks_off_says_how_far_it_came_and_can_be_run_again(ctl, redis, tmp_path):
    file = tmp_path / "some.ndjson"
    write_file(file, [Partner(f"p{i:04}") for i in range(1000)])
    with Meddling(redis, lambda: redis.admin("SET", "gw:{cfg}:p:p0700", "in the way")) as meddled:
        run = meddled("import", file, code=1)
    done = int(redis.admin("HGET", "gw:{cfg}:meta", "count"))
    assert 0 < done < 1000 and f"{done} of 1000 changes were made before that" in run.err
    redis.admin("DEL", "gw:{cfg}:p:p0700")
    run = ctl("import", file)
    assert run.out.splitlines()[-1] == f"{1000 - done} added, 0 changed, {done} unchanged"
    ctl("verify")


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_token_in_force_is_printed(ctl, redis, tmp_path, number):
    """Ctrl-C while a silent replica is waited for: the change is made, the old token has ended, and nobody would have the new one."""
    redis.open_port()
    ctl.add("--id", "acme")
    before = redis.admin("HGET", "gw:{cfg}:p:acme", "client_token_sha256")
    with running(tmp_path / "replica", passwords=redis.passwords) as replica:
        replica.replicate(redis)
        wait_for(lambda: redis.admin("ROLE")[2], "the master's word that the replica follows")
        with replica.stopped():
            rotating = ctl.start("token", "rotate", "acme", "--grace", "0s", "--yes", "--wait=60")
            wait_for(lambda: redis.admin("HGET", "gw:{cfg}:p:acme", "client_token_sha256") != before, "the change")
            rotating.send_signal(number)
            out, _ = rotating.communicate(timeout=DEADLINE_S)
    (token,) = TOKEN.findall(out.decode())
    ctl.tokens.append(token)
    assert rotating.returncode == -number  # it does not wait for gateways any more
    assert digest(token) == redis.admin("HGET", "gw:{cfg}:p:acme", "client_token_sha256")


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
