/* late_device.c - a shared object in the place of the CUDA operators: the CPU's, behind the host (tests/unit/late_ops.h).
 *
 * So the daemons can be tested as they work with a device, where there is none. LATE_MEMORY: bytes that the "card" has;
 * LATE_FAIL_IN: the call that fails for good. */
#include "tensor/device.h"
#include "tests/unit/late_ops.h"

#include <stdlib.h>

__attribute__((visibility("default"))) int ops_cuda_new(const struct device_conf *conf, struct ops **ret,
                                                        struct err *err);

int ops_cuda_new(const struct device_conf *conf, struct ops **ret, struct err *err)
{
    const char *memory = getenv("LATE_MEMORY"), *fail_in = getenv("LATE_FAIL_IN");
    struct ops *inner = NULL;
    int rc = ops_cpu_new(conf->n_threads, conf->act_dtype, conf->cpu_isa, &inner, err);

    if (rc < 0)
        return rc;
    *ret = late_ops_new(inner);
    if (memory)
        late_ops_set_memory(*ret, (size_t)((double)strtoull(memory, NULL, 10) * conf->memory_share));
    if (fail_in)
        late_ops_fail_in(*ret, atoi(fail_in));
    return 0;
}
