"""Waiting for a condition. Nothing in these tests sleeps and hopes: every wait has a condition and a deadline."""

import time

DEADLINE_S = 10.0  # how long anything may take that ought to happen at once, on a slow and busy machine
_POLL_S = 0.005


def wait_for(condition, what, seconds=DEADLINE_S):
    """Calls `condition` until it returns something true, and returns that. `what` is for the failure; it may be a
    function that describes what was seen last."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(_POLL_S)
