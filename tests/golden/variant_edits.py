"""The edits that make_variants.py tries: (group, name, base, edits, is it one of `make test`)."""
import json

C, G, P, Q, T = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json",
)
SHARED, HEAD = "language_model.shared.weight", "language_model.lm_head.weight"
EMBED = "language_model.model.decoder.embed_tokens.weight"
DELETED = object()


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def walk(value, prefix=""):
    for key, v in value.items():
        yield prefix + key, v
        if isinstance(v, dict):
            yield from walk(v, prefix + key + ".")


def each_key(base, directory):
    """Every key of the configuration files missing, and null."""
    for name in ("config.json", "preprocessor_config.json"):
        for key, _ in walk(read(directory / name)):
            yield "key missing", f"{name} {key}", base, [["del", name, key]], key in IN_TEST_MISSING
            yield "key null", f"{name} {key}", base, [["set", name, key, None]], False


IN_TEST_MISSING = {
    "vision_config.qkv_bias", "text_config.do_layer_norm_before", "text_config.bos_token_id",
    "text_config.dense_act_fn", "text_config.decoder_start_token_id", "text_config.tie_word_embeddings",
    "text_config.is_gated_act", "qformer_config.use_qformer_text_input", "text_config.vocab_size",
    "image_token_index", "size", "image_mean",
}


def setting(group, base, file, pairs, in_test=True):
    for key, value in pairs:
        yield group, f"{key} = {json.dumps(value)}", base, [["set", file, key, value]], in_test


def several(group, base, file, sets, in_test=True):
    for pairs in sets:
        name = ", ".join(f"{k} = {json.dumps(v)}" if v is not DELETED else f"no {k}" for k, v in pairs.items())
        yield group, name, base, [["set", file, k, v] if v is not DELETED else ["del", file, k] for k,
                                  v in pairs.items()], in_test


def gates():
    t = "text_config."
    yield from several(
        "gates of T5", "t5", C,
        [
            {t + "dense_act_fn": "gelu"},
            {t + "dense_act_fn": "gelu_new"},
            {t + "dense_act_fn": "gelu_pytorch_tanh"},
            {t + "dense_act_fn": "gelu_python"},
            {t + "dense_act_fn": "gelu_fast"},
            {t + "dense_act_fn": "gelu_accurate"},
            {t + "dense_act_fn": "gelu_python_tanh"},
            {t + "dense_act_fn": "quick_gelu"},
            {t + "dense_act_fn": "relu"},
            {t + "dense_act_fn": "silu"},
            {t + "dense_act_fn": "gelu_10"},
            {t + "dense_act_fn": DELETED, t + "feed_forward_proj": "gated-gelu_new"},
            {t + "dense_act_fn": DELETED, t + "feed_forward_proj": "gated-gelu_python"},
            {t + "dense_act_fn": DELETED, t + "is_gated_act": DELETED},
            {t + "dense_act_fn": DELETED, t + "feed_forward_proj": "gelu"},
            {t + "dense_act_fn": DELETED, t + "feed_forward_proj": "gelu", t + "is_gated_act": DELETED},
            {t + "dense_act_fn": DELETED, t + "feed_forward_proj": "gated-silu"},
            {t + "dense_act_fn": DELETED, t + "feed_forward_proj": "gated-relu"},
            {t + "feed_forward_proj": "relu"},
            {t + "feed_forward_proj": "gated-silu"},
            {t + "is_gated_act": False},
            {t + "feed_forward_proj": "gated-gelu-x"},
            {t + "feed_forward_proj": "x-gelu"},
            {t + "feed_forward_proj": "gated"},
            {t + "feed_forward_proj": "gated-"},
        ],
    )


