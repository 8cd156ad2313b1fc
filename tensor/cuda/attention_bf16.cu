#include "tensor/cuda/attention_tiles.cuh"

/* A file for each type, so that they are compiled side by side. */
int attention_launch_bf16(struct cuda_ops *o, const struct attention_params *p, int longest_q)
{
    return launch_tiles<__nv_bfloat16>(o, p, longest_q);
}
