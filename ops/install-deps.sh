#!/bin/sh
# Install what Blipline needs to build and to test (Debian 12 and 13, Ubuntu 24.04).
#   ops/install-deps.sh           install what is missing, as root or with sudo; otherwise print the one line to run
#   ops/install-deps.sh --check   exit 0 if nothing is missing
#   ops/install-deps.sh lint      the same for `make lint` and `make format`
#   ops/install-deps.sh fuzz      the same for `make fuzz`
set -eu

packages="build-essential pkg-config
libzmq3-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler liblmdb-dev libdnnl-dev libjansson-dev libinih-dev libyajl-dev
libjpeg-dev libspng-dev libwebp-dev libseccomp-dev libpcre2-dev libutf8proc-dev libxxhash-dev libsodium-dev libsystemd-dev zlib1g-dev
libcmocka-dev
jq python3 python3-pytest python3-lmdb python3-zmq python3-protobuf python3-numpy python3-pil"
case "${1:-}" in
lint) packages="clang-format clang-tidy cppcheck libomp-dev mandoc" ;;
fuzz) packages="clang libclang-rt-dev libomp-dev" ;;
esac

# shellcheck disable=SC2086 # lists of words on purpose, here and below
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $packages 2>/dev/null | sed -n 's/ installed$//p') || true
missing=
for p in $packages; do
    printf '%s\n' "$installed" | grep -qx "$p" || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "${1:-}" = --check ]; then
    echo "missing:$missing"
    exit 1
fi
command -v apt-get >/dev/null || {
    echo "blipline: this script knows apt only; install the counterparts of:$missing" >&2
    exit 1
}
if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo="sudo -n env DEBIAN_FRONTEND=noninteractive" # sudo itself passes no environment on
else
    echo "blipline: packages are missing. Run this line, then make again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "blipline: installing what is missing (ops/install-deps.sh):$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get -q update
# shellcheck disable=SC2086
$sudo apt-get -q install -y --no-install-recommends $missing
