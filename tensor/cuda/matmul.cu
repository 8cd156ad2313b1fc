/* Matrix products with cublasLt: descriptors, choice of algorithms and their cache. Bound: the tensor cores, with 2
 * rows N K operations; below about 300 rows (H100, bf16) reading the weight, N K elements. */
#include "tensor/cuda/launch.cuh"

#include "tensor/cuda/matmul.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    WORKSPACE_BYTES = 32 << 20, /* the size that cublasLt recommends for sm_90 */
    CACHE_MOST = 4096,          /* entries; the cache is then emptied */
    CACHE_SLOTS = 2 * CACHE_MOST,
    CANDIDATES = 4,
    /* If 1: times the library's candidates at the first use of a shape and keeps the fastest. Off, because the first
     * candidate depends only on the shape, so all processes choose alike; timing depends on other processes on the
     * card. NEEDSWORK: turn on if measured to gain more than a few percent. */
    TIME_CANDIDATES = 0,
    /* e4m3 sums in the tensor cores of sm_90 keep about 14 bits unless they are regularly moved to f32 registers,
     * which costs up to a third of the speed. 2^-13 per sum is far below the error of e4m3 itself (2^-4 per value).
     * If the library has only the slow form, that is used. */
    FP8_FAST_SUMS = 1,
};
static const double time_from = 1e9; /* multiply-adds: smaller products are not worth timing */

/* Everything the choice of an algorithm depends on. Compared as bytes: zeroed before it is filled. */
struct key {
    int64_t n, k, n_rows; /* n_rows: exact, or the largest of the bucket */
    int64_t ld_x, ld_c, ld_d;
    int32_t in_type, out_type, bias_type, epilogue;
    int16_t align_w, align_x, align_c, align_d;
    int16_t has_c, has_scales, in_place, is_exact;
};

struct entry {
    struct key key;
    bool used, found; /* found false: the library has no algorithm */
    bool fast_sums;
    cublasLtMatmulAlgo_t algo;
};

struct cuda_matmul {
    cublasLtHandle_t library;
    void *d_workspace;
    /* Refilled for every product, so that no product allocates. */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, c, d;
    cublasLtMatmulPreference_t preference;
    cudaEvent_t before, after;
    int n_entries;
    struct entry entries[CACHE_SLOTS];
};

