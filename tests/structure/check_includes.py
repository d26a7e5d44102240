"""Checks the #include lines below src/: floors, purity, and that each .c file starts with its own header.

usage: check_includes.py SRC_DIR

A file may include its own floor and lower ones. Two folders on the same floor do not know each other. http/ and
policy/ are pure: neither they nor what they include may see libuv, sockets, files or clocks.
"""

import sys
from pathlib import Path

from c_source import c_files, finish, includes_of

FLOORS = {
    "base": 0,
    "http": 1,
    "net": 1,
    "policy": 2,
    "config": 3,
    "store": 4,
    "proxy": 5,
    "control": 6,
    "main": 7,
    "proofctl": 7,
}
PURE = ("http", "policy")
IMPURE_HEADERS = (
    "uv.h", "uv/", "sys/socket.h", "sys/un.h", "sys/uio.h", "sys/epoll.h", "netinet/", "net/", "arpa/", "netdb.h",
    "poll.h", "sys/stat.h", "fcntl.h", "unistd.h", "time.h", "sys/time.h",
)  # fmt: skip


def folder_of(relative):
    """The folder that decides the floor: src/main.c counts as one of its own."""
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def upward_fault(folder, name):
    """Why `folder` may not include "name", or None."""
    target = folder_of(Path(name))
    if target == folder or name == "gw_version.h":
        return None
    if target not in FLOORS:
        return f'"{name}" is in no known floor'
    if FLOORS[target] >= FLOORS[folder]:
        return f'"{name}" is on floor {FLOORS[target]}, {folder}/ is on floor {FLOORS[folder]}'
    return None


def impure_header(src, path, seen):
    """The first header not fit for a pure floor that `path` sees, as a chain of names, or None."""
    for _, kind, name in includes_of(path):
        if name.startswith(IMPURE_HEADERS):
            return name
        target = src / name
        if kind == '"' and target.is_file() and target not in seen:
            seen.add(target)
            chain = impure_header(src, target, seen)
            if chain:
                return f"{name} -> {chain}"
    return None


def check_file(src, path):
    relative = path.relative_to(src)
    folder = folder_of(relative)
    if folder not in FLOORS:
        return [f"src/{relative}: not in a known floor; add the folder to {Path(__file__).name}"]

    faults = []
    includes = list(includes_of(path))
    for line, kind, name in includes:
        fault = upward_fault(folder, name) if kind == '"' else None
        if fault:
            faults.append(f"src/{relative}:{line}: {fault}")
    if folder in PURE:
        chain = impure_header(src, path, set())
        if chain:
            faults.append(f"src/{relative}: {folder}/ is pure, but sees {chain}")
    own = relative.with_suffix(".h")
    if path.suffix == ".c" and (src / own).is_file() and (not includes or includes[0][2] != str(own)):
        faults.append(f'src/{relative}: the first include is not "{own}"')
    return faults


def main():
    src = Path(sys.argv[1])
    files = c_files(src)
    finish([fault for path in files for fault in check_file(src, path)], len(files))


if __name__ == "__main__":
    main()
