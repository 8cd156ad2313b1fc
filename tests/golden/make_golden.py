#!/usr/bin/env python3
"""Reference data for a checkpoint, computed with transformers, in the form of tests/golden/opt_a.

    make_golden.py data MODEL_DIR OUT_DIR --images DIR [--pictures N] [--tensor-pictures N] [--rows FILE]
    make_golden.py shapes [NAME...]
    make_golden.py random WORK_DIR [--kinds opt t5 itm] [--n 6] [--seed 1] [--keep] [--blipline build/blipline]

`data` writes OUT_DIR/expected.json and OUT_DIR/expected.safetensors: what `blipline selftest MODEL_DIR --golden
OUT_DIR` compares with. tests/golden/demo_opt and demo_itm were made with

    make_golden.py data models/blip2-opt-demo tests/golden/demo_opt --images examples/images --pictures 24 \\
        --tensor-pictures 2 --rows tests/golden/decode/demo.json
    make_golden.py data models/blip2-itm-demo tests/golden/demo_itm --images examples/images --pictures 2

`shapes` does so for checkpoints that tests/bench/make_checkpoint.py writes and that are not kept:
tests/golden/NAME/checkpoint.json says how they are written (shape_364, shape_336: the other two picture sizes of
published models).

`random` invents checkpoints that nobody has seen: odd numbers of heads, head widths that are no multiple of a vector,
stacks of unequal depths, lists of end-of-sequence ids, keys missing from config.json, several shards, mixed data
types, picture sizes that are not 224; computes the reference and runs `blipline selftest` on each. It prints what
differs and exits with 1 if anything does. The same seed gives the same checkpoints.

It needs Python with torch, transformers and safetensors, so it is no part of `make test`. Everything is computed in
fp32 on the CPU. expected.json says under "made_with" which versions of transformers and Pillow that was.
"""

import argparse
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, PreTrainedTokenizerFast

GOLDEN = pathlib.Path(__file__).resolve().parent
ROOT = GOLDEN.parents[1]
PROMPTS = (None, "a photo of", "Question: how many objects are there? Answer:")
TEXTS = (
    "a cat to the left of a dog on a blue background", "two cats", "a large red apple",
    "something else entirely, not a scene!",
)
CASES = (
    "", "a", "a photo of", "Question: how many cats are there? Answer:", "  two   spaces",
    "don't, won't; it's", "Crème brûlée 3.14", "naïve 猫 on a mat 🐈", "tab\tand\nnewline",
    "CAPITALS and lower", "100% (really) [yes]",
)
OPTIONS = tuple(
    json.loads((GOLDEN / "opt_a" / "expected.json").read_text(encoding="utf-8"))["generate"][i]["options"]
    for i in range(13)
)
ROWS = [(prompt, options) for prompt in PROMPTS for options in OPTIONS]
LOGITS = {
    None: "first_logits_none",
    "a photo of": "first_logits_photo",
    "Question: how many objects are there? Answer:": "first_logits_question",
}
MAX_NEW = 14


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


# -- the reference


def squash(picture, size):
    """Horizontally first, then vertically, whatever Pillow does in one call: up to 12.3 it does the same, to the bit,
    but 13.0 begins vertically where the
    height shrinks much more than the width, which moves tall pictures by up to 3 levels."""
    return picture.resize((size, picture.height), Image.Resampling.BICUBIC).resize(
        (size, size), Image.Resampling.BICUBIC
    )


def image_numbers(model_dir):
    """What transformers reads: image_processor of processor_config.json, else preprocessor_config.json."""
    return read_json(model_dir / "processor_config.json").get("image_processor") or read_json(
        model_dir / "preprocessor_config.json"
    )


def pixels(directory, names, model_dir):
    """As MODEL.md "Pixels" says, which is what the slow image processor does."""
    p = image_numbers(model_dir)
    size = p["size"]["height"]
    out = []
    for name in names:
        picture = squash(Image.open(directory / name).convert("RGB"), size)
        x = np.asarray(picture).astype(np.float64) * p["rescale_factor"]
        out.append(((x - p["image_mean"]) / p["image_std"]).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(out).astype(np.float32))


def tokenizer_of(model_dir):
    return PreTrainedTokenizerFast(tokenizer_file=str(model_dir / "tokenizer.json"))


