#include "product.h"

#include <cublasLt.h>

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulator.h"
#include "refuse.h"

/* cublasLt's interface: descriptors, what is supported (the tables of its documentation for cublasLtMatmul), and
 * products that are queued like kernels. Each algorithm remembers the alignments that it was asked for. */

using guard = std::lock_guard<std::recursive_mutex>;

namespace
{

struct desc {
    int32_t compute, scale_type, transa, transb, bias_type, scale_modes[4];
    uint32_t epilogue;
    const void *bias, *scales[4];
    int8_t fast_accum;
};

struct layout {
    uint32_t type;
    int32_t order, batch_count;
    uint64_t rows, cols;
    int64_t ld;
};

struct preference {
    uint32_t search_mode, reductions, alignment[4];
    uint64_t workspace;
};

/* In cublasLtMatmulAlgo_t. */
struct algo {
    uint64_t magic;
    uint32_t alignment[4], bias_alignment;
    uint64_t workspace, columns; /* of B */
    uint32_t number;
};

struct attribute {
    int id;
    size_t offset, n_bytes;
};

} // namespace

enum { N_ALGORITHMS = 3, FULL_ALIGNMENT = 256 };
static const uint64_t ALGO_MAGIC = 0x626c69706c696e65, WORKSPACE_BYTES = 4 << 20;
static int a_handle;
static unsigned refused; /* enum emulator_refuse */

#define ATTRIBUTE(id, type, member)                             \
    {                                                           \
        id, offsetof(type, member), sizeof(((type *)0)->member) \
    }

static const struct attribute desc_attributes[] = {
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, desc, compute),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_SCALE_TYPE, desc, scale_type),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_TRANSA, desc, transa),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_TRANSB, desc, transb),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_EPILOGUE, desc, epilogue),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_BIAS_POINTER, desc, bias),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, desc, bias_type),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, desc, scales[0]),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, desc, scales[1]),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_C_SCALE_POINTER, desc, scales[2]),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_D_SCALE_POINTER, desc, scales[3]),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, desc, scale_modes[0]),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, desc, scale_modes[1]),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_C_SCALE_MODE, desc, scale_modes[2]),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_D_SCALE_MODE, desc, scale_modes[3]),
    ATTRIBUTE(CUBLASLT_MATMUL_DESC_FAST_ACCUM, desc, fast_accum),
    {-1, 0, 0},
};
static const struct attribute layout_attributes[] = {
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_TYPE, layout, type),
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_ORDER, layout, order),
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_ROWS, layout, rows),
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_COLS, layout, cols),
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_LD, layout, ld),
    ATTRIBUTE(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, layout, batch_count),
    {-1, 0, 0},
};
static const struct attribute preference_attributes[] = {
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_SEARCH_MODE, preference, search_mode),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, preference, workspace),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, preference, reductions),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, preference, alignment[0]),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, preference, alignment[1]),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, preference, alignment[2]),
    ATTRIBUTE(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, preference, alignment[3]),
    {-1, 0, 0},
};

static cublasStatus_t set(const struct attribute *table, void *object, int id, const void *value, size_t n_bytes)
{
    for (; table->id >= 0; table++)
        if (table->id == id) {
            if (!value || n_bytes != table->n_bytes)
                return CUBLAS_STATUS_INVALID_VALUE;
            memcpy((char *)object + table->offset, value, n_bytes);
            return CUBLAS_STATUS_SUCCESS;
        }
    emulator_fail("cublasLt: the emulator does not know attribute %d", id);
}

static cublasStatus_t get(const struct attribute *table, const void *object, int id, void *value, size_t n_bytes,
                          size_t *ret)
{
    for (; table->id >= 0; table++)
        if (table->id == id) {
            if (ret)
                *ret = table->n_bytes;
            if (n_bytes && (!value || n_bytes != table->n_bytes))
                return CUBLAS_STATUS_INVALID_VALUE;
            memcpy(value, (const char *)object + table->offset, n_bytes);
            return CUBLAS_STATUS_SUCCESS;
        }
    emulator_fail("cublasLt: the emulator does not know attribute %d", id);
}

/* -- objects -- */

