"""Bytes whose place can be told from what they are, so that nothing that is lost, repeated or swapped looks right."""

import functools
import hashlib
from pathlib import Path

MIB = 1024 * 1024


def _kernel_takes():
    """Bytes that the sockets on both sides of the gateway may hold when somebody does not read."""
    return 2 * sum(int(Path(f"/proc/sys/net/ipv4/tcp_{which}").read_text().split()[2]) for which in ("rmem", "wmem"))


# More than fits between two ends of which one does not read, with the gateway between them: whole MiB.
PLENTY = max(32, _kernel_takes() // MIB + 8) * MIB


@functools.lru_cache(maxsize=4)
def pattern(size):
    return b"".join(b"%031d\n" % i for i in range(size // 32 + 1))[:size]


def digest_of(size):
    """Of pattern(MIB), over and over, up to `size` bytes: whole MiB."""
    data, digest = pattern(MIB), hashlib.sha256()
    for _ in range(size // MIB):
        digest.update(data)
    return digest.digest()
