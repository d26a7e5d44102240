"""The real binary as a process: configuration, start, logs, metrics, end, and what must be true of every run."""

import contextlib
import copy
import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from support import partners as partner_file
from support.client import Client
from support.wait import DEADLINE_S, wait_for

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("PROOFGW_BIN", ROOT / "build/dev/proofgw"))
HOST, SANDBOX_HOST = "api.test", "sandbox.test"

_PAIR = re.compile(r'([a-z_0-9]+)=("(?:[^"\\]|\\.)*"|\S*)')
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
_TROUBLE = re.compile(
    rb"Sanitizer|runtime error:|event=BUG|BUG:|^==\d+==|double free|stack smashing|buffer overflow detected", re.M
)
_SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:exitcode=99:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
    "TSAN_OPTIONS": f"halt_on_error=1:exitcode=99:suppressions={ROOT}/tests/tsan.supp",
}


def is_sanitized(binary=None):
    """The binary was built with a sanitizer: several times slower, and with other memory."""
    content = Path(binary or BINARY).read_bytes()
    return b"__asan_" in content or b"__tsan_" in content


def release_binary():
    """The gateway without sanitizers: the one under test, PROOFGW_RELEASE_BIN, or the release build beside it. Skips the
    test when there is none."""
    for path in (BINARY, Path(os.environ.get("PROOFGW_RELEASE_BIN", ROOT / "build/release/proofgw"))):
        if path.exists() and not is_sanitized(path):
            return path
    pytest.skip("there is no build without sanitizers: cmake --preset release && cmake --build --preset release")


def to_yaml(value, indent=0):
    """Block YAML of dicts, lists of dicts, and scalars; scalars as JSON, which YAML reads the same way."""
    space = " " * indent
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{space}{key}:", to_yaml(item, indent + 2)]
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            lines.append(f"{space}{key}:")
            for entry in item:
                text = to_yaml(entry, indent + 4)
                lines.append(f"{space}  - {text.lstrip()}")
        else:
            lines.append(f"{space}{key}: {json.dumps(item)}")
    return "\n".join(lines)


def merge(base, changes):
    """`base` with `changes` laid over it, section by section; None takes a key away."""
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


class Metrics:
    """One scrape. metrics["name"] is the sum over all series; metrics("name", label="value") one of them."""

    def __init__(self, text):
        self.text = text
        self.samples = []
        for line in text.splitlines():
            if line and not line.startswith("#"):
                match = _SAMPLE.fullmatch(line)
                assert match, f"not a sample: {line!r}"
                self.samples.append((match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])))

    def __call__(self, name, **labels):
        found = [
            value
            for key, have, value in self.samples
            if key == name and all(have.get(k) == str(v) for k, v in labels.items())
        ]
        return sum(found)

    def __getitem__(self, name):
        assert any(key == name for key, _, _ in self.samples), f"no metric {name}"
        return self(name)


def parse_event(line):
    """`time=... event=... key=value` as a dict."""
    return {
        key: json.loads(value) if value.startswith('"') else value for key, value in _PAIR.findall(line)
    }


