#include "model/config.h"

#include "base/buf.h"
#include "base/file.h"
#include "model/json.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* Limits far above any published model, low enough that products of two stay in 64 bits and of a few in memory sizes.
 */
enum {
    MAX_FILE_BYTES = 1 << 20,
    MAX_WIDTH = 1 << 16,
    MAX_FFN = 1 << 18,
    MAX_LAYERS = 1024,
    MAX_HEADS = 1024,
    MAX_VOCAB = 1 << 22,
    MAX_POSITIONS = 1 << 20,
    MAX_TOKENS = 1 << 16,
};

static struct json_reader section(const struct json_reader *parent, const char *name, const json_t *object)
{
    return (struct json_reader){.file = parent->file, .section = name, .object = object, .err = parent->err};
}

static int read_size(struct json_reader *r, const char *key, int fallback, int max)
{
    return (int)json_read_int(r, key, fallback, 1, max);
}

static void want_text(struct json_reader *r, const char *key, const char *fallback, const char *wanted)
{
    const char *s = json_read_text(r, key, fallback);

    if (strcmp(s, wanted) != 0)
        json_reader_fail(r, key, "\"%s\" is not supported, only \"%s\"", s, wanted);
}

static void want_bool(struct json_reader *r, const char *key, bool wanted)
{
    if (json_read_bool(r, key, wanted) != wanted)
        json_reader_fail(r, key, "%s is not supported", wanted ? "false" : "true");
}

static int head_width(struct json_reader *r, const char *key, int width, int n_heads)
{
    if (width % n_heads != 0) {
        json_reader_fail(r, key, "%d heads do not divide the width %d", n_heads, width);
        return 1;
    }
    return width / n_heads;
}

static int read_vision(struct json_reader *r, struct config_vision *v)
{
    int side;

    v->width = read_size(r, "hidden_size", 1408, MAX_WIDTH);
    v->n_layers = read_size(r, "num_hidden_layers", 39, MAX_LAYERS);
    v->n_heads = read_size(r, "num_attention_heads", 16, MAX_HEADS);
    v->head_dim = head_width(r, "num_attention_heads", v->width, v->n_heads);
    v->ffn_width = read_size(r, "intermediate_size", 6144, MAX_FFN);
    v->image_size = read_size(r, "image_size", 224, 8192);
    v->patch_size = read_size(r, "patch_size", 14, 1024);
    v->eps = (float)json_read_real(r, "layer_norm_eps", 1e-6, 1e-30, 1);
    v->qkv_bias = json_read_bool(r, "qkv_bias", true);
    want_text(r, "hidden_act", "gelu", "gelu");
    if (r->rc < 0)
        return r->rc;
    if (v->image_size % v->patch_size != 0)
        json_reader_fail(r, "patch_size", "%d does not divide image_size %d", v->patch_size, v->image_size);
    side = v->image_size / v->patch_size;
    if (side > 255)
        json_reader_fail(r, "patch_size", "%d x %d patches, at most 255 x 255", side, side);
    v->n_tokens = side * side + 1;
    return r->rc;
}

static int read_qformer(struct json_reader *r, const struct config_vision *vision, bool has_text,
                        struct config_qformer *q)
{
    q->width = read_size(r, "hidden_size", 768, MAX_WIDTH);
    q->n_layers = read_size(r, "num_hidden_layers", 12, MAX_LAYERS);
    q->n_heads = read_size(r, "num_attention_heads", 12, MAX_HEADS);
    q->head_dim = head_width(r, "num_attention_heads", q->width, q->n_heads);
    q->ffn_width = read_size(r, "intermediate_size", 3072, MAX_FFN);
    q->cross_attention_freq = read_size(r, "cross_attention_frequency", 2, MAX_LAYERS);
    q->vocab_size = read_size(r, "vocab_size", 30522, MAX_VOCAB);
    q->max_positions = read_size(r, "max_position_embeddings", 512, MAX_POSITIONS);
    q->eps = (float)json_read_real(r, "layer_norm_eps", 1e-12, 1e-30, 1);
    want_text(r, "hidden_act", "gelu", "gelu");
    want_text(r, "position_embedding_type", "absolute", "absolute");
    (void)read_size(r, "encoder_hidden_size", 1408, MAX_WIDTH); /* the library overwrites it with the vision width */
    q->vision_width = vision->width;
    q->has_text = has_text;
    return r->rc;
}