def encode(tokenizer, text, special=True):
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=special).ids


def tokenizer_cases(tokenizer):
    t = tokenizer.backend_tokenizer
    return [{"text": text, "ids": t.encode(text).ids, "ids_no_special": t.encode(text, add_special_tokens=False).ids,
             "decoded": t.decode(t.encode(text).ids, skip_special_tokens=True)} for text in CASES]


def ends(model):
    """The ids that end a caption: the language model's own, as in generate; the checkpoint's generation_config.json is
    not asked."""
    eos = model.language_model.generation_config.eos_token_id
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


def look(model, x):
    vision = model.vision_model(x).last_hidden_state
    queries = model.qformer(query_embeds=model.query_tokens.expand(len(x), -1, -1), encoder_hidden_states=vision,
                            encoder_attention_mask=torch.ones(vision.shape[:-1], dtype=torch.long)).last_hidden_state
    return vision, queries


def cut(ids, eos):
    """New ids up to and with the first end; what comes behind is padding."""
    for i, token in enumerate(ids):
        if token in eos:
            return ids[: i + 1]
    return ids


def generate(model, projected, prompt, options):
    """Ids, scores and the logits of the first new token, for all pictures at once, called as
    Blip2ForConditionalGeneration.generate does."""
    lm = model.language_model
    n, is_t5 = len(projected), lm.config.is_encoder_decoder
    ids = torch.tensor([prompt] * n)
    seen = torch.cat([projected, lm.get_input_embeddings()(ids)], 1)
    if not is_t5:  # penalties look at the prompt
        image = torch.full((n, projected.shape[1]), model.config.image_token_index)
        options = dict(options, input_ids=torch.cat([image, ids], 1))
    else:  # transformers 5.23 gives the cache as many layers as the encoder has
        options = dict(options, use_cache=lm.config.num_decoder_layers <= lm.config.num_layers)
    out = lm.generate(
        inputs_embeds=seen, attention_mask=torch.ones(seen.shape[:2], dtype=torch.long),
        **{"max_new_tokens": MAX_NEW, **options}, do_sample=False, return_dict_in_generate=True,
        output_logits=True, output_scores=True,
    )
    n_before = 1 if is_t5 else seen.shape[1]
    sequences = [cut(s[n_before:], ends(model)) for s in out.sequences.tolist()]
    scores = out.sequences_scores.tolist() if options.get("num_beams", 1) > 1 else None
    return sequences, scores, out.logits[0]


def captioner(model, tokenizer, tensors, expected, asked):
    eos, rows = ends(model), []
    for text, options in asked:
        prompt = [model.config.text_config.bos_token_id] if text is None else encode(tokenizer, text)
        ids, scores, logits = generate(model, tensors["language_projection"], prompt, options)
        row = {"prompt": text, "options": options, "max_new_tokens": options.get("max_new_tokens", MAX_NEW), "ids": ids}
        row["text"] = [
            tokenizer.backend_tokenizer.decode([i for i in s if i not in eos], skip_special_tokens=True).strip()
            for s in ids
        ]
        if scores:
            row["sequences_scores"] = [round(s, 6) for s in scores]
        rows.append(row)
        if options == {"num_beams": 1}:
            tensors[LOGITS[text]] = logits
    expected.update(generate=rows, eos_token_id=eos)


def scorer(model, tokenizer, vision, queries, tensors, expected, texts):
    """The parts that Blip2ForImageTextRetrieval.forward is made of, without padding: the mask makes it the same."""
    unit = lambda v: torch.nn.functional.normalize(v, dim=-1)
    image = unit(model.vision_projection(queries))
    rows, logits = [], []
    for text in texts:
        ids = torch.tensor([encode(tokenizer, text)])
        embedded = model.embeddings(input_ids=ids)
        said = model.qformer(query_embeds=embedded, query_length=0,
                             attention_mask=torch.ones_like(ids)).last_hidden_state
        rows.append(unit(model.text_projection(said[:, 0])))
        n, q = len(vision), model.query_tokens.shape[1]
        both = model.embeddings(input_ids=ids.expand(n, -1), query_embeds=model.query_tokens.expand(n, -1, -1))
        out = model.qformer(
            query_embeds=both, query_length=q, attention_mask=torch.ones(both.shape[:2], dtype=torch.long),
            encoder_hidden_states=vision,
            encoder_attention_mask=torch.ones(vision.shape[:2], dtype=torch.long),
        ).last_hidden_state
        logits.append(model.itm_head(out[:, :q]).mean(1))
    words = torch.cat(rows)
    tensors.update(
        itc_image_embeds=image, itc_text_embeds=words, itc_similarity=(image @ words.T).amax(1),
        itm_logits=torch.stack(logits, 1),
    )
    expected["texts"] = list(texts)


