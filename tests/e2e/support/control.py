"""The control socket of a gateway: HTTP over a unix socket, JSON back."""

import http.client
import json
import socket

from support.wait import DEADLINE_S


class _Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("gateway", timeout=DEADLINE_S)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path, target, method="GET"):
    """(status, decoded JSON or text)"""
    connection = _Connection(path)
    connection.request(method, target)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    is_json = answer.headers["Content-Type"] == "application/json"
    return answer.status, json.loads(body) if is_json else body.decode()
