"""The limits of a partner: its pace, its requests under way. Its tunnels: test_partner_tunnels.py.

Goal: a partner gets what the configuration allows it of the whole process, no more and no less; nobody else notices; and whatever
way a request or a tunnel ends, its place is free again.

Method: two workers and many connections, so that both count. Backends answer when the test says so. What is counted is asked for on the
control socket (`explain`). The only sleeps are those that a Retry-After asks for.
"""

import contextlib
import functools
import time

import pytest

from support.client import Stopwatch, request
from support.control import ask
from support.expect import is_error, is_passed
from support.partner_limits import (
    explain,
    get,
    hold_one,
    is_limited,
    let_go,
    limited_gateway,
    limits_step,
    open_tunnel,
    usage,
    wait_usage,
)
from support.partners import Partner
from support.wait import wait_for
from support.websocket import accepting, upgrade

SANDBOX = "sandbox.test"


@pytest.fixture
def make(proofgw):
    return functools.partial(limited_gateway, proofgw)


# --- the pace ----------------------------------------------------------------------------------------------


def test_a_burst_then_429_then_passed_after_retry_after(make, backend, partner):
    gateway = make(rate_per_partner=1, burst_per_partner=8)
    clients = [gateway.client() for _ in range(20)]
    watch = Stopwatch()
    answers = [client.exchange(fields=partner.authorization) for client in clients]
    most = 8 + int(watch.seconds()) + 1
    passed = [got for got in answers if got.status == 200]
    assert 8 <= len(passed) <= most
    assert all(got.status == 200 for got in answers[:8])
    limited = [(client, got) for client, got in zip(clients, answers) if got.status != 200]
    assert limited
    for client, got in limited:
        is_limited(gateway, got, "rate")
        client.expect_silence()
    client, got = limited[-1]
    time.sleep(int(got["retry-after"]))
    is_passed(client.exchange(fields=partner.authorization))  # the same connection
    assert len(backend.requests) == len(passed) + 1
    scrape = gateway.metrics()
    assert scrape("proofgw_limits_hit_total", limit="rate_per_partner") == len(limited)
    assert scrape("proofgw_auth_denied_total", reason="rate", env="production") == len(limited)
    assert scrape("proofgw_http_requests_total", code=429) == len(limited)


def test_the_burst_is_a_second_unless_said_otherwise(make, partner):
    gateway = make(rate_per_partner=30)
    client = gateway.client()
    watch = Stopwatch()
    client.send(request(fields=partner.authorization) * 200)
    passed = sum(client.response().status == 200 for _ in range(200))
    assert 30 <= passed <= 30 + 30 * watch.seconds() + 1


def test_both_environments_and_both_routes_share_the_pace(make, backend):
    partner = Partner("acme", sandbox=["127.0.0.1"])
    gateway = make([partner], rate_per_partner=1, burst_per_partner=3)
    is_passed(get(gateway, partner))
    is_passed(get(gateway, partner, host=SANDBOX))
    backend.script(lambda c: (c.send(accepting(c.read_request())), c.expect_end()))
    assert gateway.client().ask(upgrade(partner)).status == 101
    answers = [get(gateway, partner, host=host) for host in ("api.test", SANDBOX) * 3]
    assert 429 in {got.status for got in answers}
    limited = next(got for got in answers if got.status == 429)
    is_limited(gateway, limited, "rate")


def test_partners_do_not_touch_each_other(make):
    partners = [Partner(name) for name in ("acme", "blue", "cyan")]
    gateway = make(partners, rate_per_partner=1, burst_per_partner=2, concurrency_per_partner=5)
    for partner in partners:
        answers = [get(gateway, partner).status for _ in range(6)]
        assert answers[:2] == [200, 200] and 429 in answers


def test_who_is_not_let_in_uses_nothing_up_and_learns_nothing(make, partner):
    gateway = make(rate_per_partner=1, burst_per_partner=3, concurrency_per_partner=2)
    client = gateway.client()
    stranger = Partner("stranger")
    gateway.secrets.append(stranger.token)

    def refused_as_ever():
        is_error(client.exchange(target="/nothing", fields=partner.authorization), "not_found")
        is_error(client.exchange(), "missing_token")
        is_error(client.exchange(fields=stranger.authorization), "invalid_token")
        is_error(client.exchange(fields=partner.authorization, host=SANDBOX), "forbidden_origin")

    for _ in range(5):
        refused_as_ever()
    for _ in range(3):
        is_passed(client.exchange(fields=partner.authorization))
    answers = [client.exchange(fields=partner.authorization).status for _ in range(4)]
    assert 429 in answers
    refused_as_ever()
    assert gateway.metrics()("proofgw_auth_denied_total", reason="address") == 6


