#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/sample_rig.h"
#include "tests/unit/ops_rig.h"

/* Greedy choosing and beams on a device against the definition in sampler.c. Values are drawn so that ties are
 * common. */

/* -- greedy -- */

static void test_cuda_sample_greedy_equals_reference(void **state)
{
    static const int64_t vocabs[] = {1, 2, 7, 17, 1000, 1025, 1216, 2049, 50304};
    enum { ROWS = 5 };
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(vocabs) / sizeof(*vocabs); i++)
        for (int pad = 0; pad < 4; pad += 3) {
            const int64_t n = vocabs[i], ld = (n + 3) / 4 * 4 + pad;
            float *x = ops_rig_random(g->ref, (size_t)(ROWS * ld));
            struct sample_data *d = sample_rig_new(ROWS);

            for (int64_t j = 0; j < ROWS * ld; j++)
                x[j] = j % ld < n ? x[j] * 4 : 1e9f; /* what lies behind the vocabulary must not win */
            x[n / 2] = x[n - 1] = x[n / 3] = 30;     /* ties: the first wins */
            for (int r = 0; r < ROWS; r++)
                d[r].row = (struct ops_sample_row){.n_best = 1, .repetition_penalty = 1};
            sample_rig_check(g, d, ROWS, x, n, ld);
            assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], d, ROWS, x, n, ld), 0);
            assert_int_equal(d[0].ids[0], n / 3);
            free(x);
            free(d);
        }
}

/* The best is listed, and the next best lies where the same thread looks. */
static void test_cuda_sample_passes_over_listed_ids(void **state)
{
    enum { N = 5000, ROWS = 6, STEP = 512 * 4 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct sample_data *d = sample_rig_new(ROWS);
    float x[ROWS][N] = {{0}};

    for (int r = 0; r < ROWS; r++) {
        x[r][4] = 30;
        x[r][5] = 29;
        x[r][7 + STEP] = 28;
        d[r].row = (struct ops_sample_row){.n_best = 1,
                                           .sample = r % 3 == 2,
                                           .log_softmax = r % 3 == 1,
                                           .repetition_penalty = r % 3 == 1 ? 100 : 0.01f,
                                           .temperature = 1,
                                           .top_p = 1,
                                           .uniform = 0.5f};
        d[r].row.n_seen = r < 3;
        d[r].row.n_banned = r < 3 ? 1 : 2;
        d[r].seen[0] = 0; /* 0 / 0.01 stays 0 */
        d[r].banned[0] = 4;
        d[r].banned[1] = 5;
    }
    sample_rig_check(g, d, ROWS, x[0], N, N);
    assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], d, ROWS, x[0], N, N), 0);
    for (int r = 0; r < ROWS; r++)
        assert_int_equal(d[r].ids[0], r < 3 ? 5 : 7 + STEP);
    for (int r = 0; r < ROWS; r++) { /* pushed down rather than banned */
        d[r].row.n_seen = 1;
        d[r].row.n_banned = 0;
        d[r].row.repetition_penalty = 100;
        d[r].row.log_softmax = false;
        d[r].seen[0] = 4;
    }
    sample_rig_check(g, d, ROWS, x[0], N, N);
    free(d);
}

/* In every way of choosing; the other rows are chosen from nevertheless. */
static void test_cuda_sample_refuses_a_row_that_is_not_finite(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);
    float x[12] = {1, 2, 0, 3, 1, 2, NAN, 3, 1, 1, 1, 2};

    for (int how = 0; how < 4; how++) {
        struct sample_data *d = sample_rig_new(3);

        for (int r = 0; r < 3; r++)
            d[r].row = (struct ops_sample_row){.n_best = how == 1 || how == 2 ? 2 : 1,
                                               .log_softmax = how == 2,
                                               .sample = how == 3,
                                               .repetition_penalty = 1,
                                               .temperature = 1,
                                               .top_p = 0.001f};
        assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], d, 3, x, 4, 4), -EDOM);
        assert_int_equal(d[0].ids[0], 3);
        assert_int_equal(d[1].ids[0], -1);
        assert_int_equal(d[2].ids[0], 3);
        for (int i = 0; i < 4; i++)
            d[2].banned[i] = i;
        d[2].row.n_banned = 4;
        assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], d, 3, x, 4, 4), -EDOM);
        assert_int_equal(d[2].ids[0], -1);
        free(d);
    }
}

