"""Checkpoints as they are found: what published and re-saved ones have in their files."""

import json
import math
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
    (model / "processor_config.json").write_text(
        json.dumps({"image_processor": numbers, "num_query_tokens": 16, "processor_class": "Blip2Processor"})
    )
    edit(model / "preprocessor_config.json", lambda p: p.update(image_mean=[0, 0, 0]))
    blipline("caption", PICTURE, "-o", folder / "both", "--model", model)
    (model / "preprocessor_config.json").unlink()
    blipline("caption", PICTURE, "-o", folder / "one", "--model", model)
    assert [export(folder / s)[0][0]["caption"] for s in ("both", "one")] == [CAPTION, CAPTION]
    edit(model / "processor_config.json", lambda p: p.pop("image_processor"))
    done = blipline("caption", PICTURE, "-o", folder / "none", "--model", model, check=False)
    assert (
        done.returncode == 1
        and "preprocessor_config.json" in done.stderr
        and "processor_config.json with image_processor" in done.stderr
    )


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
    edit(
        model / "tokenizer.json",
        lambda t: t["added_tokens"].append(dict(t["added_tokens"][-1], id=n, content="<image>")),
    )
    rows = [
        {"path": str(PICTURE), "caption": CAPTION},
        {"path": str(IMAGES / "scene_0003.jpg"), "caption": "an <image> of two"},
        {"path": str(IMAGES / "scene_0005.jpg"), "caption": "two cats"},
    ]
    (folder / "l.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = blipline("score", f"@{folder / 'l.jsonl'}", "-o", folder / "s", "--model", model, check=False)
    assert done.returncode == 3
    first, second, third = export(folder / "s")[0]
    assert abs(first["itc"] - 0.9111) < 1e-3 and abs(first["itm"] - 0.99716) < 1e-3 and "itm" in third
    assert second["error"]["code"] == "unknown_token" and "<image>" in json.dumps(second)


def test_an_image_token_in_a_column_spoils_its_prompt_alone(folder):
    rows = [
        {"path": str(PICTURE), "question": "what is this?"},
        {"path": str(IMAGES / "scene_0003.jpg"), "question": "what is <image>?"},
    ]
    (folder / "l.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = blipline(
        "caption", f"@{folder / 'l.jsonl'}", "-o", folder / "s", "--model", MODEL, "--prompt",
        "Question: {question} Answer:", check=False,
    )
    assert done.returncode == 3
    first, second = export(folder / "s")[0]
    assert "caption" in first and second["error"]["code"] == "bad_prompt" and "image token" in json.dumps(second)


def test_weights_that_are_not_finite_give_errors(folder):
    """Never a caption; tests/unit/test_not_finite.c goes through all tensors."""
    fc1 = "language_model.model.decoder.layers.0.fc1.weight"
    for i, how in enumerate(([math.nan, 1000], [math.inf, 7], [math.nan], [math.inf])):
        model = folder / f"m{i}"
        shutil.copytree(MODEL, model)
        variants.edit_tensors(model, [["spoil", fc1, *how]])
        done = blipline(
            "caption", PICTURE, IMAGES / "scene_0003.jpg", "-o", folder / f"s{i}", "--model", model,
            *["--beams", "3"][: i % 2 * 2], check=False,
        )
        rows = export(folder / f"s{i}")[0]
        assert (
            done.returncode == 3
            and [r["error"]["code"] for r in rows] == ["not_finite"] * 2
            and not any("caption" in r for r in rows)
        ), (how, rows)


def test_scores_and_embeddings_that_are_not_finite_are_errors_of_their_pictures(folder):
    """One word that is not finite spoils the picture whose caption has it; the others are as they are."""
    words = json.loads((ITM / "tokenizer.json").read_text())["model"]["vocab"]
    model = copy(ITM, folder)
    width = json.loads((ITM / "config.json").read_text())["qformer_config"]["hidden_size"]
    variants.edit_tensors(model, [["spoil", "embeddings.word_embeddings.weight", math.nan, words["dog"] * width + 3]])
    (folder / "l.jsonl").write_text(
        "".join(
            json.dumps({"path": str(IMAGES / f"scene_000{n}.jpg"), "caption": text}) + "\n"
            for n, text in ((1, "a dog"), (3, "two cats"))
        )
    )
    done = blipline("score", f"@{folder / 'l.jsonl'}", "-o", folder / "s", "--model", model, "--embed", "itc_text",
                    check=False)
    first, second = export(folder / "s")[0]
    assert (
        done.returncode == 3
        and first["error"]["code"] == "not_finite"
        and "itc" not in first
        and math.isfinite(second["itc"])
        and math.isfinite(second["itm"])
    )
    for i, (tensor, value, kinds) in enumerate(
        (
            ("vision_projection.weight", math.inf, ["itc"]),
            ("vision_model.post_layernorm.bias", math.nan, ["cls", "query"]),
            ("itm_head.bias", -math.inf, []),
        )
    ):
        model = folder / f"m{i}"
        shutil.copytree(ITM, model)
        variants.edit_tensors(model, [["spoil", tensor, value, 1]])
        command = (
            ["embed", PICTURE, *(x for kind in kinds for x in ("--embed", kind))]
            if kinds
            else ["score", f"@{folder / 'l.jsonl'}"]
        )
        done = blipline(*command, "-o", folder / f"e{i}", "--model", model, check=False)
        assert done.returncode == 3 and all(r["error"]["code"] == "not_finite" for r in export(folder / f"e{i}")[0]), (
            tensor,
            done.stderr,
        )
