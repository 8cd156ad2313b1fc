/* request.h - a running request: its sequences, its rows of the KV cache, and the list it waits in.
 *
 * A sequence grows by one token per step. It is a beam, a sample, or the only sequence of greedy decoding. All
 * sequences of a request share the rows of the prompt; a sequence's other rows are its tail (lm.h). The rows of a
 * request are consecutive: the prompt, T5's start token, then one row per sequence for each token that is fed back.
 * Who may call: generate.c.
 * Units: tokens, rows of the cache.
 * Memory: request_new copies the request; request_start allocates the sequences. A request is in one list at a time.
 * Errors: NULL or -ENOMEM. */
#ifndef BLIPLINE_LLM_WORKER_REQUEST_H
#define BLIPLINE_LLM_WORKER_REQUEST_H

#include "llm_worker/generate.h"
#include "llm_worker/lm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct beam;

/* Greedy and sampling; beams are in `beam`. */
struct sequence {
    int32_t *ids; /* [max_new_tokens] */
    double logprob;
    bool done;
    int n_ids;
    enum generate_finish finish;
};

struct request {
    struct request *next;
    uint64_t tag, key;
    struct generation_options options;
    int32_t eos[GENERATE_MAX_EOS];
    int n_eos;
    void *image_rows; /* [n_image_rows, L] */
    enum dtype image_dtype;
    int n_image_rows;
    int32_t *prompt;
    int n_prompt;
    int32_t *head; /* [n_head] the ids before the first new token, as penalties see them */
    int n_head;
    int n_sequences;
    int n_prefix, n_start; /* rows of the prompt; of the start token: 0 or 1 */
    int n_kv_rows;         /* all its rows of the cache */

    /* set by request_start */
    int kv_first;
    int n_live; /* sequences that have not ended */
    int n_new;  /* new tokens of each */
    bool failed;
    bool cancelled;             /* during a step: the request is dropped when the step ends */
    struct beam *beam;          /* NULL: greedy or sampling */
    struct sequence *sequences; /* [n_sequences]; with beams NULL */
    int32_t *tails, *spare;     /* [n_sequences, n_start + max_new_tokens - 1] each, in tail_block */
    int32_t *tail_block;
    int *entries; /* [n_sequences] results of sampling_add in this step */
};

struct request_list {
    struct request *first, *last;
    int n;
};

/* The n_best candidates for the next token. Greedy decoding and sampling take the first. */
struct sampling_result {
    const int32_t *ids;
    const float *values, *logprobs;
    bool none; /* no finite value: all values are -inf */
};

/* How many sequences a request with these options has. */
int request_n_sequences(const struct generation_options *o);
/* How many rows of the cache a request holds. */
int64_t request_n_kv_rows(const struct lm *m, const struct generate_request *r);

/* image_id: the id that penalties see for each image row; -1: none. NULL if out of memory. */
struct request *request_new(const struct lm *m, const struct generate_request *r, int32_t image_id);
void request_free(struct request *q);

/* Starts with the cache rows from kv_first. On -ENOMEM nothing has changed. */
int request_start(struct request *q, int kv_first) CHECK_RESULT;
/* The input of the first forward pass, which gives one row of logits for all sequences. */
struct lm_start request_first(const struct request *q);
/* The newest token of each live sequence, with the row that it takes; ret has room for n_live. Returns n_live. */
int request_next(struct request *q, struct lm_token *ret);
/* The i-th live sequence. */
int request_live(const struct request *q, int i);
/* Copies head and new ids of a sequence to ret [n_head + n_new]. Returns their number. */
int request_ids(const struct request *q, int sequence, int32_t *ret);
/* Appends a token to each live sequence; sampled [n_sequences]. Returns true if the request is finished. */
bool request_advance(struct request *q, const struct sampling_result *sampled);
/* The request must be finished. */
int request_result(const struct request *q, struct generate_result *ret) CHECK_RESULT;

void request_list_push(struct request_list *l, struct request *q);
struct request *request_list_pop(struct request_list *l); /* NULL if empty */
/* Frees every request with this tag, or all (tag NULL). Returns their number. */
int request_list_drop(struct request_list *l, const uint64_t *tag);

#endif
