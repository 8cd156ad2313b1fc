"""Jobs on a GPU: real daemons that load the CUDA operators. Where there is no card they are those of the emulator
(tests/emulator), which runs the same kernels on the CPU."""

import json
import os
import pathlib
import re
import shutil

import pytest

from harness import ANSWERS, BUILD, IMAGES, MODEL, PICTURES, ROOT, blipline, caption, export

EMULATED = BUILD / "emulated" / "libblipline-cuda.so"
REAL = BUILD / "libblipline-cuda.so"
DRIVER = pathlib.Path("/proc/driver/nvidia").exists() or pathlib.Path("/dev/dxg").exists()
UUID = "GPU-" + "-".join(
    b"BLIPLINEEMULATOR".hex()[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
)  # of the emulated card
GPU = ("--device", "cuda:0", "--cuda-library", EMULATED)

needs_emulator = pytest.mark.skipif(not EMULATED.exists(),
                                    reason="built without CUDA=1: there are no CUDA operators to load")


def pictures(folder, names):
    to = folder / "pictures"
    to.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(IMAGES / name, to / name)
    return to


def one_error(done, *says, code=1):
    """Nothing was done, and one line says why."""
    lines = done.stderr.splitlines()
    assert done.returncode == code and len(lines) == 1 and lines[0].startswith("blipline: "), done.stderr
    for text in says:
        assert text in lines[0], lines[0]


@needs_emulator
def test_a_store_of_the_cpu_goes_on_on_a_card_with_the_references_captions(folder):
    """Broker and three workers that share a card; types are of the recipe, devices are not."""
    names, words = [p.name for p in PICTURES[:4]], ("--max-new-tokens", "24")
    caption(pictures(folder, names[:1]), folder / "s", *words)
    done = caption(pictures(folder, names), folder / "s", *GPU, *words, check=False)
    assert (
        done.returncode == 1 and "encoder dtype" in done.stderr and "bf16" in done.stderr and "fp32" in done.stderr
    ), done.stderr
    done = caption(pictures(folder, names), folder / "s", *GPU, *words, "--dtype", "fp32", "-v")
    rows, _ = export(folder / "s")
    assert {r["key"]: r.get("caption") for r in rows} == {n: ANSWERS[n]["greedy"] for n in names}
    ready = [line for line in done.stderr.splitlines() if "event=ready stage=" in line]
    assert len(ready) == 3 and all(" device=cuda:0 dtype=fp32 " in line for line in ready), done.stderr
    assert done.stderr.count("NVIDIA's MPS is not running, so the 3 workers of a GPU take turns") == 1


@needs_emulator
def test_a_caption_in_fp8(folder):
    """Of a picture whose caption is certain: what rounding does to others, selftest says."""
    picture = "scene_0003.jpg"
    caption(pictures(folder, [picture]), folder / "s", *GPU, "--dtype", "fp8", "--max-new-tokens", "24")
    row = export(folder / "s")[0][0]
    assert row["caption"] == ANSWERS[picture]["greedy"] and -0.01 < row["logprob"] < 0, row


@needs_emulator
def test_dry_run_shows_who_runs_where(folder):
    done = caption(IMAGES, folder / "s", *GPU, "--dry-run", "--json", "--threads", "16")
    plan = json.loads(done.stdout)
    workers = {w["name"]: w for w in plan["workers"]}
    assert set(workers) == {"encoder", "qformer", "llm"} and {w["device"] for w in workers.values()} == {"cuda:0"}
    assert abs(sum(w["memory_share"] for w in workers.values()) - 0.9) < 1e-6
    assert workers["encoder"]["decode_threads"] == 12 and workers["llm"]["decode_threads"] is None
    assert {w["dtype"] for w in workers.values()} == {"bf16"} == {s["dtype"] for s in plan["stages"]}
    text = caption(IMAGES, folder / "s", *GPU, "--dry-run", "--dtype", "fp8").stdout
    assert "encoder-dtype = fp8\nqformer-dtype = bf16\nllm-dtype = fp8\n" in text
    assert re.search(r"^#   encoder +on cuda:0, \d+ % of its memory, \d+ threads? and \d+ to decode$", text, re.M), text
    two = caption(IMAGES, folder / "s", "--device", f"cuda:0,{UUID}", "--cuda-library", EMULATED, "--dry-run",
                  "--json").stdout
    assert [(w["name"], w["device"]) for w in json.loads(two)["workers"]] == [
        (f"{name}-{card}", device)
        for card, device in enumerate(("cuda:0", UUID))
        for name in ("encoder", "qformer", "llm")
    ]
    assert not (folder / "s").exists()


@needs_emulator
def test_a_card_that_is_not_there_is_one_error_before_any_work(folder):
    one_error(caption(IMAGES, folder / "s", "--device", "cuda:99", "--cuda-library", EMULATED, check=False), "cuda:99")
    old = dict(os.environ, BLIPLINE_EMULATED_SM="80")
    one_error(caption(IMAGES, folder / "s", *GPU, "--dtype", "fp8", env=old, check=False), "fp8")
    assert not (folder / "s").exists()


def test_no_operators_are_one_error_before_any_work(folder):
    missing = folder / "lib.so"
    one_error(
        caption(IMAGES, folder / "s", "--device", "cuda:0", "--cuda-library", missing, check=False),
        str(missing),
        "--device cpu",
    )
    missing.write_text("no library")
    one_error(
        caption(IMAGES, folder / "s", "--device", "cuda:0", "--cuda-library", missing, check=False),
        "cannot load",
        str(missing),
    )
    assert not (folder / "s").exists()
    if not REAL.exists():
        one_error(caption(IMAGES, folder / "s", "--device", "cuda:0", check=False), "no libblipline-cuda.so")
    done = blipline("selftest", "--device", "cuda:0", "--cuda-library", folder / "none", check=False)
    one_error(done, "no libblipline-cuda.so")


@pytest.mark.skipif(not REAL.exists(), reason="built without CUDA=1: there are no CUDA operators to load")
@pytest.mark.skipif(DRIVER, reason="there is a driver here")
def test_operators_without_a_driver_are_one_error_before_any_work(folder):
    one_error(
        caption(IMAGES, folder / "s", "--device", "cuda:0", check=False),
        "no GPU here, or NVIDIA's driver is not loaded",
    )
    one_error(caption(IMAGES, folder / "s", "--device", "cuda:0", "--cuda-library", REAL, check=False), "cuda:0",
              "driver")
    assert not (folder / "s").exists()
    done = caption(pictures(folder, [PICTURES[0].name]), folder / "s", "--device", "auto", "--max-new-tokens", "24")
    assert "computing on the CPU: there is no GPU here" in done.stderr
    assert export(folder / "s")[0][0]["caption"] == ANSWERS[PICTURES[0].name]["greedy"]


@pytest.mark.parametrize(
    "options, says",
    [
        (["--device", "gpu"], "not a device"),
        (["--device", "cpu,cuda:0"], "not a device"),
        (["--device", "cuda:0,cuda:0"], "cuda:0 twice"),
        (["--device", "cpu", "--dtype", "fp8"], "CPUs compute in fp32"),
        (["--device", "cpu", "--llm-dtype", "fp16"], "--llm-dtype fp16: CPUs"),
        (["--qformer-dtype", "fp8"], "the Q-Former does not support fp8"),
        (["--dtype", "int8"], "fp32, bf16, fp16, fp8 or auto"),
    ],
)
def test_wrong_devices_and_types_are_wrong_command_lines(folder, options, says):
    one_error(caption(IMAGES, folder / "s", *options, check=False), says, code=2)
    assert not (folder / "s").exists()


@needs_emulator
def test_flan_t5_has_neither_fp16_nor_fp8(folder):
    for dtype in ("fp16", "fp8"):
        done = blipline(
            "caption", IMAGES, "-o", folder / "s", "--model", ROOT / "tests/golden/t5_a", *GPU, "--dtype",
            dtype, check=False,
        )
        one_error(done, f"--llm-dtype {dtype}", "FlanT5", "bf16", code=2)


def test_devices_are_listed():
    r = json.loads(blipline("devices", "--json").stdout)
    assert r["cpu"]["threads"] >= 1 and r["cpu"]["model"] and isinstance(r["gpus"], list)
    assert r["cuda_library"] == (str(REAL) if REAL.exists() else None)
    assert r["auto"] == ["cpu"] if not r["gpus"] or not r["cuda_library"] else len(r["auto"]) >= 1
    text = blipline("devices").stdout
    assert f"{r['cpu']['threads']} thread" in text and "CUDA operators: " in text and "--device auto: " in text


def test_selftest_wants_a_device_that_has_the_type():
    one_error(blipline("selftest", "--dtype", "fp8", check=False), "CPUs compute in fp32", code=2)
    one_error(blipline("selftest", "--device", "null", check=False), "expected one CPU or GPU", code=2)


@needs_emulator
def test_selftest_of_a_card():
    """A small checkpoint without a language model: the 48 sets of decoding options take the emulator long."""
    r = json.loads(
        blipline(
            "selftest", ROOT / "tests/golden/itm_c", "--images", ROOT / "tests/golden/images_odd", *GPU,
            "--json", check=False,
        ).stdout
    )
    assert r["pass"] is True and r["device"] == "cuda:0" and r["machine"]["device"] == "cuda:0", [
        row for row in r["rows"] if row["pass"] is False
    ]
    errors = {row["stage"]: row["relative_error"] for row in r["rows"]}
    assert errors["vision_last_hidden_state"] < 1e-5 and "itm_logits" in errors
