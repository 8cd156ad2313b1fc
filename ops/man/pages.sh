#!/bin/sh
# Make manual pages from the programs' help pages: ops/man/pages.sh BUILD_FOLDER TARGET_FOLDER
# blipline(1), blipline-COMMAND(1), blipline-TOPIC(7), blipline-DAEMON(8), each in its folder man1, man7, man8.
set -eu
build=$1 target=$2
here=$(dirname "$0")
version=$("$build/blipline" --version | sed 's/.* //')
date=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%F)
rm -rf "$target"
mkdir -p "$target/man1" "$target/man7" "$target/man8"
"$build/blipline" help >"$target/overview"

page() { # NAME SECTION FILE COMMAND...
    name=$1 section=$2 file=$3
    shift 3
    "$@" >"$target/page"
    awk -v name="$name" -v section="$section" -v version="$version" -v date="$date" -f "$here/page.awk" \
        "$target/overview" "$target/page" >"$target/man$section/$file.$section"
}

words() { # of the list under the heading $1
    awk -v heading="$1:" '$0 == heading { on = 1; next } /^$/ { on = 0 } on && /^  [a-z]/ { print $1 }' \
        "$target/overview"
}

page "" 1 blipline cat "$target/overview"
for command in $(words Commands); do page "$command" 1 "blipline-$command" "$build/blipline" help "$command"; done
for topic in $(words Topics); do page "$topic" 7 "blipline-$topic" "$build/blipline" help "$topic"; done
for daemon in blipline-broker blipline-encoder blipline-qformer blipline-llm; do
    page "$daemon" 8 "$daemon" "$build/$daemon" --help
done
rm "$target/overview" "$target/page"
