/* decode.h - a picture file's bytes to RGB.
 *
 * JPEG, PNG and WebP, told apart by their first bytes. The pixels are those Pillow's convert("RGB") gives (MODEL.md
 * "Pixels"): alpha dropped, palette expanded, grey replicated, 16-bit samples >> 8, CMYK as Adobe writes it, EXIF
 * rotation not applied. Every byte is hostile: sizes are read from the header and checked before anything of that size
 * is allocated. Who may call: any thread, each with its own struct picture. Units:  bytes, pixels. Memory: the picture
 * owns its pixels and keeps them for the next call; picture_release frees them. Errors: an image_error, `err` says more
 * in ASCII; the picture is then empty (0 x 0). Nothing aborts, nothing leaks. */
#ifndef BLIPLINE_ENCODER_WORKER_DECODE_H
#define BLIPLINE_ENCODER_WORKER_DECODE_H

#include "base/err.h"
#include "source/image_error.h"

#include <stddef.h>
#include <stdint.h>

struct decode_limits {
    size_t max_file_bytes;
    uint64_t max_pixels;    /* width * height; 3 bytes each, 9 for the coefficients of a progressive JPEG */
    uint32_t max_dimension; /* of either side */
};

/* 89478485 pixels is where Pillow warns of a decompression bomb: 256 MiB of RGB. */
#define DECODE_LIMITS_DEFAULT                                                               \
    (struct decode_limits)                                                                  \
    {                                                                                       \
        .max_file_bytes = (size_t)256 << 20, .max_pixels = 89478485, .max_dimension = 65500 \
    }

struct picture {
    uint8_t *rgb; /* (height, width, 3), rows without padding */
    uint32_t width, height;
    size_t capacity_bytes;
};

void picture_init(struct picture *p);
void picture_release(struct picture *p);

enum image_error decode_picture(const uint8_t *bytes, size_t n_bytes, const struct decode_limits *limits,
                                struct picture *ret, struct err *err) CHECK_RESULT;

#endif
