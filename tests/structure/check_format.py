"""Checks that clang-format would change nothing.

usage: check_format.py CLANG_FORMAT DIR...
"""

import re
import subprocess
import sys

from c_source import c_files, finish

_FAULT = re.compile(r"^(.+:\d+:\d+): error: code should be clang-formatted")


def main():
    clang_format, roots = sys.argv[1], sys.argv[2:]
    files = [path for root in roots for path in c_files(root)]
    run = subprocess.run(
        [clang_format, "--dry-run", "--Werror", *map(str, files)], stderr=subprocess.PIPE, text=True, check=False
    )
    faults = [match.group(1) for match in map(_FAULT.match, run.stderr.splitlines()) if match]
    if run.returncode and not faults:
        faults = [run.stderr]
    finish([f"{fault}: run clang-format -i" for fault in faults], len(files))


if __name__ == "__main__":
    main()
