"""The main job through the command: pictures in, captions out, from four processes."""

import csv
import io
import json
import os
import pathlib
import subprocess

import pytest
from harness import (
    ANSWERS, BUILD, IMAGES, MODEL, PICTURES, ROOT, Caption, answer_for, blipline, caption, export, many,
    store_rows, wait_for,
)

@pytest.fixture(scope="module")
def demo_store(tmp_path_factory):
    store = tmp_path_factory.mktemp("demo") / "s"
    caption(IMAGES, store)
    return store


def test_demo_captions_equal_the_reference(demo_store):
    rows, _ = export(demo_store)
    assert [r["item"] for r in rows] == list(range(24))
    assert {r["key"]: r["caption"] for r in rows} == {name: a["greedy"] for name, a in ANSWERS.items()}
    assert all(set(r) == {"item", "key", "caption", "logprob", "tokens"} for r in rows)
    assert all(r["logprob"] <= 0 and 1 <= r["tokens"] <= 24 for r in rows)


def test_prompt_is_followed(folder):
    done = caption(IMAGES, folder / "s", "--prompt", "a photo of", "--max-new-tokens", "24", "--json")
    rows, _ = export(folder / "s")
    assert {r["key"]: r["caption"] for r in rows} == {name: a["photo"] for name, a in ANSWERS.items()}
    summary = json.loads(done.stdout)
    assert summary["items"] == 24 and summary["done"] == 24 and summary["failed"] == 0


def test_four_separate_processes_do_the_work(folder):
    run = Caption(many(folder / "in", 3), folder / "s", "--threads", "2")
    try:
        roles = wait_for(lambda: (r := run.roles()) and len(r) == 4 and r, 30)
        assert sorted(roles) == ["broker", "encoder", "llm", "qformer"]
        assert len(set(roles.values()) | {run.process.pid}) == 5
        libraries = {role: open(f"/proc/{pid}/maps").read() for role, pid in roles.items()}
        assert "libdnnl" not in libraries["broker"] and "liblmdb" in libraries["broker"]
        code, _, err = run.end()
        assert code == 0, err
    finally:
        run.kill()
    rows, _ = export(folder / "s")
    assert all(r["caption"] == answer_for(r["key"]) for r in rows) and len(rows) == 72
    assert not any(os.path.exists(f"/proc/{pid}") for pid in roles.values())


@pytest.mark.every_level
def test_unit_size_and_threads_change_no_byte(folder, demo_store):
    _, reference = export(demo_store)
    for n, options in enumerate((["--unit", "1"], ["--unit", "7", "--threads", "1"], ["--unit", "64"])):
        caption(IMAGES, folder / f"s{n}", *options)
        assert export(folder / f"s{n}")[1] == reference, options


def test_running_again_adds_only_what_is_new(folder):
    source = folder / "in"
    source.mkdir()
    for p in PICTURES[:5]:
        (source / p.name).write_bytes(p.read_bytes())
    caption(source, folder / "s")
    before, _ = export(folder / "s")
    for p in PICTURES[5:8]:
        (source / p.name).write_bytes(p.read_bytes())
    (source / PICTURES[0].name).unlink()
    done = caption(source, folder / "s")
    rows, _ = export(folder / "s")
    assert rows[:5] == before, "numbers never change, vanished files keep their records"
    assert [r["key"] for r in rows[5:]] == [p.name for p in PICTURES[5:8]]
    assert caption(source, folder / "s").returncode == 0
    assert export(folder / "s")[0] == rows
    assert done.returncode == 0


def test_limit_and_lists_and_files(folder):
    listing = folder / "list.txt"
    listing.write_text("".join(f"{p}\r\n" for p in PICTURES[:4]))
    caption([f"@{listing}", PICTURES[9]], folder / "s")
    assert [r["caption"] for r in export(folder / "s")[0]] == [
        ANSWERS[p.name]["greedy"] for p in [*PICTURES[:4], PICTURES[9]]
    ]
    caption(IMAGES, folder / "t", "--limit", "3")
    assert len(export(folder / "t")[0]) == 3


def test_another_recipe_or_model_is_refused_with_the_difference(folder, demo_store):
    done = caption(IMAGES, demo_store, "--prompt", "a photo of", check=False)
    assert done.returncode == 1 and "prompt" in done.stderr and "a photo of" in done.stderr
    other = folder / "other-model"
    other.mkdir()
    for p in MODEL.iterdir():
        (other / p.name).write_bytes(p.read_bytes())
    settings = json.loads((other / "config.json").read_text())
    settings["text_config"]["eos_token_id"] = 203
    (other / "config.json").write_text(json.dumps(settings))
    done = blipline("caption", IMAGES, "-o", demo_store, "--model", other, check=False)
    assert done.returncode == 1 and "blip2-opt-demo" in done.stderr and "other-model" in done.stderr


