#include "tensor/cpu.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ALIGN = 64,
    STAGE_ROWS = 512, /* rows copied at a time where oneDNN wants them dense */
};

/* Below this, one thread is done before the others are awake. */
static const double work_per_wake_flop = 4e6;

struct ops_weight {
    struct cpu_packed *packed;
};

void *cpu_alloc_aligned(size_t bytes)
{
    return bytes > SIZE_MAX - ALIGN ? NULL : aligned_alloc(ALIGN, (bytes + ALIGN) / ALIGN * ALIGN);
}

int cpu_scratch(struct ops_cpu *o, size_t bytes, void **ret)
{
    if (bytes > o->scratch_bytes) {
        void *p = cpu_alloc_aligned(bytes);

        if (!p)
            return -ENOMEM;
        free(o->scratch);
        o->scratch = p;
        o->scratch_bytes = bytes;
    }
    *ret = o->scratch;
    return 0;
}

int cpu_threads_for(const struct ops_cpu *o, double work_flop)
{
    return work_flop < work_per_wake_flop ? 1 : o->n_threads;
}

static void cpu_free(struct ops *o)
{
    struct ops_cpu *c = cpu_of(o);

    cpu_matmul_free(c->matmul);
    free(c->scratch);
    free(c);
}

static int cpu_alloc(struct ops *o, size_t bytes, void **ret)
{
    void *p = cpu_alloc_aligned(bytes);

    (void)o;
    if (!p)
        return -ENOMEM;
    *ret = p;
    return 0;
}

static void cpu_release(struct ops *o, void *p)
{
    (void)o;
    free(p);
}

static int cpu_upload_f32(struct ops *o, void *dst, const float *src, size_t n)
{
    tensor_from_f32(dst, o->act_dtype, src, n);
    return 0;
}

static int cpu_download_f32(struct ops *o, float *dst, const void *src, size_t n)
{
    tensor_to_f32(dst, o->act_dtype, src, n);
    return 0;
}

static int cpu_upload_f32_to_f32(struct ops *o, void *dst, const float *src, size_t n)
{
    (void)o;
    memcpy(dst, src, n * sizeof(float));
    return 0;
}

static int cpu_download_f32_from_f32(struct ops *o, float *dst, const void *src, size_t n)
{
    (void)o;
    memcpy(dst, src, n * sizeof(float));
    return 0;
}

static int cpu_sync(struct ops *o)
{
    (void)o;
    return 0;
}

static void cpu_weight_free(struct ops *o, struct ops_weight *w)
{
    (void)o;
    if (!w)
        return;
    cpu_packed_free(w->packed);
    free(w);
}

/* The parts of one matrix, stacked, as f32: [N, K] and, behind it, the bias [N] if there is one. */
static void stack_parts(const struct ops_weight_part *parts, int n_parts, float *values, float *bias)
{
    for (int i = 0; i < n_parts; i++) {
        const struct tensor *t = parts[i].weight, *b = parts[i].bias;
        size_t n = (size_t)t->shape[0], total = n * (size_t)t->shape[1];

        tensor_to_f32(values, t->dtype, t->data, total);
        values += total;
        if (b) {
            tensor_to_f32(bias, b->dtype, b->data, n);
            bias += n;
        }
    }
}

static int weight_size(const struct ops_weight_part *parts, int n_parts, int64_t *ret_n, int64_t *ret_k,
                       size_t *ret_bytes)
{
    int64_t n = 0, k = parts[0].weight->shape[1], total;

    for (int i = 0; i < n_parts; i++) {
        const struct tensor *w = parts[i].weight, *b = parts[i].bias;

        assert(w->n_dims == 2 && w->shape[1] == k && !b == !parts[0].bias);
        assert(!b || (b->n_dims == 1 && b->shape[0] == w->shape[0]));
        if (__builtin_add_overflow(n, w->shape[0], &n))
            return -EOVERFLOW;
    }
    assert(n > 0 && k > 0);
    if (__builtin_mul_overflow(n, k + 1, &total) || total > (int64_t)(PTRDIFF_MAX / sizeof(float)))
        return -EOVERFLOW;
    *ret_n = n;
    *ret_k = k;
    *ret_bytes = (size_t)total * sizeof(float);
    return 0;
}

