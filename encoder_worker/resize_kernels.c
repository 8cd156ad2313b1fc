#include "encoder_worker/resize_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define HAVE_AVX2_KERNELS 1
#endif

#include <string.h>

enum { WEIGHT_BITS = 22, ROUND = 1 << (WEIGHT_BITS - 1) };

static uint8_t clip(int32_t sum)
{
    int32_t v = sum >> WEIGHT_BITS;

    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static int32_t weight(const struct resize_axis *a, uint32_t i, uint32_t j)
{
    const int16_t *g = a->weights + ((size_t)i * a->n_groups + j / 4) * 8 + j % 4;

    return g[0] * 256 + g[4];
}

/* The number of taps inside the input. */
static uint32_t taps_inside(const struct resize_axis *a, uint32_t i)
{
    uint32_t n = a->n_groups * 4, room = a->in - a->first[i];

    return n < room ? n : room;
}

static void across_plain(const struct resize_axis *a, const uint8_t *const *src, uint8_t *const *dst)
{
    for (uint32_t i = 0; i < a->out; i++) {
        uint32_t n = taps_inside(a, i);

        for (int r = 0; r < RESIZE_ROWS; r++) {
            const uint8_t *px = src[r] + (size_t)a->first[i] * 3;
            int32_t red = ROUND, green = ROUND, blue = ROUND;

            for (uint32_t j = 0; j < n; j++) {
                int32_t w = weight(a, i, j);

                red += w * px[3 * j];
                green += w * px[3 * j + 1];
                blue += w * px[3 * j + 2];
            }
            dst[r][3 * i] = clip(red);
            dst[r][3 * i + 1] = clip(green);
            dst[r][3 * i + 2] = clip(blue);
        }
    }
}

/* Computes bytes from .. to of one output row in strips, so that the sums stay in registers and the first-level
 * cache. */
static void down_bytes(const struct resize_axis *a, uint32_t i, const uint8_t *src, size_t row_bytes, size_t from,
                       uint8_t *dst)
{
    enum { STRIP = 256 };
    uint32_t n = taps_inside(a, i);

    for (size_t x = from; x < row_bytes; x += STRIP) {
        size_t len = row_bytes - x < STRIP ? row_bytes - x : STRIP;
        int32_t sums[STRIP];

        for (size_t k = 0; k < len; k++)
            sums[k] = ROUND;
        for (uint32_t j = 0; j < n; j++) {
            const uint8_t *row = src + j * row_bytes + x;
            int32_t w = weight(a, i, j);

            for (size_t k = 0; k < len; k++)
                sums[k] += w * row[k];
        }
        for (size_t k = 0; k < len; k++)
            dst[x + k] = clip(sums[k]);
    }
}

static void down_plain(const struct resize_axis *a, uint32_t i, const uint8_t *src, size_t row_bytes, uint8_t *dst)
{
    down_bytes(a, i, src, row_bytes, 0, dst);
}

#ifdef HAVE_AVX2_KERNELS
#define AVX2 __attribute__((target("avx2")))

/* Spreads four pixels RGBRGBRGBRGB to 16-bit pairs: (r0 r1)(g0 g1)(b0 b1)(0 0) in the low half, pixels 2 and 3
 * above. */
AVX2 static void across_avx2(const struct resize_axis *a, const uint8_t *const *src, uint8_t *const *dst)
{
    const __m256i spread = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, /**/
                                            6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const __m256i pick_high = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1),
                  pick_low = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
    const int16_t *w = a->weights;

    if (a->ragged) {
        across_plain(a, src, dst);
        return;
    }
    for (uint32_t i = 0; i < a->out; i++) {
        __m256i high[RESIZE_ROWS], low[RESIZE_ROWS];
        size_t at = (size_t)a->first[i] * 3;
        __m128i sums[RESIZE_ROWS];

        for (int r = 0; r < RESIZE_ROWS; r++)
            high[r] = low[r] = _mm256_setzero_si256();
        for (uint32_t g = 0; g < a->n_groups; g++, w += 8, at += 12) {
            __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)w));
            __m256i w_high = _mm256_permutevar8x32_epi32(both, pick_high),
                    w_low = _mm256_permutevar8x32_epi32(both, pick_low);

            for (int r = 0; r < RESIZE_ROWS; r++) {
                __m256i px = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(src[r] + at)));

                px = _mm256_shuffle_epi8(px, spread);
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(px, w_high));
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(px, w_low));
            }
        }
        for (int r = 0; r < RESIZE_ROWS; r++) {
            __m256i s = _mm256_add_epi32(_mm256_slli_epi32(high[r], 8), low[r]);
            __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));

            sums[r] = _mm_srai_epi32(_mm_add_epi32(t, _mm_set1_epi32(ROUND)), WEIGHT_BITS);
        }
        __m128i bytes = _mm_packus_epi16(_mm_packs_epi32(sums[0], sums[1]), _mm_packs_epi32(sums[2], sums[3]));
        uint32_t out[RESIZE_ROWS];

        _mm_storeu_si128((__m128i *)out, bytes);
        for (int r = 0; r < RESIZE_ROWS; r++)
            memcpy(dst[r] + 3 * (size_t)i, &out[r], i + 1 < a->out ? 4 : 3); /* byte 4 is overwritten next */
    }
}

