/* The products of the emulator beside sums in double. */
#include "emulator_test.h"

#include <cublasLt.h>

static double decoded(cudaDataType type, const void *x, size_t i)
{
    switch (type) {
    case CUDA_R_32F:
        return ((const float *)x)[i];
    case CUDA_R_16F:
        return __half2float(((const __half *)x)[i]);
    case CUDA_R_16BF:
        return __bfloat162float(((const __nv_bfloat16 *)x)[i]);
    default:
        return (double)((const __nv_fp8_e4m3 *)x)[i];
    }
}

static void encode(cudaDataType type, void *x, size_t i, float f)
{
    if (type == CUDA_R_32F)
        ((float *)x)[i] = f;
    else if (type == CUDA_R_16F)
        ((__half *)x)[i] = __float2half_rn(f);
    else if (type == CUDA_R_16BF)
        ((__nv_bfloat16 *)x)[i] = __float2bfloat16_rn(f);
    else
        ((__nv_fp8_e4m3 *)x)[i] = __nv_fp8_e4m3(f);
}

struct product_case {
    cudaDataType in, out;
    int m, n, k;
    bool transa, transb, scaled;
    cublasLtEpilogue_t epilogue;
    float beta;
};

/* n random values of this type in device memory, and a copy here. */
static void *random_values(cudaDataType type, size_t n, void **ret_host)
{
    const size_t bytes = type == CUDA_R_32F ? 4 : type == CUDA_R_8F_E4M3 ? 1 : 2;
    char *d = device<char>(n * bytes);

    *ret_host = malloc(n * bytes);
    for (size_t i = 0; i < n; i++)
        encode(type, *ret_host, i, (float)(emulator_random() % 2001) / 1000.0f - 1.0f);
    put(d, (char *)*ret_host, n * bytes);
    return d;
}

static cublasLtMatrixLayout_t new_layout(cudaDataType type, int rows, int cols, int ld)
{
    cublasLtMatrixLayout_t l;

    assert_int_equal(cublasLtMatrixLayoutCreate(&l, type, (uint64_t)rows, (uint64_t)cols, ld), 0);
    return l;
}

template <typename T> static void set_attribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t id, T value)
{
    assert_int_equal(cublasLtMatmulDescSetAttribute(d, id, &value, sizeof(value)), 0);
}

static double expected(const product_case *c, const void *a, int lda, const void *b, int ldb, const void *old,
                       const void *bias, cudaDataType bias_type, const float *scale_a, const float *scale_b, int i,
                       int j)
{
    double sum = 0;

    for (int k = 0; k < c->k; k++)
        sum += decoded(c->in, a, (size_t)(c->transa ? k + i * lda : i + k * lda)) *
               decoded(c->in, b, (size_t)(c->transb ? j + k * ldb : k + j * ldb));
    if (c->scaled)
        sum *= (double)scale_a[i] * scale_b[j];
    if (c->beta != 0)
        sum += c->beta * decoded(c->out, old, (size_t)(i + j * (c->m + 16)));
    if (c->epilogue & CUBLASLT_EPILOGUE_BIAS)
        sum += decoded(bias_type, bias, (size_t)i);
    if (c->epilogue & CUBLASLT_EPILOGUE_RELU)
        sum = sum > 0 ? sum : 0;
    if (c->epilogue & CUBLASLT_EPILOGUE_GELU)
        sum = 0.5 * sum * (1 + tanh(sqrt(2 / M_PI) * (sum + 0.044715 * sum * sum * sum)));
    return sum;
}

