"""Made-up partners, the same for every gateway: two prefixes each, one of them ours; the last one may not call from here."""

import base64
import functools
import hashlib
import uuid

HERE = "127.0.0.1/32"


class Partner:
    def __init__(self, index, local, changed=False):
        digest = hashlib.sha256(b"bench partner %d" % index).digest()
        self.id = f"p{index:07d}"
        self.token = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        self.sha256 = hashlib.sha256(self.token.encode()).hexdigest()
        self.widget = str(uuid.UUID(bytes=digest[16:] if changed else digest[:16], version=4))
        self.own = f"{10 + index // 65536}.{index // 256 % 256}.{index % 256}.0/24"
        # [prefix, name of the network]: gateways that look an address up first need the name
        self.networks = [[HERE, "here"]] * local + [[self.own, self.id]]

    @property
    def authorization(self):
        return f"Bearer {self.token}"

    def values(self):
        return {
            "ID": self.id,
            "TOKEN": self.token,
            "SHA256": self.sha256,
            "WIDGET": self.widget,
            "OWN_CIDR": self.own,
            "CIDRS": " ".join(cidr for cidr, _ in self.networks),
            "CIDRS_JSON": ",".join(f'"{cidr}"' for cidr, _ in self.networks),
        }


@functools.lru_cache(maxsize=4)
def some(count):
    """The first and the last partners of a set of `count`, enough for requests: [callers..., the one shut out]."""
    return [Partner(index, True) for index in range(min(count - 1, 10_000))] + [Partner(count - 1, False)]


def all_of(count, changed=False):
    """Every partner of the set; the last one is shut out. `changed`: the first one has another widget."""
    for index in range(count - 1):
        yield Partner(index, True, changed and index == 0)
    yield Partner(count - 1, False)


def caller(count):
    return some(count)[(count - 1) // 2 % len(some(count)[:-1])]


def outsider(count):
    return some(count)[-1]
