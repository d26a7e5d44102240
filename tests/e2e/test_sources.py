"""limits.connections_per_source: connections of one address, at all workers of the process together.

Goal: exactly as many as the limit says, whichever workers the kernel gives them to, and however many come at once; a
place that is free is free at every worker; reloads, drains and memory that is short change nothing about that.

Method: several workers and real connections. The tunnels that the gateway lists say which worker has a connection.
"""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.backend import Connection
from support.caller import balancer, listener
from support.client import request
from support.control import ask
from support.expect import is_error, is_passed
from support.limits import hit, is_over
from support.partners import digest
from support.proxy_header import v2
from support.successor import upgrade as upgrade_process
from support.successor import wait_left
from support.websocket import CLOSE, accepting, read_frame, upgrade

WORKERS = 4
LIMIT = "connections_per_source"
OTHER = "127.0.0.2"
# Enough for each of four workers to get some: that one gets none of 64 happens once in 25 million runs.
MANY, TOO_MANY = 64, 160


@pytest.fixture
def make(proofgw, partner):
    """A gateway of several workers with this limit, whose partner may call from some addresses."""
    partner.production = ["127.0.0.0/24", "2001:db8::/32"]

    def started(most, workers=WORKERS, **changes):
        admin = {"control_socket": "control.sock"}
        return proofgw(workers=workers, reload_on_change=False, admin=admin, limits={LIMIT: most}, **changes)

    return started


def control(gateway, target, method="GET"):
    status, told = ask(gateway.folder / "control.sock", target, method)
    assert status == 200, told
    return told


def caller(gateway, partner, address="127.0.0.1"):
    """What explain says of the address."""
    target = f"/explain?host=api.test&ip={address}&path=/widget/x&token_sha256={digest(partner.token)}"
    step = control(gateway, target)["steps"][0]
    assert step["check"] == "caller"
    return step


def tunnel(c):
    c.send(accepting(c.read_request()))
    c.drain()


def try_all(gateway, n, data, source=None):
    """So many connections, which all come at once, each with a request: (those that were let in, the others)."""

    def attempt(_):
        client = gateway.client(source=source)
        return client, client.ask(data)

    with ThreadPoolExecutor(16) as pool:
        attempts = list(pool.map(attempt, range(n)))
    refused = [client for client, got in attempts if got.status == 503]
    for client, got in attempts:
        if got.status == 503:
            is_error(got, "unavailable", closes=True)
            client.expect_close()
        else:
            assert got.status in (101, 200), got.raw_head
    return [client for client, got in attempts if got.status != 503], refused


def end(gateway, clients, remain):
    for client in clients:
        client.reset()
    gateway.wait_metric("proofgw_connections_open", remain)


# --- how many


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_as_many_as_the_limit_says_at_all_workers_together(make, backend, partner, workers):
    gateway = make(MANY, workers)
    backend.script(*[tunnel] * MANY)
    admitted, refused = try_all(gateway, TOO_MANY, upgrade(partner))
    assert (len(admitted), len(refused)) == (MANY, TOO_MANY - MANY)
    assert hit(gateway, LIMIT) == len(refused)
    assert {t["worker"] for t in control(gateway, "/tunnels")["tunnels"]} == set(range(workers))
    is_passed(gateway.client(source=OTHER).exchange(fields=partner.authorization))


def test_a_place_that_is_free_is_free_at_every_worker(make, backend, partner):
    """Again and again, so that it matters at which worker each of them was counted and given back."""
    gateway = make(8)
    held, _ = try_all(gateway, 8, request(fields=partner.authorization))
    for left in (7, 0, 4, 1, 0):
        end(gateway, held[left:], left)
        more, refused = try_all(gateway, 24, request(fields=partner.authorization))
        held = held[:left] + more
        assert (len(held), len(refused)) == (8, 24 - (8 - left))
    for client in held:
        is_passed(client.exchange(fields=partner.authorization))


def test_one_after_the_other(make, backend, partner):
    gateway = make(2, workers=1)
    mine = [gateway.client(), gateway.client()]
    for client in mine:
        is_passed(client.exchange(fields=partner.authorization))
    third = gateway.client()
    is_over(gateway, third, third.exchange(fields=partner.authorization), "unavailable", LIMIT)
    is_passed(gateway.client(source=OTHER).exchange(fields=partner.authorization))
    mine[0].close()
    gateway.wait_metric("proofgw_connections_open", 2)
    is_passed(gateway.client().exchange(fields=partner.authorization))


def test_no_limit(make, backend, partner):
    gateway = make(0)
    for _ in range(50):
        is_passed(gateway.client().exchange(fields=partner.authorization))


def test_a_network_of_ipv6_counts_together(make, backend, partner):
    gateway = make(3, listeners=listener(proxy_protocol=True))
    data = request(fields=partner.authorization)
    same = [balancer(gateway, v2(f"2001:db8:0:1::{i:x}")).ask(data) for i in range(1, 21)]
    assert [got.status for got in same].count(200) == 3
    is_passed(balancer(gateway, v2("2001:db8:0:2::1")).ask(data))
    assert caller(gateway, partner, "2001:db8:0:1:ffff::")["connections_open"] == 3


