"""Real clients over TLS: curl, aiohttp, websockets, node's ws and undici, and openssl s_client.

Goal: whatever a partner speaks with works as it does without TLS; only TLS 1.2 and 1.3 with forward secrecy and AEAD
are spoken; the certificate fits the name and the client; sessions resume.
Method: the project's demo backend behind the gateway; certificates made at run time; s_client for what libraries hide.
"""

import asyncio
import hashlib
import json
import shutil
import socket
import subprocess

import aiohttp
import pytest
import websockets
from websockets.legacy.client import connect as ws_connect

from support.expect import is_passed
from support.gateway import HOST, SANDBOX_HOST
from support.tls import connect, trusting, CIPHERS_1_2, CIPHERS_1_3

pytest_plugins = ["support.tls"]

NODE = shutil.which("node")
NODE_PACKAGES = "/usr/share/nodejs"  # where Debian has node-ws and node-undici
BODY = b"".join(b"%07x\n" % i for i in range(300_000))  # 2.4 MB


@pytest.fixture
def pairs(authority):
    """ECDSA and RSA for the same names, through an intermediate."""
    between = authority.intermediate()
    names = (HOST, SANDBOX_HOST)
    return [between.leaf(*names), between.leaf(*names, key="rsa")]


@pytest.fixture(params=[1, 4], ids=["one worker", "four workers"])
def served(request, https, demo, pairs):
    return https(pairs, upstream=demo.address, workers=request.param)


@pytest.fixture
def simple(https, pairs, backend):
    """Behind it the scripted backend: for what happens before a request."""
    return https(pairs)


# --- curl --------------------------------------------------------------------------------------------------------


def run_curl(gateway, path, *arguments, data=None, partner=None):
    command = ["curl", "-sS", "-i", "--max-time", "20", "--resolve", f"{HOST}:{gateway.port}:127.0.0.1"]
    command += ["--cacert", gateway.authority.file, *arguments]
    if partner:
        command += ["-H", f"Authorization: Bearer {partner.token}"]
    command.append(f"https://{HOST}:{gateway.port}{path}")
    return subprocess.run(command, input=data, capture_output=True, check=False)


def curl(*arguments, **options):
    done = run_curl(*arguments, **options)
    assert done.returncode == 0, done.stderr
    *heads, body = done.stdout.split(b"\r\n\r\n", 2 if done.stdout.startswith(b"HTTP/1.1 100") else 1)
    return heads[-1].decode(), body


@pytest.mark.parametrize(
    "how", [("--tlsv1.3",), ("--tls-max", "1.2"), ("--http1.1",), ("--http1.0",), ("--no-alpn",), ("--no-alpn", "--http1.0")]
)
def test_curl(served, partner, how):
    head, body = curl(served, "/widget/session", *how, "-d", '{"merchant_transaction_id":"t"}', partner=partner)
    assert head.startswith("HTTP/1.1 201 ") and json.loads(body)["merchant_transaction_id"] == "t"
    head, body = curl(served, "/widget/session", *how, "-d", "{}")
    assert head.startswith("HTTP/1.1 401 ") and json.loads(body)["code"] == "missing_token"


@pytest.mark.parametrize("how", [(), ("-H", "Transfer-Encoding: chunked"), ("-H", "Expect: 100-continue")])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_uploads(served, partner, how, version):
    options = ("--tls-max", version, *how, "--data-binary", "@-")
    _, body = curl(served, "/widget/echo", *options, data=BODY, partner=partner)
    got = json.loads(body)
    assert (got["body_bytes"], got["body_sha256"]) == (len(BODY), hashlib.sha256(BODY).hexdigest())


