#!/usr/bin/python3
"""Write a checkpoint of published shape with random weights, in the Hugging Face layout.

    make_checkpoint.py PRESET DIR [--scale N] [--layers N] [--image-size S] [--vocab V] [--dtype bf16] [--seed N]
        [--shard 4e9] [--ends P] [--set KEY=JSON]...

PRESET: opt-2.7b, opt-6.7b, flan-t5-xl, flan-t5-xxl, itm-vit-g. --scale divides widths (by dropping heads) and depths,
--layers cuts depths only; the tokenizer fits the vocabulary. --set changes any number of config.json before the
shapes follow from it, e.g. --set text_config.do_layer_norm_before=false.

Values are normal, of the size that initialisation gives them, so that activations and logits stay near 1. A tensor's
values depend on seed, name and shape alone; those of the vision trunk are the same for all presets, as in the
published models, so a captioner and a scorer of one seed share a pass. Such a model never ends a caption. --ends P
(OPT) gives the end a probability near P at every token, so that sampled captions have lengths as real ones do.

In Python with numpy, because most of it is JSON; the values go through a table of 65536 quantiles (some 400 million a
second), so that the disk is what takes time. Memory does not depend on the size of the model.
"""

import argparse
import copy
import json
import math
import pathlib
import statistics
import sys
import time
import zlib

import numpy as np

import make_tokenizer

VISION = {
    "attention_dropout": 0.0, "hidden_act": "gelu", "hidden_size": 1408, "image_size": 224,
    "initializer_range": 1e-10, "intermediate_size": 6144, "layer_norm_eps": 1e-6,
    "model_type": "blip_2_vision_model", "num_attention_heads": 16, "num_hidden_layers": 39, "patch_size": 14,
    "qkv_bias": True,
}
QFORMER = {
    "attention_probs_dropout_prob": 0.1, "cross_attention_frequency": 2, "encoder_hidden_size": 1408,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
    "intermediate_size": 3072, "layer_norm_eps": 1e-12, "max_position_embeddings": 512,
    "model_type": "blip_2_qformer", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
    "use_qformer_text_input": False, "vocab_size": 30522,
}
PIXELS = {
    "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "BlipImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711], "processor_class": "Blip2Processor", "resample": 3,
    "rescale_factor": 1 / 255,
}


def opt(width, n_layers, n_heads):
    return {
        "_remove_final_layer_norm": False, "activation_function": "relu", "attention_dropout": 0.0,
        "bos_token_id": 2, "do_layer_norm_before": True, "dropout": 0.1, "enable_bias": True,
        "eos_token_id": 50118, "ffn_dim": 4 * width, "hidden_size": width,
        "layer_norm_elementwise_affine": True, "layerdrop": 0.0, "max_position_embeddings": 2048,
        "model_type": "opt", "num_attention_heads": n_heads, "num_hidden_layers": n_layers, "pad_token_id": 1,
        "tie_word_embeddings": True, "use_cache": True, "vocab_size": 50304, "word_embed_proj_dim": width,
    }


def t5(width, n_heads, ffn):
    return {
        "bos_token_id": 1, "d_ff": ffn, "d_kv": 64, "d_model": width, "decoder_start_token_id": 0,
        "dense_act_fn": "gelu", "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0, "is_encoder_decoder": True, "is_gated_act": True,
        "layer_norm_epsilon": 1e-6, "model_type": "t5", "num_decoder_layers": 24, "num_heads": n_heads,
        "num_layers": 24, "pad_token_id": 0, "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32, "tie_word_embeddings": False, "use_cache": True,
        "vocab_size": 32128,
    }


PRESETS = {
    "opt-2.7b": opt(2560, 32, 32), "opt-6.7b": opt(4096, 32, 32), "flan-t5-xl": t5(2048, 32, 5120),
    "flan-t5-xxl": t5(4096, 64, 10240), "itm-vit-g": None,
}


