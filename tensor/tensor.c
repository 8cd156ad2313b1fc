#include "tensor/tensor.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

int tensor_n_elements(const struct tensor *t, int64_t *ret_n)
{
    int64_t n = 1;
    bool empty = false;

    if (t->n_dims < 0 || t->n_dims > TENSOR_MAX_DIMS)
        return -EINVAL;
    for (int i = 0; i < t->n_dims; i++) {
        if (t->shape[i] < 0)
            return -EINVAL;
        if (t->shape[i] == 0)
            empty = true; /* continue: the other dimensions must still be valid */
        else if (__builtin_mul_overflow(n, t->shape[i], &n))
            return -EOVERFLOW;
    }
    *ret_n = empty ? 0 : n;
    return 0;
}

int tensor_size_bytes(const struct tensor *t, size_t *ret_bytes)
{
    size_t item = dtype_size_bytes(t->dtype), bytes;
    int64_t n;
    int rc;

    if (!item)
        return -EINVAL;
    rc = tensor_n_elements(t, &n);
    if (rc < 0)
        return rc;
    if (__builtin_mul_overflow((size_t)n, item, &bytes) || bytes > PTRDIFF_MAX)
        return -EOVERFLOW;
    *ret_bytes = bytes;
    return 0;
}

bool tensor_shape_is(const struct tensor *t, int n_dims, const int64_t *shape)
{
    if (t->n_dims != n_dims)
        return false;
    for (int i = 0; i < n_dims; i++)
        if (t->shape[i] != shape[i])
            return false;
    return true;
}

char *tensor_shape_text(int n_dims, const int64_t *shape, char *buf, size_t buf_size)
{
    size_t at = 0;

    for (int i = 0; i < n_dims && at < buf_size; i++)
        at += (size_t)snprintf(buf + at, buf_size - at, "%s%lld", i ? ", " : "[", (long long)shape[i]);
    if (at < buf_size)
        (void)snprintf(buf + at, buf_size - at, "%s", n_dims > 0 ? "]" : "[]");
    return buf;
}

static float bits_to_f32(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static uint32_t f32_to_bits(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = (h >> 10) & 31, frac = h & 1023;

    if (exp == 31) /* NaNs become quiet, as the hardware conversion does */
        return bits_to_f32(sign | 0x7f800000u | frac << 13 | (frac ? 0x400000u : 0));
    if (exp == 0) /* zero, subnormal: frac * 2^-24 is exact */
        return bits_to_f32(f32_to_bits((float)frac * 0x1p-24f) | sign);
    return bits_to_f32(sign | (exp + 112) << 23 | frac << 13);
}

static uint16_t f32_to_f16(float f)
{
    uint32_t bits = f32_to_bits(f), mag = bits & 0x7fffffffu, out;
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000);

    if (mag > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | ((mag >> 13) & 0x3ff));
    if (mag >= 0x477ff000u) /* rounds to 2^16 or more */
        return (uint16_t)(sign | 0x7c00);
    if (mag < 0x38800000u) { /* below 2^-14: adding 0.5 leaves the subnormal's bits, rounded to even, at the bottom */
        out = f32_to_bits(bits_to_f32(mag) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | out);
    }
    out = mag - 0x38000000u;
    out = (out + 0xfff + ((out >> 13) & 1)) >> 13;
    return (uint16_t)(sign | out);
}

static uint16_t f32_to_bf16(float f)
{
    uint32_t bits = f32_to_bits(f);

    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static void f16_row_to_f32(float *dst, const unsigned char *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;

        memcpy(&h, src + 2 * i, 2);
        dst[i] = f16_to_f32(h);
    }
}

static void f32_row_to_f16(unsigned char *dst, const float *src, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = f32_to_f16(src[i]);

        memcpy(dst + 2 * i, &h, 2);
    }
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) static size_t f16c_row_to_f32(float *dst, const unsigned char *src, size_t n)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(src + 2 * i))));
    return i;
}

