"""Certificates made at run time: authorities, intermediates, and leaves that are right, or wrong in one thing.

    authority = Authority(folder)
    pair = authority.leaf("api.test")                          ECDSA P-256, valid from an hour ago for 30 days
    pair = authority.leaf("api.test", "*.api.test", key="rsa")
    pair = authority.intermediate().leaf("api.test")           chain of two; full_chain=False leaves the issuer out
    pair = authority.leaf("api.test", days=-1)                 has expired; not_before_days=1: is not valid yet
    pair = authority.leaf("acme", client=True)                 for clients
    {"chain_file": str(pair.chain), "key_file": str(pair.key)} == pair.config
"""

import datetime
import functools
import ipaddress
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_HOUR, _DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
_KEYS = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
}


@functools.lru_cache
def _rsa_key(kind):
    """One for all: to make another takes longer than most tests."""
    return _KEYS[kind]()


def new_key(kind="ec"):
    return _rsa_key(kind) if kind.startswith("rsa") else _KEYS[kind]()


def replace_file(path, content, mode=0o600):
    """Whole, by renaming, as a careful deployment does."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(path)


def key_pem(key, passphrase=None):
    encryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _subject_alternative(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(eq=False)
class Pair:
    """A chain file and its key file."""

    chain: Path
    key: Path
    certificate: x509.Certificate
    private: object

    @property
    def config(self):
        return {"chain_file": str(self.chain), "key_file": str(self.key)}

    @property
    def serial(self):
        """As openssl prints it."""
        return f"{self.certificate.serial_number:X}"

    @property
    def files(self):
        return self.chain, self.key

    @property
    def der(self):
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def fingerprint(self):
        """SHA-256 of the certificate, hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def not_after(self):
        """Unix seconds."""
        return self.certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc).timestamp()

    def become(self, other):
        """Both files get the content of another pair, key first, each by renaming."""
        replace_file(self.key, other.key.read_bytes())
        replace_file(self.chain, other.chain.read_bytes(), 0o644)


class Authority:
    """Signs leaves and further authorities. Files live in `folder`; `file` is its own certificate."""

    def __init__(self, folder, name="authority", issuer=None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self._issuer = folder, name, issuer
        self._key, self._count = new_key(), itertools.count(1)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.certificate = self._sign(
            issuer, name, self._key, 3650 * _DAY, -_DAY,
            [(x509.BasicConstraints(True, None), True), (usage, True)],
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(_pem(self.certificate))

    def _sign(self, issuer, name, key, lifetime, start, extensions):
        """`issuer` None: signed by itself."""
        signer = issuer._key if issuer else key
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(issuer.certificate.subject if issuer else _name(name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + lifetime)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256())

    def intermediate(self, name="intermediate"):
        return Authority(self.folder, name, issuer=self)

    @property
    def issuers(self):
        """PEM of this authority and those above it, without the root: what belongs behind a leaf."""
        return _pem(self.certificate) + self._issuer.issuers if self._issuer else b""

    def leaf(
        self, *names, key="ec", days=30, not_before_days=None, client=False, full_chain=True, common_name=None, crl=None
    ):
        """A certificate for `names` (DNS names and addresses; the first is the common name) with files of its own.
        `days`: until it expires, negative for one that has. `key`: a kind of new_key(), or such a key. `crl`: where it
        would be told that it was revoked."""
        private = new_key(key) if isinstance(key, str) else key
        start = not_before_days * _DAY if not_before_days is not None else min(-_HOUR, days * _DAY - _DAY)
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        extensions = [
            (x509.BasicConstraints(False, None), True),
            (x509.ExtendedKeyUsage([purpose]), False),
            (x509.SubjectAlternativeName([_subject_alternative(n) for n in names]), False),
        ]
        if crl:
            point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl)], None, None, None)
            extensions.append((x509.CRLDistributionPoints([point]), False))
        certificate = self._sign(self, common_name or names[0], private, days * _DAY, start, extensions)
        stem = f"{self.name}-{next(self._count)}-{names[0].replace('*', 'any').replace(':', '_')}"
        chain, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        chain.write_bytes(_pem(certificate) + (self.issuers if full_chain else b""))
        key_file.touch(0o600)
        key_file.write_bytes(key_pem(private))
        return Pair(chain, key_file, certificate, private)


def ticket_key():
    """A line of a ticket key file: name, AES-256 key and HMAC key, hexadecimal."""
    return os.urandom(80).hex()
