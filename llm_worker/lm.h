/* lm.h - a language model for decoding: OPT or T5 with a key/value cache (MODEL.md "Language models").
 *
 * The cache is a pool of rows, each with the keys and values of one position in every layer. A prompt takes
 * lm_prefix_rows() consecutive rows, shared by all beams or samples of an image; every generated token that is fed back
 * takes one row anywhere. A sequence's `tail` lists the rows of its tokens; reordering beams copies tails, not rows.
 * For T5 the prefix holds the cross-attention's keys and values of the encoder output, and the first row of a tail is
 * the decoder's start token.
 *
 * lm.c has the common parts (function table, limits, cache); lm_opt.c and lm_t5.c are the graphs.
 * Who may call: the compute thread that owns `ops`.
 * Units:  a row is one position; image rows have width L; logits f32 [., V].
 * Memory: lm_open allocates everything: the weights; activations of max_rows and n_sequences rows; and the cache, which
 *         takes n_layers * n_kv_rows * 2 * (heads * head width) * sizeof(act_dtype) bytes (lm_kv_bytes; T5: decoder
 *         layers). A request holds lm_prefix_rows() + lm_start_rows() + sequences * (max_new_tokens - 1) consecutive
 *         rows from start to end, so that nothing is moved or evicted. Embedding tables are read in place, so the
 *         checkpoint must outlive the model.
 * Errors: 0 or a negative errno. lm_open: -EINVAL/-ENOENT/-ENOTSUP (err names the key or tensor), -ENOMEM. */
#ifndef BLIPLINE_LLM_WORKER_LM_H
#define BLIPLINE_LLM_WORKER_LM_H

#include "base/err.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct checkpoint;
struct lm;
struct ops;

struct lm_limits {
    int n_sequences; /* most rows of logits per pass */
    int n_kv_rows;   /* of the cache */
    int max_rows;    /* most positions per pass, prompts and tokens together */
    /* If > 0 and the operators report memory (ops->f->memory), n_kv_rows is only the maximum: the cache gets at most
     * 9/10 of the memory left after weights and activations (the rest is for scratch), and fewer rows than this are
     * -ENOMEM. 0: exactly n_kv_rows. */
    int least_kv_rows;
};

/* A new prompt: image rows, then ids. */
struct lm_start {
    const void *image_rows; /* host [n_image_rows, L] of image_dtype: F32, F16 or BF16 */
    enum dtype image_dtype;
    int n_image_rows;
    const int32_t *ids; /* 0 <= id < V, or none */
    int n_ids;
    int32_t prefix_row; /* first of its lm_prefix_rows() rows of the cache */
    int32_t first_row;  /* lm_start_rows() == 1: the row of the start token; else ignored */
};

/* The newest token of a running sequence. */
struct lm_token {
    int32_t id;
    int32_t prefix_row;
    int n_prefix;        /* lm_prefix_rows() of its start */
    const int32_t *tail; /* [n_tail] rows of the tokens so far (T5: first the start token's), this token's last */
    int n_tail;
};

int lm_open(struct ops *o, const struct checkpoint *c, const struct lm_limits *limits, struct lm **ret,
            struct err *err) CHECK_RESULT;
void lm_free(struct lm *m);

int lm_width(const struct lm *m); /* L */
int lm_vocab_size(const struct lm *m);
const struct lm_limits *lm_get_limits(const struct lm *m);
size_t lm_kv_bytes(const struct lm *m);
struct ops *lm_ops(const struct lm *m);
/* True for T5: penalties then see the decoder's ids, beginning with the start token. */
bool lm_is_encoder_decoder(const struct lm *m);
int32_t lm_start_id(const struct lm *m); /* decoder_start_token_id; -1 for OPT */

/* Rows of the cache for a prompt, and for its start token (T5: 1, OPT: 0). */
int lm_prefix_rows(const struct lm *m, int n_image_rows, int n_ids);
int lm_start_rows(const struct lm *m);
/* Positions of a pass that this prompt takes (limit max_rows). */
int lm_pass_rows(const struct lm *m, int n_image_rows, int n_ids);
/* -E2BIG, with the numbers in err, if prompt and new tokens exceed the model's positions (OPT), a pass or the cache. */
int lm_check_lengths(const struct lm *m, int n_image_rows, int n_ids, int n_new, struct err *err) CHECK_RESULT;

/* One forward pass: every start and token gives one row of logits, starts first: device f32 [n_starts + n_tokens,
 * V], valid until the next call. A sequence's result does not depend on the others. Tokens with the same prefix must
 * be adjacent. Rows, ids and counts out of range are a bug (assert). */
int lm_forward(struct lm *m, int n_starts, const struct lm_start *starts, int n_tokens, const struct lm_token *tokens,
               const float **ret_logits) CHECK_RESULT;

#endif
