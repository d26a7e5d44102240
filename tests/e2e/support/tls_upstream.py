"""A backend that speaks TLS."""

import ssl

import pytest

NAME = "backend.test"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def serving(pair, version=None, clients=None):
    """A backend's context. `clients`: the authority of the certificates that it demands."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.chain, pair.key)
    if version:
        if version < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.file)
    return context


@pytest.fixture
def to_backend(proofgw, authority):
    """Factory of gateways that speak TLS to this backend."""

    def make(backend, address=None, listener=None, **keys):
        keys = {"enabled": True, "ca_file": str(authority.file), **keys}
        keys = {key: value for key, value in keys.items() if value is not None}
        production = {"hosts": ["api.test"], "upstream": address or backend.address, "upstream_tls": keys}
        return proofgw(upstream=backend.address, environments={"production": production, "sandbox": None}, **(listener or {}))

    return make
