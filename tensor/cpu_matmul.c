#include "tensor/cpu_matmul_private.h"

#include <assert.h>
#include <errno.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, CANONICAL_ROWS = 64 /* rows of the product that the weight layout is queried for */ };

static int status_errno(dnnl_status_t s)
{
    return s == dnnl_success ? 0 : s == dnnl_out_of_memory ? -ENOMEM : -EIO;
}

/* oneDNN accepts any strides, but handles some with its reference loops, a thousand times slower. */
static bool probe_strides(const struct cpu_matmul *m)
{
    const struct cpu_matmul_shape dense = {
        .m = CANONICAL_ROWS, .n = 64, .k = 64, .ld_x = 64, .ld_y = 64, .n_threads = 1};
    struct cpu_matmul_shape strided = dense;
    dnnl_primitive_desc_t d = NULL, s = NULL;
    const char *name = "ref";
    cpu_matmul_md weight = NULL;

    strided.ld_x = strided.ld_y = 128;
    if (cpu_matmul_desc(m, &dense, NULL, &d) == dnnl_success)
        weight = cpu_matmul_md_of(d, dnnl_query_weights_md);
    if (weight && cpu_matmul_desc(m, &strided, weight, &s) == dnnl_success)
        (void)dnnl_primitive_desc_query(s, dnnl_query_impl_info_str, 0, &name);
    bool fast = strncmp(name, "ref", 3) != 0;

    cpu_matmul_md_free(weight);
    if (s)
        (void)dnnl_primitive_desc_destroy(s);
    if (d)
        (void)dnnl_primitive_desc_destroy(d);
    return fast;
}

/* The values are bit sets: a larger instruction set includes the bits of a smaller one. */
static bool may_use(dnnl_cpu_isa_t wanted)
{
    return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)wanted) == (unsigned)wanted;
}

bool cpu_matmul_is_fast(void)
{
    return may_use(dnnl_cpu_isa_avx512_core);
}

void cpu_matmul_describe(char *isa, size_t isa_size, char *library, size_t library_size)
{
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } known[] = {{dnnl_cpu_isa_avx512_core_amx, "amx"},
                 {dnnl_cpu_isa_avx512_core_bf16, "avx512_bf16"},
                 {dnnl_cpu_isa_avx512_core_vnni, "avx512_vnni"},
                 {dnnl_cpu_isa_avx512_core, "avx512"}};
    const dnnl_version_t *v = dnnl_version();
    size_t i = 0;

    while (i < sizeof(known) / sizeof(known[0]) - 1 && !may_use(known[i].isa))
        i++;
    (void)snprintf(isa, isa_size, "%s", known[i].name);
    (void)snprintf(library, library_size, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}

/* Without AVX512_BF16, oneDNN emulates bf16 (slower than f32) or fails (2.6, below AVX-512). */
static bool have_bf16(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16") && may_use(dnnl_cpu_isa_avx512_core_bf16);
#else
    return false;
#endif
}

int cpu_matmul_new(enum dtype dtype, struct cpu_matmul **ret, struct err *err)
{
    struct cpu_matmul *m;
    dnnl_status_t status;

    assert(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    if (dtype == DTYPE_BF16 && !have_bf16())
        return err_set(err, -ENOTSUP, "device cpu: BF16 needs a processor with AVX512_BF16; take dtype = fp32");
    m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(err, -ENOMEM, "oneDNN: out of memory");
    m->type = dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
    /* We have our own cache; oneDNN's would keep evicted primitives alive. */
    status = dnnl_set_primitive_cache_capacity(0);
    if (status == dnnl_success)
        status = dnnl_engine_create(&m->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&m->stream, m->engine, dnnl_stream_default_flags);
    if (status != dnnl_success) {
        cpu_matmul_free(m);
        return err_set(err, status_errno(status), "oneDNN: cannot start, status %d", (int)status);
    }
    m->takes_strides = probe_strides(m);
    *ret = m;
    return 0;
}

static void memory_free(dnnl_memory_t memory)
{
    if (memory)
        (void)dnnl_memory_destroy(memory);
}

static void entry_clear(struct cpu_matmul_entry *e)
{
    if (e->primitive)
        (void)dnnl_primitive_destroy(e->primitive);
    memory_free(e->x);
    memory_free(e->y);
    memory_free(e->scratch);
    *e = (struct cpu_matmul_entry){.last_use = 0};
}

void cpu_matmul_free(struct cpu_matmul *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->n_entries; i++)
        entry_clear(&m->entries[i]);
    if (m->stream)
        (void)dnnl_stream_destroy(m->stream);
    if (m->engine)
        (void)dnnl_engine_destroy(m->engine);
    free(m->scratch);
    free(m);
}

