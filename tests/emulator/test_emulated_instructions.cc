/* The instructions of ptx.cuh: matrices of a warp and copies behind a thread's back. */
#include "emulator_test.h"

/* y[16, 8] = a[16, 16] b[16, 8] by fragments read from shared memory, whose rows are 16 bytes apart from one another's
 * banks */
static __global__ void mma_kernel(float *y, const __half *a, const __half *b, bool wait)
{
    __half *s_a = cuda_shared<__half>(), *s_b = s_a + 256;
    const unsigned lane = threadIdx.x;
    uint32_t r[4], q[4], first[2];
    float d[4] = {0, 0, 0, 0};

    ptx_copy_async(s_a + lane * 8, a + lane * 8, 16);
    ptx_copy_async(s_b + lane * 8, b + lane * 8, lane < 16 ? 16 : 0);
    ptx_copy_async_commit();
    if (wait)
        ptx_copy_async_wait<0>();
    __syncwarp();
    s_a = cuda_shared<__half>();
    ptx_ldmatrix_x4(r, s_a + lane % 16 * 16 + lane / 16 * 8);
    ptx_ldmatrix_x4_trans(q, s_b + lane * 8);
    first[0] = q[0];
    first[1] = q[1];
    ptx_mma<__half>(d, r, first);
    for (int i = 0; i < 4; i++)
        y[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

static int mma_differs(bool wait)
{
    __half a[256], b[256], *d_a = device<__half>(256), *d_b = device<__half>(256);
    float y[128], *d_y = device<float>(128);
    int n_bad = 0;

    for (int i = 0; i < 256; i++) {
        a[i] = __float2half_rn((float)(i * 7 % 31 - 15) * 0.25f);
        b[i] = __float2half_rn((float)(i * 5 % 29 - 14) * 0.5f);
    }
    put(d_a, a, 256);
    put(d_b, b, 256);
    cuda_launch(&rig, mma_kernel, dim3(1), dim3(32), 1024, d_y, d_a, d_b, wait);
    take(y, d_y, 128);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float sum = 0;

            for (int k = 0; k < 16; k++)
                sum += __half2float(a[i * 16 + k]) * __half2float(b[k * 8 + j]);
            n_bad += y[i * 8 + j] != sum;
        }
    cudaFree(d_a);
    cudaFree(d_b);
    cudaFree(d_y);
    return n_bad;
}

/* What is there after waiting for all but `left` of three groups, of 16 bytes each. */
template <int LEFT> static __global__ void groups_kernel(int *y, const int4 *x)
{
    int4 *s = cuda_shared<int4>();

    for (int i = 0; i < 3; i++) {
        ptx_copy_async(&s[i], &x[i], i == 1 ? 4 : 16);
        ptx_copy_async_commit();
    }
    ptx_copy_async_wait<LEFT>();
    for (int i = 0; i < 3; i++) {
        y[i * 2] = s[i].x;
        y[i * 2 + 1] = s[i].w;
    }
}

static void test_copies_arrive_by_groups(void **)
{
    const int x[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, want[6] = {1, 4, 5, 0, 9, 12};
    int *d_x = device<int>(12), *d_y = device<int>(6), y[6], n_late = 0;

    put(d_x, x, 12);
    for (int round = 0; round < 40; round++) {
        cuda_launch(&rig, round % 2 ? groups_kernel<1> : groups_kernel<0>, dim3(1), dim3(1), 48, d_y,
                    (const int4 *)d_x);
        take(y, d_y, 6);
        for (int i = 0; i < (round % 2 ? 4 : 6); i++)
            assert_int_equal(y[i], want[i]);
        n_late += y[4] == -1;
    }
    assert_in_range(n_late, 1, 19); /* late or early, as the seed will */
    cudaFree(d_x);
    cudaFree(d_y);
}

static __global__ void crooked_kernel(const char *x, int at)
{
    ptx_copy_async(cuda_shared<char>() + at, x, 16);
}
static void crooked(void)
{
    cuda_launch(&rig, crooked_kernel, dim3(1), dim3(1), 64, (const char *)device<char>(16), 8);
    cudaStreamSynchronize(rig.stream);
}
static void copy_outside(void)
{
    cuda_launch(&rig, crooked_kernel, dim3(1), dim3(1), 64, (const char *)device<char>(16), 64);
    cudaStreamSynchronize(rig.stream);
}

static void test_crooked_copies_are_said(void **)
{
    assert_says(death(crooked), "16-byte aligned");
    assert_says(death(copy_outside), "not in the block's shared memory");
}

static void test_mma_and_missing_wait(void **)
{
    assert_int_equal(mma_differs(true), 0);
    assert_true(mma_differs(false) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies_arrive_by_groups),
        cmocka_unit_test(test_crooked_copies_are_said),
        cmocka_unit_test(test_mma_and_missing_wait),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
