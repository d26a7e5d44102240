"""The partner file through the running gateway: what changes, when, and what never does by accident.

Goal: a change of the file counts for the next request, also of connections that are open already and whose verdict was
kept; a file with faults changes nothing and says where they are; nobody loses access because of a file operation; a
reload, also of ten thousand records, disturbs no request.

Method: files are replaced as editors, deployments and Kubernetes do it. `loaded()` waits for the load that takes a
change over; everything after that must be exact at once. The format of records has its own tests (tests/unit/store).
"""

import contextlib
import json
import os
import re
import signal
import threading
import time

import pytest

from support.expect import is_error, is_passed
from support.partners import Partner, digest, write_file
from support.wait import wait_for


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


def knows(gateway, *partners):
    """Tokens of partners that the test writes to the file itself must not be in any output either."""
    gateway.secrets += [token for p in partners for token in p.tokens]


# --- how a file is replaced ------------------------------------------------------------------------------


def test_by_renaming(gateway, backend, partner):
    other = Partner("other")
    client = gateway.client()
    is_error(asks(client, other), "invalid_token", closes=False)
    gateway.update_partners([partner, other])
    is_passed(asks(client, other))
    assert backend.last["x-proof-partner-id"] == "other"
    event = gateway.events("store_loaded")[-1]
    assert (event["partners"], event["changed"], event["removed"]) == ("2", "1", "0")


def test_in_place(gateway, partner):
    other = Partner("other")
    knows(gateway, other)
    with loaded(gateway), open(file_of(gateway), "a", encoding="utf-8") as file:
        file.write(text_of(other))
    client = gateway.client()
    is_passed(asks(client, other))
    is_passed(asks(client, partner))


