#include "product.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <math.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

/* Rows of A and columns of B become rows of floats, whose products are sums over k in eight parts: A in pieces that
 * stay in the cache, all of B at once. Several host threads share the pieces. */

#if defined(__x86_64__)
#define FOR_PROCESSORS(...) __attribute__((target_clones(__VA_ARGS__)))
#else
#define FOR_PROCESSORS(...)
#endif

enum { WIDTH = 8, A_ROWS = 4, B_ROWS = 3, PIECE_ROWS = 32 };
static const double THREAD_WORTH_FLOPS = 2e7;

typedef float floats __attribute__((vector_size(WIDTH * sizeof(float))));

/* -- conversions -- */

static float e4m3_values[256];

static void fill_e4m3(void)
{
    for (int i = 0; i < 256; i++)
        e4m3_values[i] = __half2float(__half(__nv_cvt_fp8_to_halfraw((__nv_fp8_storage_t)i, __NV_E4M3)));
}

size_t product_type_bytes(cudaDataType type)
{
    return type == CUDA_R_32F ? 4 : type == CUDA_R_8F_E4M3 ? 1 : 2;
}

static inline float as_float(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline float half_value(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    const uint32_t special = (h & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    uint32_t bits;
    const float scaled = as_float((uint32_t)(h & 0x7fff) << 13) * 0x1p112f;

    memcpy(&bits, &scaled, sizeof(bits));
    return as_float(bits | special | sign);
}

FOR_PROCESSORS("avx512f", "avx2", "default")
static void convert(cudaDataType type, const void *src, int64_t n, float *__restrict__ dst)
{
    const uint16_t *x16 = (const uint16_t *)src;
    const uint8_t *x8 = (const uint8_t *)src;

    if (type == CUDA_R_32F)
        memcpy(dst, src, (size_t)n * sizeof(float));
    else if (type == CUDA_R_16F)
        for (int64_t i = 0; i < n; i++)
            dst[i] = half_value(x16[i]);
    else if (type == CUDA_R_16BF)
        for (int64_t i = 0; i < n; i++)
            dst[i] = as_float((uint32_t)x16[i] << 16);
    else
        for (int64_t i = 0; i < n; i++)
            dst[i] = e4m3_values[x8[i]];
}

static float value_at(cudaDataType type, const void *x, int64_t i)
{
    float f;

    convert(type, (const char *)x + i * (int64_t)product_type_bytes(type), 1, &f);
    return f;
}

static void store(cudaDataType type, void *x, int64_t i, float f)
{
    if (type == CUDA_R_32F)
        ((float *)x)[i] = f;
    else if (type == CUDA_R_16F)
        ((__half *)x)[i] = __float2half_rn(f);
    else
        ((__nv_bfloat16 *)x)[i] = __float2bfloat16_rn(f);
}

FOR_PROCESSORS("avx512f", "avx2", "default")
static void round_tf32(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, &x[i], sizeof(bits));
        bits = (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
        x[i] = as_float(bits);
    }
}

/* k values of one row of A (column of B): contiguous or ld apart; zeros up to a whole vector. */
static void take_row(const struct product *p, const struct product_matrix *x, bool contiguous, int64_t row, float *dst,
                     int64_t padded_k)
{
    const char *values = (const char *)x->values;
    const int64_t bytes = (int64_t)product_type_bytes(x->type);

    if (contiguous)
        convert(x->type, values + row * x->ld * bytes, p->k, dst);
    else
        for (int64_t i = 0; i < p->k; i++)
            dst[i] = value_at(x->type, values, row + i * x->ld);
    for (int64_t i = p->k; i < padded_k; i++)
        dst[i] = 0;
    if (p->tf32)
        round_tf32(dst, p->k);
}

/* -- sums -- */

template <int N>
static inline __attribute__((always_inline)) void multiply_few(const float *a, const float *b, int64_t k,
                                                               float (*ret)[B_ROWS])
{
    floats sums[A_ROWS][N] = {};

    for (int64_t i = 0; i < k; i += WIDTH) {
        floats y[N];

        for (int j = 0; j < N; j++)
            memcpy(&y[j], b + j * k + i, sizeof(floats));
        for (int l = 0; l < A_ROWS; l++) {
            floats x;

            memcpy(&x, a + l * k + i, sizeof(x));
            for (int j = 0; j < N; j++)
                sums[l][j] += x * y[j];
        }
    }
    for (int l = 0; l < A_ROWS; l++)
        for (int j = 0; j < N; j++) {
            float sum = 0;

            for (int i = 0; i < WIDTH; i++)
                sum += sums[l][j][i];
            ret[l][j] = sum;
        }
}

/* A_ROWS rows of a by n (1 .. B_ROWS) of b */
FOR_PROCESSORS("avx512f", "fma", "default")
static void multiply(const float *a, const float *b, int n, int64_t k, float (*ret)[B_ROWS])
{
    if (n == 3)
        multiply_few<3>(a, b, k, ret);
    else if (n == 2)
        multiply_few<2>(a, b, k, ret);
    else
        multiply_few<1>(a, b, k, ret);
}

/* -- results -- */

static float activate(enum product_act act, float x)
{
    switch (act) {
    case PRODUCT_RELU: /* nothing says that NaN stays NaN, so here it does not */
        return fmaxf(x, 0);
    case PRODUCT_GELU:
        return 0.5f * x * (1 + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    default:
        return x;
    }
}

static void finish(const struct product *p, int64_t i, int64_t j, float sum)
{
    float y = p->alpha * sum;

    if (p->a.scale)
        y *= p->a.scale[p->a.outer ? i : 0];
    if (p->b.scale)
        y *= p->b.scale[p->b.outer ? j : 0];
    if (p->beta != 0)
        y += p->beta * value_at(p->c.type, p->c.values, i + j * p->c.ld);
    if (p->bias)
        y += value_at(p->bias_type, p->bias, i);
    store(p->d.type, (void *)p->d.values, i + j * p->d.ld, activate(p->act, y));
}

/* Rows first .. first + PIECE_ROWS - 1 of the result. */
static void run_piece(const struct product *p, const float *b, int64_t k, int64_t first, float *a)
{
    const int64_t n_rows = std::min<int64_t>(PIECE_ROWS, p->m - first);
    float sums[A_ROWS][B_ROWS];

    for (int64_t i = 0; i < n_rows; i++)
        take_row(p, &p->a, p->a.transposed, first + i, a + i * k, k);
    for (int64_t j = 0; j < p->n; j += B_ROWS) {
        const int n = (int)std::min<int64_t>(B_ROWS, p->n - j);

        for (int64_t i = 0; i < n_rows; i += A_ROWS) {
            multiply(a + i * k, b + j * k, n, k, sums);
            for (int64_t l = 0; l < A_ROWS && i + l < n_rows; l++)
                for (int q = 0; q < n; q++)
                    finish(p, first + i + l, j + q, sums[l][q]);
        }
    }
}

void product_run(const struct product *p)
{
    const int64_t k = (p->k + WIDTH - 1) / WIDTH * WIDTH, n_pieces = (p->m + PIECE_ROWS - 1) / PIECE_ROWS;
    const int n_threads = (double)p->m * p->n * p->k * 2 > THREAD_WORTH_FLOPS
                              ? (int)std::min<unsigned>(4, std::max(1u, std::thread::hardware_concurrency()))
                              : 1;
    const std::unique_ptr<float[]> b(new float[(size_t)(p->n * k)]);
    std::atomic<int64_t> next{0};
    std::vector<std::thread> helpers;
    static bool filled;

    if (!filled)
        fill_e4m3();
    filled = true;
    for (int64_t j = 0; j < p->n; j++)
        take_row(p, &p->b, !p->b.transposed, j, b.get() + j * k, k);
    const auto work = [&] {
        std::vector<float> a((size_t)(PIECE_ROWS * k)); /* zeros, where there are fewer rows */

        for (int64_t i; (i = next++) < n_pieces;)
            run_piece(p, b.get(), k, i * PIECE_ROWS, a.data());
    };
    for (int i = 1; i < n_threads; i++)
        helpers.emplace_back(work);
    work();
    for (std::thread &t : helpers)
        t.join();
}
