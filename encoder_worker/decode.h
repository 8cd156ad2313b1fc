/* decode.h - a picture file's bytes to RGB.
 *
 * JPEG, PNG and WebP, told apart by their first bytes. Which files are pictures, and their pixels, is what Pillow's
 * convert("RGB") says (MODEL.md "Pixels"; tests/zoo holds the two against each other). Every byte is hostile: sizes are
 * read from the header and checked before anything of that size is allocated.
 * Who may call: any thread, each with its own struct picture.
 * Units: bytes, pixels.
 * Memory: the picture owns its pixels and keeps them for the next call; picture_release frees them.
 * Errors: an image_error, `err` says more in ASCII; the picture is then empty (0 x 0). Nothing aborts, nothing
 * leaks. */
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
    bool exif_orientation; /* turn the picture as its EXIF data say */
    bool grey16_high_byte; /* 16-bit grey: its upper byte, where Pillow makes everything above 255 white */
};

/* The longest side: for longer ones the resize alone would take gigabytes. */
#define DECODE_MAX_DIMENSION (1U << 20)

/* 178956970 pixels is where Pillow refuses a picture as a decompression bomb: 512 MiB of RGB. */
#define DECODE_OPTIONS_DEFAULT                                     \
    (struct decode_options)                                        \
    {                                                              \
        .max_file_bytes = (size_t)1 << 30, .max_pixels = 178956970 \
    }

/* What is called before a picture of more than 256 MiB is decoded: a file of some kilobytes may claim that much, and
 * several times as much for its coefficients, so those who decode side by side take turns. The turn ends with
 * picture_done. */
struct picture_turn {
    void (*wait)(void *arg); /* NULL: nobody else decodes */
    void *arg;
};

struct picture {
    uint8_t *rgb; /* (height, width, 3), rows without padding */
    uint32_t width, height;
    size_t capacity_bytes;
    int orientation; /* what EXIF said, 1 to 8; 1: nothing to do */
    struct picture_turn turn;
    bool is_giant; /* it has its turn, until picture_done */
};

void picture_init(struct picture *p, const struct picture_turn *turn); /* NULL: nobody else decodes */
void picture_release(struct picture *p);
/* The pixels have been used, or there are none; the memory of a giant is given back. */
void picture_done(struct picture *p);

enum image_error decode_picture(const uint8_t *bytes, size_t n_bytes, const struct decode_options *options,
                                struct picture *ret, struct err *err) CHECK_RESULT;

#endif