static void run_product(const product_case *c)
{
    const int lda = (c->transa ? c->k : c->m) + 16, ldb = (c->transb ? c->n : c->k) + 16, ldd = c->m + 16;
    const cudaDataType bias_type = c->in == CUDA_R_8F_E4M3 && c->out == CUDA_R_32F ? CUDA_R_16BF : c->out;
    const float alpha = 1;
    void *a, *b, *old, *bias, *scale_a, *scale_b;
    void *d_a = random_values(c->in, (size_t)(lda * (c->transa ? c->m : c->k)), &a);
    void *d_b = random_values(c->in, (size_t)(ldb * (c->transb ? c->k : c->n)), &b);
    void *d_d = random_values(c->out, (size_t)(ldd * c->n), &old),
         *d_bias = random_values(bias_type, (size_t)c->m, &bias);
    void *d_scale_a = random_values(CUDA_R_32F, (size_t)c->m, &scale_a),
         *d_scale_b = random_values(CUDA_R_32F, (size_t)c->n, &scale_b);
    cublasLtMatrixLayout_t la = new_layout(c->in, c->transa ? c->k : c->m, c->transa ? c->m : c->k, lda);
    cublasLtMatrixLayout_t lb = new_layout(c->in, c->transb ? c->n : c->k, c->transb ? c->k : c->n, ldb);
    cublasLtMatrixLayout_t ld = new_layout(c->out, c->m, c->n, ldd);
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t op;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found[2];
    const size_t n_bytes = (size_t)(ldd * c->n) * (c->out == CUDA_R_32F ? 4 : 2);
    void *y = malloc(n_bytes);
    double error = 0, size = 0;
    int n_found;

    assert_int_equal(cublasLtCreate(&handle), 0);
    assert_int_equal(cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F), 0);
    assert_int_equal(cublasLtMatmulPreferenceCreate(&preference), 0);
    set_attribute<int32_t>(op, CUBLASLT_MATMUL_DESC_TRANSA, c->transa ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_attribute<int32_t>(op, CUBLASLT_MATMUL_DESC_TRANSB, c->transb ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_attribute<uint32_t>(op, CUBLASLT_MATMUL_DESC_EPILOGUE, c->epilogue);
    set_attribute<const void *>(op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, d_bias);
    set_attribute<int32_t>(op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type);
    if (c->scaled) {
        set_attribute<int32_t>(op, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
        set_attribute<int32_t>(op, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
        set_attribute<const void *>(op, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, d_scale_a);
        set_attribute<const void *>(op, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, d_scale_b);
    }
    assert_int_equal(cublasLtMatmulAlgoGetHeuristic(handle, op, la, lb, ld, ld, preference, 2, found, &n_found), 0);
    assert_true(n_found > 0);
    assert_int_equal(cublasLtMatmul(handle, op, &alpha, d_a, la, d_b, lb, &c->beta, d_d, ld, d_d, ld, &found[0].algo,
                                    NULL, 0, rig.stream),
                     0);
    take((char *)y, (const char *)d_d, n_bytes);
    for (int j = 0; j < c->n; j++)
        for (int i = 0; i < c->m; i++) {
            const double want =
                expected(c, a, lda, b, ldb, old, bias, bias_type, (float *)scale_a, (float *)scale_b, i, j);
            const double difference = decoded(c->out, y, (size_t)(i + j * ldd)) - want;

            error += difference * difference;
            size += want * want;
        }
    if (!(sqrt(error / size) < (c->out == CUDA_R_32F ? 3e-7 : c->out == CUDA_R_16F ? 3e-4 : 2.4e-3)))
        fail_msg("product of types %d, %d, [%d, %d, %d]: off by %g", c->in, c->out, c->m, c->n, c->k,
                 sqrt(error / size));
    for (int i = c->m; i < ldd; i++) /* between the columns nothing was written */
        assert_true(decoded(c->out, y, (size_t)i) == decoded(c->out, old, (size_t)i));
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatmulDescDestroy(op);
    for (cublasLtMatrixLayout_t l : {la, lb, ld})
        cublasLtMatrixLayoutDestroy(l);
    for (void *d : {d_a, d_b, d_d, d_bias, d_scale_a, d_scale_b})
        cudaFree(d);
    for (void *p : {a, b, old, bias, scale_a, scale_b, y})
        free(p);
}

static void test_products(void **)
{
    const product_case cases[] = {
        {CUDA_R_32F, CUDA_R_32F, 1, 1, 1, true, false, false, CUBLASLT_EPILOGUE_DEFAULT, 0},
        {CUDA_R_32F, CUDA_R_32F, 37, 5, 131, true, false, false, CUBLASLT_EPILOGUE_BIAS, 0.5f},
        {CUDA_R_32F, CUDA_R_32F, 20, 7, 19, false, true, false, CUBLASLT_EPILOGUE_RELU, 0},
        {CUDA_R_32F, CUDA_R_32F, 200, 300, 500, true, false, false, CUBLASLT_EPILOGUE_GELU_BIAS,
         0}, /* several threads */
        {CUDA_R_16F, CUDA_R_16F, 48, 9, 64, true, false, false, CUBLASLT_EPILOGUE_GELU, 0},
        {CUDA_R_16F, CUDA_R_32F, 33, 4, 257, true, false, false, CUBLASLT_EPILOGUE_RELU_BIAS, 0},
        {CUDA_R_16BF, CUDA_R_16BF, 30, 3, 88, true, false, false, CUBLASLT_EPILOGUE_BIAS, 1},
        {CUDA_R_16BF, CUDA_R_32F, 30, 2, 88, false, false, false, CUBLASLT_EPILOGUE_DEFAULT, 0},
        {CUDA_R_8F_E4M3, CUDA_R_16BF, 48, 5, 96, true, false, true, CUBLASLT_EPILOGUE_GELU_BIAS, 0},
        {CUDA_R_8F_E4M3, CUDA_R_32F, 16, 7, 32, true, false, true, CUBLASLT_EPILOGUE_BIAS, 1},
    };

    for (const product_case &c : cases)
        run_product(&c);
}

/* What the heuristic says of e4m3 [m, k] x [k, n] with these leading dimensions and this promise about A. */
static cublasStatus_t ask(int m, int n, int k, int ld_b, uint32_t alignment, bool transa, cudaDataType bias_type)
{
    cublasLtMatrixLayout_t la = new_layout(CUDA_R_8F_E4M3, transa ? k : m, transa ? m : k, transa ? k : m);
    cublasLtMatrixLayout_t lb = new_layout(CUDA_R_8F_E4M3, k, n, ld_b), ld = new_layout(CUDA_R_32F, m, n, m);
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t op;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
    int n_found;

    cublasLtCreate(&handle);
    cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment,
                                         sizeof(alignment));
    set_attribute<int32_t>(op, CUBLASLT_MATMUL_DESC_TRANSA, transa ? CUBLAS_OP_T : CUBLAS_OP_N);
    set_attribute<uint32_t>(op, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set_attribute<int32_t>(op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type);
    const cublasStatus_t s =
        cublasLtMatmulAlgoGetHeuristic(handle, op, la, lb, ld, ld, preference, 1, &found, &n_found);
    assert_int_equal(n_found, s == CUBLAS_STATUS_SUCCESS);
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatmulDescDestroy(op);
    for (cublasLtMatrixLayout_t l : {la, lb, ld})
        cublasLtMatrixLayoutDestroy(l);
    return s;
}

static void test_eight_bits_have_rules(void **)
{
    assert_int_equal(ask(32, 5, 48, 48, 16, true, CUDA_R_16BF), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(ask(32, 5, 40, 48, 16, true, CUDA_R_16BF), CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(ask(24, 5, 48, 48, 16, true, CUDA_R_16BF), CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(ask(32, 5, 48, 56, 16, true, CUDA_R_16BF), CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(ask(32, 5, 48, 48, 8, true, CUDA_R_16BF), CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(ask(32, 5, 48, 48, 16, false, CUDA_R_16BF), CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(ask(32, 5, 48, 48, 16, true, CUDA_R_32F), CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(ask(32, 5, 48, 32, 16, true, CUDA_R_16BF), CUBLAS_STATUS_INVALID_VALUE);
    setenv("BLIPLINE_EMULATED_SM", "80", 1);
    assert_int_equal(ask(32, 5, 48, 48, 16, true, CUDA_R_16BF), CUBLAS_STATUS_NOT_SUPPORTED);
    unsetenv("BLIPLINE_EMULATED_SM");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_eight_bits_have_rules),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
