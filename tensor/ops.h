/* ops.h - the operators of BLIP-2; one interface for every back end.
 *
 * Each model's graph (vit, qformer, opt, t5) is written once against struct ops_funcs. ops_cpu_new (oneDNN),
 * ops_ref_new (plain loops, the definition) and the CUDA operators (tensor/cuda/, a shared object that device_open
 * loads) implement it.
 *
 * Who may call: one thread per struct ops (the compute thread); the back end spreads work over its own threads.
 * Layout: row-major. A "row" is one token of one image or sequence; `ld_*` is the row stride in elements. Activations
 *         are `act_dtype` in device memory (for CPU back ends: host memory). Norm parameters and logits are f32, index
 *         arrays host int32_t. Letters as in MODEL.md: B batch, P patches+1, C width, H heads, D head width, V
 *         vocabulary.
 * Order:  calls take effect in order. A call may return before its work is done (asynchronous device); download(),
 *         download_wait(), sample() and sync() wait for it. The caller may reuse host memory when the call returns,
 *         unless the contract says otherwise.
 * Memory: the caller owns device buffers from alloc() and the weights, vectors and tables it made. Scratch grows to the
 *         largest shape seen; nothing allocates in steady state.
 * NaN:    NaN and infinities in the inputs, or from overflow, reach each result row that depends on them; no operator
 *         turns them into a finite number. (A key with score -inf is masked as usual.)
 * Errors: 0 or a negative errno. -EIO (device error) is sticky: `why` has the device's message and the process should
 *         end. Wrong shapes are bugs (assert); model/ and the graphs have checked the checkpoint before. */
#ifndef BLIPLINE_TENSOR_OPS_H
#define BLIPLINE_TENSOR_OPS_H

#include "base/err.h"
#include "tensor/cpu_isa.h"
#include "tensor/tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ops;
struct ops_weight; /* a packed matrix [N, K] with optional bias [N] */
struct ops_vector; /* f32 parameters (norms, biases, class token) */
struct ops_table;  /* rows looked up by index: embeddings; on the CPU read in place from the checkpoint's mmap */

enum ops_act { OPS_ACT_NONE = 0, OPS_ACT_RELU, OPS_ACT_GELU_ERF, OPS_ACT_GELU_TANH };

/* weight_new: with ops.fp8, this matrix may be rounded to e4m3 with one scale per row. */
enum { OPS_WEIGHT_FP8 = 1 };

/* Matrices with the same K are stacked by rows into one product (q, k, v). All parts have a bias or none has. */
struct ops_weight_part {
    const struct tensor *weight; /* host [N_i, K], F32/F16/BF16 */
    const struct tensor *bias;   /* host [N_i] or NULL */
};

/* y[m, n] = act(sum_k x[m, k] * w[n, k] + bias[n]) + residual[m, n] */
struct ops_linear_args {
    const struct ops_weight *weight;
    int64_t n_rows;
    const void *x;
    int64_t ld_x;
    void *y; /* act_dtype, or f32 when y_f32; may be the same memory as residual (same ld), never as x */
    int64_t ld_y;
    bool y_f32; /* logits */
    enum ops_act act;
    const void *residual; /* NULL: none; act_dtype */
    int64_t ld_residual;
};

/* y = (x - mean) / sqrt(var + eps) * gamma + beta per row of `width` (biased variance). y may alias x. */
struct ops_norm_args {
    int64_t n_rows;
    int64_t width;
    const void *x;
    int64_t ld_x;
    void *y;
    int64_t ld_y;
    const struct ops_vector *gamma;
    const struct ops_vector *beta; /* NULL: RMS norm (no mean, no bias): x / sqrt(mean(x^2) + eps) * gamma */
    float eps;
    /* If set: only the next linear(), with this weight and x = y (all rows, dense), reads y, so the back end may
     * leave y in a private format for it. */
    const struct ops_weight *consumer;
};

/* Ragged attention over n_seqs sequences: sequence s has query rows q_start[s] .. +q_len[s] of q and key/value rows
 * kv_start[s] .. +kv_len[s] of k and v. Head h uses columns h*D .. h*D+D-1 of each row. out[row, h*D..] = softmax(scale
 * * q.k + bias) v. causal: query j of the sequence sees keys 0 .. kv_len - q_len + j. */
struct ops_attention_args {
    int n_seqs, n_heads, head_dim;
    float scale;
    bool causal;
    const void *q, *k, *v;
    int64_t ld_q, ld_k, ld_v;
    const int32_t *q_start, *q_len, *kv_start, *kv_len; /* host; kv_len[s] >= 1, q_len[s] >= 1 */
    /* Device f32 [H, 2 * bias_span - 1], or NULL. The score of (query, key) gets bias[h, key - query + bias_span - 1],
     * where query is the query's position among the keys (causal: kv_len - q_len + j, else j). bias_span covers the
     * longest sequence. */
    const float *bias;
    int64_t bias_span;
    void *out;
    int64_t ld_out;
};

