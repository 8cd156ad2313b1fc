#include "tests/unit/ops_rig.h"

#include "tests/unit/fixture.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng_state;

void ops_rig_seed(const char *test)
{
    rng_state = fixture_seed(test);
}

int ops_rig_below(int n)
{
    return (int)(fixture_random(&rng_state) % (uint64_t)n);
}

float ops_rig_normal(void)
{
    double sum = 0;

    for (int i = 0; i < 12; i++)
        sum += (double)(fixture_random(&rng_state) >> 11) * 0x1p-53;
    return (float)(sum - 6);
}

int ops_rig_setup(void **state)
{
    struct ops_rig *g = calloc(1, sizeof(*g));
    struct err err;
    int rc;

    assert_non_null(g);
    assert_int_equal(ops_ref_new(&g->ref, &err), 0);
    assert_int_equal(ops_cpu_new(2, DTYPE_F32, CPU_ISA_AUTO, &g->cpu[OPS_RIG_F32], &err), 0);
    rc = ops_cpu_new(2, DTYPE_BF16, CPU_ISA_AUTO, &g->cpu[OPS_RIG_BF16], &err);
    if (rc < 0) {
        assert_int_equal(rc, -ENOTSUP);
        printf("without bf16: %s\n", err.text);
    }
    for (int isa = CPU_ISA_BASE; isa < CPU_ISA_COUNT; isa++)
        if (cpu_kernels_for((enum cpu_isa)isa, DTYPE_F32))
            g->best = (enum cpu_isa)isa;
    assert_ptr_equal(cpu_of(g->cpu[OPS_RIG_F32])->kernels, cpu_kernels_for(g->best, DTYPE_F32));
    if (g->cpu[OPS_RIG_BF16])
        assert_ptr_equal(cpu_of(g->cpu[OPS_RIG_BF16])->kernels, cpu_kernels_for(g->best, DTYPE_BF16));
    ops_rig_seed("ops_rig");
    *state = g;
    return 0;
}

int ops_rig_teardown(void **state)
{
    struct ops_rig *g = *state;

    ops_free(g->ref);
    for (int type = 0; type < OPS_RIG_TYPES; type++)
        ops_free(g->cpu[type]);
    free(g);
    return 0;
}

void ops_rig_use(const struct ops_rig *g, int type, enum cpu_isa isa)
{
    cpu_of(g->cpu[type])->kernels = cpu_kernels_for(isa, g->cpu[type]->act_dtype);
}

void ops_rig_reopen(struct ops_rig *g, enum cpu_isa isa, int n_threads)
{
    struct err err;

    ops_free(g->cpu[OPS_RIG_F32]);
    assert_int_equal(ops_cpu_new(n_threads, DTYPE_F32, isa, &g->cpu[OPS_RIG_F32], &err), 0);
}

float *ops_rig_buffer(size_t n)
{
    float *x = aligned_alloc(64, (n * sizeof(*x) + 64) / 64 * 64);

    assert_non_null(x);
    return x;
}

float *ops_rig_random(const struct ops *o, size_t n)
{
    float *x = ops_rig_buffer(n);

    for (size_t i = 0; i < n; i++) {
        uint16_t h;

        x[i] = ops_rig_normal();
        if (o->act_dtype == DTYPE_F32)
            continue;
        tensor_from_f32(&h, o->act_dtype, &x[i], 1);
        tensor_to_f32(&x[i], o->act_dtype, &h, 1);
    }
    return x;
}

float *ops_rig_nan(size_t n)
{
    float *x = ops_rig_buffer(n);

    for (size_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

struct tensor ops_rig_tensor(enum dtype dtype, int64_t rows, int64_t columns, float size)
{
    int64_t n = rows * (columns ? columns : 1);
    struct tensor t = {.dtype = dtype, .n_dims = columns ? 2 : 1, .shape = {rows, columns}};
    float *values = ops_rig_buffer((size_t)n);

    for (int64_t i = 0; i < n; i++)
        values[i] = ops_rig_normal() * size;
    t.data = malloc((size_t)n * dtype_size_bytes(dtype));
    assert_non_null(t.data);
    tensor_from_f32(t.data, dtype, values, (size_t)n);
    free(values);
    return t;
}

void ops_rig_round(struct tensor *t, enum dtype act_dtype)
{
    const size_t size = dtype_size_bytes(t->dtype);
    int64_t n;

    assert_int_equal(tensor_n_elements(t, &n), 0);
    for (int64_t i = 0; i < n; i++) {
        unsigned char *at = (unsigned char *)t->data + (size_t)i * size;
        uint32_t rounded;
        float x;

        tensor_to_f32(&x, t->dtype, at, 1);
        tensor_from_f32(&rounded, act_dtype, &x, 1);
        tensor_to_f32(&x, act_dtype, &rounded, 1);
        tensor_from_f32(at, t->dtype, &x, 1);
    }
}

void *ops_rig_act(const struct ops *o, const float *x, size_t n)
{
    void *p = ops_rig_buffer(n);

    tensor_from_f32(p, o->act_dtype, x, n);
    return p;
}

float *ops_rig_back(const struct ops *o, void *p, size_t n)
{
    float *x = ops_rig_buffer(n);

    tensor_to_f32(x, o->act_dtype, p, n);
    free(p);
    return x;
}

double ops_rig_size(const float *x, int64_t rows, int64_t width, int64_t ld)
{
    double sum = 0;

    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < width; c++)
            sum += (double)x[r * ld + c] * x[r * ld + c];
    return sqrt(sum);
}

double ops_rig_distance(const float *out, const float *ref, int64_t rows, int64_t width, int64_t ld)
{
    const double size = ops_rig_size(ref, rows, width, ld);
    double difference = 0;

    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < width; c++) {
            double d = (double)out[r * ld + c] - ref[r * ld + c];

            difference += d * d;
        }
        for (int64_t c = width; c < ld && r + 1 < rows; c++)
            assert_true(isnan(out[r * ld + c]));
    }
    return sqrt(difference) / (size > 0 ? size : 1);
}
