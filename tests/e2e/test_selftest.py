"""`blipline selftest`: right on this machine, and sees what is wrong."""
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest

from harness import BUILD, IMAGES, MODEL, ROOT, SLOW, blipline, export

GOLDEN = ROOT / "tests" / "golden"
CUDA = (BUILD / "libblipline-cuda.so").exists()
ODD = GOLDEN / "images_odd"
DEMO = ("--golden", GOLDEN / "demo_opt", "--images", IMAGES)


def report(*args, check=True, **kwargs):
    return json.loads(blipline("selftest", *args, "--json", check=check, **kwargs).stdout)


def flip_bits(directory, name, n=8, mask=0x40):
    """A high bit of the exponent of the first `n` values of a tensor (fp16)."""
    for path in directory.glob("model*.safetensors"):
        raw = bytearray(path.read_bytes())
        size = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8:8 + size])
        if name in header:
            assert header[name]["dtype"] == "F16"
            begin = 8 + size + header[name]["data_offsets"][0]
            for i in range(n):
                raw[begin + 2 * i + 1] ^= mask
            path.write_bytes(raw)
            return
    raise AssertionError(f"no tensor {name}")


def copy_model(model, to):
    to.mkdir(parents=True)
    for p in model.iterdir():
        (to / p.name).write_bytes(p.read_bytes())
    return to


def run_installed(prefix, *args, cwd, **kwargs):
    return subprocess.run(
        [str(prefix / "bin" / "blipline"), "selftest", *map(str, args)],
        capture_output=True, text=True, cwd=cwd, timeout=300 * SLOW, **kwargs,
    )


@pytest.mark.parametrize("name", ["opt_a", "opt_c", "t5_a", "t5_c", "itm_c"])
def test_every_stage_and_option_of_a_golden_checkpoint(name):
    r = report(GOLDEN / name, "--images", ODD)
    assert r["pass"] is True and r["n_failed"] == 0 and r["n_skipped"] == 0
    stages = [row["stage"] for row in r["rows"]]
    if name == "itm_c":
        assert {"tokenizer", "itc_image_embeds", "itc_text_embeds", "itc_similarity", "itm_logits"} <= set(stages)
    else:
        assert (
            sum(s.startswith("ids ") for s in stages) == 39 and sum(s.startswith("first_logits_") for s in stages) == 3
        )
        assert all(row["equal"] == row["shape"][0] for row in r["rows"] if "equal" in row)


