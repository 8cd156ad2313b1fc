#include "tests/gpu/cuda_rig.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/device.h"
#include "tests/unit/ops_rig.h"

static const enum dtype dtypes[CUDA_RIG_TYPES] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
static bool no_device;

static int open_device(enum dtype act_dtype, bool fp8, bool tf32, double memory_share, struct ops **ret,
                       struct err *err)
{
    return device_open(&(struct device_conf){.device = "cuda:0",
                                             .cuda_library = getenv("BLIPLINE_TEST_CUDA_LIBRARY"),
                                             .n_threads = 2,
                                             .act_dtype = act_dtype,
                                             .fp8 = fp8,
                                             .tf32 = tf32,
                                             .memory_share = memory_share},
                       ret, err);
}

int cuda_rig_setup(void **state)
{
    struct cuda_rig *g = calloc(1, sizeof(*g));
    struct err err = {""};

    assert_non_null(g);
    ops_rig_seed("cuda_rig");
    assert_int_equal(ops_ref_new(&g->ref, &err), 0);
    for (int i = 0; !no_device && i < CUDA_RIG_TYPES; i++)
        if (open_device(dtypes[i], false, false, 0.3, &g->cuda[i], &err) < 0) {
            if (cuda_rig_is_emulated())
                fail_msg("%s", err.text);
            printf("skipped, no GPU: %s\n", err.text);
            no_device = true;
        }
    *state = g;
    return 0;
}

int cuda_rig_teardown(void **state)
{
    struct cuda_rig *g = *state;

    ops_free(g->ref);
    for (int i = 0; i < CUDA_RIG_TYPES; i++)
        ops_free(g->cuda[i]);
    free(g);
    return 0;
}

struct cuda_rig *cuda_rig_get(void **state)
{
    if (no_device)
        skip();
    return *state;
}

struct ops *cuda_rig_open(enum dtype act_dtype, bool fp8, bool tf32, double memory_share)
{
    struct ops *o = NULL;
    struct err err = {""};

    if (open_device(act_dtype, fp8, tf32, memory_share, &o, &err) < 0)
        fail_msg("%s", err.text);
    return o;
}

bool cuda_rig_is_emulated(void)
{
    const char *library = getenv("BLIPLINE_TEST_CUDA_LIBRARY");

    return (library && strstr(library, "/emulated/")) || getenv("BLIPLINE_TEST_SMALL");
}

typedef void fail_next(int cuda_error);
typedef void refuse_products(unsigned what);

/* What only the emulator has; NULL without it. */
static void *emulators(const char *name)
{
    const char *path = getenv("BLIPLINE_TEST_CUDA_LIBRARY");
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;

    return library ? dlsym(library, name) : NULL;
}

static fail_next *injector(void)
{
    fail_next *f;

    *(void **)&f = emulators("emulator_fail_next");
    return f;
}

void cuda_rig_refuse_products(unsigned what)
{
    refuse_products *f;

    *(void **)&f = emulators("emulator_refuse_products");
    if (!f)
        skip();
    f(what);
}

int cuda_rig_refuse_nothing(void **state)
{
    (void)state;
    if (emulators("emulator_refuse_products"))
        cuda_rig_refuse_products(0);
    return 0;
}

void cuda_rig_needs_errors(void)
{
    if (!injector())
        skip();
}

void cuda_rig_next_fails(int cuda_error)
{
    injector()(cuda_error);
}

static void *put(struct ops *o, const float *x, size_t n, enum dtype dtype)
{
    void *d;

    assert_int_equal(o->f->alloc(o, n * dtype_size_bytes(dtype), &d), 0);
    assert_int_equal(o->f->upload(o, d, dtype, x, DTYPE_F32, n), 0);
    return d;
}

static float *take(struct ops *o, void *d, size_t n, enum dtype dtype)
{
    float *x = ops_rig_buffer(n);

    if (o->f->download(o, x, DTYPE_F32, d, dtype, n) < 0)
        fail_msg("download: %s", o->why.text);
    o->f->release(o, d);
    return x;
}

void *cuda_rig_put(struct ops *o, const float *x, size_t n)
{
    return put(o, x, n, o->act_dtype);
}

void *cuda_rig_put_f32(struct ops *o, const float *x, size_t n)
{
    return put(o, x, n, DTYPE_F32);
}

float *cuda_rig_take(struct ops *o, void *d, size_t n)
{
    return take(o, d, n, o->act_dtype);
}

float *cuda_rig_take_f32(struct ops *o, void *d, size_t n)
{
    return take(o, d, n, DTYPE_F32);
}

void cuda_rig_drop(struct ops *o, void *d)
{
    o->f->release(o, d);
}

double cuda_rig_limit(const struct ops *o)
{
    switch (o->act_dtype) {
    case DTYPE_F32:
        return 2e-6;
    case DTYPE_F16:
        return 8e-4;
    default:
        return 6e-3;
    }
}

double cuda_rig_limit_of_means(const float *ref, int64_t rows, int64_t width, int64_t ld, double limit)
{
    return limit * fmax(1, 0.2 * sqrt((double)(rows * width)) / fmax(ops_rig_size(ref, rows, width, ld), 1e-15));
}
