"""bench/run.py measures what it says.

Goal: a figure never comes from a gateway that does not do the job, a run leaves nothing behind, and its result can be compared.

Method: the real harness with few and short rounds, on the gateway under test, the TCP relay, and two descriptions made here: the same
gateway under another name, and one that claims a job it does not do. How large the figures are is not judged.
"""

import json
import os
import subprocess

import pytest

from support.gateway import BINARY, ROOT

BENCH = ROOT / "bench"
SHORT = ("--rounds", 2, "--seconds", 0.1, "--partners", 20, "--connections", 50)


def run(script, *arguments):
    command = ["/usr/bin/python3", "-B", str(BENCH / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90)


def describe(folder, name, **changes):
    """A description of a gateway outside of the project's folder."""
    ours = json.loads((BENCH / "peers/proofgw.json").read_text())
    (folder / "proofgw.yaml").write_text((BENCH / "peers/proofgw.yaml").read_text())
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**ours, "name": name, "title": name, "kind": "peer", **changes}))
    return path


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Runs the harness; returns the results, and what is left in the folder for temporary files."""
    scratch, output = tmp_path / "scratch", tmp_path / "output"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))

    def measure(*gateways, scenarios, more=()):
        names = ",".join(map(str, gateways))
        chosen = ("--gateways", names, "--scenarios", scenarios, *SHORT, *more)
        done = run("run.py", "--build", BINARY.parent, "--output", output, *chosen)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not list(scratch.iterdir()), "files were left behind"
        return json.loads((output / "results.json").read_text()), output / "results.json"

    return measure


def test_figures(measured, tmp_path):
    results, path = measured("proofgw", "relay", describe(tmp_path, "twin"), scenarios="A,E,F403")
    for scenario in ("A", "E", "F403"):
        values = results["scenarios"][scenario]["values"]
        for name in ("proofgw", "twin"):
            assert len(values[name]["cost_us"]) == 2 and min(values[name]["cost_us"]) > 0
            operations = sum(n for _, n in values[name]["histogram"])
            assert operations > 10
    assert results["scenarios"]["F403"]["values"]["relay"] == {"na": "judges nobody"}
    assert results["machine"]["processors"] == len(os.sched_getaffinity(0))
    assert not any(results["gateways"]["proofgw"]["proofs"].values())

    same = run("compare.py", path, path)
    assert same.returncode == 0 and "WORSE" not in same.stdout, same.stdout + same.stderr
    for key in results["scenarios"]["A"]["values"]["proofgw"]["cost_us"], results["scenarios"]["E"]["values"]["proofgw"]["cost_us"]:
        key[:] = [3 * cost for cost in key]
    worse = path.with_name("worse.json")
    worse.write_text(json.dumps(results))
    changed = run("compare.py", path, worse)
    assert changed.returncode == 1 and changed.stdout.count("WORSE") == 2, changed.stdout + changed.stderr


def test_no_figure_without_the_job(measured, tmp_path):
    """It lets everybody in from anywhere, under an identity of its own choice; and one that does not start at all."""
    relay = ["@BIN@/bench/proof-relay", "127.0.0.1:@PORT@", "@BACKEND@"]
    blind = describe(tmp_path, "blind", files={}, partner_files={}, command=relay, tls=False)
    absent = describe(tmp_path, "absent", command=["@BIN@/no-such-program"])
    results, _ = measured(blind, absent, scenarios="A,F401,H")
    for scenario in ("A", "F401"):
        values = results["scenarios"][scenario]["values"]
        assert "X-Proof-Partner-Id" in values["blind"]["na"] or "401" in values["blind"]["na"]
        assert values["absent"] == {"na": "not installed"}
    assert set(results["scenarios"]["H"]["values"]["blind"]) == {"na"}


def test_no_figure_from_one_start(measured, tmp_path):
    """Every six rounds a gateway is started anew, and goes on where it was."""
    starts = tmp_path / "starts"
    command = ["/bin/sh", "-c", f'echo $$ >>{starts}; exec "$@"', "start", "@BIN@/proofgw", "run", "-c", "@DIR@/conf/gateway.yaml"]
    results, _ = measured(describe(tmp_path, "twin", command=command), scenarios="A", more=("--rounds", 13))
    assert len(set(starts.read_text().split())) == 3
    assert len(results["scenarios"]["A"]["values"]["twin"]["cost_us"]) == 13


def test_no_figure_after_a_start_that_failed(measured, tmp_path):
    """It can be started once: the rounds it had do not count, and no later scenario waits for it."""
    started = tmp_path / "started"
    command = ["/bin/sh", "-c", f'mkdir {started} && exec "$@"', "start", "@BIN@/proofgw", "run", "-c", "@DIR@/conf/gateway.yaml"]
    once = describe(tmp_path, "once", command=command)
    results, _ = measured("proofgw", once, scenarios="A,F403", more=("--rounds", 7))
    for scenario in ("A", "F403"):
        values = results["scenarios"][scenario]["values"]
        assert set(values["once"]) == {"na"} and str(started) in values["once"]["na"], values["once"]
        assert len(values["proofgw"]["cost_us"]) == 7


def test_latency_while_partner_data_are_exchanged(measured, tmp_path):
    """One start, one exchange and three on end, for each of three sizes: the gateway says that it has loaded each of them."""
    said = tmp_path / "said"
    command = ["/bin/sh", "-c", f'exec "$@" 2>>{said}', "start", "@BIN@/proofgw", "run", "-c", "@DIR@/conf/gateway.yaml"]
    twin = describe(tmp_path, "twin", command=command)
    (tmp_path / "sister.json").write_text('{"name": "sister", "title": "sister", "like": "twin", "variant": "name"}')
    results, path = measured(twin, tmp_path / "sister.json", "relay", scenarios="I")
    found = results["scenarios"]["I"]
    for size in ("20", "200", "2 k"):
        figures = {key: value for key, value in found["values"]["twin"].items() if key.endswith(f" {size}")}
        assert figures.pop(f"lost requests {size}") == figures.pop(f"lost connections {size}") == 0
        assert len(figures) == 5 and min(figures.values()) > 0, figures
        assert found["values"]["relay"]["na"][size] == "knows no partners"
        assert found["values"]["sister"]["na"][size] == "twin, but for its name"
    assert said.read_text().count("event=store_loaded ") >= 3 * (1 + 1 + 3)
