#include "tensor/host.h"
#include "tensor/ops.h"
#include "tensor/weight_parts.h"
#include "tensor/sampler.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The definition of every operator: loops as MODEL.md writes them, sums in double, f32 activations in host memory.
 * Slow on purpose; tests compare the other back ends with it. */

struct ops_weight {
    int64_t n, k;
    float *values; /* [N, K] */
    float *bias;   /* [N] or NULL */
};

static void ref_free(struct ops *o)
{
    free(o);
}

static void ref_weight_free(struct ops *o, struct ops_weight *w)
{
    (void)o;
    if (!w)
        return;
    free(w->values);
    free(w->bias);
    free(w);
}

static int weight_size(const struct ops_weight_part *parts, int n_parts, int64_t *ret_n, int64_t *ret_k)
{
    int64_t n, k, total;

    if (weight_parts_shape(parts, n_parts, &n, &k) < 0)
        return -EOVERFLOW;
    if (__builtin_mul_overflow(n, k, &total) || total > (int64_t)(PTRDIFF_MAX / sizeof(float)))
        return -EOVERFLOW;
    *ret_n = n;
    *ret_k = k;
    return 0;
}

static int ref_weight_new(struct ops *o, const struct ops_weight_part *parts, int n_parts, unsigned flags,
                          struct ops_weight **ret, struct err *err)
{
    struct ops_weight *w;
    int64_t row = 0, n, k;

    (void)flags; /* these operators have no fp8 */
    if (weight_size(parts, n_parts, &n, &k) < 0)
        return err_set(err, -EOVERFLOW, "weight: the matrix is too large for this machine");
    w = calloc(1, sizeof(*w));
    if (w) {
        w->n = n;
        w->k = k;
        w->values = malloc((size_t)n * k * sizeof(float));
        w->bias = parts[0].bias ? malloc((size_t)n * sizeof(float)) : NULL;
    }
    if (!w || !w->values || (parts[0].bias && !w->bias)) {
        ref_weight_free(o, w);
        return err_set(err, -ENOMEM, "weight [%lld, %lld]: out of memory", (long long)n, (long long)k);
    }
    for (int i = 0; i < n_parts; i++) {
        const struct tensor *t = parts[i].weight, *b = parts[i].bias;

        tensor_to_f32(w->values + row * k, t->dtype, t->data, (size_t)(t->shape[0] * k));
        if (b)
            tensor_to_f32(w->bias + row, b->dtype, b->data, (size_t)b->shape[0]);
        row += t->shape[0];
    }
    *ret = w;
    return 0;
}

/* Written without cancellation for negative x: 1 + erf(z) = erfc(-z), 1 + tanh(u) = 2 / (1 + e^-2u). -inf gives NaN,
 * so that weights that are not finite show in the result. */
static double activate(enum ops_act act, double x)
{
    switch (act) {
    case OPS_ACT_NONE:
        return x;
    case OPS_ACT_RELU:
        return x > 0 ? x : x * 0;
    case OPS_ACT_GELU_ERF:
        return 0.5 * x * erfc(-x * M_SQRT1_2);
    case OPS_ACT_GELU_TANH:
        return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    }
    assert(!"a value of enum ops_act");
    return x;
}

static int ref_linear(struct ops *o, const struct ops_linear_args *a)
{
    const struct ops_weight *w = a->weight;

    (void)o;
    assert(a->n_rows >= 1 && a->ld_x >= w->k && a->ld_y >= w->n && a->x != a->y);
    for (int64_t m = 0; m < a->n_rows; m++) {
        const float *x = (const float *)a->x + m * a->ld_x;
        const float *residual = a->residual ? (const float *)a->residual + m * a->ld_residual : NULL;
        float *y = (float *)a->y + m * a->ld_y;

        for (int64_t n = 0; n < w->n; n++) {
            double sum = w->bias ? w->bias[n] : 0;

            for (int64_t k = 0; k < w->k; k++)
                sum += (double)x[k] * w->values[n * w->k + k];
            y[n] = (float)(activate(a->act, sum) + (residual ? residual[n] : 0));
        }
    }
    return 0;
}

static int ref_norm(struct ops *o, const struct ops_norm_args *a)
{
    (void)o;
    assert(a->gamma->n == a->width && (!a->beta || a->beta->n == a->width));
    for (int64_t r = 0; r < a->n_rows; r++) {
        const float *x = (const float *)a->x + r * a->ld_x;
        float *y = (float *)a->y + r * a->ld_y;
        double mean = 0, var = 0, scale;

        if (a->beta)
            for (int64_t c = 0; c < a->width; c++)
                mean += x[c];
        mean /= (double)a->width;
        for (int64_t c = 0; c < a->width; c++)
            var += (x[c] - mean) * (x[c] - mean);
        scale = 1 / sqrt(var / (double)a->width + (double)a->eps);
        for (int64_t c = 0; c < a->width; c++)
            y[c] = (float)((x[c] - mean) * scale * a->gamma->values[c] + (a->beta ? a->beta->values[c] : 0));
    }
    return 0;
}

