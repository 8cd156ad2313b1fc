/* The whole chain against the reference on tests/golden/opt_a: every stage's tensors, greedy ids, and that neither
 * depends on what else is in a batch. */
#include "tests/unit/captioner.h"
#include "tests/unit/fixture.h"

#include <jansson.h>
#include <stdio.h>

#include "model/golden.h"
#include "tests/unit/qformer_probe.h"

#define GOLDEN_DIR "tests/golden/opt_a"

enum { N_IMAGES = 4, MAX_NEW = 14, N_PROMPTS = 3 };

static const char *const prompts[N_PROMPTS] = {NULL, "a photo of", "Question: how many objects are there? Answer:"};
static const char *const logits_names[N_PROMPTS] = {"first_logits_none", "first_logits_photo", "first_logits_question"};

struct fixture {
    struct captioner k;
    struct golden *g;
    uint8_t *rgb;
    float *trunk, *queries, *projected;
};

static void set_up(struct fixture *f, struct ops *o)
{
    struct err err = {{0}};
    char path[4096];

    captioner_open(&f->k, GOLDEN_DIR, o, N_IMAGES, 3 * N_IMAGES);
    CHECK_OK(golden_open(GOLDEN_DIR, &f->g, &err), err);
    assert_int_equal(f->g->n_images, N_IMAGES);
    f->rgb = malloc(N_IMAGES * f->k.image_bytes);
    assert_non_null(f->rgb);
    for (int i = 0; i < N_IMAGES; i++) {
        CHECK_OK(golden_image_path(f->g, i, path, sizeof(path), &err), err);
        captioner_pixels(&f->k, path, f->rgb + (size_t)i * f->k.image_bytes);
    }
    f->trunk = captioner_floats(N_IMAGES * f->k.trunk_len);
    f->queries = captioner_floats(N_IMAGES * f->k.query_len);
    f->projected = captioner_floats(N_IMAGES * f->k.projected_len);
    captioner_look(&f->k, N_IMAGES, f->rgb, f->trunk, f->queries, f->projected);
}

static int set_up_cpu(void **state)
{
    static struct fixture f;
    struct ops *o = NULL;
    struct err err = {{0}};

    CHECK_OK(ops_cpu_new(2, DTYPE_F32, fixture_cpu_isa(), &o, &err), err);
    set_up(&f, o);
    *state = &f;
    return 0;
}

static int set_up_ref(void **state)
{
    static struct fixture f;
    struct ops *o = NULL;
    struct err err = {{0}};

    CHECK_OK(ops_ref_new(&o, &err), err);
    set_up(&f, o);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    free(f->rgb);
    free(f->trunk);
    free(f->queries);
    free(f->projected);
    golden_free(f->g);
    captioner_close(&f->k);
    return 0;
}

static void check_stage(const struct fixture *f, const char *name, int n_dims, const int64_t *shape, const float *got)
{
    struct err err = {{0}};
    float *want = NULL;
    size_t n = 1;
    double e;

    CHECK_OK(golden_floats(f->g, name, n_dims, shape, &want, &err), err);
    for (int i = 0; i < n_dims; i++)
        n *= (size_t)shape[i];
    e = golden_relative_error(got, want, n);
    print_message("%s %-26s %.2e\n", f->k.o->f->name, name, e);
    if (!(e <= GOLDEN_LIMIT))
        fail_msg("%s on %s: relative error %g, limit %g", name, f->k.o->f->name, e, GOLDEN_LIMIT);
    free(want);
}

static void test_golden_opt_features_match_the_reference(void **state)
{
    struct fixture *f = *state;
    const int64_t e = qformer_width(f->k.qformer), l = qformer_language_width(f->k.qformer);
    const int64_t q = qformer_n_queries(f->k.qformer);
    float *features = captioner_floats(N_IMAGES * f->k.trunk_len),
          *queries = captioner_floats(N_IMAGES * f->k.query_len);

    assert_int_equal(qformer_post_norm(f->k.qformer, N_IMAGES, f->trunk, features), 0);
    check_stage(f, "vision_last_hidden_state", 3,
                (const int64_t[]){N_IMAGES, vit_n_tokens(f->k.vit), vit_width(f->k.vit)}, features);
    check_stage(f, "qformer_last_hidden_state", 3, (const int64_t[]){N_IMAGES, q, e}, f->queries);
    check_stage(f, "language_projection", 3, (const int64_t[]){N_IMAGES, q, l}, f->projected);

    assert_int_equal(qformer_forward(f->k.qformer, N_IMAGES, features, true, &(struct qformer_out){.queries = queries}),
                     0);
    assert_memory_equal(queries, f->queries, N_IMAGES * f->k.query_len * sizeof(float));
    free(features);
    free(queries);
}

