#!/usr/bin/python3
"""What changed between two runs beyond the noise.

    bench/compare.py OLD/results.json NEW/results.json [--gateway proofgw]

Costs are compared as ratios to the best peer of the old run, in both runs to the same one, so that the machine's mood cancels
out; a change counts when it is larger than the noise of both together: of the medians, and from start to start of a gateway.
Counted figures (system calls) and memory count from 2 % on. A figure that only the old run has counts as worse. Leaves with 1
when something got worse, with 2 when there is nothing to compare.
"""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import figures, tables  # noqa: E402
from harness.scenarios import ROUNDS_PER_START  # noqa: E402

TOLERANCE = 0.02
START_NOISE = 0.1  # a share of the ratio: rounds of one start have it in common, so their own spread does not show it
NOISY = ("p99.9", "start")  # one value per run: from 50 % on


def of_cost(old, new, name, gateway):
    """(what, before, after, noise) of a cost scenario."""
    scenarios = [r["scenarios"][name] for r in (old, new)]
    if not figures.is_able(scenarios[0]["values"][gateway]):
        return
    if not figures.is_able(scenarios[1]["values"][gateway]):
        yield "us", figures.cost(scenarios[0]["values"][gateway]), None, 0
        return
    also = figures.peers(new, scenarios[1])
    base = next((peer for peer in figures.peers(old, scenarios[0]) if peer in also and peer != gateway), None)
    if base:
        what, both = f"by rounds, {base} = 1", [figures.ratios_by_round(s, gateway, base) for s in scenarios]
    else:
        what, both = "us, without a peer", [s["values"][gateway]["cost_us"] for s in scenarios]
    (before, noise), (after, more) = map(figures.of_median, both)
    of_starts = [START_NOISE * before / math.sqrt(math.ceil(len(rounds) / ROUNDS_PER_START)) for rounds in both]
    yield what, before, after, math.hypot(noise, more, *of_starts)


def of_figures(old, new, name, gateway):
    before, after = (r["scenarios"][name]["values"][gateway] for r in (old, new))
    for key in old["scenarios"][name]["columns"]:
        if key in before:
            share = 0.5 if any(word in key for word in NOISY) else TOLERANCE
            yield key, before[key], after.get(key), abs(before[key]) * share


def of_curve(old, new, name, gateway):
    before, after = (r["scenarios"][name]["values"][gateway] for r in (old, new))
    later = dict(zip(after["x"], after["cost_us"]))
    for x, cost in zip(before["x"], before["cost_us"]):
        yield f"us at {x:,} {old['scenarios'][name]['axis']}", cost, later.get(x), 0.15 * cost


def changes(old, new, gateway):
    """Of every scenario that both runs have: (scenario, what, before, after or None, noise)."""
    of_shape = {"cost": of_cost, "figures": of_figures, "curve": of_curve}
    for name, scenario in old["scenarios"].items():
        other = new["scenarios"].get(name)
        if not other or gateway not in scenario["values"] or gateway not in other["values"]:
            continue
        for what, before, after, noise in of_shape[scenario["shape"]](old, new, name, gateway):
            yield name, what, before, after, noise


def verdict_of(before, after, noise):
    if after is None:
        return "WORSE"
    return "" if abs(after - before) <= noise else "WORSE" if after > before else "better"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("old", type=Path)
    p.add_argument("new", type=Path)
    p.add_argument("--gateway", default="proofgw")
    o = p.parse_args()
    try:
        old, new = tables.read(o.old), tables.read(o.new)
    except tables.Unreadable as e:
        p.error(e)
    found = list(changes(old, new, o.gateway))
    if not found:
        p.error(f"the two runs have no figures of {o.gateway} in common")
    print(f"{o.gateway}: {old['date']} -> {new['date']}")
    verdicts = [verdict_of(*change[2:]) for change in found]
    for (name, what, before, after, noise), verdict in zip(found, verdicts):
        numbers = "{:>9} -> {:>9}  (noise {:>7})".format(*map(figures.number, (before, after, noise)))
        print(f"  {name:5} {what:28} {numbers}  {verdict}".rstrip())
    return 1 if "WORSE" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
