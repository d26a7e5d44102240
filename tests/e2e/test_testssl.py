"""testssl.sh against the real binary: the defaults have no weakness above LOW.

Method: Debian's testssl.sh with all its checks of protocols, ciphers, forward secrecy, the server's choices and certificates,
and vulnerabilities; a certificate as a public authority would issue it. Findings are read from its JSON.
"""

import json
import shutil
import subprocess

import pytest

from support.expect import is_passed
from support.gateway import HOST, SANDBOX_HOST
from support.tls import connect

pytest_plugins = ["support.tls"]

TESTSSL = shutil.which("testssl") or shutil.which("testssl.sh")
FINE = {"OK", "INFO", "LOW"}
CHECKS = ["--protocols", "--standard", "--pfs", "--server-defaults", "--server-preference", "--vulnerable"]

# WARN. engine_problem, RC4: for want of an old OpenSSL; the checks of all ciphers would find RC4 as well. sessionresumption_ticket: over
# TLS 1.3 `s_client </dev/null` is usually gone before the ticket comes, and testssl.sh then has no session to come back with;
# test_tls_terms.py tests resumption.
NOT_DONE = {"engine_problem", "RC4", "sessionresumption_ticket"}

pytestmark = [pytest.mark.skipif(not TESTSSL, reason="testssl.sh is not installed"), pytest.mark.timeout(300), pytest.mark.slow]


def test_no_weakness(https, backend, partner, authority, tmp_path):
    between, issued = authority.intermediate(), {"days": 90, "crl": "http://authority.test/revoked.crl"}
    pairs = [between.leaf(HOST, SANDBOX_HOST, "localhost", key=key, **issued) for key in ("ec", "rsa")]
    gateway = https(pairs)
    report = tmp_path / "testssl.json"
    done = subprocess.run(
        [TESTSSL, *CHECKS, "--quiet", "--color", "0", "--warnings", "off", "--fast", "--ip", "127.0.0.1"]
        + ["--add-ca", str(authority.file), "--jsonfile", str(report), f"localhost:{gateway.port}"],
        capture_output=True, text=True, timeout=280, cwd=tmp_path, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    findings = json.loads(report.read_text())
    assert len(findings) > 60, done.stdout
    bad = [f for f in findings if f["severity"] not in FINE and (f["severity"] != "WARN" or f["id"] not in NOT_DONE)]
    assert not bad, "\n".join(f"{f['severity']} {f['id']}: {f['finding']}" for f in bad)
    is_passed(connect(gateway).exchange(fields=partner.authorization))