static int read_opt(struct json_reader *r, struct config_opt *o)
{
    int proj;

    o->width = read_size(r, "hidden_size", 768, MAX_WIDTH);
    o->n_layers = read_size(r, "num_hidden_layers", 12, MAX_LAYERS);
    o->n_heads = read_size(r, "num_attention_heads", 12, MAX_HEADS);
    o->head_dim = head_width(r, "num_attention_heads", o->width, o->n_heads);
    o->ffn_width = read_size(r, "ffn_dim", 3072, MAX_FFN);
    o->vocab_size = read_size(r, "vocab_size", 50272, MAX_VOCAB);
    o->max_positions = read_size(r, "max_position_embeddings", 2048, MAX_POSITIONS);
    o->eps = 1e-5f;
    o->norm_before = json_read_bool(r, "do_layer_norm_before", true);
    o->final_norm = !json_read_bool(r, "_remove_final_layer_norm", false) && o->norm_before;
    want_text(r, "activation_function", "relu", "relu");
    want_bool(r, "enable_bias", true);
    want_bool(r, "layer_norm_elementwise_affine", true);
    proj = read_size(r, "word_embed_proj_dim", o->width, MAX_WIDTH);
    if (proj != o->width)
        json_reader_fail(r, "word_embed_proj_dim",
                         "%d is not hidden_size %d: project_in and project_out are not supported", proj, o->width);
    return r->rc;
}

