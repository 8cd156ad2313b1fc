/* All decoding options on tests/golden: ids equal to transformers' generate, sequence scores within MODEL.md's limits.
 * Every picture, prompt and option set runs at once, so that beams and greedy sequences share each pass. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "llm_worker/generate.h"
#include "llm_worker/generate_json.h"
#include "llm_worker/lm.h"
#include "model/golden.h"
#include "tensor/ops.h"
#include "tests/unit/fixture.h"

enum { N_IMAGES = 4, MAX_IDS = 20, N_ROWS = 39 };

struct prompt {
    const char *text; /* NULL: none */
    int n;
    int32_t ids[MAX_IDS];
};

/* What the tokenizers of these checkpoints make of the prompts. */
static const struct prompt opt_prompts[] = {
    {NULL, 1, {2}},
    {"a photo of", 7, {2, 68, 301, 75, 390, 82, 303}},
    {"Question: how many objects are there? Answer:", 11, {2, 285, 29, 345, 343, 346, 328, 293, 34, 286, 29}},
};
static const struct prompt t5_prompts[] = {
    {NULL, 1, {1}},
    {"a photo of", 8, {3, 4, 374, 398, 228, 274, 20, 1}},
    {"Question: how many objects are there? Answer:",
     18,
     {4, 10, 13, 15, 12, 5, 32, 31, 33, 25, 18, 8, 4, 9, 14, 11, 5, 1}},
};

static const struct prompt *find_prompt(const struct config *c, const json_t *text)
{
    const struct prompt *prompts = c->lm == CONFIG_LM_OPT ? opt_prompts : t5_prompts;

    for (int i = 0; i < 3; i++)
        if (prompts[i].text ? json_is_string(text) && strcmp(prompts[i].text, json_string_value(text)) == 0
                            : json_is_null(text))
            return &prompts[i];
    fail_msg("a prompt of expected.json is not known here");
    return NULL;
}

static void submit(const struct golden *golden, struct generate *g, int row, const float *image_rows)
{
    const struct config *c = &golden->checkpoint->config;
    const json_t *want = json_array_get(json_object_get(golden->expected, "generate"), (size_t)row);
    const struct prompt *prompt = find_prompt(c, json_object_get(want, "prompt"));
    struct generation_options options = generation_options_default();
    struct err err = {""};

    options.max_new_tokens = (int)json_integer_value(json_object_get(want, "max_new_tokens"));
    if (generate_json_options(json_object_get(want, "options"), &options, &err) < 0)
        fail_msg("%s", err.text);
    for (int i = 0; i < N_IMAGES; i++) {
        struct generate_request r = {
            .tag = (uint64_t)(row * N_IMAGES + i),
            .image_rows = image_rows + (size_t)i * (size_t)c->n_queries * (size_t)c->lm_width,
            .image_dtype = DTYPE_F32,
            .n_image_rows = c->n_queries,
            .prompt = prompt->ids,
            .n_prompt = prompt->n,
            .options = options,
            .eos = c->eos,
            .n_eos = c->n_eos,
        };

        if (generate_submit(g, &r, &err) < 0)
            fail_msg("%s", err.text);
    }
}