AVX2 static void down_avx2(const struct resize_axis *a, uint32_t i, const uint8_t *src, size_t row_bytes, uint8_t *dst)
{
    const int16_t *weights = a->weights + (size_t)i * a->n_groups * 8;
    const __m256i round = _mm256_set1_epi32(ROUND);
    size_t x = 0;

    if (a->ragged) {
        down_plain(a, i, src, row_bytes, dst);
        return;
    }
    for (; x + 16 <= row_bytes; x += 16) {
        __m256i high_a = _mm256_setzero_si256(), high_b = high_a, low_a = high_a, low_b = high_a;
        const uint8_t *px = src + x;
        const int16_t *w = weights;

        for (uint32_t g = 0; g < a->n_groups; g++, w += 8) {
            for (int pair = 0; pair < 4; pair += 2, px += 2 * row_bytes) {
                __m256i w_high, w_low, upper, lower, ab, cd;
                int32_t two;

                memcpy(&two, w + pair, 4);
                w_high = _mm256_set1_epi32(two);
                memcpy(&two, w + pair + 4, 4);
                w_low = _mm256_set1_epi32(two);
                upper = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)px));
                lower = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(px + row_bytes)));
                ab = _mm256_unpacklo_epi16(upper, lower); /* bytes 0-3 and 8-11 */
                cd = _mm256_unpackhi_epi16(upper, lower); /* bytes 4-7 and 12-15 */
                high_a = _mm256_add_epi32(high_a, _mm256_madd_epi16(ab, w_high));
                high_b = _mm256_add_epi32(high_b, _mm256_madd_epi16(cd, w_high));
                low_a = _mm256_add_epi32(low_a, _mm256_madd_epi16(ab, w_low));
                low_b = _mm256_add_epi32(low_b, _mm256_madd_epi16(cd, w_low));
            }
        }
        high_a = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(high_a, 8), low_a), round);
        high_b = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(high_b, 8), low_b), round);
        /* packing works per half, which restores the order: 0-3 4-7 | 8-11 12-15 */
        __m256i words =
            _mm256_packs_epi32(_mm256_srai_epi32(high_a, WEIGHT_BITS), _mm256_srai_epi32(high_b, WEIGHT_BITS));
        __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));

        _mm_storeu_si128((__m128i *)(dst + x), bytes);
    }
    if (x < row_bytes)
        down_bytes(a, i, src, row_bytes, x, dst);
}
#endif

struct resize_kernels resize_kernels_plain(void)
{
    return (struct resize_kernels){.across = across_plain, .down = down_plain};
}

struct resize_kernels resize_kernels_best(void)
{
#ifdef HAVE_AVX2_KERNELS
    if (__builtin_cpu_supports("avx2"))
        return (struct resize_kernels){.across = across_avx2, .down = down_avx2};
#endif
    return resize_kernels_plain();
}
