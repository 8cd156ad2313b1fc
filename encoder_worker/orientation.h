/* orientation.h - an image's orientation by EXIF, or by XMP if EXIF has none.
 *
 * Who may call: any thread.
 * Units: bytes, pixels.
 * Memory: a rotated image gets new memory.
 * Errors: damaged data is ignored. */
#ifndef BLIPLINE_ENCODER_WORKER_ORIENTATION_H
#define BLIPLINE_ENCODER_WORKER_ORIENTATION_H

#include "encoder_worker/decode.h"

/* Metadata of a file; NULL: none. */
struct orientation_source {
    const uint8_t *exif; /* with or without the prefix "Exif\0\0" */
    size_t exif_bytes;
    const uint8_t *xmp;
    size_t xmp_bytes;
};

/* 1 (upright) to 8. */
int orientation_of(const struct orientation_source *s);
/* Rotates the image as Pillow's ImageOps.exif_transpose does. On IMAGE_NO_MEMORY it is unchanged. */
enum image_error orientation_apply(struct picture *p, int orientation, struct err *err) CHECK_RESULT;

#endif
