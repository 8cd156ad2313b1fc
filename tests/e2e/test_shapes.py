"""Checkpoints of other shapes than the demo's, with random weights and the published structure
(tests/bench/make_checkpoint.py)."""

import json
import subprocess
import sys

import pytest
from harness import IMAGES, ROOT, blipline, export

SMALL = ["--scale", "16", "--vocab", "1500"]


def write(directory, preset, *options):
    subprocess.run(
        [sys.executable, str(ROOT / "tests/bench/make_checkpoint.py"), preset, str(directory), *SMALL, *options],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return directory


def captions(model, store):
    done = blipline("caption", IMAGES, "-o", store, "--model", model, "--max-new-tokens", "6", "--json")
    assert json.loads(done.stdout)["failed"] == 0
    return export(store)


@pytest.mark.parametrize(
    "options",
    [
        ["--image-size", "364"],
        ["--image-size", "336", "--dtype", "f16"],
        ["--set", "text_config.do_layer_norm_before=false"],
        ["--set", "vision_config.qkv_bias=false", "--set", "num_query_tokens=7"],
    ],
    ids=" ".join,
)
def test_opt_of_another_shape_captions(folder, options):
    rows, _ = captions(write(folder / "m", "opt-2.7b", *options), folder / "s")
    assert len(rows) == 24 and all(1 <= r["tokens"] <= 6 and r["logprob"] < 0 for r in rows)
    assert len({r["logprob"] for r in rows}) > 1  # pictures matter


@pytest.mark.every_level
def test_shards_change_no_byte(folder):
    whole = write(folder / "whole", "opt-2.7b", "--dtype", "f32")
    parts = write(folder / "parts", "opt-2.7b", "--dtype", "f32", "--shard", "1e6")
    assert len(list(whole.glob("*.safetensors"))) == 1 and len(list(parts.glob("*.safetensors"))) > 4
    assert captions(whole, folder / "s1")[1] == captions(parts, folder / "s2")[1]
