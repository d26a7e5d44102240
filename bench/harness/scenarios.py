"""What is measured. Names are those of the targets.

Three shapes: `Cost` (processor time per operation, in interleaved rounds), `Figures` (some numbers per gateway) and `Curve`
(cost against a size). Each has run(bench) and returns what goes into results.json; what a gateway cannot do is
{"na": why} in its place.
"""

import re
import statistics
import subprocess
import time

from harness import machine, partners
from harness.gateways import Instance, Unavailable
from harness.load import Load, LoadFailed, measure

CONNECTIONS = 64
POST_BODY = '{"merchant_transaction_id":"' + "m" * 220 + '"}'
ROUNDS_PER_START = 6  # where a process lands in memory shifts its cost by a tenth: no figure may rest on one start
FAILURES = (Unavailable, LoadFailed)


def authorized(count, index=None):
    partner = partners.caller(count) if index is None else partners.Partner(index, True)
    return ["--header", f"Authorization: {partner.authorization}"]


class Cost:
    shape = "cost"

    def __init__(self, name, title, options, *, tls=False, proof=(), mib=0, unit="request", who="caller", rate=0):
        self.name, self.title, self.options, self.tls, self.rate = name, title, options, tls, rate
        self.proof = {"identity", *proof}
        self.operations_per_unit = 1 / mib if mib else 1
        self.unit = "MiB" if mib else unit
        self.who = who

    def load_options(self, setting, count, seconds):
        who = {
            "caller": lambda: authorized(count),
            "everybody": lambda: ["--header-file", setting.header_file(count), "--rotate"],
            "nobody": lambda: ["--header", "Authorization: Bearer " + "x" * 43],
            "outsider": lambda: ["--header", f"Authorization: {partners.outsider(count).authorization}"],
        }[self.who]()
        tls = ["--tls"] * self.tls
        rate = ["--rate", self.rate] if self.rate else []
        return ["--connections", CONNECTIONS, "--seconds", seconds, *who, *tls, *rate, *self.options]

    def instances(self, bench):
        """{name: Instance or why not}"""
        found = {}
        for d in bench.descriptions:
            try:
                found[d.name] = bench.instance(d, tls=self.tls, proof=self.proof)
            except FAILURES as e:
                found[d.name] = str(e)
        return found

    def run(self, bench):
        seconds = bench.seconds * (4 if self.rate else 1)
        rounds = max(2, bench.rounds // (2 if self.rate else 1))
        options = self.load_options(bench.setting, bench.count, seconds)
        values = {}
        able = {}
        for name, instance in self.instances(bench).items():
            if isinstance(instance, str):
                values[name] = {"na": instance}
            else:
                able[name] = instance
                values[name] = {"cost_us": [], "util": [], "per_second": [], "histogram": []}
        for turn in range(rounds):
            order = list(able)
            for name in order[turn % len(order) :] + order[: turn % len(order)] if order else []:
                bench.progress(f"{self.name} round {turn + 1}/{rounds} {name}")
                try:
                    if turn and turn % ROUNDS_PER_START == 0:
                        able[name].restart()
                    self.add(values[name], measure(bench.setting, able[name], options))
                except FAILURES as e:
                    if isinstance(e, Unavailable):
                        bench.lose(able[name].description, tls=self.tls, why=e)
                    values[name] = {"na": str(e)}
                    del able[name]
        return {"unit": f"us per {self.unit}", "rate": self.rate, "values": values}

    def add(self, value, run):
        value["cost_us"].append(run["cpu_ns"] / 1000 / run["operations"] * self.operations_per_unit)
        value["util"].append(run["cpu_ns"] / 1e9 / run["elapsed"])
        value["per_second"].append(run["operations"] / run["seconds"])
        value["histogram"] = merge(value["histogram"], run["histogram"])


def merge(one, other):
    counts = dict(one)
    for us, n in other:
        counts[us] = counts.get(us, 0) + n
    return sorted([us, n] for us, n in counts.items())


def percentile(histogram, share):
    """The value that `share` of the operations did not exceed, in us."""
    left = share * sum(n for _, n in histogram)
    for us, n in histogram:
        left -= n
        if left <= 1e-9:
            return us
    return histogram[-1][0] if histogram else 0


class Figures:
    """Numbers per gateway, one gateway at a time: {"columns": {key: unit}, "values": {name: {key: number}}}. With "sizes"
    each key ends in one of them."""

    shape = "figures"

    def run(self, bench):
        values = {}
        for d in bench.descriptions:
            bench.progress(f"{self.name} {d.name}")
            values[d.name] = {}
            for key in self.columns:
                try:
                    self.measure(bench, d, key, values[d.name])
                except FAILURES as e:
                    values[d.name].setdefault("na", {})[key] = str(e)
        return {"columns": self.columns, "values": values}


class Memory(Figures):
    """Pss of all its processes with few connections open, and with many more: the difference, by their number. Kernel
    memory of the sockets is not in it. A fresh process each time: what an earlier run freed would be used again. Requests
    on few connections come first, so that what has a fixed size, above all the ring or buffer of the log, is in memory."""

    name, title = "H", "memory per idle connection"
    columns = {"keep-alive": "KiB", "tunnel": "KiB", "TLS keep-alive": "KiB", "TLS tunnel": "KiB"}

    def measure(self, bench, description, key, out):
        tls, tunnel = key.startswith("TLS"), key.endswith("tunnel")
        options = authorized(bench.count) + ["--tls"] * tls + ["--ws"] * tunnel
        proof = {"identity", "websocket"} if tunnel else {"identity"}
        # a tunnel takes two descriptors of the gateway
        many = min(bench.connections, (bench.setting.descriptors - 500) // 2 * 9 // 10)
        bench.require(description, tls, proof)
        with Instance(description, bench.setting, tls=tls, count=bench.count) as instance:
            self.warm(bench, instance, tls)
            with Load(bench.setting, instance.port, ["--idle", many // 10, *options]):
                before = settled_pss(instance)
                with Load(bench.setting, instance.port, ["--idle", many, *options]):
                    out[key] = round((settled_pss(instance) - before) / many, 2)

    def warm(self, bench, instance, tls):
        options = ["--connections", 16, "--requests", 10_000, *authorized(bench.count), *["--tls"] * tls]
        measure(bench.setting, instance, options)


def settled_pss(instance):
    """When two looks agree within 1 %, at most 3 s."""
    last = None
    for _ in range(30):
        now = machine.pss_kib(instance.pids())
        if now is None:
            raise Unavailable("its memory may not be read: run as root")
        if last and abs(now - last) <= last / 100:
            return now
        last = now
        time.sleep(0.1)
    return last


UPDATES = {"steady": 0, "reload": 1, "churn": 3}  # in one window


def require_difference(bench, description):
    """A variant differs from what it is like in one thing, which partners, connections and workers have no part in."""
    if description.variant and description.like in {d.name for d in bench.descriptions}:
        raise Unavailable(f"{description.like}, but for its {description.variant}")


class Partners(Figures):
    """With the number of partners asked for, 10 and 100 times as many: start to the first 200, memory, and latency at
    5,000/s: steady, while all partner data are read again, and while that happens three times. These are taken in turns, and
    the median shown: one window says more of the machine than of the gateway."""

    name, title = "I", "start, size and reload with many partners"
    rate = 5000

    def run(self, bench):
        values, sizes = {}, [bench.count * factor for factor in (1, 10, 100)]
        for d in bench.descriptions:
            values[d.name] = {}
            for size in sizes:
                bench.progress(f"{self.name} {d.name} {short(size)} partners")
                try:
                    require_difference(bench, d)
                    bench.require(d, False, {"identity"})
                    self.measure_size(bench, d, size, values[d.name])
                except FAILURES as e:
                    values[d.name].setdefault("na", {})[short(size)] = str(e)
        sizes = [short(size) for size in sizes]
        columns = {key: unit for size in sizes for key, unit in self.columns(size)}
        return {"sizes": sizes, "columns": columns, "values": values}

    def columns(self, size):
        latencies = [(f"{phase} p99.9 {size}", "us") for phase in UPDATES]
        losses = [(f"lost {what} {size}", "") for what in ("requests", "connections")]
        return [(f"start {size}", "s"), (f"memory {size}", "MiB"), *latencies, *losses]

    def measure_size(self, bench, description, size, out):
        if description.kind == "limit":
            raise Unavailable("knows no partners")
        text = short(size)
        runs = {phase: [] for phase in UPDATES}
        with Instance(description, bench.setting, count=size) as instance:
            out[f"start {text}"] = round(instance.start_s, 3)
            out[f"memory {text}"] = round(settled_pss(instance) / 1024, 1)
            for _ in range(1 + bench.rounds // 12):
                for phase, number in UPDATES.items():
                    runs[phase].append(self.under_load(bench, instance, number))
        for phase, of_phase in runs.items():
            out[f"{phase} p99.9 {text}"] = statistics.median_low(percentile(run["histogram"], 0.999) for run in of_phase)
        lost = [run for phase in runs if phase != "steady" for run in runs[phase]]
        out[f"lost requests {text}"] = sum(run["failed"] + run["wrong_status"] + run["errors"] for run in lost)
        out[f"lost connections {text}"] = sum(run["dropped"] + run["reconnects"] for run in lost)

    def under_load(self, bench, instance, updates):
        """From half a second before the first update until half a second after the last one is in force, at least 2 s.
        What is to be put in force lies ready before, so that nobody's load waits for this program."""
        options = ["--tolerate", "--rate", self.rate, "--seconds", 3600, *authorized(instance.count, 0)]
        instance.lay_ready(not instance.changed)
        with Load(bench.setting, instance.port, options) as load:
            load.go()
            end = time.monotonic() + 2
            for n in range(updates):
                time.sleep(0.5)
                instance.update()
                if n + 1 < updates:
                    instance.lay_ready(not instance.changed)
            time.sleep(max(0.5, end - time.monotonic()))
            load.go()
            return load.result()


def short(n):
    return f"{n // 1_000_000} M" if n >= 1_000_000 else f"{n // 1000} k" if n >= 1000 else str(n)


class Calls(Figures):
    """strace -c on all threads, for two runs that differ only in the number of requests: the difference leaves out accepting,
    connecting and attaching."""

    name, title = "SYS", "system calls"
    columns = {"GET": "calls", "POST": "calls", "TLS GET": "calls", "echo": "calls"}
    few, many = 500, 3500

    def measure(self, bench, description, key, out):
        tls = key.startswith("TLS")
        bench.require(description, tls, {"websocket"} if key == "echo" else {"identity"})
        options = authorized(bench.count) + ["--tls"] * tls
        if key == "POST":
            options += ["--path", "/widget/bytes/200", "--body", POST_BODY]
        if key == "echo":
            options += ["--ws"]
        instance = bench.instance(description, tls=tls, proof=set())
        total = [self.count(bench.setting, instance, options, n) for n in (self.few, self.few, self.many)]
        out[key] = round((total[2] - total[1]) / (self.many - self.few), 2)

    def count(self, setting, instance, options, operations):
        number = operations // CONNECTIONS if "--ws" in options else operations
        scale = number * CONNECTIONS / operations if "--ws" in options else 1
        summary, log = setting.folder / "strace.txt", (setting.folder / "strace.log").open("w+")
        attach = [word for pid in instance.pids() for word in ("-p", str(pid))]
        with Load(setting, instance.port, ["--connections", CONNECTIONS, "--requests", number, *options]) as load, log:
            try:
                tracer = subprocess.Popen(["strace", "-c", "-f", "-o", summary, *attach], stderr=log)
            except FileNotFoundError:
                raise Unavailable("strace is not installed")
            try:
                self.wait_attached(tracer, log.name)
                load.go()
                load.result()
            finally:
                tracer.terminate()
                tracer.wait()
        total = re.search(r"^\s*[\d.]+\s+[\d.]+\s+(?:\d+\s+)?(\d+)(?:\s+\d+)?\s+total$", summary.read_text(), re.M)
        if not total:
            raise Unavailable("strace counted nothing")
        return int(total[1]) / scale

    def wait_attached(self, tracer, path):
        for _ in range(500):
            text = open(path).read()
            if "attached" in text:
                time.sleep(0.1)  # further threads
                return
            if tracer.poll() is not None:
                raise Unavailable(f"strace: {text.strip().splitlines()[-1] if text.strip() else 'ended'}")
            time.sleep(0.01)
        raise Unavailable("strace does not attach")


class Curve:
    """Cost per GET against a size; every request with another partner's token."""

    shape = "curve"

    def __init__(self, name, title, axis, sizes):
        self.name, self.title, self.axis, self.sizes = name, title, axis, sizes

    def run(self, bench):
        values = {d.name: {"x": [], "cost_us": []} for d in bench.descriptions}
        for size in self.sizes:
            for d in bench.descriptions:
                bench.progress(f"{self.name} {d.name} {self.axis} {short(size)}")
                try:
                    require_difference(bench, d)
                    bench.require(d, False, {"identity"})
                    cost = min(self.measure(bench, d, size) for _ in range(max(1, bench.rounds // 12)))
                except FAILURES as e:
                    values[d.name].setdefault("na", {})[str(size)] = str(e)
                    continue
                values[d.name]["x"].append(size)
                values[d.name]["cost_us"].append(cost)
        return {"unit": "us per request", "axis": self.axis, "values": values}

    def measure(self, bench, description, size):
        count = size if self.axis == "partners" else bench.count
        workers = size if self.axis == "workers" else 1
        connections = size if self.axis == "connections" else CONNECTIONS
        if connections > (bench.setting.descriptors - 500) // 2:
            raise Unavailable("more connections than descriptors")
        options = ["--connections", connections, "--seconds", bench.seconds]
        options += ["--header-file", bench.setting.header_file(count), "--rotate"]
        # A process of its own: idle connections of others to the backend would take the descriptors that it needs.
        with Instance(description, bench.setting, count=count, workers=workers) as instance:
            measure(bench.setting, instance, options)  # so many connections to the backend must be there first
            run = measure(bench.setting, instance, options)
        return run["cpu_ns"] / 1000 / run["operations"]


WS, TLS = {"websocket"}, {"tls": True}
ALL = [
    Cost("A", "GET, keep-alive", []),
    Cost("B", "POST 250 bytes, keep-alive", ["--path", "/widget/bytes/200", "--body", POST_BODY], proof={"post"}),
    Cost("AT", "GET, every request another token", [], who="everybody"),
    Cost("AR", "GET at 25,000/s", [], rate=25000),
    Cost("C", "TLS GET, keep-alive", [], **TLS),
    Cost("CR", "TLS GET at 25,000/s", [], rate=25000, **TLS),
    Cost("D", "new connection, full TLS handshake", ["--renew"], unit="connection", **TLS),
    Cost("DR", "new connection, resumed TLS session", ["--renew", "--resume"], unit="connection", **TLS),
    Cost("DP", "new connection, plain", ["--renew"], unit="connection"),
    Cost("E", "WebSocket echo, 64 bytes", ["--ws", "--message-bytes", 64], proof=WS, unit="echo"),
    Cost("ET", "WebSocket echo over TLS, 64 bytes", ["--ws", "--message-bytes", 64], proof=WS, unit="echo", **TLS),
    Cost("E16K", "WebSocket echo, 16 KiB", ["--ws", "--message-bytes", 16384], proof=WS, unit="echo"),
    Cost("F401", "refused: unknown token", ["--expect", 401], proof={"401"}, who="nobody"),
    Cost("F403", "refused: address not allowed", ["--expect", 403], proof={"403"}, who="outsider"),
    Cost("G64", "answers of 64 KiB", ["--path", "/widget/bytes/65536"], proof={"large"}, mib=1 / 16),
    Cost("G1M", "answers of 1 MiB", ["--path", "/widget/bytes/1048576"], proof={"large"}, mib=1),
    Cost("GT64", "answers of 64 KiB over TLS", ["--path", "/widget/bytes/65536"], proof={"large"}, mib=1 / 16, **TLS),
    Cost("GT1M", "answers of 1 MiB over TLS", ["--path", "/widget/bytes/1048576"], proof={"large"}, mib=1, **TLS),
    Memory(),
    Partners(),
    Calls(),
    Curve("SP", "cost and number of partners", "partners", [10, 1000, 10_000, 100_000, 1_000_000]),
    Curve("SC", "cost and number of connections", "connections", [1, 8, 64, 512, 4096, 9000]),
    Curve("SW", "cost and number of workers", "workers", [1, 2, 4]),
]
QUICK = ["A", "B", "AT", "C", "E", "F401", "F403", "G64", "SYS"]
QUICK_GATEWAYS = ["proofgw", "relay", "nginx", "haproxy"]
