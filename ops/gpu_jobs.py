#!/usr/bin/python3
"""Jobs that ops/gpu-check.sh runs on a card and looks at; run where models/, examples/ and tests/golden/ are.

gpu_jobs.py captions PROGRAMS STORE DTYPE
    compares the store's captions of the example pictures with the reference's
gpu_jobs.py two-workers PROGRAMS STORE DEVICE LIBRARY [COPIES]
    runs a job of the example pictures, COPIES times, with a second language model worker on the card
"""

import glob
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ANSWERS = json.loads(pathlib.Path("tests/golden/decode/demo_answers.json").read_text())
LEAST_EQUAL = {"fp32": len(ANSWERS), "fp16": 22, "bf16": 20, "fp8": 0}  # near ties fall either way; fp8 says how many


def export(programs, store):
    done = subprocess.run([programs / "blipline", "export", store, "--format", "jsonl"], stdout=subprocess.PIPE,
                          check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def captions(programs, store, dtype):
    rows = export(programs, store)
    equal = sum(r.get("caption") == ANSWERS[pathlib.Path(r["key"]).name]["greedy"] for r in rows)
    print(f"{equal} of {len(ANSWERS)} captions are the fp32 reference's, {dtype}")
    return len(rows) == len(ANSWERS) and all(r.get("caption") for r in rows) and equal >= LEAST_EQUAL[dtype]


def start_second(programs, folder, log):
    """Once the command has written its workers' configuration: one more language model with the same, and less memory.
    """
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = glob.glob(f"{folder}/blipline-*/llm*.conf")
        if found:
            time.sleep(0.2)  # it is written whole, and renamed
            text = re.sub(r"(?m)^memory_share = .*", "memory_share = 0.1", pathlib.Path(found[0]).read_text())
            path = pathlib.Path(folder) / "second.conf"
            path.write_text(text)
            return subprocess.Popen([programs / "blipline-llm", "-f", path], stdout=log, stderr=log)
        time.sleep(0.05)
    return None


def two_workers(programs, store, device, library, copies):
    pictures = sorted(str(p.resolve()) for p in pathlib.Path("examples/images").iterdir() if p.name in ANSWERS)
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/second.log", "w+", encoding="utf-8") as log:
        listing = pathlib.Path(folder) / "list.txt"
        listing.write_text("".join(f"{p}\n" for p in pictures * copies))
        job = subprocess.Popen(
            [
                programs / "blipline", "caption", f"@{listing}", "-o", store, "--model",
                "models/blip2-opt-demo", "--device", device, "--cuda-library", library, "--unit", "8",
                "--json",
            ],
            stdout=subprocess.PIPE,
            env=dict(os.environ, TMPDIR=folder),
        )
        second = start_second(programs, folder, log)
        out, _ = job.communicate()
        code = second.wait(60) if second else None
        log.seek(0)
        text = log.read()
    report = json.loads(out) if job.returncode == 0 else {}
    print(text[-3000:])
    print(
        f"{report.get('done', 0)} of {len(pictures) * copies} pictures, {report.get('images_per_s', 0):.0f} img/s; the"
        f" second worker: exit code {code}, {'joined' if 'event=ready' in text else 'did not join'}"
    )
    wrong = (
        sum(r.get("caption") != ANSWERS[pathlib.Path(r["key"]).name]["greedy"] for r in export(programs, store))
        if report
        else -1
    )
    return report.get("done") == len(pictures) * copies and "event=ready" in text and 0 <= wrong <= 4 * copies


def main():
    what, programs, store, *rest = sys.argv[1:]
    if what == "captions":
        ok = captions(pathlib.Path(programs), store, *rest)
    else:
        device, library, *copies = rest
        ok = two_workers(pathlib.Path(programs), store, device, library, int(copies[0]) if copies else 1000)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
