#include "tensor/cpu_kernels.h"
#include "tensor/ops.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Selects the instruction set of everything below; system headers come before it. */
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif

#include "tensor/cpu_kernels_table.h"

const struct cpu_kernels cpu_kernels_avx512[2] = CPU_KERNELS_TABLE;
