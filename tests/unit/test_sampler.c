#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/ops.h"
#include "tensor/sampler.h"
#include "tests/unit/fixture.h"

/* What transformers made of the same logits. */

enum { MAX_VOCAB = 256 };

static json_t *load_cases(void)
{
    json_error_t error;
    json_t *cases = json_load_file("tests/golden/decode/sampler.json", 0, &error);

    assert_non_null(cases);
    assert_true(json_array_size(cases) > 0);
    return cases;
}

static int read_numbers(const json_t *from, float *to)
{
    const size_t n = json_array_size(from);

    assert_true(n > 0 && n <= MAX_VOCAB);
    for (size_t i = 0; i < n; i++)
        to[i] = (float)json_number_value(json_array_get(from, i));
    return (int)n;
}

static struct ops_sample_row row_of(const json_t *c)
{
    return (struct ops_sample_row){.sample = true,
                                   .n_best = 1,
                                   .repetition_penalty = 1,
                                   .temperature = (float)json_number_value(json_object_get(c, "temperature")),
                                   .top_k = (int)json_integer_value(json_object_get(c, "top_k")),
                                   .top_p = (float)json_number_value(json_object_get(c, "top_p"))};
}

static void test_sampler_probabilities_equal_golden(void **state)
{
    json_t *cases = load_cases(), *c;
    int n_checked = 0;
    size_t i;

    (void)state;
    json_array_foreach(cases, i, c)
    {
        float logits[MAX_VOCAB], scores[MAX_VOCAB], golden[MAX_VOCAB];
        double out[MAX_VOCAB];
        struct ops_sample_row row = row_of(c);
        int n;

        if (!json_object_get(c, "probabilities"))
            continue;
        n = read_numbers(json_object_get(c, "logits"), logits);
        assert_int_equal(read_numbers(json_object_get(c, "probabilities"), golden), n);
        (void)sampler_process(&row, logits, n, scores);
        assert_int_equal(sampler_probabilities(&row, scores, n, out), 0);
        for (int j = 0; j < n; j++)
            assert_true(fabs(out[j] - (double)golden[j]) <= 1e-6 && (out[j] > 0) == (golden[j] > 0));
        n_checked++;
    }
    assert_true(n_checked >= 9);
    json_decref(cases);
}

static void draw_all(struct ops *o, const json_t *c)
{
    float logits[MAX_VOCAB], golden[MAX_VOCAB], value, logprob;
    int n = read_numbers(json_object_get(c, "logits"), logits);
    double before = 0;

    assert_int_equal(read_numbers(json_object_get(c, "probabilities"), golden), n);
    for (int j = 0; j < n; j++) {
        struct ops_sample_row row = row_of(c);
        int32_t id = -1;

        row.uniform = (float)(before + (double)golden[j] / 2);
        row.ret_ids = &id;
        row.ret_values = &value;
        row.ret_logprobs = &logprob;
        before += (double)golden[j];
        if (golden[j] < 1e-6f)
            continue;
        assert_int_equal(
            o->f->sample(o,
                         &(struct ops_sample_args){.n_rows = 1, .vocab = n, .logits = logits, .ld = n, .rows = &row}),
            0);
        assert_int_equal(id, j);
        assert_true(fabsf(value - golden[j]) <= 1e-6f);
    }
}

/* Both back ends, through the operator: an id is drawn where its share of the unit interval is. */
static void test_sampler_draws_as_golden_probabilities_say(void **state)
{
    json_t *cases = load_cases(), *c;
    struct ops *both[2];
    struct err err;
    size_t i;

    (void)state;
    assert_int_equal(ops_ref_new(&both[0], &err), 0);
    assert_int_equal(ops_cpu_new(1, DTYPE_F32, fixture_cpu_isa(), &both[1], &err), 0);
    json_array_foreach(cases, i, c) for (int b = 0; b < 2 && json_object_get(c, "probabilities"); b++)
        draw_all(both[b], c);
    ops_free(both[0]);
    ops_free(both[1]);
    json_decref(cases);
}

/* `history` may name an id twice: it is penalised once. */
static int distinct(const json_t *history, int32_t *ids)
{
    int n = 0;

    for (size_t i = 0; i < json_array_size(history); i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(history, i));
        bool known = false;

        for (int j = 0; j < n; j++)
            known = known || ids[j] == id;
        if (!known)
            ids[n++] = id;
    }
    return n;
}

static void test_sampler_repetition_penalty_equals_golden(void **state)
{
    json_t *cases = load_cases(), *c;
    int n_checked = 0;
    size_t i;

    (void)state;
    json_array_foreach(cases, i, c)
    {
        float logits[MAX_VOCAB], scores[MAX_VOCAB], golden[MAX_VOCAB];
        int32_t seen[MAX_VOCAB];
        struct ops_sample_row row = {.n_best = 1, .seen = seen};
        int n;

        if (!json_object_get(c, "processed"))
            continue;
        n = read_numbers(json_object_get(c, "logits"), logits);
        assert_int_equal(read_numbers(json_object_get(c, "processed"), golden), n);
        row.n_seen = distinct(json_object_get(c, "history"), seen);
        row.repetition_penalty = (float)json_number_value(json_object_get(c, "repetition_penalty"));
        (void)sampler_process(&row, logits, n, scores);
        for (int j = 0; j < n; j++)
            assert_true(fabsf(scores[j] - golden[j]) <= 1e-6f * (1 + fabsf(golden[j])));
        n_checked++;
    }
    assert_true(n_checked >= 3);
    json_decref(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler_probabilities_equal_golden),
        cmocka_unit_test(test_sampler_draws_as_golden_probabilities_say),
        cmocka_unit_test(test_sampler_repetition_penalty_equals_golden),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
