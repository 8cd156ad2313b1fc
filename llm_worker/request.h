/* request.h - one request while it runs: its sequences, its rows of the KV cache, and the list it waits in.
 *
 * A sequence grows by a token a step: it is a beam, a sample, or the only one of greedy decoding. All sequences of a
 * request share the rows of the prompt; the further rows of the cache that a sequence attends to are its tail (lm.h).
 * The rows of a request are consecutive: the prompt, T5's start token, then a row a sequence for each token that is fed
 * back.
 * Who may call: generate.c.
 * Units: tokens, rows of the cache.
 * Memory: request_new copies the request; request_start allocates what grows. A request is in one list at a time.
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
    int n_kv_rows;         /* all of its rows of the cache */

    /* set by request_start */
    int kv_first;
    int n_live; /* sequences that still grow */
    int n_new;  /* tokens of each of those */
    bool failed;
    bool cancelled;             /* during a step: the request is dropped when the step ends */
    struct beam *beam;          /* NULL: greedy or sampling */
    struct sequence *sequences; /* [n_sequences]; with beams NULL */
    int32_t *tails, *spare;     /* [n_sequences, n_start + max_new_tokens - 1] each, in tail_block */
    int32_t *tail_block;
    int *entries; /* [n_sequences] numbers from sampling_add, of this step */
};

struct request_list {
    struct request *first, *last;
    int n;
};

/* The candidates for the next token, n_best of them. Greedy decoding and sampling take the first. */
struct sampling_result {
    const int32_t *ids;
    const float *values, *logprobs;
    bool none; /* no finite value was left: all values are -inf */
};

/* How many sequences a request with these options has. */
int request_n_sequences(const struct generation_options *o);
/* How many rows of the cache a request holds. */
int64_t request_n_kv_rows(const struct lm *m, const struct generate_request *r);

/* image_id: the id that penalties see for each image row; -1: none. Returns NULL without memory. */
struct request *request_new(const struct lm *m, const struct generate_request *r, int32_t image_id);
void request_free(struct request *q);

/* Start with the rows of the cache from kv_first on. -ENOMEM: nothing has changed. */
int request_start(struct request *q, int kv_first) CHECK_RESULT;
/* The first forward pass; it gives one row of logits for all sequences. */
struct lm_start request_first(const struct request *q);
/* The newest token of each live sequence, with the row that it takes; ret has room for n_live. Returns n_live. */
int request_next(struct request *q, struct lm_token *ret);
/* The i-th live sequence. */
int request_live(const struct request *q, int i);
/* Copy head and new ids of a sequence into ret [n_head + n_new]. Returns how many. */
int request_ids(const struct request *q, int sequence, int32_t *ret);
/* Append a token to each live sequence; sampled [n_sequences]. Returns true when the request is finished. */
bool request_advance(struct request *q, const struct sampling_result *sampled);
/* The request must be finished. */
int request_result(const struct request *q, struct generate_result *ret) CHECK_RESULT;

void request_list_push(struct request_list *l, struct request *q);
struct request *request_list_pop(struct request_list *l); /* NULL: empty */
/* Free every request with this tag, or all of them (tag NULL). Returns how many. */
int request_list_drop(struct request_list *l, const uint64_t *tag);

#endif
