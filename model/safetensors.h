/* safetensors.h - named tensors in one file or in shards with an index, read in place.
 *
 * Who may call: anyone; immutable after opening, so threads may share it.
 * Units:  bytes; little-endian, row-major, data may be unaligned.
 * Memory: entries, names and tensor data are valid until safetensors_free. Data is mapped read-only. If another process
 * truncates an open file, reading it raises SIGBUS.
 * Errors: -EINVAL (err names file, tensor, what was expected and found), -EFBIG, -ENOMEM, or the error of open(). */
#ifndef BLIPLINE_MODEL_SAFETENSORS_H
#define BLIPLINE_MODEL_SAFETENSORS_H

#include "base/err.h"
#include "tensor/tensor.h"

#include <stddef.h>
#include <stdint.h>

struct safetensors;

struct safetensors_entry {
    const char *name;
    const char *file; /* name of its file, without directory */
    struct tensor tensor;
    size_t size_bytes;
};

/* Opens `dir`/model.safetensors, or the shards listed in `dir`/model.safetensors.index.json. */
int safetensors_open(const char *dir, struct safetensors **ret, struct err *err) CHECK_RESULT;
/* Opens a single file (golden data). */
int safetensors_open_file(const char *path, struct safetensors **ret, struct err *err) CHECK_RESULT;
/* Parses a file's bytes, which must stay valid until safetensors_free; `name` is used in messages. */
int safetensors_parse(const void *data, size_t size_bytes, const char *name, struct safetensors **ret,
                      struct err *err) CHECK_RESULT;
void safetensors_free(struct safetensors *st);

size_t safetensors_count(const struct safetensors *st);
/* In the order of names (strcmp); i < count. */
const struct safetensors_entry *safetensors_at(const struct safetensors *st, size_t i);
/* NULL if there is no such tensor. O(log n). */
const struct safetensors_entry *safetensors_find(const struct safetensors *st, const char *name);

/* Releases the resident pages of this tensor, for use after a matrix is packed. Later access reads the file again.
 * Unknown names are ignored. */
void safetensors_drop(const struct safetensors *st, const char *name);

#endif