/* Number i of the order is image order[i] % N_IMAGES with prompt order[i] / N_IMAGES. */
static void prefill(struct fixture *f, int n, const int *order, float *ret)
{
    const size_t vocab = (size_t)lm_vocab_size(f->k.lm);
    struct token_ids ids[N_PROMPTS];
    struct lm_start starts[N_PROMPTS * N_IMAGES];
    int32_t row = 0;
    const float *logits = NULL;

    for (int p = 0; p < N_PROMPTS; p++)
        ids[p] = captioner_prompt(&f->k, prompts[p]);
    for (int i = 0; i < n; i++) {
        starts[i] = (struct lm_start){
            .prefix_row = row,
            .image_dtype = DTYPE_F32,
            .n_image_rows = qformer_n_queries(f->k.qformer),
            .image_rows = f->projected + (size_t)(order[i] % N_IMAGES) * f->k.projected_len,
            .n_ids = (int)ids[order[i] / N_IMAGES].n,
            .ids = ids[order[i] / N_IMAGES].ids,
        };
        row += lm_prefix_rows(f->k.lm, starts[i].n_image_rows, starts[i].n_ids);
    }
    assert_int_equal(lm_forward(f->k.lm, n, starts, 0, NULL, &logits), 0);
    assert_int_equal(f->k.o->f->download(f->k.o, ret, DTYPE_F32, logits, DTYPE_F32, (size_t)n * vocab), 0);
    for (int p = 0; p < N_PROMPTS; p++)
        token_ids_release(&ids[p]);
}

static void test_golden_opt_first_logits_match_the_reference(void **state)
{
    struct fixture *f = *state;
    const int64_t vocab = lm_vocab_size(f->k.lm);
    float *logits = captioner_floats((size_t)(N_IMAGES * vocab));

    for (int p = 0; p < N_PROMPTS; p++) {
        const int order[N_IMAGES] = {p * N_IMAGES, p * N_IMAGES + 1, p * N_IMAGES + 2, p * N_IMAGES + 3};

        prefill(f, N_IMAGES, order, logits);
        check_stage(f, logits_names[p], 2, (const int64_t[]){N_IMAGES, vocab}, logits);
    }
    free(logits);
}

static const json_t *expected_ids(const struct fixture *f, const char *prompt)
{
    const json_t *rows = json_object_get(f->g->expected, "generate");

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *options = json_object_get(row, "options");
        const char *text = json_string_value(json_object_get(row, "prompt"));

        if (json_object_size(options) == 1 && json_integer_value(json_object_get(options, "num_beams")) == 1 &&
            (prompt ? text && strcmp(prompt, text) == 0 : !text)) {
            assert_int_equal(json_integer_value(json_object_get(row, "max_new_tokens")), MAX_NEW);
            return json_object_get(row, "ids");
        }
    }
    fail_msg("expected.json has no greedy row for %s", prompt ? prompt : "no prompt");
    return NULL;
}

/* Every picture with every prompt at once: lengths are mixed in each pass. */
static void test_golden_opt_greedy_ids_equal_the_reference(void **state)
{
    struct fixture *f = *state;
    struct generation_options options = generation_options_default();
    struct generate *g = NULL;
    struct generate_result r;
    struct err err = {{0}};
    int n_seen = 0, rc;

    options.max_new_tokens = MAX_NEW;
    CHECK_OK(generate_new(f->k.lm, N_PROMPTS * N_IMAGES, f->k.c->config.image_token, &g, &err), err);
    for (int p = 0; p < N_PROMPTS; p++) {
        struct token_ids ids = captioner_prompt(&f->k, prompts[p]);

        for (int i = 0; i < N_IMAGES; i++)
            captioner_submit(&f->k, g, (uint64_t)(p * N_IMAGES + i), f->projected + (size_t)i * f->k.projected_len,
                             &ids, &options);
        token_ids_release(&ids);
    }
    while ((rc = generate_step(g)) > 0)
        ;
    assert_int_equal(rc, 0);
    while (generate_take(g, &r) == 1) {
        const json_t *want = json_array_get(expected_ids(f, prompts[r.tag / N_IMAGES]), r.tag % N_IMAGES);

        assert_int_equal(r.n_sequences, 1);
        assert_int_equal(r.sequences[0].n_ids, json_array_size(want));
        for (int i = 0; i < r.sequences[0].n_ids; i++)
            assert_int_equal(r.sequences[0].ids[i], json_integer_value(json_array_get(want, (size_t)i)));
        assert_true(r.sequences[0].logprob < 0);
        generate_result_release(&r);
        n_seen++;
    }
    assert_int_equal(n_seen, N_PROMPTS * N_IMAGES);
    generate_free(g);
}

