#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/sampler.h"
#include "tests/gpu/cuda_rig.h"
#include "tests/unit/ops_rig.h"

/* Choosing on a device against the definition in sampler.c. Values are drawn so that ties are common; many rows go into
 * one call, each with options of its own. */

enum { MAX_BEST = 1200, MAX_LIST = 300 };

struct choose_data {
    struct ops_choose_row row;
    int32_t seen[MAX_LIST], banned[MAX_LIST];
    int32_t ids[MAX_BEST];
    float values[MAX_BEST], logprobs[MAX_BEST];
};

static struct choose_data *data_new(size_t n)
{
    struct choose_data *d = calloc(n, sizeof(*d));

    assert_non_null(d);
    return d;
}

/* The row's pointers into its own arrays, which hold nothing yet. */
static void data_point(struct choose_data *d)
{
    d->row.seen = d->seen;
    d->row.banned = d->banned;
    d->row.ret_ids = d->ids;
    d->row.ret_values = d->values;
    d->row.ret_logprobs = d->logprobs;
    memset(d->ids, 0xff, sizeof(d->ids));
    memset(d->values, 0xff, sizeof(d->values));
    memset(d->logprobs, 0xff, sizeof(d->logprobs));
}

/* Distinct ids for `seen`, any for `banned`; both may name the same. */
static void draw_lists(struct choose_data *d, int64_t vocab, int n_seen, int n_banned)
{
    int32_t first = ops_rig_below((int)vocab), step = 1 + ops_rig_below(50);

    d->row.n_seen = n_seen < vocab / step ? n_seen : (int)(vocab / step);
    for (int i = 0; i < d->row.n_seen; i++)
        d->seen[i] = (int32_t)((first + (int64_t)i * step) % vocab);
    d->row.n_banned = n_banned < vocab - 1 ? n_banned : (int)vocab - 1;
    for (int i = 0; i < d->row.n_banned; i++)
        d->banned[i] = i % 7 == 0 && d->row.n_seen ? d->seen[ops_rig_below(d->row.n_seen)] : ops_rig_below((int)vocab);
    data_point(d);
}

/* All rows in one call; d_logits: [n, ld] on the device. */
static int choose_there(struct ops *o, struct choose_data *d, int n, const float *d_logits, int64_t vocab, int64_t ld)
{
    struct ops_choose_row *rows = calloc((size_t)n, sizeof(*rows));
    int rc;

    assert_non_null(rows);
    for (int i = 0; i < n; i++) {
        data_point(&d[i]);
        rows[i] = d[i].row;
    }
    rc = o->f->choose(
        o, &(struct ops_choose_args){.n_rows = n, .vocab = vocab, .logits = d_logits, .ld = ld, .rows = rows});
    free(rows);
    return rc;
}

static int choose(struct ops *o, struct choose_data *d, int n, const float *x, int64_t vocab, int64_t ld)
{
    void *d_x = cuda_rig_put_f32(o, x, (size_t)(n * ld));
    int rc = choose_there(o, d, n, d_x, vocab, ld);

    cuda_rig_drop(o, d_x);
    return rc;
}

static void assert_close(float a, float b)
{
    if (isinf(b) || isnan(b))
        assert_true(a == b || (isnan(a) && isnan(b)));
    else
        assert_true(fabsf(a - b) <= 2e-6f * (1 + fabsf(b)));
}

/* Without log-softmax the values are the same numbers. With it they may differ in the last place, so two ids may change
 * places where theirs are as good as equal. */
static void assert_same_choice(const struct choose_data *ref, const struct choose_data *out)
{
    for (int i = 0; i < ref->row.n_best; i++) {
        assert_close(out->values[i], ref->values[i]);
        if (!ref->row.log_softmax)
            assert_true(out->values[i] == ref->values[i]);
        if (out->ids[i] != ref->ids[i])
            assert_true(ref->row.log_softmax &&
                        ((i > 0 && fabsf(ref->values[i] - ref->values[i - 1]) < 4e-6f * fabsf(ref->values[i])) ||
                         fabsf(out->logprobs[i] - ref->logprobs[i]) < 4e-6f * fabsf(ref->values[i])));
        else
            assert_close(out->logprobs[i], ref->logprobs[i]);
    }
}

