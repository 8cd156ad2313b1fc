/* safetensors.h - named tensors in one file or in shards with an index, read in place.
 *
 * Who may call: anyone; immutable after opening, so any number of threads may look up and read.
 * Units:  bytes; little-endian, row-major, data not necessarily aligned to its type.
 * Memory: entries, names and tensor data belong to the struct and its maps, valid until safetensors_free. Data is
 *         mapped read-only: writing faults. A file truncated by others while it is open means SIGBUS.
 * Errors: -EINVAL with file, tensor, what was wanted and what was found; -EFBIG, -ENOMEM, or what opening gave. */
#ifndef BLIPLINE_MODEL_SAFETENSORS_H
#define BLIPLINE_MODEL_SAFETENSORS_H

#include "base/err.h"
#include "tensor/tensor.h"

#include <stddef.h>
#include <stdint.h>

struct safetensors;

struct safetensors_entry {
    const char *name;
    const char *file; /* name of the file it is in, without directory */
    struct tensor tensor;
    size_t size_bytes;
};

/* `dir`/model.safetensors, or the shards that `dir`/model.safetensors.index.json names. */
int safetensors_open(const char *dir, struct safetensors **ret, struct err *err) CHECK_RESULT;
/* Any single file (golden data). */
int safetensors_open_file(const char *path, struct safetensors **ret, struct err *err) CHECK_RESULT;
/* A file's bytes, borrowed until safetensors_free; `name` is used in messages. */
int safetensors_parse(const void *data, size_t size_bytes, const char *name, struct safetensors **ret,
                      struct err *err) CHECK_RESULT;
void safetensors_free(struct safetensors *st);

size_t safetensors_count(const struct safetensors *st);
/* In the order of names (strcmp); i < count. */
const struct safetensors_entry *safetensors_at(const struct safetensors *st, size_t i);
/* NULL: no such tensor. O(log n). */
const struct safetensors_entry *safetensors_find(const struct safetensors *st, const char *name);

/* Give the resident pages of this tensor back to the system (they are read again when touched): call it once a matrix
 * has been packed. Unknown names are ignored. */
void safetensors_drop(const struct safetensors *st, const char *name);

#endif
