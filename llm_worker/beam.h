/* beam.h - beam search for one request, as in transformers' generate (MODEL.md "Decoding").
 *
 * Input: candidates; output: parents and finished hypotheses. Ids are stored as a tree (a parent and an id per beam and
 * step), so that reordering beams copies nothing.
 * Who may call: one thread.
 * Units: tokens; scores are sums of processed log-probabilities, in f32 as in the reference; log-probabilities are sums
 * of the model's unprocessed ones.
 * Memory: one allocation of about 8 * n_beams * max_new_tokens bytes.
 * Errors: NULL if out of memory. */
#ifndef BLIPLINE_LLM_WORKER_BEAM_H
#define BLIPLINE_LLM_WORKER_BEAM_H

#include "llm_worker/generate.h"

#include <stdbool.h>
#include <stdint.h>

struct beam;

struct beam_options {
    int n_beams, max_new_tokens;
    float length_penalty;
    enum early_stopping early_stopping;
    const int32_t *eos; /* copied; at most GENERATE_MAX_EOS */
    int n_eos;
};

/* The best continuations of one beam: [beam_n_best_of()] of each, largest value first. */
struct beam_candidates {
    const int32_t *ids;
    const float *values;   /* processed log-probabilities */
    const float *logprobs; /* unprocessed ones */
};

struct beam_hypothesis {
    int n_ids;
    float score; /* sum / n_ids ^ length_penalty */
    double logprob;
    enum generate_finish finish;
};

struct beam *beam_new(const struct beam_options *options);
void beam_free(struct beam *b);

/* Candidates needed per beam: max(2, 1 + n_eos) * n_beams, so that enough remain when some end. */
int beam_n_best_of(int n_beams, int n_eos);
int beam_n_best(const struct beam *b);

/* Runs one step. candidates: one per beam; all equal before the first token. Returns true if the search is finished;
 * else ret_parents[n_beams] holds the beam that each new beam continues. */
bool beam_step(struct beam *b, const struct beam_candidates *candidates, int *ret_parents);

/* The last id of a running beam; all its ids, one per step, to ret. */
int32_t beam_last_id(const struct beam *b, int beam);
void beam_path(const struct beam *b, int beam, int32_t *ret);

/* Hypothesis `i` of n_beams, best first, after the search. n_ids 0: empty. */
struct beam_hypothesis beam_hypothesis(const struct beam *b, int i);
/* Writes its ids to ret [n_ids]. */
void beam_hypothesis_path(const struct beam *b, int i, int32_t *ret);

#endif