/* Each row against the reference, which takes one at a time. */
static void check_rows(const struct cuda_rig *g, const struct choose_data *rows, int n, const float *x, int64_t vocab,
                       int64_t ld)
{
    struct choose_data *out = data_new((size_t)n), *ref = data_new((size_t)n);
    int worst = 0;

    memcpy(out, rows, (size_t)n * sizeof(*out));
    memcpy(ref, rows, (size_t)n * sizeof(*ref));
    for (int i = 0; i < n; i++) {
        int rc;

        data_point(&ref[i]);
        rc = sampler_choose(&ref[i].row, x + i * ld, vocab);
        assert_true(rc == 0 || rc == -EDOM);
        ref[i].row.n_best = rc == 0 ? ref[i].row.n_best : 0; /* nothing to compare */
        worst = rc < worst ? rc : worst;
    }
    assert_int_equal(choose(g->cuda[CUDA_RIG_F32], out, n, x, vocab, ld), worst);
    for (int i = 0; i < n; i++)
        assert_same_choice(&ref[i], &out[i]);
    free(out);
    free(ref);
}

/* -- greedy -- */

static void test_cuda_choose_greedy_equals_reference(void **state)
{
    static const int64_t vocabs[] = {1, 2, 7, 17, 1000, 1025, 1216, 2049, 50304};
    enum { ROWS = 5 };
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t i = 0; i < sizeof(vocabs) / sizeof(*vocabs); i++)
        for (int pad = 0; pad < 4; pad += 3) {
            const int64_t n = vocabs[i], ld = (n + 3) / 4 * 4 + pad;
            float *x = ops_rig_random(g->ref, (size_t)(ROWS * ld));
            struct choose_data *d = data_new(ROWS);

            for (int64_t j = 0; j < ROWS * ld; j++)
                x[j] = j % ld < n ? x[j] * 4 : 1e9f; /* what lies behind the vocabulary must not win */
            x[n / 2] = x[n - 1] = x[n / 3] = 30;     /* ties: the first wins */
            if (n > 1)
                x[ld] = -HUGE_VALF;
            for (int r = 0; r < ROWS; r++)
                d[r].row = (struct ops_choose_row){.n_best = 1, .repetition_penalty = 1};
            check_rows(g, d, ROWS, x, n, ld);
            assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, ROWS, x, n, ld), 0);
            assert_int_equal(d[0].ids[0], n / 3);
            free(x);
            free(d);
        }
}

/* The best is listed, and the next best lies where the same thread looks. */
static void test_cuda_choose_passes_over_listed_ids(void **state)
{
    enum { N = 5000, ROWS = 6, STEP = 512 * 4 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct choose_data *d = data_new(ROWS);
    float x[ROWS][N] = {{0}};

    for (int r = 0; r < ROWS; r++) {
        x[r][4] = 30;
        x[r][5] = 29;
        x[r][7 + STEP] = 28;
        d[r].row = (struct ops_choose_row){.n_best = 1,
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
    check_rows(g, d, ROWS, x[0], N, N);
    assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, ROWS, x[0], N, N), 0);
    for (int r = 0; r < ROWS; r++)
        assert_int_equal(d[r].ids[0], r < 3 ? 5 : 7 + STEP);
    for (int r = 0; r < ROWS; r++) { /* pushed down rather than banned */
        d[r].row.n_seen = 1;
        d[r].row.n_banned = 0;
        d[r].row.repetition_penalty = 100;
        d[r].row.log_softmax = false;
        d[r].seen[0] = 4;
    }
    check_rows(g, d, ROWS, x[0], N, N);
    free(d);
}

static void test_cuda_choose_shows_nan(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);
    struct choose_data *d = data_new(1);
    float x[40] = {1, 2, 3};

    d->row = (struct ops_choose_row){.n_best = 1, .repetition_penalty = 1};
    x[33] = NAN;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, 1, x, 40, 40), 0);
        assert_int_equal(d->ids[0], 2);
        assert_true(isnan(d->logprobs[0]));
        x[0] = NAN;
    }
    free(d);
}

