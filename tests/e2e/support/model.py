"""What operators did to the partners, and what every gateway must therefore answer.

    model = Model(random.Random(7))
    model.step(redis)                 # one random operation of an operator, written to that Redis by the script
    probe = Probe(gateway)
    probe.check(model)                # every (token, address, environment) through real requests

The model shares nothing with the gateway: allowlists are asked of Python's ipaddress, times of Python's clock.
"""

import copy
import ipaddress
import json
import time
from dataclasses import dataclass

from support.backend import answer
from support.client import request
from support.gateway import HOST, SANDBOX_HOST
from support.partners import Partner, new_token

PREFIXES = ["127.0.0.1", "127.0.0.2/32", "127.0.0.0/30", "127.0.1.0/24", "127.0.0.0/16", "127.8.0.0/13", "192.0.2.0/24", "2001:db8::/32"]
ADDRESSES = ["127.0.0.1", "127.0.0.2", "127.0.1.9", "127.9.9.9"]
HOSTS = {"production": HOST, "sandbox": SANDBOX_HOST}
_PARTNERS_MAX = 12
_DEAD_KEPT = 8  # tokens that count no more and are tried all the same
_SHORT_GRACE_S = 0.15
_CLOCK_SLACK_S = 0.002  # records hold whole milliseconds


def tell_identity(sent):
    """For Backend.answer: the body says who the gateway says that it was."""
    names = ("partner-id", "widget-id", "environment", "off-ramp", "token-slot")
    return answer(body=json.dumps([sent[f"x-proof-{name}"] for name in names]).encode())


def allows(prefixes, address):
    address = ipaddress.ip_address(address)
    return any(address in network for network in map(ipaddress.ip_network, prefixes) if network.version == address.version)


@dataclass
class State:
    """What is in the database: the partners, and tokens that once counted."""

    partners: dict
    dead: list


