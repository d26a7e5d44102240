"""A strict HTTP/1.1 reader, for both sides of the gateway: what it does not recognise is an error, never a guess.

It shares no code and no library with the gateway.
"""

import re
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_STATUS_LINE = re.compile(r"(HTTP/1\.[01]) ([1-5][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_REQUEST_LINE = re.compile(rf"({_TOKEN}) (\S+) (HTTP/1\.[01])")
_FIELD_LINE = re.compile(rf"({_TOKEN}):[ \t]*(|\S|\S.*\S)[ \t]*", re.DOTALL)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_HEAD_MAX = 1024 * 1024


class Malformed(AssertionError):
    """The other side sent something that is not HTTP/1.1."""


class Ended(Exception):
    """The other side closed the connection; `rest` is what came before that and was not used."""

    def __init__(self, rest=b"", reset=False):
        super().__init__(f"connection {'reset' if reset else 'closed'} after {rest!r}")
        self.rest = rest
        self.reset = reset


class Fields(list):
    """Header fields in order: (name, value) as received."""

    def all(self, name):
        return [value for key, value in self if key.lower() == name.lower()]

    def get(self, name, default=None):
        """The value of a field that may be there once."""
        values = self.all(name)
        if len(values) > 1:
            raise AssertionError(f"{name} is there {len(values)} times: {values}")
        return values[0] if values else default

    def names(self):
        return {key.lower() for key, _ in self}


@dataclass
class Message:
    version: str
    fields: Fields
    body: bytes = b""
    framing: str = "none"  # none, length, chunked, close
    raw_head: bytes = b""
    chunks: list = field(default_factory=list)  # data of each chunk

    def __getitem__(self, name):
        return self.fields.get(name)


@dataclass
class Response(Message):
    status: int = 0
    reason: str = ""
    interim: list = field(default_factory=list)  # the 1xx answers before it


@dataclass
class Request(Message):
    method: str = ""
    target: str = ""


class Reader:
    """Reads messages from `receive`, a function that returns the next bytes, b"" at the end of the stream."""

    def __init__(self, receive):
        self._receive = receive
        self.buffer = bytearray()

    def more(self):
        data = self._receive()
        if not data:
            raise Ended(bytes(self.buffer))
        self.buffer += data

    def _take(self, n):
        data = bytes(self.buffer[:n])
        del self.buffer[:n]
        return data

    def exactly(self, n):
        while len(self.buffer) < n:
            self.more()
        return self._take(n)

    def line(self):
        while b"\n" not in self.buffer:
            self.more()
        line = self._take(self.buffer.index(b"\n") + 1)
        if not line.endswith(b"\r\n"):
            raise Malformed(f"a line ends with a bare LF: {line!r}")
        return line[:-2]

    def until_end(self):
        try:
            while True:
                self.more()
        except Ended as end:
            if end.reset:
                raise
            return self._take(len(self.buffer))

    def _head(self):
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > _HEAD_MAX:
                raise Malformed("a head without an end")
            self.more()
        raw = self._take(end + 4)
        start, *lines = raw[:-4].decode("latin-1").split("\r\n")
        fields = Fields()
        for line in lines:
            match = _FIELD_LINE.fullmatch(line)
            if not match or "\n" in line or "\r" in line or "\0" in line:
                raise Malformed(f"not a field line: {line!r}")
            fields.append((match[1], match[2]))
        return start, fields, raw

    def _chunked(self, message):
        while True:
            size = self.line()
            if not _CHUNK_SIZE.fullmatch(size):
                raise Malformed(f"not a chunk size: {size!r}")
            n = int(size, 16)
            if n == 0:
                break
            message.chunks.append(self.exactly(n))
            if self.exactly(2) != b"\r\n":
                raise Malformed("no CRLF behind a chunk")
        trailer = self.line()
        if trailer:
            raise Malformed(f"a trailer was passed on: {trailer!r}")
        message.body = b"".join(message.chunks)

    def _body(self, message, may_be_none):
        coding, length = message["transfer-encoding"], message["content-length"]
        if coding is not None and length is not None:
            raise Malformed("Content-Length together with Transfer-Encoding")
        if coding is not None:
            if coding != "chunked" or message.version != "HTTP/1.1":
                raise Malformed(f"Transfer-Encoding: {coding} in {message.version}")
            message.framing = "chunked"
            self._chunked(message)
        elif length is not None:
            if not re.fullmatch(r"[0-9]+", length):
                raise Malformed(f"Content-Length: {length}")
            message.framing = "length"
            message.body = self.exactly(int(length))
        elif not may_be_none:
            message.framing = "close"
            message.body = self.until_end()

    def request_head(self):
        start, fields, raw = self._head()
        match = _REQUEST_LINE.fullmatch(start)
        if not match:
            raise Malformed(f"not a request line: {start!r}")
        return Request(method=match[1], target=match[2], version=match[3], fields=fields, raw_head=raw)

    def request_body(self, request):
        self._body(request, may_be_none=True)
        return request

    def request(self):
        return self.request_body(self.request_head())

    def response_head(self):
        start, fields, raw = self._head()
        match = _STATUS_LINE.fullmatch(start)
        if not match:
            raise Malformed(f"not a status line: {start!r}")
        return Response(version=match[1], status=int(match[2]), reason=match[3], fields=fields, raw_head=raw)

    def response_body(self, response):
        self._body(response, may_be_none=False)
        return response

    def response(self, method="GET"):
        """The final response, with the interim ones before it."""
        interim = []
        while (response := self.response_head()).status < 200 and response.status != 101:
            interim.append(response)
        response.interim = interim
        if method == "HEAD" or response.status in (101, 204, 304):
            return response
        return self.response_body(response)
