"""Changes of partners while they are connected: each counts for the next request, and disturbs nobody else."""

import json
import threading
import time

import pytest

from support.expect import is_error, is_passed
from support.partner_file import asks, file_of, loaded, text_of
from support.partners import Partner, digest
from support.wait import wait_for


# --- each change counts for the next request of an open connection ---------------------------------------


def cached(gateway, client, partner):
    """The connection's verdict is kept: the last of three requests was decided by it."""
    before = gateway.metrics()["proofgw_verdict_cache_hits_total"]
    for _ in range(3):
        is_passed(asks(client, partner))
    assert gateway.metrics()["proofgw_verdict_cache_hits_total"] >= before + 2


@pytest.mark.parametrize("workers", [1, 4])
def test_a_partner_that_is_removed(proofgw, backend, partner, workers):
    gateway = proofgw(workers=workers)
    clients = [gateway.client() for _ in range(8)]
    for client in clients:
        cached(gateway, client, partner)
    n = len(backend.requests)
    gateway.update_partners([Partner("other")])
    for client in clients:
        got = asks(client, partner)
        is_error(got, "invalid_token", closes=False)
        assert gateway.line_of(got)["deny"] == "token_unknown"
    assert len(backend.requests) == n
    gateway.update_partners([partner])
    for client in clients:
        is_passed(asks(client, partner))


def test_a_partner_that_is_disabled(gateway, backend, partner):
    client = gateway.client()
    cached(gateway, client, partner)
    n = len(backend.requests)
    partner.enabled = False
    gateway.update_partners([partner])
    got = asks(client, partner)
    is_error(got, "invalid_token", closes=False)
    line = gateway.line_of(got)
    assert line["deny"] == "partner_disabled"
    assert len(backend.requests) == n
    partner.enabled = True
    gateway.update_partners([partner])
    is_passed(asks(client, partner))


def test_an_address_that_is_removed(gateway, backend, partner):
    client = gateway.client()
    cached(gateway, client, partner)
    n = len(backend.requests)
    partner.production = ["192.0.2.0/24"]
    gateway.update_partners([partner])
    got = asks(client, partner)
    is_error(got, "forbidden_origin", closes=False)
    assert gateway.line_of(got)["partner_id"] == "acme"
    assert len(backend.requests) == n
    partner.production = ["127.0.0.0/8"]
    gateway.update_partners([partner])
    is_passed(asks(client, partner))


def test_the_lists_of_the_environments_change_independently(gateway, partner):
    partner.sandbox = ["127.0.0.1"]
    gateway.update_partners([partner])
    client = gateway.client()
    is_passed(asks(client, partner))
    is_passed(asks(client, partner, host="sandbox.test"))
    partner.sandbox = []
    gateway.update_partners([partner])
    is_passed(asks(client, partner))
    is_error(asks(client, partner, host="sandbox.test"), "forbidden_origin")
    partner.sandbox, partner.production = ["127.0.0.1"], ["192.0.2.1"]
    gateway.update_partners([partner])
    is_error(asks(client, partner), "forbidden_origin")
    is_passed(asks(client, partner, host="sandbox.test"))


def test_what_the_backend_is_told_changes_too(gateway, backend, partner):
    client = gateway.client()
    cached(gateway, client, partner)
    assert backend.last["x-proof-off-ramp"] == "disabled"
    partner.off_ramp = True
    partner.widget_id = "0190c5b2-7a64-7000-8000-3f2a9c1d5e77"
    gateway.update_partners([partner])
    is_passed(asks(client, partner))
    assert backend.last["x-proof-off-ramp"] == "enabled"
    assert backend.last["x-proof-widget-id"] == partner.widget_id


def test_a_token_that_moves_to_another_partner(gateway, backend, partner):
    client = gateway.client()
    cached(gateway, client, partner)
    heir = Partner("heir", token=partner.token)
    gateway.update_partners([heir])
    is_passed(asks(client, partner))
    assert backend.last["x-proof-partner-id"] == "heir"


def test_a_partner_that_leaves_and_comes_back_under_load_of_others(gateway, backend, partner):
    """The place of a removed partner is used again by another one; a kept verdict must not follow it."""
    client = gateway.client()
    cached(gateway, client, partner)
    strangers = [Partner(f"stranger{n}", production=["192.0.2.1"]) for n in range(10)]
    gateway.update_partners(strangers)
    is_error(asks(client, partner), "invalid_token", closes=False)
    gateway.update_partners([*strangers, partner])
    is_passed(asks(client, partner))
    assert backend.last["x-proof-partner-id"] == "acme"
    is_error(asks(client, strangers[0]), "forbidden_origin", closes=False)


# --- rotation --------------------------------------------------------------------------------------------


def bearer(token):
    return f"Authorization: Bearer {token}\r\n"


def test_both_tokens_work_during_the_grace_period(gateway, backend, partner):
    """On one connection, in turn; the backend and the log are told which."""
    client = gateway.client()
    old = partner.token
    cached(gateway, client, partner)
    partner.rotate(time.time() + 3600)
    gateway.update_partners([partner])
    for _ in range(3):
        for token, slot in ((old, "previous"), (partner.token, "current")):
            got = is_passed(client.exchange(fields=bearer(token)))
            assert backend.last["x-proof-token-slot"] == slot
            assert gateway.line_of(got)["token_slot"] == slot


