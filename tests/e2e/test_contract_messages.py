"""The contract of the messages themselves: what the backend gets, what the client gets back, and the errors of the gateway."""

import pytest

from support.backend import answer, chunked
from support.client import request
from support.expect import is_error, is_passed
from support.gateway import HOST
from support.partners import Partner
from support.websocket import WS_FIELDS


# --- what the backend gets -------------------------------------------------------------------------------


def test_the_backend_gets_exactly_this(proofgw, backend):
    partner = Partner("acme", off_ramp=True)
    gateway = proofgw([partner])
    fields = partner.authorization + "Accept: */*\r\nX-Custom:  spaced  \r\nCookie: a=b\r\nX-Empty:\r\n"
    got = gateway.client().exchange("POST", "/widget/session?q=1", fields=fields, body=b"{}")
    sent = backend.last
    assert (sent.method, sent.target, sent.version, sent.body) == ("POST", "/widget/session?q=1", "HTTP/1.1", b"{}")
    assert sent.fields == [
        ("Host", HOST),
        ("Accept", "*/*"),
        ("X-Custom", "spaced"),
        ("Cookie", "a=b"),
        ("X-Empty", ""),
        ("Content-Length", "2"),
        ("X-Request-Id", got["x-request-id"]),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", HOST),
        ("X-Proof-Partner-Id", "acme"),
        ("X-Proof-Widget-Id", partner.widget_id),
        ("X-Proof-Environment", "production"),
        ("X-Proof-Off-Ramp", "enabled"),
        ("X-Proof-Token-Slot", "current"),
    ]


IDENTITY = [
    "X-Request-Id",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Server",
    "X-Forwarded-Prefix",
    "Forwarded",
    "X-Real-IP",
    "True-Client-IP",
    "X-Proof-Partner-Id",
    "X-Proof-Widget-Id",
    "X-Proof-Environment",
    "X-Proof-Off-Ramp",
    "X-Proof-Token-Slot",
    "X-Proof-Anything",
    "X-Proof-",
]


@pytest.mark.parametrize("alias", ["drop", "allow"])
def test_every_spelling_of_a_spoofed_identity_field_is_removed(proofgw, backend, partner, alias):
    gateway = proofgw(fields={"alias": alias})
    spellings = []
    for name in IDENTITY:
        spellings += {name, name.lower(), name.upper(), name.replace("-", "_"), name.replace("-", ".")}
        spellings += {name.replace("-", "_", 1), name.replace("-", ".", 1).lower()}
    client = gateway.client()
    for at in range(0, len(spellings), 60):
        fields = "".join(f"{name}: spoofed\r\n" for name in spellings[at : at + 60])
        is_passed(client.exchange(fields=fields + partner.authorization))
        assert b"spoofed" not in backend.last.raw_head
        assert len(backend.last.fields) == 10


def test_the_x_proof_namespace_alone_is_removed_by_prefix(gateway, backend, partner):
    is_passed(gateway.client().exchange(fields="X-Proofs: mine\r\nX-Pro: mine\r\n" + partner.authorization))
    assert (backend.last["x-proofs"], backend.last["x-pro"]) == ("mine", "mine")


@pytest.mark.parametrize(
    "option",
    [
        "X-Proof-Partner-Id",
        "x-forwarded-for",
        "X-Request-Id",
        "Host",
        "Content-Length",
        "Authorization",
        "X_Proof_Environment",
        "X.Forwarded.For",
    ],
)
def test_connection_cannot_name_a_field_that_others_rely_on(gateway, backend, partner, option):
    client = gateway.client()
    got = client.exchange(fields=f"Connection: keep-alive, {option}\r\n" + partner.authorization)
    is_error(got, "decode_error", closes=True)
    client.expect_close()
    assert not backend.requests


def test_fields_that_connection_names_are_removed(gateway, backend, partner):
    fields = "Connection: X-Hop , keep-alive\r\nConnection: x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nx-hop: 3\r\nX-Stays: 4\r\n"
    is_passed(gateway.client().exchange(fields=fields + partner.authorization))
    assert not backend.last.fields.names() & {"connection", "x-hop", "x-other"}
    assert backend.last["x-stays"] == "4"