static void check(const struct golden *golden, const struct generate_result *r, double limit, double *ret_worst)
{
    const json_t *want = json_array_get(json_object_get(golden->expected, "generate"), r->tag / N_IMAGES);
    const json_t *scores = json_object_get(want, "sequences_scores");
    const size_t first = (size_t)(r->tag % N_IMAGES) * (size_t)r->n_sequences;

    assert_int_equal(json_array_size(json_object_get(want, "ids")), N_IMAGES * r->n_sequences);
    for (int s = 0; s < r->n_sequences; s++) {
        const json_t *ids = json_array_get(json_object_get(want, "ids"), first + (size_t)s);
        const struct generate_sequence *got = &r->sequences[s];

        assert_int_equal(got->n_ids, json_array_size(ids));
        for (int i = 0; i < got->n_ids; i++)
            if (got->ids[i] != json_integer_value(json_array_get(ids, (size_t)i)))
                fail_msg("row %d, picture %d, sequence %d, token %d: %d", (int)r->tag / N_IMAGES,
                         (int)r->tag % N_IMAGES, s, i, got->ids[i]);
        if (scores) {
            const double reference = json_number_value(json_array_get(scores, first + (size_t)s));
            /* six digits behind the point were stored */
            const double e = fmax(fabs(got->score - reference) - 5e-7, 0) / fabs(reference);

            *ret_worst = e > *ret_worst ? e : *ret_worst;
            if (!(e <= limit))
                fail_msg("row %d, picture %d, sequence %d: score %.7g, the reference says %.7g", (int)r->tag / N_IMAGES,
                         (int)r->tag % N_IMAGES, s, got->score, reference);
        }
        assert_true(got->logprob < 0);
    }
}

static void check_checkpoint(const char *dir, double limit, const struct lm_limits *limits)
{
    struct golden *golden = NULL;
    struct ops *o = NULL;
    struct lm *m = NULL;
    struct generate *g = NULL;
    struct generate_result r;
    struct err err = {""};
    float *rows = NULL;
    double worst = 0;
    int n_done = 0, rc;

    if (golden_open(dir, &golden, &err) < 0 || ops_cpu_new(1, DTYPE_F32, fixture_cpu_isa(), &o, &err) < 0 ||
        lm_open(o, golden->checkpoint, limits, &m, &err) < 0 ||
        generate_new(m, N_ROWS * N_IMAGES, golden->checkpoint->config.image_token, &g, &err) < 0)
        fail_msg("%s", err.text);
    if (golden_floats(golden, "language_projection", 3,
                      (const int64_t[]){N_IMAGES, golden->checkpoint->config.n_queries, lm_width(m)}, &rows, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(json_array_size(json_object_get(golden->expected, "generate")), N_ROWS);
    for (int row = 0; row < N_ROWS; row++)
        submit(golden, g, row, rows);
    while ((rc = generate_step(g)) > 0)
        for (; generate_take(g, &r) == 1; n_done++) {
            check(golden, &r, limit, &worst);
            generate_result_release(&r);
        }
    assert_int_equal(rc, 0);
    assert_int_equal(n_done, N_ROWS * N_IMAGES);
    print_message("%s: worst score error %.1e\n", dir, worst);
    generate_free(g);
    lm_free(m);
    ops_free(o);
    golden_free(golden);
    free(rows);
}

static const struct lm_limits roomy = {.n_sequences = 64, .n_kv_rows = 4096, .max_rows = 512};

static void test_golden_decode_opt_equals_the_reference(void **state)
{
    (void)state;
    check_checkpoint("tests/golden/opt_a", 1e-5, &roomy);
}

static void test_golden_decode_post_norm_opt_equals_the_reference(void **state)
{
    (void)state;
    check_checkpoint("tests/golden/opt_c", 1e-5, &roomy);
}

static void test_golden_decode_t5_equals_the_reference(void **state)
{
    (void)state;
    check_checkpoint("tests/golden/t5_a", 1e-3, &roomy);
}

/* The same with hardly more room than the largest request needs. */
static void test_golden_decode_with_little_room_equals_the_reference(void **state)
{
    (void)state;
    check_checkpoint("tests/golden/opt_a", 1e-5,
                     &(struct lm_limits){.n_sequences = 5, .n_kv_rows = 110, .max_rows = 48});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_decode_opt_equals_the_reference),
        cmocka_unit_test(test_golden_decode_post_norm_opt_equals_the_reference),
        cmocka_unit_test(test_golden_decode_t5_equals_the_reference),
        cmocka_unit_test(test_golden_decode_with_little_room_equals_the_reference),
    };

    return cmocka_run_group_tests_name("golden_decode", tests, NULL, NULL);
}
