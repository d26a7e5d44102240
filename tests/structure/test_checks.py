"""Proves that every structure check can fail: each fault is planted alone in a small tree of its own."""

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).parent

CLEAN = {
    "base/span.h": "#include <stddef.h>\n",
    "base/span.c": '#include "base/span.h"\n',
    "http/head.h": '#include "base/span.h"\n',
    "http/head.c": '#include "http/head.h"\n\n#include <string.h>\n',
    "net/stream.h": '#include "base/span.h"\n\n#include <uv.h>\n',
    "net/resolver.c": "int f(void)\n{\n    return getaddrinfo(0, 0, 0, 0);\n}\n",
    "policy/decide.h": '#include "http/head.h"\n',
    "main.c": '#include "policy/decide.h"\n#include "gw_version.h"\n',
}


class Checks(unittest.TestCase):
    def setUp(self):
        self.src = Path(tempfile.mkdtemp()) / "src"
        self.addCleanup(shutil.rmtree, self.src.parent)
        for name, text in CLEAN.items():
            self.write(name, text)

    def write(self, name, text):
        path = self.src / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run_check(self, script, *arguments):
        command = [sys.executable, str(HERE / script), *map(str, arguments)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)

    def assert_passes(self, script, *arguments):
        run = self.run_check(script, *arguments)
        self.assertEqual(run.returncode, 0, run.stdout)

    def assert_fault(self, text, script, *arguments):
        run = self.run_check(script, *arguments)
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertIn(text, run.stdout)


class Includes(Checks):
    def test_clean_tree_passes(self):
        self.assert_passes("check_includes.py", self.src)

    def test_empty_folder_fails(self):
        shutil.rmtree(self.src)
        self.src.mkdir()
        self.assert_fault("nothing to check", "check_includes.py", self.src)

    def test_upward_include_fails(self):
        self.write("base/span.h", '#include "policy/decide.h"\n')
        self.assert_fault("src/base/span.h:1", "check_includes.py", self.src)

    def test_sideways_include_fails(self):
        self.write("net/stream.h", '#include "http/head.h"\n')
        self.assert_fault("src/net/stream.h:1", "check_includes.py", self.src)

    def test_unknown_folder_fails(self):
        self.write("misc/a.c", "int a;\n")
        self.assert_fault("src/misc/a.c", "check_includes.py", self.src)

    def test_include_of_unknown_folder_fails(self):
        self.write("main.c", '#include "misc/a.h"\n')
        self.assert_fault("src/main.c:1", "check_includes.py", self.src)

    def test_uv_in_a_pure_floor_fails(self):
        self.write("policy/decide.h", "#include <uv.h>\n")
        self.assert_fault("policy/ is pure, but sees uv.h", "check_includes.py", self.src)

    def test_socket_header_seen_through_another_header_fails(self):
        self.write("base/span.h", "#include <sys/socket.h>\n")
        self.assert_fault("http/ is pure, but sees base/span.h -> sys/socket.h", "check_includes.py", self.src)

    def test_net_in_a_pure_floor_fails(self):
        self.write("policy/decide.h", '#include "net/stream.h"\n')
        self.assert_fault("policy/ is pure, but sees net/stream.h", "check_includes.py", self.src)

    def test_own_header_not_first_fails(self):
        self.write("http/head.c", '#include <string.h>\n#include "http/head.h"\n')
        self.assert_fault('the first include is not "http/head.h"', "check_includes.py", self.src)

    def test_commented_out_include_does_not_count(self):
        self.write("base/span.h", '/* #include "policy/decide.h" */\n// #include "main.h"\n')
        self.assert_passes("check_includes.py", self.src)


class Banned(Checks):
    def test_clean_tree_passes(self):
        self.assert_passes("check_banned.py", self.src)

    def test_banned_call_fails(self):
        self.write("base/span.c", "void f(char *a, char *b)\n{\n    strcpy(a, b);\n}\n")
        self.assert_fault("src/base/span.c:3: strcpy() is banned", "check_banned.py", self.src)

    def test_getaddrinfo_outside_net_fails(self):
        self.write("proxy/dial.c", "int f(void)\n{\n    return getaddrinfo(0, 0, 0, 0);\n}\n")
        self.assert_fault("src/proxy/dial.c:3: getaddrinfo() is banned", "check_banned.py", self.src)

    def test_name_in_comment_or_string_does_not_count(self):
        self.write("base/span.c", '/* strcpy(a, b) */\nconst char *s = "sprintf(";\n')
        self.assert_passes("check_banned.py", self.src)

    def test_longer_name_does_not_count(self):
        self.write("base/span.c", "int my_atoi(int a);\nint snprintf(int a);\n")
        self.assert_passes("check_banned.py", self.src)


