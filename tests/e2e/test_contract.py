"""The partner API contract at the edge, line by line: who is let in, what everybody else is told, and what the
backend gets.

Method: raw requests to one gateway with a scripted backend; every answer is compared field by field with the contract
(support/expect.py), every forwarded request with the exact list of fields that the backend may see.
"""

import time

import pytest

from support.backend import answer, chunked
from support.client import request
from support.expect import is_error, is_passed
from support.gateway import HOST, SANDBOX_HOST
from support.partners import Partner, new_token
from support.wait import wait_for

OTHER_ADDRESS = "127.0.0.2"  # on loopback, on nobody's list
WS_FIELDS = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def bearer(token, scheme="Bearer"):
    return f"Authorization: {scheme} {token}\r\n"


# --- surface ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("target", ["/widget/session", "/widget/transactions/t-1?a=b&c=%20", "/widget/", "/widget/x/y"])
def test_any_method_below_widget_reaches_the_backend(gateway, backend, partner, method, target):
    got = gateway.client().exchange(method, target=target, fields=partner.authorization)
    assert got.status == 200
    assert (backend.last.method, backend.last.target) == (method, target)


@pytest.mark.parametrize(
    "target", ["/", "/widget", "/widgets/session", "/WIDGET/session", "/ws/", "/ws/x", "/wss", "/healthz", "/metrics"]
)
@pytest.mark.parametrize("with_token", [True, False])
def test_everything_else_is_not_found(gateway, backend, partner, target, with_token):
    client = gateway.client()
    fields = partner.authorization if with_token else ""
    is_error(client.exchange(target=target, fields=fields), "not_found", closes=False)
    is_passed(client.exchange(fields=partner.authorization))
    assert len(backend.requests) == 1


@pytest.mark.parametrize("host", ["unknown.test", "127.0.0.1", "api.test.evil", "xapi.test", "test"])
def test_an_unknown_host_is_not_found(gateway, backend, partner, host):
    got = gateway.client().exchange(host=host, fields=partner.authorization)
    is_error(got, "not_found", closes=False)
    assert gateway.line_of(got)["deny"] == "no_host"
    assert not backend.requests


@pytest.mark.parametrize("host", ["API.TEST", "api.test:80", "api.test:65535", "api.test."])
def test_a_host_matches_in_any_case_with_any_port(gateway, backend, partner, host):
    is_passed(gateway.client().exchange(host=host, fields=partner.authorization))
    assert backend.last["host"] == host


# --- environments ----------------------------------------------------------------------------------------


def test_the_host_chooses_the_backend(proofgw, backends, backend):
    sandbox = backends()
    sandbox.answer = lambda r: answer(body=b"sandbox")
    partner = Partner("both", sandbox=["127.0.0.1"])
    gateway = proofgw([partner], sandbox_upstream=sandbox.address)
    client = gateway.client()
    is_passed(client.exchange(host=HOST, fields=partner.authorization), body=b"ok")
    is_passed(client.exchange(host=SANDBOX_HOST, fields=partner.authorization), body=b"sandbox")
    is_passed(client.exchange(host=HOST, fields=partner.authorization), body=b"ok")
    assert [r["x-proof-environment"] for r in backend.requests] == ["production", "production"]
    assert [r["x-proof-environment"] for r in sandbox.requests] == ["sandbox"]


def test_each_environment_has_its_own_allowlist(proofgw, backend):
    partner = Partner("split", production=["127.0.0.1"], sandbox=["127.0.0.2"])
    gateway = proofgw([partner])
    for source, host, code in [
        ("127.0.0.1", HOST, None),
        ("127.0.0.1", SANDBOX_HOST, "forbidden_origin"),
        ("127.0.0.2", HOST, "forbidden_origin"),
        ("127.0.0.2", SANDBOX_HOST, None),
    ]:
        got = gateway.client(source=source).exchange(host=host, fields=partner.authorization)
        if code:
            is_error(got, code, closes=False)
        else:
            is_passed(got)
    assert [r["x-forwarded-for"] for r in backend.requests] == ["127.0.0.1", "127.0.0.2"]


def test_an_empty_sandbox_list_admits_nobody(gateway, backend, partner):
    assert partner.sandbox == []
    got = gateway.client().exchange(host=SANDBOX_HOST, fields=partner.authorization)
    is_error(got, "forbidden_origin", closes=False)
    assert not backend.requests


def test_an_environment_that_is_not_configured_is_not_found(proofgw, backend, partner):
    gateway = proofgw(environments={"sandbox": None})
    is_error(gateway.client().exchange(host=SANDBOX_HOST, fields=partner.authorization), "not_found")
    is_passed(gateway.client().exchange(host=HOST, fields=partner.authorization))


