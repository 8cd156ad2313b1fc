/* config.h - the parameters in a checkpoint's config.json, generation_config.json, and processor_config.json or
 * preprocessor_config.json.
 *
 * A missing key takes transformers' default. A value that has the wrong type, is absurd or is not implemented is an
 * error that names file and key; so is null where transformers does not accept it.
 * Who may call: anyone; the structs are plain values, immutable after loading.
 * Units: sizes in elements; token ids as in the tokenizer, -1 for none.
 * Memory: nothing to free.
 * Errors: -EINVAL (bad or unsupported value), -EFBIG (file over its limit), -ENOMEM, or the error of open(). */
#ifndef BLIPLINE_MODEL_CONFIG_H
#define BLIPLINE_MODEL_CONFIG_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_MAX_EOS 16

enum config_task {
    CONFIG_TASK_GENERATE = 1, /* Blip2ForConditionalGeneration: vision, Q-Former, projection, language model */
    CONFIG_TASK_RETRIEVE,     /* Blip2ForImageTextRetrieval: vision, Q-Former with text, ITC and ITM heads */
};

enum config_lm { CONFIG_LM_NONE = 0, CONFIG_LM_OPT, CONFIG_LM_T5 };

struct config_vision {
    int width, n_layers, n_heads, head_dim; /* width = n_heads * head_dim */
    int ffn_width;
    int image_size, patch_size; /* pixels; image_size is a multiple of patch_size */
    int n_tokens;               /* P = (image_size / patch_size)^2 + 1 */
    float eps;
    bool qkv_bias;
};

struct config_qformer {
    int width, n_layers, n_heads, head_dim;
    int ffn_width;
    int vision_width;         /* input width of cross-attention keys and values; always vision.width */
    int cross_attention_freq; /* layers 0, f, 2f, etc. have cross-attention */
    int vocab_size, max_positions;
    float eps;
    bool has_text; /* word embeddings and text feed-forward exist (retrieval checkpoints) */
};

struct config_opt {
    int width, n_layers, n_heads, head_dim, ffn_width;
    int vocab_size;
    int max_positions; /* embed_positions has two more rows */
    float eps;         /* 1e-5, fixed */
    bool norm_before;  /* do_layer_norm_before */
    bool final_norm;   /* model.decoder.final_layer_norm exists and is applied */
    bool tied;         /* without lm_head the embedding is the head; if false, lm_head is required */
};

struct config_t5 {
    int width, n_heads, head_dim /* d_kv */, ffn_width;
    int n_encoder_layers, n_decoder_layers;
    int vocab_size;
    int n_buckets, max_distance;
    float eps;
    bool gelu_erf;     /* gated gelu in erf form; false: tanh form */
    bool scale_output; /* decoder output x d_model^-1/2 before the head; see MODEL.md for the rule */
};

/* pixel value = (u8 * rescale - mean) / std per channel; do_rescale = false gives rescale 1, do_normalize = false mean
 * 0 and std 1. Resizing is always Pillow's bicubic to size x size. */
struct config_pixels {
    int size;
    double rescale;
    double mean[3], std[3];
};

struct config {
    enum config_task task;
    enum config_lm lm; /* CONFIG_LM_NONE exactly when task is RETRIEVE */
    struct config_vision vision;
    struct config_qformer qformer;
    struct config_opt opt; /* valid for CONFIG_LM_OPT */
    struct config_t5 t5;   /* valid for CONFIG_LM_T5 */
    int lm_width;          /* width of the language model's embeddings = rows of language_projection; 0 without one */
    int lm_vocab_size;     /* 0 without one */
    int n_queries;         /* Q, num_query_tokens */
    int embed_width;       /* d, image_text_hidden_size: ITC embeddings of retrieval checkpoints */
    int32_t image_token;   /* image_token_index; -1 if null or missing */
    int32_t eos[CONFIG_MAX_EOS];
    int n_eos;                       /* 0: captions end at their maximum length only */
    int32_t bos, pad, decoder_start; /* decoder_start: T5; -1: none */
    struct config_pixels pixels;
    char note[384]; /* a one-line notice about the files for the user, or "" */
};

enum config_file {
    CONFIG_FILE_MODEL,        /* config.json */
    CONFIG_FILE_GENERATION,   /* generation_config.json */
    CONFIG_FILE_PROCESSOR,    /* processor_config.json */
    CONFIG_FILE_PREPROCESSOR, /* preprocessor_config.json */
    CONFIG_N_FILES,
};

/* A file's text; `name` is used in messages. */
struct config_text {
    const char *name; /* NULL: the file does not exist */
    const void *data;
    size_t size_bytes;
};

/* Parses the files from memory. config.json is required. Without a processor file the published values apply, at
 * vision.image_size. */
int config_parse(const struct config_text texts[CONFIG_N_FILES], struct config *ret, struct err *err) CHECK_RESULT;

/* Loads the files of a checkpoint directory. Required: config.json, and either processor_config.json with an
 * image_processor or preprocessor_config.json. Optional: generation_config.json. */
int config_load(const char *dir, struct config *ret, struct err *err) CHECK_RESULT;

#endif
