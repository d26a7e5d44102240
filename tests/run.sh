#!/usr/bin/env bash
# Runs every test; the last line is `N passed, N failed[, N skipped]`.
set -uo pipefail

usage() {
    cat <<'TEXT'
usage: tests/run.sh [--quick] [--full] [-k EXPRESSION]

Installs what the tests need (Debian, Ubuntu), builds preset `dev` (ASan, UBSan) and runs
  ctest     unit tests and structure checks
  pytest    tests/e2e: the real program with real clients
  slow      the pytest cases marked slow (a million partners, 10,000 tunnels), in the build that is installed, one at a time
  tsan      the unit tests that use threads, and tests/e2e again, under ThreadSanitizer
  fuzz      each fuzz target over its corpus and for a few seconds more (needs clang)

  --quick         leaves out slow, tsan and fuzz
  --full          reloads, certificate swaps and upgrades under load as often as they are meant to be (short otherwise)
  -k EXPRESSION   only the pytest cases that match
  --help          this text

FUZZ_SECONDS (default 5) is the time of one fuzz target, JOBS the number of parallel jobs.
TEXT
}

root=$(cd "$(dirname "$0")/.." && pwd)
results=$root/build/results
jobs=${JOBS:-$(nproc)}
fuzz_seconds=${FUZZ_SECONDS:-5}
python=/usr/bin/python3
quick=false
expression=""
passed=0 failed=0 skipped=0

while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=true ;;
        --full) export PROOFGW_FULL=1 ;;
        -k)
            expression=${2:?-k needs an expression}
            shift
            ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
    shift
done

source "$root/deploy/packages.sh"

stage() { printf '\n== %s\n' "$*"; }