def special_ids(first):
    """`first`: base -> what greedy chooses third, so that an end there is seen."""
    for base in ("opt", "t5"):
        end, t = first[base], "text_config."
        yield from several(
            "special ids", base, C,
            [
                {t + "eos_token_id": end},
                {t + "eos_token_id": [end, 3]},
                {t + "eos_token_id": None},
                {t + "eos_token_id": DELETED},
                {t + "bos_token_id": 7},
                {t + "bos_token_id": None},
                {t + "pad_token_id": None},
                {t + "pad_token_id": 9},
                {t + "eos_token_id": 5000},
                {t + "eos_token_id": -1},
                {t + "eos_token_id": []},
                {t + "eos_token_id": str(end)},
                {t + "forced_eos_token_id": end},
                {t + "forced_bos_token_id": end},
                {t + "suppress_tokens": [end]},
                {t + "begin_suppress_tokens": [end]},
                {t + "bad_words_ids": [[end]]},
                {t + "num_beams": 4},
                {t + "max_length": 12},
                {t + "repetition_penalty": 5.0},
                {t + "no_repeat_ngram_size": 1},
                {t + "do_sample": True},
                {t + "decoder_start_token_id": 11},
                {"eos_token_id": end},
                {"bos_token_id": 7},
            ],
        )
        yield from several(
            "generation_config.json", base, G,
            [
                {"eos_token_id": end},
                {"eos_token_id": [end, 3]},
                {"bos_token_id": 7},
                {"pad_token_id": 9},
                {"decoder_start_token_id": 11},
                {"num_beams": 4},
                {"repetition_penalty": 5.0},
                {"max_new_tokens": 2},
                {"forced_eos_token_id": end},
                {"suppress_tokens": [end]},
                {"eos_token_id": DELETED},
            ],
        )
        yield "generation_config.json", "no file", base, [["file", G, None]], True
        yield "generation_config.json", "no file, no eos", base, [
            ["file", G, None],
            ["del", C, t + "eos_token_id"],
        ], True
        yield "generation_config.json", "eos there alone", base, [
            ["set", G, "eos_token_id", end],
            ["del", C, t + "eos_token_id"],
        ], True
        yield "generation_config.json", "eos there, null in text_config", base, [
            ["set", G, "eos_token_id", end],
            ["set", C, t + "eos_token_id", None],
        ], True
        yield "generation_config.json", "bos there alone", base, [
            ["set", G, "bos_token_id", 7],
            ["del", C, t + "bos_token_id"],
        ], True
    yield "special ids", "no decoder start, bos 7", "t5", [
        ["del", C, "text_config.decoder_start_token_id"],
        ["set", C, "text_config.bos_token_id", 7],
    ], True
    yield "special ids", "neither start", "t5", [
        ["del", C, "text_config.decoder_start_token_id"],
        ["del", C, "text_config.bos_token_id"],
    ], True