/* -- beams -- */

static void draw_best(struct sample_data *d, float *x, int64_t vocab, int n_best, int n_seen, int n_banned,
                      float penalty)
{
    const int grain = ops_rig_below(3); /* how coarse the values are: many ties, some, none */

    for (int64_t i = 0; i < vocab; i++) {
        x[i] *= 4;
        x[i] = grain == 0 ? roundf(x[i]) : grain == 1 ? roundf(x[i] * 64) / 64 : x[i];
        if (ops_rig_below(1000) == 0)
            x[i] = -FLT_MAX;
    }
    x[ops_rig_below((int)vocab)] = 1;
    d->row = (struct ops_sample_row){
        .log_softmax = ops_rig_below(2), .n_best = n_best < vocab ? n_best : (int)vocab, .repetition_penalty = penalty};
    sample_data_lists(d, vocab, n_seen, n_banned);
}

static void test_cuda_sample_n_best_equals_reference(void **state)
{
    static const int64_t vocabs[] = {1, 2, 7, 16, 33, 300, 1000, 4097, 50304};
    /* more than a thread each, more than the list holds */
    static const int n_best[] = {1, 2, 10, 17, 128, 500, 600, 1100};
    enum { N = sizeof(n_best) / sizeof(*n_best) };
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t v = 0; v < sizeof(vocabs) / sizeof(*vocabs); v++) {
        const int64_t vocab = vocabs[v], ld = vocab + (v % 2 ? 0 : 3);
        struct sample_data *d = sample_rig_new(3 * N);
        float *x = ops_rig_random(g->ref, (size_t)(3 * N * ld));

        for (int i = 0; i < 3 * N; i++)
            draw_best(&d[i], x + i * ld, vocab, n_best[i / 3], i % 3 ? 60 - 20 * (i % 3) : 0, i % 3 == 2 ? 30 : 0,
                      i % 3 == 1 ? 1.7f : 0.6f);
        sample_rig_check(g, d, 3 * N, x, vocab, ld);
        free(x);
        free(d);
    }
}

static void test_cuda_sample_random_rows_equal_reference(void **state)
{
    enum { ROWS = 8 };
    struct cuda_rig *g = cuda_rig_get(state);

    for (int i = 0; i < (cuda_rig_is_emulated() ? 12 : 60); i++) {
        const int64_t vocab = 1 + ops_rig_below(3000), ld = vocab + ops_rig_below(5);
        struct sample_data *d = sample_rig_new(ROWS);
        float *x = ops_rig_random(g->ref, (size_t)(ROWS * ld));

        for (int r = 0; r < ROWS; r++)
            draw_best(&d[r], x + r * ld, vocab, 1 + ops_rig_below(ops_rig_below(2) ? 20 : 1100),
                      ops_rig_below(SAMPLE_DATA_LIST), ops_rig_below(SAMPLE_DATA_LIST),
                      0.5f + 0.25f * (float)ops_rig_below(8));
        sample_rig_check(g, d, ROWS, x, vocab, ld);
        free(x);
        free(d);
    }
}

static void test_cuda_sample_takes_the_lowest_id_first_on_ties(void **state)
{
    enum { N = 5000 };
    struct cuda_rig *g = cuda_rig_get(state);
    float x[N] = {0};

    x[4321] = 2;
    for (int i = 0; i < N; i++)
        x[i] = x[i] == 0 && i % 3 ? -0.0f : x[i]; /* equals of 0 */
    for (int which = 0; which < 4; which++) {     /* the long one takes the bound that is found bit by bit */
        struct sample_data *d = sample_rig_new(1);

        d->row =
            (struct ops_sample_row){.n_best = which < 2 ? 40 : 700, .repetition_penalty = 1, .log_softmax = which % 2};
        assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], d, 1, x, N, N), 0);
        assert_int_equal(d->ids[0], 4321);
        for (int j = 1; j < d->row.n_best; j++)
            assert_int_equal(d->ids[j], j - 1);
        free(d);
    }
}

