/* dtype.h - element types and their names.
 *
 * Who may call: anyone, from any thread. Units, memory: none.
 * Errors: -EINVAL for an unknown name. */
#ifndef BLIPLINE_BASE_DTYPE_H
#define BLIPLINE_BASE_DTYPE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* wire.proto uses the same numbers and fingerprints hash them: never renumber. 0 means "not given". */
enum dtype {
    DTYPE_F32 = 1,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_U8,
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_F8_E4M3, /* how matrices are multiplied ("fp8"), never the type of a tensor: activations are BF16 */
};

size_t dtype_size_bytes(enum dtype dtype);                             /* 0: not a tensor type */
const char *dtype_name(enum dtype dtype);                              /* "F32", as in safetensors files; "?" */
const char *dtype_word(enum dtype dtype);                              /* "fp32", as in configurations; "?" */
int dtype_parse(const char *name, enum dtype *ret_dtype) CHECK_RESULT; /* any case; also "fp32", "float32", ... */
bool dtype_is_float(enum dtype dtype);                                 /* F32, F16, BF16 */
/* The type of activations and of sent tensors when a stage computes in `dtype`. */
enum dtype dtype_of_activations(enum dtype dtype);

#endif
