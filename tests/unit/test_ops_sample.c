#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/sampler.h"
#include "tests/unit/sample_data.h"
#include "tests/unit/sample_nuclei.h"
#include "tests/unit/fixture.h"
#include "tests/unit/ops_rig.h"

/* Choosing on the CPU against the definition in sampler.c. Values are drawn so that ties are common. */

/* -- greedy -- */

static int sample_greedy(struct ops *o, int64_t n_rows, int64_t vocab, const float *x, int64_t ld, int32_t *ret_ids,
                         float *ret_logprobs)
{
    struct ops_sample_row rows[8];
    float values[8];

    assert_true(n_rows <= 8);
    for (int64_t r = 0; r < n_rows; r++)
        rows[r] = (struct ops_sample_row){.n_best = 1,
                                          .repetition_penalty = 1,
                                          .ret_ids = &ret_ids[r],
                                          .ret_values = &values[r],
                                          .ret_logprobs = &ret_logprobs[r]};
    return o->f->sample(
        o, &(struct ops_sample_args){.n_rows = n_rows, .vocab = vocab, .logits = x, .ld = ld, .rows = rows});
}

static void test_ops_sample_greedy_equals_reference(void **state)
{
    static const int64_t vocabs[] = {1, 2, 15, 16, 17, 1023, 1025, 1216, 50304};
    enum { ROWS = 5 };
    const struct ops_rig *g = *state;
    struct ops *cpu = g->cpu[OPS_RIG_F32];

    for (size_t i = 0; i < sizeof(vocabs) / sizeof(*vocabs); i++) {
        int64_t n = vocabs[i], ld = n + 3;
        float *x = ops_rig_random(g->ref, (size_t)(ROWS * ld)), ref_logprob[ROWS], logprob[ROWS];
        int32_t ref_ids[ROWS], ids[ROWS];

        for (int64_t j = 0; j < ROWS * ld; j++)
            x[j] = j % ld < n ? x[j] * 4 : 1e9f; /* what lies behind the vocabulary must not win */
        x[n / 2] = x[n - 1] = x[n / 3] = 30;     /* ties: the first wins */
        assert_int_equal(sample_greedy(g->ref, ROWS, n, x, ld, ref_ids, ref_logprob), 0);
        for (int isa = CPU_ISA_BASE; isa <= (int)g->best; isa++) {
            ops_rig_use(g, OPS_RIG_F32, (enum cpu_isa)isa);
            memset(ids, 0xff, sizeof(ids));
            assert_int_equal(sample_greedy(cpu, ROWS, n, x, ld, ids, logprob), 0);
            assert_memory_equal(ids, ref_ids, sizeof(ids));
            assert_int_equal(ids[0], n / 3);
            for (int r = 0; r < ROWS; r++)
                assert_true(fabsf(logprob[r] - ref_logprob[r]) <= 1e-6f * (1 + fabsf(ref_logprob[r])));
        }
        free(x);
    }
}

static void test_ops_sample_refuses_a_row_that_is_not_finite(void **state)
{
    const struct ops_rig *g = *state;
    struct ops *both[] = {g->ref, g->cpu[OPS_RIG_F32]};
    const float x[8] = {1, 2, 0, 3, 1, 2, NAN, 3};
    int32_t id[2] = {-7, -7};
    float logprob[2];

    for (int i = 0; i < 2; i++) {
        assert_int_equal(sample_greedy(both[i], 2, 4, x, 4, id, logprob), -EDOM);
        assert_int_equal(id[0], 3);
        assert_int_equal(id[1], -7);
    }
}

static void test_ops_sample_refuses_a_row_where_all_are_banned(void **state)
{
    static const int32_t all[] = {0, 1, 2, 3};
    const struct ops_rig *g = *state;
    struct ops *both[] = {g->ref, g->cpu[OPS_RIG_F32]};
    const float x[4] = {1, 2, 0, 3};
    struct ops_sample_row row = {.n_best = 1, .repetition_penalty = 1, .banned = all, .n_banned = 4};

    for (int i = 0; i < 2; i++)
        assert_int_equal(
            both[i]->f->sample(both[i],
                               &(struct ops_sample_args){.n_rows = 1, .vocab = 4, .logits = x, .ld = 4, .rows = &row}),
            -EDOM);
}

