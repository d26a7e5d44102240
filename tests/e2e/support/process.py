"""A gateway as a plain process, with its streams in the test's hand, and single commands: for tests about starts that
fail, outputs that nobody reads, and sockets that outlive their process.
"""

import re
import signal
import subprocess

import pytest

from support.client import Client
from support.gateway import BINARY, default_config, merge, parse_event, to_yaml
from support.partners import write_file
from support.wait import DEADLINE_S, wait_for

EXIT_OK, EXIT_CONFIG, EXIT_USAGE, EXIT_UNCLEAN = 0, 1, 2, 3


def run(*arguments):
    """One command; returns the finished process, with its output as text."""
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=DEADLINE_S)


@pytest.fixture
def start(tmp_path, partner):
    """start(stdout=..., **changes): a process of its own with the operations log in a file; `changes` as for proofgw().
    None of them outlives the test, and none may have written a sanitizer's report."""
    started = []

    class Process:
        def __init__(self, stdout=subprocess.DEVNULL, folder=tmp_path, user=None, prefix=(), **changes):
            self.folder = folder
            self.log = folder / f"ops{len(started)}.log"
            self.config_file = folder / f"gateway{len(started)}.yaml"
            self.config_file.write_text(to_yaml(merge(default_config("127.0.0.1:9"), changes)) + "\n")
            write_file(folder / "partners.ndjson", [partner])
            with open(self.log, "wb") as log:
                self.process = subprocess.Popen(
                    [*prefix, str(BINARY), "-c", str(self.config_file)], stdout=stdout, stderr=log, user=user
                )
            started.append(self)

        def text(self):
            return self.log.read_text()

        def events(self, name):
            return [e for e in map(parse_event, self.text().splitlines()) if e.get("event") == name]

        def wait_started(self):
            wait_for(lambda: self.events("started"), self.text)
            return self

        def address(self, event="listening"):
            """(host, port), or the path of a unix socket."""
            text = self.events(event)[0]["address"]
            return text[5:] if text.startswith("unix:") else ("127.0.0.1", int(text.rsplit(":", 1)[1]))

        def wait_exit(self):
            return self.process.wait(DEADLINE_S)

        def stop(self):
            self.process.send_signal(signal.SIGTERM)
            return self.wait_exit()

    yield Process
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(DEADLINE_S)
        assert not re.search("Sanitizer|runtime error:|event=BUG", one.text()), one.text()


def get(address, path="/healthz", method="GET", host="localhost"):
    """One admin page."""
    client = Client(address)
    client.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    page = client.reader.response(method)
    client.close()
    return page
