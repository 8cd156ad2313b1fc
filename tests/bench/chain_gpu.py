#!/usr/bin/python3
"""The whole chain on one card through the real daemons: pictures in files become captions in a store.

    O=build tests/bench/chain_gpu.py MODEL_DIR [--device cuda:0] [--dtypes bf16,fp8] [--jobs greedy,beams,natural]
        [--images 12000] [--sources jpeg,small]
                                     [--seconds 20] [--stages FILE] [--json FILE] [--no-mps]

`blipline caption` starts broker, image encoder, Q-Former and language model; the rate is that of the pictures done
between the first tenth and the last twentieth of the job, as its progress says, or that from the first picture done
to the last, whichever is lower: the former leaves starting and ending out, but where the encoder runs ahead part of
its work falls before it, too. The rate of everything, loading included, is printed beside it. Jobs: greedy (20 forced
tokens), beams (5 of them, 20 forced tokens), natural (sampled captions that end by themselves, 30 tokens at most:
MODEL_DIR made with make_checkpoint.py --ends 0.082, whose captions have 10.5 tokens in the mean). Sources: jpeg (640
x 480), small (JPEG of the model's size: no resizing, little decoding, so nearly tensors). --stages names what
bench_gpu wrote (--json): the rate is then compared with 1 / sum(1 / rate of the stage alone), each at its best batch.
MPS is started where it can be (ops/mps.sh) and stopped at the end.
"""

import argparse
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("O", ROOT / "build"))
FORCED = ("--min-new-tokens", "20", "--max-new-tokens", "20")
JOBS = {
    "greedy": FORCED,
    "beams": FORCED + ("--beams", "5"),
    "natural": ("--sample", "--max-new-tokens", "30"),
}
STAGE_OF = {"greedy": "llm", "beams": "beams", "natural": "natural"}
SKIPPED = 77
LIBRARIES = (
    {"LD_LIBRARY_PATH": os.environ["BLIPLINE_LIBRARIES"]} if "BLIPLINE_LIBRARIES" in os.environ else {}
)  # of our programs, where they came packed


def write_pictures(folder, n, width, height):
    """n different JPEG files that compress as photographs do: blurred noise in colour."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        noise = rng.normal(0, 6, (height, width, 1))
        Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(
            folder / f"{i:04d}.jpg", quality=90
        )


def write_list(path, folder, n):
    files = sorted(folder.iterdir())
    path.write_text("".join(f"{files[i % len(files)]}\n" for i in range(n)))


# -- a job


class Progress:
    """(time, pictures done) as the bar shows them."""

    def __init__(self):
        self.samples, self.text = [], ""

    def read(self, data):
        self.text = (self.text + data.decode(errors="replace"))[-20000:]
        found = re.findall(r"(\d+)/(\d+)  \S+ img/s", self.text[-300:])
        if found and (not self.samples or int(found[-1][0]) > self.samples[-1][1]):
            self.samples.append((time.monotonic(), int(found[-1][0])))

    def rate(self, n):
        """The lower of two: between the first tenth and the last twentieth, and between the first and the last
        picture. None: too few samples."""
        inner = [s for s in self.samples if 0.1 * n <= s[1] <= 0.95 * n]
        if (
            len(inner) < 2 or inner[-1][0] - inner[0][0] <= 0 or inner[-1][1] - inner[0][1] < n / 2
        ):  # they come in bursts
            return None, 0
        spans = [(inner[0], inner[-1])] + ([(self.samples[0], self.samples[-1])] if self.samples[-1][1] == n else [])
        return min(((b[1] - a[1]) / (b[0] - a[0]), b[0] - a[0]) for a, b in spans)


def kill_session(leader):
    """The command and its daemons, which have process groups of their own; a daemon whose card hangs ends no other
    way."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(name)) == leader:
                os.kill(int(name), signal.SIGKILL)
        except OSError:
            pass


