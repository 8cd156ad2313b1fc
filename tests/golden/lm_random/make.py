"""Writes expected.json beside this file: logits of transformers for random language models of odd shapes.

Needs torch and transformers; nothing else does. Weights are not stored: value i of a tensor is number i of a splitmix64
sequence that starts from the FNV-1a hash of its name, and tests/unit/test_lm_random.c makes the same. The models run in
float64.
"""
import json
import os

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM, T5Config, T5ForConditionalGeneration

M64 = (1 << 64) - 1
N_IMAGE_ROWS = 3
STEPS = [0, 1, 6, 19]  # new tokens after which logits are kept
CASES = [
    {
        "name": "t5_tied_scaled",
        "aliases": True,
        "text_config": {
            "model_type": "t5", "d_model": 16, "num_heads": 3, "d_kv": 5, "d_ff": 24, "num_layers": 1,
            "num_decoder_layers": 1, "vocab_size": 11, "feed_forward_proj": "gated-gelu",
        },
    },
    {
        "name": "t5_own_head_few_buckets",
        "own_head": True,
        "text_config": {
            "model_type": "t5", "d_model": 24, "num_heads": 2, "d_kv": 16, "d_ff": 40, "num_layers": 2,
            "num_decoder_layers": 1, "vocab_size": 13, "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False, "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20, "decoder_start_token_id": 3,
        },
    },
    {
        "name": "t5_deep_decoder_odd_buckets",
        "own_head": True,
        "text_config": {
            "model_type": "t5", "d_model": 20, "num_heads": 5, "d_kv": 4, "d_ff": 12, "num_layers": 1,
            "num_decoder_layers": 3, "vocab_size": 9, "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": True, "scale_decoder_outputs": False, "layer_norm_epsilon": 1e-3,
            "relative_attention_num_buckets": 6, "relative_attention_max_distance": 11,
        },
    },
    {
        "name": "opt_no_final_norm",
        "text_config": {
            "model_type": "opt", "hidden_size": 16, "num_attention_heads": 2, "ffn_dim": 24,
            "num_hidden_layers": 1, "vocab_size": 11, "max_position_embeddings": 64,
            "word_embed_proj_dim": 16, "_remove_final_layer_norm": True,
        },
    },
    {
        "name": "opt_post_norm",
        "text_config": {
            "model_type": "opt", "hidden_size": 24, "num_attention_heads": 3, "ffn_dim": 20,
            "num_hidden_layers": 2, "vocab_size": 13, "max_position_embeddings": 80,
            "word_embed_proj_dim": 24, "do_layer_norm_before": False,
        },
    },
    {
        "name": "opt_wide_heads",
        "own_head": True,
        "text_config": {
            "model_type": "opt", "hidden_size": 40, "num_attention_heads": 1, "ffn_dim": 12,
            "num_hidden_layers": 3, "vocab_size": 17, "max_position_embeddings": 63,
            "word_embed_proj_dim": 40,
        },
    },
]
PROMPTS = [1, 37]  # ids


def values(name, n):
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 & M64
    out = np.empty(n)
    for i in range(n):
        state = (state + 0x9E3779B97F4A7C15) & M64
        z = state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & M64
        z = (z ^ z >> 27) * 0x94D049BB133111EB & M64
        out[i] = ((z ^ z >> 31) >> 40) / 2.0**23 - 1  # 24 bits: exact in float32
    return out


def weights(name, shape):
    v = values(name, int(np.prod(shape))).reshape(shape)
    if "relative_attention_bias" in name:
        return 2 * v
    if "norm.weight" in name:
        return 1 + v / 2
    if "embed" in name or "shared" in name:
        return v
    return v / 4


def ids_of(case, what, n):
    vocab = case["text_config"]["vocab_size"]
    return [int((v + 1) / 2 * vocab) for v in values(f"{case['name']}.{what}", n)]


def build(case):
    text = {k: v for k, v in case["text_config"].items() if k != "model_type"}
    t5 = case["text_config"]["model_type"] == "t5"
    model = (T5ForConditionalGeneration(T5Config(**text)) if t5 else OPTForCausalLM(OPTConfig(**text))).double().eval()
    if case.get("own_head"):  # this library ties every T5
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.from_numpy(weights("language_model." + name, tuple(p.shape))))
    assert case.get("own_head", False) == (model.lm_head.weight is not model.get_input_embeddings().weight)
    return model, t5


def main():
    out = {"image_rows": N_IMAGE_ROWS, "steps": STEPS, "cases": []}
    for case in CASES:
        model, t5 = build(case)
        width = case["text_config"]["d_model" if t5 else "hidden_size"]
        rows = torch.from_numpy(values(case["name"] + ".image", N_IMAGE_ROWS * width).reshape(1, N_IMAGE_ROWS, width))
        said = ids_of(case, "said", STEPS[-1])
        prompts = []
        for n in PROMPTS:
            ids = ids_of(case, f"prompt{n}", n)
            seen = torch.cat([rows, model.get_input_embeddings()(torch.tensor([ids]))], 1)
            with torch.no_grad():
                if t5:
                    start = case["text_config"].get("decoder_start_token_id", 0)
                    logits = model(inputs_embeds=seen, decoder_input_ids=torch.tensor([[start] + said])).logits[0]
                else:
                    seen = torch.cat([seen, model.get_input_embeddings()(torch.tensor([said]))], 1)
                    logits = model(inputs_embeds=seen).logits[0, N_IMAGE_ROWS + n - 1:]
            prompts.append({"ids": ids, "logits": [[float(f"{x:.8g}") for x in logits[s].tolist()] for s in STEPS]})
        out["cases"].append({**case, "said": said, "prompts": prompts})
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "expected.json"), "w") as f:
        text = json.dumps(out, indent=None, separators=(",", ": "))
        f.write(text.replace('{"name"', '\n{"name"').replace('{"ids"', '\n {"ids"') + "\n")


main()
