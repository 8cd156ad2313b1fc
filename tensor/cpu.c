#include "tensor/cpu.h"

#include "tensor/cpu_product.h"
#include "tensor/host.h"
#include "tensor/weight_parts.h"

#include <assert.h>
#include <errno.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    ALIGN = 64,
    STAGE_ROWS = 512, /* rows copied at a time when oneDNN needs dense rows */
};

/* Below this, one thread finishes before the others wake up. Our own pool is usually still awake. */
static const double work_per_wake_flop = 4e6, work_per_call_flop = 1.2e6;

struct ops_weight {
    int64_t n, k;
    struct cpu_packed *packed; /* with oneDNN */
    struct cpu_panels *panels; /* without */
};

int64_t cpu_padded_row(int64_t n)
{
    return cpu_round_up(n, CPU_PANEL) + CPU_LANES;
}

int cpu_scratch(struct ops_cpu *o, size_t bytes, void **ret)
{
    if (bytes > o->scratch_bytes) {
        void *p = host_alloc_aligned(bytes);

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
    return work_flop < (o->pool ? work_per_call_flop : work_per_wake_flop) ? 1 : o->n_threads;
}

struct share {
    cpu_share_fn *fn;
    void *arg;
    int64_t n, grain;
};

static void share_piece(void *arg, int64_t piece, int thread)
{
    const struct share *s = arg;
    const int64_t begin = piece * s->grain, end = begin + s->grain;

    s->fn(s->arg, begin, end < s->n ? end : s->n, thread);
}

void cpu_share(const struct ops_cpu *o, double work_flop, int64_t n, int64_t grain, cpu_share_fn *fn, void *arg)
{
    enum { PARTS = 4 };
    const int n_threads = cpu_threads_for(o, work_flop);
    struct share s = {.fn = fn, .arg = arg, .n = n, .grain = grain};
    int64_t n_pieces;

    if (n_threads == 1) {
        fn(arg, 0, n, 0);
        return;
    }
    if (grain == 0)
        s.grain = (n + (int64_t)PARTS * n_threads - 1) / ((int64_t)PARTS * n_threads);
    if (s.grain < (n + CPU_POOL_MAX_PIECES - 1) / CPU_POOL_MAX_PIECES)
        s.grain = (n + CPU_POOL_MAX_PIECES - 1) / CPU_POOL_MAX_PIECES;
    n_pieces = (n + s.grain - 1) / s.grain;
    if (o->pool) {
        cpu_pool_run(o->pool, n_pieces, share_piece, &s);
        return;
    }
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (int64_t i = 0; i < n_pieces; i++)
        share_piece(&s, i, omp_get_thread_num());
}

static void cpu_free(struct ops *o)
{
    struct ops_cpu *c = cpu_of(o);

    cpu_matmul_free(c->matmul);
    cpu_pool_free(c->pool);
    free(c->scratch);
    free(c);
}

static void cpu_weight_free(struct ops *o, struct ops_weight *w)
{
    (void)o;
    if (!w)
        return;
    cpu_packed_free(w->packed);
    cpu_panels_free(w->panels);
    free(w);
}

/* A matrix before packing: dense, in the type of the activations. Most checkpoints already store it like this. */
struct plain {
    int64_t n, k;
    const void *values; /* [N, K] */
    float *bias;        /* [N] or NULL */
    void *owned;        /* memory behind values and bias if not the checkpoint's: owned_bytes of mmap, or NULL */
    size_t owned_bytes;
};

static int plain_size(const struct ops_weight_part *parts, int n_parts, struct plain *p)
{
    int64_t n, k, total;

    if (weight_parts_shape(parts, n_parts, &n, &k) < 0)
        return -EOVERFLOW;
    if (__builtin_mul_overflow(n, k + 2, &total) || total > (int64_t)(PTRDIFF_MAX / sizeof(float)) - ALIGN)
        return -EOVERFLOW;
    p->n = n;
    p->k = k;
    return 0;
}

struct conversion {
    enum dtype act;
    const struct tensor *from;
    unsigned char *to;
};

static void convert_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct conversion *c = arg;
    const struct tensor *t = c->from;
    const enum dtype act = c->act;
    const size_t width = (size_t)t->shape[1], element = dtype_size_bytes(t->dtype);
    unsigned char *to = c->to;

    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        const unsigned char *from = (const unsigned char *)t->data + (size_t)r * width * element;
        float part[512];

        if (act == DTYPE_F32) {
            tensor_to_f32((float *)(void *)to + (size_t)r * width, t->dtype, from, width);
            continue;
        }
        if (t->dtype == act) {
            memcpy(to + (size_t)r * width * 2, from, width * 2);
            continue;
        }
        for (size_t i = 0; i < width; i += 512) {
            size_t count = width - i < 512 ? width - i : 512;

            tensor_to_f32(part, t->dtype, from + i * element, count);
            tensor_from_f32(to + ((size_t)r * width + i) * 2, act, part, count);
        }
    }
}