cublasStatus_t cublasLtCreate(cublasLtHandle_t *ret)
{
    *ret = (cublasLtHandle_t)&a_handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    return handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

const char *cublasLtGetStatusName(cublasStatus_t s)
{
    switch (s) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
        return "another CUBLAS_STATUS";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t s)
{
    return cublasLtGetStatusName(s);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *ret, cublasComputeType_t compute,
                                        cudaDataType_t scale_type)
{
    desc *d = new desc{};

    d->compute = compute;
    d->scale_type = scale_type;
    d->bias_type = -1;
    d->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    *ret = (cublasLtMatmulDesc_t)d;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    delete (desc *)d;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t id,
                                              const void *value, size_t n_bytes)
{
    return set(desc_attributes, d, id, value, n_bytes);
}

cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t id, void *value,
                                              size_t n_bytes, size_t *ret)
{
    return get(desc_attributes, d, id, value, n_bytes, ret);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *ret, cudaDataType type, uint64_t rows, uint64_t cols,
                                          int64_t ld)
{
    *ret = (cublasLtMatrixLayout_t) new layout{(uint32_t)type, CUBLASLT_ORDER_COL, 1, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    delete (layout *)l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t id,
                                                const void *value, size_t n_bytes)
{
    return set(layout_attributes, l, id, value, n_bytes);
}

cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t id,
                                                void *value, size_t n_bytes, size_t *ret)
{
    return get(layout_attributes, l, id, value, n_bytes, ret);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *ret)
{
    preference *p = new preference{};

    for (uint32_t &a : p->alignment)
        a = FULL_ALIGNMENT;
    *ret = (cublasLtMatmulPreference_t)p;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    delete (preference *)p;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t id, const void *value,
                                                    size_t n_bytes)
{
    return set(preference_attributes, p, id, value, n_bytes);
}

/* -- what is supported -- */

static bool is_multiple_of_16(const layout *l)
{
    return l->rows % 16 == 0 && l->cols % 16 == 0 && l->ld % 16 == 0;
}

static int compute_capability(void)
{
    struct cudaDeviceProp p;

    cudaGetDeviceProperties(&p, 0);
    return p.major * 10 + p.minor;
}

/* "To use FP8 kernels": TN, dimensions and addresses multiples of 16, 89 or later; a scale for each row only from 90
 * on. The number of columns of B need not be a multiple of 16. */
