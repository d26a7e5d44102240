"""HTTP/1.1 on both sides: connections, framing of bodies, interim answers, and how a connection ends.

Method: raw bytes from the client, raw bytes from the backend, in one piece, in pieces and byte by byte; the reader on
both sides accepts nothing but exact HTTP/1.1.
"""

import re
import socket

import pytest

from support.backend import answer, chunked
from support.client import chunked_request, request
from support.expect import is_error, is_passed
from support.payload import MIB, pattern


# --- connections -----------------------------------------------------------------------------------------


def test_keep_alive_on_both_sides(gateway, backend, partner):
    client = gateway.client()
    for n in range(20):
        got = is_passed(client.exchange(fields=partner.authorization))
        assert got["connection"] is None
    assert len(backend.connections) == 1
    assert len(backend.requests) == 20


def test_connections_of_different_clients_share_the_pool(gateway, backend, partner):
    for _ in range(5):
        client = gateway.client()
        is_passed(client.exchange(fields=partner.authorization))
        client.close()
    assert len(backend.connections) == 1


def test_pipelined_requests_are_answered_in_order(gateway, backend, partner):
    backend.answer = lambda r: answer(body=r.target.encode() + r.body)
    good = partner.authorization
    data = b"".join(
        [
            request(target="/widget/1", fields=good),
            request(target="/widget/2"),
            request("POST", "/widget/3", fields=good, body=b"body"),
            chunked_request(b"chu", b"nked", fields=good).replace(b"/widget/transactions/1", b"/widget/4"),
            request(target="/nowhere", fields=good),
            request("POST", "/widget/6", body=b"dropped"),
            request(target="/widget/7", fields=good),
        ]
    )
    for send in (lambda c: c.send(data), lambda c: c.send_bytewise(data)):
        client = gateway.client()
        send(client)
        is_passed(client.response(), body=b"/widget/1")
        is_error(client.response(), "missing_token", closes=False)
        is_passed(client.response(), body=b"/widget/3body")
        is_passed(client.response(), body=b"/widget/4chunked")
        is_error(client.response(), "not_found", closes=False)
        is_error(client.response(), "missing_token", closes=False)
        is_passed(client.response(), body=b"/widget/7")
        client.expect_silence()


def test_the_next_request_waits_for_the_current_answer(gateway, backend, partner):
    gate = backend.gate()

    def script(c):
        c.read_request()
        gate.wait()
        assert not c.reader.buffer and len(backend.requests) == 1, "the second request came before the first answer"
        c.send(answer(body=b"first"))
        c.read_request()
        c.send(answer(body=b"second"))
        c.expect_end()

    backend.script(script)
    client = gateway.client()
    client.send(request(fields=partner.authorization) * 2)
    backend.wait_requests(1)
    client.expect_silence()
    gate.open()
    is_passed(client.response(), body=b"first")
    is_passed(client.response(), body=b"second")


def test_a_hundred_pipelined_requests(gateway, backend, partner):
    backend.answer = lambda r: answer(body=r.target.encode())
    client = gateway.client()
    client.send(b"".join(request(target=f"/widget/{n}", fields=partner.authorization) for n in range(100)))
    for n in range(100):
        is_passed(client.response(), body=b"/widget/%d" % n)
    assert len(backend.connections) == 1


def test_connection_close_is_honoured(gateway, backend, partner):
    client = gateway.client()
    got = is_passed(client.exchange(fields="Connection: close\r\n" + partner.authorization))
    assert got["connection"] == "close"
    client.expect_close()
    assert backend.last["connection"] is None


def test_what_follows_connection_close_is_not_answered(gateway, backend, partner):
    client = gateway.client()
    client.send(request(fields="Connection: close\r\n" + partner.authorization) + request(fields=partner.authorization))
    is_passed(client.response())
    client.expect_close()
    assert len(backend.requests) == 1


def test_a_backends_close_is_not_the_clients(gateway, backend, partner):
    backend.answer = lambda r: answer(fields="Connection: close\r\n")
    client = gateway.client()
    for _ in range(2):
        assert is_passed(client.exchange(fields=partner.authorization))["connection"] is None
    assert len(backend.connections) == 2


@pytest.mark.parametrize("version, fields, kept", [("1.0", "", False), ("1.0", "Connection: keep-alive\r\n", True)])
def test_a_backend_of_http_1_0(gateway, backend, partner, version, fields, kept):
    backend.answer = lambda r: answer(fields=fields).replace(b"HTTP/1.1", b"HTTP/1.0")
    client = gateway.client()
    for _ in range(2):
        assert is_passed(client.exchange(fields=partner.authorization))["connection"] is None
    assert len(backend.connections) == (1 if kept else 2)


