/* vit.h - BLIP-2's vision transformer: pixels in, trunk features out (before post_layernorm; MODEL.md "Vision").
 *
 * Who may call: the compute thread that owns `ops`.
 * Units:  n images of S x S pixels give [n, P, C] rows, P = (S / patch)^2 + 1 with the class token first, C the width;
 *         act_dtype of `ops`, device memory.
 * Memory: everything is allocated by vit_new: the packed weights and one slab of
 *         max_batch * P * (2 C + max(3 C, F, 3 patch^2)) activations (F: width of the MLP). The checkpoint is read
 *         by vit_new only; its source pages are dropped after packing.
 * Errors: 0 or a negative errno. vit_new: -EINVAL/-ENOENT/-ENOTSUP (err names the key or tensor), -ENOMEM.
 * vit_forward: errors of the operators. */
#ifndef BLIPLINE_ENCODER_WORKER_VIT_H
#define BLIPLINE_ENCODER_WORKER_VIT_H

#include "base/err.h"

#include <stdint.h>

struct checkpoint;
struct ops;
struct vit;

int vit_new(struct ops *o, const struct checkpoint *c, int max_batch, struct vit **ret, struct err *err) CHECK_RESULT;
void vit_free(struct vit *v);

int vit_image_size(const struct vit *v); /* S */
int vit_n_tokens(const struct vit *v);   /* P */
int vit_width(const struct vit *v);      /* C */

/* rgb: host [n, S, S, 3], 1 <= n <= max_batch, read before the call returns. *ret: device [n, P, C], valid until the
 * next call or vit_free. The features of an image do not depend on the rest of the batch. */
int vit_forward(struct vit *v, int n, const uint8_t *rgb, const void **ret) CHECK_RESULT;

#endif
