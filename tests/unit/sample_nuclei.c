#include "tests/unit/sample_nuclei.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "tensor/sampler.h"

/* With another top_p. Returns how many ids are left. */
static int64_t cut_at(struct ops_sample_row row, float top_p, const float *scores, struct sample_nuclei *n)
{
    int64_t n_kept = 0;

    row.top_p = top_p;
    assert_int_equal(sampler_probabilities(&row, scores, n->vocab, n->probabilities), 0);
    for (int64_t i = 0; i < n->vocab; i++)
        n_kept += n->probabilities[i] > 0;
    return n_kept;
}

static double most_probable(const struct sample_nuclei *n)
{
    double most = 0;

    for (int64_t i = 0; i < n->vocab; i++)
        most = fmax(most, n->probabilities[i]);
    return most;
}

/* Of a weight e^d, as a share of it: e^d is off by exp_ulps, and the f32 d by half an ulp of itself. */
static double weight_error(const struct sample_nuclei *n, double d)
{
    return n->rounded * (2 * n->exp_ulps + fabs(d)) * 0x1p-24;
}

struct sample_nuclei sample_nuclei_new(const struct ops_sample_row *row, const float *scores, int64_t vocab,
                                       double exp_ulps, double unit)
{
    struct sample_nuclei n = {.probabilities = calloc((size_t)vocab, sizeof(double)),
                              .vocab = vocab,
                              .exp_ulps = exp_ulps,
                              /* scores after log-softmax are off by an ulp, |score| <= |d| + log(vocab), and those with
                               * a penalty by the error of the logarithm too: less than 8 times as much if temperature
                               * is at least 0.7 */
                              .rounded = row->log_softmax ? 8 : 1};
    float least = row->top_p, most = row->top_p;
    double largest;

    assert_non_null(n.probabilities);
    if (exp_ulps > 0) {
        n.n_kept = cut_at(*row, 1, scores, &n);
        largest = most_probable(&n);
        for (int64_t i = 0; i < vocab; i++)
            if (n.probabilities[i] > 0)
                n.error += n.probabilities[i] * weight_error(&n, log(n.probabilities[i] / largest)) + largest * unit;
        if (row->top_p < 1) { /* the sum above and the whole sum are off by `error` each */
            least = nextafterf((float)(row->top_p - 2 * n.error), 0);
            most = fminf(nextafterf((float)(row->top_p + 2 * n.error), 2), 1);
        }
    }
    n.n_least = cut_at(*row, least, scores, &n);
    n.n_kept = cut_at(*row, most, scores, &n);
    return n;
}

bool sample_nuclei_next(struct sample_nuclei *n)
{
    double *p = n->probabilities, rest;
    int64_t last = -1;

    if (n->n_kept == n->n_least)
        return false;
    for (int64_t i = 0; i < n->vocab; i++) /* of equals the lowest id goes first */
        if (p[i] > 0 && (last < 0 || p[i] < p[last]))
            last = i;
    rest = 1 - p[last];
    p[last] = 0;
    for (int64_t i = 0; i < n->vocab; i++)
        p[i] /= rest;
    n->n_kept--;
    return true;
}

double sample_nuclei_limit(const struct sample_nuclei *n, int64_t id)
{
    const double p = n->probabilities[id];

    /* its weight and the sum; the result is f32 */
    return p > 0 ? p * (weight_error(n, log(p / most_probable(n))) + n->error + 0x1p-24) : 0;
}

void sample_nuclei_free(struct sample_nuclei *n)
{
    free(n->probabilities);
}
