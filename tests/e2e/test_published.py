"""Every published checkpoint is accepted: its configuration on files of the real names, shapes and sizes that hold no
bytes (sparse)."""

import json
import math
import sys

import pytest
from harness import IMAGES, ROOT, blipline
from published import IMAGE_TOKEN, IDS, REPOSITORIES, TOTAL_SIZE, preprocessor

sys.path.insert(0, str(ROOT / "tests" / "bench"))
import make_checkpoint  # noqa: E402
import make_tokenizer  # noqa: E402

DEFAULTS = {
    "vision_config": make_checkpoint.VISION, "qformer_config": make_checkpoint.QFORMER,
    "opt": make_checkpoint.opt(768, 12, 12), "t5": {},
}
LARGEST_FILE = 10e9


def whole(config):
    """The configuration with its defaults, from which the names and shapes follow."""
    full = {**config, "image_text_hidden_size": 256}
    for key in ("vision_config", "qformer_config"):
        full[key] = {**DEFAULTS[key], **config[key]}
    full["text_config"] = {**DEFAULTS[config["text_config"]["model_type"]], **config["text_config"]}
    return full


def write_sparse(path, part):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in part:
        n = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.truncate(8 + len(text) + at)
    return at


def write_files(directory, tensors):
    """model.safetensors, or shards with their index, filled as save_pretrained does. Returns all tensors' bytes."""
    files, room = [[]], LARGEST_FILE
    for name, shape in tensors:
        n = 4 * math.prod(shape)
        if n > room:
            files.append([])
            room = LARGEST_FILE
        files[-1].append((name, shape))
        room -= n
    if len(files) == 1:
        return write_sparse(directory / "model.safetensors", files[0])
    names = [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
    total = sum(write_sparse(directory / name, part) for name, part in zip(names, files))
    index = {
        "metadata": {"total_size": total},
        "weight_map": {t[0]: name for name, part in zip(names, files) for t in part},
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


@pytest.fixture(scope="module")
def tokenizers(made_once):
    """Of the published kinds and sizes, with other words: kind -> file. They take longer to make than all the rest."""
    kinds = {
        "opt": (make_tokenizer.bpe, 50304), "t5": (make_tokenizer.unigram, 32128),
        "itm": (make_tokenizer.wordpiece, 30523),
    }

    def make(folder):
        for kind, (kind_of_tokenizer, n) in kinds.items():
            tokenizer, ids = kind_of_tokenizer(n)
            assert ids.get("image") == IMAGE_TOKEN.get(kind)
            (folder / f"{kind}.json").write_text(json.dumps(tokenizer))
    folder = made_once("tokenizers", make)
    return {kind: folder / f"{kind}.json" for kind in kinds}


@pytest.mark.parametrize("name", REPOSITORIES)
def test_published_configuration_is_accepted(name, folder, tokenizers):
    config, full = REPOSITORIES[name], whole(REPOSITORIES[name])
    retrieval = config["architectures"] == ["Blip2ForImageTextRetrieval"]
    kind = "itm" if retrieval else config["text_config"]["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor(full["vision_config"]["image_size"])))
    (folder / "processor_config.json").write_text(
        json.dumps({"num_query_tokens": 32, "processor_class": "Blip2Processor"})
    )
    if not retrieval:
        (folder / "generation_config.json").write_text(
            json.dumps({"_from_model_config": True, **IDS[kind], "transformers_version": "4.47.0.dev0"})
        )
    (folder / "tokenizer.json").symlink_to(tokenizers[kind])
    total = write_files(
        folder, [(t[0], t[1]) for t in make_checkpoint.tensors(full) if kind != "opt" or "lm_head" not in t[0]]
    )
    assert total == TOTAL_SIZE.get(name, total)
    (folder / "l.jsonl").write_text(json.dumps({"path": str(IMAGES / "scene_0001.jpg"), "caption": "a dog"}) + "\n")
    command = ["score", f"@{folder / 'l.jsonl'}"] if retrieval else ["caption", IMAGES, "--question", "what is this?"]
    done = blipline(*command, "-o", folder / "store", "--model", folder, "--dry-run", timeout=20)
    assert "stages" in done.stdout and "is not used" not in done.stderr
    assert (
        sum(p.stat().st_blocks for p in folder.glob("*.safetensors")) < 20000
    )  # nothing was written, and so nothing is there to read