/* In every way of choosing; the other rows are chosen from nevertheless. */
static void test_cuda_choose_refuses_a_row_without_a_finite_value(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);
    float x[12] = {1, 2, -HUGE_VALF, 3, -HUGE_VALF, -HUGE_VALF, NAN, -HUGE_VALF, 1, 1, 1, 2};

    for (int how = 0; how < 4; how++) {
        struct choose_data *d = data_new(3);

        for (int r = 0; r < 3; r++)
            d[r].row = (struct ops_choose_row){.n_best = how == 1 || how == 2 ? 2 : 1,
                                               .log_softmax = how == 2,
                                               .sample = how == 3,
                                               .repetition_penalty = 1,
                                               .temperature = 1,
                                               .top_p = 0.001f};
        assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, 3, x, 4, 4), -EDOM);
        assert_int_equal(d[0].ids[0], 3);
        assert_int_equal(d[1].ids[0], -1);
        assert_int_equal(d[2].ids[0], 3);
        for (int i = 0; i < 4; i++)
            d[2].banned[i] = i;
        d[2].row.n_banned = 4;
        assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, 3, x, 4, 4), -EDOM);
        assert_int_equal(d[2].ids[0], -1);
        free(d);
    }
}

/* -- beams -- */

static void draw_best(struct choose_data *d, float *x, int64_t vocab, int n_best, int n_seen, int n_banned,
                      float penalty)
{
    const int grain = ops_rig_below(3); /* how coarse the values are: many ties, some, none */

    for (int64_t i = 0; i < vocab; i++) {
        x[i] *= 4;
        x[i] = grain == 0 ? roundf(x[i]) : grain == 1 ? roundf(x[i] * 64) / 64 : x[i];
        if (ops_rig_below(1000) == 0)
            x[i] = -HUGE_VALF;
    }
    x[ops_rig_below((int)vocab)] = 1;
    d->row = (struct ops_choose_row){
        .log_softmax = ops_rig_below(2), .n_best = n_best < vocab ? n_best : (int)vocab, .repetition_penalty = penalty};
    draw_lists(d, vocab, n_seen, n_banned);
}

static void test_cuda_choose_n_best_equals_reference(void **state)
{
    static const int64_t vocabs[] = {1, 2, 7, 16, 33, 300, 1000, 4097, 50304};
    /* more than a thread each, more than the list holds */
    static const int n_best[] = {1, 2, 10, 17, 128, 500, 600, 1100};
    enum { N = sizeof(n_best) / sizeof(*n_best) };
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t v = 0; v < sizeof(vocabs) / sizeof(*vocabs); v++) {
        const int64_t vocab = vocabs[v], ld = vocab + (v % 2 ? 0 : 3);
        struct choose_data *d = data_new(3 * N);
        float *x = ops_rig_random(g->ref, (size_t)(3 * N * ld));

        for (int i = 0; i < 3 * N; i++)
            draw_best(&d[i], x + i * ld, vocab, n_best[i / 3], i % 3 ? 60 - 20 * (i % 3) : 0, i % 3 == 2 ? 30 : 0,
                      i % 3 == 1 ? 1.7f : 0.6f);
        check_rows(g, d, 3 * N, x, vocab, ld);
        free(x);
        free(d);
    }
}

