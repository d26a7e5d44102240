"""Every limit of the configuration, at the limit and one over it: what the client is told, and that the limit is counted.

Method: a gateway with one limit set low; requests and connections that meet it exactly and that pass it by one.
"""

import pytest

from support.backend import chunk, chunked
from support.client import request
from support.expect import is_error, is_passed
from support.limits import hit, is_over, padded
from support.payload import MIB


def chunked_request(content, partner):
    fields = "Transfer-Encoding: chunked\r\n" + partner.authorization
    return request("POST", fields=fields).replace(b"Content-Length: 0\r\n", b"") + content


# --- heads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bytewise", [False, True])
def test_head(proofgw, backend, partner, bytewise):
    gateway = proofgw(limits={"head": "2KiB"})
    client = gateway.client()
    send = client.send_bytewise if bytewise else client.send
    send(padded(request(fields=partner.authorization), 2048))
    is_passed(client.response())
    send(padded(request(fields=partner.authorization), 2049))
    got = client.response()
    is_over(gateway, client, got, "headers_too_large", "head")
    assert gateway.line_of(got)["refused"] == "head_too_large"
    assert len(backend.requests) == 1


def test_an_endless_head(proofgw, backend, partner):
    gateway = proofgw(limits={"head": "2KiB"})
    client = gateway.client()
    client.send(request(fields=partner.authorization)[:-2])
    client.send_until_refused(b"X-More: and more\r\n", MIB)
    is_over(gateway, client, client.response(), "headers_too_large", "head")


def test_an_endless_request_line(proofgw, backend):
    gateway = proofgw(limits={"head": "2KiB", "target": "1KiB"})
    client = gateway.client().send(b"GET /widget/")
    client.send_until_refused(b"a" * 1000, MIB)
    is_over(gateway, client, client.response(), "uri_too_long", "target")


def test_header_count(proofgw, backend, partner):
    gateway = proofgw(limits={"header_count": 10})
    client = gateway.client()
    more = "X-A: 1\r\n"
    is_passed(client.exchange(fields=partner.authorization + more * 8))
    got = client.exchange(fields=partner.authorization + more * 9)
    is_over(gateway, client, got, "headers_too_large", "header_count")
    assert gateway.line_of(got)["refused"] == "too_many_fields"
    assert len(backend.requests) == 1


def test_target(proofgw, backend, partner):
    gateway = proofgw(limits={"target": "100"})
    client = gateway.client()
    target = "/widget/" + "t" * 40 + "?" + "q" * 51
    assert len(target) == 100
    is_passed(client.exchange(target=target, fields=partner.authorization))
    got = client.exchange(target=target + "q", fields=partner.authorization)
    is_over(gateway, client, got, "uri_too_long", "target")
    assert gateway.line_of(got)["refused"] == "target_too_long"


def test_the_defaults_hold(gateway, backend, partner):
    """A head of the default size with the default number of fields and the longest target, all at once."""
    client = gateway.client()
    target = "/widget/" + "t" * (8192 - 8)
    fields = partner.authorization + "X-A: 1\r\n" * 97
    is_passed(client.ask(padded(request(target=target, fields=fields), 32768)))
    assert backend.last.target == target


# --- bodies ----------------------------------------------------------------------------------------------


def test_fixed_body(proofgw, backend, partner):
    gateway = proofgw(limits={"body": "1KiB"})
    client = gateway.client()
    is_passed(client.exchange("POST", fields=partner.authorization, body=b"x" * 1024))
    got = client.exchange("POST", fields=partner.authorization, body=b"x" * 1025)
    is_error(got, "body_too_large", closes=True)
    client.expect_close()
    assert hit(gateway, "body") == 1
    assert len(backend.requests) == 1


def test_a_length_of_almost_two_to_the_63(gateway, backend, partner):
    client = gateway.client()
    data = request("POST", fields=partner.authorization).replace(b"Length: 0", b"Length: 9223372036854775807")
    is_over(gateway, client, client.ask(data), "body_too_large", "body")
    assert not backend.connections


@pytest.mark.parametrize(
    "at, over",
    [
        (chunk(b"x" * 1024), chunk(b"x" * 1025)),
        (chunk(b"x" * 1000) + chunk(b"x" * 24), chunk(b"x" * 1000) + chunk(b"x" * 25)),
        (chunk(b"x") * 1024, chunk(b"x") * 1025),
        (chunk(b"x" * 1024), b"401\r\n"),  # refused when it is announced
        (chunk(b"x" * 1024), b"ffffffffffffffff\r\n"),
    ],
    ids=["one chunk", "the second chunk", "many chunks", "announced", "huge"],
)
def test_chunked_body(proofgw, backend, partner, at, over):
    gateway = proofgw(limits={"body": "1KiB"})
    client = gateway.client()
    is_passed(client.ask(chunked_request(at + b"0\r\n\r\n", partner)))
    got = client.ask(chunked_request(over, partner))
    is_over(gateway, client, got, "body_too_large", "body")
    assert gateway.line_of(got)["end"] == "client/request_body"
    assert len(backend.requests) == 1


def test_a_body_over_the_limit_that_the_backend_has_begun_to_read(proofgw, backend, partner):
    gateway = proofgw(limits={"body": "1KiB"})

    def script(c):
        c.read_head()
        c.drain()

    backend.script(script)
    client = gateway.client().send(chunked_request(chunk(b"x" * 1024), partner))
    backend.wait_requests(1)
    is_over(gateway, client, client.ask(b"1\r\n"), "body_too_large", "body")


def test_a_denied_body_over_the_limit_is_a_denial(proofgw, partner):
    """Whoever has no token learns nothing about limits."""
    gateway = proofgw(limits={"body": "1KiB"})
    is_error(gateway.client().exchange("POST", body=b"x" * 1025), "missing_token")


def test_chunk_extensions(proofgw, backend, partner):
    """The limit counts all extensions of one body, semicolons included."""
    gateway = proofgw(limits={"chunk_extension": "16"})
    client = gateway.client()
    at = b"1;234567\r\nx\r\n1;23456\r\nx\r\n0;89\r\n\r\n"  # 7 + 6 + 3
    is_passed(client.ask(chunked_request(at, partner)))
    assert backend.last.body == b"xx"
    got = client.ask(chunked_request(at.replace(b"0;89", b"0;890"), partner))
    is_over(gateway, client, got, "decode_error", "chunk_framing")


def test_no_chunk_extensions_at_all(proofgw, backend, partner):
    gateway = proofgw(limits={"chunk_extension": "0"})
    client = gateway.client()
    is_passed(client.ask(chunked_request(chunk(b"x") + b"0\r\n\r\n", partner)))
    is_over(gateway, client, client.ask(chunked_request(b"1;\r\nx\r\n0\r\n\r\n", partner)), "decode_error", "chunk_framing")


def test_trailer(proofgw, backend, partner):
    gateway = proofgw(limits={"trailer": "20"})
    client = gateway.client()
    at = b"X-Trailer: 1234567\r\n"
    assert len(at) == 20
    is_passed(client.ask(chunked_request(b"0\r\n" + at + b"\r\n", partner)))
    got = client.ask(chunked_request(b"0\r\n" + b"9" + at + b"\r\n", partner))
    is_over(gateway, client, got, "decode_error", "chunk_framing")


def test_answers_have_no_limit(proofgw, backend, partner):
    gateway = proofgw(limits={"body": "1KiB"})
    backend.answer = lambda r: chunked(b"x" * 1025, b"y" * 100_000)
    is_passed(gateway.client().exchange(fields=partner.authorization), body=b"x" * 1025 + b"y" * 100_000)
