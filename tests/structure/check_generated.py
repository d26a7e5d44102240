"""Checks that a generated file in the tree is what the program prints today.

usage: check_generated.py FILE PROGRAM [ARGUMENT...]
"""

import difflib
import subprocess
import sys
from pathlib import Path


def main():
    path, command = Path(sys.argv[1]), sys.argv[2:]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    stored = path.read_text(encoding="utf-8")
    if not printed:
        sys.exit(f"{' '.join(command)} printed nothing")
    if printed == stored:
        return
    diff = difflib.unified_diff(stored.splitlines(), printed.splitlines(), str(path), "the program", lineterm="")
    print("\n".join(diff))
    arguments = " ".join([Path(command[0]).name, *command[1:]])
    sys.exit(f"{path.name} is out of date; print it anew: {arguments} > {path}")


if __name__ == "__main__":
    main()
