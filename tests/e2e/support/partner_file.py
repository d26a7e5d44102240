"""The partner file of a running gateway."""

import contextlib
import json


@contextlib.contextmanager
def loaded(gateway, succeeds=True):
    """Waits at the end of the block until one more load than before has succeeded, or failed."""
    name = "proofgw_store_loads_total" if succeeds else "proofgw_store_load_failures_total"
    before = gateway.metrics()[name]
    yield
    gateway.wait_metric(name, lambda value: value > before)


def asks(client, partner, **kwargs):
    return client.exchange(fields=partner.authorization, **kwargs)


def text_of(*partners):
    return "".join(json.dumps(p.record()) + "\n" for p in partners)


def file_of(gateway):
    return gateway.folder / "partners.ndjson"
