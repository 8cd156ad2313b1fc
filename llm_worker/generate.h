/* generate.h - many captions at once: requests wait, take rows of the KV cache, grow a token a step, and leave.
 *
 * A step runs one forward pass over everything that is active; prompts of new requests ride in the same pass as soon as
 * rows allow, GENERATE_PROMPT_ROWS of them at most, so that those that run are not kept waiting. The tokens of a
 * request do not depend on what else is running, nor on the order of requests: sampling draws from Philox4x32-10 with
 * the request's key, counter (step, sample). Options are those of transformers' generate, with the same results
 * (MODEL.md "Decoding").
 * Who may call: the compute thread that owns the model; nothing here locks or logs.
 * Units:  tokens. Lengths count new tokens, the end-of-sequence token included.
 * Memory: requests are copied at submit; a result is the caller's. A running request holds
 *             lm_prefix_rows + lm_start_rows + n * (max_new_tokens - 1)
 *         consecutive rows of the cache, n = n_beams or the samples of n_return, and n of the lm_limits.n_sequences
 *         (samples that have ended give theirs back). Those that wait start in the order they came: none overtakes.
 * Errors: negative errno; a submit that fails has changed nothing. */
#ifndef BLIPLINE_LLM_WORKER_GENERATE_H
#define BLIPLINE_LLM_WORKER_GENERATE_H

#include "base/err.h"
#include "base/generation.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    GENERATE_MAX_EOS = 16,
    GENERATE_PROMPT_ROWS = 2048, /* of new prompts in a pass (one that is longer goes alone) */
};

struct lm;
struct generate;

struct generate_request {
    uint64_t tag;           /* the caller's, returned with the result */
    const void *image_rows; /* host [n_image_rows, L]: the projected queries */
    enum dtype image_dtype; /* F32, F16 or BF16 */
    int n_image_rows;
    const int32_t *prompt; /* ids with special tokens; no prompt: the bos id alone. At least one */
    int n_prompt;
    struct generation_options options;
    uint64_t key;       /* sampling: of this image and prompt */
    const int32_t *eos; /* any of these ends the sequence; may be empty */
    int n_eos;
};

enum generate_finish { GENERATE_FINISH_EOS, GENERATE_FINISH_LENGTH };

struct generate_sequence {
    int32_t *ids; /* new tokens, up to and with the first eos */
    int n_ids;
    double logprob; /* sum over ids of the log-softmax of the unprocessed logits */
    double score;   /* beams: what transformers calls sequences_scores; else logprob */
    enum generate_finish finish;
};
struct generate_result {
    uint64_t tag;
    int n_sequences; /* n_return: beams best first, samples in order. 0: the model gave nothing finite to choose from */
    struct generate_sequence *sequences; /* [n_sequences], ids in the same allocation */
};

/* At most `queue_limit` requests wait. forbidden_id: the image token, which no prompt may contain and which stands for
 * the image rows in the history that penalties look at (-1: none). The model must outlive the generator. */
int generate_new(struct lm *m, int queue_limit, int32_t forbidden_id, struct generate **ret,
                 struct err *err) CHECK_RESULT;
/* When new requests start: ALL, which is what a generator begins with: as soon as there is room beside those that run
 * (continuous batching). EMPTY: when nothing runs, as many as there is room for; then none before the last of them has
 * ended (static batches: what the others are measured against). Results are the same. */
enum generate_admit { GENERATE_ADMIT_ALL, GENERATE_ADMIT_EMPTY };
void generate_set_admit(struct generate *g, enum generate_admit admit);
void generate_free(struct generate *g); /* waiting, active and untaken ones are dropped */

/* Would this request be accepted? The same errors as generate_submit, except -EAGAIN. */
int generate_check(const struct generate *g, const struct generate_request *r, struct err *err) CHECK_RESULT;
/* -E2BIG: image rows + prompt + new tokens need more positions, cache or sequences than there are. -EINVAL: an option
 * out of range or a combination that is not built, each named; an id that is no token or is the image token; more beams
 * than the vocabulary can feed. -EAGAIN: queue_limit requests are waiting. */
int generate_submit(struct generate *g, const struct generate_request *r, struct err *err) CHECK_RESULT;

/* One token for every active sequence, the first one for those that start now. Returns how many sequences ran (0: there
 * is nothing to do), or what the operators return; after an error the generator is of no further use. */
int generate_step(struct generate *g) CHECK_RESULT;
/* The same in two halves, for an asynchronous device: begin launches the forward pass, end waits for its tokens.
 * Everything else here may be called in between; what is submitted then joins the next step. Both return how many
 * sequences run; without any, end is not needed. */
int generate_step_begin(struct generate *g) CHECK_RESULT;
int generate_step_end(struct generate *g) CHECK_RESULT;
/* 1 and the next finished one, in order of finishing; 0: none; -ENOMEM. Free with generate_result_release. */
int generate_take(struct generate *g, struct generate_result *ret);
void generate_result_release(struct generate_result *r);
/* Forget a request wherever it is; its result never comes. Returns how many were dropped. */
int generate_cancel(struct generate *g, uint64_t tag);

int generate_room(const struct generate *g); /* requests that submit takes now without -EAGAIN */

#endif
