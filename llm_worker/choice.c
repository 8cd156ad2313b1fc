#include "llm_worker/choice.h"

#include "tensor/ops.h"

int choice_greedy(struct ops *o, int n, int vocab, const float *logits, int32_t *ret_ids, float *ret_logprob)
{
    return o->f->argmax_logprob(o, n, vocab, logits, vocab, ret_ids, ret_logprob);
}
