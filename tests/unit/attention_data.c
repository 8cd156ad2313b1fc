#include "tests/unit/attention_data.h"

#include <math.h>
#include <stdlib.h>

#include "tests/unit/ops_rig.h"

static int between(int min, int max)
{
    return min + ops_rig_below(max - min + 1);
}

void attention_data_lengths(const struct attention_case *t, struct attention_data *d)
{
    d->n_q = d->n_kv = 0;
    for (int s = 0; s < t->n_seqs; s++) {
        d->q_len[s] = between(t->min_q, t->max_q);
        d->kv_len[s] = between(t->min_kv, t->max_kv);
        if (t->causal && d->kv_len[s] < d->q_len[s])
            d->kv_len[s] = d->q_len[s];
        d->q_start[s] = (int32_t)d->n_q + ops_rig_below(2);
        d->kv_start[s] = (int32_t)d->n_kv + ops_rig_below(3);
        d->n_q = d->q_start[s] + d->q_len[s];
        d->n_kv = d->kv_start[s] + d->kv_len[s];
    }
}

/* Values for the rows of all sequences, times `size`, and NaN elsewhere. */
static float *draw_rows(const struct ops *o, const int32_t *start, const int32_t *len, int n_seqs, int64_t n_rows,
                        int64_t width, int64_t ld, float size)
{
    float *x = ops_rig_nan((size_t)(n_rows * ld)), *values = ops_rig_random(o, (size_t)width);

    for (int s = 0; s < n_seqs; s++)
        for (int64_t r = start[s]; r < start[s] + len[s]; r++) {
            free(values);
            values = ops_rig_random(o, (size_t)width);
            for (int64_t c = 0; c < width; c++)
                x[r * ld + c] = values[c] * size;
        }
    free(values);
    return x;
}

void attention_data_draw(const struct ops *o, const struct attention_case *t, int pad, float q_size,
                         struct attention_data *d)
{
    const int64_t width = (int64_t)t->n_heads * t->head_dim;

    *d = (struct attention_data){.n_q = 0};
    attention_data_lengths(t, d);
    d->args = (struct ops_attention_args){.n_seqs = t->n_seqs,
                                          .n_heads = t->n_heads,
                                          .head_dim = t->head_dim,
                                          .scale = 1 / sqrtf((float)t->head_dim),
                                          .causal = t->causal,
                                          .ld_q = width + pad,
                                          .ld_k = 2 * width + pad,
                                          .ld_v = width + 2 * pad,
                                          .ld_out = width + 3 * pad,
                                          .q_start = d->q_start,
                                          .q_len = d->q_len,
                                          .kv_start = d->kv_start,
                                          .kv_len = d->kv_len};
    d->q = draw_rows(o, d->q_start, d->q_len, t->n_seqs, d->n_q, width, d->args.ld_q, q_size);
    d->k = draw_rows(o, d->kv_start, d->kv_len, t->n_seqs, d->n_kv, width, d->args.ld_k, 1);
    d->v = draw_rows(o, d->kv_start, d->kv_len, t->n_seqs, d->n_kv, width, d->args.ld_v, 1);
    d->args.q = d->q;
    d->args.k = d->k;
    d->args.v = d->v;
    if (t->bias) {
        d->args.bias_span = (t->max_kv > t->max_q ? t->max_kv : t->max_q) + ops_rig_below(3);
        d->bias = ops_rig_random(&(const struct ops){.act_dtype = DTYPE_F32},
                                 (size_t)(t->n_heads * (2 * d->args.bias_span - 1)));
        d->args.bias = d->bias;
    }
}

void attention_data_release(struct attention_data *d)
{
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->bias);
}
