"""docs/OPERATIONS.md, "From an empty Redis to the first partner", pasted from the first block to the last.

Method: the blocks as they stand, in one bash that ends at the first command that fails. Only folders and ports are others. What a
newcomer would see is what is asserted.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from support.gateway import BINARY, ROOT
from support.proofctl import ENVIRONMENT, PROOFCTL, TOKEN
from support.redis import REDIS_SERVER, free_port
from support.wait import wait_for

NEEDED = ("redis-cli", "openssl", "curl")
pytestmark = pytest.mark.skipif(
    not REDIS_SERVER or not all(map(shutil.which, NEEDED)), reason="this machine lacks redis-server, redis-cli, openssl or curl"
)
PAGE = ROOT / "docs/OPERATIONS.md"
HEADING = "From an empty Redis to the first partner"
FOLDERS = ("/etc/proofgw", "/etc/redis", "/var/lib/proofgw", "/var/lib/redis")
PORTS = ("6379", "8080", "9901")
SECONDS = 60


def blocks():
    """{what stands in bold before the block: its commands}"""
    section = re.search(rf"^## {HEADING}\n(.*?)^## ", PAGE.read_text(encoding="utf-8"), re.M | re.S)[1]
    found = re.findall(r"^\*\*(.*?)\*\*.*?^```sh\n(.*?)^```$", section, re.M | re.S)
    assert len(found) == section.count("```sh")
    return {title.strip(" ."): commands for title, commands in found}


@pytest.fixture
def place(tmp_path, demo):
    """The page's folders and ports -> those of this test."""
    names = {name: str(tmp_path / name.strip("/").replace("/", "-")) for name in FOLDERS}
    ports = {}
    while len(set(ports.values())) < len(PORTS):
        ports = {port: str(free_port()) for port in PORTS}
    names |= {rf"\b{port}\b": other for port, other in ports.items()}
    names |= {"127.0.0.1:9000": demo.address}
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in (BINARY, PROOFCTL):
        (folder / program.name).symlink_to(program.resolve())
    yield names
    stop_redis(Path(names["/var/lib/redis"]) / "proofgw.pid")


def stop_redis(pid_file):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
        wait_for(lambda: not pid_file.exists(), "the end of Redis")


def paste(script, place, folder):
    """Runs it to the end; returns what was printed."""
    for pattern, other in place.items():
        script = re.sub(pattern, other, script)
    environment = {**ENVIRONMENT, "PATH": f"{folder / 'bin'}:{ENVIRONMENT['PATH']}"}
    output = folder / "printed"  # no pipe: what runs in the background would keep it open
    with output.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: process.poll() is not None, lambda: "the end of:\n" + output.read_text(errors="replace"), SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):  # the gateway too, when something went wrong
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    printed = output.read_text(errors="replace")
    assert process.returncode == 0, printed
    return printed


def test_the_page_from_the_first_block_to_the_last(place, tmp_path):
    steps = blocks()
    script = "".join(f"echo; echo '== {title}'\n{commands}" for title, commands in steps.items())
    printed = paste(script + "kill $GATEWAY && wait $GATEWAY\n", place, tmp_path)
    said = dict(zip(steps, printed.split("\n== ")[-len(steps) :], strict=True))
    assert "ready for partners" in said["Redis"]
    assert " live " in said["The gateway"] and "HTTP/1.1 200 OK" in said["The gateway"]
    assert "HTTP/1.1 201 Created" in said["The partner"] and '"merchant_transaction_id":"order-1"' in said["The partner"]
    rotated = said["Rotate with a grace period"]
    assert "\n200\n200\n" in rotated and "HTTP/1.1 401 Unauthorized" in rotated
    frames = (Path(place["/etc/proofgw"]) / "frames.txt").read_bytes()
    assert re.search(rb"\x88.\x03\xf0[^\x80-\xff]*\Z", frames, re.S)  # the last one: close, 1008
    revoked = said["Revoke"]
    assert re.search(r'"event":"tunnel_close".*"end":"token/tunnel"', revoked)
    actions = ["init", "partner add", "token rotate", "token finish", "token revoke"]
    assert [a for line in revoked.splitlines() for a in actions if f" {a} " in f" {line} "] == actions
    assert " live " in said["TLS to Redis"] and "applied by 1 gateway" in said["TLS to Redis"]

    assert len(set(TOKEN.findall(printed))) == 3
    for log in ("access.log", "operations.log"):
        text = (Path(place["/var/lib/proofgw"]) / log).read_text()
        assert text and not TOKEN.search(text)
