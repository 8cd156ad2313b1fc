#include "tensor/cpu_kernels.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* The instruction set of everything below; what is not ours comes before it. */
#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#endif

#include "tensor/cpu_attention_loops.h"
#include "tensor/cpu_rows_loops.h"

const struct cpu_kernels cpu_kernels_avx2 = {
    .norm = norm_row,
    .argmax = argmax_row,
    .attend_packed = attend_packed,
    .attend_direct = attend_direct,
};
