"""Names and their addresses as a gateway sees them: the fixture `hosts`.

A test module takes it with pytest_plugins = ["support.hosts"].
"""

import os
import subprocess

import pytest

import support.gateway


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    """Lets the gateway see other names: hosts({"backend.test": ["127.0.0.1"]}) before it starts; None: a look-up never
    ends. Nothing else of the machine changes: the file is mounted in a namespace of the gateway's own."""
    wrap = ["unshare", "--user", "--map-root-user", "--mount"]
    attempt = subprocess.run([*wrap, "mount", "--bind", "/etc/hosts", "/etc/hosts"], capture_output=True, text=True)
    if attempt.returncode:
        pytest.skip(f"no mount namespaces here: {attempt.stderr.strip()}")
    table, empty, script = tmp_path / "hosts", tmp_path / "resolv.conf", tmp_path / "proofgw-with-hosts"

    def make(names, name_server="127.0.0.1", timeout_s=1):
        empty.write_text(f"nameserver {name_server}\noptions timeout:{timeout_s} attempts:1\n")
        if names is None:
            os.mkfifo(table)  # who reads it waits for somebody who writes
        else:
            table.write_text("".join(f"{a} {name}\n" for name, addresses in names.items() for a in addresses))
        script.write_text(
            "#!/bin/sh\n"
            f"exec {' '.join(wrap)} sh -c 'mount --bind {table} /etc/hosts && mount --bind {empty} /etc/resolv.conf"
            f' && exec {support.gateway.BINARY} "$@"\' proofgw "$@"\n'
        )
        script.chmod(0o755)
        monkeypatch.setattr(support.gateway, "BINARY", script)

    return make
