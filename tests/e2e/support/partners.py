"""Partners for tests: records of the partner file, and the tokens that only the test knows in clear."""

import hashlib
import json
import secrets
import uuid
from dataclasses import dataclass, field

LOOPBACK = ["127.0.0.1", "::1"]


def new_token():
    """A token as Proof issues them; the harness looks for it in everything that the gateway writes."""
    return "pt_canary_" + secrets.token_hex(24)


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def rfc3339(unix_seconds):
    import datetime

    moment = datetime.datetime.fromtimestamp(unix_seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


@dataclass
class Partner:
    partner_id: str = "acme"
    production: list = field(default_factory=lambda: list(LOOPBACK))
    sandbox: list = field(default_factory=list)
    token: str = field(default_factory=new_token)
    previous_token: str = None
    previous_expires_at: float = None  # Unix seconds
    widget_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    off_ramp: bool = False
    enabled: bool = True
    client_certificates: list = field(default_factory=list)  # SHA-256, hexadecimal

    @property
    def authorization(self):
        """The header line."""
        return f"Authorization: Bearer {self.token}\r\n"

    @property
    def tokens(self):
        return [t for t in (self.token, self.previous_token) if t]

    def rotate(self, grace_until):
        """A new token; the one until now becomes the previous one, valid until `grace_until` (Unix seconds)."""
        self.previous_token, self.token, self.previous_expires_at = self.token, new_token(), grace_until

    def record(self):
        record = {
            "partner_id": self.partner_id,
            "company": f"Company {self.partner_id}",
            "contact": f"ops@{self.partner_id}.example",
            "client_token_sha256": digest(self.token),
            "widget_id": self.widget_id,
            "off_ramp": self.off_ramp,
            "production_cidrs": self.production,
            "sandbox_cidrs": self.sandbox,
            "enabled": self.enabled,
        }
        if self.client_certificates:
            record["client_certificate_sha256"] = self.client_certificates
        if self.previous_token:
            record["previous_token_sha256"] = digest(self.previous_token)
            record["previous_token_expires_at"] = rfc3339(self.previous_expires_at)
        return record


def write_file(path, partners):
    """Replaces the partner file as an editor or a deployment does: whole, by renaming."""
    lines = "".join(json.dumps(p.record()) + "\n" for p in partners)
    new = path.with_name(path.name + ".new")
    new.write_text(lines, encoding="utf-8")
    new.rename(path)
