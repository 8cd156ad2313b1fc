#!/usr/bin/python3
"""Checkpoints of published shape through the stages of the workers: load time, rate, and memory against the rule.

    real_size.py [--presets opt-2.7b,flan-t5-xl,itm-vit-g] [--scale N] [--dtypes F32,BF16] [--stages
        encoder,qformer,score,llm,beams] [--seconds S]
                 [--threads N] [--images encoder=2,llm=8] [--dir DIR] [--keep] [--hf PYTHON]

Each checkpoint is written below DIR with random weights (make_checkpoint.py), or used if it is there already, and
removed afterwards unless --keep is given. Every stage runs in a process of its own (bench_real), which loads it as
the daemon does. The rule is: never more resident than 1.1 x the packed weights + 1.5 GiB. --hf measures transformers
on the same checkpoint afterwards (hf_cpu.py). What does not fit this machine's disk or memory is left out and named.
Lines for the record go to O/bench.csv.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys

import make_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("O", ROOT / "build"))
IMAGES = {"encoder": 2, "qformer": 8, "score": 8, "llm": 8, "beams": 2}
PRESET_NAMES = ", ".join(make_checkpoint.PRESETS)
GB, GIB = 1e9, 1 << 30


def parameters(preset, options):
    """(all, those of the largest stage)"""
    c = make_checkpoint.configure(make_checkpoint.parse([preset, ".", *checkpoint_options(options)]))
    stages = {}
    for name, shape, *_ in make_checkpoint.tensors(c):
        stage = name.split(".")[0]
        stages[stage] = stages.get(stage, 0) + make_checkpoint.math.prod(shape)
    return sum(stages.values()), max(stages.values())


def checkpoint_options(options):
    return ["--scale", str(options.scale), "--dtype", options.file_dtype, "--image-size", str(options.image_size)]


def available_bytes():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def too_large(preset, options):
    """None, or why this machine cannot do it."""
    total, largest = parameters(preset, options)
    file_bytes = total * make_checkpoint.TYPES[options.file_dtype][1]
    if shutil.disk_usage(options.dir).free < 1.05 * file_bytes and not (options.dir / preset / "config.json").exists():
        return f"{file_bytes / GB:.1f} GB do not fit {options.dir}"
    need = largest * (4 if "F32" in options.dtypes else 2) * 1.1 + 1.5 * GIB
    if available_bytes() < need:
        return f"{need / GB:.1f} GB of memory are needed, {available_bytes() / GB:.1f} GB are available"
    return None


def bench(directory, stage, options, dtype="F32"):
    done = subprocess.run(
        [
            str(BUILD / "tests/bench/bench_real"), str(directory), stage, str(options.threads),
            str(options.seconds), str(options.images.get(stage, 8)), str(options.new_tokens), dtype,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
        env=dict(os.environ, OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="10000"),
    )  # as the daemons set them
    if done.returncode != 0:
        return {"error": done.stderr.strip() or f"exit code {done.returncode}"}
    return json.loads(done.stdout)


def transformers(preset, directory, options):
    """hf_cpu.py on the same checkpoint. It holds source and copy while it loads: measured 6.2 bytes a parameter in
    float32."""
    need = parameters(preset, options)[0] * (6.5 if "F32" in options.dtypes else 4.5)
    if available_bytes() < need:
        print(
            f"  transformers left out: {need / GB:.1f} GB of memory are needed, {available_bytes() / GB:.1f} GB are"
            " available"
        )
        return
    batch = str(options.images["llm" if make_checkpoint.PRESETS[preset] else "score"])
    subprocess.run(
        [
            options.hf, str(ROOT / "tests/bench/hf_cpu.py"), str(directory), "--images", batch, "--batches",
            batch, "--forced", "--texts", "5", "--max-new", str(options.new_tokens), "--threads",
            str(options.threads), "--seconds", str(options.seconds), "--dtype",
            ",".join({"F32": "float32", "BF16": "bfloat16"}[d] for d in options.dtypes),
        ],
        check=False,
    )


HEAD = (
    f"  {'stage':8} {'type':4} {'images':>6} {'load s':>7} {'hash s':>7} {'run s':>8} {'img/s':>8} {'tokens/s':>8}"
    f" {'packed':>8} {'peak':>8} {'limit':>8}"
)


def row(r):
    g = lambda key: f"{r[key] / GB:7.2f}G"
    return (
        f"  {r['stage']:8} {r['dtype']:4} {r['images']:6d} {r['load_s']:7.1f} {r['fingerprint_s']:7.1f}"
        f" {r['run_s']:8.2f} {r['images_per_s']:8.2f} "
        + (f"{r['tokens_per_s']:8.1f} " if "tokens_per_s" in r else " " * 9)
        + f"{g('packed_bytes')} {g('peak_bytes')} {g('limit_bytes')} {'ok' if r['within_limit'] else 'TOO MUCH'}"
    )


def phases(r):
    """Where the memory is, phase by phase."""
    text = "; ".join(
        f"{name}: peak {m['peak'] / GB:.2f}, then {m['anon'] / GB:.2f} own + {m['file'] / GB:.2f} of files"
        for name, m in r["memory"].items()
    )
    return f"           GB: {text}" + (f"; KV cache {r['cache_bytes'] / GB:.2f}" if r["cache_bytes"] else "")


def one_preset(preset, options, csv):
    directory = options.dir / preset
    ours = not (directory / "config.json").exists()
    print(f"\n{preset}" + (f", 1/{options.scale}" if options.scale > 1 else ""), flush=True)
    reason = too_large(preset, options)
    if reason:
        print(f"  left out: {reason}")
        return True
    ok = True
    try:
        if ours:
            subprocess.run(
                [
                    sys.executable, str(ROOT / "tests/bench/make_checkpoint.py"), preset, str(directory),
                    *checkpoint_options(options),
                ],
                check=True,
            )
        checked = bench(directory, "check", options)
        print(f"  {checked['error']}" if "error" in checked else HEAD, flush=True)
        absent = {"score"} if make_checkpoint.PRESETS[preset] else {"llm", "beams"}
        for stage in [s for s in options.stages if s not in absent] if "error" not in checked else []:
            for dtype in options.dtypes:
                r = bench(directory, stage, options, dtype)
                if "error" in r:
                    print(f"  {stage:8} {dtype:4} {r['error']}", flush=True)
                    continue
                ok = ok and r["within_limit"]
                print(f"{row(r)}\n{phases(r)}", flush=True)
                csv.append(
                    f"real,{preset},{options.scale},{stage},{dtype},{options.threads},{r['images']},"
                    f"{r['load_s']:.2f},{r['images_per_s']:.4f},"
                    f"{r['packed_bytes']:.0f},{r['peak_bytes']:.0f}"
                )
        if options.hf and "error" not in checked:
            transformers(preset, directory, options)
    finally:
        if ours and not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    return ok


def parse():
    p = argparse.ArgumentParser(
        description="Checkpoints of published shape through the stages: load time, rate, memory."
    )
    words = lambda text: text.split(",")
    p.add_argument("--presets", type=words, default=["opt-2.7b", "flan-t5-xl", "itm-vit-g"], help=f"of {PRESET_NAMES}")
    p.add_argument(
        "--stages", type=words, default=["encoder", "qformer", "score", "llm", "beams"],
        help="those of them that a preset has",
    )
    p.add_argument("--dtypes", type=words, default=["F32"], help="of the arithmetic: F32, BF16")
    p.add_argument("--file-dtype", choices=make_checkpoint.TYPES, default="bf16")
    p.add_argument("--scale", type=int, default=1, help="divide the models, as make_checkpoint.py does")
    p.add_argument("--image-size", type=int, default=224)
    p.add_argument("--seconds", type=float, default=10, help="of runs of a stage; at least one run")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--images", default="", help="a run, e.g. encoder=2,qformer=8,llm=8")
    p.add_argument("--new-tokens", type=int, default=20)
    p.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / "blipline-real")
    p.add_argument("--keep", action="store_true", help="leave the checkpoints where they are")
    p.add_argument("--hf", metavar="PYTHON",
                   help="a Python with torch and transformers (needs memory for the whole model)")
    options = p.parse_args()
    options.images = dict(IMAGES,
                          **{k: int(v) for k, v in (pair.split("=") for pair in options.images.split(",") if pair)})
    return options


def main():
    options = parse()
    options.dir.mkdir(parents=True, exist_ok=True)
    machine = next(
        (
            line.split(":", 1)[1].strip()
            for line in open("/proc/cpuinfo", encoding="utf-8")
            if line.startswith("model name")
        ),
        "?",
    )
    print(
        f"machine: {machine}, {options.threads} threads, {available_bytes() / GB:.1f} GB of memory available; random"
        f" weights, {options.new_tokens} forced tokens"
    )
    csv = []
    ok = all([one_preset(p, options, csv) for p in options.presets])
    if not options.keep and not any(options.dir.iterdir()):
        options.dir.rmdir()
    if csv:
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        with open(BUILD / "bench.csv", "a", encoding="utf-8") as f:
            f.writelines(f"{now},{machine},{line}\n" for line in csv)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
