#!/usr/bin/python3
"""Blipline's GPU stages and Hugging Face transformers on the same card, in turn: ours, theirs, ours, theirs.

    O=build tests/bench/gpu.py PRESET|MODEL_DIR [--parts encoder,llm,...] [--batches encoder=256,llm=256+512]
        [--dtypes bf16,fp8] [--seconds 10] [--rounds 2]
                               [--hf PYTHON|none] [--limit S] [--json FILE] [--dir DIR] [--device cuda:0]

Every program loads once and then answers commands, one at a time, so that what is compared meets the card in the same
state; the medians of the rounds are printed. A PRESET (opt-2.7b, flan-t5-xl, ...) is written below --dir with random
weights first, if it is not there (make_checkpoint.py). Ours alone has copy, qformer-device (without the way to the
card and back) and *-batches; theirs alone have chain, chain-natural, chain-beams (their whole pipeline in one
process) and what torch reaches: products, products-fp8, attention. Ours through the daemons is
tests/bench/chain_gpu.py. Without a GPU: one line, exit code 77.
"""

import argparse
import json
import os
import pathlib
import selectors
import shutil
import signal
import statistics
import subprocess
import sys
import time

import make_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("O", ROOT / "build"))
BOTH = ("encoder", "qformer", "llm", "natural", "beams")
OURS = ("copy", "qformer-device", "llm-batches", "natural-batches")
THEIRS = ("chain", "chain-natural", "chain-beams", "products", "products-fp8", "attention")
BATCHES = {
    "encoder": [256], "qformer": [256], "qformer-device": [256], "llm": [256], "natural": [256],
    "beams": [64], "llm-batches": [256], "natural-batches": [256], "copy": [1], "chain": [64, 256, 512, 768],
    "chain-natural": [256, 768], "chain-beams": [64], "products": [256], "products-fp8": [256],
    "attention": [256],
}
SKIPPED = 77
LIBRARIES = (
    {"LD_LIBRARY_PATH": os.environ["BLIPLINE_LIBRARIES"]} if "BLIPLINE_LIBRARIES" in os.environ else {}
)  # of our programs, where they came packed


class Server:
    """A program that answers commands."""

    def __init__(self, name, arguments, environment=None):
        self.name, self.arguments, self.environment = (
            name,
            [str(a) for a in arguments],
            dict(os.environ, **(environment or {})),
        )
        self.start()

    def start(self):
        self.child = subprocess.Popen(self.arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      bufsize=1, env=self.environment)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.child.stdout, selectors.EVENT_READ)

    def read(self, limit_s):
        """An object; None: it ended, or said nothing for that long and was ended."""
        if not self.selector.select(limit_s):
            print(f"  {self.name}: no answer in {limit_s:.0f} s, ended", flush=True)
            self.child.kill()
        line = self.child.stdout.readline()
        return json.loads(line) if line.startswith("{") else None

    def ask(self, limit_s, **command):
        try:
            self.child.stdin.write(json.dumps(command) + "\n")
            self.child.stdin.flush()
        except OSError:
            return None
        return self.read(limit_s)

    def again(self, speaks_first):
        """A device's error stays with its process: the next part gets a new one."""
        self.end()
        self.start()
        return self.read(120) if speaks_first else self.ask(120, part="close")

    def end(self):
        """The exit code."""
        try:
            self.child.stdin.close()
            return self.child.wait(30)
        except (OSError, subprocess.TimeoutExpired):
            self.child.kill()
            return self.child.wait()


def checkpoint(options):
    """The directory; a preset is written where it is not there yet."""
    if options.model not in make_checkpoint.PRESETS:
        return pathlib.Path(options.model).resolve()
    directory = options.dir / options.model
    if not (directory / "config.json").exists() or not list(directory.glob("model*.safetensors")):
        ends = ["--ends", "0.082"] if options.model.startswith("opt") else []
        scale = ["--scale", str(options.scale)] if options.scale > 1 else []
        subprocess.run(
            [
                sys.executable, str(ROOT / "tests/bench/make_checkpoint.py"), options.model, str(directory),
                *ends, *scale,
            ],
            check=True,
        )
    return directory


