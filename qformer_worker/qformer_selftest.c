#include "qformer_worker/qformer_selftest.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "model/golden_tokenizer.h"
#include "model/config_tokenizer.h"
#include "qformer_worker/qformer.h"
#include "worker/selftest.h"

enum { SELFTEST_MAX_TEXTS = 256 };

struct selftest {
    struct golden *g;
    struct ops *o;
    struct qformer *q;
    struct tokenizer *tokenizer; /* this and the texts: retrieval checkpoints only */
    struct token_ids ids;
    int32_t start[SELFTEST_MAX_TEXTS + 1];
    int n_texts;
    int n_images;    /* images with features */
    float *features; /* [n_images, P, C] golden, after post_layernorm: the encoder's self-test covers that norm */
    struct err *err;
};

static int report(const struct selftest *t, const char *stage, int n_dims, const int64_t *shape, const float *got)
{
    float *want = NULL;
    int rc = golden_first_floats(t->g, stage, n_dims, shape, &want, t->err);

    if (rc == 0)
        rc = golden_report_tensor(t->g, stage, n_dims, shape, got, want, t->err);
    free(want);
    return rc;
}

static float *floats(int64_t n)
{
    return calloc((size_t)n + 1, sizeof(float));
}

/* -- with a language model -- */

static int test_captioner(const struct selftest *t)
{
    const int64_t n = t->n_images, q = qformer_n_queries(t->q), e = qformer_width(t->q);
    const int64_t l = qformer_language_width(t->q);
    struct qformer_out out = {.queries = floats(n * q * e), .projected = floats(n * q * l)};
    float *projected = floats(n * q * l);
    int rc =
        out.queries && out.projected && projected ? 0 : err_set(t->err, -ENOMEM, "no memory for the query outputs");

    if (rc == 0 && (rc = qformer_forward(t->q, (int)n, t->features, true, &out)) < 0)
        err_set(t->err, rc, "the Q-Former failed");
    if (rc == 0)
        rc = report(t, "qformer_last_hidden_state", 3, (const int64_t[]){n, q, e}, out.queries);
    if (rc == 0) {
        tensor_to_f32(projected, t->o->act_dtype, out.projected, (size_t)(n * q * l));
        rc = report(t, "language_projection", 3, (const int64_t[]){n, q, l}, projected);
    }
    free(projected);
    free(out.queries);
    free(out.projected);
    return rc;
}

/* -- with text -- */

static int load_texts(struct selftest *t)
{
    const json_t *texts = json_object_get(t->g->expected, "texts");
    int rc = 0;

    t->n_texts = (int)json_array_size(texts);
    if (json_array_size(texts) < 1 || json_array_size(texts) > SELFTEST_MAX_TEXTS)
        return err_set(t->err, -EINVAL, "%s/expected.json: \"texts\" must hold 1 to %d texts", t->g->dir,
                       SELFTEST_MAX_TEXTS);
    for (int i = 0; rc == 0 && i < t->n_texts; i++) {
        const json_t *text = json_array_get(texts, (size_t)i);

        if (!json_is_string(text))
            return err_set(t->err, -EINVAL, "%s/expected.json: text %d is no string", t->g->dir, i);
        rc = tokenizer_encode(t->tokenizer, json_string_value(text), json_string_length(text), true, &t->ids, t->err);
        if (rc == 0 && t->ids.n - (size_t)t->start[i] > (size_t)qformer_max_text(t->q))
            rc = err_set(t->err, -E2BIG, "%s/expected.json: text %d has %zu tokens, the Q-Former reads %d", t->g->dir,
                         i, t->ids.n - (size_t)t->start[i], qformer_max_text(t->q));
        t->start[i + 1] = (int32_t)t->ids.n;
    }
    return rc < 0 ? rc : config_tokenizer_check(&t->g->checkpoint->config, t->ids.ids, t->ids.n, t->err);
}

/* itc_similarity [n, texts] of golden embeddings' own kind: the largest product over the queries. */
static void similarities(const struct selftest *t, const float *itc, const float *text, float *ret)
{
    const int q = qformer_n_queries(t->q), d = qformer_embed_width(t->q);

    for (int i = 0; i < t->n_images; i++)
        for (int k = 0; k < t->n_texts; k++)
            *ret++ = qformer_similarity(itc + (int64_t)i * q * d, text + (int64_t)k * d, q, d);
}

