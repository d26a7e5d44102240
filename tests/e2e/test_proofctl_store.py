"""proofctl and its files: nothing else is changed, nothing is half done, nothing is lost between operators, everything is
on record.

Method: the real program on partner files of every kind, with limits and rights that make it fail on the way, and several
of them at once. Every refused run is compared with the state before it, byte for byte.
"""

import fcntl
import json
import os
import re
import resource
import shutil
import stat
import struct
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path

import pytest

from support.partners import Partner, digest, write_file
from support.proofctl import ENVIRONMENT, TOKEN, Proofctl, fingerprint, with_partners
from support.wait import DEADLINE_S

ADD = ("partner", "add", "--company", "Acme", "--contact", "ops@acme.example")


@pytest.fixture
def ctl(tmp_path):
    return with_partners(tmp_path)


# --- the file --------------------------------------------------------------------------------------------


def test_the_first_partner_makes_the_file(tmp_path):
    ctl = Proofctl(tmp_path / "new.ndjson")
    ctl("partner", "list", code=1)
    assert not ctl.store.exists()
    run = ctl("partner", "add", "--company", "A", "--contact", "a@b.example", "--ip", "192.0.2.9", "--id", "first")
    assert run.sentence.endswith("did not exist and was made")
    assert [r["partner_id"] for r in ctl.records()] == ["first"]
    assert stat.S_IMODE(ctl.store.stat().st_mode) == 0o640


def test_an_import_makes_the_file_and_its_dry_run_does_not_need_it(ctl, tmp_path):
    more = tmp_path / "more.ndjson"
    write_file(more, [Partner("one"), Partner("two")])
    new = Proofctl(tmp_path / "new.ndjson")
    assert new("import", more, "--dry-run").out.splitlines()[-1] == "dry run: 2 added, 0 changed, 0 unchanged"
    assert not new.store.exists()
    assert new("import", more).out.splitlines()[-1] == "2 added, 0 changed, 0 unchanged"


def test_lines_that_are_not_concerned_stay_as_they_are(ctl):
    odd = [json.dumps(Partner(f"p{i}").record(), separators=(" ,  ", "\t: ")) for i in range(4)]
    ctl.store.write_bytes(f"\n{odd[0]}\r\n  \n{odd[1]}\n{odd[2]}\n\t\n{odd[3]}".encode())  # no newline at the end
    ctl("partner", "set", "p1", "--company", "New")
    lines = ctl.store.read_bytes().decode().split("\n")
    assert json.loads(lines[3])["company"] == "New"
    assert lines[:3] + lines[4:] == ["", odd[0] + "\r", "  ", odd[2], "\t", odd[3], ""]
    ctl("partner", "remove", "p2", "--yes")
    assert ctl.store.read_bytes().decode().split("\n") == [*lines[:4], "\t", odd[3], ""]


def test_line_ends_of_another_system_are_no_part_of_a_record(ctl):
    text = ctl.store.read_text()
    ctl.store.write_bytes(text.replace("\n", "\r\n").encode())
    assert ctl("export").out == text


