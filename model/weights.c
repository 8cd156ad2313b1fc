#include "model/weights.h"

#include "base/grow.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The list under construction; the first failure stays in rc. */
struct builder {
    struct weights *list;
    size_t capacity;
    enum stage stage;
    enum weight_kind kind;
    const char *same_as;
    int rc;
};

static void add(struct builder *b, int n_dims, const int64_t *shape, const char *name)
{
    struct weight_spec *s;

    if (b->rc < 0)
        return;
    b->rc = grow_array(&b->list->specs, &b->capacity, b->list->n_specs, sizeof(*b->list->specs), 512);
    if (b->rc < 0)
        return;
    s = &b->list->specs[b->list->n_specs];
    *s = (struct weight_spec){
        .name = strdup(name), .same_as = b->same_as, .kind = b->kind, .stage = b->stage, .n_dims = n_dims};
    for (int i = 0; i < n_dims; i++)
        s->shape[i] = shape[i];
    if (s->name)
        b->list->n_specs++;
    else
        b->rc = -ENOMEM;
}

static void add_1d(struct builder *b, int64_t n, const char *prefix, const char *name)
{
    char full[256];

    (void)snprintf(full, sizeof(full), "%s%s", prefix, name);
    add(b, 1, (int64_t[]){n}, full);
}

static void add_2d(struct builder *b, int64_t rows, int64_t cols, const char *prefix, const char *name)
{
    char full[256];

    (void)snprintf(full, sizeof(full), "%s%s", prefix, name);
    add(b, 2, (int64_t[]){rows, cols}, full);
}

/* prefix + name + ".weight" [n, k] and ".bias" [n] */
static void add_linear(struct builder *b, int64_t n, int64_t k, bool bias, const char *prefix, const char *name)
{
    char full[256];

    (void)snprintf(full, sizeof(full), "%s%s.weight", prefix, name);
    add(b, 2, (int64_t[]){n, k}, full);
    (void)snprintf(full, sizeof(full), "%s%s.bias", prefix, name);
    if (bias)
        add(b, 1, (int64_t[]){n}, full);
}

static void add_norm(struct builder *b, int64_t width, const char *prefix, const char *name)
{
    char full[256];

    (void)snprintf(full, sizeof(full), "%s%s.weight", prefix, name);
    add(b, 1, (int64_t[]){width}, full);
    (void)snprintf(full, sizeof(full), "%s%s.bias", prefix, name);
    add(b, 1, (int64_t[]){width}, full);
}

static void add_vision(struct builder *b, const struct config_vision *v)
{
    char at[128];
    int64_t c = v->width, p = v->patch_size;

    b->stage = STAGE_ENCODE;
    add(b, 3, (int64_t[]){1, 1, c}, "vision_model.embeddings.class_embedding");
    add(b, 3, (int64_t[]){1, v->n_tokens, c}, "vision_model.embeddings.position_embedding");
    add(b, 4, (int64_t[]){c, 3, p, p}, "vision_model.embeddings.patch_embedding.weight");
    add(b, 1, (int64_t[]){c}, "vision_model.embeddings.patch_embedding.bias");
    for (int i = 0; i < v->n_layers; i++) {
        (void)snprintf(at, sizeof(at), "vision_model.encoder.layers.%d.", i);
        add_norm(b, c, at, "layer_norm1");
        add_linear(b, 3 * c, c, v->qkv_bias, at, "self_attn.qkv");
        add_linear(b, c, c, true, at, "self_attn.projection");
        add_norm(b, c, at, "layer_norm2");
        add_linear(b, v->ffn_width, c, true, at, "mlp.fc1");
        add_linear(b, c, v->ffn_width, true, at, "mlp.fc2");
    }
    b->stage = STAGE_QFORMER; /* that norm is trained per checkpoint */
    add_norm(b, c, "vision_model.", "post_layernorm");
}

