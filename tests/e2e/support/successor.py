"""Upgrades: the process of a gateway is replaced by one that it has started itself."""

import contextlib
import ctypes
import os
import signal
import subprocess
from pathlib import Path

from support.wait import wait_for

LISTEN = "0A"  # in /proc/net/tcp
_PR_SET_CHILD_SUBREAPER = 36


class Successor:
    """A process that is not this one's child until its parent has ended; looks like a subprocess.Popen."""

    def __init__(self, pid):
        self.pid = pid
        self.returncode = None

    def poll(self):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # its parent still lives
                return None
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout):
        try:
            wait_for(lambda: self.poll() is not None, "", timeout)
        except AssertionError:
            raise subprocess.TimeoutExpired(str(self.pid), timeout) from None
        return self.returncode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def upgrade(gateway, meanwhile=lambda: None):
    """SIGUSR2, `meanwhile()`, and waits until the new process serves: it is `gateway.process` then. Returns the old one."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    old, known, failed = gateway.process, len(gateway.events("upgraded")), len(gateway.events("upgrade_failed"))
    gateway.signal(signal.SIGUSR2)
    meanwhile()

    def outcome():
        assert len(gateway.events("upgrade_failed")) == failed, gateway.ops_text()
        return gateway.events("upgraded")[known:]

    (event,) = wait_for(outcome, gateway.ops_text, 30)
    gateway.process = Successor(int(event["pid"]))
    return old


def wait_left(old):
    """Waits until the old process listens no more: what it has accepted until then, it serves. Not if a worker hangs."""

    def listens():
        lines = [line.split() for f in ("tcp", "tcp6") for line in Path(f"/proc/net/{f}").read_text().splitlines()[1:]]
        sockets = {f"socket:[{inode}]" for _, _, _, state, *_, inode in (line[:10] for line in lines) if state == LISTEN}
        with contextlib.suppress(FileNotFoundError):  # one that was closed meanwhile, or the process has ended
            return any(os.readlink(fd) in sockets for fd in Path(f"/proc/{old.pid}/fd").iterdir())
        return old.poll() is None

    wait_for(lambda: not listens(), "the old process still listens")


def upgrade_refused(gateway):
    """SIGUSR2 that must change nothing; returns the reason."""
    known = len(gateway.events("upgrade_failed"))
    gateway.signal(signal.SIGUSR2)
    event = wait_for(lambda: gateway.events("upgrade_failed")[known:], gateway.ops_text, 30)[0]
    assert gateway.process.poll() is None
    return event["reason"]