def test_the_grace_period_ends_while_a_connection_is_open(gateway, backend, partner):
    """Valid before the instant and not at it, although the connection keeps its verdict: no answer is wrong by a
    millisecond on the clock that both sides share."""
    client = gateway.client()
    old = partner.token
    end = (int(time.time() * 1000) + 1500) / 1000
    partner.rotate(end)
    gateway.update_partners([partner])
    answers = []
    while not answers or answers[-1][1].status == 200:
        before = time.time()
        got = client.exchange(fields=bearer(old))
        answers.append((before, got, time.time()))
        assert time.time() < end + 5
    for before, got, _ in answers[:-1]:
        assert before < end
        is_passed(got)
    _, got, after = answers[-1]
    assert after >= end
    is_error(got, "invalid_token", closes=False)
    line = gateway.line_of(got)
    assert (line["deny"], line["token_slot"]) == ("token_expired", "previous")
    assert len(answers) > 2, "the grace period was over before the first request"
    is_passed(asks(client, partner))


def test_the_grace_period_is_ended_early(gateway, partner):
    client = gateway.client()
    old = partner.token
    partner.rotate(time.time() + 3600)
    gateway.update_partners([partner])
    is_passed(client.exchange(fields=bearer(old)))
    partner.previous_token = None
    gateway.update_partners([partner])
    got = client.exchange(fields=bearer(old))
    is_error(got, "invalid_token", closes=False)
    assert gateway.line_of(got)["deny"] == "token_unknown"
    is_passed(asks(client, partner))


def test_two_rotations(gateway, partner):
    """The token before the previous one is nobody's."""
    client = gateway.client()
    tokens = [partner.token]
    for _ in range(2):
        partner.rotate(time.time() + 3600)
        tokens.append(partner.token)
        gateway.update_partners([partner])
    is_error(client.exchange(fields=bearer(tokens[0])), "invalid_token", closes=False)
    is_passed(client.exchange(fields=bearer(tokens[1])))
    is_passed(client.exchange(fields=bearer(tokens[2])))


# --- many partners, much traffic -------------------------------------------------------------------------


def crowd(n):
    """Records of `n` partners as lines, and their tokens. Made without Partner, which would take too long."""
    lines, tokens = [], []
    for i in range(n):
        token = f"pt_canary_crowd_{i:08d}"
        tokens.append(token)
        lines.append(
            json.dumps(
                {
                    "partner_id": f"crowd-{i}",
                    "company": f"Crowd {i}",
                    "contact": f"ops@crowd{i}.example",
                    "client_token_sha256": digest(token),
                    "widget_id": f"0190c5b2-7a64-7000-8000-{i:012x}",
                    "production_cidrs": ["127.0.0.1", f"10.{i // 256}.{i % 256}.0/24", f"2001:db8:{i:x}::/48"],
                }
            )
            + "\n"
        )
    return lines, tokens


def test_ten_thousand_partners(gateway, backend):
    n = 10_000
    lines, tokens = crowd(n)
    gateway.secrets.append("pt_canary_crowd_")
    with loaded(gateway):
        file_of(gateway).write_text("".join(lines))
    scrape = gateway.metrics()
    assert scrape["proofgw_policy_partners"] == n == scrape["proofgw_policy_tokens"]
    client = gateway.client()
    for i in (0, 1, 4711, n - 1):
        is_passed(client.exchange(fields=bearer(tokens[i])))
        assert backend.last["x-proof-partner-id"] == f"crowd-{i}"
    lines[4711] = lines[4711].replace('"127.0.0.1", ', "")
    with loaded(gateway):
        file_of(gateway).write_text("".join(lines[1:]))
    event = gateway.events("store_loaded")[-1]
    assert (event["partners"], event["changed"], event["removed"]) == (str(n - 1), "1", "1")
    is_error(client.exchange(fields=bearer(tokens[0])), "invalid_token", closes=False)
    is_passed(client.exchange(fields=bearer(tokens[1])))
    is_error(client.exchange(fields=bearer(tokens[4711])), "forbidden_origin", closes=False)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_reload_disturbs_no_request(proofgw, backend, partner, workers):
    """Ten thousand other partners come, change and go while eight connections ask without a pause."""
    gateway = proofgw(workers=workers)
    gateway.secrets.append("pt_canary_crowd_")
    lines, _ = crowd(10_000)
    over = threading.Event()
    counts, wrong = [0] * 8, []

    def ask_on(index, client):
        try:
            while not over.is_set():
                got = asks(client, partner, target=f"/widget/{index}")
                if (got.status, got.body) != (200, b"ok"):
                    wrong.append((got.status, got.body))
                counts[index] += 1
        except Exception as e:
            wrong.append(e)

    threads = [threading.Thread(target=ask_on, args=(i, gateway.client())) for i in range(8)]
    for thread in threads:
        thread.start()
    own = text_of(partner)
    contents = [lines, lines[::2], [line.replace("10.", "11.") for line in lines], [], lines]
    for content in contents:
        seen = sum(counts)
        with loaded(gateway):
            new = gateway.folder / "new"
            new.write_text(own + "".join(content))
            new.rename(file_of(gateway))
        wait_for(lambda: sum(counts) > seen + 16 or wrong, "requests after the load")
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]
    assert min(counts) > 0
    assert gateway.metrics()["proofgw_policy_partners"] == 10_001
    assert gateway.metrics()("proofgw_auth_denied_total") == 0


def test_memory_of_replaced_partners_is_given_back(gateway, partner):
    """The same partners over and over: what they held is freed once no worker looks at it."""
    gateway.secrets.append("pt_canary_crowd_")
    lines, _ = crowd(1000)
    variants = ["".join(lines), "".join(lines).replace("10.", "11.")]
    sizes = []
    client = gateway.client()
    for n in range(6):
        with loaded(gateway):
            file_of(gateway).write_text(text_of(partner) + variants[n % 2])
        is_passed(asks(client, partner))
        gateway.wait_metric("proofgw_policy_limbo_bytes", 0)
        sizes.append(gateway.metrics()["proofgw_policy_bytes"])
    assert sizes[2:4] == sizes[4:6], sizes