@pytest.mark.parametrize("how", ["bytes", "chunked", "close-delimited"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_downloads(served, partner, how, version):
    _, body = curl(served, f"/widget/{how}/3000000", "--tls-max", version, partner=partner)
    assert body == (b"abcdefghijklmnopqrstuvwxyz" * 120_000)[:3_000_000]


def test_curl_keeps_its_connection(served, partner):
    urls = [f"https://{HOST}:{served.port}/widget/transactions/{n}" for n in range(10)]
    command = ["curl", "-sS", "-w", "%{num_connects}\n", "-o", "/dev/null", "--cacert", str(served.authority.file)]
    command += ["-H", f"Authorization: Bearer {partner.token}", "--resolve", f"{HOST}:{served.port}:127.0.0.1"]
    done = subprocess.run([*command, *" -o /dev/null ".join(urls).split(" ")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"] + ["0"] * 9


def test_every_good_cipher(simple, partner):
    for cipher in CIPHERS_1_3:
        done = run_curl(simple, "/widget/x", "-v", "--tlsv1.3", "--tls13-ciphers", cipher, partner=partner)
        assert done.returncode == 0 and f"TLSv1.3 / {cipher}".encode() in done.stderr, done.stderr
    for cipher in CIPHERS_1_2:
        done = run_curl(simple, "/widget/x", "-v", "--tls-max", "1.2", "--ciphers", cipher, partner=partner)
        assert done.returncode == 0 and f"TLSv1.2 / {cipher}".encode() in done.stderr, done.stderr


def test_curl_trusts_only_the_authority(simple, authority, tmp_path):
    other = type(authority)(tmp_path / "other", "other")
    done = run_curl(simple, "/widget/x", "--cacert", other.file)
    assert done.returncode == 60, done.stderr  # the peer's certificate cannot be authenticated


def test_plain_http_clients_do_not_hang(simple):
    done = subprocess.run(["curl", "-sS", "--max-time", "20", f"http://127.0.0.1:{simple.port}/"], capture_output=True)
    assert done.returncode in (1, 52, 56), done  # 1: not HTTP (the alert), 52: empty, 56: reset
    is_passed(connect(simple).exchange(fields=simple.partners[0].authorization))


# --- Python ------------------------------------------------------------------------------------------------------


class Resolver(aiohttp.abc.AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host, port=0, family=socket.AF_INET):
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self):
        pass


def test_aiohttp_with_many_connections_at_once(served, partner):
    async def run():
        headers = {"Authorization": f"Bearer {partner.token}"}
        connector = aiohttp.TCPConnector(limit=16, ssl=trusting(served.authority), resolver=Resolver())
        url = f"https://{HOST}:{served.port}"
        async with aiohttp.ClientSession(url, headers=headers, connector=connector) as session:

            async def one(n):
                if n % 3 == 0:
                    async with session.post("/widget/session", json={"merchant_transaction_id": str(n)}) as a:
                        assert a.status == 201 and (await a.json())["merchant_transaction_id"] == str(n)
                elif n % 3 == 1:
                    async with session.put("/widget/echo", data=BODY[: n * 1000]) as a:
                        assert (await a.json())["body_sha256"] == hashlib.sha256(BODY[: n * 1000]).hexdigest()
                else:
                    async with session.get(f"/widget/bytes/{n * 1000}") as a:
                        assert len(await a.read()) == n * 1000

            await asyncio.gather(*[one(n) for n in range(150)])

    asyncio.run(run())
    served.wait_access(150)
    assert {line["status"] for line in served.access()} == {200, 201}


def test_websockets(served, partner):
    async def run(**changes):
        options = {"host": "127.0.0.1", "port": served.port, "ssl": trusting(served.authority), "server_hostname": HOST}
        options |= {"extra_headers": {"Authorization": f"Bearer {partner.token}"}, "max_size": None, **changes}
        async with ws_connect(f"wss://{HOST}:{served.port}/ws?tx_id=t&echo=1&interval_ms=0", **options) as socket:
            for size in (1, 125, 126, 16384, 65536, 1 << 20):
                await socket.send(b"x" * size)
                while isinstance(got := await asyncio.wait_for(socket.recv(), 10), str):
                    pass
                assert got == b"x" * size

    asyncio.run(run())
    with pytest.raises(websockets.InvalidStatusCode) as told:
        asyncio.run(run(extra_headers={}))
    assert told.value.status_code == 401
    served.wait_metric("proofgw_tunnels_open", 0)


# --- node --------------------------------------------------------------------------------------------------------


NODE_SCRIPT = """
const fs = require("fs"), https = require("https"), crypto = require("crypto");
const { Client } = require("undici"), WebSocket = require("ws");
const { port, host, token, ca } = JSON.parse(process.argv[2]);
const tls = { ca: fs.readFileSync(ca), servername: host };
const headers = { host, authorization: "Bearer " + token };
const body = Buffer.alloc(1500000, "node");
const digest = crypto.createHash("sha256").update(body).digest("hex");
const fail = (what, got) => { console.error(what, got); process.exit(1); };

async function with_undici() {
    const client = new Client(`https://127.0.0.1:${port}`, { connect: tls, pipelining: 4 });
    const many = [];
    for (let n = 0; n < 20; n++)
        many.push(client.request({ path: `/widget/transactions/${n}`, method: "GET", headers })
            .then(async (a) => { const got = await a.body.json();
                if (a.statusCode !== 200 || got.merchant_transaction_id !== String(n)) fail("undici", got); }));
    await Promise.all(many);
    const up = await client.request({ path: "/widget/echo", method: "PUT", headers, body });
    const echoed = await up.body.json();
    if (echoed.body_sha256 !== digest) fail("undici upload", echoed);
    const down = await client.request({ path: "/widget/chunked/700000", method: "GET", headers });
    if ((await down.body.arrayBuffer()).byteLength !== 700000) fail("undici download");
    await client.close();
}

function with_https() {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 2, ...tls });
    const one = (n) => new Promise((done) => https.get({ port, host: "127.0.0.1", agent, headers, path: `/widget/bytes/${n}` },
        (a) => { let total = 0; a.on("data", (d) => (total += d.length));
            a.on("end", () => (total === n ? done() : fail("https", total))); }).on("error", (e) => fail("https", e)));
    return Promise.all([1, 16383, 16384, 16385, 100000, 5].map(one)).then(() => agent.destroy());
}

function with_ws() {
    return new Promise((done) => {
        const sizes = [1, 125, 126, 65535, 65536, 1048576];
        const ws = new WebSocket(`wss://127.0.0.1:${port}/ws?tx_id=t&echo=1&interval_ms=0`, { headers, ...tls });
        const next = () => (sizes.length ? ws.send(Buffer.alloc(sizes[0], 7)) : ws.close(1000));
        ws.on("open", next);
        ws.on("message", (data, binary) => {
            if (!binary) return;
            if (data.length !== sizes.shift()) fail("ws", data.length);
            next();
        });
        ws.on("close", (code) => (code === 1000 ? done() : fail("ws close", code)));
        ws.on("error", (e) => fail("ws", e));
    });
}

with_undici().then(with_https).then(with_ws).then(() => { console.log("done"); process.exit(0); }, (e) => fail("", e));
"""


def has_node():
    if not NODE:
        return False
    environment = {"NODE_PATH": NODE_PACKAGES, "PATH": "/usr/bin:/bin"}
    return subprocess.run([NODE, "-e", "require('ws'), require('undici')"], capture_output=True, env=environment).returncode == 0


def test_node(served, partner, tmp_path):
    if not has_node():
        pytest.skip("needs node, node-ws and node-undici (Debian packages)")
    script = tmp_path / "client.js"
    script.write_text(NODE_SCRIPT, encoding="utf-8")
    options = {"port": served.port, "host": HOST, "token": partner.token, "ca": str(served.authority.file)}
    done = subprocess.run(
        [NODE, str(script), json.dumps(options)],
        capture_output=True, text=True, timeout=60, env={"NODE_PATH": NODE_PACKAGES, "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    served.wait_metric("proofgw_tunnels_open", 0)
