#include "model/fingerprint.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Part of every fingerprint. Change the number when the meaning of the hashed data changes. */
static const char version[] = "blipline fingerprint 2";

struct hasher {
    XXH3_state_t *state;
    int rc;
};

static int begin(struct hasher *h, const char *what)
{
    h->rc = 0;
    h->state = XXH3_createState();
    if (!h->state || XXH3_128bits_reset(h->state) == XXH_ERROR) {
        XXH3_freeState(h->state);
        h->state = NULL;
        return -ENOMEM;
    }
    (void)XXH3_128bits_update(h->state, version, sizeof(version));
    (void)XXH3_128bits_update(h->state, what, strlen(what) + 1);
    return 0;
}

static void put_bytes(struct hasher *h, const void *p, size_t n)
{
    if (n && h->rc == 0 && XXH3_128bits_update(h->state, p, n) == XXH_ERROR)
        h->rc = -EIO; /* cannot happen with a valid state */
}

static void put_int(struct hasher *h, int64_t v)
{
    uint8_t le[8];

    for (int i = 0; i < 8; i++)
        le[i] = (uint8_t)((uint64_t)v >> (8 * i));
    put_bytes(h, le, sizeof(le));
}

static void put_real(struct hasher *h, double v)
{
    int64_t bits;

    memcpy(&bits, &v, sizeof(bits));
    put_int(h, bits);
}

static void put_text(struct hasher *h, const char *s)
{
    put_int(h, (int64_t)strlen(s));
    put_bytes(h, s, strlen(s));
}

static void put_fingerprint(struct hasher *h, const struct fingerprint *f)
{
    put_bytes(h, f->bytes, sizeof(f->bytes));
}

static void end(struct hasher *h, struct fingerprint *ret)
{
    XXH128_canonical_t canonical;

    if (h->state && h->rc == 0) {
        XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(h->state));
        memcpy(ret->bytes, canonical.digest, sizeof(ret->bytes));
    }
    XXH3_freeState(h->state);
    h->state = NULL;
}

/* True if a separate head equals the embedding; it is then not hashed. */
static bool repeats(const struct checkpoint *c, const struct weight_spec *s, const struct tensor *t, size_t n)
{
    struct tensor same;

    return s->same_as && checkpoint_get(c, s->same_as, s->n_dims, s->shape, &same, NULL) == 0 &&
           same.dtype == t->dtype && (same.data == t->data || memcmp(same.data, t->data, n) == 0);
}

/* Hashes the stage's tensors in order of names. */
static int put_tensors(struct hasher *h, const struct checkpoint *c, enum stage stage, struct err *err)
{
    for (size_t i = 0; i < c->weights.n_specs; i++) {
        const struct weight_spec *s = &c->weights.specs[i];
        struct tensor t;
        size_t n;
        int rc;

        if (s->stage != stage || s->kind == WEIGHT_ALIAS || s->kind == WEIGHT_UNUSED ||
            (s->kind == WEIGHT_OPTIONAL && !safetensors_find(c->tensors, s->name)))
            continue;
        rc = checkpoint_get(c, s->name, s->n_dims, s->shape, &t, err);
        if (rc == 0)
            rc = tensor_size_bytes(&t, &n);
        if (rc != 0)
            return rc;
        if (s->kind != WEIGHT_OPTIONAL || !repeats(c, s, &t, n)) {
            put_text(h, s->name);
            put_int(h, t.dtype);
            put_int(h, t.n_dims);
            for (int k = 0; k < t.n_dims; k++)
                put_int(h, t.shape[k]);
            put_bytes(h, t.data, n);
        } else {
            checkpoint_drop(c, s->same_as);
        }
        checkpoint_drop(c, s->name); /* otherwise the whole model would stay resident beside its packed copy */
    }
    return h->rc;
}

static int put_tokenizer(struct hasher *h, const struct checkpoint *c, struct err *err)
{
    struct file_map tokenizer;
    int rc = file_map(c->tokenizer_path, &tokenizer, err);

    if (rc == -ENOENT)
        return err_set(
            err, rc, "%s: is missing; download it with the checkpoint (the slow tokenizers' vocab files are not read)",
            c->tokenizer_path);

    if (rc < 0)
        return rc;
    put_int(h, (int64_t)tokenizer.size_bytes);
    put_bytes(h, tokenizer.data, tokenizer.size_bytes);
    file_unmap(&tokenizer);
    return h->rc;
}

static void put_vision(struct hasher *h, const struct config_vision *v)
{
    const int numbers[] = {v->width,      v->n_layers,   v->n_heads,  v->ffn_width,
                           v->image_size, v->patch_size, v->qkv_bias, v->n_tokens};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        put_int(h, numbers[i]);
    put_real(h, (double)v->eps);
}

int fingerprint_trunk(const struct checkpoint *c, struct fingerprint *ret, struct err *err)
{
    struct hasher h;
    int rc = begin(&h, "trunk");

    if (rc < 0)
        return err_set(err, rc, "%s: not enough memory for a fingerprint", c->dir);
    put_vision(&h, &c->config.vision);
    rc = put_tensors(&h, c, STAGE_ENCODE, err);
    h.rc = rc;
    end(&h, ret);
    return rc;
}

