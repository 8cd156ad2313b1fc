#!/bin/sh
# Every benchmark, one after the other; the CSV lines of this run go to build/bench.csv with date and machine in front.
set -eu
O=${O:-build}
PYTHON=${PYTHON:-/usr/bin/python3}
export O OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=10000 # as the daemons set them
log=$(mktemp)
trap 'rm -f "$log"' EXIT
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
printf 'machine: %s, %s cores, %s\n' "$machine" "$(nproc)" "$(date -u +%F)"
for bench in "$@"; do
    printf '\n== %s\n' "$(basename "$bench")"
    "$bench" | tee -a "$log" | grep -v '^CSV,' || true
done
printf '\n== chain\n'
"$PYTHON" tests/bench/chain.py ${N:-} | tee -a "$log" | grep -v '^CSV,' || true
printf '\n== the relay between hosts\n'
"$PYTHON" tests/bench/wire_hosts.py | tee -a "$log" | grep -v '^CSV,' || true
printf '\n== jobs of 1e4 to 1e7 items\n'
PYTHONPATH=$O/gen-python "$PYTHON" tests/bench/scale.py | tee -a "$log" | grep -v '^CSV,' || true
printf '\n== HF transformers on the same processor\n'
"${HF_PYTHON:-$PYTHON}" tests/bench/hf_cpu.py models/blip2-opt-demo --images examples/images --count 64 \
    --batches 8,32,64 --beams 1,5 --max-new 24 --csv hf 2>&1 | tee -a "$log" | grep -v '^CSV,' || true
sed -n "s/^CSV,/$(date -u +%FT%TZ),$machine,/p" "$log" >>"$O/bench.csv"
printf '\nappended to %s\n' "$O/bench.csv"
