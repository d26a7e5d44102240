"""proofctl on a Redis with users, as an operator has it."""

import pytest

from support.partners import Partner


@pytest.fixture
def gateway_on(proofgw):
    def make(redis, *partners, **changes):
        gateway = proofgw(partners=list(partners), store=redis.config(), **changes)
        gateway.secrets += redis.passwords.values()
        return gateway

    return make


def partner_of(added, **kwargs):
    """A partner of the harness with what proofctl printed."""
    return Partner(added["partner_id"], token=added["client_token"], widget_id=added["widget_id"], **kwargs)
