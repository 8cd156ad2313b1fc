/* qformer.h - the Q-Former: learned queries look at an image's trunk features (MODEL.md "Q-Former").
 *
 * Who may call: the compute thread that owns `ops`.
 * Units:  P tokens of width C an image come in; Q queries of width E and, after language_projection, of width L go
 *         out. Host arrays are f32, row-major.
 * Memory: everything is allocated by qformer_new for max_batch images; host arrays are the caller's. The checkpoint is
 *         read by qformer_new only; its source pages are dropped after packing.
 * Errors: 0 or a negative errno. qformer_new: -EINVAL/-ENOENT/-ENOTSUP naming the key or tensor, -ENOMEM. */
#ifndef BLIPLINE_QFORMER_WORKER_QFORMER_H
#define BLIPLINE_QFORMER_WORKER_QFORMER_H

#include "base/err.h"

#include <stdbool.h>

struct checkpoint;
struct ops;
struct qformer;

int qformer_new(struct ops *o, const struct checkpoint *c, int max_batch, struct qformer **ret,
                struct err *err) CHECK_RESULT;
void qformer_free(struct qformer *q);

int qformer_n_tokens(const struct qformer *q);       /* P expected of the encoder */
int qformer_image_width(const struct qformer *q);    /* C expected of the encoder */
int qformer_n_queries(const struct qformer *q);      /* Q */
int qformer_width(const struct qformer *q);          /* E */
int qformer_language_width(const struct qformer *q); /* L; 0: the checkpoint has no language model */
int qformer_max_batch(const struct qformer *q);

/* trunk: [n, P, C] before post_layernorm, 1 <= n <= max_batch. ret_queries [n, Q, E] and ret_projected [n, Q, L] are
 * filled; either may be NULL when it is not wanted. */
int qformer_forward(struct qformer *q, int n, const float *trunk, float *ret_queries,
                    float *ret_projected) CHECK_RESULT;
/* The same from features that post_layernorm has been applied to (golden data). */
int qformer_forward_normed(struct qformer *q, int n, const float *features, float *ret_queries,
                           float *ret_projected) CHECK_RESULT;
/* post_layernorm alone: trunk [n, P, C] -> ret [n, P, C]. */
int qformer_post_norm(struct qformer *q, int n, const float *trunk, float *ret) CHECK_RESULT;

#endif
