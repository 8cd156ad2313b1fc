/* llm_flow.h - the language model under a steady flow of pictures, as its daemon sees it: as many requests at once as
 * are wanted, a new one for each that is done.
 *
 * Requests have random projected queries and the bos token as their prompt. Forced: each makes n_new tokens, the end
 * held back until then. Natural: each has a length of its own, bench_natural_length(); what ends is decided by the
 * number of tokens, so that random weights do not matter. In batches: the next requests wait until all are done.
 * Who may call: benchmarks, one thread. Units: requests (images), new tokens, seconds.
 * Memory: llm_flow_free; checkpoint and operators must outlive it. Errors: 0 or a negative errno with err. */
#ifndef BLIPLINE_BENCH_LLM_FLOW_H
#define BLIPLINE_BENCH_LLM_FLOW_H

#include "base/err.h"
#include "model/checkpoint.h"
#include "tensor/ops.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LLM_FLOW_LONGEST = 30 /* natural captions */ };

struct llm_flow_conf {
    int most;      /* requests at once, at most */
    int n_beams;   /* 1: greedy */
    int n_new;     /* forced tokens of each */
    int pass_rows; /* rows of prompts in one pass, at most; 0: as the worker has them on a GPU */
};
struct llm_flow_run {
    int at_once; /* <= most */
    bool natural, in_batches;
    double seconds; /* at least, after as many requests as run at once have come through */
};
struct llm_flow_result {
    double seconds;
    int64_t images, tokens, steps;
};
struct llm_flow;

int llm_flow_new(struct ops *o, const struct checkpoint *c, const struct llm_flow_conf *conf, struct llm_flow **ret,
                 struct err *err) CHECK_RESULT;
void llm_flow_free(struct llm_flow *f);
size_t llm_flow_cache_bytes(const struct llm_flow *f);
int llm_flow_run(struct llm_flow *f, const struct llm_flow_run *run, struct llm_flow_result *ret,
                 struct err *err) CHECK_RESULT;

/* Tokens of caption number i: 1 .. LLM_FLOW_LONGEST, 10.5 in the mean; the same in tests/bench/hf_blip2.py. */
int bench_natural_length(uint64_t i);

#endif