def test_hop_by_hop_fields_are_removed(gateway, backend, partner):
    fields = (
        "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n"
        "Proxy-Authenticate: x\r\nTE: trailers\r\nTrailer: X-T\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    )
    is_passed(gateway.client().exchange(fields=fields + partner.authorization))
    assert len(backend.last.fields) == 10


def test_an_upgrade_outside_ws_is_stripped(gateway, backend, partner):
    """RFC 9110 7.8: a server may ignore Upgrade; the gateway never tunnels anything but GET /ws."""
    got = gateway.client().exchange(fields=WS_FIELDS + partner.authorization)
    is_passed(got)
    assert not backend.last.fields.names() & {"upgrade", "connection"}


def test_options_are_the_backends_to_answer(gateway, backend, partner):
    """Also those that RFC 9110 7.6.2 would have an intermediary answer: below /widget/ nobody but the backend does."""
    is_passed(gateway.client().exchange("OPTIONS", fields="Max-Forwards: 0\r\n" + partner.authorization))
    assert (backend.last.method, backend.last["max-forwards"]) == ("OPTIONS", "0")


def test_the_token_goes_on_only_when_the_configuration_says_so(proofgw, backend, partner):
    is_passed(proofgw().client().exchange(fields=partner.authorization))
    assert backend.last["authorization"] is None
    assert partner.token.encode() not in backend.last.raw_head
    is_passed(proofgw(identity={"pass_authorization": True}).client().exchange(fields=partner.authorization))
    assert backend.last["authorization"] == f"Bearer {partner.token}"


def test_further_fields_are_removed_by_configuration(proofgw, backend, partner):
    gateway = proofgw(identity={"remove": ["x-debug"]})
    is_passed(gateway.client().exchange(fields="X-Debug: 1\r\nx-DEBUG: 2\r\nX-Debugger: 3\r\n" + partner.authorization))
    assert "x-debug" not in backend.last.fields.names()
    assert backend.last["x-debugger"] == "3"


def test_names_with_underscores_are_dropped_and_counted(gateway, backend, partner):
    is_passed(gateway.client().exchange(fields="X_Custom: 1\r\nX.Custom: 2\r\nX-Custom: 3\r\n" + partner.authorization))
    assert backend.last["x-custom"] == "3"
    assert len(backend.last.fields) == 11
    assert gateway.metrics()["proofgw_alias_fields_dropped_total"] == 2


def test_names_with_underscores_are_refused_when_configured(proofgw, backend, partner):
    gateway = proofgw(fields={"alias": "reject", "alias_allowed": ["x_legacy_id"]})
    client = gateway.client()
    is_passed(client.exchange(fields="X_Legacy_Id: 1\r\n" + partner.authorization))
    assert backend.last["x_legacy_id"] == "1"
    got = client.exchange(fields="X_Custom: 1\r\n" + partner.authorization)
    is_error(got, "decode_error", closes=True)
    assert gateway.line_of(got)["refused"] == "field_name"
    client.expect_close()
    assert len(backend.requests) == 1


def test_the_request_is_serialised_anew(gateway, backend, partner):
    """Odd but legal spellings reach the backend in the one plain form."""
    data = (
        f"GET http://{HOST}/widget/a?b HTTP/1.1\r\nhOsT:{HOST}\r\naccept:\t*/*\t\r\n"
        f"authorization: Bearer {partner.token}\r\n\r\n"
    ).encode()
    is_passed(gateway.client().ask(data))
    assert backend.last.raw_head.startswith(f"GET /widget/a?b HTTP/1.1\r\nHost: {HOST}\r\naccept: */*\r\nX-Req".encode())


# --- answers ---------------------------------------------------------------------------------------------


def test_backend_errors_pass_through_untouched(gateway, backend, partner):
    client = gateway.client()
    for status in ["400 Bad Request", "401 Unauthorized", "404 Nope", "500 Internal Server Error", "503 Busy", "599 X"]:
        body = b'{"error":"rate_limited","code":"theirs","message":"m"}'
        backend.answer = lambda r: answer(status, body, "Content-Type: application/json\r\nX-Theirs: 1\r\n")
        got = client.exchange(fields=partner.authorization)
        assert f"{got.status} {got.reason}" == status
        assert (got.body, got["x-theirs"], got["retry-after"]) == (body, "1", None)


def test_the_answer_carries_one_request_id_which_is_ours(gateway, backend, partner):
    backend.answer = lambda r: answer(fields="X-Request-Id: theirs\r\nx-request-id: again\r\n")
    got = gateway.client().exchange(fields="X-Request-Id: mine\r\n" + partner.authorization)
    assert got["x-request-id"] == backend.last["x-request-id"]
    assert got["x-request-id"] not in ("theirs", "mine")


def test_request_ids_never_repeat(gateway, backend, partner):
    client = gateway.client()
    client.send(request(fields=partner.authorization) * 50)
    assert len({client.response()["x-request-id"] for _ in range(50)}) == 50


def test_hop_by_hop_fields_of_the_answer_are_removed(gateway, backend, partner):
    backend.answer = lambda r: chunked(
        b"ok", fields="Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTrailer: X\r\nX-Stays: 1\r\n"
    )
    got = is_passed(gateway.client().exchange(fields=partner.authorization))
    assert got.fields.names() == {"transfer-encoding", "date", "x-request-id", "x-stays"}


def test_repeated_end_to_end_fields_stay_repeated(gateway, backend, partner):
    backend.answer = lambda r: answer(fields="Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n")
    got = gateway.client().exchange(fields="X-A: 1\r\nX-A: 2\r\n" + partner.authorization)
    assert got.fields.all("set-cookie") == ["a=1", "b=2"]
    assert backend.last.fields.all("x-a") == ["1", "2"]


# --- errors of the gateway -------------------------------------------------------------------------------


def test_no_partner_data_is_unavailable(proofgw, backend, partner):
    """Without partner data nobody can be judged, so nobody is told that a token is wrong."""
    gateway = proofgw(partners=[], store={"file": "missing.ndjson"}, ready=False)
    client = gateway.client()
    is_error(client.exchange(target="/nowhere"), "not_found", closes=False)
    is_error(client.exchange(), "unavailable", closes=False)
    got = client.exchange(fields=partner.authorization)
    is_error(got, "unavailable", closes=False)
    assert gateway.line_of(got)["deny"] == "no_policy"
    assert gateway.admin("/readyz")[0] == 503


def test_an_empty_partner_file_is_data(proofgw, backend, partner):
    gateway = proofgw(partners=[])
    is_error(gateway.client().exchange(fields=partner.authorization), "invalid_token", closes=False)


def test_a_backend_that_cannot_be_reached(proofgw, backends, partner):
    gone = backends()
    gone.close()
    gateway = proofgw(upstream=gone.address)
    client = gateway.client()
    got = client.exchange(fields=partner.authorization)
    is_error(got, "upstream_unavailable", closes=False)
    assert gateway.line_of(got)["end"] == "backend/connect"
    is_error(client.exchange("POST", fields=partner.authorization, body=b"x"), "upstream_unavailable", closes=False)


def test_a_backend_that_talks_nonsense(gateway, backend, partner):
    backend.script(lambda c: (c.read_request(), c.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), c.expect_end()))
    client = gateway.client()
    got = client.exchange(fields=partner.authorization)
    is_error(got, "upstream_invalid_response", closes=False)
    assert gateway.line_of(got)["end"] == "backend/response_head"
    is_passed(client.exchange(fields=partner.authorization))


def test_a_head_request_gets_the_head_of_the_error(gateway):
    client = gateway.client()
    got = client.exchange("HEAD")
    is_error(got, "missing_token", closes=False, has_body=False)
    same = client.exchange("GET")
    assert got["content-length"] == same["content-length"] == str(len(same.body))


def test_upgrade_required(gateway, backend, partner):
    client = gateway.client()
    broken = [
        "",
        WS_FIELDS.replace("13", "12"),
        WS_FIELDS.replace("Upgrade: websocket", "Upgrade: websocket, h2c"),
        WS_FIELDS.replace("Upgrade: websocket", "Upgrade: h2c"),
        WS_FIELDS.replace("Connection: Upgrade", "Connection: keep-alive"),
        WS_FIELDS.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"),
        WS_FIELDS.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR=="),
        WS_FIELDS + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ]
    for fields in broken:
        got = client.exchange(target="/ws?tx_id=1", fields=fields + partner.authorization)
        is_error(got, "upgrade_required", closes=False)
    got = client.exchange("POST", "/ws", fields=WS_FIELDS + partner.authorization)
    is_error(got, "upgrade_required", closes=False)
    assert not backend.requests
