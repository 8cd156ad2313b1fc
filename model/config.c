#include "model/config_private.h"

#include "base/buf.h"
#include "base/checkpoint_file.h"
#include "base/file.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { MAX_FILE_BYTES = 1 << 20, MAX_PATCHES = 255 /* per side */, MAX_QUERIES = 4096 };

struct json_reader config_section(const struct json_reader *parent, const char *name, const json_t *object)
{
    return (struct json_reader){
        .file = parent->file, .section = name, .object = object, .no_nulls = parent->no_nulls, .err = parent->err};
}

int config_read_size(struct json_reader *r, const char *key, int fallback, int max)
{
    return (int)json_read_int(r, key, fallback, 1, max);
}

void config_want_text(struct json_reader *r, const char *key, const char *fallback, const char *wanted)
{
    const char *s = json_read_text(r, key, fallback);

    if (strcmp(s, wanted) != 0)
        json_reader_fail(r, key, "\"%s\" is not supported, only \"%s\"", s, wanted);
}

void config_want_bool(struct json_reader *r, const char *key, bool wanted)
{
    if (json_read_bool(r, key, wanted) != wanted)
        json_reader_fail(r, key, "%s is not supported", wanted ? "false" : "true");
}

int config_head_width(struct json_reader *r, const char *key, int width, int n_heads)
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

    v->width = config_read_size(r, "hidden_size", 1408, CONFIG_MAX_WIDTH);
    v->n_layers = config_read_size(r, "num_hidden_layers", 39, CONFIG_MAX_LAYERS);
    v->n_heads = config_read_size(r, "num_attention_heads", 16, CONFIG_MAX_HEADS);
    v->head_dim = config_head_width(r, "num_attention_heads", v->width, v->n_heads);
    v->ffn_width = config_read_size(r, "intermediate_size", 6144, CONFIG_MAX_FFN);
    v->image_size = config_read_size(r, "image_size", 224, CONFIG_MAX_PIXELS);
    v->patch_size = config_read_size(r, "patch_size", 14, 1024);
    v->eps = (float)json_read_real(r, "layer_norm_eps", 1e-6, 1e-30, 1);
    v->qkv_bias = json_read_bool(r, "qkv_bias", true);
    config_want_text(r, "hidden_act", "gelu", "gelu");
    if (r->rc < 0)
        return r->rc;
    if (v->image_size % v->patch_size != 0)
        json_reader_fail(r, "patch_size", "%d does not divide image_size %d", v->patch_size, v->image_size);
    side = v->image_size / v->patch_size;
    if (side > MAX_PATCHES)
        json_reader_fail(r, "patch_size", "%d x %d patches, at most %d x %d", side, side, MAX_PATCHES, MAX_PATCHES);
    v->n_tokens = side * side + 1;
    return r->rc;
}

static int read_qformer(struct json_reader *r, const struct config_vision *vision, bool has_text,
                        struct config_qformer *q)
{
    q->width = config_read_size(r, "hidden_size", 768, CONFIG_MAX_WIDTH);
    q->n_layers = config_read_size(r, "num_hidden_layers", 12, CONFIG_MAX_LAYERS);
    q->n_heads = config_read_size(r, "num_attention_heads", 12, CONFIG_MAX_HEADS);
    q->head_dim = config_head_width(r, "num_attention_heads", q->width, q->n_heads);
    q->ffn_width = config_read_size(r, "intermediate_size", 3072, CONFIG_MAX_FFN);
    q->cross_attention_freq = config_read_size(r, "cross_attention_frequency", 2, CONFIG_MAX_LAYERS);
    q->vocab_size = config_read_size(r, "vocab_size", 30522, CONFIG_MAX_VOCAB);
    q->max_positions = config_read_size(r, "max_position_embeddings", 512, CONFIG_MAX_POSITIONS);
    q->eps = (float)json_read_real(r, "layer_norm_eps", 1e-12, 1e-30, 1);
    config_want_text(r, "hidden_act", "gelu", "gelu");
    config_want_text(r, "position_embedding_type", "absolute", "absolute");
    (void)config_read_size(r, "encoder_hidden_size", 1408, CONFIG_MAX_WIDTH); /* replaced by the vision width */
    q->vision_width = vision->width;
    q->has_text = has_text;
    return r->rc;
}

