#include "emulator.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* What is said when something is wrong, the seed that it takes to see it again, and the runtime's errors. */

static uint32_t random_state;
static unsigned long long seed;

static const char *seed_text(void)
{
    return getenv("BLIPLINE_TEST_SEED");
}

static void set_seed(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    seed = seed_text() ? strtoull(seed_text(), NULL, 0)
                       : (unsigned long long)t.tv_nsec ^ (unsigned long long)t.tv_sec << 20;
    random_state = (uint32_t)(seed ^ seed >> 32) * 2654435761u | 1;
}

uint32_t emulator_random(void)
{
    uint32_t x = random_state;

    if (!x) {
        set_seed();
        x = random_state;
    }
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return random_state = x;
}

void emulator_describe(const char *what)
{
    const uint3 b = emulator_block_index;

    fflush(stdout);
    fprintf(stderr, "\nemulator: %s\n", what);
    if (emulator_site_now) {
        fprintf(stderr,
                "  in the kernel launched at %s:%d: (%s)\n  <<<(%u, %u, %u), (%u, %u, %u), %zu>>>, block (%u, %u, %u)",
                emulator_site_now->file, emulator_site_now->line, emulator_site_now->text, emulator_grid_dim.x,
                emulator_grid_dim.y, emulator_grid_dim.z, emulator_block_dim.x, emulator_block_dim.y,
                emulator_block_dim.z, emulator_shared_bytes, b.x, b.y, b.z);
        if (emulator_self)
            fprintf(stderr, ", thread (%u, %u, %u)", emulator_self->index.x, emulator_self->index.y,
                    emulator_self->index.z);
        fprintf(stderr, "\n");
    }
    fprintf(stderr, "  BLIPLINE_TEST_SEED=%llu\n", seed);
}

void emulator_fail(const char *format, ...)
{
    char text[1000];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    emulator_describe(text);
    abort();
}

/* -- the runtime's errors -- */

cudaError_t emulator_sticky_error;
static cudaError_t last_error, next_error;

static bool is_sticky(cudaError_t e)
{
    return e == cudaErrorECCUncorrectable || (e >= 700 && e < 800 && e != cudaErrorLaunchOutOfResources) ||
           e == cudaErrorUnknown;
}

cudaError_t emulator_return(cudaError_t e)
{
    if (emulator_sticky_error)
        e = emulator_sticky_error;
    if (e)
        last_error = e;
    return e;
}

cudaError_t emulator_injected(void)
{
    const cudaError_t e = next_error;

    next_error = cudaSuccess;
    if (is_sticky(e))
        emulator_sticky_error = e;
    return e ? e : emulator_sticky_error;
}

/* For tests: the next launch, copy or wait returns this error, and all calls from then on where it is a sticky one. */
extern "C" __attribute__((visibility("default"))) void emulator_fail_next(int cuda_error)
{
    const std::lock_guard<std::recursive_mutex> g(emulator_lock);

    next_error = (cudaError_t)cuda_error;
    if (!cuda_error)
        emulator_sticky_error = last_error = cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    const std::lock_guard<std::recursive_mutex> g(emulator_lock);
    const cudaError_t e = last_error;

    last_error = emulator_sticky_error;
    return e;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

static const struct {
    cudaError_t e;
    const char *name, *text;
} error_texts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const char *cudaGetErrorString(cudaError_t e)
{
    for (const auto &t : error_texts)
        if (t.e == e)
            return t.text;
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t e)
{
    for (const auto &t : error_texts)
        if (t.e == e)
            return t.name;
    return "unrecognized error code";
}