@pytest.mark.parametrize("name", ["shape_364", "shape_336"])
def test_other_picture_sizes_from_pixels_to_ids(name, folder):
    """Checkpoints made on the spot, reference numbers from transformers (tests/golden/make_golden.py shapes)."""
    how = json.loads((GOLDEN / name / "checkpoint.json").read_text())
    sets = [x for key, value in how["set"].items() for x in ("--set", f"{key}={json.dumps(value)}")]
    subprocess.run(
        [
            sys.executable, str(ROOT / "tests/bench/make_checkpoint.py"), how["preset"],
            str(folder / "model"), *how["options"], *sets,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    r = report(folder / "model", "--golden", GOLDEN / name, "--images", ODD)
    assert r["pass"] is True and r["n_skipped"] == 0
    size = int(name.split("_")[1])
    vision = next(row for row in r["rows"] if row["stage"] == "vision_last_hidden_state")
    assert vision["shape"] == [2, (size // 14) ** 2 + 1, 32]
    blipline(
        "caption", ODD / "odd_444.jpg", ODD / "odd_rgba.png", "-o", folder / "store", "--model",
        folder / "model", "--max-new-tokens=5",
    )
    rows, _ = export(folder / "store")
    assert len(rows) == 2 and all("error" not in row for row in rows)


def test_the_demo_models_from_picture_to_store():
    r = report()
    assert r["pass"] is True and r["n_skipped"] == 0
    assert r["verdict"].startswith("this machine computes BLIP-2 correctly")
    assert r["machine"]["cpu"] and r["machine"]["isa"] and r["machine"]["threads"] >= 1
    job = {row["stage"]: row for row in r["rows"] if row["worker"] == "job"}
    assert {k: v["shape"] for k, v in job.items()} == {
        "captions, greedy": [24], "captions, 5 beams": [24], "captions after a prompt": [24],
        "answers to questions": [96], "ITC similarities": [72], "ITM probabilities": [72],
        "the same bytes in other units, on one thread": [24],
    }
    assert all(row["pass"] and row.get("equal", row["shape"][0]) == row["shape"][0] for row in job.values())
    assert sum(row["stage"].startswith("ids ") for row in r["rows"]) == 48
    assert any(row["stage"] == "sampling probabilities" and row["equal"] == 9 for row in r["rows"])


def test_bf16_counts_what_agrees():
    done = blipline("selftest", "--dtype", "bf16", "--json", check=False)
    if done.returncode and "bf16" in done.stderr.lower():
        pytest.skip(done.stderr.strip())
    r = json.loads(done.stdout)
    assert r["pass"] is True and r["dtype"] == "bf16"
    errors = [row["relative_error"] for row in r["rows"] if row["stage"] == "vision_last_hidden_state"]
    assert len(errors) == 2 and all(1e-4 < e < 5e-2 for e in errors)  # it really was bf16
    assert all(row["equal"] >= row["shape"][0] / 2 for row in r["rows"] if row["worker"] == "job" and "equal" in row)


@pytest.mark.parametrize(
    "tensor, stage",
    [
        ("vision_model.encoder.layers.3.layer_norm1.weight", "vision_last_hidden_state"),
        ("vision_model.post_layernorm.bias", "vision_last_hidden_state"),
        ("qformer.encoder.layer.1.attention.output.LayerNorm.weight", "qformer_last_hidden_state"),
        ("language_model.model.decoder.layers.2.final_layer_norm.weight", "ids (no prompt)"),
    ],
)
def test_a_flipped_bit_of_a_norm_is_found_in_its_stage(folder, tensor, stage):
    model = copy_model(MODEL, folder / "model")
    flip_bits(model, tensor, n=1, mask=0x08)
    r = report(model, *DEMO, check=False)
    failed = [row["stage"] for row in r["rows"] if row["pass"] is False]
    assert r["pass"] is False and failed[0].startswith(stage), failed
    assert "does NOT compute" in r["verdict"] and failed[0] in r["verdict"]


def test_an_installed_copy_in_an_empty_folder(installed, folder):
    done = run_installed(installed, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("this machine computes BLIP-2 correctly: ")
    assert "captions, greedy" in done.stdout and "24 of 24 equal" in done.stdout and "\nmachine: " in done.stdout
    assert not list(folder.iterdir())
    devices = json.loads(
        subprocess.run([str(installed / "bin" / "blipline"), "devices", "--json"], capture_output=True, check=True,
                       timeout=60).stdout
    )
    assert devices["cuda_library"] == (str(installed / "bin" / "../lib/blipline/libblipline-cuda.so") if CUDA else None)


def test_an_installed_copy_with_a_broken_model(installed, folder):
    prefix = folder / "p"
    shutil.copytree(installed, prefix)
    norms = "vision_model.encoder.layers.0.layer_norm2.weight"
    flip_bits(prefix / "share/blipline/models/blip2-opt-demo", norms)
    done = run_installed(prefix, cwd=folder)
    assert done.returncode == 1 and "does NOT compute BLIP-2 correctly" in done.stdout.splitlines()[-1]
    captions = next(line for line in done.stdout.splitlines() if "captions, greedy" in line)
    assert "FAILED" in captions  # the picture's words too


@pytest.mark.parametrize(
    "missing, cure",
    [
        ("selftest/demo_answers.json", "install Blipline again"),
        ("models/blip2-itm-demo", "install Blipline again"),
        ("selftest/demo_opt", "make install"),
        ("models/blip2-opt-demo/config.json", "config.json"),
    ],
)
def test_a_missing_file_is_named_with_the_cure(installed, folder, missing, cure):
    prefix = folder / "p"
    shutil.copytree(installed, prefix)
    path = prefix / "share/blipline" / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = run_installed(prefix, cwd=folder)
    assert done.returncode == 1 and not done.stdout and cure in done.stderr, done.stderr
    assert pathlib.Path(missing).name in done.stderr or cure == "make install"


def test_wrong_use_is_refused(folder):
    assert blipline("selftest", "--golden", GOLDEN / "opt_a", check=False).returncode == 2
    assert blipline("selftest", "--dtype", "fp8", check=False).returncode == 2
    done = blipline("selftest", folder, check=False)
    assert done.returncode == 1 and "expected.json" in done.stderr and "--golden" in done.stderr
    done = blipline("selftest", GOLDEN / "opt_a", "--golden", GOLDEN / "opt_c", "--images", ODD, check=False)
    assert done.returncode == 1 and "the checkpoint gives" in done.stderr


def test_stopping_leaves_nothing_behind(folder):
    env = dict(os.environ, TMPDIR=str(folder))
    p = subprocess.Popen([str(BUILD / "blipline"), "selftest"], env=env, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    time.sleep(0.5 * SLOW)
    p.send_signal(signal.SIGTERM)
    assert p.wait(60 * SLOW) == 128 + signal.SIGTERM
    assert not list(folder.iterdir())