static void test_cuda_choose_random_rows_equal_reference(void **state)
{
    enum { ROWS = 8 };
    struct cuda_rig *g = cuda_rig_get(state);

    for (int i = 0; i < (cuda_rig_is_emulated() ? 12 : 60); i++) {
        const int64_t vocab = 1 + ops_rig_below(3000), ld = vocab + ops_rig_below(5);
        struct choose_data *d = data_new(ROWS);
        float *x = ops_rig_random(g->ref, (size_t)(ROWS * ld));

        for (int r = 0; r < ROWS; r++)
            draw_best(&d[r], x + r * ld, vocab, 1 + ops_rig_below(ops_rig_below(2) ? 20 : 1100),
                      ops_rig_below(MAX_LIST), ops_rig_below(MAX_LIST), 0.5f + 0.25f * (float)ops_rig_below(8));
        check_rows(g, d, ROWS, x, vocab, ld);
        free(x);
        free(d);
    }
}

static void test_cuda_choose_takes_the_lowest_id_first_on_ties(void **state)
{
    enum { N = 5000 };
    struct cuda_rig *g = cuda_rig_get(state);
    float x[N] = {0};

    x[4321] = 2;
    for (int i = 0; i < N; i++)
        x[i] = x[i] == 0 && i % 3 ? -0.0f : x[i]; /* equals of 0 */
    for (int which = 0; which < 4; which++) {     /* the long one takes the bound that is found bit by bit */
        struct choose_data *d = data_new(1);

        d->row =
            (struct ops_choose_row){.n_best = which < 2 ? 40 : 700, .repetition_penalty = 1, .log_softmax = which % 2};
        assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, 1, x, N, N), 0);
        assert_int_equal(d->ids[0], 4321);
        for (int j = 1; j < d->row.n_best; j++)
            assert_int_equal(d->ids[j], j - 1);
        free(d);
    }
}

/* Two logits whose log-softmax is the same number. */
static void test_cuda_choose_ties_after_the_log_softmax(void **state)
{
    enum { N = 5000, AT = 70 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct choose_data *d = data_new(2);
    float x[2][N];

    for (int i = 0; i < 2 * N; i++)
        x[i / N][i % N] = -0.001f;
    for (int r = 0; r < 2; r++) {
        x[r][AT] = 0.001f;
        x[r][AT + 1] = nextafterf(0.001f, 1); /* the same thread's, and the larger logit */
        d[r].row = (struct ops_choose_row){.n_best = r ? 3 : 1, .repetition_penalty = 1, .log_softmax = true};
    }
    check_rows(g, d, 2, x[0], N, N);
    assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, 2, x[0], N, N), 0);
    assert_int_equal(d[0].ids[0], AT);
    assert_int_equal(d[1].ids[0], AT);
    assert_int_equal(d[1].ids[1], AT + 1);
    assert_int_equal(d[1].ids[2], 0);
    free(d);
}

/* Logits in an order that spreads the best unevenly over a device's threads. */
static void test_cuda_choose_from_sorted_logits(void **state)
{
    enum { N = 20000, ROWS = 6 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct choose_data *d = data_new(ROWS);
    float *x = ops_rig_buffer((size_t)ROWS * N);

    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < N; i++)
            x[r * N + i] = r % 3 == 0   ? (float)i * 1e-3f
                           : r % 3 == 1 ? (float)-i * 1e-3f
                                        : (float)(i % 2048 < 8 ? 10 + i % 977 : i % 911) * 1e-2f;
        d[r].row = (struct ops_choose_row){.n_best = r < 3 ? 10 : 300, .log_softmax = r % 2, .repetition_penalty = 1};
        data_point(&d[r]);
    }
    check_rows(g, d, ROWS, x, N, N);
    free(x);
    free(d);
}

