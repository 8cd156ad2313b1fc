#include "tensor/device.h"
#include "tensor/device_abi.h"

/* What this shared object was built against. */
__attribute__((visibility("default"))) const uint32_t ops_cuda_abi = DEVICE_ABI;
