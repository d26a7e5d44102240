"""From rounds to figures: quartiles, ratios, percentiles, processor time; and what the load generator offers of TLS.

Method: the harness's own functions on numbers whose result is known, and on processes whose work is known.
"""

import subprocess
import sys

import pytest

from support.gateway import BINARY, ROOT

sys.path.insert(0, str(ROOT / "bench"))
from harness import figures, machine, scenarios, tables  # noqa: E402

LOAD = BINARY.parent / "bench" / "proof-load"


def of_costs(rate=0, **costs):
    """Results of one scenario A."""
    rows = {"util": [0.9], "per_second": [1000.0], "histogram": [[100, 90], [200, 10]]}
    kinds = {"ours": "ours", "limit": "limit"}
    return {
        "gateways": {name: {"kind": kinds.get(name, "peer"), "title": name} for name in costs},
        "scenarios": {
            "A": {
                "title": "GET", "shape": "cost", "unit": "us", "rate": rate,
                "values": {name: {"cost_us": rounds, **rows} if rounds else {"na": "no"} for name, rounds in costs.items()},
            }
        },
    }  # fmt: skip


def test_quantiles():
    assert figures.quantile([4, 1, 3, 2, 5], 0.25) == 2
    assert figures.quantile([1, 2], 0.25) == 1.25
    assert figures.quantile([7], 0.25) == 7


def test_percentiles():
    histogram = scenarios.merge([[10, 500], [30, 1]], [[10, 400], [20, 99]])
    assert histogram == [[10, 900], [20, 99], [30, 1]]
    found = [scenarios.percentile(histogram, share) for share in (0.5, 0.9, 0.901, 0.999, 1)]
    assert found == [10, 10, 20, 20, 30]
    assert scenarios.percentile([], 0.5) == 0


def test_ratios():
    """To the cheapest peer, neither to the limit nor to one without figures; of each round to the same round."""
    results = of_costs(ours=[5, 6, 30, 8], limit=[1, 1, 1, 1], cheap=[10, 12, 60, 16], dear=[20, 24, 30, 32], gone=None)
    scenario = results["scenarios"]["A"]
    assert figures.peers(results, scenario) == ["cheap", "dear"]
    row = figures.summary(results, scenario, "ours")
    assert row["cost"] == 5.75 and row["ratio"] == pytest.approx(5.75 / 11.5)
    assert row["by_rounds"] == 0.5 and row["noise"] == 0
    assert figures.summary(results, scenario, "gone") is None
    assert figures.of_median([1, 2, 3, 4, 5]) == (3, pytest.approx(1.57 * 2 / 5**0.5))


def test_a_rate_that_was_not_reached_is_marked():
    assert "1,000 of 2,000" in tables.text(of_costs(rate=2000, ours=[1.0], peer=[2.0]), "A")
    assert "1,000 of" not in tables.text(of_costs(rate=1005, ours=[1.0], peer=[2.0]), "A")
    assert "1,000 of" not in tables.text(of_costs(ours=[1.0], peer=[2.0]), "A")


def test_every_gateway_has_its_own_colour():
    """A variant of ours, too: their lines lie close together."""
    pytest.importorskip("matplotlib")
    from harness import page

    results = of_costs(ours=[1.0], limit=[1.0], **{f"peer{n}": [1.0] for n in range(7)})
    results["gateways"]["ours-nolog"] = {"kind": "ours", "title": "variant"}
    colours = page.colours(results)
    assert colours.keys() == results["gateways"].keys() and len(set(colours.values())) == 10
    assert colours["ours"] == page.OURS[0]


BUSY_THEN_IDLE = """
import sys, threading, time

def work():
    while time.thread_time() < 0.1:
        pass

for word in sys.stdin:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    print("done", flush=True)
"""


def test_processor_time():
    """All threads of all processes, also those that came and went meanwhile; a process that ended spoils the measurement."""
    command = [sys.executable, "-c", BUSY_THEN_IDLE]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        before = machine.run_times_ns([one.pid, other.pid])
        assert before.keys() == {one.pid, other.pid}
        for _ in range(2):
            one.stdin.write("work\n")
            one.stdin.flush()
            assert one.stdout.readline() == "done\n"
        assert machine.spent_ns(before, machine.run_times_ns([one.pid, other.pid])) >= 200_000_000
        other.communicate()
        one.communicate()
        assert machine.spent_ns(before, machine.run_times_ns([one.pid, other.pid])) is None


@pytest.mark.parametrize("suite, works", [("TLS_AES_128_GCM_SHA256", True), ("TLS_AES_256_GCM_SHA384", False)])
def test_one_suite_for_all(tmp_path, suite, works):
    """No gateway is compared with one that encrypts with longer keys."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*made, "-keyout", key, "-out", chain], check=True, capture_output=True)
    serve = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", chain, "-key", key, "-tls1_3", "-ciphersuites", suite, "-www"]
    server = subprocess.Popen(serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        address = next(line.split()[1] for line in server.stdout if line.startswith("ACCEPT"))
        load = [LOAD, "--target", address, "--tls", "--connections", "1", "--requests", "1"]
        done = subprocess.run(load, capture_output=True, text=True, timeout=30)
    finally:
        server.kill()
        server.communicate()
    assert ("handshake failed" in done.stderr) == (not works), done.stderr  # the answer itself, without a length, is refused
