/* decode.h - decodes the bytes of an image file to RGB.
 *
 * JPEG, PNG and WebP, detected by their first bytes. Accepted files and their pixels are those of Pillow's
 * convert("RGB") (MODEL.md "Pixels"; tests/zoo compares the two). Every byte is hostile: sizes in the header are
 * checked before anything of that size is allocated.
 * Who may call: any thread with its own struct picture.
 * Units: bytes, pixels.
 * Memory: the picture owns its pixels and keeps them for the next call; picture_release frees them.
 * Errors: an image_error and ASCII text in `err`; the picture is then empty (0 x 0). */
#ifndef BLIPLINE_ENCODER_WORKER_DECODE_H
#define BLIPLINE_ENCODER_WORKER_DECODE_H

#include "base/err.h"
#include "source/image_error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct decode_options {
    size_t max_file_bytes;
    uint64_t max_pixels;   /* width * height; 3 bytes each, 9 for the coefficients of a progressive JPEG */
    bool exif_orientation; /* rotate the image by its EXIF orientation */
    bool grey16_high_byte; /* 16-bit grey: take the upper byte; Pillow clips values above 255 to white */
};

/* The longest side; beyond it the resize alone would take gigabytes. */
#define DECODE_MAX_DIMENSION (1U << 20)

/* 178956970 pixels (512 MiB of RGB) is Pillow's limit for decompression bombs. */
#define DECODE_OPTIONS_DEFAULT                                     \
    (struct decode_options)                                        \
    {                                                              \
        .max_file_bytes = (size_t)1 << 30, .max_pixels = 178956970 \
    }

/* Called before an image of more than 256 MiB is decoded. A file of a few kilobytes may claim that much, and several
 * times as much for its coefficients, so parallel decoders take turns. picture_done ends the turn. */
struct picture_turn {
    void (*wait)(void *arg); /* NULL: no other decoders */
    void *arg;
};

struct picture {
    uint8_t *rgb; /* (height, width, 3), rows without padding */
    uint32_t width, height;
    size_t capacity_bytes;
    int orientation; /* EXIF orientation, 1 to 8; 1: upright */
    struct picture_turn turn;
    bool is_giant; /* it holds the turn until picture_done */
};

void picture_init(struct picture *p, const struct picture_turn *turn); /* NULL: no other decoders */
void picture_release(struct picture *p);
/* Call when the pixels are no longer needed, or on failure; frees the memory of a huge image. */
void picture_done(struct picture *p);

enum image_error decode_picture(const uint8_t *bytes, size_t n_bytes, const struct decode_options *options,
                                struct picture *ret, struct err *err) CHECK_RESULT;

#endif