def test_a_429_keeps_the_connection_also_with_a_body(make, backend, partner):
    gateway = make(rate_per_partner=1, burst_per_partner=1)
    client = gateway.client()
    is_passed(client.exchange("POST", fields=partner.authorization, body=b"x"))
    answers = [client.exchange("POST", fields=partner.authorization, body=b"x" * 5000) for _ in range(4)]
    is_limited(gateway, next(got for got in answers if got.status == 429), "rate")
    heads = [client.exchange("HEAD", fields=partner.authorization) for _ in range(4)]
    is_error(next(got for got in heads if got.status == 429), "rate_limited", closes=False, has_body=False)
    assert all(sent.body in (b"x", b"x" * 5000, b"") for sent in backend.requests)


# --- requests under way ------------------------------------------------------------------------------------


def test_concurrency(make, backend, partner):
    gateway = make(concurrency_per_partner=3)
    held = [hold_one(gateway, backend, partner) for _ in range(3)]
    assert usage(gateway, partner) == (3, 0)
    others = [gateway.client() for _ in range(6)]
    for client in others:
        is_limited(gateway, client.exchange(fields=partner.authorization), "concurrency")
    assert usage(gateway, partner) == (3, 0)  # refused requests do not count
    assert len(backend.requests) == 3
    let_go(*held.pop())
    for client in others:
        is_passed(client.exchange(fields=partner.authorization))
    for client, gate in held:
        let_go(client, gate)
    wait_usage(gateway, partner, (0, 0))
    scrape = gateway.metrics()
    assert scrape("proofgw_limits_hit_total", limit="concurrency_per_partner") == 6
    assert scrape("proofgw_auth_denied_total", reason="concurrency") == 6


def test_concurrency_with_the_demo_backend(proofgw, demo, partner):
    gateway = proofgw(upstream=demo.address, workers=2, limits={"concurrency_per_partner": 4})
    clients = [gateway.client() for _ in range(12)]
    for client in clients:
        client.send(request(target="/widget/slow?first_byte_ms=1500&bytes=10", fields=partner.authorization))
    answers = [client.response() for client in clients]
    assert sum(got.status == 200 for got in answers) == 4
    for got in answers:
        if got.status != 200:
            is_limited(gateway, got, "concurrency")
    for client in clients[:4]:
        is_passed(client.exchange(target="/widget/slow?first_byte_ms=1&bytes=2", fields=partner.authorization), body=b"ab")


def end_normally(gateway, backend, partner):
    let_go(*hold_one(gateway, backend, partner))


def end_by_client_reset(gateway, backend, partner):
    client, gate = hold_one(gateway, backend, partner)
    client.reset()
    wait_usage(gateway, partner, (0, 0))
    gate.open()


def backend_does(what):
    def end(gateway, backend, partner):
        def script(c):
            c.read_request()
            what(c)

        backend.script(script)
        with contextlib.closing(gateway.client()) as client:
            client.send(request("POST", fields=partner.authorization))
            return client.reader.until_end() if what is cut_in_the_answer else client.response()

    return end


def cut_in_the_answer(c):
    c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    c.close()


