#!/bin/sh
# Install the packages that Blipline needs (Debian 12 and 13, Ubuntu 24.04).
#   ops/install-deps.sh [GROUP...]           install what is missing, as root or with sudo; else print the line to run
#   ops/install-deps.sh --check [GROUP...]   print one line and exit 1 if something is missing
# Groups: build, test, lint, fuzz; without one, build and test.
set -eu

build="build-essential pkg-config
libzmq3-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler liblmdb-dev libdnnl-dev libjansson-dev libinih-dev
libyajl-dev libjpeg-dev libspng-dev libwebp-dev libseccomp-dev libpcre2-dev libutf8proc-dev libxxhash-dev libsodium-dev
libsystemd-dev zlib1g-dev"
test="libcmocka-dev jq iproute2 nftables
python3 python3-pytest python3-pytest-xdist python3-lmdb python3-zmq python3-protobuf python3-numpy python3-pil"
lint="clang-format clang-tidy cppcheck libomp-dev mandoc"
fuzz="clang libclang-rt-dev libomp-dev"

check=
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi
[ $# -gt 0 ] || set -- build test
packages=
for group; do
    case $group in
    build | test | lint | fuzz) eval "packages=\"\$packages \$$group\"" ;;
    *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
done
command -v dpkg-query >/dev/null || {
    [ -n "$check" ] || echo "blipline: no Debian packages here; the build needs the counterparts of:" $packages >&2
    exit 0
}

# shellcheck disable=SC2086 # lists of words on purpose, here and below
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $packages 2>/dev/null |
    sed -n 's/ installed$//p') || true
missing=
for p in $packages; do
    printf '%s\n' "$installed" | grep -qx "$p" || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ -n "$check" ]; then
    echo "packages are missing:$missing (ops/install-deps.sh $* installs them)"
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    sudo=
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo="sudo -n env DEBIAN_FRONTEND=noninteractive" # sudo itself passes no environment on
else
    echo "blipline: packages are missing. Run this line, then try again:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "blipline: installing packages:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get -q update
# shellcheck disable=SC2086
$sudo apt-get -q install -y --no-install-recommends $missing
