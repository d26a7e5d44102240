"""The command line, exit codes, starts that fail, and the process itself.

Goal: what docs/OPERATIONS.md promises of it is so.

Method: single commands, and `start`, a plain process with its streams in the test's hand (support/process.py).
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from support.expect import is_passed
from support.gateway import BINARY, default_config, to_yaml
from support.partners import Partner, write_file
from support.process import EXIT_CONFIG, EXIT_OK, EXIT_USAGE, get, run
from support.wait import DEADLINE_S, wait_for

pytest_plugins = ["support.process"]


# --- command line ----------------------------------------------------------------------------------------


def test_version():
    done = run("--version")
    assert done.returncode == EXIT_OK and done.stderr == ""
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"proofgw \d+\.\d+\.\d+ \(\S+\)", lines[0])
    assert {line.split()[0] for line in lines[1:]} == {"libuv", "llhttp", "OpenSSL", "libyaml"}
    assert run("-V").stdout == done.stdout


def test_help():
    done = run("--help")
    assert done.returncode == EXIT_OK and done.stdout.startswith("proofgw - ")
    assert run("-h").stdout == done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nonsense"], "unknown command: nonsense"),
        (["check", "a.yaml", "b.yaml"], "unexpected argument: b.yaml"),
        (["config-reference", "x"], "unexpected argument: x"),
        (["--nonsense"], "--nonsense"),
        (["-c"], "requires an argument"),
    ],
)
def test_wrong_command_lines(arguments, words):
    done = run(*arguments)
    assert done.returncode == EXIT_USAGE
    assert done.stdout == "" and words in done.stderr
    assert "Try 'proofgw --help'." in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["config-reference"], ["metrics-reference"], ["check"]])
def test_a_result_that_cannot_be_printed(tmp_path, arguments):
    """A full disk: said, and no success."""
    file = tmp_path / "gateway.yaml"
    file.write_text(to_yaml(default_config("127.0.0.1:9")))
    command = [str(BINARY), *arguments, *([str(file)] if arguments == ["check"] else [])]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    assert done.returncode == EXIT_CONFIG
    assert done.stderr.endswith("proofgw: the result cannot be printed: No space left on device\n")


def test_check(tmp_path):
    file = tmp_path / "gateway.yaml"
    file.write_text(to_yaml(default_config("127.0.0.1:9")))
    write_file(tmp_path / "partners.ndjson", [Partner("acme")])
    for arguments in (["check", file], ["check", "-c", file], ["-c", file, "-t"], ["run", "-t", file]):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (EXIT_OK, ""), arguments
        assert done.stdout == f"{file}: ok\n"


@pytest.mark.parametrize(
    "content, warnings",
    [
        (None, [": warning: ", "No such file"]),
        ('{"partner_id": "a"\n', [":1:19: warning: "]),
        ("x\ny\n", [":1:1: warning: ", ":2:1: warning: "]),
    ],
    ids=["missing", "half a record", "nonsense"],
)
def test_check_looks_at_the_partners(tmp_path, content, warnings):
    """As warnings: the gateway starts without them too, and answers 503 until they are right."""
    file, partners = tmp_path / "gateway.yaml", tmp_path / "partners.ndjson"
    file.write_text(to_yaml(default_config("127.0.0.1:9")))
    if content is not None:
        partners.write_text(content)
    done = run("check", file)
    assert (done.returncode, done.stdout) == (EXIT_OK, f"{file}: ok\n")
    lines = done.stderr.splitlines()
    assert all(line.startswith(str(partners)) for line in lines)
    for text in [*warnings, "a gateway that starts now answers 503 until this file is right"]:
        assert any(text in line for line in lines), lines


def test_check_warns_of_files_that_redis_needs(tmp_path):
    """The start does not need them, because they are read at each connect: so no error."""
    config, store = default_config("127.0.0.1:9"), {"address": "127.0.0.1:6379"}
    config["store"] = {"kind": "redis", "redis": store}
    file, password = tmp_path / "gateway.yaml", tmp_path / "password"

    def warnings():
        file.write_text(to_yaml(config))
        done = run("check", file)
        assert (done.returncode, done.stdout) == (EXIT_OK, f"{file}: ok\n")
        return done.stderr.replace(f"{file}: warning: ", "")

    assert warnings() == ""
    store["password_file"] = str(password)
    assert warnings() == f"the password cannot be used: {password}: No such file or directory\n"
    password.write_text("secret canary\n")
    password.chmod(0o644)
    assert warnings() == f"the password cannot be used: {password}: everybody may read it: make it chmod 640\n"
    password.chmod(0o640)
    assert warnings() == ""
    store["tls"] = {"enabled": True, "ca_file": str(tmp_path / "none.pem")}
    assert warnings() == f"TLS: {tmp_path}/none.pem: No such file or directory\n"


FAULTY = """workers: two
listeners:
  - adress: 127.0.0.1:0
