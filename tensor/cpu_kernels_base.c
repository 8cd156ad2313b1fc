#include "tensor/cpu_kernels.h"

#include "tensor/cpu_kernels_table.h"

const struct cpu_kernels cpu_kernels_base[2] = CPU_KERNELS_TABLE;
