/* cpu_isa.h - the vector instruction sets that the CPU operators are compiled for, and which one to use.
 *
 * The vector width fixes the order of additions, so results differ in the last bits between instruction sets. Within
 * one set a result does not depend on the batch or the number of threads; with AVX2 it does not depend on the processor
 * either.
 * Who may call: anyone.
 * Units: none.
 * Memory: static.
 * Errors: cpu_isa_choose gives -EINVAL for an unknown name and -ENOTSUP for a set that this processor or build
 * lacks. */
#ifndef BLIPLINE_TENSOR_CPU_ISA_H
#define BLIPLINE_TENSOR_CPU_ISA_H

#include "base/err.h"

#include <stdbool.h>

/* AUTO: the best on this machine; then in ascending order. BASE is the compiler target's minimum (SSE2, NEON). */
enum cpu_isa { CPU_ISA_AUTO, CPU_ISA_BASE, CPU_ISA_AVX2, CPU_ISA_AVX512, CPU_ISA_COUNT };

const char *cpu_isa_name(enum cpu_isa isa); /* "base", "avx2", "avx512", "auto" */
bool cpu_isa_have(enum cpu_isa isa);
/* True if this processor multiplies bf16 with this set. */
bool cpu_isa_has_bf16(enum cpu_isa isa);
/* Replaces AUTO by the best set. */
enum cpu_isa cpu_isa_resolve(enum cpu_isa isa);
/* Parses the configuration key cpu_isa. */
int cpu_isa_choose(const char *name, enum cpu_isa *ret, struct err *err) CHECK_RESULT;

#endif