/* Two logits whose log-softmax is the same number. */
static void test_cuda_sample_ties_after_the_log_softmax(void **state)
{
    enum { N = 5000, AT = 70 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct sample_data *d = sample_rig_new(2);
    float x[2][N];

    for (int i = 0; i < 2 * N; i++)
        x[i / N][i % N] = -0.001f;
    for (int r = 0; r < 2; r++) {
        x[r][AT] = 0.001f;
        x[r][AT + 1] = nextafterf(0.001f, 1); /* the same thread's, and the larger logit */
        d[r].row = (struct ops_sample_row){.n_best = r ? 3 : 1, .repetition_penalty = 1, .log_softmax = true};
    }
    sample_rig_check(g, d, 2, x[0], N, N);
    assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], d, 2, x[0], N, N), 0);
    assert_int_equal(d[0].ids[0], AT);
    assert_int_equal(d[1].ids[0], AT);
    assert_int_equal(d[1].ids[1], AT + 1);
    assert_int_equal(d[1].ids[2], 0);
    free(d);
}

/* Logits in an order that spreads the best unevenly over a device's threads. */
static void test_cuda_sample_from_sorted_logits(void **state)
{
    enum { N = 20000, ROWS = 6 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct sample_data *d = sample_rig_new(ROWS);
    float *x = ops_rig_buffer((size_t)ROWS * N);

    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < N; i++)
            x[r * N + i] = r % 3 == 0   ? (float)i * 1e-3f
                           : r % 3 == 1 ? (float)-i * 1e-3f
                                        : (float)(i % 2048 < 8 ? 10 + i % 977 : i % 911) * 1e-2f;
        d[r].row = (struct ops_sample_row){.n_best = r < 3 ? 10 : 300, .log_softmax = r % 2, .repetition_penalty = 1};
    }
    sample_rig_check(g, d, ROWS, x, N, N);
    free(x);
    free(d);
}

/* Ids whose marks are not in shared memory. */
static void test_cuda_sample_from_a_vast_vocabulary(void **state)
{
    enum { N = 300001, ROWS = 2 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct sample_data *d = sample_rig_new(ROWS);
    float *x = ops_rig_random(g->ref, (size_t)ROWS * N);

    for (int r = 0; r < ROWS; r++)
        draw_best(&d[r], x + (int64_t)r * N, N, r ? 10 : 1, 100, 100, 1.5f);
    sample_rig_check(g, d, ROWS, x, N, N);
    free(x);
    free(d);
}

/* Rows together and alone give the same bits. */
static void test_cuda_sample_rows_do_not_depend_on_the_batch(void **state)
{
    enum { ROWS = 12, N = 5000 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_BF16];
    float *x = ops_rig_random(g->ref, ROWS * N);
    struct sample_data *all = sample_rig_new(ROWS), *alone = sample_rig_new(1);

    for (int r = 0; r < ROWS; r++) {
        all[r].row = (struct ops_sample_row){.n_best = r % 3 ? 10 : 1,
                                             .log_softmax = r % 3,
                                             .sample = r % 3 == 0,
                                             .repetition_penalty = 1.3f,
                                             .temperature = 0.8f,
                                             .top_p = r % 2 ? 0.9f : 1,
                                             .top_k = r % 4 ? 50 : 0,
                                             .uniform = (float)ops_rig_below(1000) / 1000};
        sample_data_lists(&all[r], N, 20, 3);
    }
    assert_int_equal(sample_rig_run(o, all, ROWS, x, N, N), 0);
    for (int r = 0; r < ROWS; r++) {
        *alone = all[r];
        assert_int_equal(sample_rig_run(o, alone, 1, x + r * N, N, N), 0);
        assert_memory_equal(alone->ids, all[r].ids, sizeof(alone->ids));
        assert_memory_equal(alone->values, all[r].values, sizeof(alone->values));
        assert_memory_equal(alone->logprobs, all[r].logprobs, sizeof(alone->logprobs));
    }
    free(all);
    free(alone);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_sample_greedy_equals_reference),
        cmocka_unit_test(test_cuda_sample_passes_over_listed_ids),
        cmocka_unit_test(test_cuda_sample_refuses_a_row_that_is_not_finite),
        cmocka_unit_test(test_cuda_sample_n_best_equals_reference),
        cmocka_unit_test(test_cuda_sample_random_rows_equal_reference),
        cmocka_unit_test(test_cuda_sample_takes_the_lowest_id_first_on_ties),
        cmocka_unit_test(test_cuda_sample_ties_after_the_log_softmax),
        cmocka_unit_test(test_cuda_sample_from_sorted_logits),
        cmocka_unit_test(test_cuda_sample_from_a_vast_vocabulary),
        cmocka_unit_test(test_cuda_sample_rows_do_not_depend_on_the_batch),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