@torch.no_grad()
def make(model_dir, out_dir, images, names, n_tensors, asked):
    config = read_json(model_dir / "config.json")
    retrieval = config["architectures"] == ["Blip2ForImageTextRetrieval"]
    kind = Blip2ForImageTextRetrieval if retrieval else Blip2ForConditionalGeneration
    model, info = kind.from_pretrained(model_dir, dtype=torch.float32, output_loading_info=True)
    model.eval()
    missing = [
        k
        for k in info["missing_keys"]
        if "position_ids" not in k and not k.endswith((".lm_head.weight", "embed_tokens.weight"))
    ]
    if missing or info["unexpected_keys"]:
        raise SystemExit(f"{model_dir}: missing {missing[:4]}, unexpected {sorted(info['unexpected_keys'])[:4]}")
    x, tokenizer = pixels(images, names, model_dir), tokenizer_of(model_dir)
    vision, queries = look(model, x)
    expected = {
        "made_with": {"transformers": transformers.__version__, "pillow": PIL.__version__},
        "images": list(names),
        "tokenizer": tokenizer_cases(tokenizer),
    }
    tensors = {"vision_last_hidden_state": vision[:n_tensors], "qformer_last_hidden_state": queries[:n_tensors]}
    if retrieval:
        scorer(model, tokenizer, vision, queries, tensors, expected, TEXTS)
    else:
        tensors["language_projection"] = model.language_projection(queries)
        captioner(model, tokenizer, tensors, expected, asked)
    out_dir.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, out_dir / "expected.safetensors",
              metadata={"transformers": transformers.__version__})
    (out_dir / "expected.safetensors").chmod(0o644)
    (out_dir / "expected.json").write_text(json.dumps(expected, ensure_ascii=False) + "\n", encoding="utf-8")


# -- checkpoints that nobody has seen


def cast_some(model_dir, rng):
    """Every tensor in a type of its own."""
    for path in sorted(model_dir.glob("model*.safetensors")):
        tensors = {
            k: v.to(rng.choice((torch.float32, torch.float16, torch.bfloat16))).contiguous()
            for k, v in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})


def drop_tensor(model_dir, name):
    for path in model_dir.glob("model*.safetensors"):
        tensors = load_file(path)
        if tensors.pop(name, None) is not None:
            save_file(tensors, path, metadata={"format": "pt"})
    index = model_dir / "model.safetensors.index.json"
    if index.exists():
        listed = read_json(index)
        listed["weight_map"].pop(name, None)
        index.write_text(json.dumps(listed))