def start(options, model):
    """[(server, parts)], ours first; or an exit code."""
    servers = []
    share = round(0.8 / (len(options.dtypes) + (options.hf != "none")), 2)
    for dtype in options.dtypes:
        servers.append(
            (
                Server(
                    dtype,
                    [
                        BUILD / "tests/bench/bench_gpu", model, "--serve", "--dtype", dtype, "--device",
                        options.device, "--memory-share", share, "--cuda-library",
                        options.cuda_library or BUILD / "libblipline-cuda.so",
                    ],
                    LIBRARIES,
                ),
                BOTH + OURS,
            )
        )
        if servers[-1][0].ask(300, part="close") is None:
            code = servers.pop()[0].end()
            print(f"  {dtype} left out: exit code {code} (bench_gpu says why)", flush=True)
    if not servers:
        return SKIPPED if code == SKIPPED else 1
    if options.hf != "none":
        hf = Server(
            "hf",
            [
                options.hf, ROOT / "tests/bench/hf_blip2.py", model, "--serve", "--device",
                os.environ.get("HF_DEVICE", options.device),
            ],
        )
        loaded = hf.read(300)
        if loaded:
            print(f"  {loaded['versions']} on {loaded['device']}, loaded in {loaded['seconds']:.1f} s", flush=True)
            servers.append((hf, BOTH + THEIRS))
        else:
            print(f"  transformers left out: exit code {hf.end()} (hf_blip2.py says why)", flush=True)
    return servers


def keep(options, row, rows):
    rows.append(row)
    if options.json:
        with options.json.open("a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")


def value(row):
    """What is compared: (number, unit)."""
    for key, unit in (("images_per_s", "img/s"), ("tflops", "TFLOP/s"), ("gb_per_s", "GB/s")):
        if key in row:
            return row[key], unit
    return None, ""


def show(row, name):
    number, unit = value(row)
    text = row.get("error") or f"{number:10.1f} {unit}, {row.get('ms', 0):.2f} ms" + (
        f", {100 * row['share']:.0f} % of the ceiling (products {row['products_tflops']:.0f} TFLOP/s)"
        if "share" in row
        else ""
    )
    print(f"  {row['part']:16} {row['batch']:5} {name:5} {text}", flush=True)


def measure(options, servers, rows):
    begin = time.monotonic()
    for part in options.parts:
        seconds = options.longer.get(part, options.seconds)
        for batch in sorted(
            options.batches.get(part, BATCHES[part]), reverse=True
        ):  # what is open for the largest serves the others
            for _ in range(options.rounds):
                for server, parts in servers:
                    if part not in parts or (server.name == "fp8" and part.startswith("qformer")):
                        continue
                    if options.limit and time.monotonic() - begin > options.limit:
                        print(
                            f"  {part:16} {batch:5} {server.name:5} left out: --limit {options.limit:.0f} s are over",
                            flush=True,
                        )
                        continue
                    if part.startswith("chain"):  # theirs needs the memory
                        for other, _ in servers:
                            if other is not server:
                                other.ask(60, part="close")
                    row = server.ask(options.patience + 4 * seconds, part=part, batch=batch, seconds=seconds,
                                     ceiling=seconds if options.ceiling is None else options.ceiling)
                    lost = row is None or ("error" in row and (server.name != "hf" or "CUDA error" in row["error"]))
                    if row is None:
                        row = {
                            "who": "hf" if server.name == "hf" else "blipline", "dtype": server.name,
                            "model": str(options.path), "part": part, "batch": batch,
                            "error": "the program ended, or was silent for too long",
                        }
                    keep(options, row, rows)
                    show(row, server.name)
                    if lost and server.again(server.name == "hf") is None:
                        print(f"  {server.name}: does not start again", flush=True)


