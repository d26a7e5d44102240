"""A gateway that is reloaded by the test."""

import contextlib


def get(gateway, partner, **kwargs):
    with contextlib.closing(gateway.client()) as client:
        return client.exchange(fields=partner.authorization, **kwargs)


def environments(**production):
    return {"environments": {"production": production}}


def watched(proofgw, **changes):
    return proofgw(workers=2, reload_on_change=True, **changes)
