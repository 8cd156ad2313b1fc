#include "tensor/cpu_machine.h"

#include <stdio.h>
#include <string.h>

#include "tensor/cpu_matmul.h"

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

void cpu_machine_describe(enum cpu_isa isa, struct cpu_machine *ret)
{
    const enum cpu_isa level = cpu_isa_resolve(isa);
    char products[24];

    read_cpu_name(ret->cpu, sizeof(ret->cpu));
    if (level < CPU_ISA_AVX512 || !cpu_matmul_is_fast()) {
        (void)snprintf(ret->isa, sizeof(ret->isa), "%s", cpu_isa_name(level));
        (void)snprintf(ret->library, sizeof(ret->library), "own products");
        return;
    }
    cpu_matmul_describe(products, sizeof(products), ret->library, sizeof(ret->library));
    (void)snprintf(ret->isa, sizeof(ret->isa), "%s, products %s", cpu_isa_name(level), products);
}