cudaDataType cuda_data_type(enum dtype dtype)
{
    assert(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16);
    return dtype == DTYPE_F32 ? CUDA_R_32F : dtype == DTYPE_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

static int library_status(struct cuda_ops *o, cublasStatus_t s, const char *what)
{
    if (cuda_failed(o) < 0 || s == CUBLAS_STATUS_SUCCESS)
        return cuda_failed(o);
    if (o->graph == CUDA_GRAPH_RECORD) { /* the library may fail only because of the capture */
        cuda_graph_fail(o, -EAGAIN);
        return -EAGAIN;
    }
    if (s == CUBLAS_STATUS_ALLOC_FAILED) {
        if (o->graph != CUDA_GRAPH_NONE)
            cuda_graph_fail(o, -ENOMEM);
        return -ENOMEM;
    }
    o->failed = true;
    return err_set(&o->base.why, -EIO, "%s: cublasLt: %s", what, cublasLtGetStatusString(s));
}

/* -- life -- */

static cublasStatus_t create(struct cuda_ops *o, struct cuda_matmul *m)
{
    cublasComputeType_t compute =
        o->tf32 && o->base.act_dtype == DTYPE_F32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    /* Split-K partial sums are added in f32, not in the result's type. */
    const uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint64_t workspace = WORKSPACE_BYTES;
    cublasLtMatrixLayout_t *layouts[] = {&m->w, &m->x, &m->c, &m->d};
    cublasStatus_t s = cublasLtCreate(&m->library);

    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulDescCreate(&m->desc, compute, CUDA_R_32F);
    for (int i = 0; i < 4 && s == CUBLAS_STATUS_SUCCESS; i++)
        s = cublasLtMatrixLayoutCreate(layouts[i], CUDA_R_32F, 1, 1, 1);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulPreferenceCreate(&m->preference);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulPreferenceSetAttribute(m->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                 sizeof(workspace));
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulPreferenceSetAttribute(m->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction,
                                                 sizeof(reduction));
    return s;
}

int cuda_matmul_new(struct cuda_ops *o, struct err *err)
{
    struct cuda_matmul *m = (struct cuda_matmul *)calloc(1, sizeof(*m));
    cublasStatus_t s;

    if (!m)
        return err_set(err, -ENOMEM, "cublasLt: out of memory");
    o->matmul = m;
    s = create(o, m);
    if (s != CUBLAS_STATUS_SUCCESS) {
        cuda_matmul_free(o);
        return err_set(err, s == CUBLAS_STATUS_ALLOC_FAILED ? -ENOMEM : -EIO, "cublasLt: cannot start: %s",
                       cublasLtGetStatusString(s));
    }
    if (cuda_malloc(o, WORKSPACE_BYTES, &m->d_workspace) < 0) {
        cuda_matmul_free(o);
        return err_set(err, -ENOMEM, "cublasLt: cannot allocate %d MiB of device memory for its workspace",
                       WORKSPACE_BYTES >> 20);
    }
    if (TIME_CANDIDATES && (cudaEventCreate(&m->before) != cudaSuccess || cudaEventCreate(&m->after) != cudaSuccess)) {
        cuda_matmul_free(o);
        return err_set(err, -EIO, "cublasLt: cannot create events for timing");
    }
    return 0;
}

void cuda_matmul_free(struct cuda_ops *o)
{
    struct cuda_matmul *m = o->matmul;

    if (!m)
        return;
    if (m->before)
        (void)cudaEventDestroy(m->before);
    if (m->after)
        (void)cudaEventDestroy(m->after);
    cuda_free(o, m->d_workspace);
    if (m->preference)
        (void)cublasLtMatmulPreferenceDestroy(m->preference);
    for (cublasLtMatrixLayout_t layout : {m->w, m->x, m->c, m->d})
        if (layout)
            (void)cublasLtMatrixLayoutDestroy(layout);
    if (m->desc)
        (void)cublasLtMatmulDescDestroy(m->desc);
    if (m->library)
        (void)cublasLtDestroy(m->library);
    free(m);
    o->matmul = NULL;
}

/* -- the cache -- */

static int16_t alignment_of(const void *p)
{
    const uintptr_t lowest = (uintptr_t)p & -(uintptr_t)p;

    return lowest >= 256 || !p ? 256 : lowest >= 16 ? 16 : (int16_t)lowest;
}

/* Row counts below 64 (decode steps) are exact; larger ones share buckets. */
static int64_t bucket_of(int64_t n_rows)
{
    const int64_t step = n_rows <= 64 ? 1 : n_rows <= 4096 ? 64 : 512;

    return (n_rows + step - 1) / step * step;
}

static struct key key_of(const struct cuda_product *p, bool is_exact)
{
    struct key k;

    memset(&k, 0, sizeof(k));
    k.n = p->n;
    k.k = p->k;
    k.n_rows = is_exact ? p->n_rows : bucket_of(p->n_rows);
    k.ld_x = p->ld_x;
    k.ld_c = p->c ? p->ld_c : 0;
    k.ld_d = p->ld_d;
    k.in_type = p->in_type;
    k.out_type = p->out_type;
    k.bias_type = p->d_bias ? p->bias_type : -1;
    k.epilogue = p->epilogue;
    k.align_w = alignment_of(p->w);
    k.align_x = alignment_of(p->x);
    k.align_c = alignment_of(p->c);
    k.align_d = alignment_of(p->d);
    k.has_c = p->c != NULL;
    k.has_scales = p->d_scale_w != NULL;
    k.in_place = p->c == p->d;
    k.is_exact = is_exact;
    return k;
}

/* The entry of this key, or the empty entry for it. */
static struct entry *find(struct cuda_matmul *m, const struct key *key)
{
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */

    for (size_t i = 0; i < sizeof(*key); i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    hash ^= hash >> 32;
    for (;; hash++) {
        struct entry *e = &m->entries[hash % CACHE_SLOTS];

        if (!e->used || memcmp(&e->key, key, sizeof(*key)) == 0)
            return e;
    }
}

static struct entry *add(struct cuda_matmul *m, const struct key *key)
{
    struct entry *e;

    if (m->n_entries == CACHE_MOST) {
        memset(m->entries, 0, sizeof(m->entries));
        m->n_entries = 0;
    }
    e = find(m, key);
    e->key = *key;
    e->used = true;
    m->n_entries++;
    return e;
}

/* -- descriptions -- */

template <typename T>
static void set_desc(cublasStatus_t *s, cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t what, T value)
{
    if (*s == CUBLAS_STATUS_SUCCESS)
        *s = cublasLtMatmulDescSetAttribute(desc, what, &value, sizeof(value));
}

static void set_layout(cublasStatus_t *s, cublasLtMatrixLayout_t layout, cudaDataType type, int64_t rows,
                       int64_t columns, int64_t ld)
{
    const uint32_t t = type;
    const uint64_t r = (uint64_t)rows, c = (uint64_t)columns;

    if (*s == CUBLAS_STATUS_SUCCESS)
        *s = cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_TYPE, &t, sizeof(t));
    if (*s == CUBLAS_STATUS_SUCCESS)
        *s = cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ROWS, &r, sizeof(r));
    if (*s == CUBLAS_STATUS_SUCCESS)
        *s = cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &c, sizeof(c));
    if (*s == CUBLAS_STATUS_SUCCESS)
        *s = cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_LD, &ld, sizeof(ld));
}

