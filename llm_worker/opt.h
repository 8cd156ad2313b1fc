/* opt.h - OPT over a slotted KV cache; prefill and decode are one ragged forward pass (MODEL.md "OPT").
 *
 * A slot holds the keys and values of one sequence; position p of the sequence is row p of its slot. A pass takes any
 * mix of sequences: new ones with all their rows, running ones with their newest token.
 * Who may call: the compute thread that owns `ops`.
 * Units:  a row is one position: a token id or one projected query of width L (host f32). Logits are f32 [., V].
 * Memory: all allocated by opt_new. The cache takes
 *             n_layers * n_slots * n_positions * 2 * L * sizeof(act_dtype)
 *         bytes (opt_kv_bytes), the activations max_rows * (2 L + max(3 L, F)), the logits n_slots * (V f32 + L).
 *         Embedding tables are read in place: the checkpoint must live as long as the model.
 * Errors: 0 or a negative errno. opt_new: -EINVAL/-ENOENT/-ENOTSUP naming the key or tensor, -ENOMEM. */
#ifndef BLIPLINE_LLM_WORKER_OPT_H
#define BLIPLINE_LLM_WORKER_OPT_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct checkpoint;
struct ops;
struct opt;

struct opt_limits {
    int n_slots;     /* sequences at a time */
    int n_positions; /* rows of a slot; 0: max_position_embeddings, which is also the most that is allowed */
    int max_rows;    /* rows of one pass; raised to n_slots + n_positions if smaller, so that a prompt always fits */
};

/* One sequence of a pass. Its rows are the `n_image_rows` rows of image_rows, then the n_ids tokens of ids. */
struct opt_seq {
    int slot;           /* 0 .. n_slots - 1, each at most once in a pass */
    int first_position; /* of the first row; everything before is in the slot */
    int n_image_rows;
    const float *image_rows; /* host [n_image_rows, L] */
    int n_ids;
    const int32_t *ids; /* 0 <= id < V */
};

int opt_new(struct ops *o, const struct checkpoint *c, const struct opt_limits *limits, struct opt **ret,
            struct err *err) CHECK_RESULT;
void opt_free(struct opt *m);

int opt_width(const struct opt *m);      /* L */
int opt_vocab_size(const struct opt *m); /* V */
int opt_n_slots(const struct opt *m);
int opt_n_positions(const struct opt *m); /* of a slot */
int opt_max_rows(const struct opt *m);    /* of a pass */
size_t opt_kv_bytes(const struct opt *m);
struct ops *opt_ops(const struct opt *m);

/* Run the rows of 1 .. n_slots sequences. *ret_logits: device f32 [n_seqs, V], the last row of each sequence, valid
 * until the next call. What a sequence gives does not depend on the others. Rows, positions, slots and ids out of range
 * are the caller's bug. */
int opt_forward(struct opt *m, int n_seqs, const struct opt_seq *seqs, const float **ret_logits) CHECK_RESULT;

#endif
