"""proofctl, the operator's command: what it changes counts at once on a running gateway, it asks before it cuts access,
and what it refuses changes nothing.

Method: the real program on real partner files, with a real gateway where access is concerned, on a pseudo-terminal where
a question is asked. After every run the harness (support/proofctl.py) looks for tokens and digests where they must not be.
"""

import json
import re
import subprocess
import time
import uuid
from datetime import datetime, timezone

import pytest

from support.client import Stopwatch
from support.expect import is_error, is_passed
from support.gateway import SANDBOX_HOST
from support.partners import Partner, digest, write_file
from support.proofctl import PROOFCTL, Proofctl, fingerprint, with_partners
from support.wait import DEADLINE_S, wait_for

OTHER = "127.0.0.2"  # a second address on loopback


@pytest.fixture
def ctl(tmp_path):
    return with_partners(tmp_path)


@pytest.fixture
def live(proofgw):
    """A running gateway with partner "acme", and proofctl on its partner file."""
    partner = Partner("acme", production=["127.0.0.1"])
    gateway = proofgw([partner, Partner("other")])
    ctl = Proofctl(gateway.folder / "partners.ndjson")
    ctl.gateway, ctl.partner = gateway, partner
    yield ctl
    gateway.secrets += ctl.tokens


def ask(gateway, token, source=None, **kwargs):
    """One request on a connection of its own."""
    client = gateway.client(source=source)
    answer = client.exchange(fields=f"Authorization: Bearer {token}\r\n", **kwargs)
    client.close()
    return answer


def wait_status(gateway, status, token, source=None, **kwargs):
    """Asks until the answer has this status; returns it."""

    def asked():
        answer = ask(gateway, token, source, **kwargs)
        return answer if answer.status == status else None

    return wait_for(asked, f"an answer {status}")


# --- effect on a running gateway -------------------------------------------------------------------------


def test_an_added_partner_gets_in_within_a_second(live):
    took = []
    for i in range(3):  # the best of three: a busy machine is not what is tested
        loads = live.gateway.metrics()["proofgw_store_loads_total"]
        added = live.add("--id", f"new{i}")
        watch = Stopwatch()
        # No request before it is loaded: its log line would be a change in the folder that the gateway waits for to rest.
        live.gateway.wait_metric("proofgw_store_loads_total", loads + 1)
        is_passed(ask(live.gateway, added["client_token"]))
        took.append(watch.seconds())
    assert min(took) < 1.0, took


def test_both_lists_of_an_added_partner_count(live):
    added = live.add("--sandbox-ip", OTHER)
    is_passed(wait_status(live.gateway, 200, added["client_token"]))
    is_passed(ask(live.gateway, added["client_token"], OTHER, host=SANDBOX_HOST))
    is_error(ask(live.gateway, added["client_token"], OTHER), "forbidden_origin")
    is_error(ask(live.gateway, added["client_token"], host=SANDBOX_HOST), "forbidden_origin")


def test_after_a_rotation_both_tokens_work_until_the_grace_is_finished(live, backend):
    rotated = live("token", "rotate", "acme", "--grace", "1h", "--json").json
    is_passed(wait_status(live.gateway, 200, rotated["client_token"]))
    assert backend.last["x-proof-token-slot"] == "current"
    is_passed(ask(live.gateway, live.partner.token))
    assert backend.last["x-proof-token-slot"] == "previous"

    live("token", "finish", "acme", "--yes")
    is_error(wait_status(live.gateway, 401, live.partner.token), "invalid_token")
    is_passed(ask(live.gateway, rotated["client_token"]))


