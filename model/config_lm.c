/* config_lm.c - text_config: OPT or T5, and the ids that begin and end a caption, with transformers' rules. */
#include "model/config_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_opt(struct json_reader *r, struct config_opt *o)
{
    int proj;

    o->width = config_read_size(r, "hidden_size", 768, CONFIG_MAX_WIDTH);
    o->n_layers = config_read_size(r, "num_hidden_layers", 12, CONFIG_MAX_LAYERS);
    o->n_heads = config_read_size(r, "num_attention_heads", 12, CONFIG_MAX_HEADS);
    o->head_dim = config_head_width(r, "num_attention_heads", o->width, o->n_heads);
    o->ffn_width = config_read_size(r, "ffn_dim", 3072, CONFIG_MAX_FFN);
    o->vocab_size = config_read_size(r, "vocab_size", 50272, CONFIG_MAX_VOCAB);
    o->max_positions = config_read_size(r, "max_position_embeddings", 2048, CONFIG_MAX_POSITIONS);
    o->eps = 1e-5f;
    o->norm_before = json_read_bool(r, "do_layer_norm_before", true);
    o->final_norm = !json_read_bool(r, "_remove_final_layer_norm", false) && o->norm_before;
    o->tied = json_read_bool(r, "tie_word_embeddings", true);
    config_want_text(r, "activation_function", "relu", "relu");
    config_want_bool(r, "enable_bias", true);
    config_want_bool(r, "layer_norm_elementwise_affine", true);
    config_want_bool(r, "is_encoder_decoder", false);
    proj = json_read_any(r, "word_embed_proj_dim")
               ? config_read_size(r, "word_embed_proj_dim", o->width, CONFIG_MAX_WIDTH)
               : o->width;
    if (proj != o->width)
        json_reader_fail(r, "word_embed_proj_dim",
                         "%d is not hidden_size %d: project_in and project_out are not supported", proj, o->width);
    return r->rc;
}

/* transformers also accepts T5 sizes under these general names, and prefers them. */
static int read_t5_size(struct json_reader *r, const char *key, const char *general, int fallback, int max)
{
    return config_read_size(r, json_object_get(r->object, general) ? general : key, fallback, max);
}

static int read_t5_depths(struct json_reader *r, struct config_t5 *t)
{
    int n = config_read_size(r, "num_layers", 6, CONFIG_MAX_LAYERS);

    t->n_encoder_layers = read_t5_size(r, "num_layers", "num_hidden_layers", n, CONFIG_MAX_LAYERS);
    t->n_decoder_layers =
        json_read_any(r, "num_decoder_layers") ? config_read_size(r, "num_decoder_layers", n, CONFIG_MAX_LAYERS) : n;
    return r->rc;
}

/* True if `name` is one of transformers' names for a form of gelu. */
static bool is_one_of(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return true;
    return false;
}

/* feed_forward_proj names the activation, with the prefix "gated-" for a gated layer; dense_act_fn and is_gated_act
 * override it. "gated-gelu" alone means the tanh form, for compatibility with T5's first checkpoints. */
static void read_t5_act(struct json_reader *r, struct config_t5 *t)
{
    static const char *const erf[] = {"gelu", "gelu_python", NULL};
    static const char *const tanh[] = {"gelu_new",      "gelu_pytorch_tanh", "gelu_python_tanh",
                                       "gelu_accurate", "gelu_fast",         NULL};
    const char *key = "feed_forward_proj", *proj = json_read_text(r, key, "relu"), *said = proj;
    const char *dash = strchr(proj, '-'), *act = dash ? dash + 1 : proj;
    bool gated = strncmp(proj, "gated-", 6) == 0 || strcmp(proj, "gated") == 0;

    if (dash && (!gated || strchr(dash + 1, '-')))
        json_reader_fail(r, key, "\"%s\" is neither an activation nor \"gated-\" and an activation", proj);
    if (strcmp(proj, "gated-gelu") == 0)
        act = "gelu_new";
    if (!json_read_bool(r, "is_gated_act", gated))
        json_reader_fail(r, gated ? "is_gated_act" : key, "\"%s\" without gates is not supported, only \"gated-gelu\"",
                         proj);
    if (json_object_get(r->object, "dense_act_fn")) {
        key = "dense_act_fn";
        act = said = json_read_text(r, key, act);
    }
    t->gelu_erf = is_one_of(act, erf);
    if (!t->gelu_erf && !is_one_of(act, tanh))
        json_reader_fail(r, key, "\"%s\" is not supported, only gates with \"gelu\" and \"gelu_new\"", said);
}