def invent_config(kind, rng):
    heads = lambda: rng.choice((1, 2, 3, 5, 7))
    v_heads, q_heads, t_heads = heads(), heads(), heads()
    v_width, q_width = v_heads * rng.choice((16, 22, 24, 40, 88)), q_heads * rng.choice((8, 16, 24, 40, 64))
    size = rng.choice((56, 98, 112, 224))
    set_ = {
        "vision_config.hidden_size": v_width, "vision_config.num_attention_heads": v_heads,
        "vision_config.num_hidden_layers": rng.choice((1, 2, 3, 5)),
        "vision_config.intermediate_size": rng.choice((48, 100, 264)),
        "vision_config.qkv_bias": rng.random() < 0.7,
        "vision_config.layer_norm_eps": rng.choice((1e-6, 1e-5)), "vision_config.patch_size": 14,
        "qformer_config.hidden_size": q_width, "qformer_config.num_attention_heads": q_heads,
        "qformer_config.num_hidden_layers": rng.choice((1, 2, 3, 5)),
        "qformer_config.intermediate_size": rng.choice((40, 96, 200)),
        "qformer_config.encoder_hidden_size": v_width,
        "qformer_config.cross_attention_frequency": rng.choice((1, 2, 3)),
        "qformer_config.layer_norm_eps": rng.choice((1e-12, 1e-7)),
        "num_query_tokens": rng.choice((1, 5, 16, 32)), "image_text_hidden_size": rng.choice((8, 20, 56)),
    }
    if kind == "opt":
        width = t_heads * rng.choice((16, 20, 40, 80))
        set_.update(
            {
                "text_config.hidden_size": width, "text_config.word_embed_proj_dim": width,
                "text_config.num_attention_heads": t_heads,
                "text_config.num_hidden_layers": rng.choice((1, 2, 4)),
                "text_config.ffn_dim": rng.choice((72, 160, 330)),
                "text_config.do_layer_norm_before": rng.random() < 0.6,
                "text_config.max_position_embeddings": rng.choice((96, 128, 2048)),
            }
        )
    elif kind == "t5":
        set_.update(
            {
                "text_config.d_model": rng.choice((48, 72, 130)),
                "text_config.d_kv": rng.choice((8, 24, 40, 64)), "text_config.num_heads": t_heads,
                "text_config.num_layers": rng.choice((1, 2, 4)),
                "text_config.num_decoder_layers": rng.choice((1, 3, 5)),
                "text_config.d_ff": rng.choice((56, 150, 256)),
                "text_config.relative_attention_num_buckets": rng.choice((8, 32, 31, 12)),
                "text_config.relative_attention_max_distance": rng.choice((20, 64, 128)),
                "text_config.layer_norm_epsilon": rng.choice((1e-6, 1e-5)),
            }
        )
    else:
        set_["qformer_config.max_position_embeddings"] = rng.choice((40, 64, 512))
    return size, set_


# The library's default of each is what make_checkpoint.py writes, or written by invent_config often enough.
DEFAULTS = {
    "vision_config": {"layer_norm_eps": 1e-6, "patch_size": 14, "image_size": 224, "qkv_bias": True,
                      "hidden_act": "gelu"},
    "qformer_config": {
        "layer_norm_eps": 1e-12, "cross_attention_frequency": 2, "hidden_act": "gelu",
        "max_position_embeddings": 512,
    },
    "text_config:opt": {
        "do_layer_norm_before": True, "activation_function": "relu", "bos_token_id": 2, "pad_token_id": 1,
        "enable_bias": True, "max_position_embeddings": 2048, "_remove_final_layer_norm": False,
    },
    "text_config:t5": {
        "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6, "pad_token_id": 0, "d_kv": 64,
    },
}


def drop_defaults(config, kind, rng):
    dropped = []
    for section, keys in DEFAULTS.items():
        name, _, of = section.partition(":")
        for key, value in keys.items():
            if (not of or of == kind) and config.get(name, {}).get(key) == value and rng.random() < 0.5:
                del config[name][key]
                dropped.append(f"{name}.{key}")
    if config.get("num_query_tokens") == 32 and rng.random() < 0.5:
        del config["num_query_tokens"]
        dropped.append("num_query_tokens")
    return dropped


def invent(kind, seed, model_dir):
    rng = random.Random(f"{kind} {seed}")
    size, set_ = invent_config(kind, rng)
    preset = {"opt": "opt-2.7b", "t5": "flan-t5-xl", "itm": "itm-vit-g"}[kind]
    tied = kind == "t5" and rng.random() < 0.5
    if tied:
        set_["text_config.tie_word_embeddings"] = set_["tie_word_embeddings"] = True
    command = [
        sys.executable, str(ROOT / "tests/bench/make_checkpoint.py"), preset, str(model_dir), "--image-size",
        str(size), "--vocab", str(rng.choice((500, 701, 1203))), "--dtype", "f32", "--seed", str(seed),
        "--shard", str(rng.choice((2e5, 1e6, 4e9))),
    ]
    for key, value in set_.items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if tied:
        drop_tensor(model_dir, "language_model.lm_head.weight")
    if rng.random() < 0.7:
        cast_some(model_dir, rng)
    notes = [f"{size} px", "tied" if tied else ""]
    config = read_json(model_dir / "config.json")
    if kind == "t5" and rng.random() < 0.4:
        config["text_config"]["dense_act_fn"] = "gelu_new"
    notes += ["without " + k for k in drop_defaults(config, kind, rng)]
    (model_dir / "config.json").write_text(json.dumps(config, indent=1))
    if kind != "itm" and rng.random() < 0.6:
        text = config["text_config"]
        text["eos_token_id"] = [text["eos_token_id"]] + rng.sample(range(60, 300), 2)
        (model_dir / "config.json").write_text(json.dumps(config, indent=1))
        notes.append(f"eos {text['eos_token_id']}")
    return [n for n in notes if n], config