/* Ids whose marks are not in shared memory. */
static void test_cuda_choose_from_a_vast_vocabulary(void **state)
{
    enum { N = 300001, ROWS = 2 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct choose_data *d = data_new(ROWS);
    float *x = ops_rig_random(g->ref, (size_t)ROWS * N);

    for (int r = 0; r < ROWS; r++)
        draw_best(&d[r], x + (int64_t)r * N, N, r ? 10 : 1, 100, 100, 1.5f);
    check_rows(g, d, ROWS, x, N, N);
    free(x);
    free(d);
}

/* Rows together and alone give the same bits. */
static void test_cuda_choose_rows_do_not_depend_on_the_batch(void **state)
{
    enum { ROWS = 12, N = 5000 };
    struct cuda_rig *g = cuda_rig_get(state);
    struct ops *o = g->cuda[CUDA_RIG_BF16];
    float *x = ops_rig_random(g->ref, ROWS * N);
    struct choose_data *all = data_new(ROWS), *alone = data_new(1);

    for (int r = 0; r < ROWS; r++) {
        all[r].row = (struct ops_choose_row){.n_best = r % 3 ? 10 : 1,
                                             .log_softmax = r % 3,
                                             .sample = r % 3 == 0,
                                             .repetition_penalty = 1.3f,
                                             .temperature = 0.8f,
                                             .top_p = r % 2 ? 0.9f : 1,
                                             .top_k = r % 4 ? 50 : 0,
                                             .uniform = (float)ops_rig_below(1000) / 1000};
        draw_lists(&all[r], N, 20, 3);
    }
    assert_int_equal(choose(o, all, ROWS, x, N, N), 0);
    for (int r = 0; r < ROWS; r++) {
        *alone = all[r];
        assert_int_equal(choose(o, alone, 1, x + r * N, N, N), 0);
        assert_memory_equal(alone->ids, all[r].ids, sizeof(alone->ids));
        assert_memory_equal(alone->values, all[r].values, sizeof(alone->values));
        assert_memory_equal(alone->logprobs, all[r].logprobs, sizeof(alone->logprobs));
    }
    free(all);
    free(alone);
    free(x);
}

/* -- sampling -- */

/* What sampler.c gives for a row. */
struct expected {
    double *probabilities, *before; /* of each id, and of all before it */
    double log_sum;
};

static struct expected expect(const struct choose_data *d, const float *x, int64_t vocab)
{
    struct expected e = {.probabilities = calloc((size_t)vocab, sizeof(double)),
                         .before = calloc((size_t)vocab + 1, sizeof(double))};
    float *scores = ops_rig_buffer((size_t)vocab);

    assert_true(e.probabilities && e.before);
    e.log_sum = sampler_process(&d->row, x, vocab, scores);
    assert_int_equal(sampler_probabilities(&d->row, scores, vocab, e.probabilities), 0);
    for (int64_t i = 0; i < vocab; i++)
        e.before[i + 1] = e.before[i] + e.probabilities[i];
    free(scores);
    return e;
}

/* The one whose share `uniform` is in, but for shares that begin or end within `near` of it. */
static void assert_drawn(const struct expected *e, const float *x, int64_t vocab, const struct choose_data *d,
                         double near)
{
    const int32_t id = d->ids[0];
    const double u = (double)d->row.uniform;

    assert_true(id >= 0 && id < vocab && e->probabilities[id] > 0);
    assert_true(u >= e->before[id] - near && u <= e->before[id + 1] + near);
    assert_true(fabs((double)d->values[0] - e->probabilities[id]) <= 1e-6 * e->probabilities[id] + 1e-7);
    assert_close(d->logprobs[0], (float)((double)x[id] - e->log_sum));
}

/* In the middle of the larger shares of the unit interval, at its ends, and anywhere. */
static void draw_uniforms(struct choose_data *d, int n_rows, const struct choose_data *like, const struct expected *e,
                          int64_t vocab)
{
    int n = 0;

    for (int64_t i = 0; i < vocab && n < n_rows / 2; i++)
        if (e->probabilities[i] > 1e-3 || (e->probabilities[i] > 1e-5 && i % 7 == 0))
            d[n++].row.uniform = (float)(e->before[i] + e->probabilities[i] / 2);
    d[n++].row.uniform = 0;
    d[n++].row.uniform = 0.99999994f;
    while (n < n_rows)
        d[n++].row.uniform = (float)ops_rig_below(1 << 24) * 0x1p-24f;
    for (int i = 0; i < n_rows; i++) {
        const float uniform = d[i].row.uniform;

        d[i] = *like;
        d[i].row.uniform = uniform;
    }
}

static void check_sampling(const struct cuda_rig *g, int64_t vocab, float temperature, int top_k, float top_p,
                           int n_seen)
{
    const int n_rows = cuda_rig_is_emulated() ? vocab > 5000 ? 6 : 30 : 200;
    struct ops *o = g->cuda[CUDA_RIG_F32];
    const int64_t ld = vocab + ops_rig_below(2);
    float *x = ops_rig_random(g->ref, (size_t)(n_rows * ld));
    struct choose_data *like = data_new(1), *d = data_new((size_t)n_rows);
    struct expected e;

    like->row = (struct ops_choose_row){.sample = true,
                                        .n_best = 1,
                                        .log_softmax = n_seen % 2,
                                        .repetition_penalty = 1.4f,
                                        .temperature = temperature,
                                        .top_k = top_k,
                                        .top_p = top_p};
    for (int64_t i = 0; i < vocab; i++)
        x[i] = top_k % 2 ? roundf(x[i] * 4) : x[i] * 4; /* ties at the k-th, or none */
    for (int r = 1; r < n_rows; r++)
        memcpy(x + r * ld, x, (size_t)vocab * sizeof(*x));
    draw_lists(like, vocab, n_seen, n_seen / 2);
    e = expect(like, x, vocab);
    draw_uniforms(d, n_rows, like, &e, vocab);
    assert_int_equal(choose(o, d, n_rows, x, vocab, ld), 0);
    for (int i = 0; i < n_rows; i++)
        assert_drawn(&e, x, vocab, &d[i], 1e-6);
    free(e.probabilities);
    free(e.before);
    free(like);
    free(d);
    free(x);
}

static void test_cuda_choose_draws_every_id_with_its_probability(void **state)
{
    static const int64_t vocabs[] = {1, 2, 17, 100, 1216, 9001, 50304};
    struct cuda_rig *g = cuda_rig_get(state);

    for (size_t v = 0; v < sizeof(vocabs) / sizeof(*vocabs); v++) {
        check_sampling(g, vocabs[v], 1, 0, 1, 0);
        check_sampling(g, vocabs[v], 0.7f, 0, 1, 5);
        check_sampling(g, vocabs[v], 1.3f, 5, 1, 0);
        check_sampling(g, vocabs[v], 1, 50, 1, 9);
        check_sampling(g, vocabs[v], 0.02f, 60, 1, 0); /* the 60th has next to no probability */
        check_sampling(g, vocabs[v], 1, 0, 0.9f, 3);
        check_sampling(g, vocabs[v], 1, 0, 0.05f, 0);
        check_sampling(g, vocabs[v], 1.9f, 0, 0.999f, 0);
        check_sampling(g, vocabs[v], 0.9f, 40, 0.8f, 7);
        check_sampling(g, vocabs[v], 1, 300, 0.95f, 0);
        check_sampling(g, vocabs[v], 1000, 0, 0.5f, 0); /* as good as flat */
    }
}

/* An id is drawn if the sum passes `uniform`: reaching it is not enough. */
static void test_cuda_choose_passes_uniform(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);
    struct choose_data *d = data_new(5);
    float x[5 * 4] = {0};

    for (int r = 0; r < 5; r++)
        d[r].row = (struct ops_choose_row){.sample = true,
                                           .n_best = 1,
                                           .repetition_penalty = 1,
                                           .temperature = 1,
                                           .top_p = 1,
                                           .uniform = (float)r / 4};
    d[4].row.uniform = nextafterf(0.25f, 0);
    check_rows(g, d, 5, x, 4, 4);
    assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, 5, x, 4, 4), 0);
    for (int r = 0; r < 5; r++)
        assert_int_equal(d[r].ids[0], r % 4);
    free(d);
}

