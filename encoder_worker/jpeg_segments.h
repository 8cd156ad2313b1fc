/* jpeg_segments.h - the segments before a JPEG's first scan, accepted and refused as by Pillow.
 *
 * Pillow reads them before libjpeg and refuses some files itself. Used by decode_jpeg.c only, from any thread.
 * Units: bytes.
 * Memory: points into the file.
 * Errors: an image_error, with text in `err`. */
#ifndef BLIPLINE_ENCODER_WORKER_JPEG_SEGMENTS_H
#define BLIPLINE_ENCODER_WORKER_JPEG_SEGMENTS_H

#include "base/err.h"
#include "encoder_worker/orientation.h"
#include "source/image_error.h"

#include <stddef.h>
#include <stdint.h>

/* The file must begin with ff d8 ff. *ret_source: the first EXIF segment and the last XMP segment. */
enum image_error jpeg_check_segments(const uint8_t *bytes, size_t n, struct orientation_source *ret_source,
                                     struct err *err) CHECK_RESULT;

#endif
