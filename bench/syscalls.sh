#!/usr/bin/env bash
# System calls per proxied keep-alive GET, by strace on one worker; fails above the target of 4.2.
#
# Two runs that differ only in the number of requests: the difference leaves out accepting, connecting and attaching.
# With many connections one epoll_wait brings many events; with 1 there is nothing to batch (the worst case).
# Needs the right to trace (root: the gateway is not dumpable).
# usage: bench/syscalls.sh [CONNECTIONS]
source "$(dirname "$0")/common.sh"
command -v strace >/dev/null || die "strace is not installed"

connections=${1:-64}
target=4.2
few=2000
many=12000

# Total of calls while $1 requests run.
count_calls() {
    local tracer i
    : >"$scratch/strace.log"
    strace -c -f -o "$scratch/strace.txt" -p "$gateway_pid" 2>"$scratch/strace.log" &
    tracer=$!
    for ((i = 0; i < 200; i++)); do
        if grep -q attached "$scratch/strace.log"; then break; fi
        sleep 0.05
    done
    load --connections "$connections" --requests "$1" >"$scratch/load.txt" || die "load failed: $(cat "$scratch/load.txt")"
    kill -INT $tracer
    wait $tracer || true
    awk '$NF == "total" { print $4 }' "$scratch/strace.txt"
}

start_gateway 1
load --connections "$connections" --requests 1000 >/dev/null
base=$(count_calls $few)
more=$(count_calls $many)
cat "$scratch/strace.txt"
per_request=$(awk -v a="$base" -v b="$more" -v n=$((many - few)) 'BEGIN { printf "%.2f", (b - a) / n }')
echo "system calls per request: $per_request (target: at most $target)"
at_most "$per_request" $target
