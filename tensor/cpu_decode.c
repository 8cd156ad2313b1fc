#include "tensor/cpu.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int64_t decode_key_row(const struct ops_decode_attention_args *a, int r, int j)
{
    return j < a->prefix_len[r] ? a->prefix_start[r] + j : a->tail[a->tail_start[r] + j - a->prefix_len[r]];
}

/* The keys and values of a row are gathered in order; then it is attention with one query. */
int cpu_decode_attention(struct ops *o, const struct ops_decode_attention_args *a)
{
    int64_t width = (int64_t)a->n_heads * a->head_dim;
    int rc = 0;

    for (int r = 0; rc == 0 && r < a->n_rows; r++) {
        int32_t n_keys = a->prefix_len[r] + a->tail_len[r], zero = 0, one = 1;
        float *k = malloc((size_t)(2 * n_keys * width) * sizeof(*k)), *v = k + n_keys * width;

        assert(a->prefix_len[r] >= 0 && a->tail_len[r] >= 0 && n_keys >= 1);
        if (!k)
            return -ENOMEM;
        for (int j = 0; j < n_keys; j++) {
            int64_t from = decode_key_row(a, r, j) * a->ld_kv;

            memcpy(k + j * width, (const float *)a->k + from, (size_t)width * sizeof(float));
            memcpy(v + j * width, (const float *)a->v + from, (size_t)width * sizeof(float));
        }
        rc = cpu_attention(o, &(struct ops_attention_args){.n_seqs = 1,
                                                           .n_heads = a->n_heads,
                                                           .head_dim = a->head_dim,
                                                           .scale = a->scale,
                                                           .causal = true,
                                                           .q = (const float *)a->q + r * a->ld_q,
                                                           .k = k,
                                                           .v = v,
                                                           .ld_q = a->ld_q,
                                                           .ld_k = width,
                                                           .ld_v = width,
                                                           .q_start = &zero,
                                                           .q_len = &one,
                                                           .kv_start = &zero,
                                                           .kv_len = &n_keys,
                                                           .bias = a->bias,
                                                           .bias_span = a->bias_span,
                                                           .out = (float *)a->out + r * a->ld_out,
                                                           .ld_out = a->ld_out});
        free(k);
    }
    return rc;
}