/* The bias of keys 0 .. n_keys-1 for a query at this position; NULL: none. */
static const float *bias_row(const float *bias, int64_t span, int head, int64_t position, int64_t n_keys)
{
    assert(!bias || (position < span && n_keys <= span));
    return bias ? bias + head * (2 * span - 1) + span - 1 - position : NULL;
}

/* One query row of one head: q, out [D]; k, v the sequence's first row at this head's columns; score [n_keys]. */
static void attend(const struct ops_attention_args *a, const float *q, const float *k, const float *v,
                   const float *bias, int n_keys, double *score, float *out)
{
    double max = -HUGE_VAL, sum = 0;

    for (int j = 0; j < n_keys; j++) {
        double dot = 0;

        for (int d = 0; d < a->head_dim; d++)
            dot += (double)q[d] * k[j * a->ld_k + d];
        score[j] = dot * a->scale + (bias ? bias[j] : 0);
        if (score[j] > max)
            max = score[j];
    }
    for (int j = 0; j < n_keys; j++) {
        score[j] = exp(score[j] - max);
        sum += score[j];
    }
    for (int d = 0; d < a->head_dim; d++) {
        double value = 0;

        for (int j = 0; j < n_keys; j++)
            value += score[j] * v[j * a->ld_v + d];
        out[d] = (float)(value / sum);
    }
}

static void attend_sequence(const struct ops_attention_args *a, int s, double *score)
{
    const float *k = (const float *)a->k + a->kv_start[s] * a->ld_k;
    const float *v = (const float *)a->v + a->kv_start[s] * a->ld_v;
    int n_before = a->causal ? a->kv_len[s] - a->q_len[s] : 0; /* keys before the first query */

    assert(a->q_len[s] >= 1 && a->kv_len[s] >= 1 && n_before >= 0);
    for (int j = 0; j < a->q_len[s]; j++) {
        int64_t row = a->q_start[s] + j;
        int n_keys = a->causal ? n_before + j + 1 : a->kv_len[s];

        for (int h = 0; h < a->n_heads; h++) {
            int64_t column = (int64_t)h * a->head_dim;
            const float *bias = bias_row(a->bias, a->bias_span, h, n_before + j, n_keys);

            attend(a, (const float *)a->q + row * a->ld_q + column, k + column, v + column, bias, n_keys, score,
                   (float *)a->out + row * a->ld_out + column);
        }
    }
}

static int ref_attention(struct ops *o, const struct ops_attention_args *a)
{
    int longest = 1;
    double *score;

    (void)o;
    for (int s = 0; s < a->n_seqs; s++)
        longest = a->kv_len[s] > longest ? a->kv_len[s] : longest;
    score = malloc((size_t)longest * sizeof(*score));
    if (!score)
        return -ENOMEM;
    for (int s = 0; s < a->n_seqs; s++)
        attend_sequence(a, s, score);
    free(score);
    return 0;
}

static int64_t decode_key_row(const struct ops_decode_attention_args *a, int r, int j)
{
    return j < a->prefix_len[r] ? a->prefix_start[r] + j : a->tail[a->tail_start[r] + j - a->prefix_len[r]];
}

/* Gathers the keys and values of a row in order; the rest is attention with one query. */
static int ref_decode_attention(struct ops *o, const struct ops_decode_attention_args *a)
{
    int64_t width = (int64_t)a->n_heads * a->head_dim;
    int rc = 0;

    for (int r = 0; rc == 0 && r < a->n_rows; r++) {
        int32_t n_keys = a->prefix_len[r] + a->tail_len[r], zero = 0, one = 1;
        float *k = malloc((size_t)(2 * n_keys * width) * sizeof(*k)), *v;

        assert(a->prefix_len[r] >= 0 && a->tail_len[r] >= 0 && n_keys >= 1);
        if (!k)
            return -ENOMEM;
        v = k + n_keys * width;
        for (int j = 0; j < n_keys; j++) {
            int64_t from = decode_key_row(a, r, j) * a->ld_kv;

            memcpy(k + j * width, (const float *)a->k + from, (size_t)width * sizeof(float));
            memcpy(v + j * width, (const float *)a->v + from, (size_t)width * sizeof(float));
        }
        rc = ref_attention(o, &(struct ops_attention_args){.n_seqs = 1,
                                                           .n_heads = a->n_heads,
                                                           .head_dim = a->head_dim,
                                                           .scale = a->scale,
                                                           .causal = true,
                                                           .q = (const float *)a->q + r * a->ld_q,
                                                           .k = k,
                                                           .v = v,
                                                           .ld_q = a->ld_q,
                                                           .ld_k = width,
                                                           .ld_v = width,
                                                           .q_start = &zero,
                                                           .q_len = &one,
                                                           .kv_start = &zero,
                                                           .kv_len = &n_keys,
                                                           .bias = a->bias,
                                                           .bias_span = a->bias_span,
                                                           .out = (float *)a->out + r * a->ld_out,
                                                           .ld_out = a->ld_out});
        free(k);
    }
    return rc;
}