def test_in_place_and_seen_half_written(gateway, partner):
    """Truncated, then half, then whole: whatever the gateway sees of it, nobody loses access, and in the end the file
    counts."""
    other = Partner("other")
    knows(gateway, other)
    client = gateway.client()
    text = text_of(other, partner)
    with loaded(gateway):
        with open(file_of(gateway), "w", encoding="utf-8") as file:
            with loaded(gateway, False):
                file.write(text[: len(text) // 3])
                file.flush()
            is_passed(asks(client, partner))
            is_error(asks(client, other), "invalid_token")
            file.write(text[len(text) // 3 :])
    is_passed(asks(client, partner))
    is_passed(asks(client, other))


def test_by_swapping_a_link(gateway, partner):
    """As Kubernetes mounts it: partners.ndjson -> ..data/partners.ndjson, and `..data` is swapped for another link."""
    other = Partner("other")
    knows(gateway, other)
    folder = gateway.folder
    for name, partners in (("..1", [partner]), ("..2", [other])):
        (folder / name).mkdir()
        (folder / name / "partners.ndjson").write_text(text_of(*partners))
    client = gateway.client()
    with loaded(gateway):
        os.symlink("..1", folder / "..data")
        os.symlink("..data/partners.ndjson", folder / "partners.link")
        os.rename(folder / "partners.link", file_of(gateway))
        gateway.signal(signal.SIGHUP)  # the content is the same: without it there would be nothing to load
    is_passed(asks(client, partner))
    with loaded(gateway):
        os.symlink("..2", folder / "..data.new")
        os.rename(folder / "..data.new", folder / "..data")
    is_passed(asks(client, other))
    is_error(asks(client, partner), "invalid_token")


def test_sighup_reads_what_the_watch_cannot_see(gateway, partner, tmp_path):
    """The file is a link into another directory; nothing happens in the one that is watched."""
    other = Partner("other")
    knows(gateway, other)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "real.ndjson").write_text(text_of(partner))
    with loaded(gateway):
        os.symlink(elsewhere / "real.ndjson", gateway.folder / "link")
        os.rename(gateway.folder / "link", file_of(gateway))
        gateway.signal(signal.SIGHUP)
    write_file(elsewhere / "real.ndjson", [partner, other])
    with loaded(gateway):
        gateway.signal(signal.SIGHUP)
    is_passed(asks(gateway.client(), other))


def test_sighup_reads_a_file_that_has_not_changed(gateway, partner):
    client = gateway.client()
    is_passed(asks(client, partner))
    for _ in range(3):
        with loaded(gateway):
            gateway.signal(signal.SIGHUP)
    assert gateway.events("store_loaded")[-1]["changed"] == "0"
    is_passed(asks(client, partner))


def test_other_files_in_the_directory_do_not_count(gateway, partner):
    """They wake the watch; the partner file is looked at, has not changed, and is not loaded again."""
    before = gateway.metrics()["proofgw_store_loads_total"]
    for n in range(20):
        (gateway.folder / f"note{n}").write_text("x")
    other = Partner("other")
    gateway.update_partners([partner, other])
    assert gateway.metrics()["proofgw_store_loads_total"] == before + 1


# --- faults ----------------------------------------------------------------------------------------------

FAULTS = {
    "no JSON": (lambda text: text + "{oops\n", ":2:2", None),
    "unknown key": (lambda text: text.replace('"widget_id"', '"widgetid"'), ":1:", "did you mean"),
    "missing key": (lambda text: re.sub('"contact": "[^"]*", ', "", text), ":1", "contact"),
    "host bits": (lambda text: text.replace('"127.0.0.1"', '"10.1.2.3/24"'), ":1:", "write 10.1.2.0/24"),
    "id twice": (lambda text: text + text, ":2", "line 1"),
    "not UTF-8": (lambda text: text.replace("Company", "Comp\udcff"), ":1:", None),
    "wrong type": (lambda text: text.replace('"enabled": true', '"enabled": 1'), ":1:", "enabled"),
}


@pytest.mark.parametrize("spoil, place, words", FAULTS.values(), ids=FAULTS)
def test_a_file_with_a_fault_changes_nothing_and_says_where(gateway, partner, spoil, place, words):
    client = gateway.client()
    text = spoil(text_of(partner))
    assert text != text_of(partner)
    with loaded(gateway, False):
        file_of(gateway).write_bytes(text.encode("utf-8", "surrogateescape"))
    is_passed(asks(client, partner))
    event = gateway.wait_event("store_record_error")[0]
    assert f"partners.ndjson{place}" in event["at"], event
    assert words is None or words in event["problem"], event
    event = gateway.wait_event("store_load_failed")[0]
    assert event["partners_kept"] == "1" and "partners.ndjson" in event["error"]

    scrape = gateway.metrics()
    assert scrape["proofgw_store_up"] == 0 and scrape["proofgw_ready"] == 1
    status, page = gateway.admin("/readyz")
    page = json.loads(page)
    assert status == 200 and page["ready"] and page["store_up"] is False
    assert "partners.ndjson" in page["store_error"]

    gateway.update_partners([partner])
    page = json.loads(gateway.admin("/readyz")[1])
    assert page["store_up"] is True and page["store_error"] == ""
    assert gateway.metrics()["proofgw_store_up"] == 1


def test_every_fault_of_a_file_is_named(gateway, partner):
    """Up to twenty of them; the rest is counted."""
    with loaded(gateway, False):
        lines = [text_of(Partner(f"p{n}")).replace('"enabled"', '"enabld"') for n in range(30)]
        file_of(gateway).write_text("".join(lines))
    events = gateway.wait_event("store_record_error", 21)
    assert [e["at"].split("partners.ndjson:")[1].split(":")[0] for e in events[:20]] == [str(n) for n in range(1, 21)]
    assert events[20]["and_more"] == "10"
    assert gateway.metrics()["proofgw_store_records_rejected"] == 30


def test_two_partners_with_one_token(gateway, partner):
    """Nobody can say whose request that would be: the file is refused."""
    twin = Partner("twin", token=partner.token)
    with loaded(gateway, False):
        write_file(file_of(gateway), [partner, twin])
    is_passed(asks(gateway.client(), partner))
    assert gateway.metrics()["proofgw_policy_partners"] == 1


@pytest.mark.parametrize("how", ["deleted", "empty", "a directory", "unreadable"])
def test_nobody_loses_access_because_of_a_file_operation(gateway, partner, how):
    client = gateway.client()
    is_passed(asks(client, partner))
    path = file_of(gateway)
    if how == "unreadable" and os.getuid() == 0:
        how = "a directory"  # root reads everything
    with loaded(gateway, False):
        if how == "deleted":
            path.unlink()
        elif how == "empty":
            path.write_text("")
        elif how == "unreadable":
            path.chmod(0)
        else:
            path.unlink()
            path.mkdir()
    is_passed(asks(client, partner))
    assert gateway.metrics()["proofgw_policy_partners"] == 1
    assert gateway.admin("/readyz")[0] == 200
    if path.is_dir():
        path.rmdir()
    gateway.update_partners([partner, Partner("other")])
    is_passed(asks(client, partner))


@pytest.mark.parametrize("begin", ["missing", "spoilt"])
def test_without_partner_data_nobody_is_turned_away_wrongly(proofgw, backend, partner, begin):
    """503 and not ready, never a 401; as soon as there is a file, also for a connection that was open before."""
    name = {"missing": "late.ndjson", "spoilt": "gateway.yaml"}[begin]
    gateway = proofgw(ready=False, store={"file": name})
    gateway.wait_event("store_load_failed")
    client = gateway.client()
    got = asks(client, partner)
    is_error(got, "unavailable", closes=False)
    assert gateway.line_of(got)["deny"] == "no_policy"
    is_error(client.exchange(), "unavailable", closes=False)
    status, page = gateway.admin("/readyz")
    assert status == 503 and json.loads(page)["failed"] == ["partner_data"]
    assert gateway.admin("/healthz")[0] == 200
    assert gateway.metrics()["proofgw_ready"] == 0
    assert not backend.connections

    write_file(gateway.folder / name, [partner])
    gateway.wait_event("store_loaded")
    is_passed(asks(client, partner))
    is_error(client.exchange(), "missing_token", closes=False)
    assert gateway.admin("/readyz")[0] == 200


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