def names():
    yield from several(
        "names of keys", "t5", C,
        [
            {"text_config.d_model": DELETED, "text_config.hidden_size": 56},
            {"text_config.num_heads": DELETED, "text_config.num_attention_heads": 3},
            {"text_config.d_kv": DELETED, "text_config.head_dim": 12},
            {"text_config.num_layers": DELETED, "text_config.num_hidden_layers": 2},
            {
                "text_config.num_layers": DELETED, "text_config.num_hidden_layers": 2,
                "text_config.num_decoder_layers": DELETED,
            },
            {"text_config.hidden_size": 56, "text_config.d_model": 64},
            {"text_config.hidden_size": 64},
            {"text_config.num_hidden_layers": 2, "text_config.num_layers": 1},
            {"text_config.head_dim": None},
            {"text_config.num_decoder_layers": None},
            {"text_config.num_decoder_layers": 1},
            {"text_config.is_encoder_decoder": False},
            {"text_config.is_decoder": True},
            {"text_config.model_type": "mt5"},
            {"text_config.model_type": "umt5"},
            {"text_config.model_type": DELETED},
        ],
    )
    for base, token in (("opt", 419), ("t5", 419)):
        yield from several(
            "names of keys", base, C,
            [
                {"image_token_index": DELETED, "image_token_id": 5},
                {"image_token_id": 5},
                {"image_token_id": None},
                {"image_token_index": 5},
                {"is_encoder_decoder": base == "opt"},
                {"use_decoder_only_language_model": base == "t5"},
                {"tie_word_embeddings": base == "t5"},
                {"num_query_tokens": 4},
                {"qformer_config.encoder_hidden_size": 999},
                {"dtype": "bfloat16"},
                {"torch_dtype": "float16"},
                {"architectures": ["Blip2Model"]},
                {"architectures": []},
                {"architectures": ["Blip2ForImageTextRetrieval"]},
                {"model_type": "blip"},
                {"qformer_config.position_embedding_type": "absolute"},
                {"qformer_config.position_embedding_type": "relative_key"},
                {"unknown": {"x": 1}},
                {"vision_config.num_channels": 3, "vision_config.projection_dim": 512, "vision_config.dropout": 0.0},
                {"qformer_config.chunk_size_feed_forward": 4},
                {"text_config.chunk_size_feed_forward": 4},
                {"qformer_config.use_qformer_text_input": True},
                {"quantization_config": {"quant_method": "bitsandbytes"}},
                {"text_config.per_layer_config": {"1": {"ffn_dim" if base == "opt" else "d_ff": 40}}},
                {"text_config.per_layer_config": {}},
                {"vision_config.hidden_act": "gelu_new"},
                {"vision_config.hidden_act": "gelu_python"},
                {"vision_config.hidden_act": "quick_gelu"},
                {"qformer_config.hidden_act": "gelu_new"},
                {"qformer_config.hidden_act": "relu"},
                {"vision_config.layer_norm_eps": 1e-5},
                {"qformer_config.layer_norm_eps": 1e-3},
                {"vision_config.layer_norm_eps": 1},
                {"vision_config.qkv_bias": 1},
                {"vision_config.image_size": [56, 56]},
                {"vision_config.patch_size": [14, 14]},
                {"vision_config.hidden_size": 32.0},
                {"qformer_config.cross_attention_frequency": 1},
                {"vision_config": None},
                {"text_config": None},
                {"vision_config.num_attention_heads": 4},
                {"qformer_config.num_attention_heads": 4},
            ],
            in_test=False,
        )
    yield from several(
        "names of keys", "opt", C,
        [
            {"text_config._remove_final_layer_norm": True},
            {"text_config.do_layer_norm_before": False},
            {"text_config.activation_function": "gelu"},
            {"text_config.enable_bias": False},
            {"text_config.layer_norm_elementwise_affine": False},
            {"text_config.word_embed_proj_dim": None},
            {"text_config.word_embed_proj_dim": 30},
            {"text_config.num_attention_heads": 4},
            {"text_config.is_encoder_decoder": True},
            {"text_config.ffn_dim": 121},
            {"text_config.dropout": 0.5},
            {"text_config.layerdrop": 0.5},
            {"text_config.max_position_embeddings": 90},
        ],
    )
    yield from several(
        "numbers of T5", "t5", C,
        [
            {"text_config.relative_attention_num_buckets": 16},
            {"text_config.relative_attention_max_distance": 64},
            {"text_config.layer_norm_epsilon": 1e-3},
            {"text_config.scale_decoder_outputs": True},
            {"text_config.scale_decoder_outputs": False},
            {"text_config.scale_decoder_outputs": None},
            {"text_config.tie_word_embeddings": True},
            {"text_config.tie_word_embeddings": None},
            {"text_config.tie_word_embeddings": DELETED},
            {"text_config.tie_word_embeddings": True, "text_config.scale_decoder_outputs": False},
            {"text_config.tie_word_embeddings": 0},
        ],
    )
    yield from several(
        "retrieval", "itm", C,
        [
            {"text_config": {}},
            {"text_config.model_type": "nothing"},
            {"text_config.eos_token_id": 5},
            {"image_token_index": 5},
            {"architectures": DELETED},
            {"qformer_config.use_qformer_text_input": False},
            {"qformer_config.vocab_size": 419},
            {"image_text_hidden_size": 13},
            {"image_text_hidden_size": 256},
            {"qformer_config.max_position_embeddings": 41},
            {"qformer_config.pad_token_id": 5},
            {"qformer_config.layer_norm_eps": 1e-3},
        ],
    )


