"""Gateways from their descriptions (bench/peers/*.json), started, proven and stopped.

A description is a JSON object; bench/peers/README.md explains it. In its texts and in the files that it names, @NAME@ is
replaced, and a line that begins with `#tls ` is there only when the gateway serves TLS.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from pathlib import Path

from harness import job, machine, partners

PEERS = Path(__file__).resolve().parent.parent / "peers"
STOP_S = 10
RELOAD_S = 60
KINDS = ("ours", "limit", "peer")
KEYS = {
    "name", "title", "kind", "like", "version", "files", "partner_files", "grant_files", "command", "vars", "reload",
    "reload_command", "tls", "lacks", "less", "partners_max", "environment", "variant",
}  # fmt: skip


class Unavailable(Exception):
    """This gateway cannot do this here; the text says why."""


class Ended(Unavailable):
    """It ended before it was ready."""


class BadDescription(Exception):
    """There is no such description, or it cannot be used; the text says why."""


def fill(text, values):
    return re.sub(r"@([A-Z0-9_]+)@", lambda match: str(values.get(match[1], match[0])), text)


def read_object(path):
    try:
        found = json.loads(path.read_text())
    except OSError as e:
        raise BadDescription(f"{path}: {e.strerror} (run.py --list shows the gateways)")
    except ValueError as e:
        raise BadDescription(f"{path}: {e}")
    if not isinstance(found, dict):
        raise BadDescription(f"{path}: not a JSON object")
    return found


class Description:
    def __init__(self, path):
        self.folder = path.resolve().parent
        own = read_object(path)
        unknown = own.keys() - KEYS
        if unknown:
            raise BadDescription(f"{path}: unknown keys: {', '.join(sorted(unknown))}")
        base = Description(self.folder / f"{own['like']}.json").data if "like" in own else {}
        self.data = {**base, **own, "vars": {**base.get("vars", {}), **own.get("vars", {})}}
        missing = [key for key in ("name", "title", "command") if not self.data.get(key)]
        if missing:
            raise BadDescription(f"{path}: {', '.join(missing)} is missing")
        self.name = self.data["name"]
        self.kind = self.data.get("kind", "peer")
        if self.kind not in KINDS:
            raise BadDescription(f"{path}: kind must be one of {', '.join(KINDS)}")

    def __getattr__(self, key):
        return self.data.get(key)

    def binary(self, tools):
        return shutil.which(fill(self.data["command"][0], {"BIN": tools}))

    def version_text(self, tools):
        """The first line that the version command prints."""
        if not self.version:
            return ""
        command = [fill(word, {"BIN": tools}) for word in self.version]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except OSError as e:
            return str(e)
        return ((done.stdout + done.stderr).strip().splitlines() or [""])[0]


def find(names, tools):
    """Descriptions by name, or by path for one of your own. Without names: all that are installed."""
    if names:
        found = [Description(Path(name) if name.endswith(".json") else PEERS / f"{name}.json") for name in names]
        twice = {d.name for d in found if sum(d.name == other.name for other in found) > 1}
        if twice:
            raise BadDescription(f"more than one gateway is called {', '.join(sorted(twice))}")
        return found
    known = [Description(path) for path in sorted(PEERS.glob("*.json"))]
    return sorted((d for d in known if d.binary(tools)), key=lambda d: KINDS.index(d.kind))


@contextlib.contextmanager
def interruptions_held():
    """Whoever interrupts this program inside waits for the end of the block, so that no process is forgotten."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Instance:
    """One running gateway. Use as a context manager, or call stop()."""

    def __init__(self, description, setting, *, tls=False, count=10_000, workers=1):
        self.description, self.setting, self.tls, self.count, self.workers = description, setting, tls, count, workers
        if tls and not description.tls:
            raise Unavailable("no TLS")
        if count > (description.partners_max or count):
            raise Unavailable(f"not made for more than {description.partners_max} partners")
        self.folder = setting.new_folder(description.name)
        self.plain_port, self.tls_port = machine.free_port(), machine.free_port()
        self.port = self.tls_port if tls else self.plain_port
        self.sets = {}
        self.write_files()
        self.lay_ready(changed=False)
        self.put_in_place()
        self.start()

    def values(self):
        return {
            "DIR": self.folder,
            "PORT": self.plain_port,
            "TLS_PORT": self.tls_port,
            "BACKEND": self.setting.backend.address,
            "WORKERS": self.workers,
            "PARTNERS": self.count,
            "HASH_SIZE": max(2048, self.count * 2),
            "CHAIN": self.setting.chain,
            "KEY": self.setting.key,
            "PEM": self.setting.pem,
            "BIN": self.setting.tools,
            "FILES": self.setting.descriptors,
            "CONNECTIONS": (self.setting.descriptors - 200) // 2,
            "PEERS": self.description.folder,
            **self.description.vars,
        }

    def write_files(self):
        for name, template in (self.description.files or {}).items():
            lines = fill((self.description.folder / template).read_text(), self.values()).splitlines()
            if self.tls:
                lines = [re.sub(r"^#tls ", "", line) for line in lines]
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")

    def partner_set(self, changed):
        """{file in use: one that holds the same partners, or those with one widget changed}; made when first asked for."""
        if changed not in self.sets:
            self.sets[changed] = self.write_partners(changed)
        return self.sets[changed]

    def write_partners(self, changed):
        d, made, opened = self.description, {}, []
        for key, per_network in (("partner_files", False), ("grant_files", True)):
            for name, line in (getattr(d, key) or {}).items():
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                made[path] = path.with_name(f"{path.name}.set{int(changed)}")
                opened.append((made[path].open("w"), line + "\n", per_network))
        for partner in partners.all_of(self.count, changed) if opened else []:
            values = partner.values()
            for file, line, per_network in opened:
                for cidr, network in partner.networks if per_network else [(None, None)]:
                    file.write(fill(line, {**values, "CIDR": cidr, "NETWORK": network}))
        for file, _, _ in opened:
            file.close()
        return made

    def lay_ready(self, changed):
        """Copies a set beside the files in use, so that put_in_place() only renames, as an operator's tool does."""
        for path, made in self.partner_set(changed).items():
            shutil.copyfile(made, path.with_name(path.name + ".new"))
        self.ready = changed

    def put_in_place(self):
        for path in self.partner_set(self.ready):
            os.replace(path.with_name(path.name + ".new"), path)
        self.changed = self.ready

    def start(self):
        """Twice if need be: what else runs here may have taken its port in the meantime."""
        try:
            self.try_start()
        except Ended:
            self.try_start()

    def try_start(self):
        d, values = self.description, self.values()
        command = [fill(word, values) for word in d.command]
        if not shutil.which(command[0]):
            raise Unavailable("not installed")
        cpus = self.setting.processors.for_workers(self.workers)
        environment = {**os.environ, **{key: fill(text, values) for key, text in (d.environment or {}).items()}}
        begin = time.monotonic()
        with (self.folder / "output.log").open("wb") as log, interruptions_held() as mask:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=lambda: (signal.pthread_sigmask(signal.SIG_SETMASK, mask), os.sched_setaffinity(0, cpus), machine.prefer_us()),
                start_new_session=True,  # a scheduling group of its own
            )
            self.setting.instances.append(self)
        try:
            self.wait_until_ready(begin + 20 + self.count / 20_000)
        except BaseException:
            self.end()  # its folder goes with that of the run: it may be started again
            raise
        self.start_s = time.monotonic() - begin
        self.softirq = machine.softirq_pids(cpus)

    def wait_until_ready(self, deadline):
        """Until the last caller of the set gets a 200."""
        why = "nothing listens"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Ended(f"it does not start: {self.last_words()}")
            try:
                why = job.try_get(self, partners.some(self.count)[-2])
            except ssl.SSLError as e:
                raise Unavailable(f"no TLS: {e.reason}")
            if not why:
                return
            time.sleep(0.002)
        raise Unavailable(f"not ready in time: {why}")

    def last_words(self):
        lines = (self.folder / "output.log").read_text(errors="replace").strip().splitlines()
        return " / ".join(line[:200] for line in lines[-3:]) or "without a word"

    def pids(self):
        return machine.tree(self.process.pid)

    def run_times_ns(self):
        return machine.run_times_ns(self.pids() + self.softirq)

    def update(self):
        """The partner data that lie ready come into force, the way this gateway does it. Returns when they are."""
        how = self.description.reload
        if not how:
            raise Unavailable("no reload")
        self.put_in_place()
        if self.description.reload_command:
            subprocess.run(
                [fill(word, self.values()) for word in self.description.reload_command],
                check=True,
                capture_output=True,
                timeout=RELOAD_S,
            )
        elif how != "watch":
            self.process.send_signal(getattr(signal, f"SIG{how}"))
        deadline = time.monotonic() + RELOAD_S
        while not job.knows(self, partners.Partner(0, True, self.changed)):
            if time.monotonic() > deadline:
                raise Unavailable(f"new partner data are not in force after {RELOAD_S} s")
            time.sleep(0.02)

    def restart(self):
        """Anew with the same files on the same ports."""
        self.end()
        self.start()

    def stop(self):
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def end(self):
        """Ends the whole tree, by pid. What does not end in time is killed."""
        if self not in self.setting.instances:
            return
        self.setting.instances.remove(self)
        pids = self.pids()
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in pids[1:]:
            try:
                if os.getpgid(pid) == self.process.pid:  # still one of ours, and no later process with this id
                    os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
