"""proofctl on a real redis-server whose users are those that `proofctl acl` prints, exactly."""

import contextlib
import json
import re
import secrets
import socket
import subprocess
import threading

from support.partners import digest
from support.proofctl import ENVIRONMENT, PROOFCTL, TOKEN, Run
from support.redis import Redis
from support.wait import DEADLINE_S, wait_for

_DIGEST = re.compile(r"[0-9a-f]{64}")
ROLES = ("admin", "gateway", "operator", "sentinel", "replica", "asker")  # those that log in


def make_certificates(folder, host="127.0.0.1"):
    """A CA, a server certificate for `host`, one for another name, and a client's; PEM files <name>.crt and <name>.key."""
    folder.mkdir()

    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=folder)

    def request(name, subject, *more):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key",
                "-subj", f"/CN={subject}", *more)  # fmt: skip

    for ca in ("ca", "other-ca"):
        request(ca, ca, "-x509", "-days", "1", "-out", f"{ca}.crt")
    for name, alternative in (("server", f"IP:{host}"), ("stranger", "DNS:stranger.test"), ("client", "DNS:client.test")):
        request(name, name, "-out", f"{name}.csr")
        (folder / "extensions").write_text(f"subjectAltName={alternative}\n", encoding="utf-8")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
                "-extfile", "extensions", "-out", f"{name}.crt")  # fmt: skip
    return folder


class AclRedis(Redis):
    """A server with the users of `proofctl acl`; the test itself is "admin". `extra`: further lines of redis.conf."""

    def __init__(self, folder, passwords=None, extra=(), **options):
        passwords = passwords or {role: f"pw_canary_{secrets.token_hex(16)}" for role in ROLES}
        super().__init__(folder, passwords, **options)
        self.extra = list(extra)
        for role, password in passwords.items():
            file = self.password_of(role)
            file.touch(mode=0o600)
            file.write_text(password + "\n", encoding="utf-8")

    def password_of(self, role):
        return self.folder / f"{role}.password"

    def acl_line(self, role):
        command = [PROOFCTL, "acl", "-c", self.config_file(), "--role", role]
        if role != "default":
            command += ["--password-file", self.password_of(role)]
        return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout.strip()

    def _write_config(self, gateway):
        file = super()._write_config(gateway)
        lines = [line for line in file.read_text().splitlines() if not line.startswith("user ")]
        lines += [self.acl_line(role) for role in ("default", *ROLES) if role != "asker"] + self.extra
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    def config_file(self, name="proofctl.yaml", **changes):
        """A configuration that leads here; `changes` as for config()."""
        store = self.config(**changes)
        del store["file"]
        config = {
            "listeners": [{"address": "127.0.0.1:0"}],
            "environments": {"production": {"hosts": ["api.test"], "upstream": "127.0.0.1:1"}},
            "store": store,
        }
        path = self.folder / name
        path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        return path

    def replicate(self, master):
        self.admin("CONFIG", "SET", "masteruser", "replica", "masterauth", self.passwords["replica"])
        self.admin("REPLICAOF", "127.0.0.1", master.port)
        wait_for(lambda: "master_link_status:up" in self.admin("INFO", "replication"), "the replication", 30)

    def everything(self, reports=True):
        """All that is kept, as one text; without the reports of gateways, which change by themselves."""
        texts = []
        for key in self.admin("KEYS", "*"):
            if not reports and key.startswith(self.key("g:")):
                continue
            read = {"hash": ("HGETALL",), "string": ("GET",), "stream": ("XRANGE", "-", "+")}[self.admin("TYPE", key)]
            texts.append(json.dumps([key, self.admin(read[0], key, *read[1:])]))
        return "\n".join(sorted(texts))


class Ctl:
    """ctl("ip", "list", "acme") runs proofctl with the configuration, as the operator, and checks exit code and secrets."""

    def __init__(self, redis, config=None, user="operator"):
        self.redis, self.user = redis, user
        self.config = config or redis.config_file()
        self.tokens = []
        self.certificates = []  # fingerprints, which are no secret

    def start(self, *arguments, **options):
        login = ["--user", self.user, "--password-file", str(self.redis.password_of(self.user))] if self.user else []
        command = [str(PROOFCTL), "-c", str(self.config), *login, *map(str, arguments)]
        assert not any(password in word for word in command for password in self.redis.passwords.values())
        defaults = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT}
        return subprocess.Popen(command, **{**defaults, **options})

    def finish(self, process, arguments=(), code=0):
        out, err = process.communicate(timeout=3 * DEADLINE_S)
        run = Run(arguments, process.returncode, (out or b"").decode(), (err or b"").decode())
        if code is not None:
            assert run.code == code, run
        self.check_secrets(run)
        return run

    def __call__(self, *arguments, code=0, **options):
        return self.finish(self.start(*arguments, **options), arguments, code)

    def add(self, *arguments, company="Acme", ip="127.0.0.1"):
        return self("partner", "add", "--company", company, "--contact", "ops@acme.example", "--ip", ip, "--json", *arguments).json

    def check_secrets(self, run):
        words = [a for a in run.arguments if not str(a).startswith("-")]
        issues, exports = words[:2] in (["partner", "add"], ["token", "rotate"]), words[:1] == ["export"]
        found = TOKEN.findall(run.out)
        may_be_made = run.code in (0, 5) or "is not known" in run.err
        assert len(found) == (1 if issues and may_be_made else 0), run
        self.tokens += found
        assert not TOKEN.search(run.err), run
        digests = set(_DIGEST.findall(run.out + run.err)) - set(self.certificates)
        assert exports or words[:1] == ["acl"] or not digests, run
        assert not any(password in run.out + run.err for password in self.redis.passwords.values()), run


@contextlib.contextmanager
def running(folder, **kwargs):
    folder.mkdir()
    redis = AclRedis(folder, **kwargs)
    try:
        yield redis.start()
    finally:
        redis.close()


@contextlib.contextmanager
def operating(redis):
    """proofctl on `redis`. What is in there in the end has no token in clear, and no token's digest is in the audit."""
    ctl = Ctl(redis)
    yield ctl
    everything = redis.everything() if redis.process.poll() is None else ""
    assert not any(secret in everything for secret in (*ctl.tokens, *redis.passwords.values()))
    audit = [line for line in everything.splitlines() if ":audit" in line]
    assert not any(digest(token) in line for token in ctl.tokens for line in audit)


class Answering:
    """A TCP server that answers each command of its one client with the next of `answers`, then with the last again."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            connection, _ = self.listener.accept()
            with connection:
                while connection.recv(65536):
                    connection.sendall(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(DEADLINE_S)
