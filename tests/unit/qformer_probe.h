/* qformer_probe.h - parts of the Q-Former's forward pass that only tests and benchmarks call separately.
 *
 * Units, memory, errors: as in qformer_worker/qformer.h. */
#ifndef BLIPLINE_TESTS_UNIT_QFORMER_PROBE_H
#define BLIPLINE_TESTS_UNIT_QFORMER_PROBE_H

#include "qformer_worker/qformer.h"
#include "qformer_worker/qformer_pass.h"
#include "tensor/ops.h"

/* Load n trunks [n, P, C] in act_dtype from device memory (before post_layernorm; they are not changed). Go on with
 * qformer_look or qformer_match. */
static inline int qformer_load_device(struct qformer *q, int n, const void *d_trunk)
{
    int rc;

    q->n_loaded = q->n_kv_ready = 0;
    rc = params_norm_apply(q->o, &q->post_norm, (int64_t)n * q->n_tokens, q->shape.vision_width, q->image_eps, d_trunk,
                           q->image, NULL);
    if (rc == 0)
        q->n_loaded = n;
    return rc;
}

/* post_layernorm alone: trunk [n, P, C] -> ret [n, P, C]. */
static inline int qformer_post_norm(struct qformer *q, int n, const float *trunk, float *ret)
{
    const int64_t values = (int64_t)n * q->n_tokens * q->shape.vision_width;
    int rc = qformer_load(q, n, trunk, false);

    return rc < 0 ? rc : q->o->f->download(q->o, ret, DTYPE_F32, q->image, q->o->act_dtype, (size_t)values);
}

#endif