static int ref_gate(struct ops *o, const struct ops_gate_args *a)
{
    (void)o;
    for (int64_t r = 0; r < a->n_rows; r++) {
        const float *x = (const float *)a->x + r * a->ld_x;
        float *y = (float *)a->y + r * a->ld_y;

        for (int64_t i = 0; i < a->width; i++)
            y[i] = (float)(activate(a->act, x[i]) * x[a->width + i]);
    }
    return 0;
}

static int ref_rows_copy(struct ops *o, const struct ops_rows_args *a)
{
    (void)o;
    for (int64_t i = 0; i < a->n_rows; i++) {
        int64_t from = a->src_index ? a->src_index[i] : i, to = a->dst_index ? a->dst_index[i] : i;

        memcpy((float *)a->dst + to * a->ld_dst, (const float *)a->src + from * a->ld_src,
               (size_t)a->width * sizeof(float));
    }
    return 0;
}

static int ref_patchify(struct ops *o, const struct ops_patchify_args *a)
{
    int64_t size = a->image_size, p = a->patch_size, grid;
    float *y = a->y;

    (void)o;
    assert(p >= 1 && size >= p && size % p == 0);
    grid = size / p;
    for (int64_t patch = 0; patch < a->n_images * grid * grid; patch++) {
        int64_t b = patch / (grid * grid), py = patch / grid % grid, px = patch % grid;

        for (int c = 0; c < 3; c++)
            for (int64_t i = 0; i < p; i++)
                for (int64_t j = 0; j < p; j++) {
                    uint8_t u = a->rgb[((b * size + py * p + i) * size + px * p + j) * 3 + c];

                    *y++ = (float)(((double)u * a->rescale - a->mean[c]) / a->std[c]);
                }
    }
    return 0;
}

static int ref_vit_embed(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                         const struct ops_vector *cls, const struct ops_vector *pos, void *y)
{
    const float *patch = patches;
    float *out = y;

    (void)o;
    assert(cls->n == width && pos->n == n_tokens * width);
    for (int64_t b = 0; b < n_images; b++)
        for (int64_t t = 0; t < n_tokens; t++) {
            const float *from = t == 0 ? cls->values : patch + (b * (n_tokens - 1) + t - 1) * width;

            for (int64_t c = 0; c < width; c++)
                *out++ = from[c] + pos->values[t * width + c];
        }
    return 0;
}

static int ref_embed(struct ops *o, const struct ops_table *t, int64_t n_rows, const int32_t *index,
                     const int32_t *dst_index, bool add, void *y, int64_t ld_y)
{
    float *row = malloc((size_t)t->width * sizeof(*row));

    (void)o;
    if (!row)
        return -ENOMEM;
    for (int64_t i = 0; i < n_rows; i++) {
        float *to = (float *)y + (dst_index ? dst_index[i] : i) * ld_y;

        assert(index[i] >= 0 && index[i] < t->tensor.shape[0]);
        tensor_row_to_f32(&t->tensor, index[i], row);
        for (int64_t c = 0; c < t->width; c++)
            to[c] = add ? to[c] + row[c] : row[c];
    }
    free(row);
    return 0;
}

static int ref_sample(struct ops *o, const struct ops_sample_args *a)
{
    (void)o;
    assert(a->vocab >= 1 && a->vocab <= a->ld);
    for (int64_t r = 0; r < a->n_rows; r++) {
        int rc = sampler_run(&a->rows[r], a->logits + r * a->ld, a->vocab);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static const struct ops_funcs ref_funcs = {
    .name = "ref",
    .free = ref_free,
    .alloc = host_alloc,
    .release = host_release,
    .upload = host_convert,
    .upload_begin = host_upload_begin,
    .upload_end = host_sync,
    .download = host_convert,
    .download_start = host_download_start,
    .download_wait = host_download_wait,
    .sync = host_sync,
    .weight_new = ref_weight_new,
    .weight_free = ref_weight_free,
    .vector_new = host_vector_new,
    .vector_free = host_vector_free,
    .table_new = host_table_new,
    .table_free = host_table_free,
    .linear = ref_linear,
    .norm = ref_norm,
    .attention = ref_attention,
    .decode_attention = ref_decode_attention,
    .gate = ref_gate,
    .rows_copy = ref_rows_copy,
    .patchify = ref_patchify,
    .vit_embed = ref_vit_embed,
    .embed = ref_embed,
    .sample = ref_sample,
};

int ops_ref_new(struct ops **ret, struct err *err)
{
    struct ops *o = malloc(sizeof(*o));

    if (!o)
        return err_set(err, -ENOMEM, "operators: out of memory");
    *o = (struct ops){.f = &ref_funcs, .act_dtype = DTYPE_F32};
    *ret = o;
    return 0;
}