static int cpu_weight_new(struct ops *o, const struct ops_weight_part *parts, int n_parts, struct ops_weight **ret,
                          struct err *err)
{
    struct ops_cpu *c = cpu_of(o);
    struct ops_weight *w;
    size_t bytes;
    int64_t n, k;
    float *values;
    int rc;

    if (weight_size(parts, n_parts, &n, &k, &bytes) < 0)
        return err_set(err, -EOVERFLOW, "weight: its size does not fit this machine");
    /* Mapped, not allocated: malloc's heap would keep the pages of a model's worth of these. */
    values = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    w = calloc(1, sizeof(*w));
    if (values == MAP_FAILED || !w) {
        rc = err_set(err, -ENOMEM, "weight [%lld, %lld]: out of memory", (long long)n, (long long)k);
    } else {
        float *bias = parts[0].bias ? values + n * k : NULL;

        stack_parts(parts, n_parts, values, bias);
        rc = cpu_packed_new(c->matmul, n, k, values, bias, c->n_threads, &w->packed, err);
    }
    if (values != MAP_FAILED)
        (void)munmap(values, bytes);
    if (rc < 0) {
        free(w);
        return rc;
    }
    *ret = w;
    return 0;
}

static int cpu_vector_new(struct ops *o, const struct tensor *t, struct ops_vector **ret, struct err *err)
{
    struct ops_vector *v = malloc(sizeof(*v));
    int64_t n;

    (void)o;
    if (!v || tensor_n_elements(t, &n) < 0 || n > (int64_t)(PTRDIFF_MAX / sizeof(float)) ||
        !(v->values = cpu_alloc_aligned((size_t)n * sizeof(float)))) {
        free(v);
        return err_set(err, -ENOMEM, "vector: out of memory");
    }
    v->n = n;
    tensor_to_f32(v->values, t->dtype, t->data, (size_t)n);
    *ret = v;
    return 0;
}

static void cpu_vector_free(struct ops *o, struct ops_vector *v)
{
    (void)o;
    if (!v)
        return;
    free(v->values);
    free(v);
}

static int cpu_table_new(struct ops *o, const struct tensor *t, struct ops_table **ret, struct err *err)
{
    struct ops_table *table = malloc(sizeof(*table));

    (void)o;
    assert(t->n_dims == 2);
    if (!table)
        return err_set(err, -ENOMEM, "table: out of memory");
    *table = (struct ops_table){.tensor = *t, .width = t->shape[1]};
    *ret = table;
    return 0;
}

static void cpu_table_free(struct ops *o, struct ops_table *t)
{
    (void)o;
    free(t);
}

static int copy_rows(struct ops *o, int64_t n_rows, int64_t width, const void *src, int64_t ld_src, void *dst,
                     int64_t ld_dst)
{
    return cpu_rows_copy(
        o, &(struct ops_rows_args){
               .n_rows = n_rows, .width = width, .src = src, .ld_src = ld_src, .dst = dst, .ld_dst = ld_dst});
}

/* Rows that are not dense or too few, through dense copies of STAGE_ROWS of them, filled up with rows of zeros. */
static int linear_staged(struct ops_cpu *c, const struct ops_linear_args *a, int64_t n, int64_t k)
{
    int64_t least = cpu_matmul_n_rows_min(), rows = a->n_rows < STAGE_ROWS ? a->n_rows : STAGE_ROWS;
    int64_t rows_held = rows > least ? rows : least;
    void *stage;
    int rc = cpu_scratch(c, (size_t)(rows_held * (n + k)) * sizeof(float), &stage);

    for (int64_t r = 0; rc == 0 && r < a->n_rows; r += rows) {
        float *x = stage, *y = x + rows_held * k;
        int64_t n_rows = a->n_rows - r < rows ? a->n_rows - r : rows, n_run = n_rows > least ? n_rows : least;

        memset(x + n_rows * k, 0, (size_t)((n_run - n_rows) * k) * sizeof(float));
        memset(y + n_rows * n, 0, (size_t)((n_run - n_rows) * n) * sizeof(float));
        rc = copy_rows(&c->base, n_rows, k, (const float *)a->x + r * a->ld_x, a->ld_x, x, k);
        if (rc == 0 && a->residual)
            rc = copy_rows(&c->base, n_rows, n, (const float *)a->residual + r * a->ld_residual, a->ld_residual, y, n);
        if (rc == 0)
            rc = cpu_matmul_run(c->matmul,
                                &(struct cpu_matmul_args){.weight = a->weight->packed,
                                                          .n_rows = n_run,
                                                          .x = x,
                                                          .ld_x = k,
                                                          .y = y,
                                                          .ld_y = n,
                                                          .act = a->act,
                                                          .add_to_y = a->residual != NULL,
                                                          .n_threads = cpu_threads_for(c, 2.0 * n_rows * n * k)});
        if (rc == 0)
            rc = copy_rows(&c->base, n_rows, n, y, n, (float *)a->y + r * a->ld_y, a->ld_y);
    }
    return rc;
}