def test_empty_lines_before_a_request_are_forgiven(gateway, partner):
    client = gateway.client()
    data = b"\r\n\r\n" + request(fields=partner.authorization)
    is_passed(client.ask(data))
    is_passed(client.send_bytewise(data).response())


# --- HTTP/1.0 clients ------------------------------------------------------------------------------------


def test_an_http_1_0_client_gets_one_answer(gateway, backend, partner):
    client = gateway.client()
    got = is_passed(client.exchange(fields=partner.authorization, version="1.0"))
    assert got["connection"] == "close"
    client.expect_close()
    assert backend.last.version == "HTTP/1.1"


def test_an_http_1_0_client_may_ask_for_more(gateway, partner):
    client = gateway.client()
    for _ in range(3):
        got = is_passed(
            client.exchange(fields="Connection: keep-alive\r\n" + partner.authorization, version="1.0")
        )
        assert got["connection"] == "keep-alive"


def test_a_chunked_answer_ends_with_the_connection_for_http_1_0(gateway, backend, partner):
    backend.answer = lambda r: chunked(b"one", b"two")
    client = gateway.client()
    got = client.exchange(fields="Connection: keep-alive\r\n" + partner.authorization, version="1.0")
    assert (got.framing, got.body, got["connection"]) == ("close", b"onetwo", "close")


def test_an_http_1_0_client_sees_no_interim_answer(gateway, backend, partner):
    backend.answer = lambda r: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer()
    got = is_passed(gateway.client().exchange(fields=partner.authorization, version="1.0"))
    assert got.interim == []


def test_http_1_0_without_host_has_no_environment(gateway, partner):
    data = f"GET /widget/x HTTP/1.0\r\n{partner.authorization}\r\n".encode()
    is_error(gateway.client().ask(data), "not_found")


def test_a_denial_for_http_1_0(gateway):
    client = gateway.client()
    is_error(client.exchange(version="1.0"), "missing_token", closes=True)
    client.expect_close()


# --- ends ------------------------------------------------------------------------------------------------


def test_a_half_closed_client_still_gets_its_answer(gateway, backend, partner):
    gate = backend.hold()
    client = gateway.client().send(request("POST", fields=partner.authorization, body=b"x")).half_close()
    backend.wait_requests(1)
    gate.open()
    is_passed(client.response())
    client.expect_close()


def test_a_half_closed_client_gets_all_pipelined_answers(gateway, backend, partner):
    backend.answer = lambda r: answer(body=r.target.encode())
    client = gateway.client()
    client.send(b"".join(request(target=f"/widget/{n}", fields=partner.authorization) for n in range(5))).half_close()
    for n in range(5):
        is_passed(client.response(), body=b"/widget/%d" % n)
    client.expect_close()


def test_a_half_close_after_the_answer(gateway, partner):
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    client.half_close().expect_close()


@pytest.mark.parametrize("how", ["half_close", "close", "reset"])
def test_a_client_that_goes_away_inside_a_body(gateway, backend, partner, how):
    ended = backend.gate()

    def script(c):
        c.read_head()
        c.drain()
        ended.open()

    backend.script(script)
    client = gateway.client().send(request("POST", fields=partner.authorization, body=b"x" * 1000)[:-500])
    backend.wait_requests(1)
    getattr(client, how)()
    ended.wait()
    (line,) = gateway.wait_access(1)
    assert line["end"] == "client/request_body"
    assert "status" not in line
    is_passed(gateway.client().exchange(fields=partner.authorization))


@pytest.mark.parametrize("how", ["half_close", "close", "reset"])
@pytest.mark.parametrize("part", [1, 10, 60])
def test_a_client_that_goes_away_inside_a_head(gateway, backend, partner, how, part):
    client = gateway.client().send(request(fields=partner.authorization)[:part])
    gateway.wait_metric("proofgw_connections_open", 1)
    getattr(client, how)()
    gateway.wait_metric("proofgw_connections_open", 0)
    assert gateway.metrics()("proofgw_ends_total", who="client", phase="request_head") == 1
    assert not backend.connections


def test_a_client_that_goes_away_inside_an_answer(gateway, backend, partner):
    ended = backend.gate()

    def script(c):
        c.read_request()
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                c.send(pattern(65536))
        except (BrokenPipeError, ConnectionResetError):
            ended.open()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization))
    client.reader.exactly(100_000)
    client.reset()
    ended.wait()
    (line,) = gateway.wait_access(1)
    assert (line["end"], line["status"]) == ("client/response_body", 200)


def test_a_client_that_goes_away_while_the_backend_thinks(gateway, backend, partner):
    ended = backend.gate()

    def script(c):
        c.read_request()
        c.expect_end()
        ended.open()

    backend.script(script)
    client = gateway.client().send(request(fields=partner.authorization))
    backend.wait_requests(1)
    client.reset()
    ended.wait()
    (line,) = gateway.wait_access(1)
    assert line["end"] == "client/response_head"