/* Attention of single new tokens over earlier ones. Row r of q sees the keys and values of the cache rows
 * prefix_start[r] .. +prefix_len[r] (its prompt, shared by all beams of an image), then those of the rows
 * tail[tail_start[r]] .. +tail_len[r], its ancestors in order. Rows with the same prefix are adjacent, so that a
 * back end can read it once. n_keys = prefix_len + tail_len >= 1. */
struct ops_decode_attention_args {
    int n_rows, n_heads, head_dim;
    float scale;
    const void *q;
    int64_t ld_q;
    const void *k, *v;
    int64_t ld_kv;
    const int32_t *prefix_start, *prefix_len;    /* host [n_rows] */
    const int32_t *tail, *tail_start, *tail_len; /* host; tail_start and tail_len [n_rows] */
    const float *bias;                           /* as in ops_attention_args, query position n_keys - 1 */
    int64_t bias_span;
    void *out;
    int64_t ld_out;
};

/* y[r, i] = act(x[r, i]) * x[r, width + i]: the gated feed-forward of T5. y may be x with the same ld. */
struct ops_gate_args {
    int64_t n_rows, width;
    enum ops_act act;
    const void *x;
    int64_t ld_x;
    void *y;
    int64_t ld_y;
};

/* From logits to tokens, as in transformers' generate (MODEL.md "Decoding"). Order: log-softmax if asked for, the
 * repetition penalty (score < 0 ? score * p : score / p, each id of `seen` once), banned ids -> -inf; then the
 * n_best largest values, the lowest id first on ties. With `sample`: / temperature, top_k (0: off), top_p (1: off;
 * the smallest set whose probability reaches it, at least one id), softmax, and the first id, in ascending order, at
 * which the cumulative probability exceeds `uniform`. */
struct ops_sample_row {
    bool log_softmax; /* beam search adds these up */
    bool sample;
    int n_best; /* 1 .. vocab; 1 when sampling */
    float repetition_penalty;
    const int32_t *seen; /* host, distinct */
    int n_seen;
    const int32_t *banned; /* host */
    int n_banned;
    float temperature, top_p, uniform; /* uniform: 0 <= u < 1 */
    int top_k;
    int32_t *ret_ids;    /* host [n_best] */
    float *ret_values;   /* host [n_best]: processed scores; when sampling: the probability of the drawn id */
    float *ret_logprobs; /* host [n_best]: log-softmax of the raw logits at ret_ids */
};
struct ops_sample_args {
    int64_t n_rows, vocab;
    const float *logits; /* device f32 [n_rows, ld] */
    int64_t ld;
    const struct ops_sample_row *rows; /* host [n_rows] */
};

/* For i in 0 .. n_rows-1: dst row (dst_index ? dst_index[i] : i) = src row (src_index ? src_index[i] : i), `width`
 * elements of act_dtype. */
struct ops_rows_args {
    int64_t n_rows, width;
    const void *src;
    int64_t ld_src;
    const int32_t *src_index; /* host */
    void *dst;
    int64_t ld_dst;
    const int32_t *dst_index; /* host */
};

/* uint8 pixels -> the rows of the patch product: y[(b, py, px), (c, i, j)] = rgb[b, py*p+i, px*p+j, c] * scale[c] +
 * shift[c] */
struct ops_patchify_args {
    int64_t n_images;
    int image_size, patch_size;
    const uint8_t *rgb; /* HOST [B, S, S, 3] */
    /* value = (u8 * rescale - mean) / std, from a float table of 256 entries per channel */
    float mean[3], std[3], rescale;
    void *y; /* [B * (S/p)^2, 3*p*p] */
};

enum { OPS_MAX_DOWNLOADS = 8 };

struct ops_funcs {
    const char *name; /* "cpu", "ref", "cuda" */
    void (*free)(struct ops *o);

    int (*alloc)(struct ops *o, size_t bytes, void **ret); /* 64-byte aligned, contents undefined */
    void (*release)(struct ops *o, void *p);               /* NULL is fine */
    /* n values host -> device. The types are F32, F16 or BF16; on the device act_dtype or F32 (biases, logits). */
    int (*upload)(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n);
    /* upload without an intermediate copy: the caller fills *ret_host with n values of act_dtype, and upload_end
     * sends them to dst. No other call may come between the two. On the CPU *ret_host is dst. */
    int (*upload_begin)(struct ops *o, void *dst, size_t n, void **ret_host);
    int (*upload_end)(struct ops *o);
    /* n values device -> host; waits for them. */
    int (*download)(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n);
    /* Asynchronous download without conversion. Later calls may overwrite src; dst is complete after download_wait
     * with this or a later ticket. At most OPS_MAX_DOWNLOADS may be pending. */
    int (*download_start)(struct ops *o, void *dst, const void *src, enum dtype dtype, size_t n, uint64_t *ret_ticket);
    int (*download_wait)(struct ops *o, uint64_t ticket);
    int (*sync)(struct ops *o);

