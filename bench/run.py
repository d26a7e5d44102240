#!/usr/bin/python3
"""Measures gateways side by side: processor time per operation, latency, memory, system calls.

    bench/setup.sh                  once: peers, tools, the build that is measured
    bench/run.py --quick            the most important scenarios, under 3 minutes
    bench/run.py --full             everything; an hour and a half to two
    bench/run.py --gateways proofgw,nginx,./mine.json --scenarios A,C --rounds 48

Writes results.json and report.html to --output. bench/RESULTS.md says how it is done and how to read it.
"""

import argparse
import datetime
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import gateways, job, machine, scenarios, tables  # noqa: E402
from harness.setting import Setting  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


class Mistake(Exception):
    """What the caller must change; the text says what."""


class Bench:
    """One run: the gateways, how much of what, and the instances that scenarios share."""

    def __init__(self, setting, descriptions, options):
        self.setting, self.descriptions = setting, descriptions
        self.rounds, self.seconds, self.count = options.rounds, options.seconds, options.partners
        self.connections = options.connections
        self.shared, self.proofs = {}, {}

    def progress(self, text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def instance(self, description, *, tls, proof):
        """The running gateway, started and proven with the first who asks."""
        key = (description.name, tls)
        if key not in self.shared:
            self.progress(f"starting {description.name}{' with TLS' if tls else ''}")
            try:
                self.shared[key] = gateways.Instance(description, self.setting, tls=tls, count=self.count)
                self.proofs[key] = job.prove(self.shared[key])
            except gateways.Unavailable as e:
                self.shared[key] = e
        if isinstance(self.shared[key], gateways.Unavailable):
            raise self.shared[key]
        if description.kind == "limit":
            if proof - {"identity", "post", "large", "websocket"}:
                raise gateways.Unavailable("judges nobody")
            proof = proof - {"identity"}
        for check in sorted(proof):
            if self.proofs[key][check]:
                raise gateways.Unavailable(f"{check}: {self.proofs[key][check]}")
        return self.shared[key]

    def lose(self, description, *, tls, why):
        """Its process could not be started again: nobody measures it any more."""
        self.shared[(description.name, tls)] = why

    def require(self, description, tls, proof):
        """Raises Unavailable unless the gateway has proven that it does this."""
        self.instance(description, tls=tls, proof=proof)


def choose(text, known):
    names = text.split(",")
    unknown = set(names) - known.keys()
    if unknown:
        raise Mistake(f"no such scenario: {', '.join(sorted(unknown))}; --list shows them")
    return [known[name] for name in names]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gateways", metavar="NAMES", help="names or .json files, with commas (default: all that are installed)")
    p.add_argument("--scenarios", metavar="NAMES", help="with commas (default: those of --quick; with --full all)")
    p.add_argument("--rounds", type=int, help="of each cost scenario (default 24; quick 3, full 48)")
    p.add_argument("--seconds", type=float, help="of one round (default 0.25; full 0.125)")
    p.add_argument("--partners", type=int, default=10_000, help="that the gateways know (default 10000)")
    p.add_argument("--connections", type=int, help="idle ones, for H (default 5000; quick 1000)")
    p.add_argument("--quick", action="store_true", help="the most important scenarios and gateways, few rounds")
    p.add_argument("--full", action="store_true", help="every scenario, many rounds")
    p.add_argument("--resume", action="store_true", help="go on with the run in --output: what it has is not measured again")
    p.add_argument("--list", action="store_true", help="scenarios and gateways")
    p.add_argument("--build", type=Path, default=os.environ.get("PROOFGW_BUILD_DIR", ROOT / "build/profiled"),
                   help="folder with proofgw and the tools (default: PROOFGW_BUILD_DIR, or build/profiled)")  # fmt: skip
    p.add_argument("--output", type=Path, default=ROOT / "build/bench", help="folder for the results (default build/bench)")
    o = p.parse_args()
    if o.quick and o.full:
        p.error("either --quick or --full")
    if o.rounds is None:
        o.rounds = 3 if o.quick else 48 if o.full else 24
    if o.seconds is None:
        o.seconds = 0.125 if o.full else 0.25
    if o.connections is None:
        o.connections = 1000 if o.quick else 5000
    if o.partners < 2 or o.rounds < 1 or o.connections < 10 or not 0.01 <= o.seconds <= 3600:
        p.error("at least 2 partners, 1 round, 10 connections and 0.01 seconds")
    if o.resume and not (o.output / "results.json").exists():
        p.error(f"{o.output} has no run to go on with")
    known = {s.name: s for s in scenarios.ALL}
    default = ",".join(known) if o.full else ",".join(scenarios.QUICK)
    o.chosen = choose(o.scenarios or default, known)
    return o


def show_list(options):
    for s in scenarios.ALL:
        print(f"{s.name:6}{s.title}{'  (quick)' if s.name in scenarios.QUICK else ''}")
    print()
    for path in sorted(gateways.PEERS.glob("*.json")):
        d = gateways.Description(path)
        print(f"{d.name:16}{d.title}{'' if d.binary(options.build) else '  (not installed)'}")


def identity(results):
    """What must be the same for figures to stand in one table."""
    machine_itself = {key: value for key, value in results["machine"].items() if key != "load"}
    versions = {name: gateway["version"] for name, gateway in results["gateways"].items()}
    return [results.get(key) for key in ("format", "rounds", "seconds", "partners", "connections")] + [machine_itself, versions]


def begin(options, setting, descriptions):
    """Results without figures yet, or with --resume those of the run that goes on."""
    results = {
        "format": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine.describe(len(setting.processors.all)),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "partners": options.partners,
        "connections": options.connections,
        "gateways": {},
        "scenarios": {},
    }
    for d in descriptions:
        results["gateways"][d.name] = {
            "title": d.title,
            "kind": d.kind,
            "version": d.version_text(setting.tools),
            "less": d.less or "",
            "proofs": {},
        }
    if not options.resume:
        return results
    path = options.output / "results.json"
    earlier = tables.read(path)
    if identity(earlier) != identity(results):
        what = "gateways, versions, rounds, seconds, partners, connections or machine"
        raise Mistake(f"{path} is of another run: other {what}")
    return earlier


def run(options, setting, descriptions):
    bench = Bench(setting, descriptions, options)
    results = begin(options, setting, descriptions)
    make_writable(options.output)
    for scenario in options.chosen:
        if scenario.name in results["scenarios"]:
            continue
        result = scenario.run(bench)
        results["scenarios"][scenario.name] = {"title": scenario.title, "shape": scenario.shape, **result}
        bench.progress("")
        print(tables.text(results, scenario.name), end="\n\n", flush=True)
        save(options.output, results)
    for d in descriptions:
        proofs = {f"{'TLS ' * tls}{check}": why for (name, tls), all in bench.proofs.items() if name == d.name for check, why in all.items()}
        results["gateways"][d.name]["proofs"].update(proofs)
    save(options.output, results)
    return results


def make_writable(folder):
    """Before anything is measured, rather than after it."""
    probe = folder / "results.json.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as e:
        raise Mistake(f"cannot write {probe}: {e.strerror}")


def write(path, text):
    """Replaces the file at once: a full disk or an interruption leaves the one that was there."""
    new = path.with_name(path.name + ".new")
    try:
        new.write_text(text)
        os.replace(new, path)
    except OSError as e:
        raise Mistake(f"cannot write {new}: {e.strerror}")


def save(folder, results):
    write(folder / "results.json", json.dumps(results, indent=1) + "\n")


def main():
    options = parse()
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian has the peers
    if options.list:
        show_list(options)
        return 0
    for tool in ("proof-load", "proof-demo-backend", "proof-relay"):
        if not (Path(options.build) / "bench" / tool).exists():
            raise Mistake(f"{options.build}/bench/{tool} does not exist: run bench/setup.sh")
    names = options.gateways.split(",") if options.gateways else scenarios.QUICK_GATEWAYS if options.quick else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is taken away
    descriptions = gateways.find(names, Path(options.build).resolve())
    with Setting(options.build) as setting:
        results = run(options, setting, descriptions)
    for gateway in results["gateways"].values():
        if gateway["less"]:
            print(f"{gateway['title']}: {gateway['less']}")
    try:
        from harness import page
    except ImportError:
        print("no report.html: matplotlib is not installed (bench/setup.sh installs it)")
    else:
        write(options.output / "report.html", page.render(results))
    print(f"\n{options.output}/results.json, report.html")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Mistake, gateways.BadDescription, tables.Unreadable) as e:
        sys.exit(f"run.py: {e}")
    except OSError as e:  # no room in the folder for temporary files, no descriptors left
        sys.exit(f"run.py: {e}")
    except KeyboardInterrupt:
        print("\nrun.py: interrupted; results.json has the scenarios that are complete, --resume goes on", file=sys.stderr)
        sys.exit(130)
