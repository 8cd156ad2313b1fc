#include "tensor/cpu_kernels.h"

#include "tensor/cpu_attention_loops.h"
#include "tensor/cpu_decode_loops.h"
#include "tensor/cpu_rows_loops.h"

const struct cpu_kernels cpu_kernels_base[2] = {
    {
        .norm = norm_row_f32,
        .gate = gate_row_f32,
        .lane_maxima = lane_maxima,
        .sum_exp = sum_exp,
        .exp = exp_row,
        .attend_packed = attend_packed_f32,
        .attend_group = attend_group_f32,
        .lanes = LANES,
    },
    {
        .norm = norm_row_bf16,
        .gate = gate_row_bf16,
        .lane_maxima = lane_maxima,
        .sum_exp = sum_exp,
        .exp = exp_row,
        .attend_packed = attend_packed_bf16,
        .attend_group = attend_group_bf16,
        .lanes = LANES,
    },
};
