#include "tensor/cpu_kernels.h"

#include "tensor/cpu_attention_loops.h"
#include "tensor/cpu_rows_loops.h"

const struct cpu_kernels cpu_kernels_base = {
    .norm = norm_row,
    .argmax = argmax_row,
    .attend_packed = attend_packed,
    .attend_direct = attend_direct,
};
