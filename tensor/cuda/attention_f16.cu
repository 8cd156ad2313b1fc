#include "tensor/cuda/attention_tiles.cuh"

/* A file for each type, so that they are compiled side by side. */
int attention_launch_f16(struct cuda_ops *o, const struct attention_params *p, int longest_q)
{
    return launch_tiles<__half>(o, p, longest_q);
}
