#include "tensor/cpu_kernels.h"
#include "tensor/ops.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Selects the instruction set of everything below; system headers come before it. */
#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#endif

#include "tensor/cpu_kernels_table.h"

const struct cpu_kernels cpu_kernels_avx2[2] = CPU_KERNELS_TABLE;
