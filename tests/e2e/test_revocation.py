"""Open tunnels obey the policy.

Goal: a WebSocket whose token, partner or address is no longer allowed ends with a close frame 1008 at a frame boundary, well within a
second of the change; those that are still allowed are not touched; the end of a grace period does the same by itself.
Method: raw WebSockets through the real gateway to the demo backend; the partner file is changed under them.
"""

import time

import pytest

from support.client import Stopwatch
from support.partners import Partner, new_token
from support.wait import wait_for
from support.websocket import BINARY, CLOSE, TEXT, frame, read_frame, upgrade

ECHO = "/ws?tx_id=1&echo=1&interval_ms=0"
MASK = b"\x01\x02\x03\x04"


def open_tunnel(gateway, partner, **kwargs):
    client = gateway.client()
    answer = client.ask(upgrade(partner, ECHO, **kwargs))
    assert answer.status == 101, answer.raw_head
    return client


def echo(client, payload=b"still here"):
    """A round trip through the tunnel; other messages of the backend may come between."""
    client.send(frame(BINARY, payload, MASK))
    while True:
        _, opcode, got = read_frame(client.reader)
        if opcode == BINARY:
            assert got == payload
            return


def expect_policy_close(client):
    """The next frame but for text messages is a close 1008, and then the connection ends in an orderly way."""
    opcode = TEXT
    while opcode == TEXT:
        _, opcode, payload = read_frame(client.reader)
    assert opcode == CLOSE and payload[:2] == (1008).to_bytes(2, "big"), (opcode, payload)
    assert payload[2:] == b"no longer allowed"
    client.half_close().expect_close()


def ended(gateway, why):
    gateway.wait_metric("proofgw_tunnels_closed_total", 1, reason=why)
    line = gateway.wait_access(1, event="tunnel_close")[-1]
    assert line["end"] == f"{why}/tunnel"


def revoke(partner):
    partner.token = new_token()


def disable(partner):
    partner.enabled = False


def take_address(partner):
    partner.production = ["192.0.2.1"]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("change, why", [(revoke, "token"), (disable, "disabled"), (take_address, "address")])
def test_a_tunnel_that_is_no_longer_allowed_ends(proofgw, demo, partner, change, why, workers):
    other = Partner("other")
    gateway = proofgw(partners=[partner, other], upstream=demo.address, workers=workers)
    gateway.secrets.append(partner.token)
    cut, kept = open_tunnel(gateway, partner), open_tunnel(gateway, other)
    echo(cut), echo(kept)
    change(partner)
    gateway.update_partners([partner, other])
    expect_policy_close(cut)
    echo(kept)
    ended(gateway, why)


def test_a_removed_partner_loses_its_tunnels(proofgw, demo, partner):
    other = Partner("other")
    gateway = proofgw(partners=[partner, other], upstream=demo.address)
    cut, kept = open_tunnel(gateway, partner), open_tunnel(gateway, other)
    gateway.update_partners([other])
    expect_policy_close(cut)
    echo(kept)
    ended(gateway, "token")


def test_a_rotation_keeps_tunnels_until_the_grace_period_ends(proofgw, demo, partner):
    gateway = proofgw(upstream=demo.address)
    client = open_tunnel(gateway, partner)
    gateway.secrets.append(partner.token)
    until = time.time() + 1.5
    partner.rotate(grace_until=until)
    gateway.update_partners([partner])
    echo(client)
    expect_policy_close(client)
    assert time.time() >= until - 0.001  # the record holds whole milliseconds
    ended(gateway, "expired")
    assert gateway.access("tunnel_close")[-1]["token_slot"] == "previous"


def test_messages_do_not_hold_the_end_of_a_grace_period_up(proofgw, demo, partner):
    """Each message sets the deadline again."""
    gateway = proofgw(upstream=demo.address)
    client = open_tunnel(gateway, partner)
    gateway.secrets.append(partner.token)
    until = time.time() + 0.7
    partner.rotate(grace_until=until)
    gateway.update_partners([partner])
    opcode = BINARY
    while opcode == BINARY:
        assert time.time() < until + 1
        client.send(frame(BINARY, b"busy", MASK))
        _, opcode, _ = read_frame(client.reader)
    assert opcode == CLOSE
    assert time.time() >= until - 0.001
    ended(gateway, "expired")


def test_a_tunnel_opened_with_the_previous_token_ends_with_it(proofgw, demo, partner):
    old = partner.authorization
    partner.rotate(grace_until=time.time() + 2)
    gateway = proofgw(upstream=demo.address)
    client = gateway.client()
    assert client.ask(upgrade(partner, ECHO).replace(partner.authorization.encode(), old.encode())).status == 101
    echo(client)
    expect_policy_close(client)
    ended(gateway, "expired")


def test_a_longer_grace_period_counts(proofgw, demo, partner):
    gateway = proofgw(upstream=demo.address)
    client = open_tunnel(gateway, partner)
    gateway.secrets.append(partner.token)
    watch, soon = Stopwatch(), time.time() + 1
    partner.rotate(grace_until=soon)
    gateway.update_partners([partner])
    partner.previous_expires_at = soon + 3600
    gateway.update_partners([partner])
    wait_for(lambda: watch.seconds() > 1.5, "the first end of the grace period to pass")
    echo(client)


def test_other_changes_of_the_partner_touch_nothing(proofgw, demo, partner):
    gateway = proofgw(upstream=demo.address)
    client = open_tunnel(gateway, partner)
    partner.off_ramp = True
    partner.production = partner.production + ["198.51.100.0/24"]
    gateway.update_partners([partner])
    echo(client)
    assert gateway.metrics()("proofgw_tunnels_closed_total", reason="token") == 0


def test_the_close_frame_waits_for_the_frame_that_is_on_its_way(proofgw, backend, partner):
    """The backend stands in the middle of a frame: a close frame now would be payload."""
    gateway = proofgw()
    gate = backend.gate()
    big = frame(TEXT, b"x" * 1000)

    def half_a_frame(connection):
        from support.websocket import accepting

        connection.send(accepting(connection.read_head()) + big[:500])
        gate.wait()
        connection.send(big[500:])
        connection.drain()

    backend.script(half_a_frame)
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    assert client.reader.exactly(500) == big[:500]
    disable(partner)
    gateway.update_partners([partner])
    gate.open()
    assert client.reader.exactly(len(big) - 500) == big[500:]
    expect_policy_close(client)
    ended(gateway, "disabled")


def test_a_tunnel_that_never_reaches_a_boundary_is_cut(proofgw, backend, partner):
    gateway = proofgw()
    big = frame(TEXT, b"x" * 1000)

    def stuck(connection):
        from support.websocket import accepting

        connection.send(accepting(connection.read_head()) + big[:500])
        connection.drain()

    backend.script(stuck)
    client = gateway.client()
    assert client.ask(upgrade(partner)).status == 101
    assert client.reader.exactly(500) == big[:500]
    disable(partner)
    gateway.update_partners([partner])
    client.expect_close()
    ended(gateway, "disabled")


def test_two_hundred_tunnels_of_one_partner_end_and_the_rest_stay(proofgw, demo, partner):
    other = Partner("other")
    gateway = proofgw(partners=[partner, other], upstream=demo.address, workers=4)
    cut = [open_tunnel(gateway, partner) for _ in range(200)]
    kept = [open_tunnel(gateway, other) for _ in range(50)]
    disable(partner)
    gateway.update_partners([partner, other])
    for client in cut:
        expect_policy_close(client)
    for client in kept:
        echo(client)
    gateway.wait_metric("proofgw_tunnels_closed_total", 200, reason="disabled")
