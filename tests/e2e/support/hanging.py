"""A worker that hangs, as after a fault that nobody has thought of: strace keeps its thread from going on."""

import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.wait import wait_for


def pause(process, seconds, meanwhile=lambda: None):
    """The whole process stands still for so long, as one on a machine that is paused: only the clock goes on."""
    process.send_signal(signal.SIGSTOP)
    meanwhile()
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > end, "the clock", 2 * seconds)
    process.send_signal(signal.SIGCONT)


def wait_end(process):
    """Waits for the end of a process in which a thread is hanging(): its parent hears of it when strace has let go of the thread."""
    stat = Path(f"/proc/{process.pid}/stat")
    wait_for(lambda: state_of(stat) == "Z", f"the end of {process.pid}")


def state_of(stat):
    """Of a process or a thread, by its file in /proc: Z when it has ended and nobody has asked."""
    return stat.read_text().rpartition(")")[2].split()[0]


def task_of(process, thread):
    """Its folder in /proc; `thread` is its name, or None: the main one, whose name a sanitizer's own thread may have too."""
    tasks = Path(f"/proc/{process.pid}/task")
    if thread is None:
        return tasks / str(process.pid)

    def named():
        return [task for task in tasks.iterdir() if (task / "comm").read_text().strip() == thread]

    wait_for(lambda: len(named()) == 1, f"the thread {thread}")  # it gives itself its name
    return named()[0]


@contextlib.contextmanager
def hanging(process, thread, calls="epoll_wait,epoll_pwait", where="delay_enter"):
    """Inside the block this thread (as of task_of()) spends its life before its next wait for events, or at another system call."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    task = task_of(process, thread)
    tracer = subprocess.Popen(
        ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", f"--inject={calls}:{where}=100000000", "-p", task.name],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: tracer.poll() is not None or "TracerPid:\t0\n" not in (task / "status").read_text(), "strace")
        if tracer.poll() is not None:
            pytest.skip(f"may not trace: {tracer.stderr.read().strip()}")
        yield
    finally:
        tracer.kill()
        tracer.wait()
