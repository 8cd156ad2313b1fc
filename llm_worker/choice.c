#include "llm_worker/choice.h"

#include "tensor/ops.h"

#include <errno.h>
#include <stdlib.h>

int choice_greedy(struct ops *o, int n, int vocab, const float *logits, int32_t *ret_ids, float *ret_logprob)
{
    struct ops_choose_row *rows = calloc((size_t)n, sizeof(*rows));
    float *values = calloc((size_t)n, sizeof(*values));
    int rc = -ENOMEM;

    if (rows && values) {
        for (int i = 0; i < n; i++)
            rows[i] = (struct ops_choose_row){.n_best = 1,
                                              .repetition_penalty = 1,
                                              .ret_ids = &ret_ids[i],
                                              .ret_values = &values[i],
                                              .ret_logprobs = &ret_logprob[i]};
        rc = o->f->choose(
            o, &(struct ops_choose_args){.n_rows = n, .vocab = vocab, .logits = logits, .ld = vocab, .rows = rows});
    }
    free(values);
    free(rows);
    return rc;
}
