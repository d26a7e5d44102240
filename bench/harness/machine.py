"""The machine and its processes as /proc shows them: processor time, memory, processors, limits."""

import os
import platform
import re
import resource
import socket
import time
from pathlib import Path

PROC = Path("/proc")


class Processors:
    """Gateway on the first processor, generator and backend on the second; with one processor all share it."""

    def __init__(self):
        self.all = sorted(os.sched_getaffinity(0))
        self.gateway = {self.all[0]}
        self.load = {self.all[1 % len(self.all)]}

    def for_workers(self, workers):
        """Several workers get every processor but the load's, or all when that leaves one."""
        if workers == 1:
            return self.gateway
        free = set(self.all) - self.load
        return free if len(free) > 1 else set(self.all)


def prefer_us(nice=-19):
    """Other sessions' programs are in scheduling groups of their own, which share the processor evenly with ours however
    busy they are: ask for more (nice alone does not cross groups). Returns how it was, to be given back; None when there is
    nothing to ask, or no right to."""
    group = PROC / "self/autogroup"
    try:
        before = int(group.read_text().split()[-1])
        group.write_text(str(nice))
    except (OSError, ValueError, IndexError):
        return None
    return before


def raise_descriptor_limit():
    """Returns the limit: connections are counted in thousands."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = min(hard, 1_000_000) if hard != resource.RLIM_INFINITY else 1_000_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def free_port():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def tree(pid):
    """`pid` and all its descendants that are alive."""
    found, at = [pid], 0
    while at < len(found):
        for task in (PROC / str(found[at]) / "task").glob("*"):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                pass  # it ended meanwhile
        at += 1
    return found


def softirq_pids(cpus):
    names = {f"ksoftirqd/{cpu}" for cpu in cpus}
    found = []
    for folder in PROC.glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() in names:
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def run_times_ns(pids):
    """{process: its time on a processor}: the scheduler's own count, in ns, of all its threads, also of those that ended."""
    found = {}
    for pid in pids:
        try:
            found[pid] = time.clock_gettime_ns(~pid << 3 | 2)  # as clock_getcpuclockid(3) makes it
        except OSError:
            pass  # it ended meanwhile
    return found


def spent_ns(before, after):
    """Processor time between two run_times_ns(); None when a process ended meanwhile, and took its time with it."""
    if before.keys() - after.keys():
        return None
    return sum(after.values()) - sum(before.values())


def pss_kib(pids):
    """Proportional set size; None when we may not look (the gateway is not dumpable: that takes root)."""
    total = 0
    for pid in pids:
        try:
            text = (PROC / str(pid) / "smaps_rollup").read_text()
        except OSError:
            return None
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])
    return total


def describe(processors):
    """What a reader must know about the machine."""
    model = re.search(r"^model name\s*:\s*(.*)$", (PROC / "cpuinfo").read_text(), re.M)
    release = Path("/etc/os-release")
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', release.read_text(), re.M) if release.exists() else None
    return {
        "processors": processors,
        "model": model[1].strip() if model else platform.machine(),
        "kernel": platform.release(),
        "system": name[1] if name else platform.system(),
        "load": os.getloadavg()[0],
    }
