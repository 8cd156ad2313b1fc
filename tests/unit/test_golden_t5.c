/* tests/golden/t5_a and t5_c (gates with the erf form of gelu) from picture files to the logits of the first new token:
 * every stage's tensors. */
#include "tests/unit/captioner.h"

#include "model/golden.h"
#include "tests/unit/lm_rig.h"
#include "tests/unit/qformer_probe.h"

enum { N_IMAGES = 4, N_PROMPTS = 3 };

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

/* A pass for each prompt, with all pictures. */
static void read_on(const struct captioner *k, const struct golden *g, const float *projected, double limit)
{
    static const char *const prompts[N_PROMPTS] = {NULL, "a photo of", "Question: how many objects are there? Answer:"};
    static const char *const names[N_PROMPTS] = {"first_logits_none", "first_logits_photo", "first_logits_question"};
    const int n_queries = qformer_n_queries(k->qformer);
    const size_t vocab = (size_t)lm_vocab_size(k->lm);
    float *logits = captioner_floats(N_IMAGES * vocab);

    for (int p = 0; p < N_PROMPTS; p++) {
        struct token_ids ids = captioner_prompt(k, prompts[p]);
        const int n_rows = lm_prefix_rows(k->lm, n_queries, (int)ids.n) + lm_start_rows(k->lm);
        struct lm_start starts[N_IMAGES];
        const float *device = NULL;

        for (int i = 0; i < N_IMAGES; i++)
            starts[i] = (struct lm_start){.image_rows = projected + (size_t)i * k->projected_len,
                                          .image_dtype = DTYPE_F32,
                                          .n_image_rows = n_queries,
                                          .ids = ids.ids,
                                          .n_ids = (int)ids.n,
                                          .prefix_row = i * n_rows,
                                          .first_row = (i + 1) * n_rows - 1};
        assert_int_equal(lm_forward(k->lm, N_IMAGES, starts, 0, NULL, &device), 0);
        assert_int_equal(k->o->f->download(k->o, logits, DTYPE_F32, device, DTYPE_F32, N_IMAGES * vocab), 0);
        check(g, names[p], 2, (const int64_t[]){N_IMAGES, (int64_t)vocab}, logits, limit);
        token_ids_release(&ids);
    }
    free(logits);
}

static void check_every_stage(const char *dir, double logits_limit)
{
    struct err err = {{0}};
    struct golden *g = NULL;
    struct captioner k;
    float *projected;

    captioner_open(&k, dir, lm_rig_ops("cpu"), N_IMAGES, N_PROMPTS * N_IMAGES);
    CHECK_OK(golden_open(dir, &g, &err), err);
    projected = captioner_floats(N_IMAGES * k.projected_len);
    look(&k, g, projected);
    read_on(&k, g, projected, logits_limit);
    free(projected);
    golden_free(g);
    captioner_close(&k);
}

static void test_golden_t5_every_stage_matches_the_reference(void **state)
{
    (void)state;
    check_every_stage("tests/golden/t5_a", GOLDEN_LIMIT_T5_LOGITS);
}

static void test_golden_t5_with_erf_gates_every_stage_matches_the_reference(void **state)
{
    (void)state;
    check_every_stage("tests/golden/t5_c", 1e-4); /* the tanh form is 2.4e-4 off */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_t5_every_stage_matches_the_reference),
        cmocka_unit_test(test_golden_t5_with_erf_gates_every_stage_matches_the_reference),
    };

    return cmocka_run_group_tests_name("golden_t5", tests, NULL, NULL);
}
