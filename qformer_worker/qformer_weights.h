/* qformer_weights.h - the parameters of a Q-Former's layers, loaded from a checkpoint.
 *
 * Who may call: qformer_worker/qformer*.c.
 * Units: letters as in MODEL.md.
 * Memory: a layer owns its parameters, which are freed through the same `ops`; a half-loaded layer can be freed.
 * Errors: those of model/params; err names the tensor. */
#ifndef BLIPLINE_QFORMER_WORKER_QFORMER_WEIGHTS_H
#define BLIPLINE_QFORMER_WORKER_QFORMER_WEIGHTS_H

#include "model/params.h"

/* Dense, residual and LayerNorm: the end of each part of a BERT layer. */
struct qformer_output {
    struct ops_weight *dense;
    struct params_norm norm;
};

struct qformer_feed_forward {
    struct ops_weight *intermediate; /* [F, E] */
    struct qformer_output output;    /* dense [E, F] */
};

struct qformer_layer {
    struct ops_weight *self_qkv; /* [3E, E] */
    struct qformer_output self_out;
    struct ops_weight *cross_query, *cross_kv; /* [E, E], [2E, C]; NULL in layers without cross-attention */
    struct qformer_output cross_out;
    struct qformer_feed_forward query, text; /* for query rows and for text rows; text is empty without has_text */
};

int qformer_layer_load(const struct params *p, const struct config_qformer *s, int i,
                       struct qformer_layer *l) CHECK_RESULT;
void qformer_layer_free(struct ops *o, struct qformer_layer *l);

#endif
