/* Attention of whole sequences: host code. The kernels are in attention_tiles.cuh (16-bit types) and
 * attention_f32.cu. */
#include "tensor/cuda/attention.cuh"

#include "tensor/cuda/types.cuh"

#include <assert.h>
#include <math.h>

/* Returns the longest sequence of queries; checks the contract of ops.h. */
static int check_lengths(const struct ops_attention_args *a)
{
    int longest_q = 1;

    for (int s = 0; s < a->n_seqs; s++) {
        assert(a->q_len[s] >= 1 && a->kv_len[s] >= 1 && (!a->causal || a->kv_len[s] >= a->q_len[s]));
        assert(!a->bias || (a->kv_len[s] <= a->bias_span && a->q_len[s] <= a->bias_span));
        longest_q = a->q_len[s] > longest_q ? a->q_len[s] : longest_q;
    }
    return longest_q;
}

static bool is_aligned(const void *p, int64_t ld, size_t element)
{
    return (uintptr_t)p % 16 == 0 && (size_t)ld * element % 16 == 0;
}

static int stage_lengths(struct cuda_ops *o, const struct ops_attention_args *a, struct attention_params *p)
{
    const int32_t *host[] = {a->q_start, a->q_len, a->kv_start, a->kv_len};
    const int32_t **device[] = {&p->q_start, &p->q_len, &p->kv_start, &p->kv_len};
    int rc = 0;

    for (int i = 0; rc == 0 && i < 4; i++) {
        const void *d = NULL;

        rc = cuda_stage(o, host[i], (size_t)a->n_seqs * sizeof(int32_t), &d);
        *device[i] = (const int32_t *)d;
    }
    return rc;
}

int cuda_attention(struct ops *base, const struct ops_attention_args *a)
{
    struct cuda_ops *o = cuda_of(base);
    const size_t element = cuda_element_bytes(o);
    const int longest_q = check_lengths(a);
    struct attention_params p = {};
    int rc;

    assert(a->head_dim >= 1 && a->head_dim <= 256 && a->scale > 0);
    assert(a->ld_q < 1 << 23 && a->ld_k < 1 << 23 && a->ld_v < 1 << 23); /* offsets within a tile are 32 bits */
    if (a->n_seqs == 0)
        return 0;
    p.q = a->q;
    p.k = a->k;
    p.v = a->v;
    p.out = a->out;
    p.bias = a->bias;
    p.ld_q = a->ld_q;
    p.ld_k = a->ld_k;
    p.ld_v = a->ld_v;
    p.ld_out = a->ld_out;
    p.bias_span = a->bias_span;
    p.n_heads = a->n_heads;
    p.head_dim = a->head_dim;
    p.n_seqs = a->n_seqs;
    p.scale = a->scale;
    p.inverse_scale = 1 / a->scale;
    p.scale_log2 = (float)(a->scale * M_LOG2E);
    p.causal = a->causal;
    p.aligned = (size_t)a->head_dim * element % 16 == 0 && is_aligned(a->q, a->ld_q, element) &&
                is_aligned(a->k, a->ld_k, element) && is_aligned(a->v, a->ld_v, element) &&
                is_aligned(a->out, a->ld_out, element);
    rc = stage_lengths(o, a, &p);
    if (rc < 0)
        return rc;
    switch (o->base.act_dtype) {
    case DTYPE_F32:
        return attention_launch_f32(o, &p, longest_q);
    case DTYPE_F16:
        return attention_launch_f16(o, &p, longest_q);
    default:
        assert(o->base.act_dtype == DTYPE_BF16);
        return attention_launch_bf16(o, &p, longest_q);
    }
}