def run(arguments, limit_s):
    """(the report, the progress, None) or (None, the progress, why not)."""
    leader, follower = pty.openpty()  # on a terminal the bar moves five times a second
    progress, until = Progress(), time.monotonic() + limit_s
    out = tempfile.TemporaryFile()
    child = subprocess.Popen(
        [str(BUILD / "blipline"), "caption", *map(str, arguments), "--json"],
        stdout=out, stderr=follower, start_new_session=True, env=dict(os.environ, COLUMNS="120", **LIBRARIES),
    )
    os.close(follower)
    reason = None
    try:
        while True:
            ready, _, _ = select.select([leader], [], [], 1)
            try:
                data = os.read(leader, 65536) if ready else b""
            except OSError:  # the other side is closed
                break
            progress.read(data)
            if time.monotonic() > until and not reason:
                reason = f"stopped after {limit_s:.0f} s"
                os.killpg(child.pid, signal.SIGINT)
                until += 10
            elif time.monotonic() > until:
                kill_session(child.pid)
            if ready and not data:
                break
        code = child.wait()
    finally:
        kill_session(child.pid)  # nobody is left where all went well
    os.close(leader)
    out.seek(0)
    if code != 0:
        lines = [line for line in progress.text.replace("\r", "\n").split("\n") if line.strip()]
        return None, progress, reason or f"exit code {code}: " + " | ".join(lines[-6:])
    return json.loads(out.read()), progress, None


# -- the yardstick


def stage_rates(path, model, dtype, job):
    """{stage: best img/s alone} of bench_gpu's rows; the Q-Former of fp8 is bf16's. The image encoder is the same in
    all models."""
    best = {}
    for line in path.read_text().splitlines():
        r = json.loads(line)
        if r.get("who") != "blipline" or "images_per_s" not in r:
            continue
        part = "llm" if r["part"] == STAGE_OF[job] else r["part"] if r["part"] in ("encoder", "qformer") else None
        if part == "llm" and pathlib.Path(r["model"]).resolve() != model:
            continue
        if part and (r["dtype"] == dtype or (part == "qformer" and r["dtype"] == "bf16")):
            best[part] = max(best.get(part, 0), r["images_per_s"])
    return best if len(best) == 3 else None


