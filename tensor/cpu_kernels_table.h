/* cpu_kernels_table.h - defines the table of loops, [f32, bf16], for the file that includes it.
 *
 * Who may call: each cpu_kernels_*.c includes it once, after the pragma that selects the instruction set. Units,
 * memory, errors: as cpu_kernels.h. */
#ifndef BLIPLINE_TENSOR_CPU_KERNELS_TABLE_H
#define BLIPLINE_TENSOR_CPU_KERNELS_TABLE_H

#include "tensor/cpu_attention_loops.h"
#include "tensor/cpu_decode_loops.h"
#include "tensor/cpu_product_loops.h"
#include "tensor/cpu_rows_loops.h"

#define CPU_KERNELS_OF(type)                                                                              \
    {                                                                                                     \
        .norm = norm_row_##type, .gate = gate_row_##type, .lane_maxima = lane_maxima, .sum_exp = sum_exp, \
        .exp = exp_row, .attend_packed = attend_packed_##type, .attend_group = attend_group_##type,       \
        .product = product_block, .pack_panel = pack_panel, .lanes = LANES, .panel = PANEL                \
    }
#define CPU_KERNELS_TABLE                         \
    {                                             \
        CPU_KERNELS_OF(f32), CPU_KERNELS_OF(bf16) \
    }

#endif
