/* cpu_machine.h - what the CPU operators compute with, in words for people.
 *
 * Who may call: anyone.
 * Units: none.
 * Memory: plain values.
 * Errors: none; what is not known is "unknown". */
#ifndef BLIPLINE_TENSOR_CPU_MACHINE_H
#define BLIPLINE_TENSOR_CPU_MACHINE_H

#include "tensor/cpu_isa.h"

struct cpu_machine {
    char cpu[96];     /* "AMD EPYC 9R14" */
    char isa[48];     /* "avx512, products avx512_bf16"; "avx2" where the products are our own too */
    char library[32]; /* "oneDNN 2.6.3" or "own products" */
};

/* What device cpu computes with when it is opened at this level. */
void cpu_machine_describe(enum cpu_isa isa, struct cpu_machine *ret);

#endif
