"""Local ports that are used up.

Goal: a connection to the backend that cannot even be tried for want of a local port is not the backend's fault: 503.

Method: a gateway in a network namespace of its own, whose only local port its own listener has. Clients come through a
unix socket, which knows no such namespaces. No backend is there, and with ports left that is a 502.
"""

import json

import pytest

from support.client import Client, request
from support.expect import is_error
from support.gateway import Metrics
from support.process import EXIT_OK, get
from support.wait import wait_for
from support.websocket import upgrade

pytest_plugins = ["support.process"]

TAKEN = 40000  # in the namespace, where nobody else is
FROM = "X-Forwarded-For: 127.0.0.1\r\n"


@pytest.fixture
def gateway(start, tmp_path):
    """gateway(upstream, first, last): with these local ports."""

    def make(upstream, first, last):
        prepare = f"ip link set lo up && echo {first} {last} >/proc/sys/net/ipv4/ip_local_port_range"
        process = start(
            prefix=("unshare", "--user", "--map-root-user", "--net", "sh", "-c", f'{prepare} && exec "$@"', "sh"),
            listeners=[{"address": "unix:client.sock", "forwarded_for": True}, {"address": f"127.0.0.1:{TAKEN}"}],
            environments={"production": {"upstream": upstream}},
            logs={"access": str(tmp_path / "access.log")},
            admin={"address": "unix:admin.sock"},
        ).wait_started()
        wait_for(lambda: process.events("store_loaded"), process.text)
        return process

    return make


def asked(process, *requests):
    """The answers, all on one connection; then the numbers."""
    client = Client(process.address())
    answers = [client.ask(data) for data in requests]
    client.close()
    return answers, Metrics(get(process.address("admin_listening"), "/metrics").body.decode())


def ends(process, tmp_path):
    assert process.stop() == EXIT_OK
    return [json.loads(line)["end"] for line in (tmp_path / "access.log").read_text().splitlines()]


@pytest.mark.parametrize("upstream", ["127.0.0.1:9", "[::1]:9"])
def test_the_backend_is_not_blamed(gateway, partner, tmp_path, upstream):
    process = gateway(upstream, TAKEN, TAKEN)
    answers, metrics = asked(process, request(fields=FROM + partner.authorization), upgrade(partner, fields=FROM))
    for answer in answers:
        is_error(answer, "unavailable", closes=False)
    assert metrics("proofgw_limits_hit_total", limit="local_ports") == 2
    assert metrics["proofgw_upstream_connect_failures_total"] == 0
    assert wait_for(lambda: process.events("upstream_connect_failed"), process.text)[0]["err"] == "no_local_port"
    assert ends(process, tmp_path) == ["gateway/queue"] * 2


def test_with_ports_left_it_is_the_backend(gateway, partner, tmp_path):
    process = gateway("127.0.0.1:9", TAKEN, TAKEN + 1000)
    (answer,), metrics = asked(process, request(fields=FROM + partner.authorization))
    is_error(answer, "upstream_unavailable", closes=False)
    assert metrics("proofgw_limits_hit_total", limit="local_ports") == 0
    assert metrics["proofgw_upstream_connect_failures_total"] == 1
    assert ends(process, tmp_path) == ["backend/connect"]
