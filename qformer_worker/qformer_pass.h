/* qformer_pass.h - a forward pass of rows through the Q-Former's layers: queries, texts, or pairs of both.
 *
 * x holds the rows of a pass in two blocks, all query rows, then all text rows, so that each kind is one product with
 * its own feed-forward. Self-attention sees a pair's query and text keys together, so a mixed pass copies them next to
 * each other.
 * Who may call: qformer_worker/qformer*.c.
 * Units:  letters as in MODEL.md; rows of E elements of act_dtype in device memory, index arrays on the host.
 * Memory: struct qformer owns everything; struct qformer_pass borrows its arrays.
 * Errors: those of the operators. */
#ifndef BLIPLINE_QFORMER_WORKER_QFORMER_PASS_H
#define BLIPLINE_QFORMER_WORKER_QFORMER_PASS_H

#include "model/config.h"
#include "qformer_worker/qformer_weights.h"

#include <stdbool.h>
#include <stdint.h>

/* A pass with text has a multiple of this many rows. The CPU back end creates a primitive for each number of rows
 * and caches about a hundred; without the rounding, creating them took 6 % of a pass over four images' texts. */
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
    int n_cross;                         /* layers with cross-attention */
    struct ops_weight *projection;       /* [L, E]; NULL without a language model */
    struct ops_table *words, *positions; /* these and the rest: NULL without text */
    struct params_norm embedding_norm;
    struct ops_weight *vision_projection, *text_projection; /* [d, E] */
    struct ops_weight *itm_head;                            /* [2, E] */

    /* views of one slab, act_dtype unless noted */
    void *slab;
    void *queries;     /* [Q, E] input of every pass */
    void *queries_qkv; /* [Q, 3E] of the first layer */
    void *attended;    /* [Q, E] after the first layer's self-attention of the queries alone */
    void *image;       /* [max_batch * P, C] the loaded images after post_layernorm */
    void *image_kv;    /* [n_cross, max_batch * P, 2E] their keys and values; without text only one layer at a time */
    void *x;           /* [max_rows, E] */
    void *h;           /* [max_rows, E] */
    void *pair_kv;     /* [max_rows, 2E] keys and values of a mixed pass, pair by pair */
    void *wide;        /* [max_rows, max(3E, F, L)], at least max_batch * C elements */
    float *heads;      /* f32 [max_rows, max(d, 2)] */
    int64_t max_rows;  /* R, a multiple of QFORMER_ROW_STEP */

    uint64_t graph_number; /* params_graph_key */
    int n_input;           /* images of the last qformer_input; 0: none */
    int n_loaded;          /* images in `image` */
    int n_kv_ready;        /* layers of image_kv computed for them; 0 without text */

    int32_t *index;       /* owns the arrays below */
    int32_t *query_index; /* [max_rows] 0 .. Q-1 repeated: the query of each query row */
    int32_t *kv_row;      /* [max_rows] the row of pair_kv for each row of x */
    int32_t *position;    /* [max_rows] position of each text row in its text */
    struct qformer_seqs self, image_seqs;
    float *host; /* [max_rows, 2] ITM logits of each query row */
};

struct qformer_pass {
    int n; /* images, texts, or pairs */
    int64_t query_rows, text_rows;
    const struct qformer_seqs *self;  /* in a mixed pass: n sequences of queries, then n of texts */
    const struct qformer_seqs *image; /* query rows over image rows; unused without query rows */
};

/* Runs all layers over the rows in q->x. Result in q->x: all query rows, or, without queries, the first row of each
 * text ([n, E]). On entry the query rows hold q->attended (which includes the first layer's self-attention), or
 * q->queries in a mixed pass. */
int qformer_pass_run(struct qformer *q, const struct qformer_pass *p) CHECK_RESULT;
/* Self-attention of one layer in a pass of only queries or only texts. */
int qformer_pass_attend(struct qformer *q, const struct qformer_layer *l, const struct qformer_pass *p) CHECK_RESULT;

/* `base` + n elements of act_dtype */
void *qformer_at(const struct qformer *q, const void *base, int64_t n);
void qformer_seqs_add(struct qformer_seqs *s, int64_t q_start, int64_t q_len, int64_t kv_start, int64_t kv_len);
/* Fills x [n_rows, E] with q->queries or q->attended, repeated for each image or pair. */
int qformer_start(struct qformer *q, const void *queries, int64_t n_rows) CHECK_RESULT;
/* ret [n_rows, n] = x [n_rows, E] times a head, as f32 on the host. */
int qformer_head(struct qformer *q, const struct ops_weight *w, int64_t n_rows, int64_t n, float *ret) CHECK_RESULT;
/* Each of n_rows rows / its length, as torch.nn.functional.normalize does. */
void qformer_normalise(float *rows, int64_t n_rows, int64_t width);

#endif