# --- while things change


def test_a_reload_changes_the_limit_for_everybody(make, backend, partner):
    """Who is there stays, and is counted from the start, although there was no limit then."""
    gateway = make(0)
    data = request(fields=partner.authorization)
    held, _ = try_all(gateway, 12, data)
    gateway.reload(limits={LIMIT: 8})
    assert try_all(gateway, 8, data)[0] == []
    end(gateway, held[9:], 9)  # still one too many
    assert try_all(gateway, 8, data)[0] == []
    end(gateway, held[6:9], 6)
    more, refused = try_all(gateway, 8, data)
    assert (len(more), len(refused)) == (2, 6)
    gateway.reload(limits={LIMIT: 20})
    assert len(try_all(gateway, 30, data)[0]) == 12
    for client in held[:6] + more:
        is_passed(client.exchange(fields=partner.authorization))


def test_connections_that_drain_count_until_they_are_closed(make, backend, partner):
    gateway = make(2, timeouts={"drain_keep_alive": "1m"})
    data = request(fields=partner.authorization)
    gate = backend.hold(then=Connection.serve)
    busy, idle = gateway.client().send(data), gateway.client()
    backend.wait_requests(1)
    is_passed(idle.ask(data))
    control(gateway, "/drain", "POST")
    gateway.wait_event("draining")
    assert try_all(gateway, 4, data)[0] == []
    is_passed(idle.ask(data))
    idle.expect_close()
    for _ in range(2):  # one place, for one connection after the other
        gateway.wait_metric("proofgw_connections_open", 1)
        late = gateway.client()
        is_passed(late.ask(data))
        late.expect_close()
    gateway.wait_metric("proofgw_connections_open", 1)
    control(gateway, "/undrain", "POST")
    assert len(try_all(gateway, 4, data)[0]) == 1
    gate.open()
    is_passed(busy.response())


def test_after_an_upgrade_the_new_process_counts_for_itself(make, backend, partner):
    gateway = make(2, timeouts={"drain_tunnels": "0s", "drain_keep_alive": "1m"})
    data = request(fields=partner.authorization)
    held, _ = try_all(gateway, 2, data)
    old = upgrade_process(gateway)
    wait_left(old)
    admitted, _ = try_all(gateway, 6, data)
    assert len(admitted) == 2
    for client in held:
        is_passed(client.ask(data))
        client.expect_close()
    assert old.wait(10) == 0
    assert try_all(gateway, 6, data)[0] == []


def test_whatever_ends_a_connection_its_place_is_free(make, backend, partner):
    """Closed by either side, reset, refused, a tunnel that was closed by hand."""
    gateway = make(2, timeouts={"request_head": "300ms", "linger": "300ms"})
    data = request(fields=partner.authorization)
    closing = request(fields=partner.authorization + "Connection: close\r\n")
    backend.script(tunnel)

    def is_counted():
        gateway.wait_metric("proofgw_connections_open", 1)

    def bad(client):
        is_error(client.ask(b"GET / HTTP/1.1\r\n\r\n"), "decode_error", closes=True)
        client.expect_close()

    def by_hand(client):
        assert client.ask(upgrade(partner)).status == 101
        control(gateway, "/tunnels/close?partner=acme", "POST")
        assert read_frame(client.reader)[1] == CLOSE
        client.half_close().expect_close()

    ways = [
        by_hand,
        lambda client: (client.ask(data), client.close()),
        lambda client: (client.send(data), is_counted(), client.reset()),
        lambda client: (client.send(data[:20]), is_counted(), client.reset()),
        lambda client: (client.ask(closing), client.expect_close()),
        lambda client: (client.send(data[:20]).response(), client.expect_close()),
        bad,
    ]
    for way in ways:
        way(gateway.client())
        gateway.wait_metric("proofgw_connections_open", 0)
        assert caller(gateway, partner)["connections_open"] == 0
    admitted, _ = try_all(gateway, 6, data)
    assert len(admitted) == 2


# --- what shows it


def test_explain_and_metrics_say_who_is_there(make, backend, partner):
    gateway = make(5)
    assert gateway.metrics()["proofgw_connection_sources"] == 0
    assert caller(gateway, partner) == {
        "check": "caller", "result": "known", "address": "127.0.0.1", "connections_open": 0, "connections_per_source": 5,
    }  # fmt: skip
    data = request(fields=partner.authorization)
    mine, _ = try_all(gateway, 8, data)
    with contextlib.closing(gateway.client(source=OTHER)) as client:
        is_passed(client.ask(data))
        assert caller(gateway, partner)["connections_open"] == 5
        assert caller(gateway, partner, OTHER)["connections_open"] == 1
        assert gateway.metrics()["proofgw_connection_sources"] == 2
    end(gateway, mine, 0)
    assert caller(gateway, partner)["connections_open"] == 0
    gateway.wait_metric("proofgw_connection_sources", 0)
