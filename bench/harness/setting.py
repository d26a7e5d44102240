"""Where everything runs: scratch folder, certificate, backend, tools; takes all of it away again."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import machine, partners


class Backend:
    def __init__(self, setting):
        command = [f"{setting.tools}/bench/proof-demo-backend", "--interval-ms", "0"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, setting.processors.load),
        )
        self.address = self.process.stdout.readline().rpartition(" ")[2].strip()
        if not self.address:
            raise RuntimeError("the backend does not start")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class Setting:
    def __init__(self, tools):
        self.tools = Path(tools).resolve()
        self.processors = machine.Processors()
        self.instances, self.loads = [], []
        self.nice_before = machine.prefer_us()
        self.descriptors = machine.raise_descriptor_limit()
        self.folder = Path(tempfile.mkdtemp(prefix="proofgw-bench-"))
        self.folder.chmod(0o755)  # peers that drop privileges read their files here
        self.made = 0
        os.sched_setaffinity(0, self.processors.load)
        self.make_certificate()
        self.backend = Backend(self)

    def new_folder(self, name):
        self.made += 1
        folder = self.folder / f"{self.made:03d}-{name}"
        folder.mkdir()
        return folder

    def make_certificate(self):
        self.chain, self.key, self.pem = (self.folder / name for name in ("chain.pem", "key.pem", "both.pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", self.key, "-out", self.chain],
            check=True,
            capture_output=True,
        )  # fmt: skip
        self.key.chmod(0o600)
        self.pem.write_text(self.chain.read_text() + self.key.read_text())
        self.pem.chmod(0o600)

    def header_file(self, count):
        """A header line for each of up to 10,000 callers."""
        path = self.folder / f"headers-{count}"
        if not path.exists():
            path.write_text("".join(f"Authorization: {p.authorization}\n" for p in partners.some(count)[:-1]))
        return path

    def close(self):
        for thing in [*self.loads]:
            thing.close()
        for thing in [*self.instances]:
            thing.stop()
        self.backend.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.nice_before is not None:
            machine.prefer_us(self.nice_before)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
