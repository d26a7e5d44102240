"""Lets a test play the backend by itself: a script hands its connection over and ends, and the test goes on with it.

    far = takeover(backend)
    client.send(...)
    c, sent = far()          # the connection, and the request head that it got
"""

import queue
import socket

from support.backend import Connection
from support.wait import DEADLINE_S


def takeover(backend, reply=None):
    """For the next new connection. `reply`: a function of the request whose result is sent at once."""
    handed = queue.SimpleQueue()

    def script(c):
        sent = c.read_head()
        if reply:
            c.send(reply(sent))
        sock = socket.socket(fileno=c.socket.detach())
        sock.settimeout(DEADLINE_S)
        taken = Connection(backend, sock)
        taken.reader.buffer += c.reader.buffer
        handed.put((taken, sent))

    backend.script(script)
    return lambda: handed.get(timeout=DEADLINE_S)