static int read_t5(struct json_reader *r, struct config_t5 *t)
{
    const char *proj;
    bool tied, gated;

    t->width = read_size(r, "d_model", 512, MAX_WIDTH);
    t->n_heads = read_size(r, "num_heads", 8, MAX_HEADS);
    t->head_dim = read_size(r, "d_kv", 64, 1024);
    t->ffn_width = read_size(r, "d_ff", 2048, MAX_FFN);
    t->n_encoder_layers = read_size(r, "num_layers", 6, MAX_LAYERS);
    t->n_decoder_layers = read_size(r, "num_decoder_layers", t->n_encoder_layers, MAX_LAYERS);
    t->vocab_size = read_size(r, "vocab_size", 32128, MAX_VOCAB);
    t->n_buckets = (int)json_read_int(r, "relative_attention_num_buckets", 32, 4, 1 << 16);
    t->max_distance = (int)json_read_int(r, "relative_attention_max_distance", 128, 2, 1 << 20);
    t->eps = (float)json_read_real(r, "layer_norm_epsilon", 1e-6, 1e-30, 1);
    if (t->max_distance <= t->n_buckets / 2) /* the logarithm of MODEL.md's rule would be <= 0 */
        json_reader_fail(r, "relative_attention_max_distance", "%d, more than half the %d buckets is wanted",
                         t->max_distance, t->n_buckets);
    proj = json_read_text(r, "feed_forward_proj", NULL);
    gated = json_read_bool(r, "is_gated_act", proj && strncmp(proj, "gated-", 6) == 0);
    if (proj ? strcmp(proj, "gated-gelu") != 0 : !gated)
        json_reader_fail(r, "feed_forward_proj", "\"%s\" is not supported, only \"gated-gelu\"", proj ? proj : "relu");
    want_text(r, "dense_act_fn", "gelu_new", "gelu_new");
    tied = json_read_bool(r, "tie_word_embeddings", true);
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

/* -- special ids: generation_config.json first, then text_config, then the library's default
 * ------------------------------- */

static int32_t read_id(struct json_reader *gen, struct json_reader *text, const char *key, int32_t fallback, int vocab)
{
    fallback = (int32_t)json_read_int(text, key, fallback, 0, vocab - 1);
    return (int32_t)json_read_int(gen, key, fallback, 0, vocab - 1);
}

static void read_eos(struct json_reader *gen, struct json_reader *text, struct config *c, int32_t fallback)
{
    static const char key[] = "eos_token_id";
    struct json_reader *r = json_read_any(gen, key) ? gen : text;
    const json_t *v = json_read_any(r, key), *item;
    size_t i;

    if (!json_is_array(v)) {
        c->eos[0] = (int32_t)json_read_int(r, key, fallback, 0, c->lm_vocab_size - 1);
        c->n_eos = 1;
        return;
    }
    if (json_array_size(v) == 0 || json_array_size(v) > CONFIG_MAX_EOS) {
        json_reader_fail(r, key, "a list of %zu ids, 1 to %d are wanted", json_array_size(v), CONFIG_MAX_EOS);
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

static int read_ids(struct json_reader *top, struct json_reader *gen, struct json_reader *text, struct config *c)
{
    bool opt = c->lm == CONFIG_LM_OPT;

    c->image_token = (int32_t)json_read_int(top, "image_token_index", -1, 0, c->lm_vocab_size - 1);
    c->bos = read_id(gen, text, "bos_token_id", opt ? 2 : -1, c->lm_vocab_size);
    c->pad = read_id(gen, text, "pad_token_id", opt ? 1 : 0, c->lm_vocab_size);
    c->decoder_start = opt ? -1 : read_id(gen, text, "decoder_start_token_id", 0, c->lm_vocab_size);
    read_eos(gen, text, c, opt ? 2 : 1);
    return top->rc < 0 ? top->rc : gen->rc < 0 ? gen->rc : text->rc;
}

/* -- preprocessor_config.json
 * ------------------------------------------------------------------------------------------------ */

static void read_size_key(struct json_reader *r, int image_size, struct config_pixels *p)
{
    const json_t *v = json_read_any(r, "size");
    struct json_reader s = section(r, "size.", v);
    int height, width;

    p->size = image_size;
    if (json_is_object(v)) {
        if (json_read_any(&s, "shortest_edge") || json_read_any(&s, "longest_edge"))
            json_reader_fail(&s, "shortest_edge", "is not supported, only height and width");
        height = read_size(&s, "height", image_size, 8192);
        width = read_size(&s, "width", image_size, 8192);
        if (height != width)
            json_reader_fail(&s, "width", "%d is not height %d: only squares are supported", width, height);
        if (s.rc < 0) {
            r->rc = s.rc;
            return;
        }
    } else {
        height = read_size(r, "size", image_size, 8192);
    }
    if (height != image_size)
        json_reader_fail(r, "size", "%d, but config.json has vision_config.image_size %d", height, image_size);
}

static void read_three(struct json_reader *r, const char *key, double min, double ret[3])
{
    const json_t *v = json_read_node(r, key, JSON_ARRAY);

    if (!v)
        return;
    if (json_array_size(v) != 3) {
        json_reader_fail(r, key, "%zu values, one per colour (3) is wanted", json_array_size(v));
        return;
    }
    for (size_t i = 0; i < 3; i++) {
        const json_t *item = json_array_get(v, i);
        double x = json_number_value(item);

        if (!json_is_number(item) || !(x >= min && x <= 1e6)) {
            json_reader_fail(r, key, "value %zu is not a number from %g to 1e6", i, min);
            return;
        }
        ret[i] = x;
    }
}

static int read_pixels(struct json_reader *r, int image_size, struct config_pixels *p)
{
    int64_t resample;

    *p = (struct config_pixels){
        .rescale = 1.0 / 255, .mean = {0.48145466, 0.4578275, 0.40821073}, .std = {0.26862954, 0.26130258, 0.27577711}};
    read_size_key(r, image_size, p);
    want_bool(r, "do_resize", true);
    want_bool(r, "do_center_crop", false);
    want_bool(r, "do_convert_rgb", true);
    resample = json_read_int(r, "resample", 3, 0, 5);
    if (resample != 3)
        json_reader_fail(r, "resample", "%d is not supported, only 3 (bicubic)", (int)resample);
    p->rescale = json_read_real(r, "rescale_factor", p->rescale, 1e-9, 1e9);
    read_three(r, "image_mean", -1e6, p->mean);
    read_three(r, "image_std", 1e-6, p->std);
    if (!json_read_bool(r, "do_rescale", true))
        p->rescale = 1;
    if (!json_read_bool(r, "do_normalize", true))
        for (int i = 0; i < 3; i++) {
            p->mean[i] = 0;
            p->std[i] = 1;
        }
    return r->rc;
}

/* -- the three documents
 * ------------------------------------------------------------------------------------------------------ */

static int read_task(struct json_reader *top, const json_t *qformer, enum config_task *ret)
{
    const json_t *list = json_read_node(top, "architectures", JSON_ARRAY);
    const char *name = json_string_value(json_array_get(list, 0));
    struct json_reader q = section(top, "qformer_config.", qformer);
    bool text = json_read_bool(&q, "use_qformer_text_input", false);

    want_text(top, "model_type", "blip-2", "blip-2");
    if (top->rc < 0 || q.rc < 0)
        return top->rc < 0 ? top->rc : q.rc;
    if (!name)
        *ret = text ? CONFIG_TASK_RETRIEVE : CONFIG_TASK_GENERATE;
    else if (strcmp(name, "Blip2ForConditionalGeneration") == 0)
        *ret = CONFIG_TASK_GENERATE;
    else if (strcmp(name, "Blip2ForImageTextRetrieval") == 0)
        *ret = CONFIG_TASK_RETRIEVE;
    else
        json_reader_fail(top, "architectures",
                         "\"%s\" is not supported, only Blip2ForConditionalGeneration and Blip2ForImageTextRetrieval",
                         name);
    if (top->rc == 0 && *ret == CONFIG_TASK_GENERATE && text)
        json_reader_fail(&q, "use_qformer_text_input", "true is not supported with a language model");
    return top->rc < 0 ? top->rc : q.rc;
}

static int read_config(struct json_reader *top, struct json_reader *gen, struct config *c)
{
    const json_t *vision = json_read_node(top, "vision_config", JSON_OBJECT);
    const json_t *qformer = json_read_node(top, "qformer_config", JSON_OBJECT);
    const json_t *text = json_read_node(top, "text_config", JSON_OBJECT);
    struct json_reader v = section(top, "vision_config.", vision), q = section(top, "qformer_config.", qformer),
                       t = section(top, "text_config.", text);
    int rc = top->rc;

    if (rc == 0)
        rc = read_task(top, qformer, &c->task);
    if (rc == 0)
        rc = read_vision(&v, &c->vision);
    if (rc == 0)
        rc = read_qformer(&q, &c->vision, c->task == CONFIG_TASK_RETRIEVE, &c->qformer);
    if (rc < 0)
        return rc;
    c->n_queries = read_size(top, "num_query_tokens", 32, 4096);
    c->embed_width = read_size(top, "image_text_hidden_size", 256, MAX_WIDTH);
    c->image_token = c->bos = c->pad = c->decoder_start = -1;
    if (top->rc < 0 || c->task == CONFIG_TASK_RETRIEVE) /* its text_config describes nothing that exists */
        return top->rc;
    rc = read_language_model(&t, c);
    return rc < 0 ? rc : read_ids(top, gen, &t, c);
}

static int parse_object(const struct config_text *text, json_t **ret, struct err *err)
{
    json_t *root;
    int rc;

    *ret = NULL;
    if (!text || !text->name)
        return 0;
    rc = json_parse_text(text->data, text->size_bytes, MAX_FILE_BYTES, text->name, &root, err);
    if (rc < 0)
        return rc;
    if (!json_is_object(root)) {
        rc = err_set(err, -EINVAL, "%s: is %s, an object is wanted", text->name, json_type_text(root));
        json_decref(root);
        return rc;
    }
    *ret = root;
    return 0;
}

int config_parse(const struct config_text *config, const struct config_text *generation,
                 const struct config_text *preprocessor, struct config *ret, struct err *err)
{
    struct json_reader top = {.file = config->name, .section = "", .err = err}, gen = {.section = "", .err = err},
                       pre = {.section = "", .err = err};
    json_t *roots[3] = {NULL, NULL, NULL};
    struct config c = {0};
    int rc = parse_object(config, &roots[0], err);

    if (rc == 0)
        rc = parse_object(generation, &roots[1], err);
    if (rc == 0)
        rc = parse_object(preprocessor, &roots[2], err);
    if (rc < 0)
        goto out;
    top.object = roots[0];
    gen.object = roots[1];
    gen.file = roots[1] ? generation->name : "";
    pre.object = roots[2];
    pre.file = roots[2] ? preprocessor->name : "";
    rc = read_config(&top, &gen, &c);
    if (rc == 0)
        rc = read_pixels(&pre, c.vision.image_size, &c.pixels);
    if (rc == 0)
        *ret = c;
out:
    for (int i = 0; i < 3; i++)
        json_decref(roots[i]);
    return rc;
}

int config_load(const char *dir, struct config *ret, struct err *err)
{
    static const char *const names[3] = {"config.json", "generation_config.json", "preprocessor_config.json"};
    struct config_text texts[3] = {{0}};
    struct buf bufs[3] = {{0}};
    char paths[3][PATH_MAX];
    int rc = 0;

    for (int i = 0; i < 3 && rc == 0; i++) {
        if (snprintf(paths[i], sizeof(paths[i]), "%s/%s", dir, names[i]) >= (int)sizeof(paths[i])) {
            rc = err_set(err, -ENAMETOOLONG, "%s: path too long", dir);
            break;
        }
        rc = file_read(paths[i], MAX_FILE_BYTES, &bufs[i], err);
        if (rc == -ENOENT && i == 1)
            rc = 0; /* retrieval checkpoints have none */
        else if (rc == -ENOENT)
            rc = err_set(err, rc,
                         "%s: is missing; a checkpoint directory holds config.json, preprocessor_config.json, "
                         "tokenizer.json and model.safetensors (or shards with their index)",
                         paths[i]);
        else if (rc == 0)
            texts[i] = (struct config_text){paths[i], bufs[i].data, bufs[i].size_bytes};
    }
    if (rc == 0)
        rc = config_parse(&texts[0], &texts[1], &texts[2], ret, err);
    for (int i = 0; i < 3; i++)
        buf_release(&bufs[i]);
    return rc;
}
