#include "tensor/device.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

#include "tensor/device_abi.h" /* made by the Makefile */

#define LIBRARY "libblipline-cuda.so"

bool device_is_cuda(const char *device)
{
    return strncmp(device, "cuda", 4) == 0 || strncmp(device, "GPU-", 4) == 0;
}

/* Finds the shared object; returns the path beside the program if no candidate exists. */
static void find_library(char ret[PATH_MAX])
{
    static const char *const places[] = {"/" LIBRARY, "/../lib/blipline/" LIBRARY};
    char dir[PATH_MAX];

    if (file_program_folder(dir, NULL) < 0)
        dir[0] = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (snprintf(ret, PATH_MAX, "%s%s", dir, places[i]) < PATH_MAX && access(ret, R_OK) == 0)
            return;
    }
    (void)snprintf(ret, PATH_MAX, "%.*s/%s", PATH_MAX - (int)sizeof(LIBRARY) - 2, dir, LIBRARY);
}

static int open_cuda(const struct device_conf *conf, struct ops **ret, struct err *err)
{
    char path[PATH_MAX];
    const uint32_t *abi;
    device_cuda_new *open;
    void *library;

    if (conf->cuda_library && *conf->cuda_library)
        (void)snprintf(path, sizeof(path), "%s", conf->cuda_library);
    else
        find_library(path);
    if (access(path, R_OK) < 0)
        return err_set(
            err, -ENOTSUP,
            "device = %s: this build has no CUDA operators (%s is not there); use device = cpu, or build on a "
            "machine with the CUDA toolkit",
            conf->device, path);
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(err, -ENOTSUP, "device = %s: cannot load the CUDA operators: %s", conf->device, dlerror());
    abi = dlsym(library, DEVICE_ABI_SYMBOL);
    *(void **)&open = dlsym(library, DEVICE_CUDA_SYMBOL);
    if (open && abi && *abi == DEVICE_ABI)
        return open(conf, ret, err);
    (void)dlclose(library);
    return err_set(err, -ENOTSUP,
                   "device = %s: %s is of another build than this program: build and install both together, or name "
                   "the right one: cuda_library = FILE",
                   conf->device, path);
}

int device_open(const struct device_conf *conf, struct ops **ret, struct err *err)
{
    if (device_is_cuda(conf->device))
        return open_cuda(conf, ret, err);
    if (conf->fp8)
        return err_set(err, -ENOTSUP, "device = %s has no fp8: take dtype = fp32 or bf16, or device = cuda:N",
                       conf->device);
    if (strcmp(conf->device, "cpu") == 0)
        return ops_cpu_new(conf->n_threads, conf->act_dtype, conf->cpu_isa, ret, err);
    if (strcmp(conf->device, "ref") == 0 && conf->act_dtype != DTYPE_F32)
        return err_set(err, -ENOTSUP, "device = ref computes in fp32 alone: take dtype = fp32");
    if (strcmp(conf->device, "ref") == 0)
        return ops_ref_new(ret, err);
    return err_set(err, -EINVAL, "device = %s: unknown; use cpu, cuda:N, a GPU's UUID or null", conf->device);
}
