#!/usr/bin/python3
"""The whole chain through the real daemons: N example pictures (default 5000) become captions. Prints rate, where the
time went, what beams, scores and
bf16 cost (jobs of N/5 pictures, three rounds in turn, medians), and the null pipeline.

    O=build tests/bench/chain.py [N]
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("O", ROOT / "build"))
PICTURES = sorted(p for p in (ROOT / "examples" / "images").iterdir() if p.suffix in (".jpg", ".webp"))


def run(*arguments):
    done = subprocess.run(
        [str(BUILD / "blipline"), "caption", "--device", "cpu", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
    )
    return json.loads(done.stdout)


CAPTIONER, SCORER = ("--model", ROOT / "models" / "blip2-opt-demo"), (
    "--score-model",
    ROOT / "models" / "blip2-itm-demo",
)
BEAMS = ("--beams", 5, "--captions", 5, "--max-new-tokens", 20)
JOBS = {
    "greedy": CAPTIONER,
    "5 beams": CAPTIONER + BEAMS,
    "5 beams, all 5 captions scored": CAPTIONER + BEAMS + SCORER + ("--score",),
    "greedy, bf16": CAPTIONER + ("--dtype", "bf16"),
}


def compare(source, work, n):
    """Every job in turn, three times: the machine's moods meet all of them."""
    rates = {name: [] for name in JOBS}
    for i in range(3):
        for name, options in list(JOBS.items()):
            try:
                rates[name].append(run(source, "-o", work / f"j{i}{name}", "--limit", n, *options)["images_per_s"])
            except subprocess.CalledProcessError:
                print(f"  {name}: this machine cannot (blipline caption --dtype bf16 says why)")
                del rates[name], JOBS[name]
    base = statistics.median(rates["greedy"])
    for name, r in rates.items():
        rate = statistics.median(r)
        print(
            f"  {name:32} {rate:6.1f} img/s, {base / rate:.2f} x the time of greedy"
            + (
                f", {statistics.median(rates['5 beams']) / rate:.2f} x that of the beams alone"
                if "scored" in name
                else ""
            )
        )
        print(f"CSV,chain {name.replace(',', '')},{n},{rate:.1f}")


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    work = pathlib.Path(tempfile.mkdtemp(prefix="blipline-bench-"))
    try:
        source = work / "in"
        source.mkdir()
        for i in range(n):
            p = PICTURES[i % len(PICTURES)]
            shutil.copyfile(p, source / f"{i:06d}{p.suffix}")
        print(f"chain: {n} pictures, models/blip2-opt-demo, fp32, {os.cpu_count()} cores")
        r = run(source, "-o", work / "s", "--model", ROOT / "models" / "blip2-opt-demo")
        cores = r["seconds"] * os.cpu_count()
        print(f"  {r['images_per_s']:.1f} img/s over {r['seconds']:.1f} s, start of the daemons included")
        for s in r["stages"]:
            print(
                f"  {s['stage']:8} {s['busy_s']:7.1f} s busy, {100 * s['busy_s'] / r['seconds']:3.0f} % of the time"
                + (
                    f"; decode {s['decode_s']:.1f} s and resize {s['resize_s']:.1f} s of the pool"
                    f" ({100 * (s['decode_s'] + s['resize_s']) / cores:.0f} % of the cores)"
                    if s["decode_s"]
                    else ""
                )
            )
        print(f"CSV,chain,{n},{r['images_per_s']:.1f}")
        compare(source, work, n // 5)
        listing = work / "list.txt"
        listing.write_text("".join(f"/nowhere/{i:07d}.jpg\n" for i in range(100 * n)))
        for unit, count in ((64, 100 * n), (1, 4 * n)):
            r = run(f"@{listing}", "-o", work / f"null{unit}", "--device", "null", "--unit", unit, "--limit", count)
            print(
                f"null workers, unit {unit}: {count} items, {r['images_per_s']:.0f} items/s,"
                f" {r['images_per_s'] / unit:.0f} units/s"
            )
            print(f"CSV,null{unit},{count},{r['images_per_s']:.1f}")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