/* A flat row is the worst case of top_p: everything ties. The longer one does not fit into the list of a bucket. */
static void test_cuda_choose_nucleus_of_a_flat_row(void **state)
{
    static const int lengths[] = {1000, 5000};
    struct cuda_rig *g = cuda_rig_get(state);

    for (int i = 0; i < 2; i++) {
        const int n = lengths[i], kept = n / 4 + 1;
        float *x = ops_rig_buffer((size_t)(4 * n));
        struct choose_data *d = data_new(4);

        memset(x, 0, (size_t)(4 * n) * sizeof(*x));
        for (int r = 0; r < 4; r++)
            d[r].row = (struct ops_choose_row){.sample = true,
                                               .n_best = 1,
                                               .repetition_penalty = 1,
                                               .temperature = 1,
                                               .top_p = ((float)kept - 0.5f) / (float)n,
                                               .top_k = r < 2 ? 0 : 7, /* all equal the 7th */
                                               .uniform = r % 2 ? 0.99999994f : 0};
        assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, 4, x, n, n), 0);
        for (int r = 0; r < 4; r++) {
            assert_int_equal(d[r].ids[0], r % 2 ? n - 1 : n - kept); /* of equals the lowest ids go first */
            assert_true(fabsf(d[r].values[0] - 1 / (float)kept) < 1e-7f);
        }
        free(x);
        free(d);
    }
}

