#include "llm_worker/sequence.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct sequence *sequence_new(const struct generate_request *r, int width)
{
    const size_t n_floats = (size_t)r->n_image_rows * (size_t)width;
    const size_t n_ids = (size_t)r->n_prompt + (size_t)r->max_new_tokens;
    struct sequence *s = malloc(sizeof(*s) + n_floats * sizeof(float) + n_ids * sizeof(int32_t));

    if (!s)
        return NULL;
    *s = (struct sequence){
        .tag = r->tag,
        .slot = -1,
        .n_image_rows = r->n_image_rows,
        .n_prompt = r->n_prompt,
        .max_new_tokens = r->max_new_tokens,
        .n_eos = r->n_eos,
        .image_rows = (float *)(s + 1),
    };
    s->prompt = (int32_t *)(void *)(s->image_rows + n_floats);
    s->ids = s->prompt + r->n_prompt;
    if (n_floats)
        memcpy(s->image_rows, r->image_rows, n_floats * sizeof(float));
    if (r->n_prompt)
        memcpy(s->prompt, r->prompt, (size_t)r->n_prompt * sizeof(int32_t));
    if (r->n_eos)
        memcpy(s->eos, r->eos, (size_t)r->n_eos * sizeof(int32_t));
    return s;
}

int sequence_push(struct sequence *s, int32_t id, float logprob)
{
    assert(s->n_new < s->max_new_tokens);
    s->ids[s->n_new++] = id;
    s->logprob += (double)logprob;
    for (int i = 0; i < s->n_eos; i++)
        if (s->eos[i] == id) {
            s->finish = GENERATE_FINISH_EOS;
            return 1;
        }
    s->finish = GENERATE_FINISH_LENGTH;
    return s->n_new == s->max_new_tokens;
}

void sequence_list_push(struct sequence_list *l, struct sequence *s)
{
    s->next = NULL;
    if (l->last)
        l->last->next = s;
    else
        l->first = s;
    l->last = s;
    l->n++;
}

struct sequence *sequence_list_pop(struct sequence_list *l)
{
    struct sequence *s = l->first;

    if (!s)
        return NULL;
    l->first = s->next;
    if (!l->first)
        l->last = NULL;
    l->n--;
    s->next = NULL;
    return s;
}

int sequence_list_drop(struct sequence_list *l, const uint64_t *tag)
{
    struct sequence_list kept = {0};
    struct sequence *s;
    int n = 0;

    while ((s = sequence_list_pop(l))) {
        if (tag && s->tag != *tag) {
            sequence_list_push(&kept, s);
            continue;
        }
        free(s);
        n++;
    }
    *l = kept;
    return n;
}
