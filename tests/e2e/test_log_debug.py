"""Lines of level debug: connections, who has ended them, and requests that were sent again.

Goal: in an incident, one command shows what happens to single connections; without it, nothing is written about them.
Method: the same things happen under both levels.
"""

import signal
import subprocess

from support.backend import answer
from support.client import request
from support.expect import is_error, is_passed
from support.proofctl import ENVIRONMENT, PROOFCTL
from support.wait import DEADLINE_S, wait_for

pytest_plugins = ["support.tls"]

DEBUG = {"logs": {"level": "debug"}}
EVENTS = {"backend_addresses", "client_closed", "client_opened", "upstream_closed", "upstream_opened", "upstream_retry"}


def debug_lines(gateway):
    return [e["event"] for e in gateway.events() if e.get("level") == "debug"]


def line(gateway, name, **fields):
    """The first line of this event with these fields; waits for it."""

    def found():
        return next((e for e in gateway.events(name) if all(e[k] == str(v) for k, v in fields.items())), None)

    return wait_for(found, lambda: f"{name} {fields}:\n{gateway.ops_text()}")


def ask_once(gateway, partner):
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    client.close()
    gateway.wait_metric("proofgw_connections_open", 0)


def lose_connection(proofgw, backend, partner, level):
    """A request, and a second one whose kept connection dies. Returns the gateway and the second answer."""

    def stale(c):
        c.read_request()
        c.send(answer())
        c.read_head()
        c.close()

    gateway = proofgw(upstream="localhost:" + backend.address.split(":")[1], logs={"level": level})
    wait_for(lambda: gateway.admin("/readyz")[0] == 200, "the address of the backend")
    backend.script(stale)
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    again = is_passed(client.exchange(fields=partner.authorization))
    client.close()
    gateway.wait_metric("proofgw_connections_open", 0)
    return gateway, again


def test_debug_tells_of_each_connection(proofgw, backend, partner):
    gateway, again = lose_connection(proofgw, backend, partner, "debug")
    closed = line(gateway, "client_closed", by="client", state="idle", requests=2)
    opened = line(gateway, "client_opened", fd=closed["fd"])
    assert opened["client_ip"] == closed["client_ip"] == "127.0.0.1"
    assert (opened["client_ip_source"], opened["listener"]) == ("socket", gateway.config["listeners"][0]["address"])
    assert backend.address in line(gateway, "backend_addresses", env="production")["addresses"].split(",")
    retried = line(gateway, "upstream_retry", request_id=again["x-request-id"])
    assert (retried["env"], retried["phase"]) == ("production", "response_head")
    line(gateway, "upstream_closed", fd=retried["fd"], state="leased", backend_ended="yes")
    last = gateway.events("upstream_opened")[-1]
    assert (last["address"], last["env"]) == (backend.address, "production")
    assert int(last["local_port"]) == backend.connections[-1].socket.getpeername()[1]
    assert set(debug_lines(gateway)) == EVENTS


def test_info_tells_of_none(proofgw, backend, partner):
    gateway, _ = lose_connection(proofgw, backend, partner, "info")
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0  # every line is written
    assert not debug_lines(gateway)


def test_proofctl_switches_it_on_and_off(proofgw, partner):
    gateway = proofgw(admin={"control_socket": "control.sock"})
    wait_for((gateway.folder / "control.sock").exists, "the control socket")

    def set_level(level):
        command = [str(PROOFCTL), "-c", str(gateway.config_file), "log-level", level]
        subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE_S, env=ENVIRONMENT)

    ask_once(gateway, partner)
    set_level("debug")
    ask_once(gateway, partner)
    set_level("info")
    ask_once(gateway, partner)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 0
    assert debug_lines(gateway) == ["client_opened", "client_closed"]  # the backend's is the one of before


# --- who has ended a client's connection -----------------------------------------------------------------


def test_a_client_that_says_nothing(proofgw, tmp_path):
    path = tmp_path / "listen.sock"  # over TCP the kernel would wait for its first byte
    gateway = proofgw(timeouts={"keep_alive": "100ms"}, listeners=[{"address": f"unix:{path}"}], **DEBUG)
    gateway.client(path).expect_close()
    closed = line(gateway, "client_closed", by="timeout", requests=0)
    assert closed["client_ip"] == "-"


def test_an_answer_that_is_the_last_one(proofgw, partner):
    gateway = proofgw(**DEBUG)
    client = gateway.client()
    assert client.exchange(fields=partner.authorization + "Connection: close\r\n").status == 200
    client.expect_close()
    line(gateway, "client_closed", by="ok", requests=1)


def test_an_answer_that_is_cut_off(proofgw, backend, partner):
    gateway, gate = proofgw(**DEBUG), backend.gate()

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n12345")
        gate.wait()
        c.reset()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization, version="1.0"))
    client.wait_bytes(b"12345")
    gate.open()
    client.expect_reset()
    line(gateway, "client_closed", by="backend", state="exchange", requests=1)


def test_a_connection_too_many(proofgw):
    gateway = proofgw(limits={"connections_per_source": 1}, **DEBUG)
    assert gateway.client().exchange().status == 401
    client = gateway.client()
    is_error(client.exchange(), "unavailable", closes=True)
    client.close()
    line(gateway, "client_closed", by="gateway", requests=0)


def test_a_handshake_that_is_none(https):
    gateway = https(**DEBUG)
    gateway.client().send(request())
    line(gateway, "client_closed", by="client", state="handshake", requests=0)


def test_the_bound_of_the_shutdown(proofgw, backend, partner):
    gateway = proofgw(timeouts={"shutdown": "200ms"}, exit_code=3, **DEBUG)
    backend.script(lambda c: (c.read_request(), c.expect_end()))
    gateway.client().send(request(fields=partner.authorization))
    backend.wait_requests(1)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == 3
    line(gateway, "client_closed", by="shutdown", state="exchange", requests=1)
