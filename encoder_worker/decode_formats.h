/* decode_formats.h - what decode.c and the three decoders share; nobody else includes this.
 *
 * Units, memory, errors: as in decode.h. A decoder may leave the picture half written when it fails: decode.c empties
 * it. */
#ifndef BLIPLINE_ENCODER_WORKER_DECODE_FORMATS_H
#define BLIPLINE_ENCODER_WORKER_DECODE_FORMATS_H

#include "encoder_worker/decode.h"

/* Check width x height against the limits, then make room for it and set the picture's size. */
enum image_error decode_size_picture(struct picture *p, uint32_t width, uint32_t height,
                                     const struct decode_limits *limits, struct err *err) CHECK_RESULT;

enum image_error decode_jpeg(const uint8_t *bytes, size_t n, const struct decode_limits *limits, struct picture *ret,
                             struct err *err) CHECK_RESULT;
enum image_error decode_png(const uint8_t *bytes, size_t n, const struct decode_limits *limits, struct picture *ret,
                            struct err *err) CHECK_RESULT;
enum image_error decode_webp(const uint8_t *bytes, size_t n, const struct decode_limits *limits, struct picture *ret,
                             struct err *err) CHECK_RESULT;

#endif
