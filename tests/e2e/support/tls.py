"""The gateway behind TLS, and a client that decides about every record and every byte.

    pytest_plugins = ["support.tls"]

    def test_something(https, authority, partner):
        gateway = https()                                 # one TLS listener, one ECDSA certificate for its hosts
        client = connect(gateway)                         # trusts the authority, SNI api.test
        answer = client.exchange(fields=partner.authorization)

  https(pairs=[...], listener={...}, tls={...}, **sections)   pairs: certs.Pair; listener, tls: laid over the defaults
  connect(gateway, name=, context=, source=, session=, before=, handshake=)   TlsClient, closed when the test ends
  trusting(authority, ...)                                an ssl.SSLContext for it
  s_client(gateway, ...)                                  what `openssl s_client` says
"""

import base64
import contextlib
import shutil
import ssl
import subprocess
import threading

import pytest

from support.certs import Authority
from support.client import Client, request
from support.gateway import HOST, SANDBOX_HOST
from support.http1 import Ended
from support.wait import DEADLINE_S

RECORD = 16384  # the largest plaintext of a record
OPENSSL = shutil.which("openssl")
CIPHERS_1_3 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]


CIPHERS_1_2 = [
    f"ECDHE-{key}-{cipher}"
    for key in ("ECDSA", "RSA")
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "certificates")


@pytest.fixture
def https(proofgw, authority):
    """Factory of gateways whose first listener speaks TLS."""

    def make(pairs=None, listener=None, tls=None, **changes):
        if pairs is None:
            pairs = [authority.leaf(HOST, SANDBOX_HOST)]
        changes.setdefault("listeners", [tls_listener(**(listener or {}))])
        gateway = proofgw(tls={"certificates": [p.config for p in pairs], **(tls or {})}, **changes)
        gateway.authority = authority
        return gateway

    return make


def tls_listener(**keys):
    return {"address": "127.0.0.1:0", "tls": True, **keys}


def trusting(authority, pair=None, version=None, ciphers=None, alpn=None):
    """A client's context. `authority` None: it believes everything. `pair`: the certificate it shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority:
        context.load_verify_locations(authority.file)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if pair:
        context.load_cert_chain(pair.chain, pair.key)
    if version:
        context.minimum_version = context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def connect(gateway, name=HOST, context=None, address=None, **options):
    client = TlsClient(address or ("127.0.0.1", gateway.port), context or trusting(gateway.authority), name, **options)
    gateway.clients.append(client)
    if options.get("handshake", True):
        client.handshake()
    return client


class TlsClient(Client):
    """As Client, behind TLS. An end without close_notify is reported as a reset is: neither is an orderly end."""

    def __init__(self, address, context, name, source=None, session=None, before=b"", handshake=True):
        super().__init__(address, source)
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=name, session=session)
        self.was_truncated = False
        self._lock = threading.Lock()  # a test may send and receive at the same time; OpenSSL's objects may not
        if before:
            self.socket.sendall(before)

    # --- handshake

    def first_flight(self):
        """The bytes of the ClientHello."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._leaving.read()

    def handshake(self):
        """Raises ssl.SSLError with the alert of the gateway, or Ended."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self._take()
        self.flush()
        return self

    def _take(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            raise Ended(bytes(self.reader.buffer), reset=True) from None
        except TimeoutError:
            raise AssertionError(f"nothing came; before it: {bytes(self.reader.buffer[:200])!r}") from None
        if not data:
            self.was_truncated = True
            raise Ended(bytes(self.reader.buffer), reset=True)
        self._arrived.write(data)

    # --- what leaves

    def flush(self):
        data = self._leaving.read()
        if data:
            self.socket.sendall(data)

    def seal(self, data):
        """The records of `data`, not sent: one for each 16 KiB."""
        with self._lock:
            self.tls.write(data)
            return self._leaving.read()

    def send(self, data):
        if data:
            self.socket.sendall(self.seal(data))
        return self

    def send_bytewise(self, data):
        """Each byte in a record of its own, all in few sends."""
        self.socket.sendall(b"".join(self.seal(data[i : i + 1]) for i in range(len(data))))
        return self

    def raw(self, data):
        """Bytes past TLS."""
        self.socket.sendall(data)
        return self

    def send_until_refused(self, data, total):
        sent = 0
        try:
            while sent < total:
                self.send(data)
                sent += len(data)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
        return sent

    def close_notify(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return self  # it has ended already
        self.flush()
        return self

    def half_close(self):
        self.close_notify()
        return super().half_close()

    # --- what comes

    def _receive(self):
        while True:
            try:
                with self._lock:
                    return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.flush()  # the answer to a KeyUpdate
                self._take()
            except ssl.SSLZeroReturnError:
                return b""

    def expect_truncated(self):
        """A FIN without close_notify. Returns the bytes that came before."""
        rest = self.expect_reset()
        assert self.was_truncated, "reset, not closed"
        return rest

    def expect_alert(self, *reasons):
        """Reads on; the next thing is a fatal alert (or, where the kernel has dropped it, a reset)."""
        try:
            self.reader.until_end()
        except ssl.SSLError as alert:
            assert not reasons or alert.reason in reasons, alert
            return alert.reason
        raise AssertionError("no alert")

    @property
    def certificate(self):
        """What the gateway showed, DER."""
        return self.tls.getpeercert(binary_form=True)


def refused(gateway, **options):
    """The reason of the alert that answers a handshake."""
    try:
        client = connect(gateway, **options)
        client.reader.more()  # in TLS 1.3 the client is done before its certificate is looked at
    except ssl.SSLError as alert:
        return alert.reason
    raise AssertionError("not refused")


def s_client(gateway, *arguments, name=HOST, data=None):
    """Its output, both streams. Without `data` it asks once, and the gateway closes."""
    if data is None:
        data = request(fields=f"Connection: close\r\n{gateway.partners[0].authorization}")
        arguments = ("-ign_eof", *arguments)
    command = [OPENSSL, "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-CAfile", gateway.authority.file]
    command += ["-servername", name] if name else ["-noservername"]
    done = subprocess.run([*command, *arguments], input=data, capture_output=True, timeout=DEADLINE_S)
    return (done.stdout + done.stderr).decode(errors="replace")


def session_bytes(gateway, file):
    """The ASN.1 of a new session, with its ticket; the name of the ticket's key is in it as it is."""
    s_client(gateway, "-sess_out", file)
    return base64.b64decode("".join(file.read_text().splitlines()[1:-1]))