/* -- beams -- */

static int run_sample(struct ops *o, struct sample_data *d, const float *x, int64_t vocab)
{
    return o->f->sample(
        o, &(struct ops_sample_args){.n_rows = 1, .vocab = vocab, .logits = x, .ld = vocab, .rows = &d->row});
}

static struct sample_data *copy_of(const struct sample_data *d)
{
    struct sample_data *c = malloc(sizeof(*c));

    assert_non_null(c);
    *c = *d;
    sample_data_point(c);
    return c;
}

static void check_best(const struct ops_rig *g, int64_t vocab, int n_best, int n_seen, int n_banned, float penalty)
{
    const int grain = ops_rig_below(3); /* how coarse the values are: many ties, some, none */
    float *x = ops_rig_random(g->ref, (size_t)vocab);
    struct sample_data *ref = calloc(1, sizeof(*ref));

    assert_non_null(ref);
    for (int64_t i = 0; i < vocab; i++) {
        x[i] *= 4;
        x[i] = grain == 0 ? roundf(x[i]) : grain == 1 ? roundf(x[i] * 64) / 64 : x[i];
        if (ops_rig_below(1000) == 0)
            x[i] = -FLT_MAX;
    }
    x[ops_rig_below((int)vocab)] = 1;
    ref->row = (struct ops_sample_row){
        .log_softmax = ops_rig_below(2), .n_best = n_best < vocab ? n_best : (int)vocab, .repetition_penalty = penalty};
    sample_data_lists(ref, vocab, n_seen, n_banned);
    int rc = run_sample(g->ref, ref, x, vocab);

    for (int isa = CPU_ISA_BASE; isa <= (int)g->best; isa++) {
        struct sample_data *out = copy_of(ref);

        ops_rig_use(g, OPS_RIG_F32, (enum cpu_isa)isa);
        assert_int_equal(run_sample(g->cpu[OPS_RIG_F32], out, x, vocab), rc);
        if (rc == 0)
            sample_data_same(ref, out);
        free(out);
    }
    free(x);
    free(ref);
}

static void test_ops_sample_n_best_equals_reference(void **state)
{
    static const int64_t vocabs[] = {1, 2, 7, 16, 33, 300, 1216, 4097, 50272};
    static const int n_best[] = {1, 2, 10, 17, 130, 17 * 64};

    for (size_t v = 0; v < sizeof(vocabs) / sizeof(*vocabs); v++)
        for (size_t n = 0; n < sizeof(n_best) / sizeof(*n_best); n++) {
            check_best(*state, vocabs[v], n_best[n], 0, 0, 1);
            check_best(*state, vocabs[v], n_best[n], 60, 0, 1.7f);
            check_best(*state, vocabs[v], n_best[n], 40, 30, 0.6f);
        }
}

static void test_ops_sample_random_rows_equal_reference(void **state)
{
    for (int i = 0; i < 300; i++)
        check_best(*state, 1 + ops_rig_below(3000), 1 + ops_rig_below(ops_rig_below(2) ? 20 : 1100),
                   ops_rig_below(SAMPLE_DATA_LIST), ops_rig_below(SAMPLE_DATA_LIST),
                   0.5f + 0.25f * (float)ops_rig_below(8));
}

static void test_ops_sample_takes_the_lowest_id_first_on_ties(void **state)
{
    enum { N = 5000 };
    const struct ops_rig *g = *state;
    struct ops *both[] = {g->ref, g->cpu[OPS_RIG_F32]};
    float x[N] = {0};

    x[4321] = 2;
    for (int i = 0; i < 2; i++)
        for (int log_softmax = 0; log_softmax < 2; log_softmax++) {
            struct sample_data d = {.row = {.n_best = 40, .repetition_penalty = 1, .log_softmax = log_softmax}};

            sample_data_lists(&d, N, 0, 0);
            assert_int_equal(run_sample(both[i], &d, x, N), 0);
            assert_int_equal(d.ids[0], 4321);
            for (int j = 1; j < 40; j++)
                assert_int_equal(d.ids[j], j - 1);
        }
}

