# shellcheck shell=bash
# Sourced by the measuring scripts: a backend and a gateway on ports the kernel chooses, one partner, everything in
# a scratch folder, everything ended with the script. Uses what is built in build/release; builds nothing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${PROOFGW_BUILD_DIR:-$root/build/release}
scratch=$(mktemp -d)
token=bench-$(head -c 24 /dev/urandom | base64 | tr '+/' '-_')
authorization="Authorization: Bearer $token"
pids=()

die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2 && exit 1; }

stop_programs() {
    local pid
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    pids=()
}

trap 'stop_programs; rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for program in proofgw bench/proof-demo-backend bench/proof-load; do
    [ -x "$build/$program" ] || die "$build/$program is missing: cmake --preset release && cmake --build --preset release"
done

# Waits for a line of $scratch/$1.log that matches $2 (sed) and prints what its group caught.
wait_for_line() {
    local found i
    touch "$scratch/$1.log"
    for ((i = 0; i < 200; i++)); do
        found=$(sed -n "s#.*$2.*#\\1#p" "$scratch/$1.log" | head -n 1)
        if [ -n "$found" ]; then
            printf '%s' "$found"
            return
        fi
        sleep 0.05
    done
    cat "$scratch/$1.log" >&2
    die "$1: no line with $2"
}

# $1 = workers. Sets gateway_pid, gateway (ADDRESS:PORT).
start_gateway() {
    local backend
    mkdir -p "$scratch/store"
    rm -f "$scratch"/*.log
    "$build/bench/proof-demo-backend" --threads 1 >"$scratch/backend.log" 2>&1 &
    pids+=($!)
    backend=$(wait_for_line backend 'listening on \(.*\)')
    printf '{"partner_id":"bench","company":"Bench","contact":"bench@example.com","client_token_sha256":"%s","widget_id":"%s","off_ramp":false,"production_cidrs":["127.0.0.1"],"sandbox_cidrs":[],"enabled":true}\n' \
        "$(printf '%s' "$token" | sha256sum | cut -d' ' -f1)" "$(cat /proc/sys/kernel/random/uuid)" >"$scratch/store/partners.ndjson"
    cat >"$scratch/gateway.yaml" <<YAML
workers: $1
listeners:
  - address: "127.0.0.1:0"
environments:
  production:
    hosts: [localhost]
    upstream: "$backend"
store:
  file: store/partners.ndjson # its folder is watched: no log belongs into it (docs/OPERATIONS.md)
limits:
  connections_per_source: 0
  tunnels_per_worker: 20000
logs:
  access: "access.log"
admin:
  address: "127.0.0.1:0"
YAML
    "$build/proofgw" run -c "$scratch/gateway.yaml" >"$scratch/gateway.log" 2>&1 &
    gateway_pid=$!
    pids+=("$gateway_pid")
    gateway=$(wait_for_line gateway 'event=listening address=\([0-9.]*:[0-9]*\)')
    local admin i
    admin=$(wait_for_line gateway 'event=admin_listening address=\([0-9.]*:[0-9]*\)')
    for ((i = 0; i < 200; i++)); do
        if curl -fs -o /dev/null "http://$admin/readyz"; then return; fi
        sleep 0.05
    done
    cat "$scratch/gateway.log" >&2
    die "the gateway did not become ready"
}

load() { "$build/bench/proof-load" --target "$gateway" --header "$authorization" "$@"; }

# Is $1 at most $2? (decimals)
at_most() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a <= b) }'; }
