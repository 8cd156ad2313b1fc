/* lm_private.h - shared by lm.c and the graphs of the language models.
 *
 * lm.c handles limits, memory and the index arrays of a pass; lm_opt.c and lm_t5.c the weights and operators.
 * Who may call: lm.c, lm_opt.c, lm_t5.c.
 * Units:  rows of `x`, `h`, `wide` are dense, act_dtype; a row of the cache holds 2 * n_heads * head_dim values, keys
 *         first, in each of n_kv_layers layers.
 * Memory: `lm_graph.load` allocates m->weights; `lm_graph.release` frees it, also after a failed load.
 * Errors: as in lm.h. */
#ifndef BLIPLINE_LLM_WORKER_LM_PRIVATE_H
#define BLIPLINE_LLM_WORKER_LM_PRIVATE_H

#include "llm_worker/lm.h"
#include "model/config.h"
#include "model/params.h"

/* The sizes that lm.c allocates for. */
struct lm_shape {
    int width, vocab_size; /* L, V */
    int n_heads, head_dim; /* of a row of the cache */
    int n_kv_layers;
    int64_t wide; /* columns of `wide` */
    int start_rows;
    int max_prefix, max_tail; /* most rows of a prompt and of a tail */
};

/* Counts of the rows added to x so far. */
struct lm_rows {
    int64_t n_rows;
    int64_t n_ids; /* of them, rows from the embedding */
    int n_decode;  /* entries of the decode_attention arrays */
};

struct lm_graph {
    struct lm_shape (*shape)(const struct config *c);
    int (*load)(struct lm *m, const struct params *p);
    void (*release)(struct lm *m);
    /* -E2BIG: more positions than the model has. */
    int (*check_positions)(const struct lm *m, int64_t n_prompt, int64_t n_new, struct err *err);
    int (*forward)(struct lm *m, int n_starts, const struct lm_start *starts, int n_tokens,
                   const struct lm_token *tokens);
};
extern const struct lm_graph lm_opt_graph, lm_t5_graph;

struct lm {
    const struct lm_graph *graph;
    struct ops *o;
    uint64_t graph_number; /* params_graph_key */
    struct lm_limits limits;
    struct lm_shape shape;
    int32_t start_id; /* -1: none */
    void *weights;    /* the graph's own */

    struct ops_table *embedding; /* [V, L] */
    struct params_norm final_norm;
    struct ops_weight *head; /* [V, L] */

    void *kv; /* [n_kv_layers][n_kv_rows, 2 * n_heads * head_dim] */
    size_t kv_layer_bytes;

    /* views of one slab, act_dtype */
    void *slab;
    void *x;       /* [max_rows, L] the residual stream */
    void *h;       /* [max_rows, max(L, n_heads * head_dim)] */
    void *wide;    /* [max_rows, shape.wide] */
    void *last;    /* [n_sequences, L] the rows for the head */
    float *logits; /* [n_sequences, V] */

    /* Host index arrays of the pass being built: views of one block. */
    int32_t *index;
    int32_t *id, *id_row, *kv_row, *position;  /* [max_rows] */
    int32_t *start_row, *start_len, *start_kv; /* [n_sequences] the starts' rows of x and of the cache */
    int32_t *prefix_start, *prefix_len;        /* [n_sequences] decode_attention's */
    int32_t *tail_start, *tail_len, *none;     /* [n_sequences]; none: zeros */
    int32_t *last_row;                         /* [n_sequences] */
    int32_t *tail;                             /* [n_sequences * max_tail] */
};

/* Width of a key or a value: n_heads * head_dim. */
int64_t lm_inner(const struct lm *m);
/* Keys of a layer; its values are lm_inner() elements further on in each row. */
void *lm_kv_layer(const struct lm *m, int layer);
/* Element `column` of row `row` of dense rows of act_dtype. */
void *lm_at(const struct lm *m, const void *rows, int64_t row, int64_t width, int64_t column);

/* Adds the rows of start number `s`: image rows, then ids; positions from 0. */
void lm_lay_start(struct lm *m, struct lm_rows *rows, int s, const struct lm_start *start);
/* Adds the row of one new token, which sees a prefix and its tail and writes the tail's last row of the cache. */
void lm_lay_token(struct lm *m, struct lm_rows *rows, const struct lm_token *token);

/* Called before and after the operators of a forward pass. Without starts the calls depend only on the number of
 * sequences, so they form a graph that can be captured. Call lm_forward_end after an error too; it returns rc. */
int lm_forward_begin(struct lm *m, const struct lm_rows *rows, int n_starts) CHECK_RESULT;
int lm_forward_end(struct lm *m, int n_starts, int rc) CHECK_RESULT;

/* x = embeddings of the added ids, and the image rows of the starts, which come first (n_starts 0: none). */
int lm_embed(struct lm *m, const struct lm_rows *rows, int n_starts, const struct lm_start *starts) CHECK_RESULT;
/* Copies keys and values of n_rows rows, at `column` of `wide` (row stride `ld`), to the cache's kv_row. */
int lm_store_kv(struct lm *m, int layer, int64_t n_rows, int64_t column, int64_t ld) CHECK_RESULT;
/* Rows last_row[0 .. n) of x -> final norm, if any -> logits. */
int lm_run_head(struct lm *m, int n, float eps) CHECK_RESULT;

#endif