environments:
  production:
    hosts: [api.test]
    upstream: 127.0.0.1:9
store:
  file: partners.ndjson
"""


@pytest.mark.parametrize("command", [["check"], ["run"], ["-c"]])
def test_a_faulty_configuration(tmp_path, command):
    """All faults in one go, each with its place; the gateway does not start."""
    file = tmp_path / "gateway.yaml"
    file.write_text(FAULTY)
    done = run(*command, file)
    assert done.returncode == EXIT_CONFIG and done.stdout == ""
    assert f"{file}:1:10: error: workers" in done.stderr
    assert f"{file}:3:5: error: listeners[0].adress: unknown key; did you mean" in done.stderr
    assert "^" in done.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_no_configuration(tmp_path, command):
    done = run(command, tmp_path / "none.yaml")
    assert done.returncode == EXIT_CONFIG
    assert "none.yaml" in done.stderr and "No such file" in done.stderr
    assert run(command, tmp_path).returncode == EXIT_CONFIG  # a directory


# --- starts that fail ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["listener", "admin", "second listener"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_address_in_use(start, which, workers):
    first = start().wait_started()
    taken = "%s:%d" % first.address("admin_listening" if which == "admin" else "listening")
    changes = {
        "listener": {"listeners": [{"address": taken}]},
        "admin": {"admin": {"address": taken}},
        "second listener": {"listeners": [{"address": "127.0.0.1:0"}, {"address": taken}]},
    }[which]
    second = start(workers=workers, **changes)
    assert second.wait_exit() == EXIT_CONFIG
    (event,) = second.events("listen_failed")
    assert taken in event["cause"] and "another process has this address" in event["cause"]
    assert not second.events("started")
    assert get(first.address("admin_listening")).status == 200
    assert first.stop() == EXIT_OK


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"listeners": [{"address": "unix:no/such/folder/x.sock"}]}, "No such file or directory; make its folder first"),
        ({"listeners": [{"address": "unix:" + "x" * 200}]}, "at most 107 bytes"),
        ({"listeners": [{"address": "192.0.2.1:8080"}]}, "no interface of this machine has it; `ip address` shows"),
        ({"logs": {"access": "no/such/folder/access.log"}}, "No such file or directory; make its folder first"),
        ({"admin": {"control_socket": "no/c.sock"}}, "no/c.sock: No such file or directory; make its folder first"),
    ],
    ids=["folder", "path", "address", "log", "control socket"],
)
def test_what_cannot_be_had(start, changes, words):
    """What, where, and what to do about it."""
    process = start(**changes)
    assert process.wait_exit() == EXIT_CONFIG
    assert words in process.text(), process.text()


def test_a_start_that_fails_says_where_its_log_is(start, tmp_path):
    """A journal without a word in it helps nobody; with the log on stderr the cause is there already."""
    taken = {"listeners": [{"address": "unix:no/such/folder/x.sock"}]}
    process = start(**taken, logs={"operations": "elsewhere.log"})
    assert process.wait_exit() == EXIT_CONFIG
    assert process.text() == f"proofgw: cannot start; the last lines of {tmp_path}/elsewhere.log say why\n"
    assert "make its folder first" in (tmp_path / "elsewhere.log").read_text()
    process = start(**taken)
    assert process.wait_exit() == EXIT_CONFIG
    assert "say why" not in process.text()


def test_a_unix_socket_of_a_process_that_is_gone(start):
    """Its file stays after a crash and after an orderly end; the next start takes it over. One that is in use is not
    taken away."""
    changes = {"listeners": [{"address": "unix:client.sock"}], "admin": {"address": "unix:admin.sock"}}
    first = start(**changes).wait_started()
    first.process.kill()
    first.wait_exit()
    second = start(**changes).wait_started()
    assert get(second.address("admin_listening")).status == 200
    third = start(**changes)
    assert third.wait_exit() == EXIT_CONFIG
    assert "another process has this address" in third.text()
    assert get(second.address("admin_listening")).status == 200
    assert second.stop() == EXIT_OK
    fourth = start(**changes).wait_started()
    assert fourth.stop() == EXIT_OK


def test_a_file_in_the_place_of_a_socket_is_not_removed(start, tmp_path):
    precious = tmp_path / "client.sock"
    precious.write_text("precious")
    process = start(listeners=[{"address": "unix:client.sock"}])
    assert process.wait_exit() == EXIT_CONFIG
    assert precious.read_text() == "precious"
    assert "a file that is no socket is there; choose another path" in process.text()


# --- the process -----------------------------------------------------------------------------------------


def test_no_core_dumps(gateway):
    limits = Path(f"/proc/{gateway.process.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.M)


@pytest.fixture
def other_user():
    """(user, folder): as root somebody else, with a folder where that user may be; else nobody in particular."""
    user = os.getuid() or 65534
    folder = Path(tempfile.mkdtemp())
    if os.getuid() == 0:
        if not all(p.stat().st_mode & 1 for p in [BINARY, *BINARY.parents]):
            pytest.skip("only root can reach the binary")
        folder.chmod(0o755)
    yield user, folder
    shutil.rmtree(folder)


def test_others_of_the_same_user_cannot_look_into_it(other_user, start):
    """What may not be dumped belongs to root in /proc, whoever runs it."""
    user, folder = other_user
    process = start(folder=folder, user=user if os.getuid() == 0 else None).wait_started()
    proc = Path(f"/proc/{process.process.pid}")
    assert re.search(rf"^Uid:\s+{user}\s", (proc / "status").read_text(), re.M)
    assert (proc / "mem").stat().st_uid == 0
    assert process.stop() == EXIT_OK


@pytest.fixture
def start_with_few_threads(other_user, start):
    """A gateway with 8 workers whose user may have only so many threads. A sanitizer may have one of its own, and one more
    would look for leaks."""
    _, folder = other_user

    def run(limit, under=()):
        limited = [*under, "env", "ASAN_OPTIONS=detect_leaks=0", "prlimit", f"--nproc={limit}"]
        return start(folder=folder, user=60000 + os.getpid() % 5000, prefix=limited, workers=8)

    return run


@pytest.mark.skipif(os.getuid() != 0, reason="needs a user of whom nothing else runs")
@pytest.mark.parametrize("limit", range(2, 10))
def test_too_few_threads(start_with_few_threads, limit):
    """It takes one for itself, one for the log, and one a worker: whichever cannot be had, it ends with a sentence."""
    process = start_with_few_threads(limit)
    assert process.process.wait(DEADLINE_S) == EXIT_CONFIG, process.text()
    (event,) = process.events("worker_not_started") or process.events("log_failed")
    assert "TasksMax" in event.get("hint", event.get("cause")), process.text()


@pytest.mark.skipif(os.getuid() != 0, reason="needs a user of whom nothing else runs")
def test_too_few_threads_and_a_signal(start_with_few_threads):
    """It ends with those workers that did start, and a signal meanwhile makes no difference."""
    for _ in range(10):
        process = start_with_few_threads(6)
        wait_for(lambda: process.events("listening"), process.text)
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(DEADLINE_S) == EXIT_CONFIG, process.text()
        assert "TasksMax" in process.events("worker_not_started")[0]["hint"]


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("strace"), reason="needs a user of whom nothing else runs, and strace")
def test_too_few_threads_and_workers_that_hang(start_with_few_threads):
    """Those that did start never come back from closing their listeners."""
    hang = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=accept4", "--inject=accept4:delay_enter=12s"]
    process = start_with_few_threads(7, hang)
    (event,) = wait_for(lambda: process.events("stopped"), process.text)
    assert (event["level"], event["exit_code"], event["cause"]) == ("error", str(EXIT_CONFIG), "a worker hangs")
    assert process.process.wait(DEADLINE_S) == EXIT_CONFIG
    assert "TasksMax" in process.events("worker_not_started")[0]["hint"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"listeners": [{"address": "127.0.0.1:81"}]}, "Permission denied; ports below 1024 need CAP_NET_BIND_SERVICE"),
        ({"listeners": [{"address": "unix:/etc/x.sock"}]}, "the user of this process may not write in its folder"),
        ({"logs": {"access": "/etc/proofgw-test.log"}}, "the user of this process may not write there"),
    ],
    ids=["port", "folder", "log"],
)
def test_what_an_ordinary_user_may_not(other_user, start, changes, words):
    user, folder = other_user
    process = start(folder=folder, user=user if os.getuid() == 0 else None, **changes)
    assert process.wait_exit() == EXIT_CONFIG
    assert words in process.text(), process.text()


def test_it_raises_its_descriptor_limit_and_says_when_that_is_not_enough(gateway):
    hard = gateway.metrics()["process_max_fds"]
    limits = Path(f"/proc/{gateway.process.pid}/limits").read_text()
    soft_and_hard = re.search(r"^Max open files +(\d+) +(\d+) ", limits, re.M).groups()
    assert soft_and_hard == (str(int(hard)),) * 2
    assert bool(gateway.events("few_descriptors")) == (hard < 2 * 20_000 + 64)


def test_nothing_is_left_behind(proofgw, partner):
    """No file but its logs, no descriptor per past connection, no process."""
    gateway = proofgw()
    files = set(gateway.folder.iterdir())
    for _ in range(3):
        is_passed(gateway.client().exchange(fields=partner.authorization))
    gateway.end_clients()
    gateway.wait_metric("proofgw_connections_open", 0)
    first = gateway.metrics()["process_open_fds"]
    for _ in range(50):
        client = gateway.client()
        is_passed(client.exchange(fields=partner.authorization))
        client.close()
    gateway.wait_metric("proofgw_connections_open", 0)
    gateway.wait_metric("process_open_fds", lambda value: value <= first)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait_exit() == EXIT_OK
    assert set(gateway.folder.iterdir()) == files
