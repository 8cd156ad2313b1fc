#include "client/export/npy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int npy_head(enum dtype dtype, int n_dims, const uint64_t *shape, uint8_t ret[NPY_HEAD_BYTES])
{
    static const uint8_t magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, NPY_HEAD_BYTES - 10, 0};
    char *text = (char *)ret + sizeof(magic);
    const size_t room = NPY_HEAD_BYTES - sizeof(magic);
    int n;

    if (n_dims < 1 || n_dims > NPY_MAX_DIMS || (dtype != DTYPE_F16 && dtype != DTYPE_F32))
        return -EINVAL;
    n = snprintf(text, room, "{'descr': '<f%d', 'fortran_order': False, 'shape': (", dtype == DTYPE_F16 ? 2 : 4);
    for (int i = 0; i < n_dims && n > 0 && (size_t)n < room; i++)
        n += snprintf(text + n, room - (size_t)n, "%" PRIu64 "%s", shape[i], i + 1 < n_dims || n_dims == 1 ? ", " : "");
    if (n > 0 && (size_t)n < room)
        n += snprintf(text + n, room - (size_t)n, "), }");
    if (n < 0 || (size_t)n >= room)
        return -EINVAL;
    memset(text + n, ' ', room - (size_t)n);
    text[room - 1] = '\n';
    memcpy(ret, magic, sizeof(magic));
    return 0;
}