@pytest.mark.parametrize(
    "fault, place",
    [
        ('{"partner_id": "x"', ":3:19: not valid JSON"),
        ('{"partner_id": "x"}', ":3:1: company is missing"),
        ("acme again", ':3: partner_id "acme" is used in line 1 already'),
        ('{"partnerid": "x"}', ':3:2: unknown key "partnerid"; did you mean "partner_id"?'),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [("partner", "list"), ("partner", "list", "--json"), ("partner", "show", "acme"), ("ip", "add", "acme", "192.0.2.8"), ("export",), ("verify",),
     (*ADD, "--ip", "192.0.2.8")],
)  # fmt: skip
def test_a_fault_that_is_there_already_stops_everything(ctl, fault, place, arguments):
    line = ctl.store.read_text().splitlines()[0].replace(digest(ctl.partner.token), digest("another"))
    with ctl.store.open("a") as file:
        file.write((line if fault == "acme again" else fault) + "\n")
    run = ctl.refused(*arguments)
    messages = json.loads(run.err)["messages"] if "--json" in arguments else run.err.splitlines()
    assert any(f"{ctl.store}{place}" in message for message in messages)


def test_a_token_of_another_partner_is_refused(ctl, tmp_path):
    thief = Partner("thief", token=ctl.partner.token)
    more = tmp_path / "more.ndjson"
    write_file(more, [thief])
    assert "each token belongs to one partner" in ctl.refused("import", more).sentence


def test_mode_and_owner_are_kept(ctl):
    os.chmod(ctl.store, 0o604)
    if os.geteuid() == 0:
        os.chown(ctl.store, 12345, 54321)
    before = ctl.store.stat()
    ctl("ip", "add", "acme", "192.0.2.8")
    after = ctl.store.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    audit = ctl.audit_file.stat()
    assert (stat.S_IMODE(audit.st_mode), audit.st_uid) == (0o600, before.st_uid)


def test_the_access_control_list_is_kept(ctl):
    entries = [(0x01, 6, -1), (0x02, 4, 12345), (0x04, 4, -1), (0x10, 4, -1), (0x20, 0, -1)]  # rw, user 12345 r, r, mask r
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(ctl.store, "system.posix_acl_access", acl)
    except OSError as problem:
        pytest.skip(f"no access control lists here: {problem}")
    ctl("ip", "add", "acme", "192.0.2.8")
    assert os.getxattr(ctl.store, "system.posix_acl_access") == acl


def test_a_link_to_the_file_stays_a_link(ctl, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = Proofctl(folder / "link.ndjson")
    link.store.symlink_to(ctl.store)
    link("ip", "add", "acme", "192.0.2.8")
    assert link.store.is_symlink()
    assert "192.0.2.8" in ctl.record("acme")["production_cidrs"]
    assert len(ctl.audit()) == 1 and [p.name for p in folder.iterdir()] == ["link.ndjson"]


def test_what_is_no_partner_file_is_refused(ctl, tmp_path):
    assert "is no regular file" in Proofctl(tmp_path)("verify", code=1).sentence
    dangling = Proofctl(tmp_path / "dangling")
    dangling.store.symlink_to(tmp_path / "nothing")
    assert "a link to a file that does not exist" in dangling(*ADD, "--ip", "10.0.0.1", code=1).sentence
    fifo = Proofctl(tmp_path / "fifo")
    os.mkfifo(fifo.store)
    assert "is no regular file" in fifo("verify", code=1).sentence


def test_what_a_killed_writer_left_is_cleared(ctl):
    left = ctl.store.with_name(ctl.store.name + ".tmp")
    left.write_text("half a record")
    ctl("ip", "add", "acme", "192.0.2.8")
    assert not left.exists()
    ctl("verify")


# --- failures on the way ---------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(ctl):
    write_file(ctl.store, [ctl.partner, *(Partner(f"p{i}") for i in range(40))])
    before = ctl.state()

    def limit():  # no file may become larger than half of what there is
        size = ctl.store.stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    run = ctl("ip", "add", "acme", "192.0.2.8", code=1, preexec_fn=limit)
    assert "cannot be written: File too large; nothing was changed" in run.sentence
    assert ctl.state() == before


def test_an_audit_that_cannot_be_written_stops_the_change(ctl):
    ctl("ip", "add", "acme", "192.0.2.8")
    ctl.audit_file.unlink()
    ctl.audit_file.symlink_to("/dev/full")  # never followed
    before = ctl.store.read_bytes()
    run = ctl("ip", "add", "acme", "192.0.2.10", code=1)
    assert "nothing was changed, because the audit" in run.sentence
    assert ctl.store.read_bytes() == before
    assert not ctl.store.with_name(ctl.store.name + ".tmp").exists()


def test_an_audit_line_without_its_end_is_not_continued(ctl):
    ctl("ip", "add", "acme", "192.0.2.8")
    with ctl.audit_file.open("ab") as file:
        file.write(b'{"time": "20')  # what a power failure leaves
    ctl("ip", "add", "acme", "192.0.2.10")
    lines = ctl("audit", "--json").json
    assert [line["action"] for line in lines] == ["ip add", "(damaged line)", "ip add"]


def test_a_folder_that_cannot_be_written_leaves_everything():
    """As another user, because nothing is forbidden to root."""
    folder = Path(tempfile.mkdtemp())
    try:
        ctl = Proofctl(folder / "partners.ndjson")
        write_file(ctl.store, [Partner("acme")])
        os.chmod(ctl.store, 0o644)
        os.chmod(folder, 0o555)
        other = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        before = ctl.state()
        run = ctl("ip", "add", "acme", "192.0.2.8", code=1, **other)
        assert "Permission denied" in run.sentence
        assert ctl.state() == before
        assert ctl("verify", **other).code == 0
    finally:
        os.chmod(folder, 0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_file_of_another_user_is_not_taken_over():
    folder = Path(tempfile.mkdtemp())
    try:
        ctl = Proofctl(folder / "partners.ndjson")
        write_file(ctl.store, [Partner("acme")])
        os.chmod(ctl.store, 0o666)
        os.chmod(folder, 0o777)
        before = ctl.state()
        run = ctl("ip", "add", "acme", "192.0.2.8", code=1, user=65534, group=65534, extra_groups=[])
        assert "belongs to another user or group (0:0); run proofctl as that user, or as root" in run.sentence
        assert ctl.state() == before
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_root_leaves_nothing_that_keeps_the_owner_out():
    """`sudo proofctl` once, and from then on without sudo again."""
    folder = Path(tempfile.mkdtemp())
    try:
        ctl = Proofctl(folder / "partners.ndjson")
        write_file(ctl.store, [Partner("acme")])
        for path in (folder, ctl.store):
            os.chown(path, 65534, 65534)
        ctl("ip", "add", "acme", "192.0.2.8")
        ctl("ip", "add", "acme", "192.0.2.9", user=65534, group=65534, extra_groups=[])
        assert ctl.record("acme")["production_cidrs"][-2:] == ["192.0.2.8", "192.0.2.9"]
        assert {path.stat().st_uid for path in folder.iterdir()} == {65534}
    finally:
        shutil.rmtree(folder)


def test_a_token_that_cannot_be_printed_is_reported(ctl):
    with open("/dev/full", "wb") as full:
        process = ctl.start(*ADD, "--ip", "10.0.0.1", "--id", "lost", stdout=full)
        run = ctl.finish(process, ADD, code=1)
    assert "the token could not be printed and is lost; issue another with `proofctl token rotate lost --grace 0s`" in run.err
    assert ctl.record("lost")


def test_a_rotated_token_that_cannot_be_printed_leaves_the_old_one(ctl):
    with open("/dev/full", "wb") as full:
        process = ctl.start("token", "rotate", "acme", stdout=full)
        run = ctl.finish(process, ("token", "rotate", "acme"), code=1)
    assert "`proofctl token rotate acme --grace 0s`, which ends all older ones: tell the partner first, if it uses one" in run.err
    assert ctl.record("acme")["previous_token_sha256"] == digest(ctl.partner.token)
    ctl("token", "rotate", "acme", "--grace", "0s", "--yes")
    assert "previous_token_sha256" not in ctl.record("acme")


@pytest.mark.parametrize(
    "arguments",
    [("partner", "list"), ("partner", "show", "acme"), ("ip", "list", "acme"), ("ip", "add", "acme", "192.0.2.8"), ("token", "rotate", "acme"),
     ("partner", "disable", "acme", "--yes"), ("export",), ("verify",), ("audit",)],
)  # fmt: skip
def test_a_file_that_does_not_exist_is_what_is_said(tmp_path, arguments):
    """Not that it has no such partner: the name of the file is what is wrong."""
    ctl = Proofctl(tmp_path / "partnres.ndjson")
    assert ctl(*arguments, code=1).sentence == f"proofctl: {ctl.store}: does not exist; `proofctl partner add` makes it"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_permission_denied_says_who_may():
    other = {"user": 65534, "group": 65534, "extra_groups": []}
    folder = Path(tempfile.mkdtemp())
    try:
        os.chmod(folder, 0o755)
        ctl = Proofctl(folder / "partners.ndjson")
        write_file(ctl.store, [Partner("acme")])
        os.chmod(ctl.store, 0o640)
        run = ctl("partner", "list", code=1, **other)
        assert run.sentence == f"proofctl: {ctl.store}: cannot be opened: Permission denied; run proofctl as the owner of the file, or with sudo"
        os.chmod(ctl.store, 0o644)
        run = ctl("ip", "add", "acme", "192.0.2.8", code=1, **other)
        assert run.sentence.endswith(": Permission denied; run proofctl as the owner of the partner file, or with sudo")
    finally:
        shutil.rmtree(folder)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    ctl = Proofctl(tmp_path / "no" / "partners.ndjson")
    run = ctl(*ADD, "--ip", "10.0.0.1", code=1)
    assert run.sentence.endswith(f"cannot be locked ({ctl.store}.lock): No such file or directory; make its folder first")


# --- several operators -----------------------------------------------------------------------------------


def test_a_record_that_changed_during_the_question_is_a_conflict(ctl):
    other = Proofctl(ctl.store)
    run = ctl.answer("y", "partner", "disable", "acme", code=4, meanwhile=lambda: other("ip", "add", "acme", "192.0.2.8"))
    assert 'somebody else has changed "acme" meanwhile; nothing was changed' in run.err
    assert ctl.record("acme")["enabled"] and "192.0.2.8" in ctl.record("acme")["production_cidrs"]
    assert [line["action"] for line in ctl.audit()] == ["ip add"]


def test_a_record_that_went_during_the_question_is_a_conflict(ctl):
    other = Proofctl(ctl.store)
    run = ctl.answer("y", "partner", "disable", "acme", code=4, meanwhile=lambda: other("partner", "remove", "acme", "--yes"))
    assert 'somebody else has removed "acme" meanwhile' in run.err
    assert [r["partner_id"] for r in ctl.records()] == ["beta"]


def test_a_change_of_another_record_during_the_question_is_none(ctl):
    other = Proofctl(ctl.store)
    ctl.answer("y", "partner", "disable", "acme", meanwhile=lambda: other("ip", "add", "beta", "192.0.2.8"))
    assert not ctl.record("acme")["enabled"] and "192.0.2.8" in ctl.record("beta")["production_cidrs"]


def test_operators_at_the_same_time_lose_nothing(ctl):
    """Twelve at once, each with a partner of its own and an address for the same partner: each either did its work or says
    that it did not."""
    adding = [ctl.start(*ADD, "--ip", "10.0.0.1", "--id", f"new{i}") for i in range(6)]
    changing = [ctl.start("ip", "add", "acme", f"10.0.1.{i}") for i in range(6)]
    for process in adding:
        ctl.finish(process, ADD)
    codes = [process.wait(DEADLINE_S) for process in changing]
    for process in changing:
        process.communicate()
    assert set(codes) <= {0, 4}
    ids = {r["partner_id"] for r in ctl.records()}
    assert ids == {"acme", "beta", *(f"new{i}" for i in range(6))}
    present = {c for c in ctl.record("acme")["production_cidrs"] if c.startswith("10.0.1.")}
    assert present == {f"10.0.1.{i}" for i, code in enumerate(codes) if code == 0} and present
    assert len(ctl.audit()) == 6 + len(present)
    ctl("verify")


def test_only_one_of_several_gets_a_new_id(ctl):
    processes = [ctl.start(*ADD, "--ip", "10.0.0.1", "--id", "one") for _ in range(4)]
    outputs = [process.communicate(timeout=DEADLINE_S) for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 1, 1, 1]
    token = TOKEN.search(next(out for (out, _), p in zip(outputs, processes) if p.returncode == 0).decode())[0]
    assert ctl.record("one")["client_token_sha256"] == digest(token)


def test_a_writer_waits_for_the_lock(ctl):
    with open(ctl.store.with_name(ctl.store.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = ctl.start("ip", "add", "acme", "192.0.2.8")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        assert ctl("partner", "show", "acme").code == 0  # readers do not wait
        assert "192.0.2.8" not in ctl.store.read_text()
        fcntl.flock(lock, fcntl.LOCK_UN)
        ctl.finish(process)
    assert "192.0.2.8" in ctl.record("acme")["production_cidrs"]


# --- audit -----------------------------------------------------------------------------------------------


def test_the_audit_says_who_when_and_what(ctl):
    before = time.time()
    added = ctl.add("--id", "gamma", "--by", "Älice")
    ctl("ip", "add", "acme", "192.0.2.8", "--by", "bob")
    rotated = ctl("token", "rotate", "acme", "--json").json
    ctl("partner", "remove", "gamma", "--yes")
    lines = ctl.audit()
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert [line["action"] for line in lines] == ["partner add", "ip add", "token rotate", "partner remove"]
    assert [line["by"] for line in lines] == ["Älice", "bob", user, user]
    assert {line["os_user"] for line in lines} == {user}
    assert [line["partner_id"] for line in lines] == ["gamma", "acme", "acme", "gamma"]
    for line in lines:
        assert before - 1 < datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp() < time.time() + 1
    old = ["192.0.2.7", "198.51.100.0/24"]
    assert lines[0]["before"] is None and lines[0]["after"]["production_cidrs"] == ["127.0.0.1"]
    assert lines[0]["after"]["current_token"] == {"fingerprint": fingerprint(added["client_token"])}
    assert (lines[1]["before"], lines[1]["after"]) == (
        {"production_cidrs": old},
        {"production_cidrs": [*old, "192.0.2.8"]},
    )
    assert lines[2]["before"]["current_token"] == {"fingerprint": fingerprint(ctl.partner.token)}
    assert lines[2]["after"]["current_token"] == {"fingerprint": fingerprint(rotated["client_token"])}
    assert lines[2]["after"]["previous_token"]["fingerprint"] == fingerprint(ctl.partner.token)
    assert lines[3]["after"] is None
    assert stat.S_IMODE(ctl.audit_file.stat().st_mode) == 0o600


def test_the_audit_command_shows_the_last_lines(ctl):
    assert ctl("audit").out == "" and ctl("audit", "--json").json == []
    for i in range(5):
        ctl("ip", "add", "acme", f"10.0.0.{i}")
    assert ctl("audit", "--json").json == ctl.audit()
    assert ctl("audit", "--limit", "2", "--json").json == ctl.audit()[-2:]
    assert "production_cidrs: +10.0.0.4" in ctl("audit", "--limit", "1").out


def test_sudo_is_seen_through(ctl):
    if os.geteuid() != 0:
        pytest.skip("SUDO_USER is believed only of root")
    ctl("ip", "add", "acme", "10.0.0.1", env={**ENVIRONMENT, "SUDO_USER": "carol"})
    assert (ctl.audit()[0]["by"], ctl.audit()[0]["os_user"]) == ("carol", "root")


# --- import, export --------------------------------------------------------------------------------------


def test_export_and_import_round_trip(ctl, tmp_path):
    exported = ctl("export").out
    assert exported == ctl.store.read_text()
    copy = tmp_path / "copy.ndjson"
    copy.write_text(exported)
    assert ctl("import", copy).out == "0 added, 0 changed, 2 unchanged\n"
    other = Proofctl(tmp_path / "other.ndjson")
    run = other("import", copy)
    assert run.out.splitlines() == ["+ acme: Company acme", "+ beta: Company beta", "2 added, 0 changed, 0 unchanged"]
    assert other.store.read_text() == exported
    assert [line["action"] for line in other.audit()] == ["import", "import"]


def test_an_import_does_not_take_the_token_of_another_partner(ctl, tmp_path):
    file = tmp_path / "more.ndjson"
    write_file(file, [Partner("newco", token=ctl.partner.token)])
    said = f'proofctl: newco: its token (fingerprint {digest(ctl.partner.token)[:8]}) belongs to "acme"; each token belongs to one partner: issue a new one'
    assert ctl.refused("import", file, "--dry-run").sentence == said
    assert ctl.refused("import", file).sentence == said


def test_an_import_says_what_it_changes(ctl, tmp_path):
    ctl.partner.production = ["192.0.2.7", "198.51.100.0/24", "192.0.2.8"]
    more = tmp_path / "more.ndjson"
    write_file(more, [ctl.partner, Partner("new")])
    before = ctl.state()
    expected = ["~ acme: production_cidrs: +192.0.2.8", "+ new: Company new"]
    dry = ctl("import", more, "--dry-run").out.splitlines()
    assert dry == [*expected, "dry run: 1 added, 1 changed, 0 unchanged"]
    assert ctl.state() == before
    assert ctl("import", more).out.splitlines() == [*expected, "1 added, 1 changed, 0 unchanged"]
    assert [r["partner_id"] for r in ctl.records()] == ["acme", "beta", "new"]
    assert "192.0.2.8" in ctl.record("acme")["production_cidrs"]


def test_an_import_that_cuts_access_is_asked_for(ctl, tmp_path):
    ctl.partner.production, ctl.partner.enabled = ["192.0.2.7"], True
    more = tmp_path / "more.ndjson"
    write_file(more, [ctl.partner])
    assert "acme: 1 prefix leaves its production list" in ctl.refused("import", more).sentence
    ctl("import", more, "--yes")
    assert ctl.record("acme")["production_cidrs"] == ["192.0.2.7"]


def test_another_spelling_of_the_same_record_is_no_change(ctl, tmp_path):
    record = {**ctl.record("acme"), "production_cidrs": ["192.0.2.7/32", "198.51.100.0/24"]}
    del record["enabled"]
    more = tmp_path / "more.ndjson"
    more.write_text(json.dumps(record, separators=(",", ":")))
    assert ctl("import", more).out == "0 added, 0 changed, 1 unchanged\n"


def test_a_faulty_import_is_refused_as_a_whole(ctl, tmp_path):
    more = tmp_path / "more.ndjson"
    write_file(more, [Partner("good"), Partner("bad", production=["10.1.2.3/24"])])
    run = ctl.refused("import", more)
    assert re.search(rf"{more}:2:\d+: production_cidrs: 10.1.2.3/24 has host bits set", run.sentence)
    assert "cannot be opened" in ctl.refused("import", tmp_path / "nothing").sentence