/* -- the documents */

/* Refuses keys that would change results and that nothing else reads. */
static void refuse_changes(struct json_reader *r)
{
    static const char *const keys[] = {"quantization_config", "per_layer_config"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (json_read_any(r, keys[i]))
            json_reader_fail(r, keys[i], "is not supported");
}

static int read_task(struct json_reader *top, struct json_reader *q, enum config_task *ret)
{
    const json_t *list = json_read_node(top, "architectures", JSON_ARRAY);
    const char *name = json_string_value(json_array_get(list, 0));
    bool text = json_read_bool(q, "use_qformer_text_input", false);

    config_want_text(top, "model_type", "blip-2", "blip-2");
    if (top->rc < 0 || q->rc < 0)
        return top->rc < 0 ? top->rc : q->rc;
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
        json_reader_fail(q, "use_qformer_text_input", "true is not supported with a language model");
    else if (top->rc == 0 && *ret == CONFIG_TASK_RETRIEVE && !text)
        json_reader_fail(q, "use_qformer_text_input", "is not true, so the Q-Former of %s reads no text", name);
    return top->rc < 0 ? top->rc : q->rc;
}

static int read_config(struct json_reader *top, struct json_reader *gen, struct config *c)
{
    const json_t *vision = json_read_node(top, "vision_config", JSON_OBJECT);
    const json_t *qformer = json_read_node(top, "qformer_config", JSON_OBJECT);
    const json_t *text = json_read_node(top, "text_config", JSON_OBJECT);
    struct json_reader v = config_section(top, "vision_config.", vision),
                       q = config_section(top, "qformer_config.", qformer),
                       t = config_section(top, "text_config.", text);
    int rc;

    refuse_changes(top);
    refuse_changes(&v);
    refuse_changes(&q);
    refuse_changes(&t);
    rc = top->rc < 0 ? top->rc : v.rc < 0 ? v.rc : t.rc;
    if (rc == 0)
        rc = read_task(top, &q, &c->task);
    if (rc == 0)
        rc = read_vision(&v, &c->vision);
    if (rc == 0)
        rc = read_qformer(&q, &c->vision, c->task == CONFIG_TASK_RETRIEVE, &c->qformer);
    if (rc < 0)
        return rc;
    c->n_queries = config_read_size(top, "num_query_tokens", 32, MAX_QUERIES);
    c->embed_width = config_read_size(top, "image_text_hidden_size", 256, CONFIG_MAX_WIDTH);
    c->image_token = c->bos = c->pad = c->decoder_start = -1;
    if (top->rc < 0 || c->task == CONFIG_TASK_RETRIEVE) /* its text_config is unused */
        return top->rc;
    return config_read_lm(top, &t, gen, c);
}

/* Image preprocessing is in processor_config.json (transformers 5) or preprocessor_config.json. If both exist,
 * transformers uses the former. */
static int read_processor(struct json_reader *processor, struct json_reader *preprocessor, struct config *c)
{
    const json_t *nested = json_read_node(processor, "image_processor", JSON_OBJECT);
    struct json_reader image = config_section(processor, "image_processor.", nested);
    int n = config_read_size(processor, "num_query_tokens", c->n_queries, MAX_QUERIES);

    if (n != c->n_queries)
        json_reader_fail(processor, "num_query_tokens", "%d, but config.json has %d", n, c->n_queries);
    if (processor->rc < 0)
        return processor->rc;
    return config_read_pixels(nested ? &image : preprocessor, c->vision.image_size, &c->pixels);
}

static int parse_object(const struct config_text *text, json_t **ret, struct err *err)
{
    json_t *root;
    int rc;

    *ret = NULL;
    if (!text->name)
        return 0;
    rc = json_parse_text(text->data, text->size_bytes, MAX_FILE_BYTES, text->name, &root, err);
    if (rc < 0)
        return rc;
    if (!json_is_object(root)) {
        rc = err_set(err, -EINVAL, "%s: is %s, expected an object", text->name, json_type_text(root));
        json_decref(root);
        return rc;
    }
    *ret = root;
    return 0;
}

int config_parse(const struct config_text texts[CONFIG_N_FILES], struct config *ret, struct err *err)
{
    struct json_reader r[CONFIG_N_FILES];
    json_t *roots[CONFIG_N_FILES] = {NULL};
    struct config c = {0};
    int rc = 0;

    for (int i = 0; i < CONFIG_N_FILES && rc == 0; i++) {
        rc = parse_object(&texts[i], &roots[i], err);
        r[i] = (struct json_reader){
            .file = texts[i].name ? texts[i].name : "", .section = "", .object = roots[i], .err = err};
    }
    r[CONFIG_FILE_MODEL].no_nulls = true;
    if (rc == 0)
        rc = read_config(&r[CONFIG_FILE_MODEL], &r[CONFIG_FILE_GENERATION], &c);
    if (rc == 0)
        rc = read_processor(&r[CONFIG_FILE_PROCESSOR], &r[CONFIG_FILE_PREPROCESSOR], &c);
    if (rc == 0)
        *ret = c;
    for (int i = 0; i < CONFIG_N_FILES; i++)
        json_decref(roots[i]);
    return rc;
}

static bool names_image_processor(const struct config_text *processor)
{
    bool found = false;
    json_t *root = NULL;

    if (parse_object(processor, &root, NULL) == 0)
        found = json_is_object(json_object_get(root, "image_processor"));
    json_decref(root);
    return found;
}

int config_load(const char *dir, struct config *ret, struct err *err)
{
    static const enum checkpoint_file files[CONFIG_N_FILES] = {
        [CONFIG_FILE_MODEL] = CHECKPOINT_CONFIG,
        [CONFIG_FILE_GENERATION] = CHECKPOINT_GENERATION,
        [CONFIG_FILE_PROCESSOR] = CHECKPOINT_PROCESSOR,
        [CONFIG_FILE_PREPROCESSOR] = CHECKPOINT_PREPROCESSOR,
    };
    struct config_text texts[CONFIG_N_FILES] = {{0}};
    struct buf bufs[CONFIG_N_FILES] = {{0}};
    char paths[CONFIG_N_FILES][PATH_MAX];
    int rc = 0;

    for (int i = 0; i < CONFIG_N_FILES && rc == 0; i++) {
        bool needed = i == CONFIG_FILE_MODEL ||
                      (i == CONFIG_FILE_PREPROCESSOR && !names_image_processor(&texts[CONFIG_FILE_PROCESSOR]));

        if (snprintf(paths[i], sizeof(paths[i]), "%s/%s", dir, checkpoint_file_name(files[i])) >=
            (int)sizeof(paths[i])) {
            rc = err_set(err, -ENAMETOOLONG, "%s: path too long", dir);
            break;
        }
        rc = file_read(paths[i], MAX_FILE_BYTES, &bufs[i], err);
        if (rc == 0)
            texts[i] = (struct config_text){paths[i], bufs[i].data, bufs[i].size_bytes};
        else if (rc == -ENOENT && !needed)
            rc = 0;
        else if (rc == -ENOENT)
            rc = err_set(err, rc,
                         "%s: is missing; a checkpoint directory holds config.json, preprocessor_config.json (or "
                         "processor_config.json with image_processor), tokenizer.json and model.safetensors (or shards "
                         "with their index)",
                         paths[i]);
    }
    if (rc == 0)
        rc = config_parse(texts, ret, err);
    for (int i = 0; i < CONFIG_N_FILES; i++)
        buf_release(&bufs[i]);
    return rc;
}
