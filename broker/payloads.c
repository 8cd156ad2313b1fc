#include "broker/payloads.h"

#include <stdlib.h>

uint64_t payloads_add(struct payloads *all, struct wire_tensor *tensor, struct records *records)
{
    struct payload *p = calloc(1, sizeof(*p));

    if (!p || core_map_put(&all->by_handle, all->last_handle + 1, p) < 0) {
        free(p);
        return 0;
    }
    p->tensor = tensor;
    p->records = *records;
    *records = (struct records){0};
    return ++all->last_handle;
}

struct payload *payloads_find(const struct payloads *all, uint64_t handle)
{
    return core_map_get(&all->by_handle, handle);
}

void payloads_drop_tensor(struct payloads *all, uint64_t handle)
{
    struct payload *p = payloads_find(all, handle);

    if (!p)
        return;
    wire_tensor_free(p->tensor);
    p->tensor = NULL;
}

static void payload_free(struct payload *p)
{
    if (!p)
        return;
    wire_tensor_free(p->tensor);
    records_release(&p->records);
    free(p);
}

void payloads_drop(struct payloads *all, uint64_t handle)
{
    payload_free(core_map_take(&all->by_handle, handle));
}

void payloads_release(struct payloads *all)
{
    size_t at = 0;

    for (struct payload *p; (p = core_map_next(&all->by_handle, &at));)
        payload_free(p);
    core_map_release(&all->by_handle);
}
