"""Checks that many tests share: the errors of the contract, and what the backend must (not) have got."""

import json
import re

# status, error, code -> further fields that must be there; from the contract, not from the gateway's table
ERRORS = {
    "decode_error": (400, "invalid_request"),
    "missing_token": (401, "unauthorised"),
    "invalid_token": (401, "unauthorised"),
    "forbidden_origin": (403, "forbidden"),
    "not_found": (404, "not_found"),
    "request_timeout": (408, "invalid_request"),
    "body_too_large": (413, "invalid_request"),
    "uri_too_long": (414, "invalid_request"),
    "upgrade_required": (426, "invalid_request"),
    "rate_limited": (429, "rate_limited"),
    "headers_too_large": (431, "invalid_request"),
    "internal_error": (500, "internal_error"),
    "upstream_unavailable": (502, "upstream_unavailable"),
    "upstream_invalid_response": (502, "upstream_unavailable"),
    "unavailable": (503, "internal_error"),
    "upstream_timeout": (504, "upstream_unavailable"),
}
_ALWAYS = {"date", "content-type", "content-length", "cache-control", "x-request-id"}


def is_error(answer, code, closes=None, has_body=True):
    """Checks an answer of the gateway itself against the contract, field by field. `closes`: whether it must, or
    must not, announce the end of the connection; None: either."""
    status, slug = ERRORS[code]
    assert answer.status == status, (answer.status, answer.body)
    if has_body:
        body = json.loads(answer.body)
        assert list(body) == ["error", "code", "message"]
        assert (body["error"], body["code"]) == (slug, code)
        assert isinstance(body["message"], str) and body["message"]
    expected = set(_ALWAYS)
    assert answer["content-type"] == "application/json"
    assert answer["cache-control"] == "no-store"
    if status == 401:
        expected.add("www-authenticate")
        assert answer["www-authenticate"] == {
            "missing_token": 'Bearer realm="proof"',
            "invalid_token": 'Bearer realm="proof", error="invalid_token"',
        }[code]
    if status in (429, 503):
        expected.add("retry-after")
        assert re.fullmatch(r"[1-9][0-9]*", answer["retry-after"])
    options = {option.strip().lower() for option in (answer["connection"] or "").split(",")} - {""}
    if status == 426:
        expected.add("upgrade")
        assert answer["upgrade"] == "websocket"
        expected.add("sec-websocket-version")
        assert answer["sec-websocket-version"] == "13"
        assert "upgrade" in options
    if options:
        expected.add("connection")
    assert options <= {"close", "upgrade"}, options
    assert answer.fields.names() == expected, answer.fields
    if closes is not None:
        assert ("close" in options) == closes, options
    return answer


def is_passed(answer, status=200, body=b"ok"):
    """An answer of the backend."""
    assert (answer.status, answer.body) == (status, body)
    return answer
