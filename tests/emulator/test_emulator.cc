/* The emulator itself: what it must compute, and that it finds the mistakes it is there for. A mistake that ends the
 * process is made in a child. */
#include "emulator_test.h"

/* -- blocks -- */

static __global__ void reverse_kernel(int *y, const int *x, int n, bool careful)
{
    __shared__ int part[256];
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);

    part[threadIdx.x] = i < n ? x[i] : 0;
    if (careful)
        __syncthreads();
    if (i < n)
        y[i] = part[blockDim.x - 1 - threadIdx.x];
}

static int reverse_differs(bool careful)
{
    enum { N = 8 * 256 };
    int x[N], y[N], n_bad = 0;
    int *d_x = device<int>(N), *d_y = device<int>(N);

    for (int i = 0; i < N; i++)
        x[i] = i * 3;
    put(d_x, x, N);
    assert_int_equal(cuda_launch(&rig, reverse_kernel, dim3(N / 256), dim3(256), 0, d_y, d_x, (int)N, careful), 0);
    take(y, d_y, N);
    for (int i = 0; i < N; i++)
        n_bad += y[i] != x[i / 256 * 256 + 255 - i % 256];
    cudaFree(d_x);
    cudaFree(d_y);
    return n_bad;
}

static void test_missing_barrier_shows(void **)
{
    assert_int_equal(reverse_differs(true), 0);
    assert_true(reverse_differs(false) > 100);
}

static __global__ void neighbour_kernel(int *y, bool careful)
{
    int *x = cuda_shared<int>();

    x[threadIdx.x] = (int)threadIdx.x;
    if (careful)
        __syncwarp();
    y[threadIdx.x] = x[threadIdx.x ^ 1];
}

static void test_missing_syncwarp_shows(void **)
{
    int *d_y = device<int>(32), y[32], n_bad = 0;

    for (int round = 0; round < 2; round++) {
        cuda_launch(&rig, neighbour_kernel, dim3(1), dim3(32), 32 * sizeof(int), d_y, round == 0);
        take(y, d_y, 32);
        for (int i = 0; i < 32; i++)
            n_bad += y[i] != (i ^ 1);
        assert_true(round ? n_bad >= 8 : n_bad == 0);
    }
    cudaFree(d_y);
}

static __global__ void collectives_kernel(unsigned *y)
{
    const unsigned lane = threadIdx.x % 32;
    unsigned *out = y + threadIdx.x * 16;

    out[0] = __shfl_sync(~0u, lane * 10, 7);
    out[1] = __shfl_xor_sync(~0u, lane * 10, 5);
    out[2] = __shfl_up_sync(~0u, lane * 10, 3);
    out[3] = __shfl_down_sync(~0u, lane * 10, 3);
    out[4] = __ballot_sync(~0u, lane % 3 == 0);
    out[5] = (unsigned)__any_sync(~0u, lane == 31);
    out[6] = (unsigned)__all_sync(~0u, lane < 31);
    out[7] = __reduce_max_sync(~0u, lane ^ 9);
    out[8] = __shfl_sync(~0u, lane * 10, 3, 8);
    out[9] = __shfl_down_sync(~0u, lane * 10, 3, 8);
    out[10] = (unsigned)(__shfl_xor_sync(~0u, 0x100000000ull + lane, 1) >> 32);
    out[11] = lane < 8 ? __shfl_sync(0xffu, lane, 2) : __ballot_sync(~0xffu, lane & 1);
    out[12] = (unsigned)__syncthreads_count(threadIdx.x % 2 == 0);
    out[13] = (unsigned)__syncthreads_or(threadIdx.x == 77);
    out[14] = (unsigned)__syncthreads_and(threadIdx.x != 77);
    out[15] = __float_as_uint(__shfl_xor_sync(~0u, (float)lane, 16));
}

static void test_collectives(void **)
{
    unsigned *d_y = device<unsigned>(96 * 16), y[96 * 16];

    cuda_launch(&rig, collectives_kernel, dim3(1), dim3(96), 0, d_y);
    take(y, d_y, 96 * 16);
    for (unsigned i = 0; i < 96; i++) {
        const unsigned lane = i % 32, *o = y + i * 16;
        const float other = (float)(lane ^ 16);

        assert_int_equal(o[0], 70);
        assert_int_equal(o[1], (lane ^ 5) * 10);
        assert_int_equal(o[2], (lane < 3 ? lane : lane - 3) * 10);
        assert_int_equal(o[3], (lane > 28 ? lane : lane + 3) * 10);
        assert_int_equal(o[4], 0x49249249);
        assert_int_equal(o[5], 1);
        assert_int_equal(o[6], 0);
        assert_int_equal(o[7], 31);
        assert_int_equal(o[8], (lane / 8 * 8 + 3) * 10);
        assert_int_equal(o[9], (lane % 8 > 4 ? lane : lane + 3) * 10);
        assert_int_equal(o[10], 1);
        assert_int_equal(o[11], lane < 8 ? 2 : 0xaaaaaa00);
        assert_int_equal(o[12], 48);
        assert_int_equal(o[13], 1);
        assert_int_equal(o[14], 0);
        assert_memory_equal(&o[15], &other, 4);
    }
    cudaFree(d_y);
}

