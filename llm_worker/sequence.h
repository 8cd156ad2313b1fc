/* sequence.h - one request on its way to a result, and the queues it stands in.
 *
 * Who may call: generate.c. Units: tokens.
 * Memory: one allocation a sequence: the struct, the image rows, prompt and new ids. A sequence is in one list at a
 * time. Errors: NULL or -ENOMEM. */
#ifndef BLIPLINE_LLM_WORKER_SEQUENCE_H
#define BLIPLINE_LLM_WORKER_SEQUENCE_H

#include "llm_worker/generate.h"

#include <stddef.h>
#include <stdint.h>

struct sequence {
    struct sequence *next;
    uint64_t tag;
    int slot; /* of the KV cache, while active */
    int n_image_rows, n_prompt, max_new_tokens, n_eos;
    int n_cached; /* positions that the slot holds */
    int n_new;
    double logprob;
    enum generate_finish finish;
    float *image_rows; /* [n_image_rows, L] */
    int32_t *prompt;   /* [n_prompt] */
    int32_t *ids;      /* [max_new_tokens] */
    int32_t eos[GENERATE_MAX_EOS];
};

struct sequence_list {
    struct sequence *first, *last;
    int n;
};

/* Copies the request; `width` is L. NULL: no memory. Free with free(). */
struct sequence *sequence_new(const struct generate_request *r, int width);
/* Append a chosen token. Returns 1 when the sequence is finished, else 0. */
int sequence_push(struct sequence *s, int32_t id, float logprob);

void sequence_list_push(struct sequence_list *l, struct sequence *s);
struct sequence *sequence_list_pop(struct sequence_list *l); /* NULL: empty */
/* Free every sequence with this tag, or all of them (tag NULL). Returns how many. */
int sequence_list_drop(struct sequence_list *l, const uint64_t *tag);

#endif