def heads():
    tie = "text_config.tie_word_embeddings"
    yield "heads", "tied, no head", "opt", [], True
    yield "heads", "tied, head repeated", "opt", [["copy", EMBED, HEAD]], True
    yield "heads", "tied, head of its own", "opt", [["copy", EMBED, HEAD], ["negate", HEAD]], True
    yield "heads", "untied, head of its own", "opt", [
        ["copy", EMBED, HEAD],
        ["negate", HEAD],
        ["set", C, tie, False],
    ], True
    yield "heads", "untied, head repeated", "opt", [["copy", EMBED, HEAD], ["set", C, tie, False]], True
    yield "heads", "untied, no head", "opt", [["set", C, tie, False]], True
    yield "heads", "tied, head alone", "opt", [["rename", EMBED, HEAD]], True
    yield "heads", "untied, head alone", "opt", [["rename", EMBED, HEAD], ["set", C, tie, False]], True
    yield "heads", "tied, head rounded", "opt", [["copy", EMBED, HEAD], ["type", HEAD, "BF16"]], True
    for value in (True, False, DELETED):
        word = "missing" if value is DELETED else json.dumps(value)
        change = [["del", C, tie]] if value is DELETED else [["set", C, tie, value]]
        yield "heads", f"tie {word}, head", "t5", change, True
        yield "heads", f"tie {word}, no head", "t5", [*change, ["drop", HEAD]], True
    for stack in ("encoder", "decoder"):
        alias = f"language_model.{stack}.embed_tokens.weight"
        yield "heads", f"{stack}.embed_tokens repeats shared", "t5", [["copy", SHARED, alias]], True
        yield "heads", f"{stack}.embed_tokens differs from shared", "t5", [
            ["copy", SHARED, alias],
            ["negate", alias],
        ], True
        yield "heads", f"{stack}.embed_tokens alone", "t5", [["rename", SHARED, alias]], True
    yield "heads", "head alone", "t5", [["drop", SHARED]], True


def weights():
    for base, deep in (("opt", "language_model.*"), ("t5", "language_model.*"), ("itm", "qformer.*")):
        for kind in ("BF16", "F16"):
            yield "data types", f"all {kind}", base, [["type", "*", kind]], kind == "BF16"
            yield "data types", f"{deep} {kind}", base, [["type", deep, kind]], kind == "F16"
        yield "data types", "every second type", base, [
            ["type", "*bias", "F16"],
            ["type", "*query*", "BF16"],
            ["type", "*fc1*", "BF16"],
        ], True
        for n in (2, 7):
            yield "shards", f"{n}", base, [["shards", n]], n == 7
        for name in (
            "query_tokens", "vision_model.post_layernorm.weight",
            "vision_model.encoder.layers.1.self_attn.qkv.bias",
            "qformer.encoder.layer.0.crossattention.attention.key.weight",
        ):
            yield "tensors", f"without {name}", base, [["drop", name]], name == "query_tokens"
        yield "tensors", "one more", base, [["copy", "query_tokens", "extra_tokens"]], True
        yield "tensors", "position_ids", base, [["copy", "query_tokens", "embeddings.position_ids"]], False
        yield "tensors", "queries cut", base, [["rows", "qformer.layernorm.weight", 40]], False
        yield "tensors", "prefix model.", base, [["rename", "query_tokens", "model.query_tokens"]], False
        yield "tensors", "gamma", base, [["rename", "qformer.layernorm.weight", "qformer.layernorm.gamma"]], False
    yield "tensors", "no qkv bias", "opt", [["set", C, "vision_config.qkv_bias", False], *(
        ["drop", f"vision_model.encoder.layers.{i}.self_attn.qkv.bias"] for i in range(2))], True
    yield "tensors", "cross-attention's bias table", "t5", [
        [
            "copy",
            "language_model.decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            "language_model.decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        ]
    ], True


