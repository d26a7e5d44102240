#!/usr/bin/env bash
# Runs every test; the last line is `N passed, N failed[, N skipped]`.
set -uo pipefail

usage() {
    cat <<'TEXT'
usage: tests/run.sh [--quick] [-k EXPRESSION]

Installs what the tests need (Debian, Ubuntu), builds preset `dev` (ASan, UBSan) and runs
  ctest     unit tests and structure checks
  tsan      the tests that use threads, under ThreadSanitizer
  pytest    tests/e2e: the real program with real clients
  fuzz      each fuzz target over its corpus and for a few seconds more (needs clang)

  --quick         leaves out tsan and fuzz
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

# Configures and builds a preset, quietly unless it fails.
build() {
    local preset=$1 log=$results/build-$1.log
    shift
    if cmake -S "$root" --preset "$preset" "$@" >"$log" 2>&1 && cmake --build "$root/build/$preset" -j "$jobs" >>"$log" 2>&1; then
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

run_pytest() {
    local code=0 select=()
    [ -z "$expression" ] || select=(-k "$expression")
    PROOFGW_BUILD_DIR=$root/build/dev "$python" -B -m pytest "$root/tests/e2e" -n 2 -q -p no:cacheprovider \
        --junitxml "$results/pytest.xml" "${select[@]}" || code=$?
    count_junit "$results/pytest.xml" $code pytest
}

# Each target runs over its seeds and then for fuzz_seconds; finds stay in build/fuzz/found.
run_fuzz() {
    local compiler target source corpus scratch=$root/build/fuzz/scratch
    compiler=$(command -v clang-14 || command -v clang) || {
        echo "clang is not installed: fuzzing is skipped"
        skipped=$((skipped + 1))
        return
    }
    build fuzz -DCMAKE_C_COMPILER="$compiler"
    count_step $? "build of preset fuzz"
    mkdir -p "$root/build/fuzz/found"
    for source in "$root"/tests/fuzz/*/fuzz_*.c; do
        target=fuzz_$(basename "$(dirname "$source")")_$(basename "$source" .c | sed 's/^fuzz_//')
        corpus=$(dirname "$source")/corpus_$(basename "$source" .c | sed 's/^fuzz_//')
        rm -rf "$scratch" && mkdir -p "$scratch"
        "$root/build/fuzz/tests/$target" -max_total_time="$fuzz_seconds" -timeout=10 -rss_limit_mb=2048 \
            -seed=1 -artifact_prefix="$root/build/fuzz/found/" "$scratch" "$corpus" >"$results/$target.log" 2>&1
        local code=$?
        [ $code = 0 ] || tail -n 40 "$results/$target.log"
        count_step $code "$target"
        [ $code != 0 ] || echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p;s/^Done \([0-9]*\) runs.*/\1 runs/p' "$results/$target.log")"
    done
}

rm -rf "$results"
mkdir -p "$results"
cd "$root" || exit 1

stage "packages"
packages_install build test || { count_step 1 "packages" && finish; }
packages_install clang || echo "clang 14 is not available here: what needs it is left out"
find_promtool

stage "build (dev)"
build dev
code=$?
count_step $code "build of preset dev"
[ $code = 0 ] || finish

stage "ctest (dev)"
run_ctest dev

stage "pytest"
run_pytest

if ! $quick; then
    stage "threads (tsan)"
    if build tsan; then
        run_ctest tsan -R "$(threaded_tests)"
    else
        count_step 1 "build of preset tsan"
    fi

    stage "fuzz"
    run_fuzz
fi
finish
