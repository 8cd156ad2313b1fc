#include "tensor/device.h"
#include "tensor/device_abi.h"

/* The checksum of the headers that this shared object was built with. */
__attribute__((visibility("default"))) const uint32_t ops_cuda_abi = DEVICE_ABI;