static int test_contrast(const struct selftest *t)
{
    const int64_t n = t->n_images, q = qformer_n_queries(t->q), e = qformer_width(t->q);
    const int64_t d = qformer_embed_width(t->q), k = t->n_texts;
    const struct qformer_texts texts = {.n = t->n_texts, .ids = t->ids.ids, .start = t->start};
    struct qformer_out out = {.queries = floats(n * q * e), .itc = floats(n * q * d)};
    float *text = floats(k * d), *similarity = floats(n * k);
    int rc = out.queries && out.itc && text && similarity ? 0 : err_set(t->err, -ENOMEM, "no memory for embeddings");

    if (rc == 0 && ((rc = qformer_forward(t->q, (int)n, t->features, true, &out)) < 0 ||
                    (rc = qformer_text(t->q, &texts, text)) < 0))
        err_set(t->err, rc, "the Q-Former failed");
    if (rc == 0)
        rc = report(t, "qformer_last_hidden_state", 3, (const int64_t[]){n, q, e}, out.queries);
    if (rc == 0)
        rc = report(t, "itc_image_embeds", 3, (const int64_t[]){n, q, d}, out.itc);
    if (rc == 0)
        rc = report(t, "itc_text_embeds", 2, (const int64_t[]){k, d}, text);
    if (rc == 0) {
        similarities(t, out.itc, text, similarity);
        rc = report(t, "itc_similarity", 2, (const int64_t[]){n, k}, similarity);
    }
    free(similarity);
    free(text);
    free(out.itc);
    free(out.queries);
    return rc;
}

/* The texts once for each of n images. */
static int repeat_texts(const struct selftest *t, int n, int32_t *ids, int32_t *start, int32_t *image)
{
    int at = 0;

    for (int i = 0; i < n; i++) {
        for (int k = 0; k < t->n_texts; k++) {
            image[i * t->n_texts + k] = i;
            start[i * t->n_texts + k] = at + t->start[k];
        }
        for (size_t k = 0; k < t->ids.n; k++)
            ids[at++] = t->ids.ids[k];
    }
    start[n * t->n_texts] = at;
    return n * t->n_texts;
}

static int test_match(const struct selftest *t)
{
    const int64_t n = t->n_images, k = t->n_texts;
    int32_t *ids = calloc((size_t)n * t->ids.n, sizeof(*ids)), *start = calloc((size_t)(n * k + 1), sizeof(*start));
    int32_t *image = calloc((size_t)(n * k), sizeof(*image));
    float *logits = floats(n * k * 2);
    struct qformer_texts texts = {.ids = ids, .start = start};
    int rc = ids && start && image && logits ? 0 : err_set(t->err, -ENOMEM, "no memory for pairs");

    if (rc == 0) {
        texts.n = repeat_texts(t, (int)n, ids, start, image);
        if ((rc = qformer_load(t->q, (int)n, t->features, true)) < 0 ||
            (rc = qformer_match(t->q, &texts, image, logits)) < 0)
            err_set(t->err, rc, "the Q-Former failed");
    }
    if (rc == 0)
        rc = report(t, "itm_logits", 3, (const int64_t[]){n, k, 2}, logits);
    free(logits);
    free(image);
    free(start);
    free(ids);
    return rc;
}

static int test_retrieval(struct selftest *t)
{
    int rc = config_tokenizer_load(&t->g->checkpoint->config, t->g->checkpoint->tokenizer_path, &t->tokenizer, t->err);

    if (rc == 0)
        rc = golden_report_tokenizer(t->g, t->tokenizer, t->err);
    if (rc == 0)
        rc = load_texts(t);
    if (rc == 0)
        rc = test_contrast(t);
    return rc < 0 ? rc : test_match(t);
}

int qformer_selftest(const char *golden_dir, const struct selftest_conf *conf, FILE *out, struct err *err)
{
    struct selftest t = {.err = err};
    int rc = selftest_open(golden_dir, conf, &t.g, &t.o, err);

    if (rc == 0) {
        t.n_images = golden_n_pictures(t.g, "vision_last_hidden_state", err);
        rc = t.n_images < 0 ? t.n_images : 0;
    }
    if (rc == 0) {
        const struct config *c = &t.g->checkpoint->config;
        const int64_t shape[] = {t.n_images, c->vision.n_tokens, c->vision.width};

        rc = golden_floats(t.g, "vision_last_hidden_state", 3, shape, &t.features, err);
    }
    if (rc == 0)
        rc = qformer_new(t.o, t.g->checkpoint, t.n_images, &t.q, err);
    if (rc == 0)
        rc = qformer_max_text(t.q) > 0 ? test_retrieval(&t) : test_captioner(&t);
    if (rc == 0)
        rc = golden_print(t.g, out, err);
    free(t.features);
    token_ids_release(&t.ids);
    tokenizer_free(t.tokenizer);
    qformer_free(t.q);
    ops_free(t.o);
    golden_free(t.g);
    return rc;
}
