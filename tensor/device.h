/* device.h - the operators behind a device's name.
 *
 * "cpu" (oneDNN or our own products), "ref" (plain loops, for tests), "cuda:N" or a GPU's UUID ("GPU-..."): the CUDA
 * operators, from the shared object libblipline-cuda.so, so that one build serves machines with and without a GPU. It
 * is looked for beside the program, then in ../lib/blipline from there.
 * Who may call: the compute thread, once.
 * Memory: ops_free; the shared object stays loaded.
 * Errors: -ENOTSUP, -ENODEV, -ENOMEM and -EINVAL; err says what this build and machine can do. */
#ifndef BLIPLINE_TENSOR_DEVICE_H
#define BLIPLINE_TENSOR_DEVICE_H

#include "tensor/ops.h"

struct device_conf {
    const char *device;
    const char *cuda_library; /* path of the shared object; NULL or "": where it is looked for */
    int n_threads;            /* of the CPU; with CUDA: of loading */
    enum cpu_isa cpu_isa;     /* of device cpu */
    enum dtype act_dtype;
    bool fp8;            /* CUDA: matrices that may be in e4m3 are */
    bool tf32;           /* CUDA: products of fp32 may round their operands to tf32 */
    double memory_share; /* CUDA: of the card's memory, that this process may take; 0 < share <= 1 */
};

int device_open(const struct device_conf *conf, struct ops **ret, struct err *err) CHECK_RESULT;
/* Is it a name of the CUDA operators? */
bool device_is_cuda(const char *device);

/* What the shared object exports under this name: */
#define DEVICE_CUDA_SYMBOL "ops_cuda_new"
typedef int device_cuda_new(const struct device_conf *conf, struct ops **ret, struct err *err);
/* and a checksum of the headers that both sides are built with: where it is another one, nothing of it is called. */
#define DEVICE_ABI_SYMBOL "ops_cuda_abi"
extern const uint32_t ops_cuda_abi;

#endif