static __global__ void deadlock_kernel(int n)
{
    if ((int)threadIdx.x < n)
        __syncwarp();
    else
        __syncthreads();
}
static void deadlock(void)
{
    cuda_launch(&rig, deadlock_kernel, dim3(1), dim3(64), 0, 5);
    cudaStreamSynchronize(rig.stream);
}
static __global__ void gone_kernel(float *y)
{
    float x = (float)threadIdx.x;

    if (threadIdx.x >= 30)
        return;
    for (int i = 16; i > 0; i /= 2)
        x += __shfl_xor_sync(~0u, x, i);
    *y = x;
}
static void gone(void)
{
    cuda_launch(&rig, gone_kernel, dim3(1), dim3(32), 0, device<float>(1));
    cudaStreamSynchronize(rig.stream);
}

static void test_waiting_for_nobody_is_said(void **)
{
    assert_says(death(deadlock), "deadlock");
    assert_says(death(gone), "has returned from the kernel");
}

/* -- memory -- */

static __global__ void write_kernel(char *p, ptrdiff_t at)
{
    p[at] = 1;
}
static ptrdiff_t write_at;
static void write_outside(void)
{
    cuda_launch(&rig, write_kernel, dim3(1), dim3(1), 0, device<char>(1000), write_at);
    cudaStreamSynchronize(rig.stream);
}
static __global__ void write_shared_kernel(int at)
{
    cuda_shared<char>()[at] = 1;
}
static void write_outside_shared(void)
{
    cuda_launch(&rig, write_shared_kernel, dim3(1), dim3(1), 1000, (int)write_at);
    cudaStreamSynchronize(rig.stream);
}
static void read_on_host(void)
{
    char *d = device<char>(8);

    fprintf(stderr, "%d", d[3]);
}
static void write_freed(void)
{
    char *d = device<char>(1000);

    cudaFree(d);
    cuda_launch(&rig, write_kernel, dim3(1), dim3(1), 0, d, (ptrdiff_t)0);
    cudaStreamSynchronize(rig.stream);
}
static void host_pointer(void)
{
    char x[4];

    cuda_launch(&rig, write_kernel, dim3(1), dim3(1), 0, (char *)x, (ptrdiff_t)0);
}

static void test_writes_outside_are_found(void **)
{
    write_at = 999;
    assert_string_equal(death(write_outside), "");
    for (ptrdiff_t at : {1000, 1023, -1}) {
        write_at = at;
        assert_says(death(write_outside), "from the start of the 1000 bytes");
    }
    write_at = 1024;
    assert_says(death(write_outside), "24 bytes from the end of the 1000 bytes");
    write_at = 999;
    assert_string_equal(death(write_outside_shared), "");
    write_at = 1000;
    assert_says(death(write_outside_shared), "0 bytes behind the 1000 bytes of dynamic shared memory");
    write_at = 1024;
    assert_says(death(write_outside_shared), "segmentation fault");
    assert_says(death(write_freed), "is free");
    assert_says(death(read_on_host), "Segmentation fault");
    assert_says(death(host_pointer), "is host memory");
}

static __global__ void stale_kernel(unsigned *y)
{
    __shared__ unsigned mine[4];
    unsigned *dynamic = cuda_shared<unsigned>();

    y[blockIdx.x * 2] = mine[2];
    y[blockIdx.x * 2 + 1] = dynamic[3];
    mine[2] = dynamic[3] = 7;
}

static void test_memory_starts_with_nonsense(void **)
{
    unsigned *d_y = device<unsigned>(8), y[8];

    take(y, d_y, 8);
    for (unsigned x : y)
        assert_int_equal(x, ~0u);
    for (int round = 0; round < 2; round++) { /* in the first launch nobody has ever used the static array */
        cuda_launch(&rig, stale_kernel, dim3(4), dim3(1), 16, d_y);
        take(y, d_y, 8);
    }
    for (unsigned x : y)
        assert_int_equal(x, ~0u);
    cudaFree(d_y);
}

/* -- what a GPU does behind the host -- */