def test_the_grace_period_ends_by_itself_when_it_said(live):
    rotated = live("token", "rotate", "acme", "--grace", "2s", "--json").json
    end = datetime.strptime(rotated["previous_token"]["expires_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    is_passed(wait_status(live.gateway, 200, rotated["client_token"]))
    wait_status(live.gateway, 401, live.partner.token)
    assert time.time() >= end.timestamp()
    is_passed(ask(live.gateway, rotated["client_token"]))


def test_revoking_the_current_token_leaves_the_previous_one(live):
    rotated = live("token", "rotate", "acme", "--grace", "1h", "--json").json
    live("token", "revoke", "acme", "--slot", "current", "--yes")
    wait_status(live.gateway, 401, rotated["client_token"])
    is_passed(ask(live.gateway, live.partner.token))

    again = live("token", "rotate", "acme", "--json").json
    is_passed(wait_status(live.gateway, 200, again["client_token"]))
    is_passed(ask(live.gateway, live.partner.token))
    is_error(ask(live.gateway, rotated["client_token"]), "invalid_token")

    live("token", "revoke", "acme", "--slot", "previous", "--yes")
    wait_status(live.gateway, 401, live.partner.token)
    is_passed(ask(live.gateway, again["client_token"]))


def test_a_disabled_partner_is_out_until_it_is_enabled(live):
    is_passed(ask(live.gateway, live.partner.token))
    live("partner", "disable", "acme", "--yes")
    is_error(wait_status(live.gateway, 401, live.partner.token), "invalid_token")
    live("partner", "enable", "acme")
    is_passed(wait_status(live.gateway, 200, live.partner.token))


def test_an_address_counts_from_when_it_is_added_to_when_it_is_removed(live):
    is_error(ask(live.gateway, live.partner.token, OTHER), "forbidden_origin")
    live("ip", "add", "acme", OTHER)
    is_passed(wait_status(live.gateway, 200, live.partner.token, OTHER))
    live("ip", "remove", "acme", OTHER, "--yes")
    is_error(wait_status(live.gateway, 403, live.partner.token, OTHER), "forbidden_origin")


def test_a_removed_partner_is_out(live):
    is_passed(ask(live.gateway, live.partner.token))
    live("partner", "remove", "acme", "--yes")
    is_error(wait_status(live.gateway, 401, live.partner.token), "invalid_token")


def test_off_ramp_reaches_the_backend(live, backend):
    live("partner", "set", "acme", "--off-ramp", "on")

    def is_on():
        is_passed(ask(live.gateway, live.partner.token))
        return backend.last["x-proof-off-ramp"] == "enabled"

    wait_for(is_on, "off-ramp enabled")


def test_the_configuration_names_the_file_and_the_base_urls(live):
    command = [PROOFCTL, "-c", live.gateway.config_file, "partner", "add", "--company", "C", "--contact", "a@b.example"]
    done = subprocess.run([*command, "--ip", "127.0.0.1", "--json"], capture_output=True, text=True, check=True)
    added = json.loads(done.stdout)
    live.tokens.append(added["client_token"])
    assert added["base_urls"] == {"production": ["https://api.test"], "sandbox": ["https://sandbox.test"]}
    assert "https://api.test/widget/" in added["curl"] and added["client_token"] not in added["curl"]
    is_passed(wait_status(live.gateway, 200, added["client_token"]))


# --- what the commands print and store -------------------------------------------------------------------


def test_add_prints_everything_once_and_stores_the_digest(ctl):
    run = ctl("partner", "add", "--company", "Acme Exchange GmbH", "--contact", "ops@acme.example", "--ip", "192.0.2.9",
              "--ip", "2001:db8::/48", "--sandbox-ip", "203.0.113.1", "--off-ramp", "--webhook", "https://a.example/h")  # fmt: skip
    shown = dict(line.split(None, 1) for line in run.out.splitlines()[:3])
    record = ctl.record(shown["partner_id"])
    assert re.fullmatch(r"acme-exchange-gmbh-[2-9a-z]{4}", shown["partner_id"])
    assert record == {
        "partner_id": shown["partner_id"],
        "company": "Acme Exchange GmbH",
        "contact": "ops@acme.example",
        "client_token_sha256": digest(shown["client_token"]),
        "widget_id": str(uuid.UUID(shown["widget_id"], version=4)),
        "off_ramp": True,
        "webhook_url": "https://a.example/h",
        "production_cidrs": ["192.0.2.9", "2001:db8::/48"],
        "sandbox_cidrs": ["203.0.113.1"],
        "enabled": True,
    }


def test_client_certificates_are_set_and_taken_away(ctl):
    """Asked for first: they cut off whoever shows none."""
    one, two = ctl.certificates = ["1" * 64, "a" * 64]
    ctl("partner", "set", "acme", "--client-cert-sha256", one, code=1)
    ctl("partner", "set", "acme", "--client-cert-sha256", one, "--client-cert-sha256", two, "--yes")
    assert ctl("partner", "show", "acme", "--json").json["client_certificate_sha256"] == [one, two]
    assert one in ctl("partner", "show", "acme").out
    ctl("partner", "set", "acme", "--client-cert-sha256", "A" * 64, "--yes", code=1)
    for both in (("none", two), (two, "none")):
        ctl("partner", "set", "acme", *(w for v in both for w in ("--client-cert-sha256", v)), "--yes", code=2)
    ctl("partner", "set", "acme", "--client-cert-sha256", "none")
    assert ctl("partner", "show", "acme", "--json").json["client_certificate_sha256"] == []


def test_show_and_list_give_the_record_without_digests(ctl):
    shown = ctl("partner", "show", "acme", "--json").json
    assert shown == {
        "partner_id": "acme",
        "company": "Company acme",
        "contact": "ops@acme.example",
        "enabled": True,
        "widget_id": ctl.partner.widget_id,
        "off_ramp": False,
        "webhook_url": None,
        "production_cidrs": ["192.0.2.7", "198.51.100.0/24"],
        "sandbox_cidrs": ["203.0.113.16/28"],
        "current_token": {"fingerprint": fingerprint(ctl.partner.token)},
        "previous_token": None,
        "client_certificate_sha256": [],
    }
    listed = ctl("partner", "list", "--json").json
    assert listed[0] == shown and len(listed) == 2
    for text in (ctl("partner", "show", "acme").out, ctl("partner", "list").out):
        assert "acme" in text and "Company acme" in text


def test_set_changes_what_is_named_and_nothing_else(ctl):
    before = ctl.record("acme")
    ctl("partner", "set", "acme", "--contact", "new@acme.example", "--webhook", "https://a.example/h", "--off-ramp", "on")
    changed = {**before, "contact": "new@acme.example", "webhook_url": "https://a.example/h", "off_ramp": True}
    assert ctl.record("acme") == changed
    ctl("partner", "set", "acme", "--webhook", "none")
    del changed["webhook_url"]
    assert ctl.record("acme") == changed


def test_ip_list_shows_both_lists_or_one(ctl):
    assert ctl("ip", "list", "acme").out.split() == [
        "production", "192.0.2.7", "production", "198.51.100.0/24", "sandbox", "203.0.113.16/28",
    ]  # fmt: skip
    assert ctl("ip", "list", "acme", "--env", "sandbox", "--json").json == {"sandbox": ["203.0.113.16/28"]}


def test_several_addresses_are_added_and_removed_together(ctl):
    ctl("ip", "add", "acme", "192.0.2.8", "2001:db8::/48")
    assert ctl.record("acme")["production_cidrs"] == ["192.0.2.7", "198.51.100.0/24", "192.0.2.8", "2001:db8::/48"]
    ctl("ip", "remove", "acme", "198.51.100.0/24", "2001:0db8::/48", "192.0.2.7/32", "--yes")
    assert ctl.record("acme")["production_cidrs"] == ["192.0.2.8"]
    ctl("ip", "remove", "acme", "203.0.113.16/28", "--env", "sandbox", "--yes")
    assert ctl.record("acme")["sandbox_cidrs"] == []


def test_removing_a_covered_address_says_who_still_lets_it_in(ctl):
    ctl("ip", "add", "acme", "198.51.100.9")
    run = ctl("ip", "remove", "acme", "198.51.100.9", "--yes")
    assert "198.51.100.9 may still call, because 198.51.100.0/24 is on the list" in run.sentence


def test_rotate_says_when_the_old_token_ends(ctl):
    before = time.time()
    run = ctl("token", "rotate", "acme", "--grace", "24h")
    record = ctl.record("acme")
    end = re.search(r"valid until (\S+) \((\w+ \d+ \w+ \d{4}, [\d:]+ UTC), in 24 hours\)", run.out)
    assert record["previous_token_expires_at"] == end[1]
    moment = datetime.strptime(end[1], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert moment.strftime("%A %-d %B %Y, %H:%M:%S UTC") == end[2]
    assert 0 <= moment.timestamp() - before - 86400 < DEADLINE_S
    assert record["client_token_sha256"] == digest(ctl.tokens[-1])
    assert record["previous_token_sha256"] == digest(ctl.partner.token)


def test_rotate_without_grace_keeps_no_old_token(ctl):
    ctl("token", "rotate", "acme", "--grace", "0s", "--yes")
    assert "previous_token_sha256" not in ctl.record("acme")
    assert ctl.record("acme")["client_token_sha256"] == digest(ctl.tokens[-1])


def test_show_says_that_the_current_token_was_revoked(ctl):
    ctl("token", "revoke", "acme", "--slot", "current", "--yes")
    assert ctl("partner", "show", "acme", "--json").json["current_token"] is None
    assert "revoked" in ctl("partner", "show", "acme").out
    ctl("token", "rotate", "acme")  # a token that nobody has is no previous one
    assert "previous_token_sha256" not in ctl.record("acme")


def test_two_revoked_partners_may_stand_in_one_file(ctl):
    ctl("token", "revoke", "acme", "--slot", "current", "--yes")
    ctl("token", "revoke", "beta", "--slot", "current", "--yes")
    ctl("verify")


@pytest.mark.parametrize(
    "arguments",
    [
        ("partner", "enable", "acme"),
        ("partner", "set", "acme", "--off-ramp", "off"),
        ("partner", "set", "acme", "--webhook", "none"),
        ("partner", "set", "acme", "--company", "Company acme"),
    ],
)
def test_what_is_so_already_is_not_changed(ctl, arguments):
    before = ctl.state()
    assert ctl(*arguments).out == "acme: nothing to change\n"
    assert ctl.state() == before


def test_verify_counts_and_warns(ctl):
    ctl("ip", "add", "acme", "10.0.0.0/9")
    run = ctl("verify")
    assert "partners 2, enabled 2" in run.out
    assert "10.0.0.0/9 is very wide" in run.sentence
    counted = ctl("verify", "--json").json
    assert (counted["partners"], counted["production_prefixes"], counted["sandbox_prefixes"]) == (2, 5, 1)
    assert len(counted["warnings"]) == 1


def test_every_result_parses_as_json(ctl, tmp_path):
    ctl.add("--id", "gamma")
    more = tmp_path / "more.ndjson"
    write_file(more, [Partner("delta")])
    for arguments in [
        ("partner", "list"),
        ("partner", "show", "acme"),
        ("partner", "set", "acme", "--off-ramp", "on"),
        ("partner", "disable", "acme", "--yes"),
        ("partner", "enable", "acme"),
        ("ip", "add", "acme", "192.0.2.8"),
        ("ip", "remove", "acme", "192.0.2.8", "--yes"),
        ("ip", "list", "acme"),
        ("token", "rotate", "acme"),
        ("token", "finish", "acme", "--yes"),
        ("token", "revoke", "acme", "--slot", "current", "--yes"),
        ("import", more, "--dry-run"),
        ("import", more),
        ("verify",),
        ("audit",),
        ("partner", "remove", "gamma", "--yes"),
    ]:
        run = ctl(*arguments, "--json")
        assert isinstance(run.json, (dict, list)) and run.err == "", run


def test_failures_are_json_too(ctl):
    run = ctl.refused("partner", "show", "nobody", "--json")
    said = json.loads(run.err)
    assert said["error"] == "failed" and len(said["messages"]) == 1
    assert json.loads(ctl.refused("partner", "shw", "--json", code=2).err)["error"] == "usage"