def summary(rows):
    """Medians, and ours over the best of theirs."""
    groups = {}
    for r in rows:
        if value(r)[0]:
            groups.setdefault((r["part"], "hf" if r["who"] == "hf" else r["dtype"], r["batch"]), []).append(value(r)[0])
    best = {}
    for (part, who, batch), numbers in groups.items():
        m = statistics.median(numbers)
        if m > best.get((part, who), (0, 0))[0]:
            best[part, who] = (m, batch)
    print("\nbest batch, median of the rounds:")
    for (part, who), (m, batch) in best.items():
        theirs = best.get((part, "hf"))
        text = f", {m / theirs[0]:.2f} x transformers" if theirs and who != "hf" else ""
        print(f"  {part:16} {who:5} {m:10.1f} at {batch}{text}")
    for dtype in {who for _, who in best if who != "hf"}:
        alone = [best.get((part, dtype)) or best.get((part, "bf16")) for part in ("encoder", "qformer", "llm")]
        if all(alone):
            print(f"  1 / sum(1 / stage alone), greedy, {dtype}: {1 / sum(1 / m for m, _ in alone):.1f} img/s")


def parse():
    p = argparse.ArgumentParser(description="Blipline's GPU stages and transformers on the same card, in turn.")
    words = lambda text: text.split(",")
    p.add_argument("model", help=f"a directory, or one of {', '.join(make_checkpoint.PRESETS)}")
    p.add_argument(
        "--parts", type=words, default=["copy", "encoder", "qformer", "llm", "chain"],
        help=f"of {', '.join(BOTH + OURS + THEIRS)}",
    )
    p.add_argument("--batches", default="", help="of parts, e.g. encoder=128+256,llm=64")
    p.add_argument("--dtypes", type=words, default=["bf16"], help="ours: bf16, fp8, fp16, fp32")
    p.add_argument("--seconds", type=float, default=10, help="of a measurement, at least")
    p.add_argument("--ceiling", type=float, help="seconds of the products alone (as --seconds; 0: none)")
    p.add_argument("--longer", default="", help="seconds of single parts, e.g. encoder=10")
    p.add_argument(
        "--patience", type=float, default=60,
        help="seconds beyond four times its own after which a measurement hangs, and its program is ended",
    )
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--limit", type=float, default=0, help="begin nothing new after this many seconds")
    p.add_argument("--hf", default=sys.executable, help="a Python with torch and transformers, or none")
    p.add_argument("--device", default="cuda:0")
    p.add_argument("--cuda-library")
    p.add_argument("--scale", type=int, default=1, help="of a preset, to try things out")
    p.add_argument(
        "--dir",
        type=pathlib.Path,
        default=pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / "blipline-gpu",
        help="where presets are",
    )
    p.add_argument("--remove", action="store_true", help="the preset's files at the end")
    p.add_argument("--json", type=pathlib.Path)
    options = p.parse_args()
    options.longer = {k: float(v) for k, v in (pair.split("=") for pair in options.longer.split(",") if pair)}
    options.batches = {k: [int(b) for b in v.split("+")] for k,
                       v in (pair.split("=") for pair in options.batches.split(",") if pair)}
    for part in options.parts:
        if part not in BATCHES:
            p.error(f"--parts: {part} is none of {', '.join(BATCHES)}")
    return options


def has_gpu():
    """Before a checkpoint of gigabytes is written for nothing."""
    try:
        return (
            subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
                           check=False).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def main():
    options = parse()
    if options.device.startswith("cuda") and not options.cuda_library and not has_gpu():
        print("gpu.py: skipped, no GPU here (nvidia-smi -L lists none)", file=sys.stderr)
        return SKIPPED
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # what timeout sends: the medians of what there is are printed
    model, rows = checkpoint(options), []
    options.path = model.resolve()
    print(f"gpu: {model.name}, {options.seconds:.3g} s a measurement, {options.rounds} rounds in turn", flush=True)
    servers = start(options, model)
    if isinstance(servers, int):
        return servers
    try:
        measure(options, servers, rows)
    finally:
        summary(rows)
        for server, _ in servers:
            server.end()
        if options.remove and options.model in make_checkpoint.PRESETS:
            shutil.rmtree(model, ignore_errors=True)
    return 1 if any("error" in r for r in rows if r["who"] != "hf") else 0


if __name__ == "__main__":
    sys.exit(main())
