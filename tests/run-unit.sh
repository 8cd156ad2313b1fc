#!/bin/sh
# Run cmocka programs one by one: one line each, the whole log of one that fails. Exit 1 if any failed.
export TSAN_OPTIONS="${TSAN_OPTIONS:-suppressions=tests/tsan.supp}" # read by thread sanitizer builds only
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for t in "$@"; do
    start=$(date +%s%N)
    if timeout 300 "$t" >"$log" 2>&1; then
        n=$(grep -c '^\[       OK \]' "$log")
        skipped=$(sed -n '/listed below/d; s/^\[  SKIPPED \] //p' "$log" | sort -u | wc -l)
        remark=$([ "$skipped" -eq 0 ] || echo ", $skipped skipped")
        printf '  ok    %-28s %3d tests%s  %5d ms\n' "$(basename "$t")" "$n" "$remark" \
            $((($(date +%s%N) - start) / 1000000))
    else
        printf '  FAIL  %s\n' "$t"
        cat "$log"
        failed=$((failed + 1))
    fi
done
[ "$failed" = 0 ] || { echo "$failed unit test programs failed"; exit 1; }
