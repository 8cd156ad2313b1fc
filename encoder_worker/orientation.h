/* orientation.h - which way up a picture is, by its EXIF data, or by XMP where they do not say.
 *
 * Who may call: any thread.
 * Units: bytes, pixels.
 * Memory: a picture that is turned gets new memory.
 * Errors: damaged data say nothing. */
#ifndef BLIPLINE_ENCODER_WORKER_ORIENTATION_H
#define BLIPLINE_ENCODER_WORKER_ORIENTATION_H

#include "encoder_worker/decode.h"

/* What a file says of itself; NULL: nothing. */
struct orientation_source {
    const uint8_t *exif; /* with or without "Exif\0\0" in front */
    size_t exif_bytes;
    const uint8_t *xmp;
    size_t xmp_bytes;
};

/* 1 (as it is) to 8. */
int orientation_of(const struct orientation_source *s);
/* Turn the picture as Pillow's ImageOps.exif_transpose does. IMAGE_NO_MEMORY: it is as it was. */
enum image_error orientation_apply(struct picture *p, int orientation, struct err *err) CHECK_RESULT;

#endif
