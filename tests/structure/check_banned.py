"""Checks that no banned function is called below src/ and bench/.

usage: check_banned.py SRC_DIR [DIR...]

Comments and literals do not count. A name counts when it stands alone, so uv_getaddrinfo is another function.
"""

import re
import sys
from pathlib import Path

from c_source import c_files, code_of, finish

BANNED = {
    "strcpy": "memcpy with a checked length, or outbuf",
    "strncpy": "memcpy with a checked length, or outbuf",
    "stpcpy": "memcpy with a checked length, or outbuf",
    "strcat": "outbuf",
    "strncat": "outbuf",
    "sprintf": "outbuf or snprintf",
    "vsprintf": "outbuf or vsnprintf",
    "strtok": "spans",
    "strtok_r": "spans",
    "atoi": "span_to_u64",
    "atol": "span_to_u64",
    "atoll": "span_to_u64",
    "gets": "nothing",
    "alloca": "an arena or a bounded array",
    "gethostbyname": "net/resolver",
    "getaddrinfo": "net/resolver",
    "uv_getaddrinfo": "net/resolver",
    "assert": "BUG_IF for our own faults, an error for bad input",
}
# function -> the only folder that may call it
HOMES = {"getaddrinfo": "net", "uv_getaddrinfo": "net"}

_CALL = re.compile(r"\b(" + "|".join(BANNED) + r")[ \t\n]*\(")


def check_file(root, path):
    relative = path.relative_to(root)
    text = code_of(path)
    faults = []
    for match in _CALL.finditer(text):
        name = match.group(1)
        if HOMES.get(name) == relative.parts[0]:
            continue
        line = text.count("\n", 0, match.start()) + 1
        faults.append(f"{root.name}/{relative}:{line}: {name}() is banned; use {BANNED[name]}")
    return faults


def main():
    faults, checked = [], 0
    for root in map(Path, sys.argv[1:]):
        for path in c_files(root):
            faults += check_file(root, path)
            checked += 1
    finish(faults, checked)


if __name__ == "__main__":
    main()
