"""What a request costs, in figures without noise: system calls and instructions.

Goal: no change makes a request more expensive without somebody noticing.

Method: one connection, so that nothing is batched and every run is the same: a request is two wake-ups. Figures are the difference of
two runs that differ only in the number of requests, so start, connecting and attaching are not in them.

  system calls   strace -c on all threads. Per proxied request and per echo two receives, two sends, two waits, and nothing else; a refusal
                 takes half of that. That follows from the design (docs/ARCHITECTURE.md, I/O) and holds on any machine.
  instructions   valgrind --tool=callgrind on the release build. They depend on compiler and libraries: within 10 % of what was counted
                 with the versions named below, and nowhere more than half as much again.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest

from support import gateway as gateway_module
from support.gateway import BINARY, HOST, release_binary, running
from support.wait import wait_for

LOAD = os.environ.get("PROOFGW_LOAD", BINARY.parent / "bench/proof-load")
POST = ("--path", "/widget/session", "--body", '{"merchant_transaction_id":"' + "m" * 220 + '"}')
KINDS = {"GET": (), "POST": POST, "401": ("--expect", 401), "echo": ("--ws", "--message-bytes", 64)}

RECEIVES = {"recvfrom", "recvmsg", "read"}
SENDS = {"sendto", "sendmsg", "write", "writev"}
WAITS = {"epoll_wait", "epoll_pwait"}
CALLS = {"GET": 2, "POST": 2, "401": 1, "echo": 2}  # of each of the three
SLACK = 0.1  # random bytes come in blocks; a thread may start meanwhile

COUNTED_WITH = {"gcc": "12.2", "openssl": "3.0", "libuv": "1.44"}
INSTRUCTIONS = {"GET": 13_000, "POST": 15_100, "401": 10_200, "echo": 2_500}


def log_elsewhere(folder):
    """Access log on, but not in the folder of the partner file, which is watched: each line would wake the watcher."""
    folder.mkdir()
    return {"access": str(folder / "access.log"), "operations": "stderr"}


def load(gateway, partner, kind, operations):
    token = partner.token if kind != "401" else "x" * 40
    command = [LOAD, "--target", f"127.0.0.1:{gateway.port}", "--host", HOST, "--header", f"Authorization: Bearer {token}"]
    command += ["--connections", 1, "--requests", operations, *KINDS[kind]]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def tracing(pid, summary):
    """strace is attached to all threads inside the block; afterwards `summary` holds its table."""
    with open(summary.with_suffix(".log"), "w+") as log:
        tracer = subprocess.Popen(["strace", "-c", "-f", "-o", summary, "-p", str(pid)], stderr=log)
        threads = len(os.listdir(f"/proc/{pid}/task"))

        def attached():
            text = summary.with_suffix(".log").read_text()
            if re.search(r"ptrace\(.*Operation not permitted", text):
                pytest.skip(f"may not trace: {text.strip()}")
            assert tracer.poll() is None, f"strace has ended: {text.strip()}"
            return "attached" in text and all_traced()

        def all_traced():
            status = [open(f"/proc/{pid}/task/{tid}/status").read() for tid in os.listdir(f"/proc/{pid}/task")]
            return len(status) == threads and not any(re.search(r"^TracerPid:\s+0$", text, re.M) for text in status)

        try:
            wait_for(attached, "strace does not attach")
            yield
        finally:
            tracer.terminate()
            tracer.wait()


def count_calls(gateway, partner, kind, operations, summary):
    """{name: number}; the log thread's writes, which depend on time and not on requests, are taken out with their waits (poll)."""
    with tracing(gateway.process.pid, summary):
        load(gateway, partner, kind, operations)
    rows = [line.split() for line in summary.read_text().splitlines()[2:]]
    counts = {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"}
    polls = counts.pop("poll", 0)
    counts["write"] = max(0, counts.get("write", 0) - polls - 1)
    return counts


def skip_under_tsan():
    """Its runtime makes system calls of its own, and all figures are taken with the build under ASan already."""
    if b"__tsan_init" in BINARY.read_bytes():
        pytest.skip("counted once, with the build under ASan")


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_system_calls(proofgw, demo, partner, tmp_path, kind):
    skip_under_tsan()
    few, many = 200, 3200
    gateway = proofgw(upstream=demo.address, logs=log_elsewhere(tmp_path / "log"))
    load(gateway, partner, kind, 100)  # the connection to the backend is there
    before = count_calls(gateway, partner, kind, few, tmp_path / "few")
    after = count_calls(gateway, partner, kind, many, tmp_path / "many")
    each = {name: (after.get(name, 0) - before.get(name, 0)) / (many - few) for name in {*before, *after}}

    def of(names):
        return sum(each.get(name, 0) for name in names)

    assert of(RECEIVES) == pytest.approx(CALLS[kind], abs=SLACK), each
    assert of(SENDS) == pytest.approx(CALLS[kind], abs=SLACK), each
    assert of(WAITS) <= CALLS[kind] + SLACK + each.get("poll", 0), each
    assert of(each.keys() - RECEIVES - SENDS - WAITS) <= SLACK, each


def is_reference():
    """Compiler and libraries are those of the reference figures."""
    found = {
        "gcc": subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True).stdout,
        **{
            name: subprocess.run(["pkg-config", "--modversion", name], capture_output=True, text=True).stdout
            for name in ("openssl", "libuv")
        },
    }
    return all(found[name].startswith(version) for name, version in COUNTED_WITH.items())


@pytest.fixture
def counted(demo, monkeypatch, tmp_path):
    """The gateway under callgrind; returns the file where the total will be. `demo` has been started by then."""
    if not shutil.which("valgrind"):
        pytest.skip("valgrind is not installed")
    skip_under_tsan()
    log, script = tmp_path / "valgrind.log", tmp_path / "proofgw-counted"
    options = f"--tool=callgrind --log-file={log} --callgrind-out-file={tmp_path}/callgrind.out"
    script.write_text(f'#!/bin/sh\nexec valgrind {options} {release_binary()} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(gateway_module, "BINARY", script)
    return log


def count_instructions(folder, demo, partner, kind, operations, log):
    logs = log_elsewhere(folder.with_name(folder.name + "-log"))
    with running(folder, demo.address, [partner], logs=logs) as gateway:
        load(gateway, partner, kind, operations)
        gateway.signal(signal.SIGTERM)
        gateway.wait_exit()
    return int(re.search(r"Collected : (\d+)", log.read_text())[1])


@pytest.mark.parametrize("kind", KINDS)
def test_instructions(counted, demo, partner, tmp_path, kind):
    few, many = 200, 4200 if kind == "echo" else 1000  # what the clock does meanwhile must not count
    before = count_instructions(tmp_path / "few", demo, partner, kind, few, counted)
    after = count_instructions(tmp_path / "many", demo, partner, kind, many, counted)
    each = (after - before) / (many - few)
    tolerance = 1.10 if is_reference() else 1.50
    print(f"{kind}: {each:.0f} instructions")
    assert each <= INSTRUCTIONS[kind] * tolerance
    if is_reference():
        assert each >= INSTRUCTIONS[kind] / tolerance, "cheaper than before: make this the new reference"
