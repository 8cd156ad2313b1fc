/* generate.h - generation with continuous batching: requests wait, get rows of the KV cache, grow by one token per
 * step, and finish.
 *
 * A step runs one forward pass over all active requests. Prompts of new requests join the pass as soon as there are
 * free rows, at most GENERATE_PROMPT_ROWS of them, so that running requests are not delayed. The tokens of a request
 * depend neither on the other requests nor on their order: sampling draws from Philox4x32-10 with the key of the
 * request and the counter (step, sample). The options and results are those of transformers' generate (MODEL.md
 * "Decoding").
 * Who may call: the compute thread that owns the model; nothing here locks or logs.
 * Units:  tokens. Lengths count new tokens, including the end-of-sequence token.
 * Memory: requests are copied at submit; the caller owns results. A running request holds lm_prefix_rows +
 *             lm_start_rows + n * (max_new_tokens - 1) consecutive rows of the cache, n = n_beams or the samples of
 *             n_return, and n of the lm_limits.n_sequences (finished samples release theirs). Waiting requests start in
 *             the order of submission.
 * Errors: negative errno; a failed submit changes nothing. */
#ifndef BLIPLINE_LLM_WORKER_GENERATE_H
#define BLIPLINE_LLM_WORKER_GENERATE_H

#include "base/err.h"
#include "base/generation.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    GENERATE_MAX_EOS = 16,
    GENERATE_PROMPT_ROWS = 2048, /* rows of new prompts per forward pass; a longer prompt gets a separate pass */
};

struct lm;
struct generate;

struct generate_request {
    uint64_t tag;           /* chosen by the caller, returned with the result */
    const void *image_rows; /* host [n_image_rows, L]: the projected queries */
    enum dtype image_dtype; /* F32, F16 or BF16 */
    int n_image_rows;
    const int32_t *prompt; /* at least one id, including special tokens; without a prompt: the bos id */
    int n_prompt;
    struct generation_options options;
    uint64_t key;       /* sampling: seeds the random numbers, so it should differ for each image and prompt */
    const int32_t *eos; /* any of these ends the sequence; may be empty */
    int n_eos;
};

enum generate_finish { GENERATE_FINISH_EOS, GENERATE_FINISH_LENGTH };

struct generate_sequence {
    int32_t *ids; /* new tokens, including the first eos */
    int n_ids;
    double logprob; /* sum over ids of the log-softmax of the unprocessed logits */
    double score;   /* beams: sequences_scores of transformers; else logprob */
    enum generate_finish finish;
};
struct generate_result {
    uint64_t tag;
    int n_sequences;                     /* n_return: beams best first, samples in order. 0: no logit was finite */
    struct generate_sequence *sequences; /* [n_sequences], ids in the same allocation */
};

/* At most `queue_limit` requests wait. forbidden_id: the image token, or -1. No prompt may contain it, and penalties
 * see it in place of each image row. The model must outlive the generator. */
int generate_new(struct lm *m, int queue_limit, int32_t forbidden_id, struct generate **ret,
                 struct err *err) CHECK_RESULT;
/* When new requests start. ALL (the default): as soon as there is room (continuous batching). EMPTY: as many as there
 * is room for, but only after all running ones have ended (static batches, for comparison). The results are the
 * same. */
enum generate_admit { GENERATE_ADMIT_ALL, GENERATE_ADMIT_EMPTY };
void generate_set_admit(struct generate *g, enum generate_admit admit);
void generate_free(struct generate *g); /* drops waiting, active and finished requests */

/* Checks a request as generate_submit does, except for -EAGAIN. */
int generate_check(const struct generate *g, const struct generate_request *r, struct err *err) CHECK_RESULT;
/* -E2BIG: image rows + prompt + new tokens need more positions, cache rows or sequences than there are. -EINVAL: an
 * option is out of range, a combination is not supported (err names it), an id is not a token or is the image token,
 * or the vocabulary is too small for so many beams. -EAGAIN: queue_limit requests are waiting. */
int generate_submit(struct generate *g, const struct generate_request *r, struct err *err) CHECK_RESULT;

/* Generates one token for every active sequence. Returns the number of sequences that ran (0: nothing to do) or an
 * error of the operators. After an error only generate_free may be called. */
int generate_step(struct generate *g) CHECK_RESULT;
/* The same in two halves, for an asynchronous device: begin launches the forward pass, end waits for its tokens.
 * All other functions may be called in between; new requests join the next step. Both return the number of sequences
 * that run; if it is 0, end need not be called. */
int generate_step_begin(struct generate *g) CHECK_RESULT;
int generate_step_end(struct generate *g) CHECK_RESULT;
/* Returns 1 and the next finished request, in order of finishing, or 0, or -ENOMEM. Free with
 * generate_result_release. */
int generate_take(struct generate *g, struct generate_result *ret);
void generate_result_release(struct generate_result *r);
/* Drops all requests with this tag, in any state, without results. Returns their number. */
int generate_cancel(struct generate *g, uint64_t tag);

int generate_room(const struct generate *g); /* how many requests can be submitted now without -EAGAIN */

#endif
