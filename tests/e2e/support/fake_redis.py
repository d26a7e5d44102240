"""A Redis that can be told to misbehave: just enough of the server for a gateway to load and follow partners, and a fault
that spoils the answers to one command until it is healed.

The real server is in support/redis.py; this one says what that would never say.
"""

import asyncio
import contextlib
import hashlib
import json
import secrets
import socket
import struct
import threading

from support.redis import TAG, fields_of
from support.wait import DEADLINE_S

_PREFIX = f"gw:{{{TAG}}}:p:"


def encode(value):
    """A reply: bytes are sent as they are, lists as arrays, None as nil."""
    if isinstance(value, bytes):
        return value
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(encode(v) for v in value)
    text = value.encode()
    return b"$%d\r\n%s\r\n" % (len(text), text)


# --- faults: coroutines that do something else than to send the reply


def say(text):
    """Other bytes instead of the reply; the connection stays."""

    async def fault(connection, reply):
        connection.write(text)

    return fault


def add(text):
    """The reply, and more than was asked for."""
    return lambda connection, reply: say(reply + text)(connection, reply)


def half(end):
    """The first half of the reply, and then the connection is closed, reset, or stays open without a word."""

    async def fault(connection, reply):
        connection.write(reply[: len(reply) // 2])
        await connection.end(end)

    return fault


def nothing(end):
    return lambda connection, reply: half(end)(connection, b"")


def late(seconds):
    async def fault(connection, reply):
        await asyncio.sleep(seconds)
        connection.write(reply)

    return fault


class _Connection:
    def __init__(self, server, reader, writer):
        self.server, self.reader, self.writer = server, reader, writer

    def write(self, data):
        size = self.server.slice or len(data) or 1
        for i in range(0, len(data), size):
            self.writer.write(data[i : i + size])

    async def end(self, how):
        await self.writer.drain()
        if how == "silence":
            await asyncio.Event().wait()
        if how == "reset":
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()

    async def run(self):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not self.writer.is_closing():
                words = await self._command()
                name = words[0].upper()
                self.server.heard.append(name)
                reply = encode(await self.server.answer(name, words[1:]))
                fault = self.server.faults.get(name)
                await fault(self, reply) if fault else self.write(reply)
                await self.writer.drain()
        self.writer.close()

    async def _command(self):
        count = int((await self.reader.readuntil(b"\r\n"))[1:])
        words = []
        for _ in range(count):
            length = int((await self.reader.readuntil(b"\r\n"))[1:])
            words.append((await self.reader.readexactly(length + 2))[:-2].decode())
        return words


class FakeRedis:
    """Listens at `address` in a thread of its own."""

    def __init__(self):
        self.faults = {}  # {command: fault}
        self.slice = None  # bytes per write
        self.heard = []  # names of commands
        self.epoch, self.sequence, self.digest = secrets.token_hex(8), 0, 0
        self.records, self.log = {}, []  # {id: (version, fields)}, [(sequence, entry)]
        self._loop = asyncio.new_event_loop()
        self._connections = {}  # {task: connection}
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.address = self._do(self._listen())

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    async def _listen(self):
        self._changed = asyncio.Condition()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return "127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection, task = _Connection(self, reader, writer), asyncio.current_task()
        self._connections[task] = connection
        try:
            await connection.run()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            del self._connections[task]

    async def _drop(self):
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drop(self):
        """Ends all connections."""
        self._do(self._drop())

    def close(self):
        async def end():
            self._server.close()
            await self._drop()

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    def config(self, **changes):
        """The section `store` of a gateway."""
        redis = {"address": self.address, "connect_timeout": "300ms", "command_timeout": "300ms", **changes}
        return {"kind": "redis", "file": None, "redis": redis}

    # --- data

    def put(self, partner):
        async def change():
            fields = fields_of(partner.record())
            old = self.records.get(partner.partner_id)
            self.sequence += 1
            for version in (old[0] if old else None, self.sequence):
                if version:
                    text = f"{partner.partner_id}:{version}".encode()
                    self.digest ^= int.from_bytes(hashlib.sha1(text).digest()[:8], "big")
            self.records[partner.partner_id] = (self.sequence, fields)
            head = ["op", "set", "id", partner.partner_id, "n", secrets.token_hex(8)]
            head += ["c", str(len(self.records)), "d", f"{self.digest:016x}"]
            self.log.append((self.sequence, [f"{self.sequence}-1", head + fields]))
            async with self._changed:
                self._changed.notify_all()

        self._do(change())

    def report(self):
        """What the gateway said of itself last."""
        return json.loads(self.reported)

    # --- commands

    async def answer(self, name, words):
        return await getattr(self, f"_{name.lower()}")(words)

    async def _auth(self, words):
        return b"+OK\r\n"

    _client = _auth

    async def _role(self, words):
        return ["master", 0, []]

    async def _hmget(self, words):
        return ["1", self.epoch, str(self.sequence), str(len(self.records)), f"{self.digest:016x}"]

    async def _hget(self, words):
        """HGET key field, of meta or of a record"""
        return str(self.sequence if words[1] == "seq" else self.records[words[0].removeprefix(_PREFIX)][0])

    async def _scan(self, words):
        return ["0", [_PREFIX + i for i in self.records]]

    async def _hgetall(self, words):
        version, fields = self.records[words[0].removeprefix(_PREFIX)]
        return ["v", str(version), *fields]

    def _after(self, text, count, inclusive):
        start = int(text.removesuffix("-1")) + (0 if inclusive else 1)
        return [entry for sequence, entry in self.log if sequence >= start][:count]

    async def _xrange(self, words):
        return self._after(words[1], int(words[4]), True)

    async def _xread(self, words):
        """XREAD BLOCK ms COUNT n STREAMS key id"""
        if "XREAD" in self.faults:
            return b"*-1\r\n"  # spoilt at once, and not when there is something to say
        with contextlib.suppress(asyncio.TimeoutError):
            async with self._changed:
                ready = self._changed.wait_for(lambda: self._after(words[6], 1, False))
                await asyncio.wait_for(ready, int(words[1]) / 1000)
        entries = self._after(words[6], int(words[3]), False)
        return [[words[5], entries]] if entries else b"*-1\r\n"

    async def _set(self, words):
        self.reported = words[1]
        return b"+OK\r\n"

    async def _del(self, words):
        return 1
