#include "base/dtype.h"

#include <errno.h>
#include <strings.h>

static const struct {
    size_t size_bytes;
    const char *names[3]; /* in safetensors files, in configurations, an alias */
} dtypes[] = {
    [DTYPE_F32] = {4, {"F32", "fp32", "float32"}},    [DTYPE_F16] = {2, {"F16", "fp16", "float16"}},
    [DTYPE_BF16] = {2, {"BF16", "bf16", "bfloat16"}}, [DTYPE_U8] = {1, {"U8", "u8", "uint8"}},
    [DTYPE_I32] = {4, {"I32", "int32", "i32"}},       [DTYPE_I64] = {8, {"I64", "int64", "i64"}},
    [DTYPE_F8_E4M3] = {0, {"FP8", "fp8", "e4m3"}}, /* never in a safetensors file */
};
#define N_DTYPES (sizeof(dtypes) / sizeof(dtypes[0]))

static bool is_known(enum dtype dtype)
{
    return (unsigned)dtype < N_DTYPES && dtypes[dtype].names[0];
}

size_t dtype_size_bytes(enum dtype dtype)
{
    return is_known(dtype) ? dtypes[dtype].size_bytes : 0;
}

const char *dtype_name(enum dtype dtype)
{
    return is_known(dtype) ? dtypes[dtype].names[0] : "?";
}

const char *dtype_word(enum dtype dtype)
{
    if ((unsigned)dtype == 0)
        return "unspecified";
    return is_known(dtype) ? dtypes[dtype].names[1] : "?";
}

int dtype_parse(const char *name, enum dtype *ret_dtype)
{
    for (enum dtype d = DTYPE_F32; d < N_DTYPES; d++)
        for (size_t j = 0; j < 3; j++)
            if (strcasecmp(dtypes[d].names[j], name) == 0) {
                *ret_dtype = d;
                return 0;
            }
    return -EINVAL;
}

bool dtype_is_float(enum dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16;
}

enum dtype dtype_of_activations(enum dtype dtype)
{
    return dtype == DTYPE_F8_E4M3 ? DTYPE_BF16 : dtype;
}