    /* A graph is the calls between graph_begin and graph_end. A back end may capture it once and launch the captured
     * graph when the key is used again. So a key must stand for the same calls every time: the same operators in the
     * same order with the same pointers, shapes and flags. Only the contents of device memory and of host index
     * arrays may differ; an array must not change before graph_end. The key must include the longest lengths of
     * ragged attention (of tails: rounded up to a power of two). alloc, upload, download, sample and patchify are
     * not allowed inside. NULL: this back end captures nothing (call ops_graph_begin). -EAGAIN from a call inside or
     * from graph_end: the capture failed and nothing has run; make the same calls again and they run one by one. */
    int (*graph_begin)(struct ops *o, uint64_t key);
    int (*graph_end)(struct ops *o);
    /* Bytes of device memory that this process may still allocate, and that the device has. NULL for host memory. */
    int (*memory)(struct ops *o, size_t *ret_free_bytes, size_t *ret_total_bytes);

    /* flags: OPS_WEIGHT_*. */
    int (*weight_new)(struct ops *o, const struct ops_weight_part *parts, int n_parts, unsigned flags,
                      struct ops_weight **ret, struct err *err);
    void (*weight_free)(struct ops *o, struct ops_weight *w);
    int (*vector_new)(struct ops *o, const struct tensor *t, struct ops_vector **ret, struct err *err);
    void (*vector_free)(struct ops *o, struct ops_vector *v);
    /* t: host [rows, width]; must stay valid until table_free. */
    int (*table_new)(struct ops *o, const struct tensor *t, struct ops_table **ret, struct err *err);
    void (*table_free)(struct ops *o, struct ops_table *t);

    int (*linear)(struct ops *o, const struct ops_linear_args *a);
    int (*norm)(struct ops *o, const struct ops_norm_args *a);
    int (*attention)(struct ops *o, const struct ops_attention_args *a);
    int (*decode_attention)(struct ops *o, const struct ops_decode_attention_args *a);
    int (*gate)(struct ops *o, const struct ops_gate_args *a);
    int (*rows_copy)(struct ops *o, const struct ops_rows_args *a);
    int (*patchify)(struct ops *o, const struct ops_patchify_args *a);
    /* y[b, 0] = cls + pos[0]; y[b, 1+i] = patches[b, i] + pos[1+i]; y rows are dense [B*P, C]. cls: C values, pos: P*C
     * values. */
    int (*vit_embed)(struct ops *o, int64_t n_images, int64_t n_tokens, int64_t width, const void *patches,
                     const struct ops_vector *cls, const struct ops_vector *pos, void *y);
    /* y[i] = table[index[i]] (add == false) or y[i] += table[index[i]]; y row r = dst_index ? dst_index[i] : i; index
     * is host int32_t, in range. */
    int (*embed)(struct ops *o, const struct ops_table *t, int64_t n_rows, const int32_t *index,
                 const int32_t *dst_index, bool add, void *y, int64_t ld_y);
    /* Writes results to HOST arrays (synchronises). -EDOM: a row has a logit that is not finite, or no id left to
     * choose; the results of all rows are then undefined. */
    int (*sample)(struct ops *o, const struct ops_sample_args *a);
};

struct ops {
    const struct ops_funcs *f;
    enum dtype act_dtype;
    bool fp8;       /* round OPS_WEIGHT_FP8 matrices and their inputs to e4m3 */
    struct err why; /* the device's message after -EIO */
    /* Called before every product (model/params.h), to renew leases during a long forward pass. May be NULL. */
    void (*alive)(void *arg);
    void *alive_arg;
};

/* n_threads >= 1. act_dtype F32 (BF16 where the CPU has it: -ENOTSUP naming the missing ISA otherwise). isa: a set
 * that this machine has. */
int ops_cpu_new(int n_threads, enum dtype act_dtype, enum cpu_isa isa, struct ops **ret, struct err *err) CHECK_RESULT;
int ops_ref_new(struct ops **ret, struct err *err) CHECK_RESULT;
static inline void ops_free(struct ops *o)
{
    if (o)
        o->f->free(o);
}
static inline int ops_graph_begin(struct ops *o, uint64_t key)
{
    return o->f->graph_begin ? o->f->graph_begin(o, key) : 0;
}
static inline int ops_graph_end(struct ops *o)
{
    return o->f->graph_end ? o->f->graph_end(o) : 0;
}

#endif