def start_mps(options):
    """The variables of the service, and whether it is ours to stop."""
    if options.no_mps or options.device in ("cpu", "null"):
        return False
    done = subprocess.run(
        ["sh", str(ROOT / "ops/mps.sh"), "start"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
    )
    print("  MPS: " + (done.stderr.strip() or "?").replace("mps.sh: ", ""), flush=True)
    if done.returncode != 0:
        return False
    os.environ.update(re.findall(r"(CUDA_MPS_\w+)='([^']*)'", done.stdout))
    return "already" not in done.stderr


def parse():
    p = argparse.ArgumentParser(description="The whole chain on one card through the real daemons.")
    words = lambda text: text.split(",")
    p.add_argument("model", type=pathlib.Path)
    p.add_argument("--device", default="cuda:0")
    p.add_argument("--cuda-library", help="the CUDA operators, where they are not beside the programs")
    p.add_argument("--dtypes", type=words, default=["bf16"])
    p.add_argument("--jobs", type=words, default=["greedy"], help=f"of {', '.join(JOBS)}")
    p.add_argument("--sources", type=words, default=["small", "jpeg"], help="of small, jpeg")
    p.add_argument("--images", type=int, default=12000)
    p.add_argument("--different", type=int, default=256, help="files that the pictures are taken from")
    p.add_argument("--unit", type=int, help="pictures that are handed out together (the command's choice)")
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--limit", type=float, default=240, help="seconds of one job, at most")
    p.add_argument("--stages", type=pathlib.Path, help="rows of bench_gpu --json")
    p.add_argument("--json", type=pathlib.Path, help="append the rows to this file")
    p.add_argument("--work", type=pathlib.Path, default=pathlib.Path(os.environ.get("TMPDIR", "/tmp")))
    p.add_argument("--no-mps", action="store_true")
    return p.parse_args()


def measure(options, work, dtype, job, source):
    store = work / "store"
    shutil.rmtree(store, ignore_errors=True)
    extra = (("--cuda-library", options.cuda_library) if options.cuda_library else ()) + (
        ("--unit", options.unit) if options.unit else ()
    )
    report, progress, why = run(
        (
            f"@{work / source}.txt", "-o", store, "--model", options.model, "--device", options.device,
            "--dtype", dtype, *JOBS[job], *extra,
        ),
        options.limit,
    )
    row = {
        "who": "blipline", "part": {"greedy": "chain"}.get(job, f"chain-{job}"), "dtype": dtype,
        "device": options.device, "source": source, "model": str(options.model),
        "mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ,
    }
    rate, seconds = progress.rate(options.images)
    if rate:
        row.update(images_per_s=rate, seconds=seconds)
    if why:
        row["error"] = why
        return row
    row.update(
        images=report["done"], failed=report["failed"], all_s=report["seconds"],
        all_images_per_s=report["images_per_s"], busy_s={s["stage"]: s["busy_s"] for s in report["stages"]},
        decode_s=report["stages"][0]["decode_s"], resize_s=report["stages"][0]["resize_s"],
    )
    if not rate:
        row["images_per_s"] = report["images_per_s"]  # too short to tell the start apart
    best = options.stages and options.stages.exists() and stage_rates(options.stages, options.model, dtype, job)
    if options.stages and not best:
        print(
            f"  {job}, {dtype}: {options.stages} has not all three stages alone (bench), nothing to compare with",
            flush=True,
        )
    if best:
        row["stages_alone"] = best
        row["share_of_stages"] = row["images_per_s"] * sum(1 / r for r in best.values())
    return row


def show(row):
    name = f"  {row['part']:14} {row['dtype']:5} {row['source']:6}"
    if "error" in row:
        print(
            f"{name} {row['error']}" + (f" (at {row['images_per_s']:.1f} img/s)" if "images_per_s" in row else ""),
            flush=True,
        )
        return
    text = (
        f"{name} {row['images_per_s']:8.1f} img/s over {row.get('seconds', row['all_s']):.1f} s"
        f" ({row['all_images_per_s']:.1f} with start and end: {row['all_s']:.1f} s)"
    )
    if "share_of_stages" in row:
        text += f", {100 * row['share_of_stages']:.0f} % of 1 / sum(1 / stage alone)"
    print(text + (f", {row['failed']} FAILED" if row["failed"] else ""), flush=True)


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what timeout sends: the job and MPS are to end
    options.model = options.model.resolve()
    work = pathlib.Path(tempfile.mkdtemp(prefix="blipline-chain-", dir=options.work))
    ours, ok = False, True
    try:
        size = json.loads((options.model / "preprocessor_config.json").read_text())["size"]["height"]
        for source, (w, h) in {"jpeg": (640, 480), "small": (size, size)}.items():
            if source in options.sources:
                write_pictures(work / source, options.different, w, h)
                write_list(work / f"{source}.txt", work / source, options.images)
        print(
            f"chain_gpu: {options.images} pictures a job, {options.model.name} on {options.device}, {os.cpu_count()}"
            " cores",
            flush=True,
        )
        ours = start_mps(options)
        for _ in range(options.rounds):
            for job in options.jobs:
                for dtype in options.dtypes:
                    for source in options.sources:
                        row = measure(options, work, dtype, job, source)
                        ok = ok and "error" not in row and not row["failed"]
                        show(row)
                        if options.json:
                            with options.json.open("a", encoding="utf-8") as f:
                                f.write(json.dumps(row) + "\n")
    finally:
        if ours:
            subprocess.run(["sh", str(ROOT / "ops/mps.sh"), "stop"], check=False)
        shutil.rmtree(work, ignore_errors=True)
    return 0 if ok else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ImportError as error:
        print(f"chain_gpu.py: skipped: {error.name} is not installed for {sys.executable}", file=sys.stderr)
        sys.exit(SKIPPED)