class Gateway:
    """One process. Made by running(); tests get it from the `proofgw` fixture."""

    def __init__(self, folder, partners, config, exit_code=0, binary=None, env=None, prefix=(), pass_fds=()):
        self.folder = folder
        self.partners = partners
        self.exit_code = exit_code  # what the end of the test expects
        self.secrets = []  # further texts that must appear in nothing the process writes
        self.clients = []
        self.ports = []  # of the TCP listeners, in the order of the configuration
        self._tokens = []
        self._scrapes = []
        self._stdout, self._stderr = folder / "access.log", folder / "ops.log"
        folder.mkdir(parents=True)
        self.write_partners(partners)
        self.config_file = folder / "gateway.yaml"
        self.config = config
        self.configure()
        with open(self._stdout, "wb") as out, open(self._stderr, "wb") as err:
            self.process = subprocess.Popen(
                [*prefix, str(binary or BINARY), "run", "-c", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env={**os.environ, **_SANITIZERS, **(env or {})},
                pass_fds=pass_fds,
                start_new_session=True,
            )
        self.group = self.process.pid  # also of the processes that take over from it

    # --- start

    def wait_started(self, ready):
        def started():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.ops_text()}"
            return self.events("started") and (self.events("store_loaded") or not ready)

        wait_for(started, lambda: "start:\n" + self.ops_text())
        for event in self.events("listening"):
            address = event["address"]
            if not address.startswith("unix:"):
                self.ports.append(int(address.rsplit(":", 1)[1]))
        admin = self.events("admin_listening")
        self.admin_port = int(admin[0]["address"].rsplit(":", 1)[1]) if admin else None

    @property
    def port(self):
        return self.ports[0]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    # --- clients

    def client(self, address=None, source=None):
        """A connection to the first listener, or to another address. It is closed when the test ends."""
        client = Client(address or ("127.0.0.1", self.port), source)
        self.clients.append(client)
        return client

    # --- configuration

    def configure(self, **changes):
        """Lays `changes` over the configuration and replaces its file; nobody is told."""
        self.config = merge(self.config, changes)
        replacement = self.config_file.with_suffix(".new")
        replacement.write_text(to_yaml(self.config) + "\n", encoding="utf-8")
        replacement.rename(self.config_file)

    def reload(self, **changes):
        """The same, then SIGHUP; waits until the new one is in force, and returns its number. For gateways with
        reload_on_change=False: else the change may be taken over twice."""
        before = self.metrics()["proofgw_config_generation"]
        self.configure(**changes)
        self.signal(signal.SIGHUP)
        return int(self.wait_metric("proofgw_config_generation", lambda v: v > before)["proofgw_config_generation"])

    def reload_refused(self, text=None, **changes):
        """A reload that must change nothing; returns the lines of the log that say why. `text`: of the file."""
        failed = self.metrics()("proofgw_config_reloads_total", result="failed")
        known = len(self.events("config_reload_failed"))
        if text is None:
            self.configure(**changes)
        else:
            self.config_file.write_text(text, encoding="utf-8")
        self.signal(signal.SIGHUP)
        scrape = self.wait_metric("proofgw_config_reloads_total", failed + 1, result="failed")
        assert scrape["proofgw_config_last_reload_successful"] == 0
        return wait_for(lambda: self.events("config_reload_failed")[known:], self.ops_text)

    # --- partners

    def write_partners(self, partners):
        """Replaces the partner file; the gateway watches it."""
        self.partners = partners
        self._tokens += [token for p in partners for token in p.tokens]
        partner_file.write_file(self.folder / "partners.ndjson", partners)

    def update_partners(self, partners):
        """The same, and waits until the gateway has taken it over."""
        before = self.metrics()["proofgw_store_loads_total"]
        self.write_partners(partners)
        self.wait_metric("proofgw_store_loads_total", lambda v: v > before)

    # --- what it writes

    def ops_text(self):
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def events(self, name=None):
        """Lines of the operations log as dicts."""
        lines = [parse_event(line) for line in self.ops_text().splitlines()]
        return [line for line in lines if line.get("event") == name or name is None]

    def wait_event(self, name, n=1):
        return wait_for(
            lambda: len(self.events(name)) >= n and self.events(name), lambda: f"event={name}:\n{self.ops_text()}"
        )

    def access(self, event=None):
        """Lines of the access log as dicts."""
        text = self._stdout.read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        return [line for line in lines if line["event"] == event or event is None]

    def wait_access(self, n=1, event=None):
        """Waits for `n` lines in all and returns them."""
        wait_for(
            lambda: len(self.access(event)) >= n,
            lambda: f"{n} access lines; there are:\n{self._stdout.read_text(encoding='utf-8')}",
        )
        return self.access(event)

    def line_of(self, answer):
        """The access log line of an answer, found by its X-Request-Id."""

        def found():
            return [line for line in self.access() if line["request_id"] == answer["x-request-id"]]

        lines = wait_for(found, lambda: f"a line for {answer['x-request-id']}:\n{self._stdout.read_text()}")
        assert len(lines) == 1, lines
        return lines[0]

    # --- admin

    def admin(self, path):
        """(status, body) of an admin page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=DEADLINE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()
        except OSError as problem:
            raise AssertionError(f"no admin page: {problem}\n{self.ops_text()}") from None

    def metrics(self):
        status, text = self.admin("/metrics")
        assert status == 200, text
        self._scrapes.append(text)
        return Metrics(text)

    def wait_metric(self, name, wanted, **labels):
        """Waits until the value is `wanted` (a number or a predicate); returns that scrape."""
        test = wanted if callable(wanted) else lambda value: value == wanted
        seen = []

        def check():
            scrape = self.metrics()
            seen.append(scrape(name, **labels))
            return scrape if test(seen[-1]) else None

        return wait_for(check, lambda: f"{name}{labels}: last seen {seen[-1]}")

    # --- end

    def signal(self, number):
        self.process.send_signal(number)
        if number == signal.SIGSTOP:  # comes to each thread when the kernel gets to it
            wait_for(self._is_stopped, "every thread stands still")

    def _is_stopped(self):
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{self.process.pid}/task").glob("*/stat")]
        return set(states) == {"T"}

    def wait_exit(self):
        """Waits for the end of the process; returns the exit code."""
        try:
            return self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.ops_text()}") from None

    def end_clients(self):
        """With a reset: after a FIN alone, a client may still be waiting for its answer, and the gateway with it."""
        for client in self.clients:
            client.reset()

    def finish(self):
        """The end of every test: nothing may be left, and nothing may have gone wrong."""
        self.end_clients()
        if self.process.poll() is None and self.admin_port:
            for gauge in ("proofgw_connections_open", "proofgw_exchanges_active", "proofgw_tunnels_open"):
                self.wait_metric(gauge, 0)
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        code = self.wait_exit()
        self.check_output()
        assert code == self.exit_code, f"exit code {code} instead of {self.exit_code}:\n{self.ops_text()}"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, 0)
            raise AssertionError("it left a process behind")

    def check_output(self):
        """Sanitizer reports, BUG lines, and secrets, in everything the process ever wrote."""
        trouble = self._stderr.read_bytes()
        assert not _TROUBLE.search(trouble), trouble.decode(errors="replace")
        written = {path.name: path.read_bytes() for path in self.folder.iterdir() if path.suffix == ".log"}
        written["metrics"] = "\n".join(self._scrapes).encode()
        for secret in {*self._tokens, *self.secrets}:
            for name, content in written.items():
                assert secret.encode() not in content, f"a secret is in {name}"

    def kill(self):
        """After a failure: whatever state it is in, it ends now."""
        self.end_clients()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)


def default_config(upstream, sandbox_upstream=None):
    return {
        "workers": 1,
        "listeners": [{"address": "127.0.0.1:0"}],
        "environments": {
            "production": {"hosts": [HOST], "upstream": upstream},
            "sandbox": {"hosts": [SANDBOX_HOST], "upstream": sandbox_upstream or upstream},
        },
        "store": {"file": "partners.ndjson"},
        "logs": {"access": "stdout", "operations": "stderr"},
        "admin": {"address": "127.0.0.1:0"},
        # Every test ends with a drain: those that are not about it need not wait for clients that say nothing.
        "timeouts": {"drain_keep_alive": "300ms", "drain_tunnels": "0s"},
    }


@contextlib.contextmanager
def running(folder, upstream, partners, sandbox_upstream=None, exit_code=0, ready=True, process=None, **changes):
    """A gateway that has started and, unless ready=False, has its partners; `changes` are sections of the
    configuration, laid over default_config(); `process` are arguments of Gateway. Leaving the block ends it and
    checks everything in finish()."""
    config = merge(default_config(upstream, sandbox_upstream), changes)
    gateway = Gateway(folder, partners, config, exit_code, **(process or {}))
    try:
        gateway.wait_started(ready)
        yield gateway
        gateway.finish()
    finally:
        gateway.kill()


class DemoBackend:
    """The project's own proof-demo-backend, for tests with real clients."""

    def __init__(self, *arguments):
        binary = os.environ.get("PROOFGW_DEMO_BACKEND", BINARY.parent / "bench/proof-demo-backend")
        self.process = subprocess.Popen([str(binary), *arguments], stdout=subprocess.PIPE, env={**os.environ, **_SANITIZERS})
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on "), line
        self.address = line.split()[-1]

    def close(self):
        self.process.terminate()
        self.process.wait(DEADLINE_S)
        self.process.stdout.close()