static int plain_init(const struct ops_cpu *c, const struct ops_weight_part *parts, int n_parts, struct plain *p)
{
    const size_t element = cpu_element_bytes(c);
    const struct tensor *first = parts[0].weight;
    bool as_it_is = n_parts == 1 && first->dtype == c->base.act_dtype && (uintptr_t)first->data % element == 0;
    size_t values_bytes = as_it_is ? 0 : ((size_t)(p->n * p->k) * element + 3) / 4 * 4, at = 0;
    unsigned char *values;

    p->values = first->data;
    p->owned_bytes = values_bytes + (parts[0].bias ? (size_t)p->n * sizeof(float) : 0);
    if (p->owned_bytes == 0)
        return 0;
    /* mmap, because malloc would keep the pages after a whole model was loaded. */
    p->owned = mmap(NULL, p->owned_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->owned == MAP_FAILED) {
        p->owned = NULL;
        return -ENOMEM;
    }
    values = p->owned;
    if (!as_it_is)
        p->values = values;
    if (parts[0].bias)
        p->bias = (float *)(void *)(values + values_bytes);
    for (int i = 0; i < n_parts; i++) {
        const struct tensor *t = parts[i].weight, *b = parts[i].bias;

        if (!as_it_is)
            cpu_share(c, 8.0 * (double)t->shape[0] * (double)t->shape[1], t->shape[0], 0, convert_rows,
                      &(struct conversion){c->base.act_dtype, t, values + at * (size_t)p->k * element});
        if (b)
            tensor_to_f32(p->bias + at, b->dtype, b->data, (size_t)b->shape[0]);
        at += (size_t)t->shape[0];
    }
    return 0;
}

static int cpu_weight_new(struct ops *o, const struct ops_weight_part *parts, int n_parts, unsigned flags,
                          struct ops_weight **ret, struct err *err)
{
    struct ops_cpu *c = cpu_of(o);
    struct plain p = {.owned = NULL};
    struct ops_weight *w;
    int rc;

    (void)flags; /* these operators have no fp8 */
    if (plain_size(parts, n_parts, &p) < 0)
        return err_set(err, -EOVERFLOW, "weight: the matrix is too large for this machine");
    w = calloc(1, sizeof(*w));
    if (!w || plain_init(c, parts, n_parts, &p) < 0)
        rc = err_set(err, -ENOMEM, "weight [%lld, %lld]: out of memory", (long long)p.n, (long long)p.k);
    else if (c->matmul)
        rc = cpu_packed_new(c->matmul, p.n, p.k, p.values, p.bias, c->n_threads, &w->packed, err);
    else
        rc = cpu_panels_new(c, p.n, p.k, p.values, p.bias, &w->panels, err);
    if (p.owned)
        (void)munmap(p.owned, p.owned_bytes);
    if (rc < 0) {
        free(w);
        return rc;
    }
    w->n = p.n;
    w->k = p.k;
    *ret = w;
    return 0;
}

