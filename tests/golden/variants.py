"""Checkpoints made from small ones by edits that fit a line of JSON.

A base is written by tests/bench/make_checkpoint.py; a variant is a base and a list of edits:

    ["set", FILE, KEY, VALUE]    a key of a JSON file, made with its sections where they are missing; KEY has dots,
                                 numbers count in lists
    ["del", FILE, KEY]           that key
    ["file", FILE, VALUE]        the whole JSON file; null: none
    ["add", FILE, KEY, VALUE]    at the end of a list
    ["drop", TENSOR]             without this tensor
    ["rename", FROM, TO]         a tensor by another name
    ["copy", FROM, TO]           and by both
    ["negate", TENSOR]           its values with the other sign
    ["rows", TENSOR, N]          its first N rows
    ["type", PATTERN, TYPE]      tensors whose names match the pattern are stored as F32, F16 or BF16
    ["shards", N]                in N files with an index

tests/golden/make_variants.py has transformers compute them, tests/e2e/test_variants.py Blipline. Nothing but numpy is
needed here.
"""

import fnmatch
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parent
ROOT = GOLDEN.parents[1]
TABLE = GOLDEN / "variants" / "table.json"

VISION = {
    "vision_config.hidden_size": 32, "vision_config.num_attention_heads": 2,
    "vision_config.num_hidden_layers": 2, "vision_config.intermediate_size": 72,
    "qformer_config.hidden_size": 48, "qformer_config.num_attention_heads": 3,
    "qformer_config.num_hidden_layers": 2, "qformer_config.intermediate_size": 80,
    "qformer_config.encoder_hidden_size": 32, "num_query_tokens": 8, "image_text_hidden_size": 12,
}
BASES = {
    "opt": (
        "opt-2.7b",
        {
            "text_config.hidden_size": 60, "text_config.word_embed_proj_dim": 60,
            "text_config.num_attention_heads": 3, "text_config.num_hidden_layers": 2,
            "text_config.ffn_dim": 120, "text_config.max_position_embeddings": 80,
        },
    ),
    "t5": (
        "flan-t5-xl",
        {
            "text_config.d_model": 56, "text_config.d_kv": 12, "text_config.num_heads": 3,
            "text_config.num_layers": 2, "text_config.num_decoder_layers": 2, "text_config.d_ff": 72,
        },
    ),
    "itm": ("itm-vit-g", {"qformer_config.max_position_embeddings": 40}),
}


def write_base(name, directory):
    preset, numbers = BASES[name]
    command = [
        sys.executable, str(ROOT / "tests/bench/make_checkpoint.py"), preset, str(directory), "--image-size",
        "56", "--vocab", "420", "--dtype", "f32", "--seed", "3",
    ]
    for key, value in {**VISION, **numbers}.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


# -- JSON


def _find(value, key, make=False):
    """The object or list that holds the last part of a dotted key, and that part."""
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(value, list):
            value = value[int(part)]
        elif make:
            value = value.setdefault(part, {})
        else:
            value = value[part]
    return value, int(last) if isinstance(value, list) else last


def _edit_json(directory, edit):
    what, name, *rest = edit
    path = directory / name
    if what == "file":
        value = rest[0]
        if value is None:
            path.unlink()
            return
    else:
        value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        at, key = _find(value, rest[0], make=what == "set")
        if what == "set":
            at[key] = rest[1]
        elif what == "add":
            at[key].append(rest[1])
        else:
            del at[key]
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


# -- tensors: name -> (type, shape, bytes)


def read_tensors(directory):
    found = {}
    for path in sorted(directory.glob("model*.safetensors")):
        data = path.read_bytes()
        n = int.from_bytes(data[:8], "little")
        for name, e in json.loads(data[8:8 + n]).items():
            if name != "__metadata__":
                begin, end = e["data_offsets"]
                found[name] = e["dtype"], e["shape"], data[8 + n + begin:8 + n + end]
    return found


def _write_file(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join([len(text).to_bytes(8, "little"), text, *(t[2] for t in tensors.values())]))


def write_tensors(directory, tensors, n_files):
    for old in directory.glob("model*.safetensors*"):
        old.unlink()
    if n_files == 1:
        _write_file(directory / "model.safetensors", tensors)
        return
    places = {}
    for i in range(n_files):
        part = dict(list(tensors.items())[i::n_files])
        name = f"model-{i + 1:05d}-of-{n_files:05d}.safetensors"
        _write_file(directory / name, part)
        places.update(dict.fromkeys(part, name))
    total = sum(len(t[2]) for t in tensors.values())
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": places})
    )


