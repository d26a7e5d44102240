#!/usr/bin/python3
"""What changed between two runs beyond the noise.

    bench/compare.py OLD/results.json NEW/results.json [--gateway proofgw]

Costs are compared as ratios to the best peer of their own run, so that the machine's mood cancels out; a change counts when it
is larger than the noise of both medians together. Counted figures (system calls) and memory count from 2 % on. Leaves with 1
when something got worse.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import figures  # noqa: E402

TOLERANCE = 0.02
NOISY = ("p99.9", "start")  # one value per run: from 50 % on


def of_cost(old, new, name, gateway):
    """(what, before, after, noise) of a cost scenario."""
    rows = [figures.summary(r, r["scenarios"][name], gateway) for r in (old, new)]
    if not all(rows):
        return
    if all("by_rounds" in row for row in rows) and not any(
        figures.best_peer(r, r["scenarios"][name]) == gateway for r in (old, new)
    ):
        noise = (rows[0]["noise"] ** 2 + rows[1]["noise"] ** 2) ** 0.5
        yield "ratio by rounds", rows[0]["by_rounds"], rows[1]["by_rounds"], max(noise, TOLERANCE * rows[0]["by_rounds"])
    else:
        both = [r["scenarios"][name]["values"][gateway]["cost_us"] for r in (old, new)]
        noise = sum(figures.quantile(v, 0.75) - figures.quantile(v, 0.25) for v in both)
        before, after = (statistics.median(v) for v in both)
        yield "us, without a peer", before, after, max(noise, TOLERANCE * before)


def of_figures(old, new, name, gateway):
    before, after = (r["scenarios"][name]["values"][gateway] for r in (old, new))
    for key in old["scenarios"][name]["columns"]:
        if key in before and key in after:
            share = 0.5 if any(word in key for word in NOISY) else TOLERANCE
            yield key, before[key], after[key], abs(before[key]) * share


def of_curve(old, new, name, gateway):
    before, after = (r["scenarios"][name]["values"][gateway] for r in (old, new))
    later = dict(zip(after["x"], after["cost_us"]))
    for x, cost in zip(before["x"], before["cost_us"]):
        if x in later:
            yield f"us at {x:,} {old['scenarios'][name]['axis']}", cost, later[x], 0.15 * cost


def changes(old, new, gateway):
    of_shape = {"cost": of_cost, "figures": of_figures, "curve": of_curve}
    for name, scenario in old["scenarios"].items():
        other = new["scenarios"].get(name)
        if not other or gateway not in scenario["values"] or gateway not in other["values"]:
            continue
        for what, before, after, noise in of_shape[scenario["shape"]](old, new, name, gateway):
            yield name, what, before, after, noise


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("old", type=Path)
    p.add_argument("new", type=Path)
    p.add_argument("--gateway", default="proofgw")
    o = p.parse_args()
    old, new = json.loads(o.old.read_text()), json.loads(o.new.read_text())
    worse = False
    print(f"{o.gateway}: {old['date']} -> {new['date']}")
    for name, what, before, after, noise in changes(old, new, o.gateway):
        verdict = "" if abs(after - before) <= noise else "WORSE" if after > before else "better"
        worse = worse or verdict == "WORSE"
        numbers = "{:>9} -> {:>9}  (noise {:>7})".format(*map(figures.number, (before, after, noise)))
        print(f"  {name:5} {what:28} {numbers}  {verdict}".rstrip())
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