bool cpu_matmul_takes_strides(const struct cpu_matmul *m, const struct cpu_packed *w)
{
    return m->takes_strides && w->n > 1; /* 3.7 ignores the stride of a single column */
}

int64_t cpu_matmul_n_rows_min(void)
{
#if DNNL_VERSION_MAJOR >= 3
    return 4; /* 3.7 sums a single row in another order if K > 1024; four rows take no longer than one */
#else
    return 1;
#endif
}

static void *alloc_aligned(size_t bytes)
{
    return bytes > SIZE_MAX - ALIGN ? NULL : aligned_alloc(ALIGN, (bytes + ALIGN) / ALIGN * ALIGN);
}

static dnnl_status_t reorder(struct cpu_matmul *m, dnnl_memory_t from, cpu_matmul_md from_md, dnnl_memory_t to,
                             cpu_matmul_md to_md)
{
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&desc, from_md, m->engine, to_md, m->engine, NULL);

    if (status == dnnl_success)
        status = dnnl_primitive_create(&primitive, desc);
    if (status == dnnl_success)
        status = dnnl_primitive_execute(primitive, m->stream, 2, args);
    if (status == dnnl_success)
        status = dnnl_stream_wait(m->stream);
    if (primitive)
        (void)dnnl_primitive_destroy(primitive);
    if (desc)
        (void)dnnl_primitive_desc_destroy(desc);
    return status;
}

static dnnl_status_t pack(struct cpu_matmul *m, struct cpu_packed *w, const void *weight)
{
    const struct cpu_matmul_shape canonical = {
        .m = CANONICAL_ROWS, .n = w->n, .k = w->k, .ld_x = w->k, .ld_y = w->n, .has_bias = w->bias != NULL};
    cpu_matmul_md plain = cpu_matmul_md_new(m->type, w->k, w->n, 1, w->k),
                  bias = cpu_matmul_md_new(dnnl_f32, 1, w->n, w->n, 1);
    dnnl_memory_t from = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t status = plain && bias ? cpu_matmul_desc(m, &canonical, NULL, &desc) : dnnl_out_of_memory;

    if (status == dnnl_success) {
        w->weight_md = cpu_matmul_md_of(desc, dnnl_query_weights_md);
        w->values = w->weight_md ? alloc_aligned(dnnl_memory_desc_get_size(w->weight_md)) : NULL;
        status = w->values ? dnnl_success : dnnl_out_of_memory;
    }
    if (status == dnnl_success) /* oneDNN only reads it */
        status = dnnl_memory_create(&from, plain, m->engine, (void *)(uintptr_t)weight);
    if (status == dnnl_success)
        status = dnnl_memory_create(&w->weight, w->weight_md, m->engine, w->values);
    if (status == dnnl_success && w->bias)
        status = dnnl_memory_create(&w->bias_memory, bias, m->engine, w->bias);
    if (status == dnnl_success)
        status = reorder(m, from, plain, w->weight, w->weight_md);
    memory_free(from);
    if (desc)
        (void)dnnl_primitive_desc_destroy(desc);
    cpu_matmul_md_free(bias);
    cpu_matmul_md_free(plain);
    return status;
}

int cpu_packed_new(struct cpu_matmul *m, int64_t n, int64_t k, const void *weight, const float *bias, int n_threads,
                   struct cpu_packed **ret, struct err *err)
{
    struct cpu_packed *w = calloc(1, sizeof(*w));
    dnnl_status_t status = dnnl_out_of_memory;

    if (!w)
        return err_set(err, -ENOMEM, "weight [%lld, %lld]: out of memory", (long long)n, (long long)k);
    omp_set_num_threads(n_threads);
    w->n = n;
    w->k = k;
    if (bias) {
        w->bias = alloc_aligned((size_t)n * sizeof(float));
        if (w->bias)
            memcpy(w->bias, bias, (size_t)n * sizeof(float));
    }
    if (w->bias || !bias)
        status = pack(m, w, weight);
    if (status != dnnl_success) {
        cpu_packed_free(w);
        return err_set(err, status_errno(status), "weight [%lld, %lld]: oneDNN cannot pack it, status %d", (long long)n,
                       (long long)k, (int)status);
    }
    *ret = w;
    return 0;
}

void cpu_packed_free(struct cpu_packed *w)
{
    if (!w)
        return;
    memory_free(w->weight);
    memory_free(w->bias_memory);
    cpu_matmul_md_free(w->weight_md);
    free(w->values);
    free(w->bias);
    free(w);
}

static dnnl_status_t memory_for(struct cpu_matmul *m, const_dnnl_primitive_desc_t desc, dnnl_query_t what,
                                dnnl_memory_t *ret)
{
    cpu_matmul_md d = cpu_matmul_md_of(desc, what);
    dnnl_status_t status = d ? dnnl_memory_create(ret, d, m->engine, DNNL_MEMORY_NONE) : dnnl_out_of_memory;

    cpu_matmul_md_free(d);
    return status;
}

