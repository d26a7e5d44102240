"""Real clients against the gateway and the project's demo backend: curl, aiohttp and websockets, one worker and four.

Method: what a partner's engineer would do, with the libraries that they would use; large bodies are compared by their
SHA-256, which the demo backend reports for what it received.
"""

import asyncio
import hashlib
import json
import subprocess

import aiohttp
import pytest
import websockets
from websockets.legacy.client import connect  # the same in every version

from support.gateway import HOST

BODY = b"".join(b"%07x\n" % i for i in range(300_000))  # 2.4 MB


@pytest.fixture(params=[1, 4], ids=["one worker", "four workers"])
def served(request, proofgw, demo):
    return proofgw(upstream=demo.address, workers=request.param)


def curl(gateway, path, *arguments, data=None):
    command = ["curl", "-sS", "-i", "--max-time", "20", "--resolve", f"{HOST}:{gateway.port}:127.0.0.1", *arguments]
    done = subprocess.run([*command, f"http://{HOST}:{gateway.port}{path}"], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    *heads, body = done.stdout.split(b"\r\n\r\n")
    return [head.decode() for head in heads], body


def bearer(partner):
    return ("-H", f"Authorization: Bearer {partner.token}")


def test_curl_creates_a_session(served, partner):
    content = json.dumps({"merchant_transaction_id": "t-1"})
    (head,), body = curl(served, "/widget/session", *bearer(partner), "-H", "Content-Type: application/json", "-d", content)
    assert head.startswith("HTTP/1.1 201 ")
    assert json.loads(body)["merchant_transaction_id"] == "t-1"


def test_curl_is_told_what_is_wrong(served, partner):
    (head,), body = curl(served, "/widget/session", "-d", "{}")
    assert head.startswith("HTTP/1.1 401 ") and json.loads(body)["code"] == "missing_token"
    (head,), body = curl(served, "/widget/session", "-d", "{}", "-H", "Authorization: Bearer pt_this_is_not_one")
    assert head.startswith("HTTP/1.1 401 ") and json.loads(body)["code"] == "invalid_token"
    (head,), body = curl(served, "/widget/session", "-d", "{}", *bearer(partner), "--interface", "127.0.0.2")
    assert head.startswith("HTTP/1.1 403 ") and json.loads(body)["code"] == "forbidden_origin"
    (head,), body = curl(served, "/", *bearer(partner))
    assert head.startswith("HTTP/1.1 404 ") and json.loads(body)["code"] == "not_found"


@pytest.mark.parametrize("how", [(), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect: 100-continue"), ("--http1.0",)])
def test_curl_uploads(served, partner, how):
    _, body = curl(served, "/widget/echo", *bearer(partner), *how, "--data-binary", "@-", data=BODY)
    got = json.loads(body)
    assert (got["body_bytes"], got["body_sha256"]) == (len(BODY), hashlib.sha256(BODY).hexdigest())


@pytest.mark.parametrize("how", ["bytes", "chunked", "close-delimited"])
@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
def test_curl_downloads(served, partner, how, version):
    (head,), body = curl(served, f"/widget/{how}/3000000", *bearer(partner), version)
    assert head.startswith("HTTP/1.1 200 ")
    assert body == (b"abcdefghijklmnopqrstuvwxyz" * 120_000)[:3_000_000]


def test_curl_keeps_its_connection(served, partner):
    urls = [f"http://{HOST}:{served.port}/widget/transactions/{n}" for n in range(10)]
    command = ["curl", "-sS", "-w", "%{num_connects}\n", "-o", "/dev/null", *bearer(partner)]
    command += ["--resolve", f"{HOST}:{served.port}:127.0.0.1"]
    done = subprocess.run([*command, *" -o /dev/null ".join(urls).split(" ")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"] + ["0"] * 9


def test_aiohttp_with_many_connections_at_once(served, partner):
    async def run():
        headers = {"Host": HOST, "Authorization": f"Bearer {partner.token}"}
        connector = aiohttp.TCPConnector(limit=32)
        async with aiohttp.ClientSession(served.url, headers=headers, connector=connector) as session:

            async def one(n):
                if n % 3 == 0:
                    async with session.post("/widget/session", json={"merchant_transaction_id": str(n)}) as answer:
                        assert answer.status == 201
                        assert (await answer.json())["merchant_transaction_id"] == str(n)
                elif n % 3 == 1:
                    async with session.get(f"/widget/transactions/{n}") as answer:
                        assert (await answer.json())["merchant_transaction_id"] == str(n)
                else:
                    async with session.get("/widget/session", headers={"Authorization": "Bearer not_a_known_token"}) as answer:
                        assert answer.status == 401

            await asyncio.gather(*[one(n) for n in range(600)])

    asyncio.run(run())
    served.wait_access(600)
    assert served.metrics()["proofgw_http_requests_total"] == 600


def test_aiohttp_large_bodies_both_ways_at_once(served, partner):
    async def run():
        headers = {"Host": HOST, "Authorization": f"Bearer {partner.token}"}

        async def pieces():
            for at in range(0, len(BODY), 50_000):
                yield BODY[at : at + 50_000]

        async def up(session, data):
            async with session.put("/widget/echo", data=data) as answer:
                assert (await answer.json())["body_sha256"] == hashlib.sha256(BODY).hexdigest()

        async def down(session, how):
            async with session.get(f"/widget/{how}/3000000") as answer:
                assert len(await answer.read()) == 3_000_000

        async with aiohttp.ClientSession(served.url, headers=headers) as session:
            await asyncio.gather(
                *[up(session, BODY) for _ in range(4)],
                *[up(session, pieces()) for _ in range(4)],
                *[down(session, "bytes") for _ in range(4)],
                *[down(session, "chunked") for _ in range(4)],
            )

    asyncio.run(run())


def ws_url(gateway, tx):
    return f"ws://{HOST}:{gateway.port}/ws?tx_id={tx}"


def ws_options(gateway, partner):
    return {"host": "127.0.0.1", "port": gateway.port, "extra_headers": {"Authorization": f"Bearer {partner.token}"}}


def test_websockets_receives_updates(served, partner):
    served.secrets.append("tx-query-canary")

    async def run():
        async with connect(ws_url(served, "tx-query-canary"), **ws_options(served, partner)) as socket:
            assert socket.response_headers["X-Request-Id"]
            for _ in range(3):
                assert "tx-query-canary" in await asyncio.wait_for(socket.recv(), 10)

    asyncio.run(run())
    opened, closed = served.wait_access(2)
    assert (opened["event"], opened["path"], closed["event"]) == ("tunnel_open", "/ws", "tunnel_close")
    assert closed["messages_out"] >= 3


def test_websockets_many_tunnels_at_once(served, partner):
    async def run():
        async def one(n):
            async with connect(ws_url(served, f"t{n}"), **ws_options(served, partner)) as socket:
                assert f"t{n}" in await asyncio.wait_for(socket.recv(), 20)

        await asyncio.gather(*[one(n) for n in range(100)])

    asyncio.run(run())
    served.wait_access(100, "tunnel_close")
    served.wait_metric("proofgw_tunnels_open", 0)


def test_websockets_is_told_what_is_wrong(served, partner):
    async def run(**changes):
        options = {**ws_options(served, partner), **changes}
        with pytest.raises(websockets.InvalidStatusCode) as refused:
            await connect(ws_url(served, "t"), **options)
        return refused.value.status_code

    assert asyncio.run(run(extra_headers={})) == 401
    assert asyncio.run(run(local_addr=("127.0.0.2", 0))) == 403
