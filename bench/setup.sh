#!/usr/bin/env bash
# Installs what bench/run.py compares with and needs (Debian, Ubuntu), and builds the gateway as it is installed, and our tools.
#
# The peers' services are not started: a policy-rc.d says no while they are installed. What was there before stays as it was.
# usage: bench/setup.sh
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
policy=/usr/sbin/policy-rc.d
PATH=$PATH:/usr/sbin:/sbin
source "$root/deploy/packages.sh"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

allow_services() { as_root rm -f "$policy"; }

forbid_services() {
    if [ -e "$policy" ]; then return; fi # somebody else's rule, for example a container's: it holds already
    trap allow_services EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

missing=$(packages_missing build profile bench)
if [ -n "$missing" ]; then
    if command -v apt-get >/dev/null; then forbid_services; fi
    packages_install build profile bench
fi

"$root/deploy/build.sh"
echo "Ready: bench/run.py --quick"
