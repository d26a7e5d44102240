"""Operators who write at the same time, in threads, whatever happens to Redis meanwhile.

    with Operators(partners, lambda: redis) as operators:
        operators.wait_written(50)         # so many more changes have been acknowledged
        ...
    operators.settle(model, redis)         # what it must be now, or the test fails

Each change is a whole record with the version that it replaces, so two operators never undo each other unseen. An acknowledged change
counts: it must be there at the end, or a later one. One whose answer never came may be there or not: Redis decides, and is asked.
"""

import copy
import random
import threading
import traceback

from support.model import PREFIXES
from support.partners import new_token
from support.redis import Connection, RedisError, fields_of
from support.wait import DEADLINE_S, wait_for

_WAIT_MS = 2000


class Operators:
    def __init__(self, partners, master, replicas=lambda: 0, number=3):
        """`master`: which server is it now? `replicas`: how many of them must have a change before it counts?"""
        self.master, self.replicas = master, replicas
        self.known = {p.partner_id: (0, copy.deepcopy(p)) for p in partners}  # version, partner: the newest acknowledged
        self.unsure = []  # partners whose writing nobody has acknowledged
        self.written = 0
        self.problems = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(random.Random(n),), daemon=True) for n in range(number)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure):
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "an operator does not end"
        assert not self.problems or failure[0], "\n".join(self.problems)

    def wait_written(self, more, seconds=DEADLINE_S):
        wanted = self.written + more
        wait_for(lambda: self.written >= wanted or self.problems, f"{more} more changes", seconds)
        assert not self.problems, "\n".join(self.problems)

    # --- in the threads

    def _run(self, rng):
        try:
            while not self._over.is_set():
                try:
                    self._work(rng, self.master())
                except (OSError, RedisError):
                    self._over.wait(0.02)  # there is no master just now
        except Exception:
            self.problems.append(traceback.format_exc())

    def _work(self, rng, server):
        connection = Connection(server.socket_path, "operator", server.passwords["operator"])
        try:
            while not self._over.is_set() and server is self.master():
                self._write(rng, server, connection)
        finally:
            connection.close()

    def _write(self, rng, server, connection):
        with self._lock:
            partner = copy.deepcopy(rng.choice(list(self.known.values()))[1])
        self._change(rng, partner)
        expected = server.version(partner, connection)
        self.unsure.append(partner)
        try:
            version = server.put(partner, expected=expected, connection=connection)
        except RedisError as refusal:
            self.unsure.remove(partner)
            if not str(refusal).startswith("CONFLICT"):
                raise
            return
        wanted = self.replicas()
        if wanted and connection("WAIT", wanted, _WAIT_MS) < wanted:
            return
        with self._lock:
            self.unsure.remove(partner)
            self.written += 1
            self.known[partner.partner_id] = max(self.known[partner.partner_id], (version, partner), key=lambda k: k[0])

    @staticmethod
    def _change(rng, partner):
        kind = rng.choice(["revoke", "toggle", "move"])
        if kind == "revoke":
            partner.token = new_token()
        elif kind == "toggle":
            partner.enabled = not partner.enabled
        else:
            partner.production = rng.sample(PREFIXES, 2)

    # --- afterwards

    def settle(self, model, server):
        """Puts into the model what is in Redis, after having made sure that it is what it must be."""
        for partner_id, (version, partner) in self.known.items():
            found = server.record(partner)
            candidates = [partner, *(p for p in self.unsure if p.partner_id == partner_id)]
            fitting = [p for p in candidates if self._fields(p) == found]
            assert fitting, f"the record of {partner_id} is none that anybody wrote from version {version} on: {found}"
            model.state.partners[partner_id] = fitting[-1]
            model.tokens.update(*(p.tokens for p in candidates))
            model.bury(*{token for p in candidates for token in p.tokens} - {*fitting[-1].tokens})

    @staticmethod
    def _fields(partner):
        fields = fields_of(partner.record())
        return dict(zip(fields[::2], fields[1::2]))
