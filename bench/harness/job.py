"""The job, and the proof that a gateway does it. Figures of a gateway that does less do not count."""

import base64
import hashlib
import http.client
import json
import os
import socket
import ssl

from harness import partners

PATIENCE_S = 5


def connect(instance):
    if not instance.tls:
        return http.client.HTTPConnection("127.0.0.1", instance.port, timeout=PATIENCE_S)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPConnection("127.0.0.1", instance.port, timeout=PATIENCE_S)
    raw = socket.create_connection(("127.0.0.1", instance.port), timeout=PATIENCE_S)
    connection.sock = context.wrap_socket(raw, server_hostname="localhost")
    return connection


def ask(instance, partner, target="/widget/transactions/1", *, method="GET", body=None, fields=()):
    connection = connect(instance)
    try:
        headers = {"Host": "localhost", **dict(fields)}
        if partner:
            headers["Authorization"] = partner.authorization
        connection.request(method, target, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict((k.lower(), v) for k, v in answer.getheaders()), answer.read()
    finally:
        connection.close()


def try_get(instance, partner):
    """Empty when a GET works; otherwise why not. An ssl.SSLError is passed on: waiting does not cure it."""
    try:
        status, _, _ = ask(instance, partner)
    except ssl.SSLError:
        raise
    except (OSError, http.client.HTTPException) as e:
        return str(e) or type(e).__name__
    return "" if status == 200 else f"status {status}"


def seen_by_backend(body):
    """{field name: [values]} of an answer of /widget/echo."""
    seen = {}
    for name, value in json.loads(body)["headers"]:
        seen.setdefault(name.lower(), []).append(value)
    return seen


def knows(instance, partner):
    """The gateway answers, and has this partner's present data."""
    try:
        status, _, body = ask(instance, partner, "/widget/echo")
    except (OSError, http.client.HTTPException):
        return False
    return status == 200 and seen_by_backend(body).get("x-proof-widget-id") == [partner.widget]


def prove_identity(instance):
    """200, and the backend is told who calls, by us and by nobody else."""
    partner, claims = partners.caller(instance.count), {"X-Proof-Partner-Id": "someone", "X-Forwarded-For": "192.0.2.1"}
    status, _, body = ask(instance, partner, "/widget/echo", fields=claims)
    assert status == 200, f"status {status}"
    seen = seen_by_backend(body)
    assert seen.get("x-proof-partner-id") == [partner.id], f"X-Proof-Partner-Id is {seen.get('x-proof-partner-id')}"
    assert seen.get("x-proof-widget-id") == [partner.widget], f"X-Proof-Widget-Id is {seen.get('x-proof-widget-id')}"
    assert seen.get("x-proof-environment") == ["production"], "X-Proof-Environment is missing"
    assert seen.get("x-forwarded-for") == ["127.0.0.1"], f"X-Forwarded-For is {seen.get('x-forwarded-for')}"
    assert len(seen.get("x-request-id", [])) == 1, "X-Request-Id is missing"
    assert "authorization" not in seen, "the token reaches the backend"


def prove_post(instance):
    body = json.dumps({"merchant_transaction_id": "m" * 200}).encode()
    status, _, answer = ask(instance, partners.caller(instance.count), "/widget/echo", method="POST", body=body)
    assert status == 200, f"status {status}"
    assert json.loads(answer)["body_sha256"] == hashlib.sha256(body).hexdigest(), "another body arrived"


def prove_401(instance):
    for partner in (None, partners.Partner(-1 & 0xFFFFFF, True)):
        status, headers, _ = ask(instance, partner)
        assert status == 401, f"{'unknown' if partner else 'no'} token: status {status}"
        assert "www-authenticate" in headers, "401 without WWW-Authenticate"


def prove_403(instance):
    status, _, _ = ask(instance, partners.outsider(instance.count))
    assert status == 403, f"status {status}"


def prove_large(instance):
    status, _, body = ask(instance, partners.caller(instance.count), "/widget/bytes/1048576")
    assert (status, len(body)) == (200, 1 << 20), f"status {status}, {len(body)} bytes"


def prove_websocket(instance):
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        "GET /ws?tx_id=1&echo=1 HTTP/1.1",
        "Host: localhost",
        f"Authorization: {partners.caller(instance.count).authorization}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    connection = connect(instance)
    try:
        connection.connect() if connection.sock is None else None
        connection.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        with connection.sock.makefile("rb") as stream:
            assert b" 101 " in stream.readline(), "the upgrade was refused"
            while stream.readline().strip():
                pass
            connection.sock.sendall(b"\x81\x85\0\0\0\0hello")
            assert stream.read(7) == b"\x81\x05hello", "the echo differs"
    finally:
        connection.close()


CHECKS = {
    "identity": prove_identity,
    "post": prove_post,
    "401": prove_401,
    "403": prove_403,
    "large": prove_large,
    "websocket": prove_websocket,
}


def prove(instance):
    """{check: "" or why it fails}. A limit relays and judges nobody."""
    results = {}
    for name, check in CHECKS.items():
        lacks = (instance.description.lacks or {}).get(name)
        try:
            if lacks:
                results[name] = lacks
            else:
                check(instance)
                results[name] = ""
        except (AssertionError, OSError, http.client.HTTPException, ValueError, KeyError) as e:
            results[name] = str(e) or type(e).__name__
    return results