# --- tokens ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_case_insensitive(gateway, partner, scheme):
    is_passed(gateway.client().exchange(fields=bearer(partner.token, scheme)))


@pytest.mark.parametrize("gap", ["  ", "       "])
def test_more_than_one_space_before_the_token_is_fine(gateway, partner, gap):
    is_passed(gateway.client().exchange(fields=f"Authorization: Bearer{gap}{partner.token}  \r\n"))


def test_without_authorization_the_token_is_missing(gateway, backend):
    got = gateway.client().exchange()
    is_error(got, "missing_token", closes=False)
    line = gateway.line_of(got)
    assert (line["deny"], line["status"], line["end"]) == ("token_missing", 401, "gateway/decide")
    assert "partner_id" not in line and "token_slot" not in line
    assert not backend.requests


@pytest.mark.parametrize(
    "value, reason",
    [
        ("Basic dXNlcjpwYXNz", "token_scheme"),
        ("Token {token}", "token_scheme"),
        ("Bearers {token}", "token_scheme"),
        ("{token}", "token_scheme"),
        ("", "token_scheme"),
    ],
)
def test_another_scheme_is_a_missing_token(gateway, backend, partner, value, reason):
    got = gateway.client().exchange(fields=f"Authorization: {value.format(token=partner.token)}\r\n")
    is_error(got, "missing_token", closes=False)
    assert gateway.line_of(got)["deny"] == reason
    assert not backend.requests


def test_two_authorization_fields_are_a_missing_token(gateway, backend, partner):
    got = gateway.client().exchange(fields=partner.authorization * 2)
    is_error(got, "missing_token", closes=False)
    assert gateway.line_of(got)["deny"] == "token_repeated"
    assert not backend.requests


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer \t{token}",
        "Bearer {token} {token}",
        "Bearer {token},x",
        'Bearer "{token}"',
        "Bearer {token}\t",  # trailing white space is not part of the value, so this one is valid
        "Bearer ={token}",
        "Bearer {token}=x",
        "Bearer tooshort",
        "Bearer " + "x" * 513,
        "Bearer {token}\xe9",
        "Bearer,{token}",
    ],
)
def test_a_malformed_token_is_invalid(gateway, backend, partner, value):
    got = gateway.client().exchange(fields=f"Authorization: {value.format(token=partner.token)}\r\n")
    if value.endswith("\t"):
        is_passed(got)
        return
    is_error(got, "invalid_token", closes=False)
    assert gateway.line_of(got)["deny"] == "token_malformed"
    assert not backend.requests


def test_an_unknown_token_is_invalid(gateway, backend):
    got = gateway.client().exchange(fields=bearer(new_token()))
    is_error(got, "invalid_token", closes=False)
    assert gateway.line_of(got)["deny"] == "token_unknown"
    assert not backend.requests


def test_a_token_of_another_letter_case_is_unknown(gateway, partner):
    is_error(gateway.client().exchange(fields=bearer(partner.token.upper())), "invalid_token")


def test_a_disabled_partners_tokens_are_unknown(proofgw, backend):
    partner = Partner("off", enabled=False)
    partner.rotate(grace_until=time.time() + 3600)
    gateway = proofgw([partner])
    client = gateway.client()
    for token in partner.tokens:
        got = client.exchange(fields=bearer(token))
        is_error(got, "invalid_token", closes=False)
        assert gateway.line_of(got)["deny"] == "partner_disabled"
    assert not backend.requests


def test_the_previous_token_works_during_its_grace_period(proofgw, backend):
    partner = Partner("rotated")
    partner.rotate(grace_until=time.time() + 3600)
    gateway = proofgw([partner])
    client = gateway.client()
    for token, slot in [(partner.token, "current"), (partner.previous_token, "previous")]:
        got = is_passed(client.exchange(fields=bearer(token)))
        assert backend.last["x-proof-token-slot"] == slot
        assert gateway.line_of(got)["token_slot"] == slot


def test_the_previous_token_ends_with_its_grace_period_also_on_an_open_connection(proofgw, backend):
    partner = Partner("rotated")
    until = time.time() + 1.5
    partner.rotate(grace_until=until)
    gateway = proofgw([partner])
    client = gateway.client()
    is_passed(client.exchange(fields=bearer(partner.previous_token)))

    def refused():
        sent_at = time.time()
        got = client.exchange(fields=bearer(partner.previous_token))
        if got.status == 200:
            assert sent_at < until + 0.001, "accepted after its end"  # the file has milliseconds
            return None
        assert time.time() >= until - 0.001, "refused before its end"
        return got

    got = wait_for(refused, "the end of the grace period")
    is_error(got, "invalid_token", closes=False)
    line = gateway.line_of(got)
    assert (line["deny"], line["partner_id"], line["token_slot"]) == ("token_expired", "rotated", "previous")
    is_passed(client.exchange(fields=partner.authorization))


