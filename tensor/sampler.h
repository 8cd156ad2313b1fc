/* sampler.h - from one row of logits to tokens: the reference for sample() of ops.h, in plain loops over the
 * vocabulary.
 *
 * The steps are those of transformers' logits processors and warpers, each sum in double. The reference back end is
 * this; the CPU back end takes the scores from here, and every back end is compared with it. Equal values: the lowest
 * id is chosen first, and top_p drops it first, as transformers' stable ascending sort does.
 *
 * Who may call: anyone, from any thread.
 * Units:  natural logarithms; ids count from 0 to vocab-1.
 * Memory: scratch of 24 bytes per logit, freed before return.
 * Errors: -ENOMEM; -EDOM: a logit is not finite, or no id is left to choose; outputs are then untouched. */
#ifndef BLIPLINE_TENSOR_SAMPLER_H
#define BLIPLINE_TENSOR_SAMPLER_H

#include "base/err.h"
#include "tensor/ops.h"

#include <stdint.h>

/* A score: log_sum is the logarithm of the sum of e^logit. */
static inline float sampler_score(bool log_softmax, float logit, double log_sum)
{
    return log_softmax ? (float)(logit - log_sum) : logit;
}

/* The score of an id that was seen. */
static inline float sampler_penalised(const struct ops_sample_row *row, float score)
{
    return score < 0 ? score * row->repetition_penalty : score / row->repetition_penalty;
}

/* Log-softmax if asked for, repetition penalty, bans, when sampling temperature. logits and scores [vocab]. */
void sampler_scores(const struct ops_sample_row *row, const float *logits, int64_t vocab, double log_sum,
                    float *scores);
/* The same; returns log_sum, or NaN and no scores where a logit is not finite. */
double sampler_process(const struct ops_sample_row *row, const float *logits, int64_t vocab, float *scores);
/* top_k, top_p, softmax: scores and probabilities [vocab]; the row samples. */
int sampler_probabilities(const struct ops_sample_row *row, const float *scores, int64_t vocab,
                          double *probabilities) CHECK_RESULT;
/* All steps; fills the row's ret_ids, ret_values and ret_logprobs. */
int sampler_run(const struct ops_sample_row *row, const float *logits, int64_t vocab) CHECK_RESULT;

#endif