def preset(name):
    """config.json of the published model."""
    text, retrieval = PRESETS[name], PRESETS[name] is None
    is_t5 = not retrieval and text["model_type"] == "t5"
    c = {
        "architectures": ["Blip2ForImageTextRetrieval" if retrieval else "Blip2ForConditionalGeneration"],
        "image_text_hidden_size": 256, "image_token_index": None, "initializer_factor": 1.0,
        "initializer_range": 0.02, "model_type": "blip-2", "num_query_tokens": 32,
        "qformer_config": dict(QFORMER), "text_config": dict(text or {"model_type": "opt"}),
        "use_decoder_only_language_model": not is_t5, "vision_config": dict(VISION),
    }
    if retrieval:
        c["qformer_config"].update(use_qformer_text_input=True, vocab_size=30523)
    if is_t5:
        c.update(is_encoder_decoder=True, tie_word_embeddings=False)
    return c


# -- smaller ones


def scale(c, n):
    """Widths by dropping heads (their width stays: it is what kernels care for), depths not below 2."""
    heads = lambda h: max(1, h // n)
    v, q, t = c["vision_config"], c["qformer_config"], c["text_config"]
    v.update(
        hidden_size=heads(16) * 88, num_attention_heads=heads(16), intermediate_size=heads(16) * 384,
        num_hidden_layers=max(2, 39 // n),
    )
    q.update(
        hidden_size=heads(12) * 64, num_attention_heads=heads(12), intermediate_size=heads(12) * 256,
        num_hidden_layers=max(2, 12 // n), encoder_hidden_size=v["hidden_size"],
    )
    c["image_text_hidden_size"] = max(8, 256 // n)
    if t["model_type"] == "t5":
        h = t["num_heads"]
        t.update(
            d_model=t["d_model"] // h * heads(h), d_ff=t["d_ff"] // h * heads(h), num_heads=heads(h),
            num_layers=max(2, 24 // n), num_decoder_layers=max(2, 24 // n),
        )
    elif "hidden_size" in t:
        h = t["num_attention_heads"]
        width = t["hidden_size"] // h * heads(h)
        t.update(
            hidden_size=width, word_embed_proj_dim=width, ffn_dim=4 * width, num_attention_heads=heads(h),
            num_hidden_layers=max(2, 32 // n),
        )


def cut_layers(c, n):
    c["vision_config"]["num_hidden_layers"] = c["qformer_config"]["num_hidden_layers"] = n
    for key in ("num_hidden_layers", "num_layers", "num_decoder_layers"):
        if key in c["text_config"]:
            c["text_config"][key] = n


def change(c, assignment):
    path, _, value = assignment.partition("=")
    *parents, key = path.split(".")
    for p in parents:
        c = c[p]
    c[key] = json.loads(value)


def configure(options):
    c = preset(options.preset)
    if options.scale > 1:
        scale(c, options.scale)
    if options.layers:
        cut_layers(c, options.layers)
    c["vision_config"]["image_size"] = options.image_size
    if options.vocab:
        c["text_config" if "vocab_size" in c["text_config"] else "qformer_config"]["vocab_size"] = options.vocab
    for assignment in options.set:
        change(c, assignment)
    c["dtype"] = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[options.dtype]
    return c


# -- tensors: (name, shape, mean, standard deviation), as MODEL.md lists them

STD = 0.02


def linear(name, n, k, bias=True, std=STD):
    yield name + ".weight", (n, k), 0, std
    if bias:
        yield name + ".bias", (n,), 0, STD


def norm(name, n, bias=True):
    yield name + ".weight", (n,), 1, STD
    if bias:
        yield name + ".bias", (n,), 0, STD


def vision(c):
    v = c["vision_config"]
    w, p = v["hidden_size"], v["patch_size"]
    yield "vision_model.embeddings.class_embedding", (1, 1, w), 0, 1
    yield "vision_model.embeddings.position_embedding", (1, (v["image_size"] // p) ** 2 + 1, w), 0, 0.3
    yield "vision_model.embeddings.patch_embedding.weight", (w, 3, p, p), 0, STD
    yield "vision_model.embeddings.patch_embedding.bias", (w,), 0, STD
    for i in range(v["num_hidden_layers"]):
        at = f"vision_model.encoder.layers.{i}."
        yield from norm(at + "layer_norm1", w)
        yield from linear(at + "self_attn.qkv", 3 * w, w, v["qkv_bias"])
        yield from linear(at + "self_attn.projection", w, w)
        yield from norm(at + "layer_norm2", w)
        yield from linear(at + "mlp.fc1", v["intermediate_size"], w)
        yield from linear(at + "mlp.fc2", w, v["intermediate_size"])
    yield from norm("vision_model.post_layernorm", w)


def attention(at, w, kv, std=STD):
    yield from linear(at + "attention.query", w, w, std=std)
    yield from linear(at + "attention.key", w, kv, std=std)
    yield from linear(at + "attention.value", w, kv)
    yield from linear(at + "output.dense", w, w)
    yield from norm(at + "output.LayerNorm", w)


def qformer(c):
    q = c["qformer_config"]
    w, f = q["hidden_size"], q["intermediate_size"]
    yield "query_tokens", (1, c["num_query_tokens"], w), 0, 1
    yield from norm("qformer.layernorm", w)
    for i in range(q["num_hidden_layers"]):
        at = f"qformer.encoder.layer.{i}."
        yield from attention(at + "attention.", w, w)
        if i % q["cross_attention_frequency"] == 0:
            yield from attention(
                at + "crossattention.", w, c["vision_config"]["hidden_size"], std=3 * STD
            )  # or every picture gives the same
        for tail in ("_query", "") if q["use_qformer_text_input"] else ("_query",):
            yield from linear(at + f"intermediate{tail}.dense", f, w)
            yield from linear(at + f"output{tail}.dense", w, f)
            yield from norm(at + f"output{tail}.LayerNorm", w)
    if q["use_qformer_text_input"]:
        d = c["image_text_hidden_size"]
        yield "embeddings.word_embeddings.weight", (q["vocab_size"], w), 0, 1
        yield "embeddings.position_embeddings.weight", (q["max_position_embeddings"], w), 0, 0.3
        yield from linear("vision_projection", d, w)
        yield from linear("text_projection", d, w)
        yield from linear("itm_head", 2, w)
    else:
        t = c["text_config"]
        yield from linear("language_projection", t.get("hidden_size") or t["d_model"], w)


def opt_tensors(t):
    w, stem = t["hidden_size"], "language_model.model.decoder."
    yield stem + "embed_tokens.weight", (t["vocab_size"], w), 0, STD  # it is the head too: logits near 1
    yield stem + "embed_positions.weight", (t["max_position_embeddings"] + 2, w), 0, STD
    if t["do_layer_norm_before"] and not t["_remove_final_layer_norm"]:
        yield from norm(stem + "final_layer_norm", w)
    for i in range(t["num_hidden_layers"]):
        at = f"{stem}layers.{i}."
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from linear(at + "self_attn." + name, w, w)
        yield from norm(at + "self_attn_layer_norm", w)
        yield from linear(at + "fc1", t["ffn_dim"], w)
        yield from linear(at + "fc2", w, t["ffn_dim"])
        yield from norm(at + "final_layer_norm", w)


def t5_attention(t, at, name, relative):
    w, inner = t["d_model"], t["num_heads"] * t["d_kv"]
    for part, shape, std in (
        ("q", (inner, w), (w * t["d_kv"]) ** -0.5),
        ("k", (inner, w), w**-0.5),
        ("v", (inner, w), w**-0.5),
        ("o", (w, inner), inner**-0.5),
    ):
        yield from linear(f"{at}{name}.{part}", *shape, bias=False, std=std)  # T5 does not scale its scores: q is small
    if relative:
        yield f"{at}{name}.relative_attention_bias.weight", (
            t["relative_attention_num_buckets"],
            t["num_heads"],
        ), 0, 0.3
    yield from norm(at + "layer_norm", w, bias=False)


def t5_tensors(t):
    w, f = t["d_model"], t["d_ff"]
    yield "language_model.shared.weight", (t["vocab_size"], w), 0, 1
    for stack, depth in (("encoder", t["num_layers"]), ("decoder", t["num_decoder_layers"])):
        for i in range(depth):
            at = f"language_model.{stack}.block.{i}.layer."
            yield from t5_attention(t, at + "0.", "SelfAttention", i == 0)
            if stack == "decoder":
                yield from t5_attention(t, at + "1.", "EncDecAttention", False)
            last = f"{at}{2 if stack == 'decoder' else 1}."
            yield from linear(last + "DenseReluDense.wi_0", f, w, bias=False, std=w**-0.5)
            yield from linear(last + "DenseReluDense.wi_1", f, w, bias=False, std=w**-0.5)
            yield from linear(last + "DenseReluDense.wo", w, f, bias=False, std=f**-0.5)
            yield from norm(last + "layer_norm", w, bias=False)
        yield from norm(f"language_model.{stack}.final_layer_norm", w, bias=False)
    yield from linear("language_model.lm_head", t["vocab_size"], w, bias=False, std=w**-0.5)


def tensors(c):
    yield from vision(c)
    yield from qformer(c)
    if c["architectures"] == ["Blip2ForConditionalGeneration"]:
        yield from (
            t5_tensors(c["text_config"]) if c["text_config"]["model_type"] == "t5" else opt_tensors(c["text_config"])
        )


# -- values and files

TYPES = {"bf16": ("BF16", 2), "f16": ("F16", 2), "f32": ("F32", 4)}
CHUNK = 1 << 21  # values at a time; their table's 65536 entries stay in the processor's cache


class Values:
    """Normal values by looking up 16 random bits in a table of quantiles."""

    def __init__(self, dtype, seed, model):
        inverse = statistics.NormalDist().inv_cdf
        half = np.array([inverse((i + 0.5) / 65536) for i in range(32768, 65536)])
        self.quantiles = np.concatenate([-half[::-1], half])
        self.dtype, self.seed, self.model, self.tables = dtype, seed, model, {}

    def table(self, mean, std):
        if (mean, std) not in self.tables:
            x = (mean + std * self.quantiles).astype(np.float32)
            if self.dtype == "bf16":
                bits = x.view(np.uint32)
                x = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even
            elif self.dtype == "f16":
                x = x.astype(np.float16)
            self.tables[mean, std] = x
        return self.tables[mean, std]

    def chunks(self, name, shape, mean, std):
        trunk = name.startswith("vision_model.") and "post_layernorm" not in name
        key = zlib.crc32(f"{'' if trunk else self.model} {name} {shape}".encode())
        bits, table, n = np.random.SFC64([self.seed, key]), self.table(mean, std), math.prod(shape)
        for begin in range(0, n, CHUNK):
            k = min(CHUNK, n - begin)
            yield table[bits.random_raw((k + 3) // 4).view(np.uint16)[:k]]


def write_shard(path, part, values, dtype):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    name_of_type, size = TYPES[dtype]
    for name, shape, *_ in part:
        n = size * math.prod(shape)
        header[name] = {"dtype": name_of_type, "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb", buffering=0) as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for tensor in part:
            for chunk in values.chunks(*tensor):
                data = memoryview(chunk).cast("B")
                while data:
                    data = data[f.write(data):]


def write_tensors(directory, c, options):
    size = TYPES[options.dtype][1]
    shards, room = [[]], options.shard
    for tensor in tensors(c):
        n = size * math.prod(tensor[1])
        if shards[-1] and n > room:
            shards.append([])
            room = options.shard
        shards[-1].append(tensor)
        room -= n
    values, total = Values(options.dtype, options.seed, options.preset), 0
    names = (
        ["model.safetensors"]
        if len(shards) == 1
        else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    )
    for name, part in zip(names, shards):
        write_shard(directory / name, part, values, options.dtype)
        total += sum(size * math.prod(t[1]) for t in part)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": total},
            "weight_map": {t[0]: name for name, part in zip(names, shards) for t in part},
        }
        write_json(directory / "model.safetensors.index.json", index)
    return total


def find_tensor(directory, name):
    """(file, where its bytes begin, shape)"""
    for path in sorted(directory.glob("model*.safetensors")):
        with open(path, "rb") as f:
            n = int.from_bytes(f.read(8), "little")
            entry = json.loads(f.read(n)).get(name)
        if entry:
            return path, 8 + n + entry["data_offsets"][0], entry["shape"]
    raise KeyError(name)


def make_ends(directory, c, options):
    """The final norm's bias b becomes long, and the end's row of the head points along it: with a state x of length
    sqrt(width), the end's logit is about
    the same in all of them, and P / (1 - P) of what the others add up to (each normal, variance STD^2 (width + |b|^2)).
    """
    t = c["text_config"]
    if t.get("model_type") != "opt" or not 0 < options.ends < 1 or not t["do_layer_norm_before"]:
        raise KeyError("--ends P: for OPT with a norm at its end, 0 < P < 1")
    b = np.random.default_rng(options.seed).standard_normal(t["hidden_size"])
    spread = STD**2 * (t["hidden_size"] + b @ b)
    logit = math.log(t["vocab_size"]) + spread / 2 + math.log(options.ends / (1 - options.ends))
    for name, row, values in (
        ("final_layer_norm.bias", 0, b),
        ("embed_tokens.weight", t["eos_token_id"], logit * b / (b @ b)),
    ):
        path, at, shape = find_tensor(directory, "language_model.model.decoder." + name)
        x = values.astype(np.float32)
        if options.dtype == "bf16":
            x = ((x.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
        elif options.dtype == "f16":
            x = x.astype(np.float16)
        with open(path, "r+b") as f:
            f.seek(at + row * shape[-1] * x.itemsize)
            f.write(x.tobytes())


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(directory, c):
    """tokenizer.json, and the special ids it implies into the config."""
    t = c["text_config"]
    if c["architectures"] == ["Blip2ForImageTextRetrieval"]:
        tokenizer, _ = make_tokenizer.wordpiece(c["qformer_config"]["vocab_size"])
        kind = {
            "tokenizer_class": "BertTokenizer", "bos_token": "[DEC]", "cls_token": "[CLS]",
            "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]",
            "do_lower_case": True,
        }
    elif t["model_type"] == "t5":
        tokenizer, ids = make_tokenizer.unigram(t["vocab_size"])
        kind = {
            "tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
            "extra_ids": 0,
        }
        c["image_token_index"] = ids["image"]
    else:
        tokenizer, ids = make_tokenizer.bpe(t["vocab_size"])
        kind = {
            "tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>",
            "pad_token": "<pad>", "unk_token": "</s>", "add_bos_token": True,
        }
        c["image_token_index"] = ids["image"]
        t["eos_token_id"] = ids["eos"]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    write_json(directory / "tokenizer_config.json", kind)


def parse(argv=None):
    p = argparse.ArgumentParser(description="Write a checkpoint of published shape with random weights.")
    p.add_argument("preset", choices=PRESETS)
    p.add_argument("dir", type=pathlib.Path)
    p.add_argument(
        "--scale", type=int, default=1, metavar="N",
        help="divide numbers of heads (and with them widths) and depths by N",
    )
    p.add_argument("--layers", type=int, metavar="N", help="depth of every stack")
    p.add_argument("--image-size", type=int, default=224, metavar="S", help="224 or 364 in the published models")
    p.add_argument("--vocab", type=int, metavar="V",
                   help="size of the vocabulary (BPE: at least 400, unigrams and WordPiece: 300)")
    p.add_argument("--dtype", choices=TYPES, default="bf16", help="type of all tensors (bf16)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--shard", type=float, default=4e9, metavar="BYTES", help="largest file (4e9)")
    p.add_argument("--ends", type=float, metavar="P",
                   help="sampled captions end with about this probability at each token")
    p.add_argument(
        "--set", action="append", default=[], metavar="KEY=JSON",
        help="change config.json, e.g. text_config.num_hidden_layers=3",
    )
    return p.parse_args(argv)


def main():
    options = parse()
    start = time.monotonic()
    c = configure(options)
    options.dir.mkdir(parents=True, exist_ok=True)
    for old in (options.dir / "config.json", *options.dir.glob("model*.safetensors*")):
        old.unlink(missing_ok=True)
    write_tokenizer(options.dir, c)
    s = c["vision_config"]["image_size"]
    write_json(options.dir / "preprocessor_config.json", dict(copy.deepcopy(PIXELS), size={"height": s, "width": s}))
    if c["architectures"] == ["Blip2ForConditionalGeneration"]:
        ids = {k: v for k, v in c["text_config"].items() if k.endswith("_token_id")}
        write_json(options.dir / "generation_config.json", dict(ids, _from_model_config=True))
    total = write_tensors(options.dir, c, options)
    if options.ends:
        make_ends(options.dir, c, options)
    write_json(options.dir / "config.json", c)  # the last: where it is, all is
    n = sum(math.prod(t[1]) for t in tensors(c))
    print(
        f"{options.dir}: {options.preset}, {n / 1e6:.1f} M parameters, {options.dtype}, {total / 1e9:.2f} GB in"
        f" {time.monotonic() - start:.1f} s"
    )


if __name__ == "__main__":
    try:
        main()
    except (OSError, KeyError, json.JSONDecodeError) as e:
        sys.exit(f"make_checkpoint.py: {type(e).__name__}: {e}")
