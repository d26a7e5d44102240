#!/usr/bin/env bash
# Builds the gateway, starts it in front of a demo backend, and says what to try.
# Everything it starts ends with it.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: deploy/quickstart.sh [--port N] [--smoke]

Installs the packages it needs (Debian, Ubuntu), builds preset `release`, starts the demo backend and the gateway on
conf/quickstart.yaml, prints what to try, and shows the logs until Ctrl-C.

  --port N   the gateway listens on 127.0.0.1:N (default 8080)
  --smoke    try it all by itself instead: exit 0, or say what failed
  --help     this text

State (demo tokens, partner file, logs) is kept in build/quickstart/.
TEXT
}

root=$(cd "$(dirname "$0")/.." && pwd)
state=$root/build/quickstart
build=$root/build/release
port=8080
port_given=false
smoke=false
pids=() # backend, gateway, tail

while [ $# -gt 0 ]; do
    case $1 in
        --port)
            [[ ${2:-} =~ ^[0-9]{1,5}$ && $((10#$2)) -le 65535 ]] || { usage >&2 && exit 2; }
            port=$2 port_given=true
            shift
            ;;
        --smoke) smoke=true ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done
# A smoke run must not disturb a quickstart that is running, nor fail because the default port is taken.
if $smoke; then
    state=$state/smoke
    $port_given || port=0
fi

source "$root/deploy/packages.sh"

say() { printf '%s\n' "$@"; }
die() { printf 'quickstart: %s\n' "$*" >&2 && exit 1; }

# The gateway first, so that what it says when it stops is still shown.
stop_all() {
    local pid
    trap - EXIT INT TERM HUP
    for pid in "${pids[1]:-}" "${pids[0]:-}" "${pids[2]:-}"; do
        [ -n "$pid" ] || continue
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}

build_release() {
    # What was configured by hand in build/release stays; a fresh one goes without the tests' own packages.
    if [ ! -f "$build/CMakeCache.txt" ]; then
        say "Configuring ..."
        cmake -S "$root" --preset release -DBUILD_TESTING=OFF >"$state/build.log" 2>&1 ||
            { cat "$state/build.log" >&2 && die "cmake failed"; }
    fi
    say "Building ..."
    cmake --build "$build" --target proofgw proofctl proof-demo-backend >"$state/build.log" 2>&1 ||
        { tail -n 60 "$state/build.log" >&2 && die "the build failed; all of it is in $state/build.log"; }
}

# Takes partner $1 in, which may call from the addresses behind $2; the token goes into the file $2.
add_partner() {
    local id=$1 file=$2 ip made
    shift 2
    local options=()
    for ip in "$@"; do options+=(--ip "$ip"); done
    made=$("$build/proofctl" --store "$state/partners.ndjson" partner add --id "$id" --company "Demo ($id)" \
        --contact dev@example.com "${options[@]}")
    sed -n 's/^client_token *//p' <<<"$made" >"$file"
}

# Demo partners are made once: `demo` may call from loopback, `elsewhere` only from a documentation network.
make_partners() {
    [ ! -f "$state/partners.ndjson" ] || [ ! -f "$state/token" ] || [ ! -f "$state/token-elsewhere" ] || return 0
    rm -f "$state"/partners.ndjson* "$state"/token*
    (
        umask 077
        add_partner demo "$state/token" 127.0.0.1 ::1
        add_partner elsewhere "$state/token-elsewhere" 192.0.2.0/24
    )
}

with_parent=()
if setpriv --pdeathsig TERM true 2>/dev/null; then with_parent=(setpriv --pdeathsig TERM); fi

# Starts a program that dies with this script even if the script is killed, in a session of its own so that Ctrl-C
# reaches the script only, which then stops things in order. Output goes to $state/NAME.log.
start() {
    local name=$1
    shift
    setsid "${with_parent[@]}" "$@" >"$state/$name.log" 2>&1 </dev/null {lock}>&- &
    pids+=($!)
}

# Waits until a line of $state/$1.log matches $2 (sed), and prints what its group caught.
wait_for_line() {
    local found i
    touch "$state/$1.log"
    for ((i = 0; i < 200; i++)); do
        found=$(sed -n "s#.*$2.*#\\1#p" "$state/$1.log" | head -n 1)
        if [ -n "$found" ]; then
            printf '%s' "$found"
            return
        fi
        kill -0 "$3" 2>/dev/null || break
        sleep 0.05
    done
    cat "$state/$1.log" >&2
    die "$1 did not start"
}

start_all() {
    start backend "$build/bench/proof-demo-backend" --listen 127.0.0.1:0
    local backend i
    backend=$(wait_for_line backend 'listening on \(127\.0\.0\.1:[0-9]*\)' "${pids[0]}")
    PROOFGW_PORT=$port PROOFGW_BACKEND_PORT=${backend##*:} PROOFGW_ADMIN_PORT=0 \
        PROOFGW_PARTNERS=$state/partners.ndjson start gateway "$build/proofgw" run -c "$root/conf/quickstart.yaml"
    url=http://$(wait_for_line gateway 'event=listening address=\([0-9.]*:[0-9]*\)' "${pids[1]}")
    admin=http://$(wait_for_line gateway 'event=admin_listening address=\([0-9.]*:[0-9]*\)' "${pids[1]}")
    for ((i = 0; i < 200; i++)); do
        if curl -fs -o /dev/null "$admin/readyz"; then return; fi
        sleep 0.05
    done
    curl -s "$admin/readyz" >&2 || true
    die "the gateway did not become ready"
}

# What python's websockets calls its header argument; fails where there is no such library.
websockets_keyword() {
    /usr/bin/python3 -c 'import websockets
print("additional_headers" if int(websockets.__version__.split(".")[0]) >= 14 else "extra_headers")' 2>/dev/null
}

# What to paste to open a WebSocket. Lines of Python stand at the margin: it minds.
websocket_command() {
    local keyword
    if command -v websocat >/dev/null; then
        say "websocat -H=\"Authorization: Bearer \$(cat $state/token)\" '${url/http/ws}/ws?tx_id=order-1'"
    elif keyword=$(websockets_keyword); then
        say "/usr/bin/python3 -c 'import asyncio, sys, websockets"
        say "async def main():"
        say "    auth = {\"Authorization\": \"Bearer \" + sys.argv[1]}"
        say "    async with websockets.connect(\"${url/http/ws}/ws?tx_id=order-1\", $keyword=auth) as ws:"
        say "        async for message in ws: print(message, flush=True)"
        say "asyncio.run(main())' \"\$(cat $state/token)\""
    else
        say "curl -sN --output - '$url/ws?tx_id=order-1' -H \"Authorization: Bearer \$(cat $state/token)\" \\"
        say "     -H 'Connection: Upgrade' -H 'Upgrade: websocket' \\"
        say "     -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='"
    fi
}

print_what_to_try() {
    cat <<TEXT

The gateway is on $url, its health and metrics on $admin (/healthz /readyz /metrics).

A session (201):
  curl -i $url/widget/session -H "Authorization: Bearer \$(cat $state/token)" \\
       -H 'Content-Type: application/json' -d '{"merchant_transaction_id":"order-1"}'

No token (401):
  curl -i $url/widget/session -d '{}'

A partner whose allowlist does not have this address (403):
  curl -i $url/widget/session -H "Authorization: Bearer \$(cat $state/token-elsewhere)" -d '{}'

A WebSocket that follows a transaction (Ctrl-C ends it):
TEXT
    websocket_command
    say "" "Logs follow; Ctrl-C stops everything." ""
}

# Passes when the answer to curl "$@" has the status $1 and, somewhere, the text $2.
expect() {
    local status=$1 text=$2 answer
    shift 2
    # 28 = out of time: how an open WebSocket ends here.
    answer=$(curl -isN --max-time 3 "$@" | tr -d '\0') || [ $? = 28 ] || true
    if [[ $answer == "HTTP/1.1 $status "* && $answer == *"$text"* ]]; then
        say "ok    $status"
        return
    fi
    say "FAIL  expected status $status and '$text', got:" "$answer"
    failed=true
}

run_smoke() {
    local token elsewhere pasted failed=false
    token="Authorization: Bearer $(cat "$state/token")"
    elsewhere="Authorization: Bearer $(cat "$state/token-elsewhere")"
    expect 201 smoke-1 "$url/widget/session" -H "$token" \
        -H 'Content-Type: application/json' -d '{"merchant_transaction_id":"smoke-1"}'
    expect 401 missing_token "$url/widget/session" -d '{}'
    expect 403 forbidden_origin "$url/widget/session" -H "$elsewhere" -d '{}'
    expect 101 tx.update "$url/ws?tx_id=smoke-1" -H "$token" -H 'Connection: Upgrade' \
        -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
    pasted=$(timeout 3 bash -c "$(websocket_command)" 2>&1 | tr -d '\0') || true # the time is how it ends
    if [[ $pasted == *tx.update* ]]; then
        say "ok    the WebSocket that is shown"
    else
        say "FAIL  the WebSocket that is shown:" "$pasted"
        failed=true
    fi
    if ! $failed; then return; fi
    cat "$state/gateway.log"
    die "smoke test failed"
}

# The gateway stops in order, with exit code 0, before everything else is stopped.
stop_gateway() {
    local code=0
    kill -TERM "${pids[1]}"
    wait "${pids[1]}" || code=$?
    [ $code = 0 ] || { cat "$state/gateway.log" && die "the gateway stopped with exit code $code"; }
}

# The gateway itself would share the port with another one of the same user (SO_REUSEPORT).
check_port() {
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        die "something listens on 127.0.0.1:$port already; stop it or choose another port with --port"
    fi
}

mkdir -p "$state"
exec {lock}>"$state/lock"
flock -n "$lock" || die "another quickstart uses $state; stop it first"
check_port
packages_install build
(
    flock 9 # two at once in one build folder would trip over each other
    build_release
) 9>"$root/build/lock"
make_partners
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
start_all
if $smoke; then
    run_smoke
    stop_gateway
    say "smoke test passed"
else
    print_what_to_try
    "${with_parent[@]}" tail -n +1 -f "$state/gateway.log" {lock}>&- &
    pids+=($!)
    wait "${pids[1]}" || die "the gateway stopped with exit code $?"
fi