def test_a_small_body_behind_a_denial_does_not_end_the_connection(gateway, backend, partner):
    client = gateway.client()
    is_error(client.exchange("POST", body=b"x" * 65536), "missing_token", closes=False)
    client.send(request("POST", body=b"x" * 1000)[:-999])
    is_error(client.response(), "missing_token", closes=False)  # before the rest of the body
    client.send(b"x" * 999)
    is_passed(client.exchange(fields=partner.authorization))
    assert len(backend.requests) == 1


def test_a_body_over_the_limit_behind_a_denial_ends_the_connection(proofgw, backend, partner):
    """The answer says whether the connection goes on, and then it does."""
    gateway = proofgw(limits={"body": "1KiB"})
    client = gateway.client()
    is_error(client.exchange("POST", body=b"x" * 1024), "missing_token", closes=False)
    got = client.exchange("POST", body=b"x" * 1025)
    is_error(got, "missing_token", closes=True)
    client.expect_close()
    assert gateway.line_of(got)["end"] == "gateway/decide"
    is_passed(gateway.client().exchange(fields=partner.authorization))


@pytest.mark.parametrize(
    "start",
    [
        request("POST", body=b"x" * 65537)[:-65537],
        request("POST", fields="Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"") + b"ffffff\r\n",
        b"NONSENSE\r\n\r\n",
    ],
)
def test_a_client_that_keeps_sending_can_still_read_the_error(gateway, start):
    """Closing with unread input would make the kernel send RST, which destroys what the client has not read yet."""
    client = gateway.client().send(start)
    gateway.wait_access(1)  # it has answered
    sent = client.send_until_refused(b"x" * 65536, 8 * MIB)
    assert sent >= 8 * MIB, "the gateway did not read on"
    got = client.response()
    assert got.status in (400, 401)
    assert got["connection"] == "close"


def test_the_connection_after_an_error_ends_when_the_client_ends_it(gateway):
    """Lingering does not wait for its time to pass."""
    client = gateway.client()
    is_error(client.ask(b"NONSENSE\r\n\r\n"), "decode_error", closes=True)
    client.expect_close()
    gateway.wait_metric("proofgw_connections_open", 0)


# --- targets ---------------------------------------------------------------------------------------------


def test_absolute_form(gateway, backend, partner):
    client = gateway.client()
    for target in ["http://api.test/widget/a?b=c", "HTTP://API.test/widget/a?b=c", "https://api.test/widget/a?b=c"]:
        is_passed(client.exchange(target=target, host=re.match("[^/]*//([^/]*)", target)[1], fields=partner.authorization))
        assert backend.last.target == "/widget/a?b=c"
        assert backend.last["host"].lower() == "api.test"


@pytest.mark.parametrize("target", ["http://other.test/widget/a", "http://api.test:81/widget/a", "http://u@api.test/widget/a"])
def test_absolute_form_must_agree_with_host(gateway, backend, partner, target):
    client = gateway.client()
    is_error(client.exchange(target=target, fields=partner.authorization), "decode_error", closes=True)
    client.expect_close()
    assert not backend.requests


@pytest.mark.parametrize(
    "target",
    ["/widget/a%20b?x=%2F%2e&y=1;2", "/widget/~user/!$&'()*+,=:@", "/widget/a/?", "/widget/%E2%82%AC", "/widget/x?a[]=1&b=?/"],
)
def test_a_target_is_forwarded_as_it_was_received(gateway, backend, partner, target):
    is_passed(gateway.client().exchange(target=target, fields=partner.authorization))
    assert backend.last.target == target


# --- the kernel's edge -----------------------------------------------------------------------------------


def test_a_slow_reader_with_a_tiny_receive_buffer(gateway, backend, partner):
    """Many partial writes on the way to the client: nothing is lost, nothing is repeated."""
    body = pattern(300_000)
    backend.answer = lambda r: chunked(*[body[i : i + 7001] for i in range(0, len(body), 7001)])
    client = gateway.client()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    is_passed(client.exchange(fields=partner.authorization), body=body)


def test_a_backend_with_a_tiny_receive_buffer(gateway, backend, partner):
    body = pattern(300_000)
    backend._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    is_passed(gateway.client().exchange("POST", fields=partner.authorization, body=body))
    assert backend.last.body == body


def test_many_clients_come_and_go(proofgw, backend, partner):
    gateway = proofgw(workers=4)
    for _ in range(100):
        client = gateway.client()
        is_passed(client.exchange(fields=partner.authorization))
        client.close()
    gateway.wait_metric("proofgw_connections_open", 0)
    assert gateway.metrics()["proofgw_connections_accepted_total"] == 100
