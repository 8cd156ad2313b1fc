#include "stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The rest of the runtime: the device, launches and copies. */

using guard = std::lock_guard<std::recursive_mutex>;

/* -- the device: one of sm_90, or as BLIPLINE_EMULATED_SM says (80, 89, 90) -- */

static int compute_capability(void)
{
    const char *sm = getenv("BLIPLINE_EMULATED_SM");

    return sm ? atoi(sm) : 90;
}

/* CUDA C++ Programming Guide, "Compute Capabilities" */
static size_t shared_limit(void)
{
    const int sm = compute_capability();

    return (sm >= 90 ? 227 : sm == 80 ? 163 : 99) * 1024;
}

cudaError_t cudaGetDeviceCount(int *ret)
{
    *ret = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    const guard g(emulator_lock);

    return emulator_return(device ? cudaErrorInvalidDevice : cudaSuccess);
}

cudaError_t cudaGetDevice(int *ret)
{
    *ret = 0;
    return cudaSuccess;
}

cudaError_t cudaSetDeviceFlags(unsigned)
{
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    const guard g(emulator_lock);

    if (device)
        return emulator_return(cudaErrorInvalidDevice);
    memset(p, 0, sizeof(*p));
    snprintf(p->name, sizeof(p->name), "emulator");
    memcpy(p->uuid.bytes, "BLIPLINEEMULATOR", sizeof(p->uuid.bytes));
    size_t n_free;
    cudaMemGetInfo(&n_free, &p->totalGlobalMem);
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = shared_limit();
    p->sharedMemPerMultiprocessor = shared_limit() + 1024;
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->major = compute_capability() / 10;
    p->minor = compute_capability() % 10;
    p->multiProcessorCount = 132;
    p->maxThreadsPerMultiProcessor = 2048;
    p->maxBlocksPerMultiProcessor = 32;
    p->l2CacheSize = 50 << 20;
    p->memoryBusWidth = 5120;
    p->asyncEngineCount = 3;
    p->unifiedAddressing = p->canMapHostMemory = p->concurrentKernels = 1;
    return emulator_return(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *ret, enum cudaDeviceAttr attribute, int device)
{
    struct cudaDeviceProp p;
    const cudaError_t e = cudaGetDeviceProperties(&p, device);

    if (e)
        return e;
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
        *ret = p.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *ret = p.minor;
        break;
    case cudaDevAttrMultiProcessorCount:
        *ret = p.multiProcessorCount;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *ret = (int)p.sharedMemPerBlockOptin;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *ret = (int)p.sharedMemPerBlock;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *ret = (int)p.sharedMemPerMultiprocessor;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *ret = p.maxThreadsPerMultiProcessor;
        break;
    case cudaDevAttrL2CacheSize:
        *ret = p.l2CacheSize;
        break;
    case cudaDevAttrMaxThreadsPerBlock:
        *ret = p.maxThreadsPerBlock;
        break;
    case cudaDevAttrWarpSize:
        *ret = p.warpSize;
        break;
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrIntegrated:
    case cudaDevAttrPageableMemoryAccess:
        *ret = 0;
        break;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrConcurrentKernels:
        *ret = 1;
        break;
    default:
        emulator_fail("cudaDeviceGetAttribute: the emulator does not know attribute %d", (int)attribute);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *ret, int n, int device)
{
    snprintf(ret, (size_t)n, "0000:00:00.0");
    return device ? cudaErrorInvalidDevice : cudaSuccess;
}

cudaError_t cudaDeviceGetByPCIBusId(int *ret, const char *id)
{
    const guard g(emulator_lock);

    *ret = 0;
    return emulator_return(strcmp(id, "0000:00:00.0") ? cudaErrorInvalidDevice : cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *ret)
{
    *ret = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *ret)
{
    *ret = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDeviceReset(void)
{
    return cudaDeviceSynchronize();
}

/* -- launches -- */

cudaError_t emulator_launch(const emulator_site &site, cudaStream_t stream, dim3 grid, dim3 block, size_t shared_bytes,
                            const void *const *pointers, int n_pointers, emulator_work body)
{
    const guard g(emulator_lock);
    const size_t n_threads = (size_t)block.x * block.y * block.z;
    cudaError_t e = emulator_injected();

    if (!e && (!n_threads || n_threads > 1024 || block.z > 64 || !grid.x || grid.x > 0x7fffffff || !grid.y ||
               grid.y > 65535 || !grid.z || grid.z > 65535))
        e = cudaErrorInvalidConfiguration;
    if (!e && shared_bytes > shared_limit())
        e = cudaErrorInvalidValue;
    if (e) {
        fprintf(stderr, "emulator: the launch at %s:%d (%s) fails: %s: <<<(%u, %u, %u), (%u, %u, %u), %zu>>>\n",
                site.file, site.line, site.text, cudaGetErrorName(e), grid.x, grid.y, grid.z, block.x, block.y, block.z,
                shared_bytes);
        return emulator_return(e);
    }
    for (int i = 0; i < n_pointers; i++)
        if (pointers[i] && emulator_place_of(pointers[i]) == EMULATOR_PAGEABLE)
            emulator_fail("%s:%d: (%s): pointer %d of the kernel's arguments, %p, is host memory", site.file, site.line,
                          site.text, i, pointers[i]);
    return emulator_return(emulator_enqueue(stream, [=] { emulator_run_grid(site, grid, block, shared_bytes, body); }));
}

cudaError_t cudaFuncSetAttribute(const void *, enum cudaFuncAttribute attribute, int value)
{
    const guard g(emulator_lock);

    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && (size_t)value > shared_limit())
        return emulator_return(cudaErrorInvalidValue);
    return emulator_return(cudaSuccess);
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *p, const void *)
{
    const guard g(emulator_lock);

    memset(p, 0, sizeof(*p));
    p->maxThreadsPerBlock = 1024;
    p->numRegs = 64;
    p->maxDynamicSharedSizeBytes = 48 * 1024;
    return emulator_return(cudaSuccess);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *ret, const void *, int block_size, size_t shared_bytes)
{
    const size_t by_threads = 2048 / (size_t)block_size, by_shared = (shared_limit() + 1024) / (shared_bytes + 1024);

    *ret = (int)(by_threads < by_shared ? by_threads : by_shared);
    return cudaSuccess;
}

/* -- copies -- */

static bool kind_fits(enum cudaMemcpyKind kind, bool from_device, bool to_device)
{
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !from_device && !to_device;
    case cudaMemcpyHostToDevice:
        return !from_device && to_device;
    case cudaMemcpyDeviceToHost:
        return from_device && !to_device;
    case cudaMemcpyDeviceToDevice:
        return from_device && to_device;
    default:
        return true;
    }
}

struct copy {
    char *dst;
    const char *src;
    size_t dst_pitch, src_pitch, width, height;
};

static void perform(const copy &c)
{
    for (size_t i = 0; i < c.height; i++)
        memmove(c.dst + i * c.dst_pitch, c.src + i * c.src_pitch, c.width);
}

/* wait: the call returns when the copy is done, at least as far as host memory is concerned. */
static cudaError_t enqueue_copy(copy c, enum cudaMemcpyKind kind, cudaStream_t stream, bool wait)
{
    const guard g(emulator_lock);
    const enum emulator_place from = emulator_place_of(c.src), to = emulator_place_of(c.dst);
    cudaError_t e = emulator_injected();

    if (!e && !kind_fits(kind, from == EMULATOR_DEVICE, to == EMULATOR_DEVICE)) {
        fprintf(stderr, "emulator: a copy of another kind than its addresses: %p <- %p\n", (void *)c.dst,
                (const void *)c.src);
        e = cudaErrorInvalidValue;
    }
    if (!e && (wait || from == EMULATOR_PAGEABLE || to == EMULATOR_PAGEABLE))
        e = emulator_may_wait(stream);
    if (e || !c.width || !c.height)
        return emulator_return(e);
    if (from == EMULATOR_PAGEABLE) { /* it is the caller's again */
        auto bytes = std::make_shared<std::vector<char>>(c.width * c.height);

        perform({bytes->data(), c.src, c.width, c.src_pitch, c.width, c.height});
        c.src_pitch = c.width;
        e = emulator_enqueue(stream, [c, bytes] {
            perform({c.dst, bytes->data(), c.dst_pitch, c.src_pitch, c.width, c.height});
        });
    } else {
        e = emulator_enqueue(stream, [c] { perform(c); });
    }
    if (!e && (to == EMULATOR_PAGEABLE || (wait && !(from == EMULATOR_DEVICE && to == EMULATOR_DEVICE))))
        emulator_finish(stream);
    return emulator_return(e);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    return enqueue_copy({(char *)dst, (const char *)src, n, n, n, 1}, kind, stream, false);
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t n, enum cudaMemcpyKind kind)
{
    {
        const guard g(emulator_lock);
        const cudaError_t e = emulator_may_allocate();

        if (e)
            return emulator_return(cudaErrorStreamCaptureImplicit);
    }
    return enqueue_copy({(char *)dst, (const char *)src, n, n, n, 1}, kind, NULL, true);
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    const guard g(emulator_lock);

    if (width > dst_pitch || width > src_pitch)
        return emulator_return(cudaErrorInvalidPitchValue);
    return enqueue_copy({(char *)dst, (const char *)src, dst_pitch, src_pitch, width, height}, kind, stream, false);
}

cudaError_t cudaMemcpy2D(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width, size_t height,
                         enum cudaMemcpyKind kind)
{
    if (width > dst_pitch || width > src_pitch)
        return emulator_return(cudaErrorInvalidPitchValue);
    return enqueue_copy({(char *)dst, (const char *)src, dst_pitch, src_pitch, width, height}, kind, NULL, true);
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t stream)
{
    const guard g(emulator_lock);
    cudaError_t e = emulator_injected();

    if (!e && n && emulator_place_of(p) == EMULATOR_PAGEABLE)
        e = cudaErrorInvalidValue;
    return emulator_return(e || !n ? e : emulator_enqueue(stream, [=] { memset(p, value, n); }));
}

cudaError_t cudaMemset(void *p, int value, size_t n)
{
    return cudaMemsetAsync(p, value, n, NULL);
}

cudaError_t cudaMemset2DAsync(void *p, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream)
{
    const guard g(emulator_lock);
    cudaError_t e = emulator_injected();

    if (!e && emulator_place_of(p) == EMULATOR_PAGEABLE)
        e = cudaErrorInvalidValue;
    return emulator_return(e ? e : emulator_enqueue(stream, [=] {
        for (size_t i = 0; i < height; i++)
            memset((char *)p + i * pitch, value, width);
    }));
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *ret, const void *p)
{
    const guard g(emulator_lock);
    const enum emulator_place place = emulator_place_of(p);

    memset(ret, 0, sizeof(*ret));
    ret->type = place == EMULATOR_DEVICE   ? cudaMemoryTypeDevice
                : place == EMULATOR_PINNED ? cudaMemoryTypeHost
                                           : cudaMemoryTypeUnregistered;
    ret->devicePointer = place == EMULATOR_PAGEABLE ? NULL : (void *)p;
    ret->hostPointer = place == EMULATOR_DEVICE ? NULL : (void *)p;
    return emulator_return(cudaSuccess);
}