static int read_t5(struct json_reader *r, struct config_t5 *t)
{
    bool tied;

    t->width = read_t5_size(r, "d_model", "hidden_size", 512, CONFIG_MAX_WIDTH);
    t->n_heads = read_t5_size(r, "num_heads", "num_attention_heads", 8, CONFIG_MAX_HEADS);
    t->head_dim = read_t5_size(r, "d_kv", "head_dim", 64, 1024);
    t->ffn_width = config_read_size(r, "d_ff", 2048, CONFIG_MAX_FFN);
    if (read_t5_depths(r, t) < 0)
        return r->rc;
    t->vocab_size = config_read_size(r, "vocab_size", 32128, CONFIG_MAX_VOCAB);
    t->n_buckets = (int)json_read_int(r, "relative_attention_num_buckets", 32, 4, 1 << 16);
    t->max_distance = (int)json_read_int(r, "relative_attention_max_distance", 128, 2, 1 << 20);
    t->eps = (float)json_read_real(r, "layer_norm_epsilon", 1e-6, 1e-30, 1);
    if (t->max_distance <= t->n_buckets / 2) /* the logarithm of MODEL.md's rule would be <= 0 */
        json_reader_fail(r, "relative_attention_max_distance", "%d, expected more than half of the %d buckets",
                         t->max_distance, t->n_buckets);
    read_t5_act(r, t);
    config_want_bool(r, "is_encoder_decoder", true);
    tied = !json_read_any(r, "tie_word_embeddings") || json_read_bool(r, "tie_word_embeddings", true);
    t->scale_output = json_read_bool(r, "scale_decoder_outputs", tied);
    return r->rc;
}

static int read_language_model(struct json_reader *r, struct config *c)
{
    const char *type = json_read_text(r, "model_type", "opt");
    int rc;

    if (r->rc < 0)
        return r->rc;
    if (strcmp(type, "opt") == 0) {
        c->lm = CONFIG_LM_OPT;
        rc = read_opt(r, &c->opt);
        c->lm_width = c->opt.width;
        c->lm_vocab_size = c->opt.vocab_size;
    } else if (strcmp(type, "t5") == 0) {
        c->lm = CONFIG_LM_T5;
        rc = read_t5(r, &c->t5);
        c->lm_width = c->t5.width;
        c->lm_vocab_size = c->t5.vocab_size;
    } else {
        json_reader_fail(r, "model_type", "\"%s\" is not supported, only \"opt\" and \"t5\"", type);
        rc = r->rc;
    }
    return rc;
}

/* -- special ids: from text_config, else the class's default; null means none */

static int32_t read_id(struct json_reader *r, const char *key, int32_t fallback, int vocab)
{
    const json_t *v = json_object_get(r->object, key);

    if (!v || json_is_null(v))
        return v ? -1 : fallback;
    return (int32_t)json_read_int(r, key, fallback, 0, vocab - 1);
}

