#include "tensor/cpu_machine.h"

#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tensor/cpu.h"

static void read_cpu_name(char *ret, size_t size)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");

    snprintf(ret, size, "unknown");
    while (f && fgets(line, sizeof(line), f)) {
        const char *colon = strchr(line, ':');

        if (strncmp(line, "model name", strlen("model name")) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(ret, size, "%.*s", (int)size - 1, colon + 1 + strspn(colon + 1, " "));
        break;
    }
    if (f)
        (void)fclose(f);
}

static const char *loops_isa(void)
{
    if (cpu_kernels_for(CPU_ISA_AVX512, DTYPE_F32))
        return "avx512";
    return cpu_kernels_for(CPU_ISA_AVX2, DTYPE_F32) ? "avx2" : "baseline";
}

/* The values are sets of instructions: larger ones hold smaller ones. */
static bool includes(dnnl_cpu_isa_t have, dnnl_cpu_isa_t wanted)
{
    return ((unsigned)have & (unsigned)wanted) == (unsigned)wanted;
}

static const char *products_isa(void)
{
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } known[] = {{dnnl_cpu_isa_avx512_core_amx, "amx"},
                 {dnnl_cpu_isa_avx512_core_bf16, "avx512_bf16"},
                 {dnnl_cpu_isa_avx512_core_vnni, "avx512_vnni"},
                 {dnnl_cpu_isa_avx512_core, "avx512"},
                 {dnnl_cpu_isa_avx2, "avx2"},
                 {dnnl_cpu_isa_sse41, "sse4.1"}};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (includes(dnnl_get_effective_cpu_isa(), known[i].isa))
            return known[i].name;
    return "baseline";
}

void cpu_machine_describe(struct cpu_machine *ret)
{
    const dnnl_version_t *v = dnnl_version();

    read_cpu_name(ret->cpu, sizeof(ret->cpu));
    snprintf(ret->isa, sizeof(ret->isa), "%s, products %s", loops_isa(), products_isa());
    snprintf(ret->library, sizeof(ret->library), "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}
