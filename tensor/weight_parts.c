#include "tensor/weight_parts.h"

#include <assert.h>
#include <errno.h>

int weight_parts_shape(const struct ops_weight_part *parts, int n_parts, int64_t *ret_n, int64_t *ret_k)
{
    int64_t n = 0, k = parts[0].weight->shape[1];

    for (int i = 0; i < n_parts; i++) {
        const struct tensor *w = parts[i].weight, *b = parts[i].bias;

        assert(w->n_dims == 2 && w->shape[1] == k && !b == !parts[0].bias);
        assert(!b || (b->n_dims == 1 && b->shape[0] == w->shape[0]));
        if (__builtin_add_overflow(n, w->shape[0], &n))
            return -EOVERFLOW;
    }
    assert(n > 0 && k > 0);
    *ret_n = n;
    *ret_k = k;
    return 0;
}
