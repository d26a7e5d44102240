"""What the structure checks share: finding C files and reading them without comments and literals."""

import re
import sys
from pathlib import Path

# A string or character literal, or a comment: whichever starts first wins, so "/*" in a string is no comment.
_OPAQUE = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|/\*.*?\*/|//[^\n]*', re.DOTALL)
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def c_files(root, pattern="*.[ch]"):
    """Every C file below `root`, sorted."""
    return sorted(Path(root).rglob(pattern))


def _blank(match, keep_strings):
    text = match.group(0)
    if keep_strings and text[0] == '"':
        return text
    return re.sub(r"[^\n]", " ", text)


def code_of(path, keep_strings=False):
    """The file's text with comments (and literals) replaced by spaces; line numbers stay."""
    text = Path(path).read_text(encoding="utf-8")
    return _OPAQUE.sub(lambda match: _blank(match, keep_strings), text)


def includes_of(path):
    """Yields (line number, '<' or '"', name) for each #include of the file."""
    text = code_of(path, keep_strings=True)
    for match in _INCLUDE.finditer(text):
        yield text.count("\n", 0, match.start(1)) + 1, match.group(1), match.group(2)


def finish(faults, checked):
    """Prints the faults and leaves with 1 if there are any, or if nothing was checked at all."""
    for fault in faults:
        print(fault)
    if not checked:
        print("nothing to check: wrong folder?")
    print(f"{checked} files checked, {len(faults)} faults")
    sys.exit(1 if faults or not checked else 0)
