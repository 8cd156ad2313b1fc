/* fake_async_device.c - a shared object that replaces the CUDA operators by a fake asynchronous device on the CPU
 * (tests/unit/fake_async_ops.h), so that the daemons' code for devices is tested without one.
 *
 * FAKE_ASYNC_MEMORY: bytes of memory that the device reports; FAKE_ASYNC_FAIL_IN: number of the call that fails for
 * good. */
#include "tensor/device.h"
#include "tests/unit/fake_async_ops.h"

#include <stdlib.h>

__attribute__((visibility("default"))) int ops_cuda_new(const struct device_conf *conf, struct ops **ret,
                                                        struct err *err);

int ops_cuda_new(const struct device_conf *conf, struct ops **ret, struct err *err)
{
    const char *memory = getenv("FAKE_ASYNC_MEMORY"), *fail_in = getenv("FAKE_ASYNC_FAIL_IN");
    struct ops *inner = NULL;
    int rc = ops_cpu_new(conf->n_threads, conf->act_dtype, conf->cpu_isa, &inner, err);

    if (rc < 0)
        return rc;
    *ret = fake_async_ops_new(inner);
    if (memory)
        fake_async_ops_set_memory(*ret, (size_t)((double)strtoull(memory, NULL, 10) * conf->memory_share));
    if (fail_in)
        fake_async_ops_fail_in(*ret, atoi(fail_in));
    return 0;
}
