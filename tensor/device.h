/* device.h - the operators behind a device's name.
 *
 * "cpu" (oneDNN) and "ref" (plain loops, for tests); "cuda:N" and a GPU's UUID name the CUDA operators.
 * Who may call: the compute thread, once. Memory: ops_free. Errors: -ENOTSUP and -EINVAL; err says what this build and
 * machine can do. */
#ifndef BLIPLINE_TENSOR_DEVICE_H
#define BLIPLINE_TENSOR_DEVICE_H

#include "tensor/ops.h"

int device_open(const char *device, int n_threads, enum dtype act_dtype, struct ops **ret,
                struct err *err) CHECK_RESULT;

#endif
