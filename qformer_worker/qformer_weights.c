#include "qformer_worker/qformer_weights.h"

static int load_output(const struct params *p, const char *name, int64_t n, int64_t k, struct qformer_output *ret)
{
    char full[PARAMS_NAME_MAX];
    int rc = params_linear(p, params_name(full, "%s.dense", name), n, k, true, &ret->dense);

    return rc < 0 ? rc : params_norm_load(p, params_name(full, "%s.LayerNorm", name), n, &ret->norm);
}

static int load_self(const struct params *p, const struct config_qformer *s, int i, struct qformer_layer *l)
{
    const int64_t e = s->width;
    char name[PARAMS_NAME_MAX];
    int rc;

    params_name(name, "qformer.encoder.layer.%d.attention.attention.", i);
    rc = params_stacked(p, name, 3, (const char *const[]){"query", "key", "value"}, e, e, true, &l->self_qkv);
    if (rc < 0)
        return rc;
    params_name(name, "qformer.encoder.layer.%d.attention.output", i);
    return load_output(p, name, e, e, &l->self_out);
}

static int load_cross(const struct params *p, const struct config_qformer *s, int i, struct qformer_layer *l)
{
    const int64_t e = s->width;
    char name[PARAMS_NAME_MAX];
    int rc;

    params_name(name, "qformer.encoder.layer.%d.crossattention.attention.query", i);
    if ((rc = params_linear(p, name, e, e, true, &l->cross_query)) < 0)
        return rc;
    params_name(name, "qformer.encoder.layer.%d.crossattention.attention.", i);
    rc = params_stacked(p, name, 2, (const char *const[]){"key", "value"}, e, s->vision_width, true, &l->cross_kv);
    if (rc < 0)
        return rc;
    params_name(name, "qformer.encoder.layer.%d.crossattention.output", i);
    return load_output(p, name, e, e, &l->cross_out);
}

/* suffix: "_query" or "" for text */
static int load_feed_forward(const struct params *p, const struct config_qformer *s, int i, const char *suffix,
                             struct qformer_feed_forward *ret)
{
    char name[PARAMS_NAME_MAX];
    int rc;

    params_name(name, "qformer.encoder.layer.%d.intermediate%s.dense", i, suffix);
    if ((rc = params_linear(p, name, s->ffn_width, s->width, true, &ret->intermediate)) < 0)
        return rc;
    params_name(name, "qformer.encoder.layer.%d.output%s", i, suffix);
    return load_output(p, name, s->width, s->ffn_width, &ret->output);
}

int qformer_layer_load(const struct params *p, const struct config_qformer *s, int i, struct qformer_layer *l)
{
    int rc = load_self(p, s, i, l);

    if (rc == 0 && i % s->cross_attention_freq == 0)
        rc = load_cross(p, s, i, l);
    if (rc == 0)
        rc = load_feed_forward(p, s, i, "_query", &l->query);
    if (rc == 0 && s->has_text)
        rc = load_feed_forward(p, s, i, "", &l->text);
    return rc;
}

static void output_free(struct ops *o, struct qformer_output *out)
{
    params_weight_free(o, &out->dense);
    params_norm_free(o, &out->norm);
}

static void feed_forward_free(struct ops *o, struct qformer_feed_forward *f)
{
    params_weight_free(o, &f->intermediate);
    output_free(o, &f->output);
}

void qformer_layer_free(struct ops *o, struct qformer_layer *l)
{
    params_weight_free(o, &l->self_qkv);
    output_free(o, &l->self_out);
    params_weight_free(o, &l->cross_query);
    params_weight_free(o, &l->cross_kv);
    output_free(o, &l->cross_out);
    feed_forward_free(o, &l->query);
    feed_forward_free(o, &l->text);
}
