"""PROXY headers, both versions, well-formed and not."""

import ipaddress
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, TCP6, UNIX = 0x00, 0x11, 0x21, 0x31


def v1(source, target="127.0.0.1"):
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {'::1' if family == 'TCP6' else target} 40000 443\r\n".encode()


def v2(source=None, tlvs=b"", command=PROXY, family=None, body=None):
    """`source`: an address; or `family` and `body`, the bytes behind the fixed part."""
    if body is None:
        body = b""
        if source:
            address = ipaddress.ip_address(source)
            family = TCP4 if address.version == 4 else TCP6
            body = address.packed * 2 + struct.pack(">HH", 40000, 443)
    return SIGNATURE + bytes([command, family or UNSPEC]) + struct.pack(">H", len(body + tlvs)) + body + tlvs


def tlv(kind, value):
    return bytes([kind]) + struct.pack(">H", len(value)) + value
