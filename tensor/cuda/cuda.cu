/* Finding and opening the device, and the table of its operators. */
#include "tensor/cuda/launch.cuh"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_SM = 80, FP8_SM = 89, UUID_TEXT_BYTES = 41 };

static void close_device(struct ops *base)
{
    struct cuda_ops *o = cuda_of(base);

    if (!o)
        return;
    if (o->stream)
        (void)cudaDeviceSynchronize(); /* finish all reads before freeing; errors were reported before */
    cuda_graphs_free(o);
    if (o->matmul)
        cuda_matmul_free(o);
    cuda_loader_free(o);
    cuda_downloads_free(o);
    cuda_uploads_free(o);
    cuda_staging_free(o);
    for (int i = 0; i < CUDA_SLOTS; i++)
        cuda_free(o, o->scratch[i].d_memory);
    if (o->stream)
        (void)cudaStreamDestroy(o->stream);
    if (o->upload_stream)
        (void)cudaStreamDestroy(o->upload_stream);
    if (o->download_stream)
        (void)cudaStreamDestroy(o->download_stream);
    free(o->sample_memory);
    free(o->blocks);
    free(o);
}

static int device_alloc(struct ops *base, size_t n_bytes, void **ret)
{
    return cuda_malloc(cuda_of(base), n_bytes, ret);
}

static void device_release(struct ops *base, void *d_memory)
{
    cuda_free(cuda_of(base), d_memory);
}

static int device_sync(struct ops *base)
{
    struct cuda_ops *o = cuda_of(base);
    int rc = cuda_status(o, cudaStreamSynchronize(o->upload_stream), "waiting for uploads");

    if (rc == 0)
        rc = cuda_status(o, cudaStreamSynchronize(o->stream), "waiting for the device");
    return rc < 0 ? rc : cuda_status(o, cudaStreamSynchronize(o->download_stream), "waiting for downloads");
}