def test_a_previous_token_whose_end_has_passed_is_invalid(proofgw, backend):
    partner = Partner("old")
    partner.rotate(grace_until=time.time() - 1)
    gateway = proofgw([partner])
    is_error(gateway.client().exchange(fields=bearer(partner.previous_token)), "invalid_token", closes=False)
    is_passed(gateway.client().exchange(fields=partner.authorization))
    assert len(backend.requests) == 1


def test_unknown_expired_and_disabled_look_the_same_outside(proofgw, backend):
    disabled, expired = Partner("off", enabled=False), Partner("old")
    expired.rotate(grace_until=time.time() - 1)
    gateway = proofgw([disabled, expired])
    client = gateway.client()
    answers = [
        client.exchange(fields=bearer(token)) for token in (new_token(), disabled.token, expired.previous_token, "x;y")
    ]
    assert len({a.body for a in answers}) == 1
    seen = [[f for f in a.fields if f[0] not in ("Date", "X-Request-Id")] for a in answers]
    assert all(fields == seen[0] for fields in seen)


# --- order -----------------------------------------------------------------------------------------------


def test_route_before_token_before_address(gateway, partner):
    """404, then 401, then 403: whoever fails the earlier check learns nothing of the later ones."""
    client = gateway.client(source=OTHER_ADDRESS)
    bad, good = bearer(new_token()), partner.authorization
    is_error(client.exchange(target="/nowhere"), "not_found")
    is_error(client.exchange(target="/nowhere", fields=bad), "not_found")
    is_error(client.exchange(target="/nowhere", fields=good), "not_found")
    is_error(client.exchange(host="unknown.test", fields=good), "not_found")
    is_error(client.exchange(), "missing_token")
    is_error(client.exchange(fields=bad), "invalid_token")
    got = client.exchange(fields=good)
    is_error(got, "forbidden_origin", closes=False)
    line = gateway.line_of(got)
    assert (line["deny"], line["partner_id"], line["client_ip"]) == ("address", "acme", OTHER_ADDRESS)


def test_a_websocket_request_is_judged_like_any_other(gateway, backend, partner):
    ws = {"target": "/ws?tx_id=t", "fields": WS_FIELDS}
    is_error(gateway.client().exchange(**ws), "missing_token", closes=False)
    is_error(gateway.client().exchange(target="/ws?tx_id=t", fields=WS_FIELDS + bearer(new_token())), "invalid_token")
    other = gateway.client(source=OTHER_ADDRESS)
    is_error(other.exchange(target="/ws", fields=WS_FIELDS + partner.authorization), "forbidden_origin")
    assert not backend.requests


def test_a_denial_comes_before_the_form_of_the_upgrade(gateway, partner):
    client = gateway.client()
    is_error(client.exchange(target="/ws"), "missing_token", closes=False)
    is_error(client.exchange(target="/ws", fields=partner.authorization), "upgrade_required", closes=False)


# --- per request -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_every_request_of_a_connection_is_judged_by_itself(proofgw, backend, workers):
    a, b = Partner("a"), Partner("b", off_ramp=True)
    gateway = proofgw([a, b], workers=workers)
    client = gateway.client()
    is_passed(client.exchange(fields=a.authorization))
    is_error(client.exchange(), "missing_token", closes=False)
    is_passed(client.exchange(fields=b.authorization))
    is_error(client.exchange(fields=bearer(new_token())), "invalid_token", closes=False)
    is_error(client.exchange(target="/nowhere", fields=a.authorization), "not_found", closes=False)
    is_error(client.exchange(host=SANDBOX_HOST, fields=a.authorization), "forbidden_origin", closes=False)
    is_passed(client.exchange(fields=a.authorization))
    assert [r["x-proof-partner-id"] for r in backend.requests] == ["a", "b", "a"]
    assert [r["x-proof-off-ramp"] for r in backend.requests] == ["disabled", "enabled", "disabled"]


def test_a_token_that_starts_like_the_last_one_is_looked_up_anew(gateway, partner):
    client = gateway.client()
    is_passed(client.exchange(fields=partner.authorization))
    is_error(client.exchange(fields=bearer(partner.token[:-1])), "invalid_token")
    is_error(client.exchange(fields=bearer(partner.token + "a")), "invalid_token")
    is_passed(client.exchange(fields=partner.authorization))


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
