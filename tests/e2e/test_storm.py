"""Nothing is dropped: reloads, certificate swaps and upgrades under a steady load.

Goal: with 2,000 requests a second on kept and on new connections, plain and over TLS, and hundreds of open tunnels, no request
fails and no connection is lost whatever the operator does; no tunnel notices a reload or a new certificate; every tunnel that an
upgrade ends gets a 1012 at a frame boundary.
Method: the real binary, four proof-loads (which check every answer and count what was lost), and a fleet of raw WebSocket clients.
Short by default; PROOFGW_FULL=1 is the whole of it: 100 reloads, 20 certificates, 10 upgrades.
"""

import contextlib
import json
import os
import signal
import subprocess
import time

from support.certs import Authority
from support.fleet import Fleet, many_descriptors
from support.gateway import BINARY, HOST, is_sanitized
from support.successor import upgrade
from support.wait import DEADLINE_S

LOAD = os.environ.get("PROOFGW_LOAD", BINARY.parent / "bench/proof-load")
FULL = bool(os.environ.get("PROOFGW_FULL"))
RELOADS, CERTIFICATES, UPGRADES = (100, 20, 10) if FULL else (20, 4, 2)
TUNNELS = 500 if FULL else 200
RATE = 400 if is_sanitized() else 2000
KINDS = {  # a quarter of the requests each
    "plain, kept": [],
    "plain, new": ["--renew"],
    "tls, kept": ["--tls"],
    "tls, new": ["--tls", "--renew"],
}


class Storm:
    """The four loads. They run until finish(), and then say what they saw."""

    def __init__(self, gateway, partner):
        self.loads = {
            kind: self._start(gateway.ports["tls" in kind], partner, options) for kind, options in KINDS.items()
        }
        for load in self.loads.values():
            assert load.stdout.readline() == "ready\n"
        self._say()

    @staticmethod
    def _start(port, partner, options):
        command = [str(LOAD), "--target", f"127.0.0.1:{port}", "--host", HOST, "--header", partner.authorization.strip()]
        command += ["--connections", "32", "--rate", str(RATE // len(KINDS)), "--seconds", "600", "--stepped", "--tolerate"]
        return subprocess.Popen(
            [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _say(self):
        for load in self.loads.values():
            load.stdin.write("\n")
            load.stdin.flush()

    def running(self):
        for kind, load in self.loads.items():
            assert load.poll() is None, f"{kind}: {load.communicate()}"

    def finish(self):
        """What each of them saw."""
        self._say()
        results = {kind: json.loads(load.stdout.readline()) for kind, load in self.loads.items()}
        for kind, load in self.loads.items():
            _, err = load.communicate(timeout=DEADLINE_S)
            assert (load.returncode, err) == (0, ""), kind
        return results

    def kill(self):
        for load in self.loads.values():
            if load.poll() is None:
                load.kill()
                load.communicate()


def reload(gateway, number):
    """A live key changes each time, so that there is something to take over."""
    text = gateway.config_file.read_text(encoding="utf-8")
    before, after = f"requests_per_connection: {100000 + number}", f"requests_per_connection: {100001 + number}"
    assert before in text
    gateway.config_file.write_text(text.replace(before, after), encoding="utf-8")
    done = len(gateway.events("config_reloaded"))
    gateway.signal(signal.SIGHUP)
    gateway.wait_event("config_reloaded", done + 1)


def swap_certificate(gateway, pair, other):
    done = len(gateway.events("certificates_replaced"))
    pair.become(other)
    gateway.wait_event("certificates_replaced", done + 1)


def pump(fleet, seconds):
    """Lets the fleet read for a while: the load goes on beside it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fleet.turn()


def test_nothing_is_dropped(proofgw, demo, partner, tmp_path):
    authority = Authority(tmp_path / "authority")
    pair = authority.leaf(HOST)
    with many_descriptors(), contextlib.ExitStack() as stack:
        gateway = proofgw(
            [partner],
            upstream=demo.address,
            workers=2,
            reload_on_change=True,
            listeners=[{"address": "127.0.0.1:0"}, {"address": "127.0.0.1:0", "tls": True}],
            tls={"certificates": [pair.config], "unknown_names": "first"},
            limits={"requests_per_connection": 100000},
            timeouts={"drain_tunnels": "2s", "drain_keep_alive": "10s", "shutdown": "60s"},
            logs={"access": "off"},
        )
        fleet = stack.enter_context(contextlib.closing(Fleet(gateway)))
        tunnels = fleet.open(partner, TUNNELS)
        storm = Storm(gateway, partner)
        stack.callback(storm.kill)
        for i in range(RELOADS):
            reload(gateway, i)
            if i % (RELOADS // CERTIFICATES) == 0:
                swap_certificate(gateway, pair, authority.leaf(HOST))
            pump(fleet, 0.05)
        storm.running()
        assert not any(tunnel.close_code or tunnel.ended for tunnel in tunnels)
        fleet.echo(tunnels)
        for _ in range(UPGRADES):
            old = upgrade(gateway)
            fleet.wait_closed(tunnels, 30)
            assert {tunnel.close_code for tunnel in tunnels} == {1012}
            assert old.wait(60) == 0
            tunnels = fleet.open(partner, TUNNELS)
            fleet.echo(tunnels)
        storm.running()
        for kind, seen in storm.finish().items():
            assert seen["errors"] == seen["failed"] == seen["dropped"] == seen["wrong_status"] == 0, (kind, seen)
            assert seen["operations"] > 100, (kind, seen)
