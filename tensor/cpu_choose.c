#include "tensor/cpu.h"
#include "tensor/sampler.h"

#include <assert.h>

int cpu_choose(struct ops *o, const struct ops_choose_args *a)
{
    int worst = 0;

    assert(a->vocab >= 1 && a->vocab <= a->ld);
#pragma omp parallel for schedule(static) reduction(min      \
                                                    : worst) \
    num_threads(cpu_threads_for(cpu_of(o), 30.0 * a->n_rows * a->vocab))
    for (int64_t r = 0; r < a->n_rows; r++) {
        int rc = sampler_choose(&a->rows[r], a->logits + r * a->ld, a->vocab);

        worst = rc < worst ? rc : worst;
    }
    return worst;
}
