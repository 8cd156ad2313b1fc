/* jpeg_segments.h - what stands in front of a JPEG's first scan, taken and refused as Pillow does it.
 *
 * Pillow reads it before libjpeg does and has reasons of its own to refuse a file. Used by decode_jpeg.c alone; any
 * thread.
 * Units: bytes.
 * Memory: points into the file.
 * Errors: an image_error, `err` says more. */
#ifndef BLIPLINE_ENCODER_WORKER_JPEG_SEGMENTS_H
#define BLIPLINE_ENCODER_WORKER_JPEG_SEGMENTS_H

#include "base/err.h"
#include "encoder_worker/orientation.h"
#include "source/image_error.h"

#include <stddef.h>
#include <stdint.h>

/* The file begins ff d8 ff. *ret_source: the first EXIF segment and the last of XMP. */
enum image_error jpeg_check_segments(const uint8_t *bytes, size_t n, struct orientation_source *ret_source,
                                     struct err *err) CHECK_RESULT;

#endif
