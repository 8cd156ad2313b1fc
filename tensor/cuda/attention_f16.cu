#include "tensor/cuda/attention_tiles.cuh"

/* One file per type, so that they compile in parallel. */
int attention_launch_f16(struct cuda_ops *o, const struct attention_params *p, int longest_q)
{
    return launch_tiles<__half>(o, p, longest_q);
}
