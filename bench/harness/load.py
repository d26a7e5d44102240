"""proof-load, one run at a time: the connections are open before the clock starts and until it has stopped."""

import json
import os
import subprocess
import time

from harness import machine

PATIENCE_S = 60


class LoadFailed(Exception):
    pass


class Load:
    """Connections that are open and ready. run() does the work once; close() ends them."""

    def __init__(self, setting, port, options):
        command = [f"{setting.tools}/bench/proof-load", "--target", f"127.0.0.1:{port}", "--stepped", *map(str, options)]
        self.setting, self.log = setting, (setting.folder / "load.log").open("w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, setting.processors.load),
        )
        setting.loads.append(self)
        self.expect("ready" if "--idle" not in options else "idle")

    def expect(self, word):
        line = self.process.stdout.readline()
        if word not in line:
            self.fail()
        return line

    def fail(self):
        """proof-load gives up by itself when nothing happens for 30 s, so a line or its end always comes."""
        self.log.seek(0)
        why = self.log.read().strip().splitlines()
        self.close()
        raise LoadFailed(why[0] if why else "the load generator ended early")

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self):
        return json.loads(self.expect("operations"))

    def close(self):
        if self not in self.setting.loads:
            return
        self.setting.loads.remove(self)
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def measure(setting, instance, options):
    """One run: what proof-load counted, and the gateway's processor time (ns) meanwhile."""
    with Load(setting, instance.port, options) as load:
        before, begin = instance.run_times_ns(), time.monotonic()
        load.go()
        result = load.result()
        spent, elapsed = machine.spent_ns(before, instance.run_times_ns()), time.monotonic() - begin
    if spent is None:
        raise LoadFailed("a process of it ended during the measurement: its processor time is lost")
    if result["errors"] or result["wrong_status"]:
        raise LoadFailed(f"{result['errors']} errors, {result['wrong_status']} wrong answers")
    if not result["operations"]:
        raise LoadFailed("nothing was done")
    if "--resume" in options and result["resumed"] < result["operations"] * 0.9:
        raise LoadFailed(f"only {result['resumed']} of {result['operations']} sessions were resumed")
    return {**result, "cpu_ns": spent, "elapsed": elapsed}
