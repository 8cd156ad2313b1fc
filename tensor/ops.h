/* ops.h - the operators BLIP-2 is made of, once for every back end.
 *
 * The graph of each model (vit, qformer, opt, t5) is written once over this table. ops_cpu_new (oneDNN), ops_ref_new
 * (plain loops, the definition) and the CUDA operators (tensor/cuda/, a shared object that device_open loads) fill
 * every entry.
 *
 * Who may call: one thread per struct ops (the compute thread); the back end spreads work over its own threads.
 * Layout: row-major; a "row" is one token of one image or sequence, `ld_*` is the distance between rows in elements.
 *         Activations are `act_dtype` in device memory (for CPU back ends: host memory). Norm parameters and logits are
 *         f32, index arrays host int32_t. Letters as in MODEL.md: B batch, P patches+1, C width, H heads, D head width,
 *         V vocabulary.
 * Order:  calls take effect in order. A call may return before its work is done (asynchronous device); download(),
 *         download_wait(), sample() and sync() wait for it. Host memory given to a call is the caller's again when the
 *         call returns, except where its contract says otherwise.
 * Memory: device buffers come from alloc() and are the caller's; weights, vectors and tables belong to whoever made
 * them. Nothing here allocates in steady state: scratch grows to the largest shape seen.
 * NaN and infinities that come in, or that sums overflow to, are seen in each row of the result that depends on them:
 * no operator turns them into a number that only looks right. (A key whose score is -inf is not looked at, though.)
 * Errors: 0 or a negative errno; -EIO after a device error is sticky, `why` says what the device said, and the process
 * should end. Shapes are our own, so wrong ones are our bug (assert); everything a checkpoint can get wrong is checked
 * by model/ and the graphs before. */
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

/* weight_new: where the operators have `fp8`, this matrix may be rounded to it (e4m3, a scale for each row of it). */
enum { OPS_WEIGHT_FP8 = 1 };

/* Several matrices of the same K stacked by rows become one product (q, k, v). bias may be NULL for all parts or given
 * for all. */
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
    const struct ops_vector *gamma,
        *beta; /* beta NULL: RMS norm (no mean, no bias): x / sqrt(mean(x^2) + eps) * gamma */
    float eps;
    /* Set: the next linear() with this weight and x = y (all rows, dense) is the only one that reads y, so that a back
     * end may leave y in a form that this product alone understands. */
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
    const float
        *bias; /* device f32 [H, 2 * bias_span - 1], added to the score at [h, key - query + bias_span - 1], where
                          query is the query's position among the keys (kv_len - q_len + j when causal, else j); NULL:
                          none. bias_span covers the longest sequence */
    int64_t bias_span;
    void *out;
    int64_t ld_out;
};

/* Attention of single new tokens over what was said before. Row r of q sees the keys and values of the cache rows
 * prefix_start[r] .. +prefix_len[r] (its prompt, shared by all beams of an image), then those of the rows
 * tail[tail_start[r]] .. +tail_len[r], its ancestors in order. Rows with the same prefix follow one another, so that
 * a back end may read it once. n_keys = prefix_len + tail_len >= 1. */
struct ops_decode_attention_args {
    int n_rows, n_heads, head_dim;
    float scale;
    const void *q;
    int64_t ld_q;
    const void *k, *v;
    int64_t ld_kv;
    const int32_t *prefix_start, *prefix_len;    /* host [n_rows] */
    const int32_t *tail, *tail_start, *tail_len; /* host; tail_start and tail_len [n_rows] */
    const float *bias;                           /* as above; the query's position is n_keys - 1; NULL: none */
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

/* From logits to tokens, as transformers' generate does it (MODEL.md "Decoding"). Order: log-softmax if asked for, the
 * repetition penalty (score < 0 ? score * p : score / p, each id of `seen` once), banned ids -> -inf; then the n_best
 * largest values, the lowest id first on ties. With `sample`: / temperature, top_k (0: off), top_p (1: off; the
 * smallest set whose probability reaches it, at least one id), softmax, and the first id, in the order of ids, at which
 * the sum of probabilities passes `uniform`. */
struct ops_sample_row {
    bool log_softmax; /* beams sum these */
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
    float *ret_values;   /* host [n_best]: processed values; sampling: the probability of the one drawn */
    float *ret_logprobs; /* host [n_best]: log-softmax of the unprocessed logits there */
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
    float mean[3], std[3],
        rescale; /* value = (u8 * rescale - mean) / std, computed as a float table of 256 entries per channel */
    void *y;     /* [B * (S/p)^2, 3*p*p] */
};

enum { OPS_MAX_DOWNLOADS = 8 };

struct ops_funcs {
    const char *name; /* "cpu", "ref", "cuda" */
    void (*free)(struct ops *o);

