# shellcheck shell=bash
# The packages that the project needs, in one place; sourced by the scripts in deploy/, tests/ and bench/.
#
# Debian and Ubuntu: packages_install installs what is missing (root or sudo). Elsewhere, or without root, it names
# exactly what is missing and gives up.

# group | how to find out that it is there | Debian, Ubuntu | Fedora | Alpine
# An "a,b" in the Debian column means that either will do; the first one that the release has is installed.
packages_table() {
    cat <<'TABLE'
build|command cc|build-essential|gcc|build-base
build|command cmake|cmake|cmake|cmake
build|command ninja|ninja-build|ninja-build|ninja-build
build|command pkg-config|pkg-config|pkgconf-pkg-config|pkgconf
build|module libuv|libuv1-dev|libuv-devel|libuv-dev
build|module openssl|libssl-dev|openssl-devel|openssl-dev
build|module yaml-0.1|libyaml-dev|libyaml-devel|yaml-dev
build|module jansson|libjansson-dev|jansson-devel|jansson-dev
build|module hiredis|libhiredis-dev|hiredis-devel|hiredis-dev
build|llhttp|libllhttp-dev,node-llhttp|llhttp-devel|llhttp-dev
build|command curl|curl|curl|curl
profile|command openssl|openssl|openssl|openssl
profile|command python3|python3|python3|python3
test|module cmocka|libcmocka-dev|libcmocka-devel|cmocka-dev
test|command redis-check-rdb|redis-tools|redis|redis
test|command git|git|git|git
test|command openssl|openssl|openssl|openssl
test|command /usr/sbin/haproxy|haproxy|haproxy|haproxy
test|python pytest|python3-pytest|python3-pytest|py3-pytest
test|python xdist|python3-pytest-xdist|python3-pytest-xdist|py3-pytest-xdist
test|python pytest_timeout|python3-pytest-timeout|python3-pytest-timeout|py3-pytest-timeout
test|python pytest_asyncio|python3-pytest-asyncio|python3-pytest-asyncio|py3-pytest-asyncio
test|python aiohttp|python3-aiohttp|python3-aiohttp|py3-aiohttp
test|python websockets|python3-websockets|python3-websockets|py3-websockets
test|python cryptography|python3-cryptography|python3-cryptography|py3-cryptography
test|command testssl|testssl.sh|testssl|testssl.sh
test|command strace|strace|strace|strace
test|command ss|iproute2|iproute|iproute2
test|command valgrind|valgrind|valgrind|valgrind
bench|command nginx|nginx|nginx|nginx
bench|file /usr/lib/nginx/modules/ngx_http_lua_module.so|libnginx-mod-http-lua|nginx-mod-lua|nginx-mod-http-lua
bench|command haproxy|haproxy|haproxy|haproxy
bench|command caddy|caddy|caddy|caddy
bench|command strace|strace|strace|strace
bench|command openssl|openssl|openssl|openssl
bench|python matplotlib|python3-matplotlib|python3-matplotlib|py3-matplotlib
node|command node|nodejs|nodejs|nodejs
node|file /usr/share/nodejs/ws|node-ws|nodejs-ws|nodejs-ws
node|file /usr/share/nodejs/undici|node-undici|nodejs-undici|nodejs-undici
clang|command clang-14|clang-14|clang|clang
clang|command llvm-symbolizer-14|llvm-14|llvm|llvm
clang|clang_runtime|libclang-rt-14-dev|compiler-rt|compiler-rt
clang|command clang-format-14|clang-format-14|clang-tools-extra|clang-extra-tools
TABLE
}

# Does the need in the second column of the table hold?
packages_has() {
    case $1 in
        command) command -v "$2" >/dev/null ;;
        module) pkg-config --exists "$2" 2>/dev/null ;;
        file) [ -e "$2" ] ;;
        python) /usr/bin/python3 -c "import $2" 2>/dev/null ;;
        llhttp) [ -f /usr/share/llhttp/llhttp.c ] || pkg-config --exists libllhttp 2>/dev/null ;;
        clang_runtime) compgen -G "/usr/lib*/*/clang/14*/lib/linux/libclang_rt.fuzzer-*.a" >/dev/null ||
            compgen -G "/usr/lib/clang/14*/lib/linux/libclang_rt.fuzzer-*.a" >/dev/null ;;
    esac
}

# Prints what is missing of the given groups, one "Debian|Fedora|Alpine" a line.
packages_missing() {
    local group need debian fedora alpine wanted=" $* "
    while IFS='|' read -r group need debian fedora alpine; do
        [[ $wanted == *" $group "* ]] || continue
        # shellcheck disable=SC2086 # the need is one or two words
        packages_has $need || echo "$debian|$fedora|$alpine"
    done < <(packages_table)
}

# The first of "a,b" that apt can install; the first one when it knows none.
packages_choose() {
    local name
    for name in ${1//,/ }; do
        if [ -n "$(apt-cache policy "$name" 2>/dev/null | sed -n 's/^  Candidate: \(.*[0-9].*\)/\1/p')" ]; then
            echo "$name"
            return
        fi
    done
    echo "${1%%,*}"
}

# What to say where we cannot install: $1 = the lines of packages_missing.
packages_explain() {
    local column=1 installer="apt-get install" id=""
    [ ! -r /etc/os-release ] || id=$(sed -n 's/^ID\(_LIKE\)\{0,1\}=//p' /etc/os-release | tr -d '"' | tr '\n' ' ')
    case " $id" in
        *" fedora"* | *" rhel"*) column=2 installer="dnf install" ;;
        *" alpine"*) column=3 installer="apk add" ;;
    esac
    echo "Missing packages; please install them and try again:" >&2
    echo "    $installer $(cut -d'|' -f$column <<<"$1" | sed 's/,.*//' | sort -u | tr '\n' ' ')" >&2
}

# Installs what the given groups need. Fast when nothing is missing.
packages_install() {
    local missing sudo="" name names=()
    missing=$(packages_missing "$@")
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || sudo="sudo"
    if ! command -v apt-get >/dev/null || { [ -n "$sudo" ] && ! command -v sudo >/dev/null; }; then
        packages_explain "$missing"
        return 1
    fi
    echo "Installing packages ..."
    $sudo apt-get update -qq || return 1
    while IFS='|' read -r name _; do
        names+=("$(packages_choose "$name")")
    done <<<"$missing"
    echo "    ${names[*]}"
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${names[@]}" \
        </dev/null >/dev/null || return 1
    missing=$(packages_missing "$@")
    [ -z "$missing" ] || { packages_explain "$missing" && return 1; }
}
