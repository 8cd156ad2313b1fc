/* resize_kernels.h - the two inner loops of resize.c, portable and for AVX2; private to it.
 *
 * Units:  pixels are 3 bytes; a row of n pixels is 3 n bytes.
 * Memory: the caller owns it. `across` may read RESIZE_OVERREAD bytes past the end of an input row.
 * Errors: none. All kernels give the same bits. */
#ifndef BLIPLINE_ENCODER_WORKER_RESIZE_KERNELS_H
#define BLIPLINE_ENCODER_WORKER_RESIZE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RESIZE_ROWS = 4, RESIZE_OVERREAD = 4 };

/* One direction, in -> out samples. Output i is the sum over j < 4 * n_groups of weight(i, j) * input[first[i] + j],
 * where weight(i, j) = 256 * weights[(i * n_groups + j / 4) * 8 + j % 4] + weights[(i * n_groups + j / 4) * 8 + 4 + j %
 * 4]. */
struct resize_axis {
    uint32_t in, out;
    uint32_t n_groups;
    bool ragged; /* the input is shorter than a window: taps beyond it have weight 0 and must not be read */
    uint32_t *first;
    int16_t *weights;
};

struct resize_kernels {
    /* Resamples RESIZE_ROWS rows of a->in pixels to rows of a->out. Unused outputs may share one row. */
    void (*across)(const struct resize_axis *a, const uint8_t *const *src, uint8_t *const *dst);
    /* Computes one output row from the rows that begin at src, row_bytes apart. */
    void (*down)(const struct resize_axis *a, uint32_t i, const uint8_t *src, size_t row_bytes, uint8_t *dst);
};

/* The fastest kernels for this processor. */
struct resize_kernels resize_kernels_best(void);
/* The portable kernels, which define the result. */
struct resize_kernels resize_kernels_plain(void);

#endif
