#!/usr/bin/env bash
# User-space memory of the gateway per idle keep-alive connection and per idle tunnel; fails above 1 and 2 KiB.
#
# Private memory (Private_Clean + Private_Dirty) of the process with a few connections open, and with many more:
# the difference, divided by their number. Kernel memory of the sockets is not in it.
# Needs root: the gateway is not dumpable.
# usage: bench/memory.sh [CONNECTIONS]
source "$(dirname "$0")/common.sh"

connections=${1:-5000}

private_kib() { awk '/^Private_(Clean|Dirty):/ { sum += $2 } END { print sum }' "/proc/$gateway_pid/smaps_rollup"; }

# Opens $1 connections with the load options that follow and leaves them open; they end with `release`.
hold() {
    local count=$1 fifo=$scratch/hold-$1
    shift
    mkfifo "$fifo"
    load --idle "$count" "$@" <"$fifo" >"$scratch/hold-$count.log" &
    holders+=($!)
    exec {fd}>"$fifo"
    open_fds+=("$fd")
    wait_for_line "hold-$count" '\(idle [0-9]*\)' >/dev/null
}

release() {
    local fd holder
    for fd in "${open_fds[@]}"; do exec {fd}>&-; done
    for holder in "${holders[@]}"; do wait "$holder" || die "connections were lost: $(cat "$scratch"/hold-*.log)"; done
}

# On a gateway of its own: memory that an earlier measurement freed would be used again. Sets kib_each.
measure() {
    local before after
    holders=() open_fds=()
    start_gateway 1
    [ -r "/proc/$gateway_pid/smaps_rollup" ] || die "cannot read /proc/$gateway_pid/smaps_rollup: run as root"
    hold $((connections / 10)) "$@"
    before=$(private_kib)
    hold "$connections" "$@"
    after=$(private_kib)
    release
    stop_programs
    rm "$scratch"/*
    kib_each=$(awk -v a="$before" -v b="$after" -v n="$connections" 'BEGIN { printf "%.2f", (b - a) / n }')
}

measure
connection=$kib_each
measure --ws
tunnel=$kib_each
echo "KiB per idle connection: $connection (target: at most 1)"
echo "KiB per idle tunnel:     $tunnel (target: at most 2)"
at_most "$connection" 1 && at_most "$tunnel" 2
