/* qformer_pass.h - one run of rows through the Q-Former's layers: queries, texts, or both of a pair side by side.
 *
 * x holds the rows of a pass in two blocks, all query rows and behind them all text rows, so that each kind is one
 * product with its own feed-forward. Self-attention sees a pair's query and text keys together: in a mixed pass they
 * are copied next to one another, which is the only copy.
 * Who may call: qformer_worker/qformer*.c.
 * Units:  letters as in MODEL.md; rows of E elements of act_dtype in device memory, index arrays on the host.
 * Memory: struct qformer owns everything; a pass borrows its arrays.
 * Errors: what the operators give. */
#ifndef BLIPLINE_QFORMER_WORKER_QFORMER_PASS_H
#define BLIPLINE_QFORMER_WORKER_QFORMER_PASS_H

#include "model/config.h"
#include "qformer_worker/qformer_weights.h"

#include <stdbool.h>
#include <stdint.h>

/* Rows of a pass with text are a multiple of this. The cpu back end prepares a product for each number of rows it meets
 * and keeps some hundred: with every number there is, 6 % of a pass over four images' texts went into preparing. */
enum { QFORMER_ROW_STEP = 32 };

/* Ragged attention: sequence i has query rows q_start[i] .. +q_len[i] and key rows kv_start[i] .. +kv_len[i]. */
struct qformer_seqs {
    int n;
    int32_t *q_start, *q_len, *kv_start, *kv_len; /* [max_rows] */
};

struct qformer {
    struct ops *o;
    struct config_qformer shape;
    int n_tokens, n_queries, language_width, embed_width, max_batch;
    float image_eps;

    struct params_norm post_norm; /* the vision model's post_layernorm, trained with this Q-Former */
    struct qformer_layer *layers;
    int n_cross;                         /* layers that look at the image */
    struct ops_weight *projection;       /* [L, E]; NULL without a language model */
    struct ops_table *words, *positions; /* these and the rest: NULL without text */
    struct params_norm embedding_norm;
    struct ops_weight *vision_projection, *text_projection; /* [d, E] */
    struct ops_weight *itm_head;                            /* [2, E] */

    /* views of one slab, act_dtype unless noted */
    void *slab;
    void *queries;     /* [Q, E] as every pass starts with them */
    void *queries_qkv; /* [Q, 3E] of the first layer */
    void *attended;    /* [Q, E] after the self-attention of the first layer among themselves */
    void *image;       /* [max_batch * P, C] the loaded images after post_layernorm */
    void *image_kv;    /* [n_cross, max_batch * P, 2E] their keys and values; without text one layer's at a time */
    void *x;           /* [max_rows, E] */
    void *h;           /* [max_rows, E] */
    void *pair_kv;     /* [max_rows, 2E] keys and values of a mixed pass, pair by pair */
    void *wide;        /* [max_rows, max(3E, F, L)], at least max_batch * C elements */
    float *heads;      /* f32 [max_rows, max(d, 2)] */
    int64_t max_rows;  /* R, a multiple of QFORMER_ROW_STEP */

    uint64_t graph_number; /* params_graph_key */
    int n_input;           /* images that qformer_input has handed memory for; 0: none */
    int n_loaded;          /* images in `image` */
    int n_kv_ready;        /* layers of image_kv that are computed for them; 0 without text */

    int32_t *index;       /* owns the arrays below */
    int32_t *query_index; /* [max_rows] 0 .. Q-1 again and again: which query a query row starts from */
    int32_t *kv_row;      /* [max_rows] row of pair_kv that the keys and values of a row of x are copied to */
    int32_t *position;    /* [max_rows] of text rows in their text */
    struct qformer_seqs self, image_seqs;
    float *host; /* [max_rows, 2] ITM logits of each query row */
};

struct qformer_pass {
    int n; /* images, texts, or pairs */
    int64_t query_rows, text_rows;
    const struct qformer_seqs *self;  /* a mixed pass: n of the queries, then n of the texts */
    const struct qformer_seqs *image; /* query rows to image rows; unused without query rows */
};

/* Rows in q->x -> q->x: all query rows of the last layer, or, in a pass without, the first row of each text
 * ([n, E]). The first layer's self-attention of queries alone is in q->attended, which is what their rows hold then;
 * beside texts they hold q->queries. */
int qformer_pass_run(struct qformer *q, const struct qformer_pass *p) CHECK_RESULT;
/* The self-attention of one layer over all rows of a pass without a mixture. */
int qformer_pass_attend(struct qformer *q, const struct qformer_layer *l, const struct qformer_pass *p) CHECK_RESULT;

/* `base` + n elements of act_dtype */
void *qformer_at(const struct qformer *q, const void *base, int64_t n);
void qformer_seqs_add(struct qformer_seqs *s, int64_t q_start, int64_t q_len, int64_t kv_start, int64_t kv_len);
/* x [n_rows, E] = q->queries or q->attended, once for every image or pair. */
int qformer_start(struct qformer *q, const void *queries, int64_t n_rows) CHECK_RESULT;
/* ret [n_rows, n] = x [n_rows, E] times a head, as f32 on the host. */
int qformer_head(struct qformer *q, const struct ops_weight *w, int64_t n_rows, int64_t n, float *ret) CHECK_RESULT;
/* Each of n_rows rows / its length, as torch's normalize does it. */
void qformer_normalise(float *rows, int64_t n_rows, int64_t width);

#endif
