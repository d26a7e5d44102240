"""What the tests of limits share."""

from support.expect import is_error


def hit(gateway, limit):
    return gateway.metrics()("proofgw_limits_hit_total", limit=limit)


def is_over(gateway, client, got, code, limit, closes=True):
    is_error(got, code, closes=closes)
    if closes:
        client.expect_close()
    assert hit(gateway, limit) == 1


def padded(data, size):
    """A request head of exactly `size` bytes."""
    room = size - len(data) - len(b"X-Pad: \r\n")
    assert room >= 0
    return data[:-2] + b"X-Pad: " + b"p" * room + b"\r\n\r\n"
