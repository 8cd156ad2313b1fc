/* resize.h - resizes an image to a given size, bit-identical to Pillow's antialiased bicubic (MODEL.md "Pixels").
 *
 * Who may call: one thread per struct resize (it holds scratch memory and the coefficient tables of recent sizes).
 * Units:  pixels; images are uint8 (height, width, 3), rows without padding.
 * Memory: the caller owns both images; src and dst must not overlap.
 * Errors: negative errno; -ENOMEM, -EINVAL for a side of 0 or above RESIZE_MAX_SIDE. */
#ifndef BLIPLINE_ENCODER_WORKER_RESIZE_H
#define BLIPLINE_ENCODER_WORKER_RESIZE_H

#include "base/err.h"

#include <stdint.h>

enum { RESIZE_MAX_SIDE = 1 << 20 };

struct resize;

int resize_new(struct resize **ret) CHECK_RESULT;
void resize_free(struct resize *r);

int resize_rgb(struct resize *r, const uint8_t *src, uint32_t width, uint32_t height, uint8_t *dst, uint32_t out_width,
               uint32_t out_height) CHECK_RESULT;

#endif
