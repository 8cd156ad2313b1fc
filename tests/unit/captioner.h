/* captioner.h - for tests: all models in one process, from an image file to projected queries and captions.
 *
 * Errors: a call that fails ends the test with the reason. */
#ifndef BLIPLINE_TESTS_UNIT_CAPTIONER_H
#define BLIPLINE_TESTS_UNIT_CAPTIONER_H

#include "llm_worker/generate.h"
#include "llm_worker/lm.h"
#include "tests/unit/viewer.h"

struct captioner {
    struct ops *o;
    struct checkpoint *c;
    struct tokenizer *tokenizer;
    struct vit *vit;
    struct qformer *qformer;
    struct lm *lm;
    int max_batch;
    size_t image_bytes, trunk_len, query_len, projected_len; /* of one image */
};

/* The models of the open checkpoint. */
static inline void captioner_load(struct captioner *k, int n_sequences)
{
    struct err err = {{0}};

    CHECK_OK(vit_new(k->o, k->c, k->max_batch, &k->vit, &err), err);
    CHECK_OK(qformer_new(k->o, k->c, k->max_batch, &k->qformer, &err), err);
    CHECK_OK(lm_open(k->o, k->c,
                     &(struct lm_limits){.n_sequences = n_sequences, .n_kv_rows = 96 * n_sequences, .max_rows = 256},
                     &k->lm, &err),
             err);
    k->image_bytes = (size_t)vit_image_size(k->vit) * (size_t)vit_image_size(k->vit) * 3;
    k->trunk_len = (size_t)vit_n_tokens(k->vit) * (size_t)vit_width(k->vit);
    k->query_len = (size_t)qformer_n_queries(k->qformer) * (size_t)qformer_width(k->qformer);
    k->projected_len = (size_t)qformer_n_queries(k->qformer) * (size_t)qformer_language_width(k->qformer);
}

static inline void captioner_unload(struct captioner *k)
{
    lm_free(k->lm);
    qformer_free(k->qformer);
    vit_free(k->vit);
}

/* Takes `o`. */
static inline void captioner_open(struct captioner *k, const char *dir, struct ops *o, int max_batch, int n_sequences)
{
    struct err err = {{0}};

    *k = (struct captioner){.o = o, .max_batch = max_batch};
    CHECK_OK(checkpoint_open(dir, &k->c, &err), err);
    CHECK_OK(checkpoint_check(k->c, STAGES_ALL, &err), err);
    CHECK_OK(tokenizer_load(k->c->tokenizer_path, &k->tokenizer, &err), err);
    captioner_load(k, n_sequences);
}

static inline void captioner_close(struct captioner *k)
{
    captioner_unload(k);
    tokenizer_free(k->tokenizer);
    checkpoint_free(k->c);
    ops_free(k->o);
}

/* A picture file -> rgb [S, S, 3] */
static inline void captioner_pixels(const struct captioner *k, const char *path, uint8_t *rgb)
{
    viewer_pixels(k->vit, path, rgb);
}

/* rgb [n, S, S, 3] -> trunk [n, P, C], queries [n, Q, E], projected [n, Q, L], in one batch each */
static inline void captioner_look(struct captioner *k, int n, const uint8_t *rgb, float *trunk, float *queries,
                                  float *projected)
{
    const void *device = NULL;

    assert_int_equal(vit_forward(k->vit, n, rgb, &device), 0);
    assert_int_equal(k->o->f->download(k->o, trunk, DTYPE_F32, device, k->o->act_dtype, (size_t)n * k->trunk_len), 0);
    assert_int_equal(
        qformer_forward(k->qformer, n, trunk, false, &(struct qformer_out){.queries = queries, .projected = projected}),
        0);
}

/* NULL: no prompt, which is the bos id alone. Release with token_ids_release. */
static inline struct token_ids captioner_prompt(const struct captioner *k, const char *text)
{
    struct token_ids ids = {0};
    struct err err = {{0}};

    if (text)
        CHECK_OK(tokenizer_encode(k->tokenizer, text, strlen(text), true, &ids, &err), err);
    else
        assert_int_equal(token_ids_append(&ids, k->c->config.bos), 0);
    return ids;
}

static inline void captioner_submit(const struct captioner *k, struct generate *g, uint64_t tag, const float *rows,
                                    const struct token_ids *prompt, const struct generation_options *options)
{
    struct generate_request r = {
        .tag = tag,
        .image_rows = rows,
        .image_dtype = DTYPE_F32,
        .n_image_rows = qformer_n_queries(k->qformer),
        .prompt = prompt->ids,
        .n_prompt = (int)prompt->n,
        .options = *options,
        .eos = k->c->config.eos,
        .n_eos = k->c->config.n_eos,
    };
    struct err err = {{0}};

    CHECK_OK(generate_submit(g, &r, &err), err);
}

static inline void *captioner_floats(size_t n)
{
    return viewer_floats(n);
}

#endif
