"""The partner API contract at the edge, line by line: who is let in, what everybody else is told, and what the
backend gets.

Method: raw requests to one gateway with a scripted backend; every answer is compared field by field with the contract
(support/expect.py), every forwarded request with the exact list of fields that the backend may see.
"""

import time

import pytest

from support.backend import answer
from support.expect import is_error, is_passed
from support.gateway import HOST, SANDBOX_HOST
from support.partners import Partner, new_token
from support.wait import wait_for
from support.websocket import WS_FIELDS

OTHER_ADDRESS = "127.0.0.2"  # on loopback, on nobody's list


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
