/* Any bytes are a safetensors file whose every tensor lies inside them, or are refused with a reason. */
#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct safetensors *st = NULL;
    struct err err = {""};

    if (safetensors_parse(data, n, "fuzz", &st, &err) < 0) {
        if (st || !err.text[0])
            abort();
        return 0;
    }
    for (size_t i = 0; i < safetensors_count(st); i++) {
        const struct safetensors_entry *e = safetensors_at(st, i);
        const uint8_t *p = e->tensor.data;
        size_t bytes;

        if (tensor_size_bytes(&e->tensor, &bytes) < 0 || bytes != e->size_bytes || p < data || p + bytes > data + n ||
            safetensors_find(st, e->name) != e)
            abort();
    }
    safetensors_free(st);
    return 0;
}