    int (*alloc)(struct ops *o, size_t bytes, void **ret); /* 64-byte aligned, contents undefined */
    void (*release)(struct ops *o, void *p);               /* NULL is fine */
    /* n values host -> device. The types are F32, F16 or BF16; on the device act_dtype or F32 (biases, logits). */
    int (*upload)(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n);
    /* The same without a copy in between: *ret_host is host memory for n values of act_dtype, which the caller fills
     * and upload_end sends to dst. One at a time; no other call between the two. On the CPU *ret_host is dst. */
    int (*upload_begin)(struct ops *o, void *dst, size_t n, void **ret_host);
    int (*upload_end)(struct ops *o);
    /* n values device -> host, and wait for them. */
    int (*download)(struct ops *o, void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n);
    /* The same type on both sides, and no waiting: src may be overwritten by later calls, dst (host) is the caller's
     * again after download_wait with this or a later ticket. At most OPS_MAX_DOWNLOADS are under way. */
    int (*download_start)(struct ops *o, void *dst, const void *src, enum dtype dtype, size_t n, uint64_t *ret_ticket);
    int (*download_wait)(struct ops *o, uint64_t ticket);
    int (*sync)(struct ops *o);

    /* A graph: the calls between graph_begin and graph_end. A back end may capture it once and launch it as a whole
     * whenever the key comes again. So the calls of a key must be the same every time: the same operators in the same
     * order with the same pointers, shapes and flags. Only the contents of device memory and of host index arrays may
     * differ; an array must not change before graph_end. The longest lengths of ragged attention (of a tail: rounded up
     * to a power of two) are part of the key. alloc, upload, download, sample and patchify must not be called within.
     * NULL: this back end captures nothing (use ops_graph_begin). -EAGAIN of a call within, or of graph_end: the graph
     * could not be captured and nothing of it has run. Make the same calls again: they will run one by one. */
    int (*graph_begin)(struct ops *o, uint64_t key);
    int (*graph_end)(struct ops *o);
    /* Bytes of device memory that this process may still take, and that the device has. NULL: host memory, no
     * answer. */
    int (*memory)(struct ops *o, size_t *ret_free_bytes, size_t *ret_total_bytes);

    /* flags: OPS_WEIGHT_*. */
    int (*weight_new)(struct ops *o, const struct ops_weight_part *parts, int n_parts, unsigned flags,
                      struct ops_weight **ret, struct err *err);
    void (*weight_free)(struct ops *o, struct ops_weight *w);
    int (*vector_new)(struct ops *o, const struct tensor *t, struct ops_vector **ret, struct err *err);
    void (*vector_free)(struct ops *o, struct ops_vector *v);
    /* t: host [rows, width], stays mapped as long as the table lives. */
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
    /* Results to HOST arrays (synchronises). -EDOM: a logit of a row is not finite, or nothing finite is left to choose
     * there. Which rows are filled in then is not defined. */
    int (*sample)(struct ops *o, const struct ops_sample_args *a);
};

struct ops {
    const struct ops_funcs *f;
    enum dtype act_dtype;
    bool fp8;       /* matrices with OPS_WEIGHT_FP8 and what is multiplied with them are rounded to e4m3 */
    struct err why; /* text after -EIO: what the device said */
    /* Called before every product of a graph (model/params.h): a pass over a large batch takes longer than a lease.
     * NULL: nobody wants to know. */
    void (*alive)(void *arg);
    void *alive_arg;
};

/* n_threads >= 1. act_dtype F32 (BF16 where the CPU has it: -ENOTSUP naming the missing ISA otherwise). isa: a level
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
