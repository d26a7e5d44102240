"""The access log: one line for each request, with what docs/LOGS.md says for that kind of end, and nothing else."""

import ipaddress
import json
import os
import re

import pytest

from support.backend import chunked
from support.client import Client, request
from support.expect import is_passed
from support.http1 import Ended
from support.process import EXIT_OK

pytest_plugins = ["support.process"]


ALWAYS = {
    *("time", "event", "request_id", "method", "bytes_in", "bytes_out"),
    *("duration_ms", "client_ip", "client_ip_source", "end"),
}

KNOWN = {"env", "path", "status"}  # a route and a host of ours, and an answer
CALLER = {"partner_id", "token_slot"}
LEASED = {"queue_ms", "backend_reused"}  # it had a connection to the backend
SENT = LEASED | {"send_ms"}
ANSWERED = SENT | {"backend_ms", "receive_ms"}


def fields_of(line):
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert (line["client_ip"], line["client_ip_source"]) == ("127.0.0.1", "socket")
    for key, value in line.items():
        if key.endswith("_ms"):
            assert 0 <= value <= line["duration_ms"], (key, line)
    assert "?" not in line.get("path", "")
    return set(line)


def test_the_line_of_an_answer(gateway, backend, partner):
    client = gateway.client()
    data = request("POST", "/widget/session?secret=1", fields=partner.authorization, body=b"x" * 1000)
    got = client.ask(data, "POST")
    line = gateway.line_of(got)
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | ANSWERED | {"connect_ms"}
    assert (line["event"], line["end"], line["status"], line["method"]) == ("request", "ok/done", 200, "POST")
    assert (line["env"], line["partner_id"], line["token_slot"]) == ("production", "acme", "current")
    assert line["path"] == "/widget/session"
    assert line["backend_reused"] is False
    assert line["bytes_in"] == len(data)
    assert line["bytes_out"] == len(got.raw_head) + len(got.body)
    line = gateway.line_of(client.exchange(fields=partner.authorization))
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | ANSWERED
    assert line["backend_reused"] is True


@pytest.mark.parametrize("leave", [Client.half_close, Client.reset])
def test_the_line_of_a_refusal_whose_client_goes_away(gateway, leave):
    """It was refused, whatever becomes of the body that is still to come."""
    fields = "Authorization: Bearer nobodys-token-0123456789\r\n"
    client = gateway.client().send(request("POST", fields=fields, body=b"x" * 1000)[:-990])
    got = client.response("POST")
    assert got.status == 401 and got["connection"] != "close"
    leave(client)
    line = gateway.line_of(got)
    assert (line["status"], line["end"], line["deny"]) == (401, "gateway/decide", "token_unknown")


DENIALS = {
    "no token": ({}, "token_missing", KNOWN),
    "unknown token": ({"fields": "Authorization: Bearer nobodys-token-0123456789\r\n"}, "token_unknown", KNOWN),
    "another scheme": ({"fields": "Authorization: Basic YTpi\r\n"}, "token_scheme", KNOWN),
    "malformed token": ({"fields": "Authorization: Bearer a b\r\n"}, "token_malformed", KNOWN),
    "no route": ({"target": "/elsewhere"}, "no_route", KNOWN),
    "no host": ({"host": "nobody.test"}, "no_host", KNOWN - {"env"}),
}


@pytest.mark.parametrize("kwargs, deny, fields", DENIALS.values(), ids=DENIALS)
def test_the_line_of_a_denial(gateway, kwargs, deny, fields):
    got = gateway.client().exchange(**kwargs)
    line = gateway.line_of(got)
    assert fields_of(line) == ALWAYS | fields | {"deny"}
    assert (line["deny"], line["status"], line["end"]) == (deny, got.status, "gateway/decide")


def test_the_line_of_a_denied_address(gateway, partner):
    """Who it was is known here."""
    got = gateway.client().exchange(host="sandbox.test", fields=partner.authorization)
    line = gateway.line_of(got)
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | {"deny"}
    assert (line["deny"], line["env"], line["end"]) == ("address", "sandbox", "gateway/decide")


