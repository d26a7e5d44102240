"""Debian's HAProxy in front of the gateway: a process of the test, on ports that the kernel chooses."""

import shutil
import socket
import subprocess

from support.wait import DEADLINE_S, wait_for

BINARY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
SOURCE = "127.0.0.5"  # the balancer's own address

_CONFIG = """
global
    maxconn 200
    nbthread 1
defaults
    timeout connect 10s
    timeout client 30s
    timeout server 30s
"""


class HAProxy:
    """`routes`: name -> (mode, options of its server, further lines of its section, gateway port). It connects from
    SOURCE. The listening sockets are opened here and handed over, so no port is guessed."""

    def __init__(self, folder, routes):
        self.ports, sockets, config = {}, [], _CONFIG
        for name, (mode, server, lines, port) in routes.items():
            listening = socket.create_server(("127.0.0.1", 0))
            sockets.append(listening)
            self.ports[name] = listening.getsockname()[1]
            body = "".join(f"    {line}\n" for line in lines)
            config += (
                f"listen {name}\n    mode {mode}\n    bind fd@{listening.fileno()}\n{body}"
                f"    server gateway 127.0.0.1:{port} source {SOURCE} {server}\n"
            )
        path = folder / "haproxy.cfg"
        path.write_text(config, encoding="utf-8")
        self.log = folder / "haproxy.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [BINARY, "-db", "-f", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[s.fileno() for s in sockets],
            )
        for listening in sockets:
            listening.close()

    def wait_log(self, text):
        wait_for(lambda: text in self.log.read_text(), lambda: f"{text!r}:\n{self.log.read_text()}")

    def close(self):
        assert self.process.poll() is None, self.log.read_text()
        self.process.terminate()
        self.process.wait(DEADLINE_S)