static void add_bert_attention(struct builder *b, int64_t width, int64_t kv_width, const char *layer, const char *name)
{
    char at[160];

    (void)snprintf(at, sizeof(at), "%s%s.", layer, name);
    add_linear(b, width, width, true, at, "attention.query");
    add_linear(b, width, kv_width, true, at, "attention.key");
    add_linear(b, width, kv_width, true, at, "attention.value");
    add_linear(b, width, width, true, at, "output.dense");
    add_norm(b, width, at, "output.LayerNorm");
}

static void add_qformer(struct builder *b, const struct config *c)
{
    const struct config_qformer *q = &c->qformer;
    char at[128];
    int64_t e = q->width;

    b->stage = STAGE_QFORMER;
    add(b, 3, (int64_t[]){1, c->n_queries, e}, "query_tokens");
    add_norm(b, e, "qformer.", "layernorm");
    for (int i = 0; i < q->n_layers; i++) {
        (void)snprintf(at, sizeof(at), "qformer.encoder.layer.%d.", i);
        add_bert_attention(b, e, e, at, "attention");
        if (i % q->cross_attention_freq == 0)
            add_bert_attention(b, e, q->vision_width, at, "crossattention");
        add_linear(b, q->ffn_width, e, true, at, "intermediate_query.dense");
        add_linear(b, e, q->ffn_width, true, at, "output_query.dense");
        add_norm(b, e, at, "output_query.LayerNorm");
        if (!q->has_text)
            continue;
        add_linear(b, q->ffn_width, e, true, at, "intermediate.dense");
        add_linear(b, e, q->ffn_width, true, at, "output.dense");
        add_norm(b, e, at, "output.LayerNorm");
    }
    if (c->lm_width)
        add_linear(b, c->lm_width, e, true, "", "language_projection");
    if (!q->has_text)
        return;
    add_2d(b, q->vocab_size, e, "embeddings.", "word_embeddings.weight");
    add_2d(b, q->max_positions, e, "embeddings.", "position_embeddings.weight");
    add_linear(b, c->embed_width, e, true, "", "vision_projection");
    add_linear(b, c->embed_width, e, true, "", "text_projection");
    add_linear(b, 2, e, true, "", "itm_head");
    b->kind = WEIGHT_UNUSED;
    add_2d(b, 1, q->max_positions, "embeddings.", "position_ids");
    b->kind = WEIGHT_REQUIRED;
}

static void add_opt(struct builder *b, const struct config_opt *o)
{
    static const char stem[] = "language_model.model.decoder.", embed[] = "embed_tokens.weight";
    char at[128];
    int64_t l = o->width;

    b->stage = STAGE_LLM;
    add_2d(b, o->vocab_size, l, stem, embed);
    add_2d(b, o->max_positions + 2, l, stem, "embed_positions.weight");
    if (o->final_norm)
        add_norm(b, l, stem, "final_layer_norm");
    for (int i = 0; i < o->n_layers; i++) {
        (void)snprintf(at, sizeof(at), "%slayers.%d.", stem, i);
        add_linear(b, l, l, true, at, "self_attn.q_proj");
        add_linear(b, l, l, true, at, "self_attn.k_proj");
        add_linear(b, l, l, true, at, "self_attn.v_proj");
        add_linear(b, l, l, true, at, "self_attn.out_proj");
        add_norm(b, l, at, "self_attn_layer_norm");
        add_linear(b, o->ffn_width, l, true, at, "fc1");
        add_linear(b, l, o->ffn_width, true, at, "fc2");
        add_norm(b, l, at, "final_layer_norm");
    }
    b->kind = o->tied ? WEIGHT_OPTIONAL : WEIGHT_REQUIRED;
    b->same_as = o->tied ? "language_model.model.decoder.embed_tokens.weight" : NULL;
    add_2d(b, o->vocab_size, l, "language_model.", "lm_head.weight");
    b->kind = WEIGHT_REQUIRED;
    b->same_as = NULL;
}