/* Rows together and alone, with one thread and two, give the same bits. */
static void test_ops_sample_rows_do_not_depend_on_the_batch(void **state)
{
    enum { ROWS = 12, N = 20000 };
    const struct ops_rig *g = *state;
    float *x = ops_rig_random(g->ref, ROWS * N);
    struct sample_data *all[ROWS];
    struct ops_sample_row rows[ROWS];
    struct ops *one;
    struct err err;

    assert_int_equal(ops_cpu_new(1, DTYPE_F32, fixture_cpu_isa(), &one, &err), 0);
    for (int r = 0; r < ROWS; r++) {
        all[r] = calloc(1, sizeof(*all[r]));
        assert_non_null(all[r]);
        all[r]->row = (struct ops_sample_row){.n_best = r % 3 ? 10 : 1,
                                              .log_softmax = r % 3,
                                              .sample = r % 3 == 0,
                                              .repetition_penalty = 1.3f,
                                              .temperature = 0.8f,
                                              .top_p = r % 2 ? 0.9f : 1,
                                              .top_k = r % 4 ? 50 : 0,
                                              .uniform = (float)ops_rig_below(1000) / 1000};
        sample_data_lists(all[r], N, 20, 3);
        rows[r] = all[r]->row;
    }
    assert_int_equal(g->cpu[OPS_RIG_F32]->f->sample(
                         g->cpu[OPS_RIG_F32],
                         &(struct ops_sample_args){.n_rows = ROWS, .vocab = N, .logits = x, .ld = N, .rows = rows}),
                     0);
    for (int r = 0; r < ROWS; r++) {
        struct sample_data *alone = copy_of(all[r]);
        const size_t n = (size_t)alone->row.n_best;

        assert_int_equal(run_sample(one, alone, x + (int64_t)r * N, N), 0);
        assert_memory_equal(alone->ids, all[r]->ids, n * sizeof(*alone->ids));
        assert_memory_equal(alone->values, all[r]->values, n * sizeof(*alone->values));
        assert_memory_equal(alone->logprobs, all[r]->logprobs, n * sizeof(*alone->logprobs));
        free(alone);
        free(all[r]);
    }
    ops_free(one);
    free(x);
}

/* -- sampling -- */

/* Draws in the middle of every id's share of the unit interval: true if each gives that id, with that probability. */
static bool draws_from(struct ops *o, const struct sample_nuclei *n, const struct sample_data *like, const float *x,
                       int64_t vocab)
{
    const double *probabilities = n->probabilities;
    double before = 0;
    int n_tried = 0;
    bool same = true;

    for (int64_t i = 0; i < vocab && same; i++) {
        struct sample_data *d = copy_of(like);

        d->row.uniform = (float)(before + probabilities[i] / 2);
        if (probabilities[i] > 1e-3 || (probabilities[i] > 1e-5 && n_tried < 100)) {
            assert_int_equal(run_sample(o, d, x, vocab), 0);
            same = d->ids[0] == i && fabs((double)d->values[0] - probabilities[i]) <= sample_nuclei_limit(n, i);
            n_tried++;
        }
        before += probabilities[i];
        free(d);
    }
    assert_true(!same || (n_tried > 0 && fabs(before - 1) < 1e-6));
    return same;
}

/* exp_ulps: how exact the back end's e^x is; 0: exact. */
static void check_sample(struct ops *o, const struct sample_data *d, const float *x, int64_t vocab, const float *scores,
                         double exp_ulps)
{
    struct sample_nuclei n = sample_nuclei_new(&d->row, scores, vocab, exp_ulps, 0);

    while (!draws_from(o, &n, d, x, vocab))
        assert_true(sample_nuclei_next(&n));
    sample_nuclei_free(&n);
}

