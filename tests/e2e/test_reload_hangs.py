"""A reload while a worker hangs: it ends with a sentence, an upgrade is the way out, and once the worker goes on everything is
taken over that was asked for meanwhile.
"""

import contextlib
import signal
import threading

import pytest

from support.control import ask
from support.expect import is_error
from support.gateway import HOST, SANDBOX_HOST
from support.hanging import hanging, pause, wait_end
from support.process import EXIT_OK, EXIT_UNCLEAN
from support.reloading import get
from support.successor import upgrade
from support.tls import connect, tls_listener
from support.wait import DEADLINE_S, wait_for

pytest_plugins = ["support.tls"]

ADVICE = "start the gateway anew (docs/ALERTS.md, ProofgwWorkerSilent)"
PAUSE_S = 7  # more than a worker has
NOT_TAKEN = f"1 of 2 workers hang, and have not taken over this one: upgrade (SIGUSR2) or {ADVICE}"
NOT_YET = f"1 of 2 workers hang, and have not taken over the one before: upgrade (SIGUSR2) or {ADVICE}"


@pytest.fixture
def gateway(proofgw):
    return proofgw(reload_on_change=False, workers=2, admin={"control_socket": "control.sock"})


def reload(gateway):
    status, body = ask(gateway.folder / "control.sock", "/reload", "POST")
    return status, body.get("error")


def test_it_ends_and_says_why(gateway, partner):
    """At each request, also for those who wait behind another one; what was published meanwhile does no harm to the worker."""
    with hanging(gateway.process, "w1"):
        gateway.configure(limits={"body": 3})
        answers = []
        first, second = (threading.Thread(target=lambda: answers.append(reload(gateway))) for _ in range(2))
        first.start(), second.start()
        first.join(), second.join()
        assert sorted(answers) == [(422, NOT_YET), (422, NOT_TAKEN)]
        assert reload(gateway) == (422, NOT_YET)
        assert [event["error"] for event in gateway.wait_event("config_reload_failed", 3)] == [NOT_TAKEN, NOT_YET, NOT_YET]
        metrics = gateway.metrics()
        assert metrics["proofgw_config_last_reload_successful"] == 0
        assert (metrics("proofgw_config_reloads_total", result="failed"), metrics["proofgw_config_generation"]) == (3, 1)
        assert not gateway.events("config_reloaded")
    (event,) = gateway.wait_event("config_reloaded")
    assert event["trigger"] == "control"
    assert gateway.metrics()["proofgw_config_last_reload_successful"] == 1
    for _ in range(16):  # some for each worker
        is_error(get(gateway, partner, method="POST", body=b"abcd"), "body_too_large")
    gateway.configure(limits={"body": 4})
    assert reload(gateway) == (200, None)


def test_every_worker_hangs(proofgw):
    """Then there is no upgrade."""
    gateway = proofgw(reload_on_change=False, workers=1)
    with hanging(gateway.process, "w0"):
        gateway.signal(signal.SIGHUP)
        (event,) = gateway.wait_event("config_reload_failed")
        assert event["error"] == f"1 of 1 workers hang, and have not taken over this one: {ADVICE}"
    gateway.wait_event("config_reloaded")


def test_a_changed_file_is_said_once_and_taken_over_later(proofgw, partner):
    gateway = proofgw(reload_on_change=True, workers=2)
    with hanging(gateway.process, "w1"):
        gateway.configure(limits={"body": 1000})
        gateway.wait_event("config_reload_failed", 1)
        gateway.configure(limits={"body": 3})
        gateway.wait_event("config_reload_failed", 2)
        wait_for(lambda: gateway.events("worker_silent"), gateway.ops_text, 30)  # after 20 s; the file is looked at every 10 s
        assert [event["error"] for event in gateway.events("config_reload_failed")] == [NOT_TAKEN, NOT_YET]
    gateway.wait_event("config_reloaded")
    for _ in range(16):
        is_error(get(gateway, partner, method="POST", body=b"abcd"), "body_too_large")