/* Images one by one, and in another order with another batch size, to the bit. */
static void test_golden_opt_features_do_not_depend_on_the_batch(void **state)
{
    static const int order[N_IMAGES] = {2, 0, 3, 1}, cuts[] = {0, 1, 4};
    struct fixture *f = *state;
    struct captioner *k = &f->k;
    uint8_t *rgb = malloc(N_IMAGES * k->image_bytes);
    float *trunk = captioner_floats(N_IMAGES * k->trunk_len), *queries = captioner_floats(N_IMAGES * k->query_len);
    float *projected = captioner_floats(N_IMAGES * k->projected_len);

    assert_non_null(rgb);
    for (int i = 0; i < N_IMAGES; i++)
        memcpy(rgb + (size_t)i * k->image_bytes, f->rgb + (size_t)order[i] * k->image_bytes, k->image_bytes);
    for (int c = 0; c < 2; c++) {
        size_t at = (size_t)cuts[c];

        captioner_look(k, cuts[c + 1] - cuts[c], rgb + at * k->image_bytes, trunk + at * k->trunk_len,
                       queries + at * k->query_len, projected + at * k->projected_len);
    }
    for (int i = 0; i < N_IMAGES; i++) {
        size_t at = (size_t)i, was = (size_t)order[i];

        assert_memory_equal(trunk + at * k->trunk_len, f->trunk + was * k->trunk_len, k->trunk_len * sizeof(float));
        assert_memory_equal(queries + at * k->query_len, f->queries + was * k->query_len, k->query_len * sizeof(float));
        assert_memory_equal(projected + at * k->projected_len, f->projected + was * k->projected_len,
                            k->projected_len * sizeof(float));
    }
    free(rgb);
    free(trunk);
    free(queries);
    free(projected);
}

/* Prompts of three lengths in one pass give, to the bit, the logits that each gives alone. */
static void test_golden_opt_mixed_prompts_give_what_each_gives_alone(void **state)
{
    static const int order[] = {9, 0, 4, 10, 3, 6, 1, 11, 5, 2};
    enum { N = sizeof(order) / sizeof(order[0]) };
    struct fixture *f = *state;
    const size_t vocab = (size_t)lm_vocab_size(f->k.lm);
    float *together = captioner_floats(N * vocab), *alone = captioner_floats(vocab);

    /* 256 rows a pass: ten sequences do not fit, so two passes of five */
    prefill(f, N / 2, order, together);
    prefill(f, N / 2, order + N / 2, together + N / 2 * vocab);
    for (int i = 0; i < N; i++) {
        prefill(f, 1, order + i, alone);
        assert_memory_equal(alone, together + (size_t)i * vocab, vocab * sizeof(float));
    }
    free(together);
    free(alone);
}

int main(void)
{
    const struct CMUnitTest on_cpu[] = {
        cmocka_unit_test(test_golden_opt_features_match_the_reference),
        cmocka_unit_test(test_golden_opt_first_logits_match_the_reference),
        cmocka_unit_test(test_golden_opt_greedy_ids_equal_the_reference),
        cmocka_unit_test(test_golden_opt_features_do_not_depend_on_the_batch),
        cmocka_unit_test(test_golden_opt_mixed_prompts_give_what_each_gives_alone),
    };
    const struct CMUnitTest on_ref[] = {
        cmocka_unit_test(test_golden_opt_features_match_the_reference),
        cmocka_unit_test(test_golden_opt_first_logits_match_the_reference),
        cmocka_unit_test(test_golden_opt_greedy_ids_equal_the_reference),
        cmocka_unit_test(test_golden_opt_mixed_prompts_give_what_each_gives_alone),
    };
    int failed = cmocka_run_group_tests_name("golden_opt cpu", on_cpu, set_up_cpu, tear_down);

    return failed + cmocka_run_group_tests_name("golden_opt ref", on_ref, set_up_ref, tear_down);
}