static void read_eos(struct json_reader *r, struct config *c, int32_t fallback)
{
    static const char key[] = "eos_token_id";
    const json_t *v = json_object_get(r->object, key), *item;
    size_t i;

    if (!json_is_array(v)) {
        c->eos[0] = read_id(r, key, fallback, c->lm_vocab_size);
        c->n_eos = c->eos[0] >= 0; /* none: every caption has the maximum length */
        return;
    }
    if (json_array_size(v) == 0 || json_array_size(v) > CONFIG_MAX_EOS) {
        json_reader_fail(r, key, "a list of %zu ids, expected 1 to %d", json_array_size(v), CONFIG_MAX_EOS);
        return;
    }
    json_array_foreach((json_t *)(uintptr_t)v, i, item)
    {
        json_int_t id = json_integer_value(item);

        if (!json_is_integer(item) || id < 0 || id >= c->lm_vocab_size) {
            json_reader_fail(r, key, "item %zu is not an id below the vocabulary's %d", i, c->lm_vocab_size);
            return;
        }
        c->eos[i] = (int32_t)id;
    }
    c->n_eos = (int)json_array_size(v);
}

/* T5's class has no default for bos and decoder_start: transformers then starts with bos, and fails without it. Only
 * here generation_config.json is used. */
static void read_t5_starts(struct json_reader *text, struct json_reader *gen, struct config *c)
{
    c->bos = read_id(text, "bos_token_id", -1, c->lm_vocab_size);
    c->decoder_start = read_id(text, "decoder_start_token_id", -1, c->lm_vocab_size);
    if (c->decoder_start < 0)
        c->decoder_start = c->bos;
    if (c->decoder_start < 0)
        c->decoder_start = read_id(gen, "decoder_start_token_id", 0, c->lm_vocab_size);
    if (c->bos < 0)
        c->bos = read_id(gen, "bos_token_id", -1, c->lm_vocab_size);
}

static bool says_otherwise(const json_t *v, const int32_t *ids, int n)
{
    if (!json_is_array(v))
        return n != 1 || !json_is_integer(v) || json_integer_value(v) != ids[0];
    if (json_array_size(v) != (size_t)n)
        return true;
    for (int i = 0; i < n; i++)
        if (!json_is_integer(json_array_get(v, (size_t)i)) ||
            json_integer_value(json_array_get(v, (size_t)i)) != ids[i])
            return true;
    return false;
}

/* Blip2's generate calls the language model's own, which never reads generation_config.json. */
static void compare_id(const struct json_reader *gen, const char *key, const int32_t *ids, int n, struct config *c)
{
    const json_t *v = json_read_any(gen, key);
    char *said = NULL, have[16] = "none";

    if (!v || c->note[0] || !says_otherwise(v, ids, n) || !(said = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT)))
        return;
    if (n > 0 && ids[0] >= 0)
        (void)snprintf(have, sizeof(have), "%d%s", (int)ids[0], n > 1 ? " ..." : "");
    (void)snprintf(c->note, sizeof(c->note),
                   "%.180s: %s %.40s is not used; text_config of config.json decides, as in transformers: %s",
                   gen->file, key, said, have);
    free(said);
}

static int read_ids(struct json_reader *top, struct json_reader *text, struct json_reader *gen, struct config *c)
{
    const char *image = json_object_get(top->object, "image_token_id") ? "image_token_id" : "image_token_index";
    bool opt = c->lm == CONFIG_LM_OPT;

    c->image_token = read_id(top, image, -1, c->lm_vocab_size);
    c->pad = read_id(text, "pad_token_id", opt ? 1 : 0, c->lm_vocab_size);
    read_eos(text, c, opt ? 2 : 1);
    if (opt)
        c->bos = read_id(text, "bos_token_id", 2, c->lm_vocab_size);
    else
        read_t5_starts(text, gen, c);
    compare_id(gen, "eos_token_id", c->eos, c->n_eos, c);
    compare_id(gen, "bos_token_id", &c->bos, 1, c);
    if (!opt)
        compare_id(gen, "decoder_start_token_id", &c->decoder_start, 1, c);
    return top->rc < 0 ? top->rc : text->rc < 0 ? text->rc : gen->rc;
}

int config_read_lm(struct json_reader *top, struct json_reader *text, struct json_reader *generation, struct config *c)
{
    int rc = read_language_model(text, c);

    return rc < 0 ? rc : read_ids(top, text, generation, c);
}
