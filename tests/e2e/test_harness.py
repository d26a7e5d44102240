"""The harness itself: it must fail when something is wrong, or every other test proves nothing.

Method: faults are planted in what the harness looks at (its log files, the expected exit code, the bytes it reads), and
each must be noticed.
"""

import pytest

from support.backend import Backend
from support.client import request
from support.http1 import Ended, Malformed, Reader
from support.partners import Partner


def test_a_token_in_the_log_is_noticed(gateway, partner):
    log = gateway.folder / "ops.log"
    clean = log.read_text()
    log.write_text(clean + f"time=x event=oops token={partner.token}\n")
    with pytest.raises(AssertionError, match="a secret is in ops.log"):
        gateway.check_output()
    log.write_text(clean)


def test_a_token_in_the_metrics_is_noticed(gateway, partner):
    gateway._scrapes.append(f'proofgw_requests{{token="{partner.token}"}} 1')
    with pytest.raises(AssertionError, match="a secret is in metrics"):
        gateway.check_output()
    gateway._scrapes.clear()


@pytest.mark.parametrize(
    "report",
    [
        "==1==ERROR: AddressSanitizer: heap-use-after-free on address 0x1",
        "==1==ERROR: LeakSanitizer: detected memory leaks",
        "WARNING: ThreadSanitizer: data race (pid=1)",
        "src/proxy/conn.c:1:2: runtime error: signed integer overflow",
        "time=x level=error event=BUG file=conn.c line=1",
    ],
)
def test_a_report_is_noticed(gateway, report):
    log = gateway.folder / "ops.log"
    clean = log.read_text()
    log.write_text(clean + report + "\n")
    with pytest.raises(AssertionError, match="BUG|anitizer|runtime error"):
        gateway.check_output()
    log.write_text(clean)


def test_another_exit_code_is_noticed(proofgw):
    gateway = proofgw()
    gateway.exit_code = 3
    with pytest.raises(AssertionError, match="exit code 0 instead of 3"):
        gateway.finish()
    gateway.exit_code = 0


def test_a_crash_is_noticed(proofgw):
    gateway = proofgw()
    gateway.process.kill()
    gateway.wait_exit()
    with pytest.raises(AssertionError, match="exit code -9 instead of 0"):
        gateway.finish()
    gateway.exit_code = -9


def test_a_failure_in_a_script_is_noticed(proofgw, partner):
    backend = Backend()
    backend.script(lambda c: c.reader.exactly(1) == b"x" or 1 / 0)
    gateway = proofgw(upstream=backend.address)
    assert gateway.client().ask(request(fields=partner.authorization)).status == 502
    backend.close()
    assert "ZeroDivisionError" in backend.problems[0]


def reader_of(data):
    pieces = [data]
    return Reader(lambda: pieces.pop() if pieces else b"")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n",
    ],
)
def test_the_reader_refuses(data):
    with pytest.raises(Malformed):
        reader_of(data).response()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
    ],
)
def test_the_reader_notices_an_early_end(data):
    with pytest.raises(Ended):
        reader_of(data).response()


def test_a_repeated_length_is_noticed():
    with pytest.raises(AssertionError, match="2 times"):
        reader_of(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx").response()


def test_tokens_differ():
    assert len({Partner().token for _ in range(100)}) == 100
