"""proofctl and whoever types: questions, wrong input, tokens offline, which store is meant, help and completion."""

import fcntl
import json
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from support.partners import Partner, write_file
from support.proofctl import PROOFCTL, Run, fingerprint, with_partners
from support.wait import DEADLINE_S, wait_for

ADD = ("partner", "add", "--company", "Acme", "--contact", "ops@acme.example")


@pytest.fixture
def ctl(tmp_path):
    return with_partners(tmp_path)


# --- questions -------------------------------------------------------------------------------------------


CUTS = [
    (("partner", "disable", "acme"), "it is disabled and its tokens stop working"),
    (("partner", "remove", "acme"), "it is removed for good and its tokens stop working"),
    (("ip", "remove", "acme", "192.0.2.7"), "1 prefix leaves its production list"),
    (("token", "revoke", "acme", "--slot", "current"), "its current token stops working"),
    (("token", "revoke", "acme", "--slot", "previous"), "its previous token stops working"),
    (("token", "finish", "acme"), "its previous token stops working"),
    (("token", "rotate", "acme"), "its previous token stops working"),
    (("token", "rotate", "acme", "--grace", "0s"), "its current token stops working, its previous token stops working"),
]


@pytest.mark.parametrize("arguments, what", CUTS)
def test_without_a_terminal_nothing_is_cut(ctl, arguments, what):
    ctl.partner.rotate(time.time() + 3600)
    write_file(ctl.store, [ctl.partner, Partner("beta")])
    run = ctl.refused(*arguments)
    assert f"acme: {what}; nothing was changed: add --yes" in run.sentence


@pytest.mark.parametrize("answer, is_done", [("y", True), ("yes", True), ("Y", True), ("n", False), ("", False), ("yup", False)])
def test_on_a_terminal_it_asks(ctl, answer, is_done):
    run = ctl.answer(answer, "partner", "disable", "acme", code=0 if is_done else 1)
    assert "acme: it is disabled and its tokens stop working. Go on? [y/N]" in run.err
    assert ctl.record("acme")["enabled"] is not is_done


@pytest.mark.parametrize(
    "arguments",
    [
        ("ip", "add", "acme", "192.0.2.8"),
        ("partner", "set", "acme", "--company", "New"),
        ("token", "rotate", "acme"),
        ("partner", "enable", "acme"),
    ],
)
def test_what_cuts_nothing_is_not_asked_for(ctl, arguments):
    ctl(*arguments)


def test_a_grace_period_that_is_over_ends_without_a_question(ctl):
    ctl.partner.rotate(time.time() - 1)
    write_file(ctl.store, [ctl.partner])
    ctl("token", "finish", "acme")
    assert "previous_token_sha256" not in ctl.record("acme")


# --- wrong input -----------------------------------------------------------------------------------------


