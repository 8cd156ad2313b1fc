#include "emulator.h"

#include <stdlib.h>
#include <string.h>

#include <vector>

/* What a warp computes together: d[16, 8] += a[16, 16] * b[16, 8], and the distribution of 8x8 matrices over the lanes.
 * Layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix". Then asynchronous
 * copies. */

enum { M = 16, N = 8, K = 16, LANES = 32 };

#if defined(__x86_64__)
#define FOR_PROCESSORS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_PROCESSORS
#endif

static inline float bits_to_f32(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, 4);
    return f;
}

static inline float half_to_f32(uint32_t h)
{
    const float scaled = bits_to_f32((h & 0x7fff) << 13) * 0x1p112f; /* subnormals too */
    const uint32_t special = (h & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    uint32_t bits;

    memcpy(&bits, &scaled, 4);
    return bits_to_f32(bits | special | (h & 0x8000) << 16);
}

FOR_PROCESSORS static void convert(bool bf16, const uint16_t *x, int n, float *__restrict__ y)
{
    if (bf16)
        for (int i = 0; i < n; i++)
            y[i] = bits_to_f32((uint32_t)x[i] << 16);
    else
        for (int i = 0; i < n; i++)
            y[i] = half_to_f32(x[i]);
}

typedef float row __attribute__((vector_size(N * sizeof(float))));

FOR_PROCESSORS static void multiply(float *d, const float *a, const float *b)
{
    for (int i = 0; i < M; i++) {
        row sum = {0}, before, y;

        for (int k = 0; k < K; k++) {
            memcpy(&y, b + k * N, sizeof(y));
            sum += a[i * K + k] * y;
        }
        memcpy(&before, d + i * N, sizeof(before));
        before += sum;
        memcpy(d + i * N, &before, sizeof(before));
    }
}

void emulator_run_mma(bool bf16, emulator_mma *lanes[LANES])
{
    uint16_t a_bits[M][K], b_bits[K][N];
    float a[M * K], b[K * N], d[M][N];

    for (int lane = 0; lane < LANES; lane++) {
        const emulator_mma *l = lanes[lane];
        const int g = lane / 4, t = lane % 4 * 2;

        for (int i = 0; i < 4; i++)
            memcpy(&a_bits[g + i % 2 * 8][t + i / 2 * 8], &l->a[i], 4); /* the lower column in the lower half */
        for (int i = 0; i < 2; i++) {
            b_bits[t + i * 8][g] = (uint16_t)l->b[i];
            b_bits[t + i * 8 + 1][g] = (uint16_t)(l->b[i] >> 16);
        }
        for (int i = 0; i < 4; i++)
            d[g + i / 2 * 8][t + i % 2] = l->d[i];
    }
    convert(bf16, a_bits[0], M * K, a);
    convert(bf16, b_bits[0], K * N, b);
    multiply(d[0], a, b);
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 4; i++)
            lanes[lane]->d[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

void emulator_run_ldmatrix(bool trans, emulator_ldmatrix *lanes[LANES])
{
    for (int m = 0; m < 4; m++) {
        uint16_t x[8][8];

        for (int row = 0; row < 8; row++) {
            const void *p = lanes[m * 8 + row]->row;

            if ((uintptr_t)p % 16)
                emulator_fail("ptx_ldmatrix_x4: the row of lane %d is not 16-byte aligned", m * 8 + row);
            if (!emulator_is_shared(p, 16))
                emulator_fail("ptx_ldmatrix_x4: the row of lane %d is not in the block's shared memory", m * 8 + row);
            memcpy(x[row], p, 16);
        }
        for (int lane = 0; lane < LANES; lane++) {
            const int i = lane / 4, j = lane % 4 * 2;

            lanes[lane]->r[m] = trans ? (uint32_t)x[j][i] | (uint32_t)x[j + 1][i] << 16
                                      : (uint32_t)x[i][j] | (uint32_t)x[i][j + 1] << 16;
        }
    }
}

/* -- copies behind a thread's back: done when they are waited for or, as the seed will, at once -- */

struct copy {
    void *shared;
    const void *global;
    int n_bytes, group;
};

static struct thread_copies {
    std::vector<copy> list;
    int group;
} under_way[1024];
static bool any;

static struct thread_copies *of_self(void)
{
    return &under_way[emulator_self->warp * LANES + emulator_self->lane];
}

static void perform(const copy &c)
{
    memcpy(c.shared, c.global, (size_t)c.n_bytes);
    memset((char *)c.shared + c.n_bytes, 0, 16 - (size_t)c.n_bytes);
}

void emulator_copy_async(void *shared, const void *global, int n_bytes)
{
    struct thread_copies *t = of_self();
    const copy c = {shared, global, n_bytes, t->group};

    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16)
        emulator_fail("ptx_copy_async: not 16-byte aligned: %p <- %p", shared, global);
    if (n_bytes < 0 || n_bytes > 16)
        emulator_fail("ptx_copy_async: %d bytes", n_bytes);
    if (!emulator_is_shared(shared, 16))
        emulator_fail("ptx_copy_async: the destination is not in the block's shared memory");
    if (!global || (n_bytes && emulator_place_of(global) == EMULATOR_PAGEABLE))
        emulator_fail("ptx_copy_async: the source %p is not the device's memory", global);
    if (emulator_random() & 1)
        return perform(c);
    memset(shared, 0xff, 16); /* nobody may read what was there before */
    t->list.push_back(c);
    any = true;
}

void emulator_copy_async_commit(void)
{
    of_self()->group++;
}

void emulator_copy_async_wait(int n_groups)
{
    struct thread_copies *t = of_self();
    size_t n = 0;

    for (const copy &c : t->list)
        if (c.group < t->group - n_groups)
            perform(c);
        else
            t->list[n++] = c;
    t->list.resize(n);
}

void emulator_copies_reset(void)
{
    if (!any)
        return;
    for (struct thread_copies &t : under_way) {
        t.list.clear();
        t.group = 0;
    }
    any = false;
}
