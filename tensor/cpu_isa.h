/* cpu_isa.h - the levels of vector instructions that the CPU operators are compiled for, and which of them to use.
 *
 * Sums are added in the order that a level's vectors give them, so two levels differ in the last bits; at one level a
 * result depends on neither batch nor threads, and at AVX2 on no processor either.
 * Who may call: anyone.
 * Units: none.
 * Memory: static.
 * Errors: cpu_isa_choose gives -EINVAL for an unknown name and -ENOTSUP for a level that this processor or build
 * lacks. */
#ifndef BLIPLINE_TENSOR_CPU_ISA_H
#define BLIPLINE_TENSOR_CPU_ISA_H

#include "base/err.h"

#include <stdbool.h>

/* AUTO: the best of this machine; then in ascending order. BASE is what the compiler's target always has (SSE2,
 * NEON). */
enum cpu_isa { CPU_ISA_AUTO, CPU_ISA_BASE, CPU_ISA_AVX2, CPU_ISA_AVX512, CPU_ISA_COUNT };

const char *cpu_isa_name(enum cpu_isa isa); /* "base", "avx2", "avx512", "auto" */
bool cpu_isa_have(enum cpu_isa isa);
/* Does this processor multiply bf16 at this level? */
bool cpu_isa_has_bf16(enum cpu_isa isa);
/* AUTO becomes the best; everything else stays as it is. */
enum cpu_isa cpu_isa_resolve(enum cpu_isa isa);
/* The value of the key cpu_isa. */
int cpu_isa_choose(const char *name, enum cpu_isa *ret, struct err *err) CHECK_RESULT;

#endif