WRONG = [
    (("ip", "add", "acme", "10.1.2.3/24"), 1, "production_cidrs: 10.1.2.3/24 has host bits set; write 10.1.2.0/24"),
    (("ip", "add", "acme", "0.0.0.0/0"), 1, "0.0.0.0/0 lets every address in; write the networks that are meant"),
    (("ip", "add", "acme", "::/0"), 1, "::/0 lets every address in"),
    (("ip", "add", "acme", "192.0.02.1"), 1, "192.0.02.1 has a number with a leading zero"),
    (("ip", "add", "acme", "192.0.2.7"), 1, "192.0.2.7/32 is on the list already; nothing was changed: leave it out"),
    (("ip", "add", "acme", "10.0.0.1", "10.0.0.1/32"), 1, "10.0.0.1/32 is named twice; nothing was changed: leave it out"),
    (("ip", "add", "acme", "192.0.2.8", "nonsense"), 1, "production_cidrs: an entry is no address; write such as \"192.0.2.7\""),
    (("ip", "add", "acme", "192.0.2.8", "--env", "staging"), 2, "--env must be production or sandbox"),
    (("ip", "add", "acme"), 2, "an argument is missing: proofctl ip add ID CIDR..."),
    (("ip", "remove", "acme", "192.0.2.9", "--yes"), 1, "192.0.2.9 is not on the production list of acme"),
    (("ip", "remove", "acme", "198.51.100.1", "--yes"), 1, "198.51.100.1 is not on the production list of acme"),
    (("ip", "remove", "acme", "192.0.2.7", "192.0.2.7", "--yes"), 1, "192.0.2.7 is not on the production list of acme"),
    (("ip", "remove", "acme", "192.0.2.7", "198.51.100.0/24", "--yes"), 1, "a partner needs at least one production address"),
    ((*ADD, "--ip", "10.1.2.3/24"), 1, "10.1.2.3/24 has host bits set; write 10.1.2.0/24"),
    ((*ADD, "--ip", "10.0.0.1", "--ip", "10.0.0.1"), 1, "10.0.0.1/32 is named twice"),
    ((*ADD, "--ip", "10.0.0.1", "--webhook", "http://a.example/"), 1, "webhook_url must be an https:// URL"),
    ((*ADD, "--ip", "10.0.0.1", "--id", "a b"), 1, "partner_id must be 1 to 64 characters out of A-Z a-z 0-9 . _ -"),
    ((*ADD, "--ip", "10.0.0.1", "--id", "acme"), 1, 'there is a partner "acme" already; choose another --id'),
    (ADD, 2, "partner add needs --ip CIDR"),
    (("partner", "add", "--company", "Acme"), 2, "partner add needs --contact EMAIL"),
    (("partner", "set", "acme", "--contact", "not an address"), 1, "contact must be one e-mail address such as ops@example.com"),
    (("partner", "set", "acme", "--contact", "a@b.example, c@d.example"), 1, "contact must be one e-mail address"),
    (("partner", "set", "acme", "--webhook", "http://a.example/"), 1, "webhook_url must be an https:// URL"),
    (("partner", "set", "acme", "--company", "a\nb"), 1, "company must be a name of 1 to 200 characters"),
    (("partner", "set", "acme", "--company", ""), 1, "company must be a name of 1 to 200 characters"),
    (("partner", "set", "acme", "--off-ramp", "yes"), 2, "--off-ramp must be on or off"),
    (("partner", "set", "acme"), 2, "partner set needs something to set"),
    (("partner", "set", "acme", "--company", "A", "--by", ""), 2, "--by must be a name of 1 to 200 characters"),
    (("partner", "show", "acmee"), 1, 'did you mean "acme"?'),
    (("partner", "show", "a/b"), 1, "a partner_id is 1 to 64 characters out of A-Z a-z 0-9 . _ -"),
    (("token", "rotate", "acme", "--grace", "24"), 2, "--grace must be a duration such as 30m, 24h or 7d, at most 90d"),
    (("token", "rotate", "acme", "--grace", "91d"), 2, "at most 90d"),
    (("token", "finish", "acme"), 1, "acme has no previous token; nothing was changed"),
    (("token", "revoke", "acme"), 2, "token revoke needs --slot previous or --slot current"),
    (("token", "revoke", "acme", "--slot", "previous"), 1, "acme has no previous token; nothing was changed"),
    (("audit", "--limit", "0"), 2, "--limit must be a number from 1 to 1000000"),
    (("partner", "lst"), 2, 'there is no command "partner lst"; did you mean "partner list"?'),
    (("partner",), 2, '"partner" is the first half of a command'),
    ((), 2, "name a command"),
]


@pytest.mark.parametrize("arguments, code, sentence", WRONG)
def test_wrong_input_gets_a_sentence_and_changes_nothing(ctl, arguments, code, sentence):
    assert sentence in ctl.refused(*arguments, code=code).sentence


@pytest.mark.parametrize("option", ["--company", "--contact", "--webhook"])
def test_text_that_is_not_utf8_is_refused(ctl, option):
    before = ctl.state()
    run = ctl("partner", "set", "acme", option, b"\xff".decode("utf-8", "surrogateescape"), code=1)
    assert "is not valid UTF-8" in run.sentence
    assert ctl.state() == before


def test_several_faults_are_named_together(ctl):
    run = ctl.refused("partner", "set", "acme", "--contact", "x", "--webhook", "y")
    assert len(run.err.splitlines()) == 2


def test_the_last_partner_cannot_be_removed(ctl):
    ctl("partner", "remove", "acme", "--yes")
    assert "`proofctl partner disable` the last partner" in ctl.refused("partner", "remove", "beta", "--yes").sentence


# --- tokens offline --------------------------------------------------------------------------------------


def test_inspect_knows_a_token_a_typo_and_others(ctl):
    token = ctl.add()["client_token"]
    typo = token[:-1] + ("a" if token[-1] != "a" else "b")
    swapped = token[:20] + token[21] + token[20] + token[22:]
    cases = [
        (token, 0, "check characters right"),
        (typo, 1, "mistyped: the check characters do not fit"),
        (token[:-1], 1, "mistyped: a token of Proof has 60 characters, this has 59"),
        ("pt_0123456789abcdefghij", 0, "cannot be checked"),
        ("short", 1, "no token"),
        ("with a space in it, long enough", 1, "no token"),
    ]
    if token[20] != token[21]:
        cases.append((swapped, 1, "mistyped: the check characters do not fit"))
    for text, code, sentence in cases:
        with tempfile.TemporaryFile() as file:
            file.write(text.encode() + b"\n")
            file.seek(0)
            by_stdin = subprocess.run([PROOFCTL, "token", "inspect", "--stdin"], stdin=file, capture_output=True, text=True)
        by_argument = subprocess.run([PROOFCTL, "token", "inspect", text], capture_output=True, text=True)
        for run in (by_stdin, by_argument):
            assert (run.returncode, run.stderr) == (code, ""), (text, run)
            assert sentence in run.stdout and text not in run.stdout
            assert (f"fingerprint {fingerprint(text)}" in run.stdout) == (code == 0)


