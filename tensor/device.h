/* device.h - opens the operators of a device by name.
 *
 * "cpu" (oneDNN or our own products), "ref" (plain loops, for tests), "cuda:N" or a GPU's UUID ("GPU-..."): the CUDA
 * operators, from the shared object libblipline-cuda.so, so that one build serves machines with and without a GPU. It
 * is searched for beside the program, then in ../lib/blipline relative to it.
 * Who may call: the compute thread, once.
 * Memory: ops_free; the shared object stays loaded.
 * Errors: -ENOTSUP, -ENODEV, -ENOMEM and -EINVAL; err says what this build and machine support. */
#ifndef BLIPLINE_TENSOR_DEVICE_H
#define BLIPLINE_TENSOR_DEVICE_H

#include "tensor/ops.h"

struct device_conf {
    const char *device;
    const char *cuda_library; /* path of the shared object; NULL or "": search for it */
    int n_threads;            /* CPU threads; with CUDA, used for loading */
    enum cpu_isa cpu_isa;     /* for device cpu */
    enum dtype act_dtype;
    bool fp8;            /* CUDA: store matrices that allow it in e4m3 */
    bool tf32;           /* CUDA: fp32 products may round operands to tf32 */
    double memory_share; /* CUDA: share of the card's memory that this process may use; 0 < share <= 1 */
};

int device_open(const struct device_conf *conf, struct ops **ret, struct err *err) CHECK_RESULT;
/* True if `device` names a CUDA device. */
bool device_is_cuda(const char *device);

/* The constructor that the shared object exports. */
#define DEVICE_CUDA_SYMBOL "ops_cuda_new"
typedef int device_cuda_new(const struct device_conf *conf, struct ops **ret, struct err *err);
/* A checksum of the shared headers, exported too. If it differs, the shared object is not used. */
#define DEVICE_ABI_SYMBOL "ops_cuda_abi"
extern const uint32_t ops_cuda_abi;

#endif
