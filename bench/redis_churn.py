#!/usr/bin/python3
"""p99.9 of answers while partners change in Redis.

    bench/redis_churn.py [--partners 1000000] [--rate 5000] [--changes 1000] [--rounds 5] [--build build/profiled]

One gateway follows a real Redis with many partners and answers requests at a fixed rate. Each round measures three windows: `still`;
`elsewhere`, in which the same writer changes another Redis at the same pace, so that the machine does the same work; and
`churn`, in which it changes the gateway's. What the changes cost is churn against elsewhere. The gateway has processor 0, everybody else
the other ones. Redis, the writer and the partners come from the tests' support code.
"""

import argparse
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BATCH = 20  # changes sent together
WINDOWS = ("still", "elsewhere", "churn")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partners", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=5000, help="requests a second")
    parser.add_argument("--changes", type=int, default=1000, help="changes a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="length of a window")
    parser.add_argument("--build", type=Path, default=ROOT / "build/profiled")
    return parser.parse_args()


def pin(pid, processors):
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), processors)


class Writer(threading.Thread):
    """Gives partners another prefix, at a steady pace, until told to stop."""

    def __init__(self, redis, partners, rate):
        super().__init__()
        self.redis, self.partners, self.rate = redis, partners, rate
        self.ended, self.written = threading.Event(), 0

    def run(self):
        connection, dice = self.redis.connect("operator"), random.Random(1)
        keys = [self.redis.key(name) for name in ("seq", "log", "meta")]
        sha1 = self.redis.admin("SCRIPT", "LOAD", script("redis_script_write"))
        due = time.monotonic()
        while not self.ended.is_set():
            commands = [self._change(dice, keys, sha1) for _ in range(BATCH)]
            connection.send("".join(commands).encode(), BATCH)
            self.written += BATCH
            due += BATCH / self.rate
            self.ended.wait(max(0, due - time.monotonic()))

    def _change(self, dice, keys, sha1):
        index = dice.randrange(1000, self.partners)
        fields = list(bulk.fields(index))
        other = f"{dice.randrange(1, 120)}.{index >> 8 & 255}.{index & 255}.0/24"
        fields[fields.index("production_cidrs") + 1] = f"{bulk.address(index)}/32 {other}"
        key = self.redis.key(f"p:m{index}")
        return bulk.command(["EVALSHA", sha1, "4", key, *keys, "set", f"m{index}", "", secrets.token_hex(8), *fields])


def measure(build, port, token, rate, seconds):
    """p50, p99 and p99.9 in microseconds."""
    command = [build / "bench/proof-load", "--target", f"127.0.0.1:{port}", "--host", "api.test", "--header"]
    command += [f"Authorization: Bearer {token}", "--connections", "64", "--rate", rate, "--seconds", seconds, "--stepped"]
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout.readline().startswith("ready")
        load.stdin.write("\n")
        load.stdin.flush()
        result = json.loads(load.stdout.readline())
        load.stdin.close()
    assert result["errors"] == result["wrong_status"] == 0, result
    return [percentile(result["histogram"], q) for q in (0.5, 0.99, 0.999)]


def window(kind, here, elsewhere, gateway, partner, options):
    writer = None
    if kind != "still":
        writer = Writer(here if kind == "churn" else elsewhere, options.partners, options.changes)
        writer.start()
    before, begin = gateway.metrics()["proofgw_store_sequence"], time.monotonic()
    figures = measure(options.build, gateway.ports[0], partner.token, options.rate, options.seconds)
    elapsed = time.monotonic() - begin
    if writer:
        writer.ended.set()
        writer.join()
    applied = gateway.metrics()["proofgw_store_sequence"] - before
    print(f"{kind:10} p50 {figures[0]:7.0f}  p99 {figures[1]:7.0f}  p99.9 {figures[2]:7.0f} us   {applied / elapsed:6.0f} changes/s", flush=True)
    return figures


def main():
    options = parse_arguments()
    others = os.sched_getaffinity(0) - {0} or {0}
    os.sched_setaffinity(0, others)
    with tempfile.TemporaryDirectory() as folder, running_redis(Path(folder) / "b") as elsewhere:
        elsewhere.initialise()
        folder = Path(folder)
        with running_redis(folder / "a") as redis:
            redis.initialise()
            bulk.fill(redis, options.partners)
            demo = DemoBackend()
            store = redis.config()
            with running(folder / "gateway", demo.address, [], store=store, workers=1, ready=False, logs={"access": "/dev/null"}) as gateway:
                while gateway.admin("/readyz")[0] != 200:
                    time.sleep(0.1)
                pin(gateway.process.pid, {0})
                partner = bulk.partner(5)
                partner.production.append("127.0.0.1")
                redis.put(partner)
                time.sleep(1)  # until it is in force, and the snapshot of the load is written
                seen = {kind: [] for kind in WINDOWS}
                window("still", redis, elsewhere, gateway, partner, options)  # warms up
                for number in range(options.rounds):
                    print(f"round {number + 1} of {options.rounds}", flush=True)
                    for kind in WINDOWS:
                        seen[kind].append(window(kind, redis, elsewhere, gateway, partner, options))
            demo.close()
    medians = {kind: [statistics.median(column) for column in zip(*rows)] for kind, rows in seen.items()}
    for kind, (p50, p99, p999) in medians.items():
        print(f"median {kind:10} p50 {p50:.0f}  p99 {p99:.0f}  p99.9 {p999:.0f} us")
    print(f"p99.9, churn against elsewhere: {medians['churn'][2] / medians['elsewhere'][2]:.2f}")


if __name__ == "__main__":
    arguments = parse_arguments()
    os.environ["PROOFGW_BIN"] = str(arguments.build / "proofgw")
    sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests/e2e")]
    from harness.scenarios import percentile
    from support import bulk
    from support.gateway import DemoBackend, running
    from support.redis import running_redis, script

    main()
