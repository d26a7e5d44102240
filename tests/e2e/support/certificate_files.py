"""What a gateway makes of certificates on disk."""

import os

from support.certs import key_pem, new_key, replace_file
from support.gateway import HOST, SANDBOX_HOST
from support.tls import connect
from support.wait import wait_for

NAMES = (HOST, SANDBOX_HOST)


def shown(gateway):
    client = connect(gateway)
    certificate = client.certificate
    client.reset()
    return certificate


def wait_shown(gateway, pair):
    wait_for(lambda: shown(gateway) == pair.der, gateway.ops_text)


def complaint(gateway, *texts, known=0):
    """Waits for a line of the log, after the first `known` ones, in which all of these texts are."""
    return wait_for(
        lambda: [e for e in gateway.events()[known:] if all(str(t) in " ".join(map(str, e.values())) for t in texts)],
        lambda: f"{texts}:\n{gateway.ops_text()}",
    )[0]


def half(content):
    return content[: len(content) // 2]


def bad_pairs(authority):
    """What -> (a function that spoils the pair on disk, a text that the log must have)."""
    new = authority.leaf(*NAMES)
    return {
        "another key": (lambda p: replace_file(p.key, key_pem(new_key())), "does not belong to the certificate"),
        "expired": (lambda p: p.become(authority.leaf(*NAMES, days=-1)), "expired"),
        "not valid yet": (lambda p: p.become(authority.leaf(*NAMES, not_before_days=1)), "not valid before"),
        "no PEM": (lambda p: replace_file(p.chain, b"nonsense\n"), "no certificate"),
        "empty": (lambda p: replace_file(p.chain, b""), ""),
        "half a certificate": (lambda p: replace_file(p.chain, half(new.chain.read_bytes())), ""),
        "half a key": (lambda p: replace_file(p.key, half(new.key.read_bytes())), ""),
        "certificate without its key": (lambda p: replace_file(p.chain, new.chain.read_bytes()), "does not belong"),
        "an encrypted key": (lambda p: replace_file(p.key, key_pem(p.private, b"secret")), "encrypted"),
        "a key for everybody": (lambda p: p.key.chmod(0o644), ""),
        "a weak key": (lambda p: p.become(authority.leaf(*NAMES, key="rsa1024")), "too weak"),
        "for clients": (lambda p: p.become(authority.leaf(*NAMES, client=True)), "not for servers"),
        "no file": (lambda p: p.chain.unlink(), ""),
        "a directory": (lambda p: (p.chain.unlink(), p.chain.mkdir()), ""),
        "a pipe": (lambda p: (p.chain.unlink(), os.mkfifo(p.chain)), ""),
    }


BAD = [
    "another key", "expired", "not valid yet", "no PEM", "empty", "half a certificate", "half a key",
    "certificate without its key", "an encrypted key", "a key for everybody", "a weak key", "for clients", "no file",
    "a directory", "a pipe",
]  # fmt: skip
