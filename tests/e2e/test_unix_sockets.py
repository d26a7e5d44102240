"""Unix sockets carry what TCP does not: descriptors, which end a read behind the bytes that they came with."""

import os
import signal
import socket

from support.backend import answer
from support.client import request
from support.expect import is_error, is_passed


def send_with_descriptor(gateway, end, data):
    """In two parts, which are both there when the gateway reads; the first one has a descriptor."""
    gateway.signal(signal.SIGSTOP)
    with open(os.devnull) as file:
        socket.send_fds(end, [data[:20]], [file.fileno()])
    end.sendall(data[20:])
    gateway.signal(signal.SIGCONT)


def test_a_client_that_sends_descriptors(proofgw, partner, tmp_path):
    gateway = proofgw(listeners=[{"address": f"unix:{tmp_path}/l.sock"}])
    client = gateway.client(f"{tmp_path}/l.sock")
    for _ in range(3):
        is_error(client.exchange(fields=partner.authorization), "forbidden_origin")
    send_with_descriptor(gateway, client.socket, request(fields=partner.authorization))
    is_error(client.response(), "forbidden_origin")


def test_a_backend_that_sends_descriptors(proofgw, backends, partner, tmp_path):
    backend = backends(path=tmp_path / "b.sock")
    gateway = proofgw(upstream=backend.address)
    gate = backend.gate()
    first, rest = b"the first part, ", b"the rest, in two parts of which one has a descriptor"

    def script(c):
        c.read_request()
        c.send(answer(body=first + rest)[: -len(rest)])
        gate.wait()
        send_with_descriptor(gateway, c.socket, rest)
        c.drain()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization))
    client.wait_bytes(first)
    gate.open()
    is_passed(client.response(), body=first + rest)
