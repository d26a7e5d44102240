"""A real redis-server as a process: users with the least rights, data by the project's own script, and every way to end."""

import contextlib
import functools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from pathlib import Path

from support.gateway import ROOT
from support.wait import DEADLINE_S, wait_for

REDIS_SERVER = shutil.which("redis-server")
TAG = "cfg"

# What docs/DATA.md asks for. "admin" is the test itself; nobody else may do anything.
GATEWAY_RIGHTS = (
    "resetkeys %R~gw:{cfg}:* %W~gw:{cfg}:g:* resetchannels -@all "
    "+auth +ping +role +scan +hget +hmget +hgetall +xread +xrange +set +del +client|setname"
)
SENTINEL_RIGHTS = "resetkeys resetchannels -@all +auth +client|setname +sentinel|get-master-addr-by-name"
OPERATOR_RIGHTS = (
    "resetkeys %RW~gw:{cfg}:* resetchannels -@all "
    "+auth +ping +hget +hmget +hgetall +scan +sscan +xrange +xinfo|stream +hset +del +incr +xadd +eval +evalsha +wait"
)
_LITERAL = r'"(?:[^"\\]|\\.)*"'


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class RedisError(Exception):
    """An error reply."""


@functools.cache
def script(name):
    """The text of a script as the programs send it: read from the C source, so that there is no second copy of it."""
    source = (ROOT / "src/store/redis_schema.c").read_text(encoding="utf-8")
    match = re.search(rf"const char {name}\[\] =\s*((?:{_LITERAL}\s*)+);", source)
    assert match, f"{name} is not in redis_schema.c"
    return "".join(json.loads(literal) for literal in re.findall(_LITERAL, match[1]))


def fields_of(record):
    """A record of the partner file as the fields of a Redis hash: name, value, name, value ..."""
    fields = []
    for name, value in record.items():
        if name == "partner_id" or value == [] or value is None:
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        fields += [name, " ".join(value) if isinstance(value, list) else value]
    return fields