def end_within_the_body(gateway, backend, partner):
    with contextlib.closing(gateway.client()) as client:
        data = request("POST", fields=partner.authorization + "Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
        backend.script(lambda c: (c.read_head(), c.drain()))
        n = len(backend.requests)
        client.send(data + b"1\r\nx\r\n")
        backend.wait_requests(n + 1)
        is_error(client.ask(b"fffffff\r\n"), "body_too_large")


def end_before_the_backend(gateway, backend, partner):
    got = get(gateway, partner, method="POST", body=b"x" * 2000)
    is_error(got, "body_too_large")


def end_by_a_slow_client(gateway, backend, partner):
    backend.script(lambda c: c.drain())
    with contextlib.closing(gateway.client()) as client:
        client.send(request("POST", fields=partner.authorization, body=b"x" * 10)[:-5])
        is_error(client.response(), "request_timeout")


ENDS = {
    "normal": end_normally,
    "client reset": end_by_client_reset,
    "backend reset": backend_does(lambda c: c.reset()),
    "backend cut": backend_does(cut_in_the_answer),
    "not HTTP": backend_does(lambda c: c.send(b"SSH-2.0\r\n\r\n")),
    "backend timeout": backend_does(lambda c: c.drain()),
    "too large, late": end_within_the_body,
    "too large": end_before_the_backend,
    "slow client": end_by_a_slow_client,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_place_is_free_after(make, backend, partner, end):
    gateway = make(
        concurrency_per_partner=1, body="1KiB", timeouts={"upstream_response": "300ms", "request_body": "300ms", "linger": "100ms"}
        if end is not end_normally
        else None,
    )
    for _ in range(3):
        end(gateway, backend, partner)
        wait_usage(gateway, partner, (0, 0))
    is_passed(get(gateway, partner))
    assert gateway.metrics()("proofgw_limits_hit_total", limit="concurrency_per_partner") == 0


def test_the_end_of_the_process_with_requests_and_tunnels_under_way(make, backend, partner):
    """The harness wants a clean exit: a place that is given back twice is a BUG."""
    gateway = make(concurrency_per_partner=2, tunnels_per_partner=2, rate_per_partner=1000, timeouts={"shutdown": "300ms"})
    gateway.exit_code = 3
    client, gate = hold_one(gateway, backend, partner)
    open_tunnel(gateway, backend, partner)
    assert usage(gateway, partner) == (1, 1)
    gateway.signal(15)
    gateway.wait_exit()
    gate.open()


# --- live change -------------------------------------------------------------------------------------------


def test_limits_come_and_go_by_reload(make, backend, partner):
    gateway = make()
    client, gate = hold_one(gateway, backend, partner)
    tunnel = open_tunnel(gateway, backend, partner)
    assert usage(gateway, partner) == (0, 1)  # requests are counted only while they are limited
    gateway.reload(limits={"concurrency_per_partner": 1, "tunnels_per_partner": 1})
    second, second_gate = hold_one(gateway, backend, partner)
    is_limited(gateway, get(gateway, partner), "concurrency")
    is_limited(gateway, gateway.client().ask(upgrade(partner)), "tunnels")  # the one from before the limit counts
    let_go(client, gate)
    assert usage(gateway, partner) == (1, 1)
    gateway.reload(limits={"concurrency_per_partner": 0, "tunnels_per_partner": 0})
    is_passed(get(gateway, partner))
    let_go(second, second_gate)
    wait_usage(gateway, partner, (0, 1))
    tunnel.close()
    wait_usage(gateway, partner, (0, 0))
    gateway.reload(limits={"concurrency_per_partner": 1, "tunnels_per_partner": 1})
    is_passed(get(gateway, partner))
    open_tunnel(gateway, backend, partner)


def test_a_faster_pace_by_reload(make, partner):
    gateway = make(rate_per_partner=1, burst_per_partner=600)
    client = gateway.client()
    while client.exchange(fields=partner.authorization).status == 200:
        pass
    gateway.reload(limits={"rate_per_partner": 1000000, "burst_per_partner": 1000})
    # Ten minutes of the old pace are not waited for; who is refused meanwhile is told so and puts nothing off.
    def passes():
        got = client.exchange(fields=partner.authorization)
        assert got.status == 200 or got["retry-after"] == "1"
        return got.status == 200

    wait_for(passes, "the new pace")
    gateway.reload(limits={"rate_per_partner": 0})
    for _ in range(50):
        is_passed(client.exchange(fields=partner.authorization))


def test_without_limits_nobody_is_limited(make, backend, partner):
    gateway = make()
    held = [hold_one(gateway, backend, partner) for _ in range(20)]
    tunnels = [open_tunnel(gateway, backend, partner) for _ in range(10)]
    client = gateway.client().send(request(fields=partner.authorization) * 500)
    assert all(client.response().status == 200 for _ in range(500))
    assert usage(gateway, partner) == (0, len(tunnels))
    for pair in held:
        let_go(*pair)
    scrape = gateway.metrics()
    assert scrape["proofgw_limits_hit_total"] == 0
    assert scrape("proofgw_http_requests_total", code=429) == 0


# --- explain -----------------------------------------------------------------------------------------------


def test_explain_says_what_is_allowed_and_used(make, backend, partner):
    gateway = make(rate_per_partner=50, burst_per_partner=70, concurrency_per_partner=1, tunnels_per_partner=1)
    told = explain(gateway, partner)
    assert told["allowed"] and limits_step(told) == {
        "check": "limits", "result": "passed", "requests_under_way": 0, "tunnels_open": 0,
        "rate_per_partner": 50, "burst_per_partner": 70, "concurrency_per_partner": 1, "tunnels_per_partner": 1,
    }  # fmt: skip
    client, gate = hold_one(gateway, backend, partner)
    told = explain(gateway, partner)
    assert (told["allowed"], told["reason"], told["status"]) == (False, "concurrency", 429)
    assert limits_step(told)["result"] == "failed"
    assert explain(gateway, partner, path="/ws")["allowed"]
    open_tunnel(gateway, backend, partner)
    assert explain(gateway, partner, path="/ws")["reason"] == "tunnels"
    told = explain(gateway, Partner("nobody"))
    assert told["reason"] == "token_unknown" and limits_step(told)["result"] == "not reached"
    let_go(client, gate)


@pytest.mark.parametrize("remembered", [False, True])
def test_explain_a_request_that_was_limited(make, partner, remembered):
    """Also where the connection remembered the verdict, and no digest was made."""
    gateway = make(concurrency_per_partner=1)
    client = gateway.client()
    if remembered:
        is_passed(client.exchange(fields=partner.authorization))
    holder = gateway.client().send(request("POST", fields=partner.authorization, body=b"xx")[:-1])
    wait_usage(gateway, partner, (1, 0))
    got = is_limited(gateway, client.exchange(fields=partner.authorization), "concurrency")

    def explained():
        status, told = ask(gateway.folder / "control.sock", f"/explain?request_id={got['x-request-id']}")
        assert status == 200 and told["reason_then"] == "concurrency"
        return told["now"]

    assert explained()["reason"] == "concurrency"
    is_passed(holder.ask(b"x"))
    wait_usage(gateway, partner, (0, 0))
    assert explained()["allowed"]
