#include "tensor/cuda/cuda.h"

#include <errno.h>

int cuda_passes_new(struct cuda_ops *o)
{
    (void)o;
    return 0;
}
int cuda_pass_begin(struct ops *base, uint64_t key)
{
    (void)key;
    return cuda_failed(cuda_of(base));
}
int cuda_pass_end(struct ops *base)
{
    return cuda_failed(cuda_of(base));
}
int cuda_pass_stage(struct cuda_ops *o, const void *host, size_t n_bytes, size_t max_bytes, bool made_here,
                    const void **ret_device)
{
    (void)o;
    (void)host;
    (void)n_bytes;
    (void)max_bytes;
    (void)made_here;
    (void)ret_device;
    return 0;
}
void cuda_passes_free(struct cuda_ops *o)
{
    (void)o;
}
void cuda_passes_forget(struct cuda_ops *o)
{
    (void)o;
}
