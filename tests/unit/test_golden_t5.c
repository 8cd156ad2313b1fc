/* tests/golden/t5_a from picture files to the logits of the first new token: every stage's tensors. */
#include "tests/unit/captioner.h"

#include "model/golden.h"
#include "tests/unit/lm_rig.h"

#define GOLDEN_DIR "tests/golden/t5_a"

enum { N_IMAGES = 4 };

static void check(const struct golden *g, const char *name, int n_dims, const int64_t *shape, const float *got,
                  double limit)
{
    struct err err = {{0}};
    float *want = NULL;
    size_t n = 1;
    double e;

    CHECK_OK(golden_floats(g, name, n_dims, shape, &want, &err), err);
    for (int i = 0; i < n_dims; i++)
        n *= (size_t)shape[i];
    e = golden_relative_error(got, want, n);
    print_message("%-26s %.2e\n", name, e);
    if (!(e <= limit))
        fail_msg("%s: relative error %g, limit %g", name, e, limit);
    free(want);
}

/* A captioner without its language model. */
static void open_eyes(struct captioner *k, struct ops *o)
{
    struct err err = {{0}};

    *k = (struct captioner){.o = o, .max_batch = N_IMAGES};
    CHECK_OK(checkpoint_open(GOLDEN_DIR, &k->c, &err), err);
    CHECK_OK(checkpoint_check(k->c, MODEL_STAGE_ALL, &err), err);
    CHECK_OK(tokenizer_load(k->c->tokenizer_path, &k->tokenizer, &err), err);
    CHECK_OK(vit_new(o, k->c, N_IMAGES, &k->vit, &err), err);
    CHECK_OK(qformer_new(o, k->c, N_IMAGES, &k->qformer, &err), err);
    k->image_bytes = (size_t)vit_image_size(k->vit) * (size_t)vit_image_size(k->vit) * 3;
    k->trunk_len = (size_t)vit_n_tokens(k->vit) * (size_t)vit_width(k->vit);
    k->query_len = (size_t)qformer_n_queries(k->qformer) * (size_t)qformer_width(k->qformer);
    k->projected_len = (size_t)qformer_n_queries(k->qformer) * (size_t)qformer_language_width(k->qformer);
}

static void look(struct captioner *k, const struct golden *g, float *projected)
{
    float *trunk = captioner_floats(N_IMAGES * k->trunk_len), *features = captioner_floats(N_IMAGES * k->trunk_len);
    float *queries = captioner_floats(N_IMAGES * k->query_len);
    uint8_t *rgb = malloc(N_IMAGES * k->image_bytes);
    struct err err = {{0}};
    char path[4096];

    assert_non_null(rgb);
    assert_int_equal(g->n_images, N_IMAGES);
    for (int i = 0; i < N_IMAGES; i++) {
        CHECK_OK(golden_image_path(g, i, path, sizeof(path), &err), err);
        captioner_pixels(k, path, rgb + (size_t)i * k->image_bytes);
    }
    captioner_look(k, N_IMAGES, rgb, trunk, queries, projected);
    assert_int_equal(qformer_post_norm(k->qformer, N_IMAGES, trunk, features), 0);
    check(g, "vision_last_hidden_state", 3, (const int64_t[]){N_IMAGES, vit_n_tokens(k->vit), vit_width(k->vit)},
          features, GOLDEN_LIMIT);
    check(g, "qformer_last_hidden_state", 3,
          (const int64_t[]){N_IMAGES, qformer_n_queries(k->qformer), qformer_width(k->qformer)}, queries, GOLDEN_LIMIT);
    check(g, "language_projection", 3,
          (const int64_t[]){N_IMAGES, qformer_n_queries(k->qformer), qformer_language_width(k->qformer)}, projected,
          GOLDEN_LIMIT);
    free(trunk);
    free(features);
    free(queries);
    free(rgb);
}

/* Three prompts for each picture, all in one pass. */
static void read_on(const struct captioner *k, const struct golden *g, const float *projected)
{
    static const char *const prompts[] = {NULL, "a photo of", "Question: how many objects are there? Answer:"};
    static const char *const names[] = {"first_logits_none", "first_logits_photo", "first_logits_question"};
    struct token_ids ids[3];
    struct lm_start starts[3 * N_IMAGES];
    struct lm_rig r;
    size_t vocab;
    float *logits;

    lm_rig_open(&r, GOLDEN_DIR, k->o);
    vocab = (size_t)lm_vocab_size(r.m);
    logits = captioner_floats(3 * N_IMAGES * vocab);
    for (int p = 0; p < 3; p++) {
        ids[p] = captioner_prompt(k, prompts[p]);
        for (int i = 0; i < N_IMAGES; i++)
            starts[p * N_IMAGES + i] = lm_rig_start(&r, projected + (size_t)i * k->projected_len,
                                                    qformer_n_queries(k->qformer), ids[p].ids, (int)ids[p].n);
    }
    lm_rig_forward(&r, 3 * N_IMAGES, starts, 0, NULL, logits);
    for (int p = 0; p < 3; p++) {
        check(g, names[p], 2, (const int64_t[]){N_IMAGES, (int64_t)vocab}, logits + (size_t)p * N_IMAGES * vocab,
              GOLDEN_LIMIT_T5_LOGITS);
        token_ids_release(&ids[p]);
    }
    free(logits);
    lm_rig_close(&r);
}

static void test_golden_t5_every_stage_matches_the_reference(void **state)
{
    struct err err = {{0}};
    struct golden *g = NULL;
    struct captioner k;
    float *projected;

    (void)state;
    open_eyes(&k, lm_rig_ops("cpu"));
    CHECK_OK(golden_open(GOLDEN_DIR, &g, &err), err);
    projected = captioner_floats(N_IMAGES * k.projected_len);
    look(&k, g, projected);
    read_on(&k, g, projected);
    free(projected);
    golden_free(g);
    captioner_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden_t5_every_stage_matches_the_reference)};

    return cmocka_run_group_tests_name("golden_t5", tests, NULL, NULL);
}
