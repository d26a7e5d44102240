"""The partner file through the running gateway: what changes, when, and what never does by accident.

Goal: a change of the file counts for the next request, also of connections that are open already and whose verdict was
kept; a file with faults changes nothing and says where they are; nobody loses access because of a file operation; a
reload, also of ten thousand records, disturbs no request.

Method: files are replaced as editors, deployments and Kubernetes do it. `loaded()` waits for the load that takes a
change over; everything after that must be exact at once. The format of records has its own tests (tests/unit/store).
"""

import json
import os
import re
import signal

import pytest

from support.expect import is_error, is_passed
from support.partner_file import asks, file_of, loaded, text_of
from support.partners import Partner, write_file


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
