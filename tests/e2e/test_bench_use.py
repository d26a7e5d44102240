"""bench/run.py and compare.py say what is wrong, and lose nothing that was measured.

Method: the real scripts with mistakes in their arguments, descriptions and folders, interrupted in the middle, and on results
that were changed by hand. What they say is read, and what is left in their folders.
"""

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.gateway import BINARY, ROOT
from support.wait import wait_for

BENCH = ROOT / "bench"
SHORT = ("--rounds", "2", "--seconds", "0.05", "--partners", "20", "--connections", "50")
PATIENCE_S = 60


def command(script, *arguments):
    return ["/usr/bin/python3", "-B", str(BENCH / script), *map(str, arguments)]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Runs run.py with an empty folder for temporary files, and looks whether it is empty again."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))

    def run(*arguments, output=tmp_path / "output"):
        whole = command("run.py", *SHORT, "--build", BINARY.parent, "--output", output, *arguments)
        done = subprocess.run(whole, capture_output=True, text=True, timeout=PATIENCE_S)
        assert "Traceback" not in done.stderr, done.stderr
        assert not list(scratch.iterdir()), "files were left behind"
        return done

    return run


def refused(done, *words):
    assert done.returncode != 0, done.stdout
    for word in words:
        assert word in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) < 12, done.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--gateways", "nosuch"], ["nosuch.json", "--list"]),
        (["--gateways", "relay", "--scenarios", "A,NOPE"], ["no such scenario: NOPE"]),
        (["--gateways", "relay,relay"], ["more than one gateway is called relay"]),
        (["--gateways", "relay", "--rounds", "0"], ["1 round"]),
        (["--gateways", "relay", "--seconds", "0"], ["0.01 seconds"]),
        (["--gateways", "relay", "--connections", "-5"], ["10 connections"]),
        (["--quick", "--full"], ["either --quick or --full"]),
        (["--gateways", "relay", "--resume"], ["has no run to go on with"]),
    ],
)
def test_mistakes_in_arguments(bench, arguments, words):
    refused(bench(*arguments), *words)


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"name": "x"', ["mine.json", "delimiter"]),
        ("[]", ["not a JSON object"]),
        ('{"title": "x", "command": ["true"]}', ["name is missing"]),
        ('{"name": "x", "title": "x", "command": []}', ["command is missing"]),
        ('{"name": "x", "title": "x", "command": ["true"], "kind": "best"}', ["kind must be one of ours, limit, peer"]),
        ('{"name": "x", "title": "x", "comand": ["true"]}', ["unknown keys: comand"]),
        ('{"name": "x", "like": "nobody"}', ["nobody.json"]),
    ],
)
def test_mistakes_in_a_description(bench, tmp_path, text, words):
    path = tmp_path / "mine.json"
    path.write_text(text)
    refused(bench("--gateways", path, "--scenarios", "A"), *words)


def test_a_folder_that_cannot_be_written(bench, tmp_path):
    """It is found before anything is measured, and what was in the folder stays."""
    (tmp_path / "file").write_text("")
    refused(bench("--gateways", "relay", "--scenarios", "A", output=tmp_path / "file" / "output"), "cannot write", "Not a directory")

    done = bench("--gateways", "relay", "--scenarios", "A")
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "output/results.json").read_bytes()
    (tmp_path / "output/results.json.new").mkdir()
    refused(bench("--gateways", "relay", "--scenarios", "A"), "cannot write", "Is a directory")
    assert (tmp_path / "output/results.json").read_bytes() == before


def test_going_on(bench, tmp_path):
    """What is there is not measured again; what was measured in another way is refused."""
    assert bench("--gateways", "relay", "--scenarios", "A").returncode == 0
    first = json.loads((tmp_path / "output/results.json").read_text())
    more = bench("--gateways", "relay", "--scenarios", "A,B", "--resume")
    assert more.returncode == 0 and "\nB: " in "\n" + more.stdout and "A: GET" not in more.stdout, more.stdout + more.stderr
    both = json.loads((tmp_path / "output/results.json").read_text())
    assert both["scenarios"]["A"] == first["scenarios"]["A"] and list(both["scenarios"]) == ["A", "B"]

    for option, value in (("--connections", 60), ("--seconds", 0.06), ("--partners", 21), ("--rounds", 3)):
        refused(bench("--gateways", "relay", "--scenarios", "E", "--resume", option, value), "is of another run")
    refused(bench("--gateways", "relay,proofgw", "--scenarios", "E", "--resume"), "is of another run")
    assert json.loads((tmp_path / "output/results.json").read_text()) == both


