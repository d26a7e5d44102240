"""One thread of a process stands still, and the others go on."""

import contextlib
import ctypes
import os
from pathlib import Path

import pytest

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000


@contextlib.contextmanager
def stopped_thread(pid, name):
    """The thread of this name (w0: a worker) stands still inside the block."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    (tid,) = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == name]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(_SEIZE, tid, None, None):
        pytest.skip(f"may not trace: {os.strerror(ctypes.get_errno())}")
    try:
        assert libc.ptrace(_INTERRUPT, tid, None, None) == 0
        os.waitpid(tid, _WALL)
        yield
    finally:
        libc.ptrace(_DETACH, tid, None, None)
