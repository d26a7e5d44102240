"""The operator's command as a process, and what must be true of every run of it."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path

from support.gateway import BINARY
from support.partners import Partner, digest, write_file
from support.wait import DEADLINE_S

PROOFCTL = Path(os.environ.get("PROOFCTL_BIN", BINARY.parent / "proofctl"))
TOKEN = re.compile(r"proof_live_[0-9A-Za-z]{49}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("PROOFCTL_") and key != "SUDO_USER"},
    "ASAN_OPTIONS": "detect_leaks=1:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
}


class Run:
    """One finished run: exit code, stdout and stderr as text."""

    def __init__(self, arguments, code, out, err):
        self.arguments, self.code, self.out, self.err = arguments, code, out, err

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def sentence(self):
        """The one line of stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]

    def __repr__(self):
        return f"proofctl {' '.join(map(str, self.arguments))} -> {self.code}\n{self.out}{self.err}"


class Proofctl:
    """proofctl("ip", "list", "acme") runs it on `store` and checks the exit code. Tokens that were issued are in
    `tokens`; they, and all digests, must appear nowhere but in the output that issues or exports them."""

    def __init__(self, store):
        self.store = Path(store)
        self.audit_file = self.store.with_name(self.store.name + ".audit")
        self.tokens = []
        self.certificates = []  # fingerprints, which are no secret

    def start(self, *arguments, **options):
        command = [str(PROOFCTL), "--store", str(self.store), *map(str, arguments)]
        defaults = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT}
        return subprocess.Popen(command, **{**defaults, **options})

    def finish(self, process, arguments=(), code=0):
        out, err = process.communicate(timeout=DEADLINE_S)
        run = Run(arguments, process.returncode, (out or b"").decode(), (err or b"").decode())
        assert run.code == code, run
        self.check_secrets(run)
        return run

    def __call__(self, *arguments, code=0, **options):
        return self.finish(self.start(*arguments, **options), arguments, code)

    def refused(self, *arguments, code=1):
        """A run that must change nothing at all; returns what it said."""
        before = self.state()
        run = self(*arguments, code=code)
        assert run.out == ""
        assert self.state() == before
        return run

    def answer(self, answer, *arguments, code=0, meanwhile=None):
        """Runs it on a terminal and answers its question with `answer`, after calling `meanwhile`."""
        master, slave = pty.openpty()
        process = self.start(*arguments, stdin=slave, stderr=slave)
        os.close(slave)
        asked = b""
        while b"[y/N] " not in asked:
            asked += os.read(master, 4096)
        if meanwhile:
            meanwhile()
        os.write(master, answer.encode() + b"\n")
        out, _ = process.communicate(timeout=DEADLINE_S)
        rest = b""
        try:
            while chunk := os.read(master, 4096):
                rest += chunk
        except OSError:  # EIO: nobody has the terminal open any more
            pass
        os.close(master)
        run = Run(arguments, process.returncode, out.decode(), (asked + rest).decode())
        assert run.code == code, run
        return run

    def add(self, *arguments, company="Acme", contact="ops@acme.example", ip="127.0.0.1"):
        """Adds a partner; returns what it printed, parsed. Its token is remembered."""
        return self(
            "partner", "add", "--company", company, "--contact", contact, "--ip", ip, "--json", *arguments
        ).json

    def state(self):
        """Everything that a refused command must leave alone: the file, the audit, and what else is in the folder."""
        files = sorted(p.name for p in self.store.parent.iterdir() if p.name.startswith(self.store.name) and p.suffix != ".lock")
        return {name: (self.store.parent / name).read_bytes() for name in files}

    def records(self):
        return [json.loads(line) for line in self.store.read_text(encoding="utf-8").splitlines() if line.strip()]

    def record(self, partner_id):
        return next(r for r in self.records() if r["partner_id"] == partner_id)

    def audit(self):
        """The lines of the audit file."""
        return [json.loads(line) for line in self.audit_file.read_text(encoding="utf-8").splitlines()]

    def _has_digest(self, text):
        return any(found not in self.certificates for found in _DIGEST.findall(text))

    def check_secrets(self, run):
        words = [a for a in run.arguments if not str(a).startswith("-")]
        issues, exports = words[:2] in (["partner", "add"], ["token", "rotate"]), words[:1] == ["export"]
        found = TOKEN.findall(run.out)
        assert len(found) == (1 if issues and run.code == 0 and run.out else 0), run
        self.tokens += found
        assert not TOKEN.search(run.err), run
        assert exports or not self._has_digest(run.out), run
        assert not self._has_digest(run.err), run
        kept = self.audit_file.read_text(encoding="utf-8") if self.audit_file.is_file() else ""
        assert not TOKEN.search(kept) and not self._has_digest(kept)
        stored = self.store.read_text(encoding="utf-8") if self.store.is_file() else ""
        assert not TOKEN.search(stored)


def fingerprint(token):
    return digest(token)[:8]


def with_partners(folder):
    """proofctl on a new file with two partners; "acme" (.partner) has addresses in both lists."""
    ctl = Proofctl(folder / "partners.ndjson")
    ctl.partner = Partner("acme", production=["192.0.2.7", "198.51.100.0/24"], sandbox=["203.0.113.16/28"])
    write_file(ctl.store, [ctl.partner, Partner("beta")])
    return ctl