def living(group):
    """Processes of a group; not those that have ended and that nobody has asked about."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group, *_ = stat.read_text().rpartition(")")[2].split()
            found += [stat] if int(its_group) == group and state != "Z" else []
    return found


def test_interrupted(tmp_path, monkeypatch):
    """By the terminal, which tells every process: all that was started is gone, what was complete is there."""
    scratch, output = tmp_path / "scratch", tmp_path / "output"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    whole = command("run.py", *SHORT, "--build", BINARY.parent, "--output", output, "--gateways", "relay", "--scenarios", "E,A")
    whole += ["--rounds", "60"]

    process = subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(lambda: (output / "results.json").exists() or process.poll() is not None, "the first scenario", PATIENCE_S)
        assert process.returncode is None, process.stderr.read()
        relay = next(scratch.glob("*/*-relay"))
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=PATIENCE_S)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130 and "interrupted" in said, said
    assert "/bench/" not in said, said  # no traceback of ours; Python's own may speak of a child that has not begun yet
    assert not relay.exists() and not list(scratch.iterdir())
    assert "E" in json.loads((output / "results.json").read_text())["scenarios"]
    wait_for(lambda: not living(process.pid), "all that it has started is gone")


@pytest.fixture
def compare(tmp_path):
    """compare.py on two results, given as {scenario: {gateway: costs of the rounds, or None}}."""

    def results(name, scenarios):
        path = tmp_path / name
        kinds = {gateway: "ours" if gateway == "proofgw" else "peer" for costs in scenarios.values() for gateway in costs}
        values = {
            name: {gateway: {"cost_us": rounds} if rounds else {"na": "gone"} for gateway, rounds in costs.items()}
            for name, costs in scenarios.items()
        }
        path.write_text(json.dumps({
            "format": 1, "date": name,
            "gateways": {gateway: {"kind": kind} for gateway, kind in kinds.items()},
            "scenarios": {name: {"shape": "cost", "values": each} for name, each in values.items()},
        }))  # fmt: skip
        return path

    def compare(old, new, *more):
        whole = command("compare.py", results("old.json", old), results("new.json", new), *more)
        done = subprocess.run(whole, capture_output=True, text=True, timeout=PATIENCE_S)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return compare


def test_compared_to_one_and_the_same_peer(compare):
    """Another peer is the best one in the new run, and it was not in the old one: that is no change of ours."""
    old = {"A": {"proofgw": [10.0] * 24, "nginx": [20.0] * 24}}
    done = compare(old, {"A": {"proofgw": [10.0] * 24, "nginx": [20.0] * 24, "other": [12.0] * 24}})
    assert done.returncode == 0 and "nginx = 1" in done.stdout, done.stdout
    assert compare(old, {"A": {"proofgw": [13.0] * 24, "nginx": [20.0] * 24}}).returncode == 1
    slower_machine = {"A": {"proofgw": [15.0] * 24, "nginx": [30.0] * 24}}
    assert compare(old, slower_machine).returncode == 0


def test_starts_differ(compare):
    """A few rounds of one start agree with each other more than with those of the next start."""
    old = {"A": {"proofgw": [10.0] * 3, "nginx": [20.0] * 3}}
    assert compare(old, {"A": {"proofgw": [11.0] * 3, "nginx": [20.0] * 3}}).returncode == 0
    old = {"A": {"proofgw": [10.0] * 120, "nginx": [20.0] * 120}}
    assert compare(old, {"A": {"proofgw": [11.0] * 120, "nginx": [20.0] * 120}}).returncode == 1


def test_a_figure_that_is_gone(compare):
    done = compare({"A": {"proofgw": [10.0, 10.0]}}, {"A": {"proofgw": None}})
    assert done.returncode == 1 and "WORSE" in done.stdout, done.stdout


def test_nothing_to_compare(compare, tmp_path):
    refused(compare({"A": {"proofgw": [1.0]}}, {"B": {"proofgw": [1.0]}}), "no figures of proofgw in common")
    refused(compare({"A": {"proofgw": [1.0]}}, {"A": {"proofgw": [1.0]}}, "--gateway", "nosuch"), "no figures of nosuch")
    (tmp_path / "torn.json").write_text('{"format": 1,')
    for path in tmp_path / "torn.json", tmp_path / "absent.json":
        for script in ["compare.py", path, path], ["report.py", path]:
            refused(subprocess.run(command(*script), capture_output=True, text=True), path.name)