static cublasStatus_t check_fp8(const desc *d, const layout *a, const layout *b, const layout *c, const layout *dd,
                                const uint32_t *alignment)
{
    const bool outer = d->scale_modes[0] == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    const int sm = compute_capability();

    if (d->transa != CUBLAS_OP_T || d->transb != CUBLAS_OP_N || !is_multiple_of_16(a) || b->rows % 16 || b->ld % 16)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (const layout *l : {c, dd})
        if ((size_t)l->ld * product_type_bytes((cudaDataType)l->type) % 16)
            return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 4; i++)
        if (alignment[i] < 16)
            return CUBLAS_STATUS_NOT_SUPPORTED;
    if (sm < 89 || (outer && sm < 90) || d->compute != CUBLAS_COMPUTE_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d->scale_modes[0] != d->scale_modes[1] || (outer && (!d->scales[0] || !d->scales[1])))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!outer && d->scale_modes[0] != CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_types(const desc *d, const layout *a, const layout *b, const layout *c, const layout *dd)
{
    const bool fp8 = a->type == CUDA_R_8F_E4M3, bias = d->epilogue & CUBLASLT_EPILOGUE_BIAS;
    const uint32_t bias_type = d->bias_type < 0 ? dd->type : (uint32_t)d->bias_type;

    if (a->type != b->type || c->type != dd->type || d->scale_type != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a->type != CUDA_R_32F && a->type != CUDA_R_16F && a->type != CUDA_R_16BF && !fp8)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (dd->type != CUDA_R_32F && dd->type != a->type && !(fp8 && (dd->type == CUDA_R_16F || dd->type == CUDA_R_16BF)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d->compute != CUBLAS_COMPUTE_32F && !(d->compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a->type == CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (bias && bias_type != (fp8 && dd->type == CUDA_R_32F ? (uint32_t)CUDA_R_16BF : dd->type))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_shapes(const desc *d, const layout *a, const layout *b, const layout *c, const layout *dd)
{
    const uint64_t m = d->transa ? a->cols : a->rows, k = d->transa ? a->rows : a->cols;
    const uint64_t n = d->transb ? b->rows : b->cols, k_b = d->transb ? b->cols : b->rows;

    for (const layout *l : {a, b, c, dd})
        if (l->order != CUBLASLT_ORDER_COL || l->batch_count != 1)
            return CUBLAS_STATUS_NOT_SUPPORTED;
        else if (!l->rows || !l->cols || l->ld < (int64_t)l->rows)
            return CUBLAS_STATUS_INVALID_VALUE;
    if (k != k_b || c->rows != m || c->cols != n || dd->rows != m || dd->cols != n)
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

/* For tests. 0: nothing. */
extern "C" __attribute__((visibility("default"))) void emulator_refuse_products(unsigned what)
{
    const guard g(emulator_lock);

    refused = what;
}

static bool is_refused(const desc *d)
{
    const bool act = d->epilogue & (CUBLASLT_EPILOGUE_RELU | CUBLASLT_EPILOGUE_GELU);
    const bool bias = d->epilogue & CUBLASLT_EPILOGUE_BIAS;
    const bool row_scales = d->scale_modes[0] == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;

    return (refused & EMULATOR_REFUSE_ALL) || (d->fast_accum && (refused & EMULATOR_REFUSE_FAST_SUMS)) ||
           (act && (refused & EMULATOR_REFUSE_ACT)) || (bias && (refused & EMULATOR_REFUSE_BIAS)) ||
           (row_scales && (refused & EMULATOR_REFUSE_ROW_SCALES));
}

static cublasStatus_t check(const desc *d, const layout *a, const layout *b, const layout *c, const layout *dd,
                            const uint32_t *alignment)
{
    cublasStatus_t s = check_shapes(d, a, b, c, dd);

    if (s == CUBLAS_STATUS_SUCCESS)
        s = check_types(d, a, b, c, dd);
    if (s == CUBLAS_STATUS_SUCCESS && a->type == CUDA_R_8F_E4M3)
        s = check_fp8(d, a, b, c, dd, alignment);
    else if (s == CUBLAS_STATUS_SUCCESS && (d->scales[0] || d->scales[1] || d->scale_modes[0] || d->scale_modes[1]))
        s = CUBLAS_STATUS_INVALID_VALUE; /* scales are for eight bits */
    if (s == CUBLAS_STATUS_SUCCESS && (d->scales[2] || d->scales[3] || is_refused(d)))
        s = CUBLAS_STATUS_NOT_SUPPORTED;
    switch (d->epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_RELU:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_RELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
        break;
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    const layout *layouts[4] = {a, b, c, dd};
    for (int i = 0; s == CUBLAS_STATUS_SUCCESS && i < 4; i++)
        if (alignment[i] < product_type_bytes((cudaDataType)layouts[i]->type))
            s = CUBLAS_STATUS_NOT_SUPPORTED;
    return s;
}

static uint32_t alignment_of(const void *p)
{
    return p ? 1u << __builtin_ctz((unsigned)(uintptr_t)p | 16) : 16;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wanted, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t ret[], int *ret_n)
{
    const preference *w = (const preference *)wanted;
    const cublasStatus_t s = check((desc *)op, (layout *)a, (layout *)b, (layout *)c, (layout *)d, w->alignment);

    *ret_n = 0;
    if (!handle || n_wanted <= 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    for (int i = 0; i < n_wanted && i < N_ALGORITHMS; i++) {
        algo g = {ALGO_MAGIC, {}, alignment_of(((desc *)op)->bias), 0, ((layout *)d)->cols, (uint32_t)i};

        memcpy(g.alignment, w->alignment, sizeof(g.alignment));
        if (i == 0 && w->workspace >= WORKSPACE_BYTES)
            g.workspace = WORKSPACE_BYTES;
        ret[i] = {};
        static_assert(sizeof(g) <= sizeof(ret[i].algo), "it fits");
        memcpy(&ret[i].algo, &g, sizeof(g));
        ret[i].workspaceSize = g.workspace;
        ret[i].state = CUBLAS_STATUS_SUCCESS;
        ret[i].wavesCount = 1;
        *ret_n = i + 1;
    }
    return *ret_n ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* -- products -- */

static void check_pointer(const char *name, const void *p, size_t alignment)
{
    if ((uintptr_t)p % alignment)
        emulator_fail("cublasLtMatmul: %s is at %p, but the algorithm was chosen for an alignment of %zu bytes", name,
                      p, alignment);
    if (p && emulator_place_of(p) == EMULATOR_PAGEABLE)
        emulator_fail("cublasLtMatmul: %s is at %p, which is host memory", name, p);
}

static struct product_matrix matrix(const layout *l, const void *values, const desc *d, int which)
{
    struct product_matrix x = {(cudaDataType)l->type, l->ld, false, values, NULL, false};

    if (which < 2) {
        x.transposed = which == 0 ? d->transa == CUBLAS_OP_T : d->transb == CUBLAS_OP_T;
        x.scale = (const float *)d->scales[which];
        x.outer = d->scale_modes[which] == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
        if (x.scale)
            check_pointer("a scale", x.scale, x.outer ? 16 : 4);
    }
    return x;
}

static struct product product_of(const desc *d, const layout *const l[4], const void *const values[4], float alpha,
                                 float beta)
{
    struct product p = {};

    p.a = matrix(l[0], values[0], d, 0);
    p.b = matrix(l[1], values[1], d, 1);
    p.c = matrix(l[2], values[2], d, 2);
    p.d = matrix(l[3], values[3], d, 3);
    p.m = (int64_t)l[3]->rows;
    p.n = (int64_t)l[3]->cols;
    p.k = (int64_t)(p.a.transposed ? l[0]->rows : l[0]->cols);
    p.alpha = alpha;
    p.beta = beta;
    p.tf32 = d->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    p.act = d->epilogue & CUBLASLT_EPILOGUE_GELU   ? PRODUCT_GELU
            : d->epilogue & CUBLASLT_EPILOGUE_RELU ? PRODUCT_RELU
                                                   : PRODUCT_NONE;
    p.bias = d->epilogue & CUBLASLT_EPILOGUE_BIAS ? d->bias : NULL;
    p.bias_type = d->bias_type < 0 ? p.d.type : (cudaDataType)d->bias_type;
    return p;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *chosen, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    const guard g(emulator_lock);
    static const char *const names[] = {"A", "B", "C", "D"};
    const desc *o = (const desc *)op;
    const layout *const layouts[4] = {(layout *)a_layout, (layout *)b_layout, (layout *)c_layout, (layout *)d_layout};
    const void *const values[4] = {a, b, *(const float *)beta != 0 ? c : NULL, d};
    algo with = {ALGO_MAGIC, {16, 16, 16, 16}, 1, 0, layouts[3]->cols, 0};
    cublasStatus_t s;

    if (!handle || !a || !b || !d || (o->epilogue & CUBLASLT_EPILOGUE_BIAS && !o->bias))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (emulator_injected() != cudaSuccess)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if (chosen)
        memcpy(&with, chosen, sizeof(with));
    if (with.magic != ALGO_MAGIC || with.workspace > workspace_bytes)
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((refused & EMULATOR_REFUSE_CAPTURED) && emulator_is_capturing(stream))
        return CUBLAS_STATUS_INTERNAL_ERROR;
    if ((refused & EMULATOR_REFUSE_OTHER_ROWS) && with.columns != layouts[3]->cols)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    s = check(o, layouts[0], layouts[1], layouts[2], layouts[3], with.alignment);
    if (s != CUBLAS_STATUS_SUCCESS)
        return s;
    for (int i = 0; i < 4; i++)
        check_pointer(names[i], values[i], with.alignment[i]);
    check_pointer("the workspace", workspace, 256);
    if (o->epilogue & CUBLASLT_EPILOGUE_BIAS)
        check_pointer("the bias", o->bias, with.bias_alignment);
    const struct product p = product_of(o, layouts, values, *(const float *)alpha, *(const float *)beta);
    const size_t used = with.workspace < 4096 ? with.workspace : 4096;
    emulator_enqueue(stream, [=] {
        if (used)
            memset(workspace, 0xff, used);
        product_run(&p);
    });
    return CUBLAS_STATUS_SUCCESS;
}