class Generated(Checks):
    def check_against(self, stored):
        self.write("DOC.md", stored)
        return self.run_check("check_generated.py", self.src / "DOC.md", sys.executable, "-c", "print('one')")

    def test_same_text_passes(self):
        self.assertEqual(self.check_against("one\n").returncode, 0)

    def test_other_text_fails_and_shows_the_difference(self):
        run = self.check_against("two\n")
        self.assertEqual(run.returncode, 1)
        self.assertIn("-two", run.stdout)

    def test_program_that_prints_nothing_fails(self):
        self.write("DOC.md", "")
        self.assert_fault("printed nothing", "check_generated.py", self.src / "DOC.md", sys.executable, "-c", "")

    def test_failing_program_fails(self):
        self.write("DOC.md", "")
        run = self.run_check("check_generated.py", self.src / "DOC.md", sys.executable, "-c", "raise SystemExit(3)")
        self.assertNotEqual(run.returncode, 0)


@unittest.skipUnless(shutil.which("clang-format"), "clang-format is not installed")
class Format(Checks):
    def setUp(self):
        super().setUp()
        style = "{BasedOnStyle: LLVM, IndentWidth: 4, BreakBeforeBraces: Linux, SortIncludes: false, "
        style += "AllowShortFunctionsOnASingleLine: None}"
        (self.src.parent / ".clang-format").write_text(style, encoding="utf-8")

    def test_formatted_tree_passes(self):
        self.assert_passes("check_format.py", "clang-format", self.src)

    def test_unformatted_line_fails(self):
        self.write("base/span.c", "int   a;\n")
        self.assert_fault("span.c:1", "check_format.py", "clang-format", self.src)


class Documents(unittest.TestCase):
    LOGS = """# Logs
### `end`
| who | |
|---|---|
| `ok`, `idle` | |
| `ok/done` | |
### `deny`
| `address` | |
## Operations log
| `started` | |
| `asked` | |
| `BUG` | |
"""
    TREE = {
        "src/main.c": 'void f(void)\n{\n    log_info("started", 1);\n    LOG_AT(n ? LOG_WARN : LOG_INFO, "asked", 1);\n}\n',
        "src/policy/decide.h": '#define DENY_MAP(XX) \\\n    XX(NONE, "none") \\\n    XX(ADDRESS, "address")\n\nint a;\n',
        "src/proxy/end.h": '#define END_WHO_MAP(XX) XX(OK, "ok")\n\n#define END_PHASE_MAP(XX) XX(DONE, "done")\n\n'
        '#define TUNNEL_END_MAP(XX) XX(IDLE, "idle")\n\nint b;\n',
        "docs/LOGS.md": LOGS,
        "docs/METRICS.md": "| `proofgw_ready` | gauge |\n",
        "docs/ALERTS.md": "# Alerts\n\n## Down\n\nWhat.\n\n```\nproofgw_ready == 0\n```\n\nDo.\n",
        "deploy/prometheus/proofgw.rules.yml": "  - alert: Down\n    expr: proofgw_ready == 0\n",
        "docs/CONFIG.md": "## limits\n| `body` | |\n### limits.deep\n| `head` | |\n",
        "CONTRIBUTING.md": "",
        "docs/PROOFCTL.md": "## partner add\n## status\n",
        "README.md": "`proofgw_ready` `limits.body` `limits.*.head` `proofctl partner add --id` `proofctl status` docs/LOGS.md [l](docs/LOGS.md)\n",
    }

    def setUp(self):
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        for name, text in self.TREE.items():
            self.write(name, text)

    def write(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def outcome(self):
        command = [sys.executable, str(HERE / "check_documents.py"), str(self.root)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)

    def test_pages_that_agree_pass(self):
        run = self.outcome()
        self.assertEqual(run.returncode, 0, run.stdout)

    def test_every_fault_is_found(self):
        logs = self.LOGS
        summed = "  - alert: Down\n    expr: sum by (env) (proofgw_ready) == 0\n    annotations: {summary: '{{ $labels.instance }}'}\n"
        for name, text, fault in (
            ("docs/LOGS.md", logs.replace("| `started` | |\n", ""), "the event started is missing"),
            ("docs/LOGS.md", logs + "| `stopped` | |\n", "nothing writes the event stopped"),
            ("docs/LOGS.md", logs.replace("`address`", "`addres`"), "deny: address"),
            ("docs/LOGS.md", logs.replace("`ok`, `idle`", "`ok`"), "end: idle"),
            ("docs/ALERTS.md", "## Down\n\n```\nproofgw_ready == 1\n```\n", "docs/ALERTS.md: Down is not the rule"),
            ("deploy/prometheus/proofgw.rules.yml", summed, "Down names instance, which its sum has not kept"),
            ("README.md", "`proofgw_redy`", "there is no metric proofgw_redy"),
            ("README.md", "`limits.boddy`", "there is no key limits.boddy"),
            ("README.md", "`proofctl partner ad`", "there is no command proofctl partner ad"),
            ("README.md", "see docs/LOG.md", "there is no file docs/LOG.md"),
            ("CONTRIBUTING.md", "`src/none.c`", "there is no file src/none.c"),
            ("README.md", "[l](LOG.md)", "there is nothing behind the link LOG.md"),
        ):
            with self.subTest(fault):
                self.write(name, text)
                run = self.outcome()
                self.assertEqual(run.returncode, 1, run.stdout)
                self.assertIn(fault, run.stdout)
                self.write(name, self.TREE[name])


if __name__ == "__main__":
    unittest.main()
