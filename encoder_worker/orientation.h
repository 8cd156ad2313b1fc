/* orientation.h - which way up a picture is, by its EXIF data.
 *
 * Who may call: any thread. Units: bytes, pixels. Memory: a picture that is turned gets new memory. Errors: damaged EXIF
 * data say nothing, which is 1. */
#ifndef BLIPLINE_ENCODER_WORKER_ORIENTATION_H
#define BLIPLINE_ENCODER_WORKER_ORIENTATION_H

#include "encoder_worker/decode.h"

/* 1 (as it is) to 8, from EXIF data with or without "Exif\0\0" in front; 1 for anything else, NULL too. */
int orientation_of_exif(const uint8_t *exif, size_t n);
/* Turn the picture as Pillow's ImageOps.exif_transpose does. IMAGE_NO_MEMORY: it is as it was. */
enum image_error orientation_apply(struct picture *p, int orientation, struct err *err) CHECK_RESULT;

#endif