def test_an_upgrade_is_the_way_out(proofgw, partner):
    gateway = proofgw(reload_on_change=False, workers=2, timeouts={"shutdown": "300ms"})
    with hanging(gateway.process, "w1"):
        gateway.configure(limits={"body": 3}, timeouts={"shutdown": "300ms"})
        gateway.signal(signal.SIGHUP)
        gateway.wait_event("config_reload_failed")
        old = upgrade(gateway)
        wait_end(old)
    assert old.wait(DEADLINE_S) == EXIT_UNCLEAN
    for _ in range(16):
        is_error(get(gateway, partner, method="POST", body=b"abcd"), "body_too_large")


@pytest.mark.parametrize("failed", [False, True], ids=["being published", "failed"])
def test_the_end_comes_before_the_worker_goes_on(gateway, failed):
    """Then it ends as if nothing had been."""
    with hanging(gateway.process, "w1"):
        gateway.configure(limits={"body": 3})
        gateway.signal(signal.SIGHUP)
        gateway.wait_event("config_reload_failed" if failed else "config_changed")
        gateway.signal(signal.SIGTERM)
        gateway.wait_event("draining")
    assert gateway.wait_exit() == EXIT_OK
    assert len(gateway.events("config_reloaded")) == (not failed)


def test_a_process_that_stood_still(gateway):
    """The time in which nobody could answer is not the worker's."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(hanging(gateway.process, "w1"))
        gateway.configure(limits={"body": 3})
        gateway.signal(signal.SIGHUP)
        gateway.wait_event("config_changed")
        pause(gateway.process, PAUSE_S, stack.close)
    gateway.wait_event("config_reloaded")
    assert not gateway.events("config_reload_failed")


def test_an_upgrade_of_a_process_that_stood_still(proofgw):
    """Its worker still gives its sockets away."""
    gateway = proofgw(workers=2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(hanging(gateway.process, "w1"))

        def meanwhile():
            gateway.wait_event("signal")
            pause(gateway.process, PAUSE_S, stack.close)

        assert upgrade(gateway, meanwhile).wait(DEADLINE_S) == EXIT_OK
    assert gateway.events("upgrading")[0]["sockets"] == "3"
    assert not gateway.events("upgrade_incomplete")


def test_the_file_of_a_socket_that_the_worker_still_had(proofgw):
    """The listener went with the reload that the worker missed; its file goes at the end, at the latest."""
    tcp = {"address": "127.0.0.1:0"}
    path = "l.sock"
    gateway = proofgw(
        reload_on_change=False,
        workers=2,
        listeners=[tcp, {"address": f"unix:{path}"}],
        timeouts={"shutdown": "300ms"},
        exit_code=EXIT_UNCLEAN,
    )
    with hanging(gateway.process, "w1"):
        gateway.configure(listeners=[tcp])
        gateway.signal(signal.SIGHUP)
        gateway.wait_event("config_reload_failed")
        assert (gateway.folder / path).exists()
        gateway.signal(signal.SIGTERM)
        wait_end(gateway.process)
    assert gateway.wait_exit() == EXIT_UNCLEAN
    assert not (gateway.folder / path).exists()


def test_a_renewed_certificate(proofgw, authority):
    """Those that are published are kept by the worker; those that come then are refused, and shown by all when it goes on."""
    pair = authority.leaf(HOST, SANDBOX_HOST)
    gateway = proofgw(workers=2, reload_on_change=False, listeners=[tls_listener()], tls={"certificates": [pair.config]})
    gateway.authority = authority
    with hanging(gateway.process, "w1"):
        pair.become(authority.leaf(HOST, SANDBOX_HOST))
        (event,) = gateway.wait_event("config_reload_failed")
        assert (event["trigger"], event["error"]) == ("certificates", NOT_TAKEN)
        last = authority.leaf(HOST, SANDBOX_HOST)
        pair.become(last)
        assert gateway.wait_event("certificates_refused")[0]["cause"] == NOT_YET
        assert len(gateway.events("config_reload_failed")) == 1
        assert gateway.metrics()["proofgw_config_last_reload_successful"] == 1  # the file is in force
    gateway.wait_event("certificates_replaced")
    for _ in range(8):
        wait_for(lambda: connect(gateway).certificate == last.der, gateway.ops_text)