/* Sets all attributes that differ between products, so that none of the previous product remains. */
static cublasStatus_t describe(struct cuda_matmul *m, const struct cuda_product *p, int64_t n_rows, bool fast_sums)
{
    /* Without a bias: the type that it would have. */
    const int32_t bias_type = p->d_bias                                                   ? p->bias_type
                              : p->in_type == CUDA_R_8F_E4M3 && p->out_type == CUDA_R_32F ? CUDA_R_16BF
                                                                                          : p->out_type;
    const int32_t scale_mode =
        p->d_scale_w ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F : CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;

    set_layout(&s, m->w, p->in_type, p->k, p->n, p->k);
    set_layout(&s, m->x, p->in_type, p->k, n_rows, p->ld_x);
    if (p->c)
        set_layout(&s, m->c, p->out_type, p->n, n_rows, p->ld_c);
    set_layout(&s, m->d, p->out_type, p->n, n_rows, p->ld_d);
    set_desc<int32_t>(&s, m->desc, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set_desc<uint32_t>(&s, m->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, p->epilogue);
    set_desc<const void *>(&s, m->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p->d_bias);
    set_desc<int32_t>(&s, m->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type);
    set_desc<int8_t>(&s, m->desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, fast_sums);
    set_desc<int32_t>(&s, m->desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, scale_mode);
    set_desc<int32_t>(&s, m->desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, scale_mode);
    set_desc<const void *>(&s, m->desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p->d_scale_w);
    set_desc<const void *>(&s, m->desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p->d_scale_x);
    return s;
}

static cublasStatus_t describe_alignment(struct cuda_matmul *m, const struct key *k)
{
    static const cublasLtMatmulPreferenceAttributes_t what[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint32_t bytes[] = {(uint32_t)k->align_w, (uint32_t)k->align_x,
                              (uint32_t)(k->has_c ? k->align_c : k->align_d), (uint32_t)k->align_d};
    cublasStatus_t s = CUBLAS_STATUS_SUCCESS;

    for (int i = 0; i < 4 && s == CUBLAS_STATUS_SUCCESS; i++)
        s = cublasLtMatmulPreferenceSetAttribute(m->preference, what[i], &bytes[i], sizeof(bytes[i]));
    return s;
}

/* The library accepts c = d only if both use the same descriptor. */
static cublasLtMatrixLayout_t c_layout(const struct cuda_matmul *m, const struct cuda_product *p)
{
    return p->c && p->c != p->d ? m->c : m->d;
}

/* -- running -- */

static cublasStatus_t enqueue(struct cuda_ops *o, const struct cuda_product *p, const cublasLtMatmulAlgo_t *algo)
{
    const float one = 1, beta = p->c ? 1 : 0;
    struct cuda_matmul *m = o->matmul;

    return cublasLtMatmul(m->library, m->desc, &one, p->w, m->w, p->x, m->x, &beta, p->c ? p->c : p->d, c_layout(m, p),
                          p->d, m->d, algo, m->d_workspace, WORKSPACE_BYTES, o->stream);
}

/* Milliseconds of the second of two runs; negative if it failed. */
static float run_time(struct cuda_ops *o, const struct cuda_product *p, const cublasLtMatmulAlgo_t *algo)
{
    struct cuda_matmul *m = o->matmul;
    float ms = -1;

    if (enqueue(o, p, algo) != CUBLAS_STATUS_SUCCESS || cudaEventRecord(m->before, o->stream) != cudaSuccess ||
        enqueue(o, p, algo) != CUBLAS_STATUS_SUCCESS || cudaEventRecord(m->after, o->stream) != cudaSuccess ||
        cudaEventSynchronize(m->after) != cudaSuccess || cudaEventElapsedTime(&ms, m->before, m->after) != cudaSuccess)
        return -1;
    return ms;
}

/* Timing overwrites d, so not if c = d; and not during capture, which must not wait. */
static bool is_worth_timing(const struct cuda_ops *o, const struct cuda_product *p)
{
    return TIME_CANDIDATES && o->graph != CUDA_GRAPH_RECORD && p->c != p->d &&
           (double)p->n_rows * (double)p->n * (double)p->k >= time_from;
}

static int fastest(struct cuda_ops *o, const struct cuda_product *p, bool fast_sums,
                   const cublasLtMatmulHeuristicResult_t *found, int n_found)
{
    float best_ms = -1;
    int best = 0;

    if (!is_worth_timing(o, p) || describe(o->matmul, p, p->n_rows, fast_sums) != CUBLAS_STATUS_SUCCESS)
        return 0;
    for (int i = 0; i < n_found; i++) {
        const float ms = run_time(o, p, &found[i].algo);

        if (ms >= 0 && (best_ms < 0 || ms < best_ms)) {
            best_ms = ms;
            best = i;
        }
    }
    return best;
}

/* Asks for up to CANDIDATES algorithms; there may be none. */
static int ask(struct cuda_ops *o, const struct cuda_product *p, const struct key *key, bool fast_sums,
               cublasLtMatmulHeuristicResult_t *found, int *ret_n)
{
    struct cuda_matmul *m = o->matmul;
    cublasStatus_t s = describe(m, p, key->n_rows, fast_sums);

    *ret_n = 0;
    if (s == CUBLAS_STATUS_SUCCESS)
        s = describe_alignment(m, key);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulAlgoGetHeuristic(m->library, m->desc, m->w, m->x, c_layout(m, p), m->d, m->preference,
                                           TIME_CANDIDATES ? CANDIDATES : 1, found, ret_n);
    /* This library does not support this scale mode, epilogue or alignment for these types. */
    if (s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE ||
        (*ret_n > 0 && found[0].state != CUBLAS_STATUS_SUCCESS)) {
        *ret_n = 0;
        return 0;
    }
    return library_status(o, s, "choosing a product");
}

/* Asks the library and caches the answer, also that there is no algorithm. */
static int choose_algo(struct cuda_ops *o, const struct cuda_product *p, const struct key *key, struct entry **ret)
{
    cublasLtMatmulHeuristicResult_t found[CANDIDATES] = {};
    bool fast_sums = FP8_FAST_SUMS && p->in_type == CUDA_R_8F_E4M3;
    int n_found, rc = ask(o, p, key, fast_sums, found, &n_found);

    if (rc == 0 && n_found == 0 && fast_sums) {
        fast_sums = false;
        rc = ask(o, p, key, fast_sums, found, &n_found);
    }
    if (rc < 0)
        return rc;
    *ret = add(o->matmul, key);
    (*ret)->found = n_found > 0;
    (*ret)->fast_sums = fast_sums;
    if (n_found > 0)
        (*ret)->algo = found[fastest(o, p, fast_sums, found, n_found)].algo;
    return 0;
}

static int run_with_key(struct cuda_ops *o, const struct cuda_product *p, bool is_exact)
{
    const struct key key = key_of(p, is_exact);
    struct entry *e = find(o->matmul, &key);
    cublasStatus_t s;
    int rc;

    if (!e->used) {
        rc = choose_algo(o, p, &key, &e);
        if (rc < 0)
            return rc;
    }
    if (!e->found)
        return -ENOTSUP;
    s = describe(o->matmul, p, p->n_rows, e->fast_sums);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = enqueue(o, p, &e->algo);
    if (s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE) {
        if (key.n_rows == p->n_rows) /* it was already chosen for this exact count */
            e->found = false;
        return -ENOTSUP;
    }
    return library_status(o, s, "product");
}

/* If the bucket's algorithm does not work for this number of rows, this number gets its own entry. */
int cuda_product_run(struct cuda_ops *o, const struct cuda_product *p)
{
    const struct key own = key_of(p, true);
    int rc = -ENOTSUP;

    assert(p->n_rows >= 1 && p->ld_x >= p->k && p->ld_d >= p->n && !p->d_scale_w == !p->d_scale_x);
    if (!find(o->matmul, &own)->used)
        rc = run_with_key(o, p, false);
    return rc == -ENOTSUP && bucket_of(p->n_rows) != p->n_rows ? run_with_key(o, p, true) : rc;
}