/* Stretches of ids that are longer than what is looked into at once. */
static void test_cuda_choose_draws_from_a_vast_vocabulary(void **state)
{
    enum { N = 1100003 };
    struct cuda_rig *g = cuda_rig_get(state);
    float *x = ops_rig_random(g->ref, N);
    struct choose_data *d = data_new(1);
    struct expected e;

    d->row =
        (struct ops_choose_row){.sample = true, .n_best = 1, .repetition_penalty = 1, .temperature = 1, .top_p = 1};
    e = expect(d, x, N);
    for (int i = 0; i < 4; i++) {
        /* the end of a stretch of 1152 */
        d->row.uniform =
            (float)(i < 3 ? (e.before[1152 * (i * 300 + 1) - 1] + e.before[1152 * (i * 300 + 1)]) / 2 : 0.4);
        assert_int_equal(choose(g->cuda[CUDA_RIG_F32], d, 1, x, N, N), 0);
        assert_drawn(&e, x, N, d, 1e-6);
    }
    free(e.probabilities);
    free(e.before);
    free(x);
    free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_choose_greedy_equals_reference),
        cmocka_unit_test(test_cuda_choose_passes_over_listed_ids),
        cmocka_unit_test(test_cuda_choose_shows_nan),
        cmocka_unit_test(test_cuda_choose_refuses_a_row_without_a_finite_value),
        cmocka_unit_test(test_cuda_choose_n_best_equals_reference),
        cmocka_unit_test(test_cuda_choose_random_rows_equal_reference),
        cmocka_unit_test(test_cuda_choose_takes_the_lowest_id_first_on_ties),
        cmocka_unit_test(test_cuda_choose_ties_after_the_log_softmax),
        cmocka_unit_test(test_cuda_choose_from_sorted_logits),
        cmocka_unit_test(test_cuda_choose_from_a_vast_vocabulary),
        cmocka_unit_test(test_cuda_choose_rows_do_not_depend_on_the_batch),
        cmocka_unit_test(test_cuda_choose_draws_every_id_with_its_probability),
        cmocka_unit_test(test_cuda_choose_passes_uniform),
        cmocka_unit_test(test_cuda_choose_nucleus_of_a_flat_row),
        cmocka_unit_test(test_cuda_choose_draws_from_a_vast_vocabulary),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
