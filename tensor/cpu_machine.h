/* cpu_machine.h - what the CPU operators compute with, in words for people.
 *
 * Who may call: anyone. Units: none. Memory: plain values. Errors: none; what is not known is "unknown". */
#ifndef BLIPLINE_TENSOR_CPU_MACHINE_H
#define BLIPLINE_TENSOR_CPU_MACHINE_H

struct cpu_machine {
    char cpu[96];     /* "AMD EPYC 9R14" */
    char isa[48];     /* of our own loops and of the products: "avx512, products avx512_bf16" */
    char library[32]; /* "oneDNN 2.6.3" */
};

void cpu_machine_describe(struct cpu_machine *ret);

#endif
