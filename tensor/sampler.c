#include "tensor/sampler.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

struct candidate {
    float value;
    int64_t place; /* among equals, the lowest comes first */
};

void sampler_scores(const struct ops_sample_row *row, const float *logits, int64_t vocab, double log_sum, float *scores)
{
    const float temperature = row->temperature;

    for (int64_t i = 0; i < vocab; i++)
        scores[i] = sampler_score(row->log_softmax, logits[i], log_sum);
    for (int i = 0; i < row->n_seen; i++) {
        assert(row->seen[i] >= 0 && row->seen[i] < vocab);
        scores[row->seen[i]] = sampler_penalised(row, scores[row->seen[i]]);
    }
    for (int i = 0; i < row->n_banned; i++) {
        assert(row->banned[i] >= 0 && row->banned[i] < vocab);
        scores[row->banned[i]] = -HUGE_VALF;
    }
    for (int64_t i = 0; row->sample && i < vocab; i++)
        scores[i] /= temperature;
}

double sampler_process(const struct ops_sample_row *row, const float *logits, int64_t vocab, float *scores)
{
    double max = -HUGE_VAL, sum = 0, log_sum;

    for (int64_t i = 0; i < vocab; i++) {
        if (!isfinite(logits[i]))
            return (double)NAN;
        max = logits[i] > max ? logits[i] : max;
    }
    for (int64_t i = 0; i < vocab; i++)
        sum += exp(logits[i] - max);
    /* cppcheck-suppress invalidFunctionArg ; the largest has added 1 to the sum */
    log_sum = max + log(sum);
    sampler_scores(row, logits, vocab, log_sum, scores);
    return log_sum;
}

/* The largest first. */
static int compare_candidates(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;

    if (a->value != b->value)
        return a->value > b->value ? -1 : 1;
    return a->place < b->place ? -1 : a->place > b->place;
}

/* Sorted scores. Among equals the lowest id comes first, but the highest when sampling: top_p drops from the end.
 * -EDOM: none is finite. */
static int sort_scores(const struct ops_sample_row *row, const float *scores, int64_t n, struct candidate **ret)
{
    struct candidate *c = malloc((size_t)n * sizeof(*c));

    if (!c)
        return -ENOMEM;
    for (int64_t i = 0; i < n; i++)
        c[i] = (struct candidate){scores[i], row->sample ? -i : i};
    qsort(c, (size_t)n, sizeof(*c), compare_candidates);
    if (!isfinite(c[0].value)) {
        free(c);
        return -EDOM;
    }
    *ret = c;
    return 0;
}

/* How many sorted candidates top_k keeps: all that equal the k-th stay. */
static int64_t keep_top_k(const struct candidate *c, int64_t n, int top_k)
{
    int64_t kept = top_k;

    if (top_k <= 0 || top_k >= n)
        return n;
    while (kept < n && c[kept].value == c[top_k - 1].value)
        kept++;
    return kept;
}

int sampler_probabilities(const struct ops_sample_row *row, const float *scores, int64_t vocab, double *probabilities)
{
    struct candidate *c;
    double sum = 0, above = 0;
    int64_t n, kept = 0;
    int rc = sort_scores(row, scores, vocab, &c);

    if (rc < 0)
        return rc;
    n = keep_top_k(c, vocab, row->top_k);
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)c[i].value - c[0].value);
    if (row->top_p < 1) {
        /* drop an id if those above it already reach top_p */
        while (kept < n && (kept == 0 || above < row->top_p * sum))
            above += exp((double)c[kept++].value - c[0].value);
        n = kept;
        sum = above;
    }
    for (int64_t i = 0; i < vocab; i++)
        probabilities[i] = 0;
    for (int64_t i = 0; i < n; i++)
        probabilities[-c[i].place] = exp((double)c[i].value - c[0].value) / sum;
    free(c);
    return 0;
}

static int draw(const struct ops_sample_row *row, const float *logits, int64_t vocab, const float *scores,
                double log_sum)
{
    double *probabilities = malloc((size_t)vocab * sizeof(*probabilities)), passed = 0;
    int64_t id = 0;
    int rc = probabilities ? sampler_probabilities(row, scores, vocab, probabilities) : -ENOMEM;

    if (rc == 0) {
        for (int64_t i = 0; i < vocab && passed <= row->uniform; i++)
            if (probabilities[i] > 0) {
                passed += probabilities[i];
                id = i;
            }
        row->ret_ids[0] = (int32_t)id;
        row->ret_values[0] = (float)probabilities[id];
        row->ret_logprobs[0] = (float)(logits[id] - log_sum);
    }
    free(probabilities);
    return rc;
}

static int pick_best(const struct ops_sample_row *row, const float *logits, int64_t vocab, const float *scores,
                     double log_sum)
{
    struct candidate *c;
    int rc = sort_scores(row, scores, vocab, &c);

    if (rc < 0)
        return rc;
    for (int i = 0; i < row->n_best; i++) {
        row->ret_ids[i] = (int32_t)c[i].place;
        row->ret_values[i] = c[i].value;
        row->ret_logprobs[i] = (float)(logits[c[i].place] - log_sum);
    }
    free(c);
    return 0;
}

int sampler_run(const struct ops_sample_row *row, const float *logits, int64_t vocab)
{
    float *scores;
    double log_sum;
    int rc;

    assert(row->n_best >= 1 && row->n_best <= vocab && (!row->sample || row->n_best == 1));
    scores = calloc((size_t)vocab, sizeof(*scores));
    if (!scores)
        return -ENOMEM;
    log_sum = sampler_process(row, logits, vocab, scores);
    rc = isnan(log_sum) ? -EDOM
         : row->sample  ? draw(row, logits, vocab, scores, log_sum)
                        : pick_best(row, logits, vocab, scores, log_sum);
    free(scores);
    return rc;
}
