#!/usr/bin/env bash
# Builds what is installed: preset `profiled`, optimised with a profile that bench/run.py records on this machine.
# docs/adr/0005-profile.md says what that brings.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: deploy/build.sh [--prefix DIR] [--plain]

Installs the packages it needs (Debian, Ubuntu) and builds proofgw and proofctl into build/profiled, in three steps that
take two minutes: with counters, under load on loopback, and with what was counted. Then: cmake --install build/profiled

  --prefix DIR   where it will be installed (default /usr)
  --plain        without a profile, in one step: the same program, a little slower; for compilers other than gcc
  --help         this text
TEXT
}

root=$(cd "$(dirname "$0")/.." && pwd)
folder=$root/build/profiled
log=$folder/build.log
prefix=/usr
profiled=true
# Everything that a request can meet; what starts and reloads is not worth it.
scenarios=A,B,AT,C,D,DR,DP,E,ET,E16K,F401,F403,G64,G1M,GT64,GT1M

while [ $# -gt 0 ]; do
    case $1 in
        --prefix)
            [[ ${2:-} == /* ]] || { usage >&2 && exit 2; }
            prefix=$2
            shift
            ;;
        --plain) profiled=false ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

source "$root/deploy/packages.sh"

die() { printf 'build: %s\n' "$*" >&2 && exit 1; }

# build PROFILE [targets]
build() {
    local profile=$1
    shift
    [ $# = 0 ] || set -- --target "$@"
    cmake -S "$root" --preset profiled -DGW_PROFILE="$profile" -DBUILD_TESTING=OFF -DCMAKE_INSTALL_PREFIX="$prefix" \
        >"$log" 2>&1 && cmake --build "$folder" -j "$(nproc)" "$@" >>"$log" 2>&1 && return
    grep -v '^\[' "$log" | tail -n 60 >&2
    die "the build failed; all of it is in $log"
}

# Counts add up over runs: those of an earlier build, perhaps of other sources, would mislead.
train() {
    find "$folder" -name '*.gcda' -delete
    "$root/bench/run.py" --build "$folder" --gateways proofgw --scenarios "$scenarios" --rounds 2 --seconds 0.3 \
        --output "$folder/training" >"$log" 2>&1 || { tail -n 20 "$log" >&2 && die "the load failed; see $log"; }
    ! grep 'n/a' "$log" >&2 || die "not every kind of request could be tried; see $log"
    [ -n "$(find "$folder/CMakeFiles/gw_proxy.dir" -name '*.gcda' -print -quit)" ] || die "the gateway wrote no profile"
}

packages_install build
mkdir -p "$folder"
exec {lock}>"$folder/.lock"
flock -n "$lock" || die "another build of $folder runs"
trap 'rm -f "$folder/proofgw" "$folder/proofctl"' EXIT # what counts must never be installed
if $profiled; then
    packages_install profile
    echo "Building with counters ..."
    build record proofgw proof-demo-backend proof-load proof-relay
    echo "Recording a profile ..."
    train
    echo "Building with the profile ..."
    build use
else
    echo "Building ..."
    build ""
fi
trap - EXIT
echo "Ready: cmake --install $folder"
