"""What the tests of a partner's limits share. What is counted is asked for on the control socket (`explain`)."""

import contextlib

from support.backend import answer
from support.client import request
from support.control import ask
from support.expect import is_error, is_passed
from support.partners import digest
from support.wait import wait_for
from support.websocket import accepting, upgrade


def limited_gateway(proofgw, partners=None, timeouts=None, **limits):
    """Two workers and these limits."""
    short = {"drain_keep_alive": "300ms", "drain_tunnels": "0s", **(timeouts or {})}
    admin = {"control_socket": "control.sock"}
    return proofgw(partners=partners, workers=2, reload_on_change=False, admin=admin, timeouts=short, limits=limits)


def explain(gateway, partner, path="/widget/x", **more):
    query = "".join(f"&{key}={value}" for key, value in more.items())
    target = f"/explain?host=api.test&ip=127.0.0.1&path={path}&token_sha256={digest(partner.token)}{query}"
    status, told = ask(gateway.folder / "control.sock", target)
    assert status == 200, told
    return told


def limits_step(told):
    return next(step for step in told["steps"] if step["check"] == "limits")


def usage(gateway, partner):
    step = limits_step(explain(gateway, partner))
    return step["requests_under_way"], step["tunnels_open"]


def wait_usage(gateway, partner, wanted):
    wait_for(lambda: usage(gateway, partner) == wanted, lambda: f"{usage(gateway, partner)}, not {wanted}")


def is_limited(gateway, got, deny, retry_after="1"):
    is_error(got, "rate_limited", closes=False)
    assert got["retry-after"] == retry_after
    line = gateway.line_of(got)
    assert (line["status"], line["deny"], line["end"]) == (429, deny, "gateway/decide")
    return got


def get(gateway, partner, **kwargs):
    with contextlib.closing(gateway.client()) as client:
        return client.exchange(fields=partner.authorization, **kwargs)


def hold(gate):
    """A script of a backend that answers its first request when the gate is open."""

    def script(c):
        c.read_request()
        gate.wait()
        c.send(answer(fields="Connection: close\r\n"))  # the next one gets a connection, and a script, of its own
        c.drain()

    return script


def hold_one(gateway, backend, partner):
    """A client whose request is under way until the gate is open."""
    gate, n = backend.gate(), len(backend.requests)
    backend.script(hold(gate))
    client = gateway.client().send(request(fields=partner.authorization))
    backend.wait_requests(n + 1)
    return client, gate


def let_go(client, gate):
    gate.open()
    is_passed(client.response())


def open_tunnel(gateway, backend, partner, script=lambda c: c.drain()):
    backend.script(lambda c: (c.send(accepting(c.read_request())), script(c)))
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    return client