class Model:
    def __init__(self, rng):
        self.rng = rng
        self.state = State({}, [])
        self.tokens = set()  # all that ever were, for the search for secrets
        self.history = []  # what was done
        self.number = 0
        self.last = 0  # sequence number of the last change

    # --- operations

    OPERATIONS = [
        *("add", "add", "add", "change", "rotate", "rotate", "rotate_briefly", "finish", "revoke_current", "revoke_previous"),
        *("disable", "enable", "remove", "ip_add", "ip_add", "ip_remove", "come_back", "hand_over"),
    ]

    def step(self, redis):
        partners = list(self.state.partners.values())
        name = self.rng.choice(self.OPERATIONS) if partners else "add"
        if name == "add" and len(partners) >= _PARTNERS_MAX:
            name = "remove"
        self.note(name)
        if name == "add":
            self.add(redis)
        else:
            getattr(self, name)(redis, self.rng.choice(partners))

    def note(self, name):
        self.history.append(name)
        print(name, end=" ")  # pytest shows it when the test fails

    def write(self, redis, partner):
        self.state.partners[partner.partner_id] = partner
        self.tokens.update(partner.tokens)
        self.last = redis.put(partner)

    def bury(self, *tokens):
        self.state.dead = [*self.state.dead, *(t for t in tokens if t)][-_DEAD_KEPT:]

    def add(self, redis, token=None):
        self.number += 1
        lists = [self.rng.sample(PREFIXES, self.rng.randint(1, 3)) for _ in range(2)]
        sandbox = lists[1] if self.rng.random() < 0.7 else []
        partner = Partner(f"p{self.number}", production=lists[0], sandbox=sandbox)
        partner.token = token or partner.token
        self.write(redis, partner)

    def change(self, redis, partner):
        """Something that is no matter of access."""
        partner.off_ramp = not partner.off_ramp
        self.write(redis, partner)

    def rotate(self, redis, partner, grace_s=3600):
        self.bury(partner.previous_token)
        partner.rotate(grace_until=time.time() + grace_s)
        self.write(redis, partner)

    def rotate_briefly(self, redis, partner):
        self.rotate(redis, partner, _SHORT_GRACE_S)

    def finish(self, redis, partner):
        """The grace ends now."""
        self.bury(partner.previous_token)
        partner.previous_token = partner.previous_expires_at = None
        self.write(redis, partner)

    revoke_previous = finish

    def revoke_current(self, redis, partner):
        self.bury(partner.token)
        partner.token = new_token()
        self.write(redis, partner)

    def disable(self, redis, partner):
        partner.enabled = False
        self.write(redis, partner)

    def enable(self, redis, partner):
        partner.enabled = True
        self.write(redis, partner)

    def remove(self, redis, partner):
        self.bury(*partner.tokens)
        del self.state.partners[partner.partner_id]
        self.last = redis.remove(partner)

    def ip_add(self, redis, partner):
        name = self.rng.choice(["production", "sandbox"])
        setattr(partner, name, sorted({*getattr(partner, name), self.rng.choice(PREFIXES)}))
        self.write(redis, partner)

    def ip_remove(self, redis, partner):
        name = self.rng.choice(["production", "sandbox"])
        setattr(partner, name, getattr(partner, name)[1:] or (["192.0.2.0/24"] if name == "production" else []))
        self.write(redis, partner)

    def come_back(self, redis, partner):
        """Removed, and there again as it was."""
        redis.remove(partner)
        self.write(redis, partner)

    def hand_over(self, redis, partner):
        """Its token goes to a new partner."""
        token = partner.token
        self.remove(redis, partner)
        self.state.dead.remove(token)
        self.add(redis, token)

    # --- time travel

    def saved(self):
        return copy.deepcopy(self.state)

    def rewind(self, saved):
        """What was done after saved() never happened; its tokens count no more."""
        known = {t for p in saved.partners.values() for t in p.tokens}
        lost = {t for p in self.state.partners.values() for t in p.tokens} - known
        self.state = copy.deepcopy(saved)
        self.bury(*sorted(lost)[:_DEAD_KEPT])

    # --- answers

    def questions(self):
        """Every token that counts, some that do not any more, and one that never did."""
        return [*(t for p in self.state.partners.values() for t in p.tokens), *self.state.dead, new_token()]

    def expected(self, token, address, environment, at):
        """(status, body) at a moment; the body of an error is its code."""
        for partner in self.state.partners.values():
            if token not in partner.tokens:
                continue
            is_current = token == partner.token
            if not partner.enabled or (not is_current and at >= partner.previous_expires_at):
                break
            if not allows(getattr(partner, environment), address):
                return 403, "forbidden_origin"
            ramp, slot = "enabled" if partner.off_ramp else "disabled", "current" if is_current else "previous"
            return 200, [partner.partner_id, partner.widget_id, environment, ramp, slot]
        return 401, "invalid_token"


class Probe:
    """Asks one gateway, on connections that stay open: what changes must count there as well. `identity`: the backend
    tells who the gateway said that it was, see tell_identity(); otherwise being let in is all that is compared."""

    def __init__(self, gateway, identity=True):
        self.gateway, self.identity = gateway, identity
        self.clients = {address: gateway.client(source=address) for address in ADDRESSES}

    def ask(self, token, address, environment):
        fields = f"Authorization: Bearer {token}\r\n"
        got = self.clients[address].ask(request(host=HOSTS[environment], fields=fields))
        if got.status == 200:
            return 200, json.loads(got.body) if self.identity else None
        return got.status, json.loads(got.body)["code"]

    def check(self, model):
        for token in model.questions():
            for address in ADDRESSES:
                for environment in HOSTS:
                    self.check_one(model, token, address, environment)

    def check_one(self, model, token, address, environment):
        """A grace that ends while the question is on its way allows two answers."""
        before = time.time() - _CLOCK_SLACK_S
        got = self.ask(token, address, environment)
        moments = (before, time.time() + _CLOCK_SLACK_S)
        allowed = [model.expected(token, address, environment, at) for at in moments]
        if not self.identity:
            allowed = [(status, None if status == 200 else code) for status, code in allowed]
        assert got in allowed, f"{got} instead of {allowed} for {address} in {environment} after {model.history}"

    def close(self):
        for client in self.clients.values():
            client.close()
