/* lm.h - a language model as decoding sees it: OPT or T5 over one cache of key and value rows (MODEL.md "Language
 * models").
 *
 * The cache is a pool of rows, each with the keys and values of one position in every layer. A prompt takes
 * lm_prefix_rows() consecutive rows, once for all beams or samples of an image; every generated token that is fed back
 * takes one row anywhere. Which rows a sequence consists of is its `tail`: an ancestor table that a beam reorder
 * copies, never the rows themselves. For T5 the prefix holds the cross-attention's keys and values of the encoder's
 * output, and the first row of a tail is that of the decoder's start token.
 *
 * lm.c owns what both have in common (the table of functions, limits, the cache); lm_opt.c and lm_t5.c are the graphs.
 * Who may call: the compute thread that owns `ops`.
 * Units:  a row is one position; image rows are of width L; logits f32 [., V].
 * Memory: all allocated by lm_open: the weights; activations of max_rows and n_sequences rows; and the cache, which
 *         takes n_layers * n_kv_rows * 2 * (heads * head width) * sizeof(act_dtype) bytes (lm_kv_bytes; T5: decoder
 *         layers). A request holds lm_prefix_rows() + lm_start_rows() + sequences * (max_new_tokens - 1) consecutive
 *         rows from its start to its end, whatever it writes: so nothing has to be moved or given up half-way.
 *         Embedding tables are read in place: the checkpoint must live as long as the model.
 * Errors: 0 or a negative errno. lm_open: -EINVAL/-ENOENT/-ENOTSUP naming the key or tensor, -ENOMEM. */
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
    int n_sequences; /* logits rows of one pass, at most */
    int n_kv_rows;   /* of the cache */
    int max_rows;    /* positions of one pass: prompts and tokens together */
    /* Where the operators know how much memory there is (ops->f->memory), n_kv_rows is what is wanted: the cache gets
     * at most 9/10 of what is free beside weights and activations (the rest is for the operators' scratch), and fewer
     * rows than these are -ENOMEM. 0: n_kv_rows and no less. */
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
    int32_t first_row;  /* lm_start_rows() == 1: the row of the start token; else not looked at */
};

/* The newest token of a running sequence. */
struct lm_token {
    int32_t id;
    int32_t prefix_row;
    int n_prefix; /* lm_prefix_rows() of its start */
    const int32_t
        *tail; /* [n_tail] rows of the tokens so far (T5: the start token's first); the last one is this token's
                            own and is written by the pass */
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
/* T5: the history that penalties look at is the decoder's, beginning with the start token. */
bool lm_is_encoder_decoder(const struct lm *m);
int32_t lm_start_id(const struct lm *m); /* decoder_start_token_id; -1 for OPT */

/* Rows of the cache that a prompt takes, and rows that its start token takes (T5: 1, OPT: 0). */
int lm_prefix_rows(const struct lm *m, int n_image_rows, int n_ids);
int lm_start_rows(const struct lm *m);
/* Positions of a pass that starting this prompt takes (against max_rows). */
int lm_pass_rows(const struct lm *m, int n_image_rows, int n_ids);
/* -E2BIG, with the numbers in err, when prompt and new tokens do not fit the model's positions (OPT), a pass or the
 * cache. */
int lm_check_lengths(const struct lm *m, int n_image_rows, int n_ids, int n_new, struct err *err) CHECK_RESULT;

/* One pass: every start and every token gives one row of logits, starts first: device f32 [n_starts + n_tokens, V],
 * valid until the next call. What a sequence gives does not depend on the others. Tokens of the same prefix follow one
 * another. Rows, ids and counts out of range are the caller's bug. */
int lm_forward(struct lm *m, int n_starts, const struct lm_start *starts, int n_tokens, const struct lm_token *tokens,
               const float **ret_logits) CHECK_RESULT;

#endif
