"""Checkpoints as they are found: what published and re-saved ones have in their files."""

import json
import shutil

import variants
from harness import ANSWERS, IMAGES, MODEL, ROOT, blipline, export

ITM = ROOT / "models" / "blip2-itm-demo"
PICTURE = IMAGES / "scene_0001.jpg"
CAPTION = ANSWERS["scene_0001.jpg"]["greedy"]


def copy(model, folder):
    to = folder / "model"
    shutil.copytree(model, to)
    return to


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_pictures_of_a_checkpoint_saved_by_transformers_5(folder):
    """processor_config.json holds what preprocessor_config.json did, and counts where both are there."""
    model = copy(MODEL, folder)
    numbers = json.loads((model / "preprocessor_config.json").read_text())
    (model / "processor_config.json").write_text(json.dumps({"image_processor": numbers, "num_query_tokens": 16, "processor_class": "Blip2Processor"}))
    edit(model / "preprocessor_config.json", lambda p: p.update(image_mean=[0, 0, 0]))
    blipline("caption", PICTURE, "-o", folder / "both", "--model", model)
    (model / "preprocessor_config.json").unlink()
    blipline("caption", PICTURE, "-o", folder / "one", "--model", model)
    assert [export(folder / s)[0][0]["caption"] for s in ("both", "one")] == [CAPTION, CAPTION]
    edit(model / "processor_config.json", lambda p: p.pop("image_processor"))
    done = blipline("caption", PICTURE, "-o", folder / "none", "--model", model, check=False)
    assert done.returncode == 1 and "preprocessor_config.json" in done.stderr and "processor_config.json with image_processor" in done.stderr


def test_generation_config_is_named_and_not_obeyed(folder):
    model = copy(MODEL, folder)
    edit(model / "generation_config.json", lambda g: g.update(eos_token_id=5))
    done = blipline("caption", PICTURE, "-o", folder / "s", "--model", model)
    assert "eos_token_id 5 is not used" in done.stderr
    assert export(folder / "s")[0][0]["caption"] == CAPTION


def test_an_image_token_past_the_vocabulary_spoils_only_texts_that_spell_it(folder):
    model = copy(ITM, folder)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    n = 1 + max(t["id"] for t in tokenizer["added_tokens"])
    variants.edit_tensors(model, [["rows", "embeddings.word_embeddings.weight", n]])
    edit(model / "config.json", lambda c: c["qformer_config"].update(vocab_size=n))
    edit(model / "tokenizer.json", lambda t: t["added_tokens"].append(dict(t["added_tokens"][-1], id=n, content="<image>")))
    rows = [{"path": str(PICTURE), "caption": CAPTION}, {"path": str(IMAGES / "scene_0003.jpg"), "caption": "an <image> of two"},
            {"path": str(IMAGES / "scene_0005.jpg"), "caption": "two cats"}]
    (folder / "l.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = blipline("score", f"@{folder / 'l.jsonl'}", "-o", folder / "s", "--model", model, check=False)
    assert done.returncode == 3
    first, second, third = export(folder / "s")[0]
    assert abs(first["itc"] - 0.9111) < 1e-3 and abs(first["itm"] - 0.99716) < 1e-3 and "itm" in third
    assert second["error"]["code"] == "unknown_token" and "<image>" in json.dumps(second)


def test_an_image_token_in_a_column_spoils_its_prompt_alone(folder):
    rows = [{"path": str(PICTURE), "question": "what is this?"}, {"path": str(IMAGES / "scene_0003.jpg"), "question": "what is <image>?"}]
    (folder / "l.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = blipline("caption", f"@{folder / 'l.jsonl'}", "-o", folder / "s", "--model", MODEL, "--prompt", "Question: {question} Answer:", check=False)
    assert done.returncode == 3
    first, second = export(folder / "s")[0]
    assert "caption" in first and second["error"]["code"] == "bad_prompt" and "image token" in json.dumps(second)