def test_the_line_of_a_refused_head(gateway):
    got = gateway.client().ask(b"GET /widget/x HTTP/1.1\r\nHost: api.test\r\nBad Name: x\r\n\r\n")
    line = gateway.line_of(got)
    assert fields_of(line) == ALWAYS | {"status", "refused"}
    assert (line["refused"], line["end"]) == ("field_name", "client/request_head")


def test_the_line_of_a_broken_body(gateway, backend, partner):
    data = request("POST", fields=partner.authorization + "Transfer-Encoding: chunked\r\n")
    got = gateway.client().ask(data.replace(b"Content-Length: 0\r\n", b"") + b"zz\r\n", "POST")
    line = gateway.line_of(got)
    assert fields_of(line) >= ALWAYS | KNOWN | CALLER
    assert (line["status"], line["end"]) == (400, "client/request_body")


def test_the_line_of_a_backend_that_refuses(proofgw, backends, partner):
    nobody = backends()
    nobody.close()
    gateway = proofgw(upstream=nobody.address)
    line = gateway.line_of(gateway.client().exchange(fields=partner.authorization))
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | LEASED
    assert (line["status"], line["end"]) == (502, "backend/connect")


def test_the_line_of_a_backend_that_goes_away(gateway, backend, partner):
    backend.script(lambda c: (c.read_request(), c.close()))
    line = gateway.line_of(gateway.client().exchange(fields=partner.authorization))
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | SENT | {"connect_ms"}
    assert (line["status"], line["end"]) == (502, "backend/response_head")


def test_the_line_of_a_cut_answer(gateway, backend, partner):
    backend.script(lambda c: (c.read_request(), c.send(chunked(b"part", end=False)), c.close()))
    client = gateway.client().send(request(fields=partner.authorization))
    with pytest.raises(Ended):
        client.response()
    (line,) = gateway.wait_access(1)
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | ANSWERED | {"connect_ms"}
    assert (line["status"], line["end"]) == (200, "backend/response_body")


def test_the_line_of_a_client_that_does_not_wait(gateway, backend, partner):
    backend.script(lambda c: (c.read_request(), c.drain()))
    client = gateway.client().send(request(fields=partner.authorization))
    backend.wait_requests(1)
    client.reset()
    (line,) = gateway.wait_access(1)
    assert fields_of(line) == ALWAYS | KNOWN - {"status"} | CALLER | SENT | {"connect_ms"}
    assert line["end"] == "client/response_head"


def test_the_line_of_a_client_that_leaves_its_answer(gateway, backend, partner):
    def script(c):
        c.read_request()
        c.send(chunked(b"part", end=False))
        c.drain()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization))
    client.reader.response_head()
    client.reset()
    (line,) = gateway.wait_access(1)
    assert fields_of(line) == ALWAYS | KNOWN | CALLER | ANSWERED | {"connect_ms"}
    assert (line["status"], line["end"]) == (200, "client/response_body")


def test_the_line_of_a_request_on_a_unix_socket(start, backend, partner):
    """There is no address; whatever is written must not look like one."""
    read, write = os.pipe()
    process = start(stdout=write, listeners=[{"address": "unix:client.sock"}]).wait_started()
    os.close(write)
    client = Client(process.address())
    assert client.exchange().status == 401
    client.close()
    assert process.stop() == EXIT_OK
    with open(read, encoding="utf-8") as log:
        (line,) = [json.loads(text) for text in log]
    with pytest.raises(ValueError):
        ipaddress.ip_address(line["client_ip"])


def test_long_and_odd_paths(gateway, partner):
    """At most 1,024 bytes of a path; nothing in it can break the line."""
    client = gateway.client()
    got = client.exchange(target="/widget/" + "a" * 3000, fields=partner.authorization)
    assert gateway.line_of(got)["path"] == "/widget/" + "a" * 1016
    odd = "/widget/%22,%22end%22:%22x%C3%A9'!$&()*+=:@~"
    got = is_passed(client.exchange(target=odd, fields=partner.authorization))
    assert gateway.line_of(got)["path"] == odd


def test_no_access_log(start):
    read, write = os.pipe()
    process = start(stdout=write, logs={"access": "off"}).wait_started()
    os.close(write)
    client = Client(process.address())
    assert client.exchange().status == 401
    client.close()
    assert process.stop() == EXIT_OK
    with open(read, "rb") as log:
        assert log.read() == b""