# Counts one thing that is no test runner of its own, for example a build.
count_step() {
    if [ "$1" = 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n' "$2"
    fi
}

finish() {
    local tail=""
    [ $skipped = 0 ] || tail=", $skipped skipped"
    printf '\n%d passed, %d failed%s\n' $passed $failed "$tail"
    [ $failed = 0 ] && [ $passed -gt 0 ]
    exit
}

# Adds up the <testsuite> elements of a JUnit file. No file, or no test in it: the runner itself failed.
count_junit() {
    local file=$1 code=$2 name=$3 totals tests bad ignored
    totals=$("$python" - "$file" 2>/dev/null <<'PY'
import sys
import xml.etree.ElementTree as tree

def total(*names):
    return sum(int(suite.get(name) or 0) for suite in suites for name in names)

suites = list(tree.parse(sys.argv[1]).getroot().iter("testsuite"))
print(total("tests"), total("failures", "errors"), total("skipped", "disabled"))
PY
    ) || totals="0 0 0"
    read -r tests bad ignored <<<"$totals"
    if [ "$tests" = 0 ] || { [ "$code" != 0 ] && [ "$bad" = 0 ]; }; then
        count_step 1 "$name ended with exit code $code and reported $tests tests"
        return
    fi
    passed=$((passed + tests - bad - ignored)) failed=$((failed + bad)) skipped=$((skipped + ignored))
}

# Configures and builds a preset, or only the given targets of it; quietly unless it fails. `configure` holds
# further arguments of cmake.
configure=()
build() {
    local preset=$1 log=$results/build-$1.log
    shift
    [ $# = 0 ] || set -- --target "$@"
    if cmake -S "$root" --preset "$preset" -DBUILD_TESTING=ON "${configure[@]}" >"$log" 2>&1 &&
        cmake --build "$root/build/$preset" -j "$jobs" "$@" >>"$log" 2>&1; then
        return 0
    fi
    grep -v '^\[' "$log" | tail -n 60
    return 1
}

run_ctest() {
    local preset=$1 code=0
    shift
    ctest --test-dir "$root/build/$preset" -j "$jobs" --output-on-failure --no-tests=error \
        --output-junit "$results/ctest-$preset.xml" "$@" || code=$?
    count_junit "$results/ctest-$preset.xml" $code "ctest ($preset)"
}

# Regular expression of the unit tests that start threads.
threaded_tests() {
    grep -lE 'pthread_create|uv_thread_create|uv_queue_work|log_start' -r "$root/tests/unit" --include='test_*.c' |
        sed -E 's#.*/([^/]+)/(test_[^/]+)\.c$#^unit\\.\1\\.\2$#' | paste -sd'|'
}

# promtool alone, without the daemon that its package would start.
find_promtool() {
    local tools=$root/build/tools
    ! command -v promtool >/dev/null || return 0
    PATH=$tools/usr/bin:$PATH
    [ -x "$tools/usr/bin/promtool" ] || {
        mkdir -p "$tools" && cd "$tools" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .
    } >/dev/null 2>&1 || echo "promtool is not available: the tests that need it are skipped"
    cd "$root" || exit 1
}

# redis-server without the daemon that its package would start: the binary is in redis-tools under another name, and
# goes by the name it is called with.
find_redis() {
    local tools=$root/build/tools/usr/bin
    ! command -v redis-server >/dev/null || return 0
    if command -v redis-check-rdb >/dev/null; then
        mkdir -p "$tools" && ln -sf "$(command -v redis-check-rdb)" "$tools/redis-server"
        PATH=$tools:$PATH
    fi
    command -v redis-server >/dev/null || echo "redis-server is not available: the tests that need it are skipped"
}

# run_pytest PRESET [further arguments of pytest]
run_pytest() {
    local preset=$1 code=0 select=()
    shift
    [ -z "$expression" ] || select=(-k "$expression")
    PROOFGW_BIN=$root/build/$preset/proofgw "$python" -B -m pytest "$root/tests/e2e" -n 2 -q -p no:cacheprovider \
        --junitxml "$results/pytest-$preset.xml" "$@" "${select[@]}" || code=$?
    # Code 5: no case was selected. With -k that may well be so among a part of the cases.
    [ $# -gt 0 ] && [ -n "$expression" ] && [ $code = 5 ] && return
    count_junit "$results/pytest-$preset.xml" $code "pytest ($preset)"
}

# The executable of a fuzz target's source.
fuzz_target() {
    local floor module
    floor=$(basename "$(dirname "$1")")
    module=$(basename "$1" .c)
    echo "fuzz_${floor}_${module#fuzz_}"
}

# Each target runs over its seeds and then for fuzz_seconds; finds stay in build/fuzz/found.
run_fuzz() {
    local compiler source target corpus log targets=() code folder=$root/build/fuzz
    compiler=$(command -v clang-14 || command -v clang) || {
        echo "clang is not installed: fuzzing is skipped"
        skipped=$((skipped + 1))
        return
    }
    for source in "$root"/tests/fuzz/*/fuzz_*.c; do targets+=("$(fuzz_target "$source")"); done
    configure=(-DCMAKE_C_COMPILER="$compiler")
    build fuzz "${targets[@]}" || { count_step 1 "build of the fuzz targets" && return; }
    mkdir -p "$folder/found"
    for source in "$root"/tests/fuzz/*/fuzz_*.c; do
        target=$(fuzz_target "$source")
        corpus=${source%.c}
        corpus=${corpus%/fuzz_*}/corpus_${corpus##*/fuzz_}
        log=$results/$target.log
        code=0
        rm -rf "$folder/scratch" && mkdir "$folder/scratch"
        "$folder/tests/$target" -max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=2048 -seed=1 \
            -artifact_prefix="$folder/found/" "$folder/scratch" "$corpus" >"$log" 2>&1 || code=$?
        [ $code = 0 ] || tail -n 40 "$log"
        echo "$target: $(grep '^Done' "$log")"
        count_step $code "$target"
    done
}

rm -rf "$results"
mkdir -p "$results"
cd "$root" || exit 1

stage "packages"
packages_install build test || { count_step 1 "packages" && finish; }
packages_install node || echo "node's ws and undici are not available here: the test with them is skipped"
packages_install clang || echo "clang 14 is not available here: what needs it is left out"
find_promtool
find_redis

stage "build (dev)"
build dev
code=$?
count_step $code "build of preset dev"
[ $code = 0 ] || finish

stage "build (release)" # what test_cost counts the instructions of
build release proofgw
count_step $? "build of preset release"

stage "ctest (dev)"
run_ctest dev

stage "pytest (dev)"
run_pytest dev

if ! $quick; then
    stage "pytest, slow cases (as installed)"
    "$root/deploy/build.sh"
    code=$?
    count_step $code "deploy/build.sh"
    [ $code != 0 ] || run_pytest profiled -m slow -n 0

    stage "threads (tsan)"
    if build tsan; then
        run_ctest tsan -R "$(threaded_tests)"
        run_pytest tsan
    else
        count_step 1 "build of preset tsan"
    fi

    stage "fuzz"
    run_fuzz
fi
finish
