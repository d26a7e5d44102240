"""Checks that the hand-written pages agree with the code and with the generated pages.

usage: check_documents.py ROOT

* docs/LOGS.md has every event of the operations log, and no other; every reason of a denial, every `end`.
* docs/ALERTS.md has the alerts of deploy/prometheus with their expressions.
* Metrics, configuration keys, proofctl's commands and files that a page names exist.
"""

import re
import sys
from pathlib import Path

from c_source import c_files, code_of

_EVENT = re.compile(r'(?:\blog_(?:debug|info|warn|error)\(|\b(?:own|log)_event\(\s*LOG_\w+,|\bLOG_\w+,\s*"log",|\bLOG_AT\([^"(]*,)\s*"(\w+)"')
_LABEL = re.compile(r'XX\(\w+,\s*"(\w+)"\)')
_CODE = re.compile(r"`([^`\n]+)`")
_SECTIONS = "listeners|tls|environments|identity|fields|limits|timeouts|store|logs|admin"
_KEY = re.compile(rf"(?:{_SECTIONS})(?:\[\])?(?:\.(?:\*|[a-z_]{{2,}}))+")
_FILE = re.compile(r"(?<![\w/.-])(?:docs|conf|deploy|tests|bench|src)/[\w./-]+\w")
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def table(text, heading):
    """First columns of the table below a heading, without backquotes; a cell may hold several words."""
    section = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.M | re.S)
    if not section:
        return set()
    return set(re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\|([^|]*)\|", section[1], re.M))))


def labels(path, macro):
    """The texts of an X-macro's rows."""
    found = re.search(rf"#define {macro}\(XX\)(.*?)\n\n", code_of(path, keep_strings=True), re.S)
    return set(_LABEL.findall(found[1])) - {"none"} if found else set()


def events_of(src):
    """The names of all events of the operations log."""
    events = {"BUG"}
    for path in c_files(src, "*.c"):
        events |= set(_EVENT.findall(code_of(path, keep_strings=True)))
    return events


def check_logs(root, faults):
    text = (root / "docs/LOGS.md").read_text(encoding="utf-8")
    listed, written = table(text, "Operations log"), events_of(root / "src")
    if not written - {"BUG"}:
        faults.append("src: no events were found: wrong folder?")
    faults += [f"docs/LOGS.md: the event {name} is missing" for name in sorted(written - listed)]
    faults += [f"docs/LOGS.md: nothing writes the event {name}" for name in sorted(listed - written)]
    denials = labels(root / "src/policy/decide.h", "DENY_MAP")
    faults += [f"docs/LOGS.md: deny: {name}" for name in sorted(denials ^ table(text, "`deny`"))]
    ends = set()
    for macro in ("END_WHO_MAP", "END_PHASE_MAP", "TUNNEL_END_MAP"):
        ends |= labels(root / "src/proxy/end.h", macro)
    named = {word for cell in table(text, "`end`") - {"end"} for word in cell.split("/")}
    faults += [f"docs/LOGS.md: end: {name}" for name in sorted(ends ^ named)]


def check_alerts(root, faults):
    rules = (root / "deploy/prometheus/proofgw.rules.yml").read_text(encoding="utf-8")
    page = (root / "docs/ALERTS.md").read_text(encoding="utf-8")
    fired = dict(re.findall(r"- alert: (\w+)\n +expr: (.+)", rules))
    explained = dict(re.findall(r"^## (\w+)\n\n.*?^```\n(.+?)\n```$", page, re.M | re.S))
    if not fired:
        faults.append("deploy/prometheus/proofgw.rules.yml has no alerts")
    for name in sorted(fired.keys() | explained.keys()):
        if fired.get(name) != explained.get(name):
            faults.append(f"docs/ALERTS.md: {name} is not the rule of deploy/prometheus/proofgw.rules.yml")
    for name, rule in re.findall(r"- alert: (\w+)\n(.*?)(?=- alert:|\Z)", rules, re.S):
        for kept in re.findall(r"\bby \(([^)]*)\)", rule):
            for label in sorted(set(re.findall(r"\$labels\.(\w+)", rule)) - set(re.findall(r"\w+", kept))):
                faults.append(f"deploy/prometheus/proofgw.rules.yml: {name} names {label}, which its sum has not kept")


def keys_of(config):
    """Every key of docs/CONFIG.md with its path."""
    section, keys = "", set()
    for line in config.splitlines():
        if line.startswith("##"):
            section = line.split()[1].replace("[]", "") + "." if line != "## Process" else ""
            keys.add(section[:-1])
        elif line.startswith("| `"):
            keys.add(section + line.split("`")[1])
    return keys


def is_key(name, keys):
    """`name` may have a * for one word, and may be the beginning of a path."""
    name = name.replace("[]", "").removesuffix(".*")
    pattern = re.compile(re.escape(name).replace(r"\*", r"\w+") + r"(\..*)?")
    return any(pattern.fullmatch(key) for key in keys)


def check_page(root, page, known, faults):
    name, text = page.relative_to(root), page.read_text(encoding="utf-8")
    for metric in sorted(set(re.findall(r"\bproofgw_[a-z_]+[a-z]\b(?!\*)", text))):
        base = re.sub(r"_(bucket|count|sum)$", "", metric)
        if not {metric, base} & known["metrics"]:
            faults.append(f"{name}: there is no metric {metric}")
    for code in sorted(set(_CODE.findall(text))):
        if _KEY.fullmatch(code) and not is_key(code, known["keys"]):
            faults.append(f"{name}: there is no key {code}")
        command = re.match(r"proofctl ([a-z-]+)(?: ([a-z]+))?", code)
        if command and not {command[1], f"{command[1]} {command[2]}"} & known["commands"]:
            faults.append(f"{name}: there is no command {code}")
    for file in sorted(set(_FILE.findall(text))):
        if not (root / file).exists() and not list(root.glob(f"{file}.*")):
            faults.append(f"{name}: there is no file {file}")
    for link in _LINK.findall(text):
        if "://" not in link and not (page.parent / link).exists():
            faults.append(f"{name}: there is nothing behind the link {link}")


def main():
    root, faults = Path(sys.argv[1]), []
    docs = root / "docs"
    known = {
        "metrics": set(re.findall(r"^\| `(\w+)` \|", (docs / "METRICS.md").read_text(encoding="utf-8"), re.M)),
        "keys": keys_of((docs / "CONFIG.md").read_text(encoding="utf-8")),
        "commands": set(re.findall(r"^## (.+)$", (docs / "PROOFCTL.md").read_text(encoding="utf-8"), re.M)),
    }
    check_logs(root, faults)
    check_alerts(root, faults)
    pages = [*sorted(root.glob("*.md")), root / "deploy/prometheus/proofgw.rules.yml", *sorted(docs.rglob("*.md"))]
    for page in pages:
        check_page(root, page, known, faults)
    for fault in faults:
        print(fault)
    print(f"{len(pages)} pages checked, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