def pictures(directory):
    p = read(directory / P)
    nested = dict(p, image_mean=[0.5, 0.5, 0.5])
    for base in ("opt", "itm"):
        yield "pictures", "processor_config.json alone", base, [
            ["file", P, None],
            ["file", Q, {"image_processor": nested, "num_query_tokens": 8}],
        ], True
        yield "pictures", "both, and they differ", base, [
            ["file", Q, {"image_processor": nested, "num_query_tokens": 8}]
        ], True
        yield "pictures", "processor_config.json without image_processor", base, [
            ["file", Q, {"num_query_tokens": 8}]
        ], True
        yield "pictures", "image_processor null", base, [["file", Q, {"image_processor": None}]], False
        yield "pictures", "image_processor empty", base, [["file", Q, {"image_processor": {}}]], False
        yield "pictures", "neither", base, [["file", P, None]], True
    yield "pictures", "num_query_tokens 9", "opt", [
        ["file", Q, {"image_processor": nested, "num_query_tokens": 9}]
    ], False
    yield from setting(
        "pictures", "opt", P,
        [
            ("size", 56),
            ("size", {"height": 56, "width": 56}),
            ("size", {"shortest_edge": 56}),
            ("size", {"height": 56}),
            ("size", [56, 56]),
            ("size", 112),
            ("size", {"height": 56, "width": 70}),
            ("resample", 2),
            ("resample", 3),
            ("do_resize", False),
            ("do_rescale", False),
            ("do_normalize", False),
            ("do_convert_rgb", False),
            ("do_center_crop", True),
            ("do_center_crop", False),
            ("crop_size", {"height": 40, "width": 40}),
            ("do_pad", True),
            ("do_pad", False),
            ("pad_size", {"height": 70, "width": 70}),
            ("default_to_square", False),
            ("image_mean", 0.5),
            ("image_std", [0.1, 0.2, 0.3]),
            ("image_mean", [0, 0]),
            ("rescale_factor", 0.01),
            ("image_processor_type", "BlipImageProcessorFast"),
            ("image_processor_type", "CLIPImageProcessor"),
            ("image_processor_type", "BlipImageProcessorPil"),
            ("feature_extractor_type", "BlipFeatureExtractor"),
            ("data_format", "channels_first"),
            ("rescale_factor", None),
            ("image_std", [1, 1, 0]),
        ],
        in_test=False,
    )


def tokens(directory):
    for base in ("opt", "t5", "itm"):
        have = read(directory[base] / T)
        last = max([*(t["id"] for t in have["added_tokens"]), len(have["model"]["vocab"]) - 1])
        more = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for n, where in ((1, "within the embeddings"), (120, "past the embeddings")):
            add = [["add", T, "added_tokens", dict(more, id=last + 1 + i, content=f"<more{i}>")] for i in range(n)]
            yield "added tokens", where, base, add, True
        yield "added tokens", "one in a caption's words", base, [
            ["add", T, "added_tokens", dict(more, id=last + 1, content="photo", special=False)]
        ], True
        cut = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
        fill = {
            "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "x",
        }
        yield "added tokens", "truncation and padding", base, [
            ["set", T, "truncation", cut],
            ["set", T, "padding", fill],
        ], True
        yield "added tokens", "no post-processor", base, [["set", T, "post_processor", None]], True
    for base, pairs in (
        (
            "opt",
            [
                ("add_prefix_space", True),
                ("add_prefix_space", False),
                ("add_bos_token", False),
                ("add_eos_token", True),
                ("bos_token", "<pad>"),
            ],
        ),
        (
            "t5",
            [
                ("eos_token", "<pad>"),
                ("eos_token", {"content": "</s>"}),
                ("extra_ids", 3),
                ("legacy", False),
                ("add_eos_token", False),
            ],
        ),
        (
            "itm",
            [
                ("do_lower_case", False),
                ("do_lower_case", True),
                ("strip_accents", True),
                ("model_max_length", 3),
                ("padding_side", "left"),
            ],
        ),
    ):
        yield from setting("tokenizer_config.json", base, "tokenizer_config.json", pairs)
    cut = [["rows", "embeddings.word_embeddings.weight", 301], ["set", C, "qformer_config.vocab_size", 301]]
    yield "added tokens", "a vocabulary larger than the embeddings", "itm", cut, True


def all_edits(bases, first):
    """`bases`: name -> folder."""
    for base, directory in bases.items():
        yield from each_key(base, directory)
    for some in (gates(), special_ids(first), names(), heads(), weights(), pictures(bases["opt"]), tokens(bases)):
        yield from some
