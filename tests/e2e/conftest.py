"""End-to-end tests: the real binary, real sockets, real clients.

    PROOFGW_BIN=build/dev/proofgw /usr/bin/python3 -m pytest -n 2 tests/e2e

Environment: PROOFGW_BIN (default build/dev/proofgw, built with ASan and UBSan), PROOFGW_DEMO_BACKEND (default
bench/proof-demo-backend beside it).

A test asks for what it needs:

    def test_something(proofgw, backend, partner):
        gateway = proofgw(limits={"body": "1KiB"}, workers=4)    # sections laid over support/gateway.default_config
        client = gateway.client()                                # raw bytes out, strict answers in
        answer = client.exchange("POST", fields=partner.authorization, body=b"x" * 1025)
        is_error(answer, "body_too_large", closes=True)
        assert not backend.requests

  proofgw   factory of running gateways: host api.test = production, sandbox.test = sandbox, one worker, one listener
            on 127.0.0.1, `backend` behind both environments, `partner` in the partner file. Other partners:
            proofgw(partners=[...]). Other backends: proofgw(upstream=..., sandbox_upstream=...).
            Another exit code: proofgw(exit_code=3). Without waiting for the partners: proofgw(ready=False).
  gateway   proofgw() with nothing changed
  backend   scriptable backend, exact bytes (support/backend.py); `backends()` makes further ones
  demo      the project's proof-demo-backend, a real process; pass demo.address as upstream
  partner   a partner that may call from loopback in production, and from nowhere in the sandbox

  https     the same behind TLS, with certificates made at run time: support/tls.py, support/certs.py

  gateway.client()  connection that sends the bytes it is given (support/client.py): send, ask, exchange, response,
                    expect_close, expect_reset, expect_silence, half_close, reset. Answers are read by
                    support/http1.py, which refuses anything that is not exactly HTTP/1.1
  gateway.access(), .line_of(answer), .wait_access(n)     access log, parsed
  gateway.events(name), .wait_event(name)                 operations log, parsed
  gateway.metrics()(name, label=...), .wait_metric(...)   one scrape
  gateway.update_partners([...])                          replaces the partner file, waits until it counts
  gateway.secrets.append(text)                            further text that must be in no output

When a test ends, each of its gateways must: have no connection, exchange or tunnel open once the clients are closed;
end with the expected exit code on SIGTERM; leave no process; have written no sanitizer report, no BUG line, and none of
the test's tokens anywhere (operations log, access log, every metrics page that was read). Leaks show up there too: the
leak check of ASan runs when the process exits. The backend's scripts must all have gone as written.

Rules: no sleep as synchronisation, wait for conditions (support/wait.py); ports are chosen by the kernel; all files in
tmp_path; tests do not depend on each other and run in parallel (pytest -n 2).
"""

import contextlib
import itertools
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("support")

from support.backend import Backend  # noqa: E402
from support.gateway import BINARY, DemoBackend, running  # noqa: E402
from support.partners import Partner  # noqa: E402

# A job in the background is started with SIGINT ignored, and whatever the tests start would ignore it as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    if not BINARY.exists():
        raise pytest.UsageError(f"{BINARY} does not exist: build it, or set PROOFGW_BIN")


@pytest.fixture
def partner():
    return Partner("acme")


@pytest.fixture
def backends():
    """Factory of scriptable backends. They outlive the gateways, so that these can end in order."""
    made = []

    def make(**kwargs):
        made.append(Backend(**kwargs))
        return made[-1]

    yield make
    for backend in made:
        backend.close()
    problems = [problem for backend in made for problem in backend.problems]
    assert not problems, "a backend script failed:\n" + "\n".join(problems)


@pytest.fixture
def backend(backends):
    return backends()


@pytest.fixture
def demo():
    backend = DemoBackend("--interval-ms", "100")
    yield backend
    backend.close()


@pytest.fixture
def proofgw(tmp_path, backends, request):
    """Factory of running gateways."""
    number = itertools.count()
    with contextlib.ExitStack() as stack:

        def make(partners=None, upstream=None, **changes):
            if partners is None:
                partners = [request.getfixturevalue("partner")]
            if upstream is None:
                upstream = request.getfixturevalue("backend").address
            folder = tmp_path / f"gateway{next(number)}"
            return stack.enter_context(running(folder, upstream, partners, **changes))

        yield make


@pytest.fixture
def gateway(proofgw):
    return proofgw()