static void add_t5_attention(struct builder *b, const struct config_t5 *t, const char *block, int layer,
                             const char *name, bool relative)
{
    int64_t inner = (int64_t)t->n_heads * t->head_dim, l = t->width;
    char at[128];

    (void)snprintf(at, sizeof(at), "%slayer.%d.", block, layer);
    add_1d(b, l, at, "layer_norm.weight");
    (void)snprintf(at, sizeof(at), "%slayer.%d.%s.", block, layer, name);
    add_linear(b, inner, l, false, at, "q");
    add_linear(b, inner, l, false, at, "k");
    add_linear(b, inner, l, false, at, "v");
    add_linear(b, l, inner, false, at, "o");
    if (relative)
        add_2d(b, t->n_buckets, t->n_heads, at, "relative_attention_bias.weight");
}

static void add_t5_stack(struct builder *b, const struct config_t5 *t, const char *stack, int n_blocks, bool decoder)
{
    char at[96], layer[128];

    for (int i = 0; i < n_blocks; i++) {
        (void)snprintf(at, sizeof(at), "language_model.%s.block.%d.", stack, i);
        add_t5_attention(b, t, at, 0, "SelfAttention", i == 0);
        if (decoder)
            add_t5_attention(b, t, at, 1, "EncDecAttention", false);
        (void)snprintf(layer, sizeof(layer), "%slayer.%d.", at, decoder ? 2 : 1);
        add_1d(b, t->width, layer, "layer_norm.weight");
        add_linear(b, t->ffn_width, t->width, false, layer, "DenseReluDense.wi_0");
        add_linear(b, t->ffn_width, t->width, false, layer, "DenseReluDense.wi_1");
        add_linear(b, t->width, t->ffn_width, false, layer, "DenseReluDense.wo");
    }
    (void)snprintf(at, sizeof(at), "language_model.%s.", stack);
    add_1d(b, t->width, at, "final_layer_norm.weight");
}

static void add_t5(struct builder *b, const struct config_t5 *t)
{
    static const char lm[] = "language_model.";

    b->stage = STAGE_LLM;
    add_2d(b, t->vocab_size, t->width, lm, "shared.weight");
    add_t5_stack(b, t, "encoder", t->n_encoder_layers, false);
    add_t5_stack(b, t, "decoder", t->n_decoder_layers, true);
    b->same_as = "language_model.shared.weight";
    b->kind = WEIGHT_OPTIONAL;
    add_2d(b, t->vocab_size, t->width, lm, "lm_head.weight");
    b->kind = WEIGHT_ALIAS;
    add_2d(b, t->vocab_size, t->width, lm, "encoder.embed_tokens.weight");
    add_2d(b, t->vocab_size, t->width, lm, "decoder.embed_tokens.weight");
    b->kind = WEIGHT_UNUSED; /* an unused leftover in the published T5 files */
    b->same_as = NULL;
    add_2d(b, t->n_buckets, t->n_heads, lm, "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight");
    b->kind = WEIGHT_REQUIRED;
}

static int by_name(const void *a, const void *b)
{
    const struct weight_spec *x = a, *y = b;

    return strcmp(x->name, y->name);
}

int weights_init(struct weights *w, const struct config *config)
{
    struct weights list = {0};
    struct builder b = {.list = &list};

    add_vision(&b, &config->vision);
    add_qformer(&b, config);
    if (config->lm == CONFIG_LM_OPT)
        add_opt(&b, &config->opt);
    else if (config->lm == CONFIG_LM_T5)
        add_t5(&b, &config->t5);
    if (b.rc < 0) {
        weights_release(&list);
        return b.rc;
    }
    qsort(list.specs, list.n_specs, sizeof(*list.specs), by_name);
    *w = list;
    return 0;
}

void weights_release(struct weights *w)
{
    for (size_t i = 0; i < w->n_specs; i++)
        free(w->specs[i].name);
    free(w->specs);
    *w = (struct weights){0};
}

const struct weight_spec *weights_find(const struct weights *w, const char *name)
{
    struct weight_spec key = {.name = (char *)(uintptr_t)name};

    return w->n_specs ? bsearch(&key, w->specs, w->n_specs, sizeof(key), by_name) : NULL;
}