static int device_memory(struct ops *base, size_t *ret_free_bytes, size_t *ret_total_bytes)
{
    struct cuda_ops *o = cuda_of(base);
    size_t free_bytes, total_bytes, ours = o->memory_limit - o->memory_allocated;
    int rc = cuda_status(o, cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");

    if (rc < 0)
        return rc;
    *ret_free_bytes = ours < free_bytes ? ours : free_bytes;
    *ret_total_bytes = total_bytes;
    return 0;
}

static const struct ops_funcs cuda_funcs = {
    .name = "cuda",
    .free = close_device,
    .alloc = device_alloc,
    .release = device_release,
    .upload = cuda_upload,
    .upload_begin = cuda_upload_begin,
    .upload_end = cuda_upload_end,
    .download = cuda_download,
    .download_start = cuda_download_start,
    .download_wait = cuda_download_wait,
    .sync = device_sync,
    .graph_begin = cuda_graph_begin,
    .graph_end = cuda_graph_end,
    .memory = device_memory,
    .weight_new = cuda_weight_new,
    .weight_free = cuda_weight_free,
    .vector_new = cuda_vector_new,
    .vector_free = cuda_vector_free,
    .table_new = cuda_table_new,
    .table_free = cuda_table_free,
    .linear = cuda_linear,
    .norm = cuda_norm,
    .attention = cuda_attention,
    .decode_attention = cuda_decode_attention,
    .gate = cuda_gate,
    .rows_copy = cuda_rows_copy,
    .patchify = cuda_patchify,
    .vit_embed = cuda_vit_embed,
    .embed = cuda_embed,
    .sample = cuda_sample,
};

/* Counts the devices; an error says why there is none. */
static int count_devices(const char *device, int *ret, struct err *err)
{
    cudaError_t e = cudaGetDeviceCount(ret);
    int driver = 0, built = 0;

    if (e == cudaSuccess && *ret > 0)
        return 0;
    (void)cudaGetLastError();
    if (cudaDriverGetVersion(&driver) != cudaSuccess)
        driver = 0;
    (void)cudaRuntimeGetVersion(&built);
    if (e == cudaErrorInsufficientDriver && driver > 0)
        return err_set(err, -ENODEV,
                       "device = %s: the NVIDIA driver supports CUDA up to %d.%d, but these operators need %d.%d; "
                       "install a newer driver, or use device = cpu",
                       device, driver / 1000, driver % 1000 / 10, built / 1000, built % 1000 / 10);
    if (driver == 0)
        return err_set(err, -ENODEV,
                       "device = %s: there is no NVIDIA driver on this machine; use device = cpu, or install one",
                       device);
    return err_set(err, -ENODEV,
                   "device = %s: %s; use device = cpu, or check with nvidia-smi which GPUs this process can use",
                   device, e == cudaSuccess ? "there is no GPU" : cudaGetErrorString(e));
}

/* As nvidia-smi -L prints it. */
static void uuid_text(const cudaUUID_t *uuid, char ret[UUID_TEXT_BYTES])
{
    int n = snprintf(ret, UUID_TEXT_BYTES, "GPU");

    for (int i = 0; i < 16; i++)
        n += snprintf(ret + n, (size_t)(UUID_TEXT_BYTES - n), "%s%02x",
                      i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", (unsigned char)uuid->bytes[i]);
}

static int find_uuid(const char *device, int n_devices, int *ret, struct err *err)
{
    char text[UUID_TEXT_BYTES] = "";

    for (int i = 0; i < n_devices; i++) {
        struct cudaDeviceProp p;
        cudaError_t e = cudaGetDeviceProperties(&p, i);

        if (e != cudaSuccess)
            return err_set(err, -ENODEV, "device = %s: GPU %d: %s", device, i, cudaGetErrorString(e));
        uuid_text(&p.uuid, text);
        if (strcasecmp(text, device) == 0) {
            *ret = i;
            return 0;
        }
    }
    return err_set(err, -ENODEV, "device = %s: none of the %d GPU%s here has this UUID (cuda:%d is %s)", device,
                   n_devices, n_devices == 1 ? "" : "s", n_devices - 1, text);
}

/* "cuda", "cuda:N" or "GPU-...". */
static int find_device(const char *device, int *ret, struct err *err)
{
    int n_devices, rc;
    char *end = NULL;
    long n = 0;

    if (strncmp(device, "GPU-", 4) != 0 && strcmp(device, "cuda") != 0) {
        if (strncmp(device, "cuda:", 5) == 0 && isdigit((unsigned char)device[5]))
            n = strtol(device + 5, &end, 10);
        if (!end || *end)
            return err_set(err, -EINVAL,
                           "device = %s: expected cuda:N with a number N, or a GPU's UUID (nvidia-smi -L)", device);
    }
    rc = count_devices(device, &n_devices, err);
    if (rc < 0)
        return rc;
    if (strncmp(device, "GPU-", 4) == 0)
        return find_uuid(device, n_devices, ret, err);
    if (n >= n_devices)
        return err_set(err, -ENODEV, "device = %s: there %s %d GPU%s, cuda:0%s", device, n_devices == 1 ? "is" : "are",
                       n_devices, n_devices == 1 ? "" : "s", n_devices == 1 ? "" : " and so on");
    *ret = (int)n;
    return 0;
}

static int check_device(const struct device_conf *conf, const struct cuda_ops *o, const char *name, struct err *err)
{
    if (o->sm < LEAST_SM)
        return err_set(err, -ENOTSUP,
                       "device = %s: %s has compute capability %d.%d; these operators need 8.0 (Ampere) or later",
                       conf->device, name, o->sm / 10, o->sm % 10);
    if (!dtype_is_float(conf->act_dtype))
        return err_set(err, -ENOTSUP, "device = %s: supports dtype fp32, fp16 and bf16, not %s", conf->device,
                       dtype_name(conf->act_dtype));
    if (conf->fp8 && conf->act_dtype != DTYPE_BF16)
        return err_set(err, -ENOTSUP, "device = %s: fp8 needs activations in bf16, not in %s", conf->device,
                       dtype_name(conf->act_dtype));
    if (conf->fp8 && o->sm < FP8_SM)
        return err_set(err, -ENOTSUP,
                       "device = %s: %s has compute capability %d.%d, fp8 needs 8.9 (Ada) or 9.0 (Hopper); "
                       "take dtype = bf16 without fp8",
                       conf->device, name, o->sm / 10, o->sm % 10);
    return 0;
}

static int create_streams(struct cuda_ops *o)
{
    cudaStream_t *streams[] = {&o->stream, &o->upload_stream, &o->download_stream};

    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
        int rc = cuda_status(o, cudaStreamCreateWithFlags(streams[i], cudaStreamNonBlocking), "a stream");

        if (rc < 0)
            return rc;
    }
    return 0;
}

static int create_parts(struct cuda_ops *o, const struct device_conf *conf, struct err *err)
{
    int rc = create_streams(o);

    if (rc == 0)
        rc = cuda_staging_new(o);
    if (rc == 0)
        rc = cuda_uploads_new(o);
    if (rc == 0)
        rc = cuda_downloads_new(o);
    if (rc == 0)
        rc = cuda_graphs_new(o);
    if (rc == -ENOMEM)
        return err_set(err, rc, "device = %s: out of memory for the buffers of transfers (the limit is %zu MiB)",
                       conf->device, o->memory_limit >> 20);
    if (rc < 0)
        return err_set(err, rc, "device = %s: %s", conf->device, o->base.why.text);
    return cuda_matmul_new(o, err);
}

/* Reads the card's properties and sets this process's share of its memory. */
static int look_at(struct cuda_ops *o, const struct device_conf *conf, struct err *err)
{
    struct cudaDeviceProp p;
    int rc = cuda_status(o, cudaGetDeviceProperties(&p, o->device), "asking for its properties");

    if (rc == 0) {
        o->sm = 10 * p.major + p.minor;
        o->n_processors = p.multiProcessorCount;
        o->l2_bytes = (size_t)p.l2CacheSize;
        o->memory_limit = (size_t)(conf->memory_share * (double)p.totalGlobalMem);
        rc = check_device(conf, o, p.name, err);
        if (rc < 0)
            return rc;
        rc = cuda_status(o, cudaSetDevice(o->device), "opening it");
    }
    if (rc < 0)
        return err_set(err, rc, "device = %s: %s", conf->device,
                       rc == -ENOMEM ? "its memory is taken by other processes" : o->base.why.text);
    return 0;
}

extern "C" __attribute__((visibility("default"))) device_cuda_new ops_cuda_new;

int ops_cuda_new(const struct device_conf *conf, struct ops **ret, struct err *err)
{
    struct cuda_ops *o;
    int device, rc = find_device(conf->device, &device, err);

    if (rc < 0)
        return rc;
    assert(conf->memory_share > 0 && conf->memory_share <= 1);
    o = (struct cuda_ops *)calloc(1, sizeof(*o));
    if (!o)
        return err_set(err, -ENOMEM, "operators: out of memory");
    o->base.f = &cuda_funcs;
    o->base.act_dtype = conf->act_dtype;
    o->base.fp8 = conf->fp8;
    o->device = device;
    o->tf32 = conf->tf32;
    o->n_threads = conf->n_threads > 0 ? conf->n_threads : 1;
    rc = look_at(o, conf, err);
    if (rc == 0)
        rc = create_parts(o, conf, err);
    if (rc < 0) {
        close_device(&o->base);
        return rc;
    }
    *ret = &o->base;
    return 0;
}