def written(name, directory):
    """The checkpoint of tests/golden/NAME/checkpoint.json."""
    c = read_json(GOLDEN / name / "checkpoint.json")
    command = [sys.executable, str(ROOT / "tests/bench/make_checkpoint.py"), c["preset"], str(directory), *c["options"]]
    for key, value in c["set"].items():
        command += ["--set", f"{key}={json.dumps(value)}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return directory, c["pictures"]


def shapes(names):
    for name in names or sorted(p.parent.name for p in GOLDEN.glob("*/checkpoint.json")):
        with tempfile.TemporaryDirectory() as directory:
            model_dir, pictures = written(name, pathlib.Path(directory) / "model")
            make(model_dir, GOLDEN / name, GOLDEN / "images_odd", pictures, len(pictures), ROWS)


def check(kind, seed, options):
    model_dir = options.dir / f"{kind}-{seed}"
    shutil.rmtree(model_dir, ignore_errors=True)
    model_dir.mkdir(parents=True)
    notes, config = invent(kind, seed, model_dir)
    images = GOLDEN / "images_odd"
    make(model_dir, model_dir, images, read_json(GOLDEN / "opt_a/expected.json")["images"], 4, ROWS)
    run = subprocess.run(
        [options.blipline, "selftest", str(model_dir), "--images", str(images), "--json"],
        capture_output=True,
        text=True,
    )
    try:
        report = json.loads(run.stdout)
        wrong = [
            f"{r['worker']} {r['stage']}: {r.get('detail') or r.get('relative_error')}"
            for r in report["rows"]
            if r.get("pass") is not True
        ]
        n = len(report["rows"])
    except ValueError:
        wrong, n = [run.stderr.strip() or f"exit code {run.returncode}"], 0
    print(f"{kind} {seed}: {n} rows, {len(wrong)} differ; {', '.join(notes)}", flush=True)
    for line in wrong:
        print("   ", line)
    if not options.keep and not wrong:
        shutil.rmtree(model_dir)
    return len(wrong)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = p.add_subparsers(dest="command", required=True)
    d = commands.add_parser("data")
    d.add_argument("model", type=pathlib.Path)
    d.add_argument("out", type=pathlib.Path)
    d.add_argument("--images", type=pathlib.Path, required=True)
    d.add_argument("--pictures", type=int, default=4, help="the first N by name")
    d.add_argument("--tensor-pictures", type=int, help="the widest tensors for the first N of them only")
    d.add_argument("--rows", type=pathlib.Path, help="prompts and options are those of this expected.json")
    s = commands.add_parser("shapes")
    s.add_argument("names", nargs="*")
    r = commands.add_parser("random")
    r.add_argument("dir", type=pathlib.Path)
    r.add_argument("--kinds", nargs="+", choices=("opt", "t5", "itm"), default=("opt", "t5", "itm"))
    r.add_argument("--n", type=int, default=6)
    r.add_argument("--seed", type=int, default=1, help="of the first")
    r.add_argument("--keep", action="store_true")
    r.add_argument("--blipline", default=str(ROOT / "build/blipline"))
    o = p.parse_args()
    transformers.logging.set_verbosity_error()
    if o.command == "data":
        names = sorted(f.name for f in o.images.iterdir() if f.suffix in (".jpg", ".png", ".webp"))[: o.pictures]
        rows = [(r["prompt"], r["options"]) for r in read_json(o.rows)["generate"]] if o.rows else ROWS
        return make(o.model, o.out, o.images, names, o.tensor_pictures or len(names), rows)
    if o.command == "shapes":
        return shapes(o.names)
    return 1 if sum(check(kind, o.seed + i, o) for kind in o.kinds for i in range(o.n)) else 0


if __name__ == "__main__":
    sys.exit(main())