class Connection:
    """Commands in, replies out. `address`: the path of a unix socket, or a port on 127.0.0.1; with `authority`, of TLS."""

    def __init__(self, address, user=None, password=None, authority=None):
        is_port = isinstance(address, int)
        self.socket = socket.socket(socket.AF_INET if is_port else socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(("127.0.0.1", address) if is_port else address)
        if authority:
            self.socket = ssl.create_default_context(cafile=authority.file).wrap_socket(self.socket, server_hostname="localhost")
        self.stream = self.socket.makefile("rb")
        if user:
            self("AUTH", user, password)

    def __call__(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        lines = [b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)]
        return self.send(b"".join(lines), 1)[0]

    def send(self, commands, replies):
        """Commands as the protocol has them, all sent before the first reply is read; an error reply is raised."""
        self.socket.sendall(commands)
        return [self._reply() for _ in range(replies)]

    def _reply(self):
        line = self.stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("redis-server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.stream.read(int(rest) + 2)[:-2].decode()
        assert kind == b"*", line
        return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]

    def close(self):
        self.stream.close()
        self.socket.close()


class Redis:
    """One server on a unix socket, which it finds again after a restart. Made by running_redis()."""

    def __init__(self, folder, passwords=None, durable=False):
        """`durable`: what it answered for is still there after kill(); otherwise only what save() saved."""
        self.folder = folder
        self.durable = durable
        self.passwords = passwords or {user: f"pw_canary_{secrets.token_hex(16)}" for user in ("gateway", "operator", "admin")}
        self.password_file = folder / "gateway.password"
        self.write_password(self.passwords["gateway"])
        # The path of a unix socket has at most 107 bytes; the folder of a test may be longer than that.
        self._short = tempfile.TemporaryDirectory(prefix="gw-")
        self.socket_path = f"{self._short.name}/s"
        self.process = None
        self._connections = []

    # --- life

    def _write_config(self, gateway):
        lines = [
            "bind 127.0.0.1",
            "port 0",
            f"unixsocket {self.socket_path}",
            "unixsocketperm 700",
            'save ""',
            f"appendonly {'yes' if self.durable else 'no'}",
            "appendfsync always",
            "repl-diskless-sync-delay 0",
            f"dir {json.dumps(str(self.folder))}",
            # Nobody may log in as it, but a server that starts replays its append-only file with its rights.
            "user default off ~* &* +@all",
            f"user gateway {gateway} >{self.passwords['gateway']} {GATEWAY_RIGHTS}",
            f"user operator on >{self.passwords['operator']} {OPERATOR_RIGHTS}",
            f"user admin on >{self.passwords['admin']} ~* &* +@all",
        ]
        file = self.folder / "redis.conf"
        file.touch(mode=0o600)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file

    def start(self, gateway="on"):
        """`gateway`: "off" keeps the gateways out until `ACL SETUSER gateway on`."""
        with contextlib.suppress(FileNotFoundError):
            Path(self.socket_path).unlink()
        with open(self.folder / "redis.log", "ab") as log:
            self.process = subprocess.Popen(
                [REDIS_SERVER, str(self._write_config(gateway))], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self._answers, lambda: "redis-server:\n" + (self.folder / "redis.log").read_text())
        self.reconnect()
        return self

    def reconnect(self):
        self.admin = self.connect("admin")
        self.operator = self.connect("operator")

    def _answers(self):
        assert self.process.poll() is None, (self.folder / "redis.log").read_text()
        try:
            connection = Connection(self.socket_path, "admin", self.passwords["admin"])
        except (OSError, RedisError):
            return False
        try:
            return connection("PING") == "PONG"
        except RedisError:
            return False
        finally:
            connection.close()

    def open_port(self, port=None):
        """Listens on a TCP port as well, and returns it."""

        def opened():
            self.port = port or free_port()
            with contextlib.suppress(RedisError):  # somebody was faster
                return self.admin("CONFIG", "SET", "port", self.port)

        wait_for(opened, "a port")
        return self.port

    def open_tls_port(self, authority, certificate, key, clients="no"):
        """Listens on a TLS port as well, and returns it. `clients`: whether they must show a certificate."""
        self.admin("CONFIG", "SET", "tls-ca-cert-file", authority.file, "tls-auth-clients", clients)
        self.use_certificate(certificate, key)
        port = free_port()
        self.admin("CONFIG", "SET", "tls-port", port)
        return port

    def use_certificate(self, certificate, key):
        self.admin("CONFIG", "SET", "tls-cert-file", certificate, "tls-key-file", key)

    def follow(self, master):
        """Becomes a replica."""
        self.admin("CONFIG", "SET", "masteruser", "admin", "masterauth", self.passwords["admin"])
        self.admin("REPLICAOF", "127.0.0.1", master.port)

    def replicate(self, master):
        """The same, and waits until it has everything."""
        self.follow(master)
        wait_for(lambda: "master_link_status:up" in self.admin("INFO", "replication"), "the replication", 30)

    def connect(self, user):
        self._connections.append(Connection(self.socket_path, user, self.passwords[user]))
        return self._connections[-1]

    def kill(self):
        """SIGKILL; unless it is durable, what was not written to the disk by save() is lost."""
        for connection in self._connections:
            connection.close()
        self._connections = []
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)

    def save(self):
        self.admin("SAVE")

    def forget_saved(self):
        """The next start is one with an empty server."""
        (self.folder / "dump.rdb").unlink(missing_ok=True)

    @contextlib.contextmanager
    def stopped(self):
        """SIGSTOP: connections stay open, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.kill()
        self._short.cleanup()

    # --- what a gateway needs to know

    def write_password(self, text, mode=0o600):
        self.password_file.touch(mode=0o600)
        self.password_file.chmod(mode)
        self.password_file.write_text(text + "\n", encoding="utf-8")

    def config(self, **changes):
        """The section `store` of a gateway; `changes` are keys of store.redis, None takes one away."""
        redis = {
            "address": f"unix:{self.socket_path}",
            "user": "gateway",
            "password_file": str(self.password_file),
            "connect_timeout": "1s",
            "command_timeout": "2s",
            **changes,
        }
        kept = {key: value for key, value in redis.items() if value is not None}
        return {"kind": "redis", "file": None, "redis": kept}

    # --- data

    @staticmethod
    def key(rest):
        return f"gw:{{{TAG}}}:{rest}"

    def _keys(self):
        return [self.key("seq"), self.key("log"), self.key("meta")]

    def initialise(self):
        """What `proofctl init` does."""
        return self.operator("EVAL", script("redis_script_init"), 3, *self._keys(), secrets.token_hex(8))

    def _change(self, operation, partner_id, expected, fields, connection=None):
        key, nonce = self.key(f"p:{partner_id}"), secrets.token_hex(8)
        arguments = [operation, partner_id, expected, nonce, *fields]
        return (connection or self.operator)("EVAL", script("redis_script_write"), 4, key, *self._keys(), *arguments)

    def put(self, *partners, expected="", connection=None):
        """Writes partners by the script; the last sequence number. `connection`: another one of the operator's."""
        for partner in partners:
            fields = fields_of(partner.record())
            sequence, _, _ = self._change("set", partner.partner_id, expected, fields, connection)
        return int(sequence)

    def version(self, partner, connection):
        return int(connection("HGET", self.key(f"p:{partner.partner_id}"), "v") or 0)

    def record(self, partner):
        """The fields of a record, without its version."""
        pairs = self.operator("HGETALL", self.key(f"p:{partner.partner_id}"))
        return {name: value for name, value in zip(pairs[::2], pairs[1::2]) if name != "v"}

    def put_fields(self, partner_id, fields):
        """The same for fields that no Partner would have."""
        return int(self._change("set", partner_id, "", fields)[0])

    def enabled(self):
        """{partner id: token digest} of those that may come in, read from the records themselves."""
        found = {}
        for key in self.admin("KEYS", self.key("p:*")):
            pairs = self.admin("HGETALL", key)
            record = dict(zip(pairs[::2], pairs[1::2]))
            if record["enabled"] == "true":
                found[key.removeprefix(self.key("p:"))] = record["client_token_sha256"]
        return found

    def reports(self):
        """What gateways say of themselves: {instance: report}."""
        values = {key: self.admin("GET", key) for key in self.admin("KEYS", self.key("g:*"))}
        return {key.removeprefix(self.key("g:")): json.loads(value) for key, value in values.items() if value}

    def remove(self, partner):
        return int(self._change("del", partner.partner_id, "", [])[0])


