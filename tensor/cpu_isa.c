#include "tensor/cpu_isa.h"

#include <errno.h>
#include <string.h>

static const char *const names[] = {
    [CPU_ISA_BASE] = "base", [CPU_ISA_AVX2] = "avx2", [CPU_ISA_AVX512] = "avx512", [CPU_ISA_AUTO] = "auto"};

const char *cpu_isa_name(enum cpu_isa isa)
{
    return names[isa];
}

bool cpu_isa_have(enum cpu_isa isa)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == CPU_ISA_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (isa == CPU_ISA_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return isa == CPU_ISA_BASE;
}

enum cpu_isa cpu_isa_resolve(enum cpu_isa isa)
{
    if (isa == CPU_ISA_AUTO)
        for (isa = CPU_ISA_COUNT - 1; !cpu_isa_have(isa); isa--)
            ;
    return isa;
}

bool cpu_isa_has_bf16(enum cpu_isa isa)
{
#if defined(__x86_64__)
    return cpu_isa_resolve(isa) == CPU_ISA_AVX512 && __builtin_cpu_supports("avx512bf16");
#else
    (void)isa;
    return false;
#endif
}

int cpu_isa_choose(const char *name, enum cpu_isa *ret, struct err *err)
{
    for (enum cpu_isa isa = CPU_ISA_AUTO; isa < CPU_ISA_COUNT; isa++) {
        if (strcmp(name, names[isa]) != 0)
            continue;
        if (!cpu_isa_have(cpu_isa_resolve(isa)))
            return err_set(err, -ENOTSUP, "cpu_isa = %s: this processor lacks it; use %s or auto", name,
                           cpu_isa_name(cpu_isa_resolve(CPU_ISA_AUTO)));
        *ret = isa;
        return 0;
    }
    return err_set(err, -EINVAL, "cpu_isa = %s: unknown; use base, avx2, avx512 or auto", name);
}
