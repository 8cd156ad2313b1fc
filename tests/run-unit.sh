#!/bin/sh
# Run cmocka programs, as many at a time as there are CPUs: one line each, at the end the whole log of each that failed.
# Exit 1 if any failed.
export TSAN_OPTIONS="${TSAN_OPTIONS:-suppressions=tests/tsan.supp}" # read by thread sanitizer builds only

if [ "${1:-}" = --one ]; then
    logs=$2 t=$3
    log=$logs/$(basename "$t")
    start=$(date +%s%N)
    if timeout 300 "$t" >"$log" 2>&1; then
        n=$(grep -c '^\[       OK \]' "$log")
        skipped=$(sed -n '/listed below/d; s/^\[  SKIPPED \] //p' "$log" | sort -u | wc -l)
        remark=$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")
        printf '  ok    %-28s %3d tests%s  %5d ms\n' "$(basename "$t")" "$n" "$remark" \
            $((($(date +%s%N) - start) / 1000000))
        rm "$log"
    else
        printf '  FAIL  %s\n' "$t" | tee "$log.failed"
    fi
    exit
fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
printf '%s\n' "$@" | xargs -r -P "$(nproc)" -n 1 sh "$0" --one "$logs"
failed=0
for line in "$logs"/*.failed; do
    [ -e "$line" ] || continue
    cat "$line" "${line%.failed}"
    failed=$((failed + 1))
done
[ "$failed" = 0 ] || { echo "$failed unit test programs failed"; exit 1; }