def test_export_formats(folder, demo_store):
    rows, text = export(demo_store)
    table = list(csv.DictReader(io.StringIO(blipline("export", demo_store, "--format", "csv").stdout)))
    assert [(r["key"], r["caption"]) for r in table] == [(r["key"], r["caption"]) for r in rows]
    lines = blipline("export", demo_store, "--format", "txt").stdout.splitlines()
    assert lines == [f"{r['key']}\t{r['caption']}" for r in rows]
    blipline("export", demo_store, "--format", "jsonl", "-o", folder / "out.jsonl")
    assert (folder / "out.jsonl").read_bytes() == text
    assert blipline("export", demo_store, "-o", "-").stdout.encode() == text
    done = blipline("export", demo_store, "-o", "/dev/full", check=False)
    assert done.returncode == 1 and "No space" in done.stderr and not pathlib.Path("/dev/full").is_file()


def test_get_stats_verify(demo_store):
    assert ANSWERS["scene_0005.jpg"]["greedy"] in blipline("get", demo_store, "scene_0005.jpg").stdout
    assert ANSWERS["scene_0000.webp"]["greedy"] in blipline("get", demo_store, "--item", "0").stdout
    assert blipline("get", demo_store, "nothing.jpg", check=False).returncode == 1
    stats = json.loads(blipline("stats", demo_store, "--json").stdout)
    assert stats["done"] == 24 and stats["failed"] == 0
    assert blipline("verify", demo_store).returncode == 0


def test_the_store_is_read_by_a_dozen_lines_of_python(demo_store):
    program = ROOT / "examples" / "read_store.py"
    done = subprocess.run(
        [os.environ.get("PYTHON", "/usr/bin/python3"), str(program), str(demo_store)],
        capture_output=True, text=True, check=True, timeout=60,
    )
    for name, answers in ANSWERS.items():
        assert name in done.stdout and answers["greedy"] in done.stdout
    assert len(store_rows(demo_store)) == 24


def test_selftest_passes_on_the_golden_checkpoint_and_fails_on_a_wrong_one(folder):
    golden = ROOT / "tests" / "golden" / "opt_a"
    images = ROOT / "tests" / "golden" / "images_odd"
    done = blipline("selftest", golden, "--images", images)
    assert "vision" in done.stdout and "logits" in done.stdout
    report = json.loads(blipline("selftest", golden, "--images", images, "--json").stdout)
    assert report["pass"] is True
    bad = folder / "bad"
    bad.mkdir()
    for p in golden.iterdir():
        (bad / p.name).write_bytes(p.read_bytes())
    weights = bytearray((bad / "model.safetensors").read_bytes())
    for i in range(len(weights) // 2, len(weights) // 2 + 4000, 4):
        weights[i + 3] ^= 0x01
    (bad / "model.safetensors").write_bytes(weights)
    assert blipline("selftest", bad, "--images", images, check=False).returncode == 1


def test_usage_errors_exit_2_and_say_what_to_do(folder):
    for arguments in (
        ["caption"],
        ["caption", str(IMAGES)],
        ["nonsense"],
        ["caption", str(IMAGES), "-o", "x", "--unknown"],
        ["export"],
        ["caption", str(IMAGES), "-o", "x", "--model", str(MODEL), "--unit", "many"],
        [],
    ):
        done = blipline(*arguments, check=False, cwd=folder)
        assert done.returncode == 2, (arguments, done)
        assert done.stderr.strip(), arguments
    done = blipline("caption", IMAGES, "-o", folder / "x", check=False)
    assert done.returncode == 2 and "models/blip2-opt-demo" in done.stderr and "  hf download" in done.stderr
    for arguments in (["--help"], ["caption", "--help"], ["help"], ["help", "caption"], ["version"]):
        assert blipline(*arguments).stdout


def test_daemons_check_their_configuration(folder):
    for role in ("broker", "encoder", "qformer", "llm"):
        program = str(BUILD / f"blipline-{role}")
        for flag in ("-h", "-V"):
            assert subprocess.run([program, flag], capture_output=True, check=True, timeout=30).stdout
        good, bad = folder / "good.conf", folder / "bad.conf"
        good.write_text(f"endpoint = ipc://{folder}/b\n")
        bad.write_text("endpoint = x\nnonsense = 3\n")
        assert subprocess.run([program, "-n", "-f", str(good)], check=False, timeout=30).returncode == 0
        done = subprocess.run([program, "-n", "-f", str(bad)], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 78 and "nonsense" in done.stderr and "bad.conf" in done.stderr