__attribute__((target("avx,f16c"))) static size_t f16c_row_to_f16(unsigned char *dst, const float *src, size_t n)
{
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(dst + 2 * i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    return i;
}

/* Cached, because in a virtual machine cpuid takes microseconds. Racing threads store the same answer. */
static bool have_f16c(void)
{
    static atomic_int known; /* 0: not asked yet, 1: no, 2: yes */
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    unsigned a, b, c = 0, d;

    if (answer == 0) { /* "avx" checks that the kernel saves the wide registers; clang 14 has no name for F16C */
        answer = __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) ? 2 : 1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == 2;
}
#else
static size_t f16c_row_to_f32(float *dst, const unsigned char *src, size_t n)
{
    (void)dst, (void)src, (void)n;
    return 0;
}

static size_t f16c_row_to_f16(unsigned char *dst, const float *src, size_t n)
{
    (void)dst, (void)src, (void)n;
    return 0;
}

static bool have_f16c(void)
{
    return false;
}
#endif

void tensor_to_f32(float *dst, enum dtype dtype, const void *src, size_t n)
{
    const unsigned char *bytes = src;
    size_t done = 0;

    if (n == 0)
        return; /* pointers may be NULL then */
    switch (dtype) {
    case DTYPE_F32:
        memcpy(dst, src, n * sizeof(float));
        return;
    case DTYPE_F16:
        if (have_f16c())
            done = f16c_row_to_f32(dst, bytes, n);
        f16_row_to_f32(dst + done, bytes + 2 * done, n - done);
        return;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h;

            memcpy(&h, bytes + 2 * i, 2);
            dst[i] = bits_to_f32((uint32_t)h << 16);
        }
        return;
    case DTYPE_U8:
        for (size_t i = 0; i < n; i++)
            dst[i] = (float)bytes[i];
        return;
    case DTYPE_I32:
    case DTYPE_I64:
    case DTYPE_F8_E4M3:
        break;
    }
    assert(!"tensor_to_f32: not a float type");
}

void tensor_from_f32(void *dst, enum dtype dtype, const float *src, size_t n)
{
    unsigned char *bytes = dst;
    size_t done = 0;

    if (n == 0)
        return;
    switch (dtype) {
    case DTYPE_F32:
        memcpy(dst, src, n * sizeof(float));
        return;
    case DTYPE_F16:
        if (have_f16c())
            done = f16c_row_to_f16(bytes, src, n);
        f32_row_to_f16(bytes + 2 * done, src + done, n - done);
        return;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++) {
            uint16_t h = f32_to_bf16(src[i]);

            memcpy(bytes + 2 * i, &h, 2);
        }
        return;
    case DTYPE_U8:
    case DTYPE_I32:
    case DTYPE_I64:
    case DTYPE_F8_E4M3:
        break;
    }
    assert(!"tensor_from_f32: not a float type");
}

void tensor_convert(void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n)
{
    const size_t dst_size = dtype_size_bytes(dst_dtype), src_size = dtype_size_bytes(src_dtype);
    float part[512];

    if (dst_dtype == src_dtype) {
        memcpy(dst, src, n * dst_size);
        return;
    }
    for (size_t i = 0, count; i < n; i += count) {
        count = n - i < 512 ? n - i : 512;
        tensor_to_f32(part, src_dtype, (const unsigned char *)src + i * src_size, count);
        tensor_from_f32((unsigned char *)dst + i * dst_size, dst_dtype, part, count);
    }
}

void tensor_row_to_f32(const struct tensor *t, int64_t row, float *dst)
{
    size_t width = 1;

    assert(t->n_dims >= 1 && row >= 0 && row < t->shape[0]);
    for (int i = 1; i < t->n_dims; i++)
        width *= (size_t)t->shape[i];
    tensor_to_f32(dst, t->dtype, (const unsigned char *)t->data + (size_t)row * width * dtype_size_bytes(t->dtype),
                  width);
}