static int reserve_scratch(struct cpu_matmul *m, size_t bytes)
{
    void *p;

    if (bytes <= m->scratch_bytes)
        return 0;
    p = alloc_aligned(bytes);
    if (!p)
        return -ENOMEM;
    free(m->scratch);
    m->scratch = p;
    m->scratch_bytes = bytes;
    return 0;
}

static int entry_init(struct cpu_matmul *m, struct cpu_matmul_entry *e, const struct cpu_matmul_shape *s,
                      const struct cpu_packed *w)
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t status = cpu_matmul_desc(m, s, w->weight_md, &desc);
    cpu_matmul_md scratch = NULL;
    int rc;

    *e = (struct cpu_matmul_entry){.shape = *s};
    if (status == dnnl_success)
        status = dnnl_primitive_create(&e->primitive, desc);
    if (status == dnnl_success)
        status = memory_for(m, desc, dnnl_query_src_md, &e->x);
    if (status == dnnl_success)
        status = memory_for(m, desc, dnnl_query_dst_md, &e->y);
    if (status == dnnl_success)
        status = memory_for(m, desc, dnnl_query_scratchpad_md, &e->scratch);
    if (status == dnnl_success && !(scratch = cpu_matmul_md_of(desc, dnnl_query_scratchpad_md)))
        status = dnnl_out_of_memory;
    rc = status_errno(status);
    if (rc == 0)
        rc = reserve_scratch(m, dnnl_memory_desc_get_size(scratch));
    cpu_matmul_md_free(scratch);
    if (desc)
        (void)dnnl_primitive_desc_destroy(desc);
    if (rc < 0)
        entry_clear(e);
    return rc;
}

static bool shape_equal(const struct cpu_matmul_shape *a, const struct cpu_matmul_shape *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->ld_x == b->ld_x && a->ld_y == b->ld_y &&
           a->act == b->act && a->has_bias == b->has_bias && a->add_to_y == b->add_to_y && a->y_f32 == b->y_f32 &&
           a->n_threads == b->n_threads;
}

static int find_entry(struct cpu_matmul *m, const struct cpu_matmul_shape *s, const struct cpu_packed *w,
                      struct cpu_matmul_entry **ret)
{
    struct cpu_matmul_entry fresh, *victim = &m->entries[0];
    int rc;

    for (int i = 0; i < m->n_entries; i++) {
        if (shape_equal(&m->entries[i].shape, s)) {
            *ret = &m->entries[i];
            return 0;
        }
        if (m->entries[i].last_use < victim->last_use)
            victim = &m->entries[i];
    }
    rc = entry_init(m, &fresh, s, w);
    if (rc < 0)
        return rc;
    if (m->n_entries < CPU_MATMUL_CACHE)
        victim = &m->entries[m->n_entries++];
    else
        entry_clear(victim);
    *victim = fresh;
    *ret = victim;
    return 0;
}

int cpu_matmul_run(struct cpu_matmul *m, const struct cpu_matmul_args *a)
{
    const struct cpu_packed *w = a->weight;
    struct cpu_matmul_shape shape = {.m = a->n_rows,
                                     .n = w->n,
                                     .k = w->k,
                                     .ld_x = a->n_rows == 1 ? w->k : a->ld_x, /* one row has no stride */
                                     .ld_y = a->n_rows == 1 ? w->n : a->ld_y,
                                     .act = (int)a->act,
                                     .has_bias = w->bias != NULL,
                                     .add_to_y = a->add_to_y,
                                     .y_f32 = a->y_f32,
                                     .n_threads = a->n_threads};
    struct cpu_matmul_entry *e;
    dnnl_status_t status;
    int rc;

    /* oneDNN divides the work when it creates a primitive: the number of threads must be the same in each run. */
    omp_set_num_threads(a->n_threads);
    rc = find_entry(m, &shape, w, &e);
    if (rc < 0)
        return rc;
    e->last_use = ++m->n_uses;
    status = dnnl_memory_set_data_handle(e->x, (void *)(uintptr_t)a->x);
    if (status == dnnl_success)
        status = dnnl_memory_set_data_handle(e->y, a->y);
    if (status == dnnl_success)
        status = dnnl_memory_set_data_handle(e->scratch, m->scratch);
    if (status == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, e->x},
                                  {DNNL_ARG_WEIGHTS, w->weight},
                                  {DNNL_ARG_DST, e->y},
                                  {DNNL_ARG_SCRATCHPAD, e->scratch},
                                  {DNNL_ARG_BIAS, w->bias_memory}};

        status = dnnl_primitive_execute(e->primitive, m->stream, w->bias ? 5 : 4, args);
    }
    return status_errno(status);
}