int fingerprint_pixels(const struct checkpoint *c, struct fingerprint *ret, struct err *err)
{
    const struct config_pixels *p = &c->config.pixels;
    struct hasher h;
    int rc = begin(&h, "pixels");

    if (rc < 0)
        return err_set(err, rc, "%s: not enough memory for a fingerprint", c->dir);
    put_text(&h, "bicubic squash");
    put_int(&h, p->size);
    put_real(&h, p->rescale);
    for (int i = 0; i < 3; i++) {
        put_real(&h, p->mean[i]);
        put_real(&h, p->std[i]);
    }
    rc = h.rc;
    end(&h, ret);
    return rc;
}

int fingerprint_qformer(const struct checkpoint *c, struct fingerprint *ret, struct err *err)
{
    const struct config_qformer *q = &c->config.qformer;
    const int numbers[] = {q->width,
                           q->n_layers,
                           q->n_heads,
                           q->ffn_width,
                           q->vision_width,
                           q->cross_attention_freq,
                           q->has_text,
                           c->config.n_queries,
                           c->config.task,
                           c->config.lm_width,
                           c->config.task == CONFIG_TASK_RETRIEVE ? c->config.embed_width : 0};
    struct hasher h;
    int rc = begin(&h, "qformer");

    if (rc < 0)
        return err_set(err, rc, "%s: not enough memory for a fingerprint", c->dir);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        put_int(&h, numbers[i]);
    put_real(&h, (double)q->eps);
    put_real(&h, (double)c->config.vision.eps); /* post_layernorm's */
    if (q->has_text)
        rc = put_tokenizer(&h, c, err);
    if (rc == 0)
        rc = put_tensors(&h, c, STAGE_QFORMER, err);
    h.rc = rc;
    end(&h, ret);
    return rc;
}

static void put_lm_numbers(struct hasher *h, const struct config *c)
{
    const struct config_opt *o = &c->opt;
    const struct config_t5 *t = &c->t5;
    const int opt[] = {o->width,      o->n_layers,      o->n_heads,     o->ffn_width,
                       o->vocab_size, o->max_positions, o->norm_before, o->final_norm};
    const int t5[] = {
        t->width,      t->n_heads,   t->head_dim,     t->ffn_width,   t->n_encoder_layers, t->n_decoder_layers,
        t->vocab_size, t->n_buckets, t->max_distance, t->scale_output};

    put_int(h, c->lm);
    if (c->lm == CONFIG_LM_OPT) {
        for (size_t i = 0; i < sizeof(opt) / sizeof(opt[0]); i++)
            put_int(h, opt[i]);
        put_real(h, (double)o->eps);
    } else {
        for (size_t i = 0; i < sizeof(t5) / sizeof(t5[0]); i++)
            put_int(h, t5[i]);
        put_real(h, (double)t->eps);
        if (t->gelu_erf)
            put_text(h, "gelu erf");
    }
    put_int(h, c->n_queries);
    put_int(h, c->image_token);
    put_int(h, c->n_eos);
    for (int i = 0; i < c->n_eos; i++)
        put_int(h, c->eos[i]);
    put_int(h, c->bos);
    put_int(h, c->pad);
    put_int(h, c->decoder_start);
}

int fingerprint_lm(const struct checkpoint *c, struct fingerprint *ret, struct err *err)
{
    struct hasher h;
    int rc;

    if (c->config.lm == CONFIG_LM_NONE)
        return err_set(err, -EINVAL, "%s: a retrieval checkpoint has no language model", c->dir);
    rc = begin(&h, "lm");
    if (rc < 0)
        return err_set(err, rc, "%s: not enough memory for a fingerprint", c->dir);
    put_lm_numbers(&h, &c->config);
    rc = put_tokenizer(&h, c, err);
    if (rc == 0)
        rc = put_tensors(&h, c, STAGE_LLM, err);
    h.rc = rc;
    end(&h, ret);
    return rc;
}

int stage_fingerprint(const struct checkpoint *c, enum stage stage, enum dtype dtype, struct fingerprint *ret,
                      struct err *err)
{
    struct fingerprint a, b = {{0}}, f = {{0}};
    struct hasher h;
    int rc;

    if (stage != STAGE_ENCODE && stage != STAGE_QFORMER && stage != STAGE_LLM)
        return err_set(err, -EINVAL, "no such stage");
    if (!dtype_is_float(dtype_of_activations(dtype)))
        return err_set(err, -EINVAL, "no stage computes in %s", dtype_name(dtype));
    if (stage == STAGE_LLM)
        rc = fingerprint_lm(c, &a, err);
    else
        rc = stage == STAGE_ENCODE ? fingerprint_trunk(c, &a, err) : fingerprint_qformer(c, &a, err);
    if (rc == 0 && stage == STAGE_ENCODE)
        rc = fingerprint_pixels(c, &b, err);
    if (rc < 0)
        return rc;
    rc = begin(&h, stage == STAGE_ENCODE ? "encoder" : stage_name(stage)); /* names that existing stores contain */
    if (rc < 0)
        return err_set(err, rc, "%s: not enough memory for a fingerprint", c->dir);
    put_fingerprint(&h, &a);
    if (stage == STAGE_ENCODE)
        put_fingerprint(&h, &b);
    else if (stage == STAGE_QFORMER)
        put_vision(&h, &c->config.vision);
    put_int(&h, dtype);
    rc = h.rc;
    end(&h, &f);
    if (rc == 0)
        *ret = f;
    return rc;
}

int fingerprint_with_settings(struct fingerprint *f, unsigned settings)
{
    struct hasher h;
    int rc;

    if (!settings)
        return 0;
    rc = begin(&h, "settings");
    if (rc < 0)
        return rc;
    put_fingerprint(&h, f);
    put_int(&h, settings);
    rc = h.rc;
    end(&h, f);
    return rc;
}
