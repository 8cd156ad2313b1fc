#!/bin/sh
# Caption the example pictures with the demo model, and show what came out beside what is in the pictures.
# Called by `make demo`; O is the build folder, PYTHON the interpreter. Exits with 0 only if every picture got a
# caption.
set -eu
O=${O:-build}
PYTHON=${PYTHON:-/usr/bin/python3}
work=$(mktemp -d "${TMPDIR:-/tmp}/blipline-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

store=$O/demo.lmdb
rm -rf "$store"
"$O/blipline" caption examples/images -o "$store" --model blip2-opt-demo --json >"$work/summary.json"
"$O/blipline" export "$store" --format jsonl -o "$work/captions.jsonl"

"$PYTHON" - "$work" <<'PYTHON'
import json
import os
import pathlib
import sys

work = pathlib.Path(sys.argv[1])
truth = json.loads(pathlib.Path("examples/images/truth.json").read_text())
rows = [json.loads(line) for line in (work / "captions.jsonl").read_text().splitlines()]
summary = json.loads((work / "summary.json").read_text())

try:
    print()
    right = 0
    for row in rows:
        true = truth[row["key"]]["caption"]
        said = row.get("caption", "failed: " + str(row.get("error")))
        right += said == true
        print(f"  {row['key']}\n      caption  {said}\n      truth    {true if said != true else 'the same'}")
    done = sum("caption" in row for row in rows)
    print(f"\n{done} of {len(truth)} pictures captioned, {right} of them right to the word "
          f"(the model is small: it gets about 8 of 10 right)")
    print(f"{summary['images_per_s']:.1f} pictures a second over {summary['seconds']:.1f} s, "
          f"loading the model included; where the time went:")
    for stage in summary["stages"]:
        more = ""
        if stage["decode_s"]:
            more = f", and {stage['decode_s']:.2f} s of decoding and {stage['resize_s']:.2f} s of resizing beside it"
        print(f"  {stage['stage']:8} {stage['share']:4.0%}  {stage['busy_s']:6.2f} s busy{more}")
    sys.stdout.flush()
except BrokenPipeError:  # the reader closed the pipe; nothing may be flushed to it again
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
sys.exit(done != len(truth))
PYTHON

printf '\nReading the store from Python (examples/read_store.py):\n\n'
sed -n '/ env = /,/ print(/s/^  //p' examples/read_store.py
printf '\nwhich prints\n\n'
PYTHONPATH=build/gen-python "$PYTHON" examples/read_store.py "$store" >"$work/read.txt"
sed -n '1,3s/^/  /p' "$work/read.txt"
cat <<END
  ...

The store stays in $store; try
  $O/blipline get $store scene_0003.jpg
  $O/blipline stats $store
and your own pictures with
  $O/blipline caption FOLDER -o captions.lmdb --model DIR     ($O/blipline help models says which)
END
