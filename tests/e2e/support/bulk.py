"""A very large data set in Redis, as the project's script would have left it, without running the script for each record.

Everything about partner number i follows from i, so that nothing needs to be kept.
"""

import hashlib
import secrets

from support.partners import Partner
from support.redis import Connection, fields_of

_AT_ONCE = 5000  # records in one write


def _token(i):
    return f"pt_canary_{i:048d}"


def _widget_id(i):
    return f"00000000-0000-4000-8000-{i:012x}"


def address(i):
    """An address of this machine from which only this partner may call."""
    return f"127.{16 + (i >> 16)}.{i >> 8 & 255}.{i & 255}"


def _prefixes(i):
    """Two that no other partner has: memory is measured with them."""
    return f"{address(i)}/32", f"{100 + (i >> 16)}.{i >> 8 & 255}.{i & 255}.0/24"


def partner(i):
    return Partner(f"m{i}", list(_prefixes(i)), token=_token(i), widget_id=_widget_id(i))


def fields(i):
    """fields_of(partner(i).record()), ten times as fast."""
    digest = hashlib.sha256(_token(i).encode()).hexdigest()
    return (
        *("company", f"Company m{i}", "contact", f"ops@m{i}.example", "client_token_sha256", digest),
        *("widget_id", _widget_id(i), "off_ramp", "false", "production_cidrs", " ".join(_prefixes(i)), "enabled", "true"),
    )


def command(words):
    """As a client sends it."""
    return f"*{len(words)}\r\n" + "".join([f"${len(word)}\r\n{word}\r\n" for word in words])


def fill(redis, number):
    """Writes partners 0 to number - 1, with versions from 1 on; returns the number of the last change."""
    assert list(fields(7)) == fields_of(partner(7).record()), "the two ways to write a record differ"
    connection = Connection(redis.socket_path, "admin", redis.passwords["admin"])
    prefix, total = redis.key("p:m"), 0
    for begin in range(0, number, _AT_ONCE):
        batch = range(begin, min(number, begin + _AT_ONCE))
        commands = "".join([command(("HSET", f"{prefix}{i}", "v", str(i + 1), *fields(i))) for i in batch])
        connection.send(commands.encode(), replies=len(batch))
        for i in batch:
            total ^= int.from_bytes(hashlib.sha1(b"m%d:%d" % (i, i + 1)).digest()[:8], "big")
    state = ("c", number, "d", f"{total:016x}")
    entry = ("op", "set", "id", f"m{number - 1}", "n", secrets.token_hex(8), *state, *fields(number - 1))
    connection("XADD", redis.key("log"), f"{number}-1", *entry)
    connection("SET", redis.key("seq"), number)
    connection("HSET", redis.key("meta"), "count", number, "digest", f"{total:016x}", "seq", number)
    connection.close()
    return number