class Sentinel:
    """One Sentinel that watches `master`; its word alone makes a failover. The replicas must be there already.

    Nobody may ask it without a login; the gateway's user has the rights of docs/DATA.md."""

    NAME = "partners"

    def __init__(self, folder, master, replicas, auth_user="admin", extra=(), login=(), tls=None):
        """It logs in to the servers as `auth_user`. `extra`: further lines of sentinel.conf; `login`: user and password by
        which the test logs in to it; `tls`: (authority, certificate, key), for its own port and to the master."""
        self.folder, self.tls = folder, tls
        self.login = login
        self.port = free_port()
        self.passwords = {user: f"pw_canary_{secrets.token_hex(16)}" for user in ("gateway", "admin")}
        folder.mkdir()
        self.password_file = folder / "gateway.password"
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(self.passwords["gateway"] + "\n", encoding="utf-8")
        config = folder / "sentinel.conf"
        config.touch(mode=0o600)
        lines = [
            "bind 127.0.0.1",
            *(self._tls_lines() if tls else [f"port {self.port}"]),
            f"dir {json.dumps(str(folder))}",
            "user default off resetkeys resetchannels -@all",
            f"user gateway on >{self.passwords['gateway']} {SENTINEL_RIGHTS}",
            f"user admin on >{self.passwords['admin']} ~* &* +@all",
            f"sentinel monitor {self.NAME} 127.0.0.1 {master.port} 1",
            f"sentinel auth-user {self.NAME} {auth_user}",
            f"sentinel auth-pass {self.NAME} {master.passwords[auth_user]}",
            f"sentinel down-after-milliseconds {self.NAME} 1500",
            f"sentinel failover-timeout {self.NAME} 5000",
            *extra,
        ]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        with open(folder / "sentinel.log", "wb") as log:
            self.process = subprocess.Popen(
                [REDIS_SERVER, str(config), "--sentinel"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self._connects, self.log)
        with contextlib.suppress(RedisError):  # new in Redis 7; without it, everything takes some seconds longer
            self("SENTINEL", "DEBUG", "info-period", 500)
        self.wait_replicas(replicas)

    def _tls_lines(self):
        authority, certificate, key = self.tls
        files = [f"tls-ca-cert-file {authority.file}", f"tls-cert-file {certificate}", f"tls-key-file {key}"]
        return ["port 0", f"tls-port {self.port}", "tls-auth-clients no", "tls-replication yes", *files]

    def log(self):
        return (self.folder / "sentinel.log").read_text()

    def _connects(self):
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(OSError):
            login = self.login or ("admin", self.passwords["admin"])
            self.connection = Connection(self.port, *login, self.tls[0] if self.tls else None)
            return True

    def wait_replicas(self, number):
        wait_for(lambda: self._fit_replicas() == number, self.log, 30)

    def _fit_replicas(self):
        """How many it would promote."""
        replicas = [dict(zip(r[::2], r[1::2])) for r in self("SENTINEL", "replicas", self.NAME)]
        return sum(r["flags"] == "slave" and r["master-link-status"] == "ok" for r in replicas)

    def __call__(self, *words):
        return self.connection(*words)

    def config(self):
        """Keys of store.redis that lead to it."""
        return {
            "address": None,
            "sentinel": {
                "master": self.NAME,
                "addresses": [{"address": f"127.0.0.1:{self.port}"}],
                "user": "gateway",
                "password_file": str(self.password_file),
            },
        }

    def wait_master(self, servers):
        """Waits until it names one of `servers`, and that one is a master; returns it."""

        def named():
            port = int(self("SENTINEL", "get-master-addr-by-name", self.NAME)[1])
            return [s for s in servers if s.port == port]

        master = wait_for(named, self.log, 30)[0]
        master.reconnect()  # Sentinel has closed all connections of the server that it promoted
        return master

    def close(self):
        self.process.kill()
        self.process.wait(DEADLINE_S)
        self.connection.close()


class BadLine:
    """A TCP port that leads to the server. What comes back on the next connections is spoilt as `faults` says, one
    connection each: ("close" | "reset" | "garbage", after so many bytes). After that, all is passed on, `slice` bytes at a
    time."""

    def __init__(self, redis, faults=(), slice=65536):
        self.redis, self.faults, self.slice = redis, list(faults), slice
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                server.connect(self.redis.socket_path)
                kind, left = self.faults.pop(0) if self.faults else (None, None)
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client, kind, left), daemon=True).start()

    @staticmethod
    def _forward(client, server):
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _back(self, server, client, kind, left):
        with contextlib.suppress(OSError):
            while data := server.recv(self.slice):
                if kind and left < len(data):
                    client.sendall(data[:left])
                    self._spoil(client, kind)
                    break
                client.sendall(data)
                left = left - len(data) if kind else None
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        client.close()
        server.close()

    @staticmethod
    def _spoil(client, kind):
        if kind == "garbage":
            client.sendall(b"%2\r\n\0\xff*999999999999\r\n$-7\r\n")
        elif kind == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@contextlib.contextmanager
def running_redis(folder, passwords=None, durable=False):
    folder.mkdir()
    server = Redis(folder, passwords, durable)
    try:
        yield server.start()
    finally:
        server.close()
