/* attention_data.h - random sequences for attention tests of every back end. Memory outside the sequences is NaN, so
 * that reading it shows.
 *
 * Who may call: tests/unit and tests/gpu. Units: rows and elements; arrays are f32 on the host, of values that the
 * activations of `o` hold. Memory: attention_data_release. Errors: a failed assertion ends the test. */
#ifndef BLIPLINE_TESTS_UNIT_ATTENTION_DATA_H
#define BLIPLINE_TESTS_UNIT_ATTENTION_DATA_H

#include "tensor/ops.h"

enum { ATTENTION_DATA_SEQS = 64 };

struct attention_case {
    int n_seqs, n_heads, head_dim;
    int min_q, max_q, min_kv, max_kv; /* ranges of the random lengths */
    bool causal, bias;
};

struct attention_data {
    struct ops_attention_args args; /* of the arrays below; out is NULL */
    int32_t q_start[ATTENTION_DATA_SEQS], q_len[ATTENTION_DATA_SEQS];
    int32_t kv_start[ATTENTION_DATA_SEQS], kv_len[ATTENTION_DATA_SEQS];
    int64_t n_q, n_kv; /* rows */
    float *q, *k, *v, *bias;
};

/* Places the sequences in order, with gaps. */
void attention_data_lengths(const struct attention_case *t, struct attention_data *d);
/* Lengths and values, in rows that are `pad` (keys and output: some more) wider than they are wide; `pad` 0 or
 * 8 keeps 16-byte alignment. q_size: what queries are multiplied with, a power of two, which rounds nothing. */
void attention_data_draw(const struct ops *o, const struct attention_case *t, int pad, float q_size,
                         struct attention_data *d);
void attention_data_release(struct attention_data *d);

#endif