struct move {
    const void *src;
    void *dst;
    int64_t ld_src, ld_dst;
    size_t element, row_bytes;
};

static void move_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct move *m = arg;

    (void)thread;
    for (int64_t r = begin; r < end; r++)
        memcpy(cpu_element_out(m->dst, r * m->ld_dst, m->element), cpu_element(m->src, r * m->ld_src, m->element),
               m->row_bytes);
}

/* Copies strided rows; `element` is the size of an element in bytes. */
static void move_rows(const struct ops_cpu *c, int64_t n_rows, int64_t width, size_t element, const void *src,
                      int64_t ld_src, void *dst, int64_t ld_dst)
{
    cpu_share(c, 8.0 * (double)n_rows * (double)width, n_rows, 0, move_some,
              &(struct move){src, dst, ld_src, ld_dst, element, (size_t)width * element});
}

/* For rows that are not dense or too few: makes dense copies of STAGE_ROWS at a time, padded with rows of zeros. */
static int linear_staged(struct ops_cpu *c, const struct ops_linear_args *a, int64_t n, int64_t k)
{
    const size_t element = cpu_element_bytes(c), y_element = a->y_f32 ? sizeof(float) : element;
    int64_t least = cpu_matmul_n_rows_min(), rows = a->n_rows < STAGE_ROWS ? a->n_rows : STAGE_ROWS;
    int64_t rows_held = rows > least ? rows : least;
    size_t x_bytes = ((size_t)(rows_held * k) * element + ALIGN - 1) / ALIGN * ALIGN;
    void *x, *y;
    int rc = cpu_scratch(c, x_bytes + (size_t)(rows_held * n) * y_element, &x);

    if (rc < 0)
        return rc;
    y = (unsigned char *)x + x_bytes;
    for (int64_t r = 0; rc == 0 && r < a->n_rows; r += rows) {
        int64_t n_rows = a->n_rows - r < rows ? a->n_rows - r : rows, n_run = n_rows > least ? n_rows : least;

        memset(cpu_element_out(x, n_rows * k, element), 0, (size_t)((n_run - n_rows) * k) * element);
        memset(cpu_element_out(y, n_rows * n, y_element), 0, (size_t)((n_run - n_rows) * n) * y_element);
        move_rows(c, n_rows, k, element, cpu_element(a->x, r * a->ld_x, element), a->ld_x, x, k);
        if (a->residual)
            move_rows(c, n_rows, n, y_element, cpu_element(a->residual, r * a->ld_residual, y_element), a->ld_residual,
                      y, n);
        rc =
            cpu_matmul_run(c->matmul, &(struct cpu_matmul_args){.weight = a->weight->packed,
                                                                .n_rows = n_run,
                                                                .x = x,
                                                                .ld_x = k,
                                                                .y = y,
                                                                .ld_y = n,
                                                                .y_f32 = a->y_f32,
                                                                .act = a->act,
                                                                .add_to_y = a->residual != NULL,
                                                                .n_threads = cpu_threads_for(c, 2.0 * n_rows * n * k)});
        if (rc == 0)
            move_rows(c, n_rows, n, y_element, y, n, cpu_element_out(a->y, r * a->ld_y, y_element), a->ld_y);
    }
    return rc;
}

