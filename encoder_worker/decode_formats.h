/* decode_formats.h - shared by decode.c and the three format decoders; private to them and their test.
 *
 * Units, memory, errors: as in decode.h. A decoder may leave the picture half-written on failure; decode.c then
 * empties it. */
#ifndef BLIPLINE_ENCODER_WORKER_DECODE_FORMATS_H
#define BLIPLINE_ENCODER_WORKER_DECODE_FORMATS_H

#include "encoder_worker/decode.h"

#include <endian.h>
#include <string.h>

static inline uint32_t decode_be32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return be32toh(v);
}

static inline uint32_t decode_be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

/* Checks that an image of this size is within the limits. */
enum image_error decode_check_size(uint32_t width, uint32_t height, const struct decode_options *options,
                                   struct err *err) CHECK_RESULT;
/* The same, then allocates memory and sets the picture's size. */
enum image_error decode_size_picture(struct picture *p, uint32_t width, uint32_t height,
                                     const struct decode_options *options, struct err *err) CHECK_RESULT;

enum image_error decode_jpeg(const uint8_t *bytes, size_t n, const struct decode_options *options, struct picture *ret,
                             struct err *err) CHECK_RESULT;
enum image_error decode_png(const uint8_t *bytes, size_t n, const struct decode_options *options, struct picture *ret,
                            struct err *err) CHECK_RESULT;
enum image_error decode_webp(const uint8_t *bytes, size_t n, const struct decode_options *options, struct picture *ret,
                             struct err *err) CHECK_RESULT;

#endif