def _to_float(kind, data):
    if kind == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": np.float32, "F16": np.float16}[kind]).astype(np.float32)


def _from_float(kind, x):
    if kind == "BF16":
        bits = x.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).tobytes()  # to the nearest, ties to even
    return x.astype({"F32": np.float32, "F16": np.float16}[kind]).tobytes()


def _edit_tensor(tensors, edit):
    what, name, *rest = edit
    if what == "type":
        for n, (kind, shape, data) in tensors.items():
            if fnmatch.fnmatchcase(n, name):
                tensors[n] = rest[0], shape, _from_float(rest[0], _to_float(kind, data))
        return
    kind, shape, data = tensors[name]
    if what in ("drop", "rename"):
        del tensors[name]
    if what in ("rename", "copy"):
        tensors[rest[0]] = kind, shape, data
    elif what == "negate":
        tensors[name] = kind, shape, _from_float(kind, -_to_float(kind, data))
    elif what == "spoil":  # all numbers times rest[0], or the one at rest[1] instead of its own
        x = _to_float(kind, data)
        with np.errstate(invalid="ignore"):
            x[rest[1:] or slice(None)] = rest[0] if rest[1:] else x * np.float32(rest[0])
        tensors[name] = kind, shape, _from_float(kind, x)
    elif what == "rows":
        tensors[name] = kind, [rest[0], *shape[1:]], data[:len(data) // shape[0] * rest[0]]


def edit_tensors(directory, edits):
    tensors, n_files = read_tensors(directory), len(list(directory.glob("model*.safetensors")))
    for edit in edits:
        if edit[0] == "shards":
            n_files = edit[1]
        else:
            _edit_tensor(tensors, edit)
    write_tensors(directory, tensors, n_files)


def apply(base, edits, directory):
    """The variant of a base, in a folder that it has for itself."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(base, directory)
    files = [e for e in edits if e[0] in ("set", "del", "file", "add")]
    for edit in files:
        _edit_json(directory, edit)
    weights = [e for e in edits if e not in files]
    if weights:
        edit_tensors(directory, weights)
    return directory


# -- what Blipline makes of one


def is_retrieval(directory):
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    names = config.get("architectures")
    return (
        names == ["Blip2ForImageTextRetrieval"]
        if names
        else bool((config.get("qformer_config") or {}).get("use_qformer_text_input"))
    )


def dry_run(blipline, directory):
    """Is it accepted by the command that would use it?"""
    listing = directory.parent / "pairs.jsonl"
    picture = ROOT / "examples/images/scene_0001.jpg"
    listing.write_text(json.dumps({"path": str(picture), "caption": "two cats"}) + "\n")
    what = ["score", f"@{listing}"] if is_retrieval(directory) else ["caption", str(picture), "--prompt", "a photo of"]
    return subprocess.run(
        [
            str(blipline), *what, "-o", str(directory.parent / "store"), "--model", str(directory),
            "--device", "cpu", "--dry-run",
        ],
        capture_output=True, text=True, timeout=120,
    )


def reason(done, directory):
    """Why it was refused, without the folder's name."""
    text = done.stderr.strip().splitlines()[-1]
    return text[text.index(": ", text.index(": ") + 2) + 2:].replace(f"{directory}/", "").replace(f"{directory}: ", "")


def differences(blipline, directory, golden, images, logits_limit=5e-5):
    """What selftest finds between a checkpoint and the numbers of transformers; T5's logits are held closer than it
    does."""
    done = subprocess.run(
        [
            str(blipline), "selftest", str(directory), "--golden", str(golden), "--images", str(images),
            "--device", "cpu", "--json",
        ],
        capture_output=True, text=True, timeout=600,
    )
    try:
        rows = json.loads(done.stdout)["rows"]
    except (ValueError, KeyError):
        return [done.stderr.strip() or f"exit code {done.returncode}"]
    wrong = lambda r: r.get("pass") is not True or (
        r["stage"].startswith("first_logits") and r["relative_error"] > logits_limit
    )
    return [f"{r['worker']} {r['stage']}: {r.get('detail') or r.get('relative_error')}" for r in rows if wrong(r)]
