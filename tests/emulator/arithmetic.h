/* arithmetic.h - CUDA's functions on numbers and bits, for g++.
 *
 * Approximate ones are as exact as the C library. Who may call: kernels, through device.h. */
#ifndef BLIPLINE_TESTS_EMULATOR_ARITHMETIC_H
#define BLIPLINE_TESTS_EMULATOR_ARITHMETIC_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <math.h>
#include <string.h>

static inline int min(int a, int b)
{
    return a < b ? a : b;
}
static inline unsigned min(unsigned a, unsigned b)
{
    return a < b ? a : b;
}
static inline unsigned min(int a, unsigned b)
{
    return min((unsigned)a, b);
}
static inline unsigned min(unsigned a, int b)
{
    return min(a, (unsigned)b);
}
static inline long min(long a, long b)
{
    return a < b ? a : b;
}
static inline unsigned long min(unsigned long a, unsigned long b)
{
    return a < b ? a : b;
}
static inline long long min(long long a, long long b)
{
    return a < b ? a : b;
}
static inline unsigned long long min(unsigned long long a, unsigned long long b)
{
    return a < b ? a : b;
}
static inline float min(float a, float b)
{
    return fminf(a, b);
}
static inline double min(double a, double b)
{
    return fmin(a, b);
}
static inline int max(int a, int b)
{
    return a > b ? a : b;
}
static inline unsigned max(unsigned a, unsigned b)
{
    return a > b ? a : b;
}
static inline unsigned max(int a, unsigned b)
{
    return max((unsigned)a, b);
}
static inline unsigned max(unsigned a, int b)
{
    return max(a, (unsigned)b);
}
static inline long max(long a, long b)
{
    return a > b ? a : b;
}
static inline unsigned long max(unsigned long a, unsigned long b)
{
    return a > b ? a : b;
}
static inline long long max(long long a, long long b)
{
    return a > b ? a : b;
}
static inline unsigned long long max(unsigned long long a, unsigned long long b)
{
    return a > b ? a : b;
}
static inline float max(float a, float b)
{
    return fmaxf(a, b);
}
static inline double max(double a, double b)
{
    return fmax(a, b);
}

static inline float rsqrtf(float x)
{
    return (float)(1.0 / sqrt((double)x));
}
#define __expf expf /* the C library has declared functions of these names for itself */
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __powf powf
#define __tanhf tanhf
#define __sinf sinf
#define __cosf cosf
static inline float __fdividef(float x, float y)
{
    return x / y;
}
static inline float __fdiv_rn(float x, float y)
{
    return x / y;
}
static inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
static inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
static inline float __frsqrt_rn(float x)
{
    return rsqrtf(x);
}
static inline float __fmul_rn(float x, float y)
{
    return x * y;
}
static inline float __fadd_rn(float x, float y)
{
    return x + y;
}
static inline float __fsub_rn(float x, float y)
{
    return x - y;
}
static inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}
static inline double __dmul_rn(double x, double y)
{
    return x * y;
}
static inline double __dadd_rn(double x, double y)
{
    return x + y;
}
static inline float __saturatef(float x)
{
    return fminf(fmaxf(x, 0.0f), 1.0f); /* NaN: 0 */
}

/* -- bits -- */

template <typename To, typename From> static inline To emulator_bits(From x)
{
    static_assert(sizeof(To) == sizeof(From), "the same number of bits");
    To y;

    memcpy(&y, &x, sizeof(y));
    return y;
}
static inline unsigned __float_as_uint(float x)
{
    return emulator_bits<unsigned>(x);
}
static inline int __float_as_int(float x)
{
    return emulator_bits<int>(x);
}
static inline float __uint_as_float(unsigned x)
{
    return emulator_bits<float>(x);
}
static inline float __int_as_float(int x)
{
    return emulator_bits<float>(x);
}
static inline long long __double_as_longlong(double x)
{
    return emulator_bits<long long>(x);
}
static inline double __longlong_as_double(long long x)
{
    return emulator_bits<double>(x);
}
static inline int __float2int_rn(float x)
{
    return (int)rintf(x);
}
static inline int __float2int_rz(float x)
{
    return (int)x;
}
static inline int __float2int_rd(float x)
{
    return (int)floorf(x);
}
static inline int __float2int_ru(float x)
{
    return (int)ceilf(x);
}
static inline float __int2float_rn(int x)
{
    return (float)x;
}
static inline float __uint2float_rn(unsigned x)
{
    return (float)x;
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
static inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
static inline unsigned __brev(unsigned x)
{
    unsigned y = 0;

    for (int i = 0; i < 32; i++)
        y |= (x >> i & 1) << (31 - i);
    return y;
}
static inline unsigned __umulhi(unsigned x, unsigned y)
{
    return (unsigned)((unsigned long long)x * y >> 32);
}
static inline int __mul24(int x, int y)
{
    return (int)((unsigned)x * (unsigned)y);
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const unsigned long long bytes = (unsigned long long)y << 32 | x;
    unsigned z = 0;

    for (int i = 0; i < 4; i++)
        z |= (unsigned)(bytes >> (selector >> i * 4 & 7) * 8 & 0xff) << i * 8;
    return z;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n)
{
    return (unsigned)((((unsigned long long)high << 32 | low) << (n & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n)
{
    return (unsigned)(((unsigned long long)high << 32 | low) >> (n & 31));
}
/* -- arithmetic of pairs that the toolkit's headers keep from the host -- */

static inline __half2 __hfma2(__half2 a, __half2 b, __half2 c)
{
    return __floats2half2_rn(fmaf(__low2float(a), __low2float(b), __low2float(c)),
                             fmaf(__high2float(a), __high2float(b), __high2float(c)));
}
static inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c)
{
    return __floats2bfloat162_rn(fmaf(__low2float(a), __low2float(b), __low2float(c)),
                                 fmaf(__high2float(a), __high2float(b), __high2float(c)));
}

#endif
