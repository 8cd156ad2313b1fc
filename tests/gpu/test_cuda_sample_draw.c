#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/sampler.h"
#include "tests/gpu/sample_rig.h"
#include "tests/unit/ops_rig.h"
#include "tests/unit/sample_nuclei.h"

/* Sampling on a device against the definition in sampler.c. */

/* What sampler.c gives for a row, in one of the nuclei that the device may have. */
struct expected {
    struct sample_nuclei nuclei;
    double *before; /* the probabilities of all before an id */
    double log_sum;
};

static void sum_probabilities(struct expected *e)
{
    for (int64_t i = 0; i < e->nuclei.vocab; i++)
        e->before[i + 1] = e->before[i] + e->nuclei.probabilities[i];
}

static struct expected expect(const struct sample_data *d, const float *x, int64_t vocab)
{
    struct expected e = {.before = calloc((size_t)vocab + 1, sizeof(double))};
    float *scores = ops_rig_buffer((size_t)vocab);

    assert_non_null(e.before);
    e.log_sum = sampler_process(&d->row, x, vocab, scores);
    /* CUDA's expf; weights are cut to units of 2^-40, and to 0 below e^-29 */
    e.nuclei = sample_nuclei_new(&d->row, scores, vocab, 2, 0x1p-39);
    sum_probabilities(&e);
    free(scores);
    return e;
}

static void expected_release(struct expected *e)
{
    sample_nuclei_free(&e->nuclei);
    free(e->before);
}

/* True if it is the one whose share `uniform` is in, but for the rounding of sums. */
static bool is_drawn(const struct expected *e, const float *x, const struct sample_data *d)
{
    const double u = (double)d->row.uniform, near = 2 * e->nuclei.error;
    const int32_t id = d->ids[0];
    double p;

    assert_true(id >= 0 && id < e->nuclei.vocab);
    sample_data_close(d->logprobs[0], (float)((double)x[id] - e->log_sum));
    p = e->nuclei.probabilities[id];
    return p > 0 && u >= e->before[id] - near && u <= e->before[id + 1] + near &&
           fabs((double)d->values[0] - p) <= sample_nuclei_limit(&e->nuclei, id);
}

/* All n rows, from the same nucleus. */
static void assert_drawn(struct expected *e, const float *x, const struct sample_data *d, int n)
{
    for (int i = 0; i < n;) {
        if (is_drawn(e, x, &d[i])) {
            i++;
            continue;
        }
        assert_true(sample_nuclei_next(&e->nuclei));
        sum_probabilities(e);
        i = 0;
    }
}

/* In the middle of the larger shares of the unit interval, at its ends, and anywhere. */
static void draw_uniforms(struct sample_data *d, int n_rows, const struct sample_data *like, const struct expected *e,
                          int64_t vocab)
{
    const double *probabilities = e->nuclei.probabilities;
    int n = 0;

    for (int64_t i = 0; i < vocab && n < n_rows / 2; i++)
        if (probabilities[i] > 1e-3 || (probabilities[i] > 1e-5 && i % 7 == 0))
            d[n++].row.uniform = (float)(e->before[i] + probabilities[i] / 2);
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
    struct sample_data *like = sample_rig_new(1), *d = sample_rig_new((size_t)n_rows);
    struct expected e;

    like->row = (struct ops_sample_row){.sample = true,
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
    sample_data_lists(like, vocab, n_seen, n_seen / 2);
    e = expect(like, x, vocab);
    draw_uniforms(d, n_rows, like, &e, vocab);
    assert_int_equal(sample_rig_run(o, d, n_rows, x, vocab, ld), 0);
    assert_drawn(&e, x, d, n_rows);
    expected_release(&e);
    free(like);
    free(d);
    free(x);
}

static void test_cuda_sample_draws_every_id_with_its_probability(void **state)
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
static void test_cuda_sample_passes_uniform(void **state)
{
    struct cuda_rig *g = cuda_rig_get(state);
    struct sample_data *d = sample_rig_new(5);
    float x[5 * 4] = {0};

    for (int r = 0; r < 5; r++)
        d[r].row = (struct ops_sample_row){.sample = true,
                                           .n_best = 1,
                                           .repetition_penalty = 1,
                                           .temperature = 1,
                                           .top_p = 1,
                                           .uniform = (float)r / 4};
    d[4].row.uniform = nextafterf(0.25f, 0);
    sample_rig_check(g, d, 5, x, 4, 4);
    assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], d, 5, x, 4, 4), 0);
    for (int r = 0; r < 5; r++)
        assert_int_equal(d[r].ids[0], r % 4);
    free(d);
}

/* A flat row is the worst case of top_p: everything ties. The longer one does not fit into the list of a bucket. */
static void test_cuda_sample_nucleus_of_a_flat_row(void **state)
{
    static const int lengths[] = {1000, 5000};
    struct cuda_rig *g = cuda_rig_get(state);

    for (int i = 0; i < 2; i++) {
        const int n = lengths[i], kept = n / 4 + 1;
        float *x = ops_rig_buffer((size_t)(4 * n));
        struct sample_data *d = sample_rig_new(4);

        memset(x, 0, (size_t)(4 * n) * sizeof(*x));
        for (int r = 0; r < 4; r++)
            d[r].row = (struct ops_sample_row){.sample = true,
                                               .n_best = 1,
                                               .repetition_penalty = 1,
                                               .temperature = 1,
                                               .top_p = ((float)kept - 0.5f) / (float)n,
                                               .top_k = r < 2 ? 0 : 7, /* all equal the 7th */
                                               .uniform = r % 2 ? 0.99999994f : 0};
        assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], d, 4, x, n, n), 0);
        for (int r = 0; r < 4; r++) {
            assert_int_equal(d[r].ids[0], r % 2 ? n - 1 : n - kept); /* of equals the lowest ids go first */
            assert_true(fabsf(d[r].values[0] - 1 / (float)kept) < 1e-7f);
        }
        free(x);
        free(d);
    }
}

/* Stretches of ids that are longer than what is looked into at once. */
static void test_cuda_sample_draws_from_a_vast_vocabulary(void **state)
{
    enum { N = 1100003 };
    struct cuda_rig *g = cuda_rig_get(state);
    float *x = ops_rig_random(g->ref, N);
    struct sample_data *d = sample_rig_new(1);
    struct expected e;

    d->row =
        (struct ops_sample_row){.sample = true, .n_best = 1, .repetition_penalty = 1, .temperature = 1, .top_p = 1};
    e = expect(d, x, N);
    for (int i = 0; i < 4; i++) {
        /* the end of a stretch of 1152 */
        d->row.uniform =
            (float)(i < 3 ? (e.before[1152 * (i * 300 + 1) - 1] + e.before[1152 * (i * 300 + 1)]) / 2 : 0.4);
        assert_int_equal(sample_rig_run(g->cuda[CUDA_RIG_F32], d, 1, x, N, N), 0);
        assert_drawn(&e, x, d, 1);
    }
    expected_release(&e);
    free(x);
    free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_sample_draws_every_id_with_its_probability),
        cmocka_unit_test(test_cuda_sample_passes_uniform),
        cmocka_unit_test(test_cuda_sample_nucleus_of_a_flat_row),
        cmocka_unit_test(test_cuda_sample_draws_from_a_vast_vocabulary),
    };

    return cmocka_run_group_tests(tests, cuda_rig_setup, cuda_rig_teardown);
}
