"""The configuration files of Salesforce's BLIP-2 repositories on the Hugging Face hub, as far as they say anything
about the model.

Sources:
  blip2-opt-2.7b, blip2-flan-t5-xl   config.json as on the hub (saved by transformers 4.47.0.dev0, without keys that
                                     have the class's default), generation_config.json, ids of <image>; for T5 also the
                                     config.json of 2023 (4.27.0.dev0) and the names and total_size of
                                     model.safetensors.index.json
  the others                         transformers' convert_blip_2_original_to_pytorch.py, which wrote them: the
                                     configurations of facebook/opt-6.7b and google/flan-t5-xxl with the same changes
                                     (eos 50118; dense_act_fn gelu, bos 1), images of 364 for -coco, a Q-Former with
                                     text and 30523 words and the default text_config for -itm; keys left out as by 4.47
Shards: at most 10 GB, which gives the two files of flan-t5-xl's index.
"""

VISION = {
    "dropout": 0.0, "initializer_factor": 1.0, "model_type": "blip_2_vision_model", "num_channels": 3,
    "projection_dim": 512,
}
QFORMER = {"classifier_dropout": None, "model_type": "blip_2_qformer"}
SUMMARIES = {
    "summarization": {
        "early_stopping": True, "length_penalty": 2.0, "max_length": 200, "min_length": 30,
        "no_repeat_ngram_size": 3, "num_beams": 4, "prefix": "summarize: ",
    }
}


def opt(size, width):
    return {
        "_name_or_path": f"facebook/opt-{size}", "activation_dropout": 0.0,
        "architectures": ["OPTForCausalLM"], "eos_token_id": 50118, "ffn_dim": 4 * width,
        "hidden_size": width, "model_type": "opt", "num_attention_heads": 32, "num_hidden_layers": 32,
        "prefix": "</s>", "torch_dtype": "float16", "vocab_size": 50304, "word_embed_proj_dim": width,
    }


def t5(width, n_heads, ffn):
    return {
        "architectures": ["T5ForConditionalGeneration"], "bos_token_id": 1, "classifier_dropout": 0.0,
        "d_ff": ffn, "d_kv": 64, "d_model": width, "decoder_start_token_id": 0, "dense_act_fn": "gelu",
        "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
        "is_encoder_decoder": True, "is_gated_act": True, "layer_norm_epsilon": 1e-06, "model_type": "t5",
        "n_positions": 512, "num_decoder_layers": 24, "num_heads": n_heads, "num_layers": 24,
        "output_past": True, "pad_token_id": 0, "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32, "task_specific_params": SUMMARIES, "tie_word_embeddings": False,
        "torch_dtype": "float32", "vocab_size": 32128,
    }


def config(text, image_token, image_size, **more):
    vision = dict(VISION, image_size=image_size) if image_size != 224 else VISION
    return {
        "architectures": ["Blip2ForConditionalGeneration"], "image_text_hidden_size": 256,
        "image_token_index": image_token, "initializer_factor": 1.0, "initializer_range": 0.02,
        "model_type": "blip-2", "num_query_tokens": 32, "qformer_config": QFORMER, "text_config": text,
        "torch_dtype": "float32", "transformers_version": "4.47.0.dev0",
        "use_decoder_only_language_model": text["model_type"] == "opt",
        "vision_config": vision,
        **more,
    }


def retrieval(image_size):
    return config(
        {"classifier_dropout": 0.0, "model_type": "opt"},
        None, image_size, architectures=["Blip2ForImageTextRetrieval"],
        qformer_config=dict(QFORMER, use_qformer_text_input=True, vocab_size=30523),
    )


# The hub's config.json of flan-t5-xl of 2023: every key that the library knew, most of them about other things.
REST = {
    "_name_or_path": "", "add_cross_attention": False, "bad_words_ids": None, "begin_suppress_tokens": None,
    "chunk_size_feed_forward": 0, "cross_attention_hidden_size": None, "diversity_penalty": 0.0,
    "do_sample": False, "early_stopping": False, "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None, "finetuning_task": None, "forced_bos_token_id": None,
    "forced_eos_token_id": None, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0, "max_length": 20, "min_length": 0,
    "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1,
    "output_attentions": False, "output_hidden_states": False, "output_scores": False, "prefix": None,
    "problem_type": None, "pruned_heads": {}, "remove_invalid_values": False, "repetition_penalty": 1.0,
    "return_dict": True, "return_dict_in_generate": False, "sep_token_id": None, "suppress_tokens": None,
    "temperature": 1.0, "tf_legacy_loss": False, "tie_encoder_decoder": False, "tokenizer_class": None,
    "top_k": 50, "top_p": 1.0, "torchscript": False, "transformers_version": "4.27.0.dev0", "typical_p": 1.0,
    "use_bfloat16": False,
}
NO_IDS = {
    "architectures": None, "bos_token_id": None, "decoder_start_token_id": None, "eos_token_id": None,
    "is_encoder_decoder": False, "task_specific_params": None, "tie_word_embeddings": True,
    "torch_dtype": None,
}
FLAN_T5_XL_2023 = {
    "_commit_hash": None, "architectures": ["Blip2ForConditionalGeneration"], "initializer_factor": 1.0,
    "initializer_range": 0.02, "model_type": "blip-2", "num_query_tokens": 32, "torch_dtype": "float32",
    "transformers_version": None, "use_decoder_only_language_model": False,
    "qformer_config": {
        **REST, **NO_IDS, **QFORMER, "attention_probs_dropout_prob": 0.1, "cross_attention_frequency": 2,
        "encoder_hidden_size": 1408, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
        "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512, "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 0,
        "position_embedding_type": "absolute", "vocab_size": 30522,
    },
    "text_config": {**REST, **t5(2048, 32, 5120), "use_cache": True},
    "vision_config": {
        **REST, **NO_IDS, **VISION, "attention_dropout": 0.0, "hidden_act": "gelu", "hidden_size": 1408,
        "image_size": 224, "initializer_range": 1e-10, "intermediate_size": 6144, "layer_norm_eps": 1e-05,
        "num_attention_heads": 16, "num_hidden_layers": 39, "pad_token_id": None, "patch_size": 14,
        "qkv_bias": True,
    },
}

IDS = {"opt": {"bos_token_id": 2, "eos_token_id": 50118, "pad_token_id": 1},
       "t5": {"bos_token_id": 1, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}}

REPOSITORIES = {
    "blip2-opt-2.7b": config(opt("2.7b", 2560), 50265, 224),
    "blip2-opt-2.7b-coco": config(opt("2.7b", 2560), 50265, 364),
    "blip2-opt-6.7b": config(opt("6.7b", 4096), 50265, 224),
    "blip2-opt-6.7b-coco": config(opt("6.7b", 4096), 50265, 364),
    "blip2-flan-t5-xl": config(t5(2048, 32, 5120), 32100, 224),
    "blip2-flan-t5-xl of 2023": FLAN_T5_XL_2023,
    "blip2-flan-t5-xl-coco": config(t5(2048, 32, 5120), 32100, 364),
    "blip2-flan-t5-xxl": config(t5(4096, 64, 10240), 32100, 224),
    "blip2-itm-vit-g": retrieval(224),
    "blip2-itm-vit-g-coco": retrieval(364),
}
TOTAL_SIZE = {"blip2-flan-t5-xl": 15769786368}  # of the index
IMAGE_TOKEN = {"opt": 50265, "t5": 32100}


def preprocessor(image_size):
    return {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_processor_type": "BlipImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711], "processor_class": "Blip2Processor", "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"height": image_size, "width": image_size},
    }