static void test_early_overwrite_of_pinned_memory_shows(void **)
{
    int *pinned, *d = device<int>(1), x;

    assert_int_equal(cudaMallocHost((void **)&pinned, sizeof(int)), 0);
    for (int careful = 0; careful < 2; careful++) {
        *pinned = 1;
        put(d, pinned, 1);
        if (careful)
            cudaStreamSynchronize(rig.stream);
        *pinned = 2;
        take(&x, d, 1);
        assert_int_equal(x, careful ? 1 : 2);
    }
    cudaFreeHost(pinned);
    x = 3;
    put(d, &x, 1); /* pageable memory is the caller's again at once */
    x = 4;
    take(&x, d, 1);
    assert_int_equal(x, 3);
    cudaFree(d);
}

static void test_missing_event_shows(void **)
{
    int *d = device<int>(1), x = 0;
    cudaEvent_t event;

    assert_int_equal(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), 0);
    for (int careful = 0; careful < 2; careful++) {
        cudaMemsetAsync(d, 0, sizeof(int), rig.stream);
        cudaStreamSynchronize(rig.stream);
        cudaMemsetAsync(d, 1, sizeof(int), rig.upload_stream);
        cudaEventRecord(event, rig.upload_stream);
        if (careful)
            cudaStreamWaitEvent(rig.stream, event, 0);
        take(&x, d, 1);
        assert_int_equal(x, careful ? 0x01010101 : 0);
        cudaStreamSynchronize(rig.upload_stream);
    }
    cudaEventDestroy(event);
    cudaFree(d);
}

static __global__ void add_kernel(int *p, int x)
{
    *p += x;
}

static void test_graph_is_replayed(void **)
{
    int *d = device<int>(1), x = 0, *pinned;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    enum cudaStreamCaptureStatus status;

    assert_int_equal(cudaMallocHost((void **)&pinned, sizeof(int)), 0);
    assert_int_equal(cudaStreamBeginCapture(rig.stream, cudaStreamCaptureModeRelaxed), 0);
    assert_int_equal(cudaMemcpyAsync(d, pinned, sizeof(int), cudaMemcpyHostToDevice, rig.stream), 0);
    assert_int_equal(cuda_launch(&rig, add_kernel, dim3(1), dim3(1), 0, d, 5), 0);
    assert_int_equal(cudaStreamIsCapturing(rig.stream, &status), 0);
    assert_int_equal(status, cudaStreamCaptureStatusActive);
    assert_int_equal(cudaStreamEndCapture(rig.stream, &graph), 0);
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), 0);
    assert_int_equal(cudaGraphDestroy(graph), 0);
    for (int i = 1; i < 4; i++) {
        *pinned = i * 100;
        assert_int_equal(cudaGraphLaunch(exec, rig.stream), 0);
        take(&x, d, 1);
        assert_int_equal(x, i * 100 + 5);
    }
    assert_int_equal(cudaStreamBeginCapture(rig.stream, cudaStreamCaptureModeRelaxed), 0);
    assert_int_equal(cudaStreamSynchronize(rig.stream), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(rig.stream, &graph), cudaErrorStreamCaptureInvalidated);
    assert_int_equal(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
    cudaGraphExecDestroy(exec);
    cudaFreeHost(pinned);
    cudaFree(d);
}

static void test_errors_are_injected(void **)
{
    emulator_fail_next(cudaErrorInvalidValue);
    assert_int_equal(cuda_launch(&rig, add_kernel, dim3(1), dim3(1), 0, (int *)NULL, 5), -EIO);
    assert_int_equal(cudaStreamSynchronize(rig.stream), 0);
    emulator_fail_next(cudaErrorIllegalAddress);
    assert_int_equal(cudaStreamSynchronize(rig.stream), cudaErrorIllegalAddress);
    assert_int_equal(cudaMalloc((void **)&rig.upload_stream, 4), cudaErrorIllegalAddress);
    assert_int_equal(cudaGetLastError(), cudaErrorIllegalAddress);
    assert_int_equal(cudaGetLastError(), cudaErrorIllegalAddress);
    emulator_fail_next(cudaSuccess);
    assert_int_equal(cudaGetLastError(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_barrier_shows),
        cmocka_unit_test(test_missing_syncwarp_shows),
        cmocka_unit_test(test_collectives),
        cmocka_unit_test(test_waiting_for_nobody_is_said),
        cmocka_unit_test(test_writes_outside_are_found),
        cmocka_unit_test(test_memory_starts_with_nonsense),
        cmocka_unit_test(test_early_overwrite_of_pinned_memory_shows),
        cmocka_unit_test(test_missing_event_shows),
        cmocka_unit_test(test_graph_is_replayed),
        cmocka_unit_test(test_errors_are_injected),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
