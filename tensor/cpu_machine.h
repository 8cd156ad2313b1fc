/* cpu_machine.h - a description of the CPU and library in use, for logs and `devices`.
 *
 * Who may call: anyone.
 * Units: none.
 * Memory: plain values.
 * Errors: none; unknown fields read "unknown". */
#ifndef BLIPLINE_TENSOR_CPU_MACHINE_H
#define BLIPLINE_TENSOR_CPU_MACHINE_H

#include "tensor/cpu_isa.h"

struct cpu_machine {
    char cpu[96];     /* "AMD EPYC 9R14" */
    char isa[48];     /* "avx512, products avx512_bf16"; "avx2" without oneDNN */
    char library[32]; /* "oneDNN 2.6.3" or "own products" */
};

/* Describes device cpu opened with this instruction set. */
void cpu_machine_describe(enum cpu_isa isa, struct cpu_machine *ret);

#endif