int cpu_linear(struct ops *o, const struct ops_linear_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    int64_t n = cpu_packed_n(a->weight->packed), k = cpu_packed_k(a->weight->packed);
    int rc = 0;

    assert(a->n_rows >= 1 && a->ld_x >= k && a->ld_y >= n && a->x != a->y);
    if (a->n_rows < cpu_matmul_n_rows_min())
        return linear_staged(c, a, n, k);
    if (a->n_rows > 1 && (a->ld_x > k || a->ld_y > n) && !cpu_matmul_takes_strides(c->matmul, a->weight->packed))
        return linear_staged(c, a, n, k);
    if (a->residual && a->residual != a->y)
        rc = copy_rows(o, a->n_rows, n, a->residual, a->ld_residual, a->y, a->ld_y);
    if (rc < 0)
        return rc;
    return cpu_matmul_run(c->matmul,
                          &(struct cpu_matmul_args){.weight = a->weight->packed,
                                                    .n_rows = a->n_rows,
                                                    .x = a->x,
                                                    .ld_x = a->ld_x,
                                                    .y = a->y,
                                                    .ld_y = a->ld_y,
                                                    .act = a->act,
                                                    .add_to_y = a->residual != NULL,
                                                    .n_threads = cpu_threads_for(c, 2.0 * a->n_rows * n * k)});
}

static const struct ops_funcs cpu_funcs = {
    .name = "cpu",
    .free = cpu_free,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload_f32 = cpu_upload_f32,
    .upload_f32_to_f32 = cpu_upload_f32_to_f32,
    .download_f32 = cpu_download_f32,
    .download_f32_from_f32 = cpu_download_f32_from_f32,
    .sync = cpu_sync,
    .weight_new = cpu_weight_new,
    .weight_free = cpu_weight_free,
    .vector_new = cpu_vector_new,
    .vector_free = cpu_vector_free,
    .table_new = cpu_table_new,
    .table_free = cpu_table_free,
    .linear = cpu_linear,
    .norm = cpu_norm,
    .attention = cpu_attention,
    .decode_attention = cpu_decode_attention,
    .gate = cpu_gate,
    .rows_copy = cpu_rows_copy,
    .patchify = cpu_patchify,
    .vit_embed = cpu_vit_embed,
    .embed = cpu_embed,
    .choose = cpu_choose,
};

const struct cpu_kernels *cpu_kernels_for(enum cpu_isa isa)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == CPU_ISA_AVX512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &cpu_kernels_avx512;
    if (isa == CPU_ISA_AVX2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &cpu_kernels_avx2;
#endif
    return isa == CPU_ISA_BASE ? &cpu_kernels_base : NULL;
}

static const struct cpu_kernels *best_kernels(void)
{
    const struct cpu_kernels *k = NULL;

    for (int isa = CPU_ISA_COUNT - 1; !k; isa--)
        k = cpu_kernels_for((enum cpu_isa)isa);
    return k;
}

int ops_cpu_new(int n_threads, enum dtype act_dtype, struct ops **ret, struct err *err)
{
    struct ops_cpu *c;
    int rc;

    assert(n_threads >= 1);
    if (act_dtype != DTYPE_F32)
        return err_set(err, -ENOTSUP, "device cpu computes in F32, not in %s", dtype_name(act_dtype));
    c = malloc(sizeof(*c));
    if (!c)
        return err_set(err, -ENOMEM, "operators: out of memory");
    *c = (struct ops_cpu){
        .base = {.f = &cpu_funcs, .act_dtype = act_dtype}, .n_threads = n_threads, .kernels = best_kernels()};
    rc = cpu_matmul_new(&c->matmul, err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    *ret = &c->base;
    return 0;
}
