#include "tensor/cuda/attention_tiles.cuh"

/* One file per type, so that they compile in parallel. */
int attention_launch_bf16(struct cuda_ops *o, const struct attention_params *p, int longest_q)
{
    return launch_tiles<__nv_bfloat16>(o, p, longest_q);
}
