/* npy.h - the head of a NumPy .npy file (format version 1.0, little endian, C order).
 *
 * Who may call: anyone. Units: elements. Memory: none. Errors: -EINVAL for a shape that has no room in the head.
 * Source: numpy.lib.format. The header has the same size for every shape: it is written first with a guess, and again
 * at the end, when the number of rows is known. */
#ifndef BLIPLINE_CLIENT_EXPORT_NPY_H
#define BLIPLINE_CLIENT_EXPORT_NPY_H

#include "base/err.h"
#include "proto/recipe.h"

#include <stdint.h>

enum { NPY_HEAD_BYTES = 128, NPY_MAX_DIMS = 3 };

/* dtype F16 or F32. */
int npy_head(enum dtype dtype, int n_dims, const uint64_t *shape, uint8_t ret[NPY_HEAD_BYTES]) CHECK_RESULT;

#endif
