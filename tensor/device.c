#include "tensor/device.h"

#include <errno.h>
#include <string.h>

int device_open(const char *device, int n_threads, enum dtype act_dtype, struct ops **ret, struct err *err)
{
    if (strcmp(device, "cpu") == 0)
        return ops_cpu_new(n_threads, act_dtype, ret, err);
    if (strcmp(device, "ref") == 0 && act_dtype != DTYPE_F32)
        return err_set(err, -ENOTSUP, "device = ref computes in fp32 alone: take dtype = fp32");
    if (strcmp(device, "ref") == 0)
        return ops_ref_new(ret, err);
    if (strncmp(device, "cuda", 4) == 0)
        return err_set(err, -ENOTSUP, "device = %s: this build has no CUDA operators; use device = cpu", device);
    return err_set(err, -EINVAL, "device = %s: unknown; cpu or null is wanted", device);
}