int cpu_linear(struct ops *o, const struct ops_linear_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    const int64_t n = a->weight->n, k = a->weight->k;

    assert(a->n_rows >= 1 && a->ld_x >= k && a->ld_y >= n && a->x != a->y);
    assert(!a->residual || !a->y_f32 || o->act_dtype == DTYPE_F32); /* a residual has the type of y */
    if (!c->matmul)
        return cpu_product_run(c, a->weight->panels, a);
    if (a->n_rows < cpu_matmul_n_rows_min())
        return linear_staged(c, a, n, k);
    if (a->n_rows > 1 && (a->ld_x > k || a->ld_y > n) && !cpu_matmul_takes_strides(c->matmul, a->weight->packed))
        return linear_staged(c, a, n, k);
    if (a->residual && a->residual != a->y)
        move_rows(c, a->n_rows, n, cpu_element_bytes(c), a->residual, a->ld_residual, a->y, a->ld_y);
    return cpu_matmul_run(c->matmul,
                          &(struct cpu_matmul_args){.weight = a->weight->packed,
                                                    .n_rows = a->n_rows,
                                                    .x = a->x,
                                                    .ld_x = a->ld_x,
                                                    .y = a->y,
                                                    .ld_y = a->ld_y,
                                                    .y_f32 = a->y_f32,
                                                    .act = a->act,
                                                    .add_to_y = a->residual != NULL,
                                                    .n_threads = cpu_threads_for(c, 2.0 * a->n_rows * n * k)});
}

static const struct ops_funcs cpu_funcs = {
    .name = "cpu",
    .free = cpu_free,
    .alloc = host_alloc,
    .release = host_release,
    .upload = host_convert,
    .upload_begin = host_upload_begin,
    .upload_end = host_sync,
    .download = host_convert,
    .download_start = host_download_start,
    .download_wait = host_download_wait,
    .sync = host_sync,
    .weight_new = cpu_weight_new,
    .weight_free = cpu_weight_free,
    .vector_new = host_vector_new,
    .vector_free = host_vector_free,
    .table_new = host_table_new,
    .table_free = host_table_free,
    .linear = cpu_linear,
    .norm = cpu_norm,
    .attention = cpu_attention,
    .decode_attention = cpu_decode_attention,
    .gate = cpu_gate,
    .rows_copy = cpu_rows_copy,
    .patchify = cpu_patchify,
    .vit_embed = cpu_vit_embed,
    .embed = cpu_embed,
    .sample = cpu_sample,
};

const struct cpu_kernels *cpu_kernels_for(enum cpu_isa isa, enum dtype act_dtype)
{
    static const struct cpu_kernels *const kernels[] = {
        [CPU_ISA_BASE] = cpu_kernels_base,
#if defined(__x86_64__)
        [CPU_ISA_AVX2] = cpu_kernels_avx2,
        [CPU_ISA_AVX512] = cpu_kernels_avx512,
#endif
    };

    return cpu_isa_have(isa) ? &kernels[isa][act_dtype == DTYPE_BF16] : NULL;
}

int ops_cpu_new(int n_threads, enum dtype act_dtype, enum cpu_isa isa, struct ops **ret, struct err *err)
{
    const enum cpu_isa level = cpu_isa_resolve(isa);
    struct ops_cpu *c;
    int rc;

    assert(n_threads >= 1 && cpu_isa_have(level));
    if (act_dtype != DTYPE_F32 && act_dtype != DTYPE_BF16)
        return err_set(err, -ENOTSUP, "device cpu computes in F32 or BF16, not in %s; take dtype = fp32",
                       dtype_name(act_dtype));
    if (act_dtype == DTYPE_BF16 && level < CPU_ISA_AVX512)
        return err_set(err, -ENOTSUP,
                       "device cpu: BF16 needs AVX512_BF16, but this processor is used with %s; take dtype = fp32",
                       cpu_isa_name(level));
    c = malloc(sizeof(*c));
    if (!c)
        return err_set(err, -ENOMEM, "operators: out of memory");
    *c = (struct ops_cpu){.base = {.f = &cpu_funcs, .act_dtype = act_dtype},
                          .n_threads = n_threads,
                          .kernels = cpu_kernels_for(level, act_dtype)};
    if (level >= CPU_ISA_AVX512 && (act_dtype == DTYPE_BF16 || cpu_matmul_is_fast()))
        rc = cpu_matmul_new(act_dtype, &c->matmul, err);
    else
        rc = cpu_pool_new(n_threads, &c->pool, err);
    if (rc < 0) {
        free(c);
        return rc;
    }
    *ret = &c->base;
    return 0;
}
