"""Checks that an installation has its parts, and that a second one leaves the operator's configuration alone.

usage: check_install.py CMAKE BUILD_DIR
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PARTS = ("sbin/proofgw", "sbin/proofctl", "proofgw/gateway.yaml", "examples/gateway.yaml", "examples/quickstart.yaml",
         "examples/proofgw.rules.yml", "OPERATIONS.md", "man8/proofgw.8", "system/proofgw.service", "sysusers.d/proofgw.conf")


def install(cmake, build, root):
    environment = {**os.environ, "DESTDIR": str(root)}
    subprocess.run([cmake, "--install", build], env=environment, stdout=subprocess.DEVNULL, check=True)


def main():
    cmake, build = sys.argv[1:]
    faults = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        install(cmake, build, root)
        files = {str(path) for path in root.rglob("*") if path.is_file()}
        for part in PARTS:
            if not any(file.endswith("/" + part) for file in files):
                faults.append(f"{part} is not installed")
        for config in root.rglob("proofgw/gateway.yaml"):
            config.write_text("mine\n", encoding="utf-8")
            install(cmake, build, root)
            if config.read_text(encoding="utf-8") != "mine\n":
                faults.append(f"{config.relative_to(root)} was written over")
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