def test_an_inspected_argument_does_not_stay_visible(ctl):
    """A full pipe as its stdout keeps it from ending, so that its arguments can be looked at."""
    token = ctl.add()["client_token"]
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * size)
    process = subprocess.Popen([PROOFCTL, "token", "inspect", token], stdout=writing)
    try:
        arguments = Path(f"/proc/{process.pid}/cmdline")
        wait_for(lambda: b"inspect" in arguments.read_bytes() and token.encode() not in arguments.read_bytes(), "wiped")
        assert process.poll() is None
    finally:
        os.close(writing)
        while os.read(reading, 65536):
            pass
        assert process.wait(DEADLINE_S) == 0
        os.close(reading)


def test_inspect_needs_exactly_one_token(ctl):
    for arguments in (("token", "inspect"), ("token", "inspect", "--stdin", "x")):
        run = subprocess.run([PROOFCTL, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert run.returncode == 2 and "needs the token" in run.stderr


# --- which store, help, completion -----------------------------------------------------------------------


def proofctl(*arguments, **environment):
    run = subprocess.run(
        [PROOFCTL, *arguments], capture_output=True, text=True, env={"PATH": os.environ["PATH"], **environment}
    )
    return Run(arguments, run.returncode, run.stdout, run.stderr)


def test_the_environment_names_the_store(ctl, tmp_path):
    assert "acme" in proofctl("partner", "list", PROOFCTL_STORE=str(ctl.store)).out
    run = proofctl("--store", ctl.store, "partner", "list", PROOFCTL_STORE="/nowhere")
    assert "acme" in run.out
    run = proofctl("--store", ctl.store, "-c", "x.yaml", "partner", "list")
    assert run.code == 2 and "keep one of them" in run.sentence


def test_a_wrong_configuration_is_reported_with_its_place(tmp_path):
    config = tmp_path / "gateway.yaml"
    config.write_text("listeners: 1\n")
    run = proofctl("-c", config, "partner", "list")
    assert run.code == 1 and f"{config}:1:" in run.err and "the configuration cannot be used" in run.err
    run = proofctl("-c", tmp_path / "none.yaml", "partner", "list")
    assert run.code == 1 and "none.yaml: error: cannot be read: No such file" in run.err
    run = proofctl("-c", config, "partner", "list", "--json")
    assert f"{config}:1:" in json.loads(run.err)["messages"][0]


def words_of_all_commands():
    listed = re.search(r"commands:\n(.*?)\n\n", proofctl("--help").out, re.DOTALL)[1]
    return [re.split(r"  +", line.strip())[0].split() for line in listed.splitlines()]


def test_every_command_has_help_with_examples():
    commands = words_of_all_commands()
    assert len(commands) >= 18
    for words in commands:
        run = proofctl(*words, "--help")
        assert run.code == 0 and run.err == ""
        assert f"usage: proofctl {' '.join(words)}" in run.out and "\nexamples:\n" in run.out
    assert "partner add" in proofctl("partner", "--help").out
    assert re.fullmatch(r"proofctl \S+ \(\S+\)\n", proofctl("--version").out)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_help_that_cannot_be_printed(option):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([PROOFCTL, option], stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    assert done.returncode == 1
    assert done.stderr == "proofctl: the result cannot be printed: No space left on device\n"


@pytest.mark.parametrize(
    "line, expected",
    [
        (
            "",
            {"partner", "ip", "token", "import", "export", "verify", "audit", "init", "acl", "gateways", "completion", "reference"}
            | {"status", "reload", "drain", "undrain", "tunnels", "log-level", "explain", "confirm-deletions"},
        ),
        ("tunnels ", {"list", "close"}),
        ("explain --req", {"--request-id"}),
        ("--user op --password-file /x ip ", {"add", "remove", "list"}),
        ("verify --rep", {"--repair"}),
        ("acl --role g", {"gateway"}),
        ("pa", {"partner"}),
        ("token r", {"rotate", "revoke"}),
        ("-c /x ip ", {"add", "remove", "list"}),
        ("ip add acme --env ", {"production", "sandbox"}),
        ("token revoke acme --slot c", {"current"}),
        ("token rotate acme --g", {"--grace"}),
        ("partner set acme --off-ramp ", {"on", "off"}),
        ("partner add --off-ramp --web", {"--webhook"}),
        ("import /etc/passw", {"/etc/passwd"}),
    ],
)
def test_bash_completes(line, expected):
    words = ["proofctl", *line.split(" ")] if line else ["proofctl", ""]
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""source <("{PROOFCTL}" completion bash) && COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1} &&
        _proofctl && printf '%s\\n' "${{COMPREPLY[@]}}" """
    run = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert expected <= set(run.stdout.split()) and (expected == set(run.stdout.split()) or line.startswith("import"))
