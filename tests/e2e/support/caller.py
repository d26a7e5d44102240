"""Who is calling, as the tests of PROXY headers, X-Forwarded-For and the shield see it."""

from support.expect import is_passed

BALANCER, BALANCER_2, STRANGER = "127.0.0.5", "127.0.0.6", "127.0.0.77"
TRUSTED = ["127.0.0.4/30", "2001:db8:ffff::/48"]  # 127.0.0.4 to 127.0.0.7
CALLER = "192.0.2.7"


def listener(**changes):
    return [{"address": "127.0.0.1:0", "trusted_proxies": TRUSTED, **changes}]


def balancer(gateway, header=b"", source=BALANCER):
    return gateway.client(source=source).send(header)


def told(gateway, backend, partner, header, address, origin):
    """A connection with this header is believed to be `address`'s."""
    client = balancer(gateway, header)
    answer = is_passed(client.exchange(fields=partner.authorization))
    assert backend.last.fields.all("x-forwarded-for") == [address]
    believed(gateway, answer, address, origin)
    return client


def believed(gateway, answer, address, origin, peer=BALANCER):
    line = gateway.line_of(answer)
    assert (line["client_ip"], line["client_ip_source"]) == (address, origin)
    assert line.get("peer_ip") == (None if origin == "socket" else peer)


def forwarded(*values):
    return "".join(f"X-Forwarded-For: {value}\r\n" for value in values)