static void check_sampling(const struct ops_rig *g, int64_t vocab, float temperature, int top_k, float top_p,
                           int n_seen)
{
    float *x = ops_rig_random(g->ref, (size_t)vocab), *scores = ops_rig_buffer((size_t)vocab);
    struct sample_data d = {.row = {.sample = true,
                                    .n_best = 1,
                                    .repetition_penalty = 1.4f,
                                    .temperature = temperature,
                                    .top_k = top_k,
                                    .top_p = top_p}};

    for (int64_t i = 0; i < vocab; i++)
        x[i] = top_k % 2 ? roundf(x[i] * 4) : x[i] * 4; /* ties at the k-th, or none */
    sample_data_lists(&d, vocab, n_seen, n_seen / 2);
    (void)sampler_process(&d.row, x, vocab, scores);
    check_sample(g->ref, &d, x, vocab, scores, 0);
    for (int isa = CPU_ISA_BASE; isa <= (int)g->best; isa++) {
        ops_rig_use(g, OPS_RIG_F32, (enum cpu_isa)isa);
        check_sample(g->cpu[OPS_RIG_F32], &d, x, vocab, scores, 1.5 /* cpu_exp_nonpositive */);
    }
    free(x);
    free(scores);
}

static void test_ops_sample_draws_every_id_with_its_probability(void **state)
{
    static const int64_t vocabs[] = {1, 2, 17, 100, 1216, 9001};

    for (size_t v = 0; v < sizeof(vocabs) / sizeof(*vocabs); v++) {
        check_sampling(*state, vocabs[v], 1, 0, 1, 0);
        check_sampling(*state, vocabs[v], 0.7f, 0, 1, 5);
        check_sampling(*state, vocabs[v], 1.3f, 5, 1, 0);
        check_sampling(*state, vocabs[v], 1, 50, 1, 9);
        check_sampling(*state, vocabs[v], 1, 0, 0.9f, 3);
        check_sampling(*state, vocabs[v], 1, 0, 0.05f, 0);
        check_sampling(*state, vocabs[v], 1.9f, 0, 0.999f, 0);
        check_sampling(*state, vocabs[v], 0.9f, 40, 0.8f, 7);
        check_sampling(*state, vocabs[v], 1, 300, 0.95f, 0);
    }
}

/* A flat row is the worst case of top_p: everything ties. */
static void test_ops_sample_nucleus_of_a_flat_row(void **state)
{
    enum { N = 1000 };
    const struct ops_rig *g = *state;
    struct ops *both[] = {g->ref, g->cpu[OPS_RIG_F32]};
    float x[N] = {0};

    for (int i = 0; i < 2; i++) {
        struct sample_data d = {
            .row = {.sample = true, .n_best = 1, .repetition_penalty = 1, .temperature = 1, .top_p = 0.2505f}};

        sample_data_lists(&d, N, 0, 0);
        assert_int_equal(run_sample(both[i], &d, x, N), 0);
        assert_int_equal(d.ids[0], N - 251); /* of equals the lowest ids go first */
        assert_true(fabsf(d.values[0] - 1 / 251.0f) < 1e-7f);
        d.row.uniform = 0.99999994f;
        assert_int_equal(run_sample(both[i], &d, x, N), 0);
        assert_int_equal(d.ids[0], N - 1);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, ops_rig_setup, ops_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_ops_sample_greedy_equals_reference),
        TEST(test_ops_sample_refuses_a_row_that_is_not_finite),
        TEST(test_ops_sample_refuses_a_row_where_all_are_banned),
        TEST(test_ops_sample_n_best_equals_reference),
        TEST(test_ops_sample_random_rows_equal_reference),
        TEST(test_ops_sample_takes_the_lowest_id_first_on_ties),
        TEST(test_ops_sample_rows_do_not_depend_on_the_batch),
        TEST(test_ops_sample_draws_every_id_with_its_probability),
        TEST(test_ops_sample_nucleus_of_a_flat_row),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
