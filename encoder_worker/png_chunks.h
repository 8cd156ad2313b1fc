/* png_chunks.h - what stands around the picture data of a PNG file, taken and refused as Pillow does it.
 *
 * Pillow looks at the checksums of the chunks in front of the picture data and at no others, wants every chunk behind
 * it whole, and looks into those that it knows. It decides which files are pictures, so all of that is done here, and
 * the decoder gets nothing but a clean header, the palette and the data. Used by decode_png.c alone; any thread.
 * Units: bytes.
 * Memory: points into the file.
 * Errors: an image_error, `err` says more. */
#ifndef BLIPLINE_ENCODER_WORKER_PNG_CHUNKS_H
#define BLIPLINE_ENCODER_WORKER_PNG_CHUNKS_H

#include "base/err.h"
#include "encoder_worker/orientation.h"
#include "source/image_error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct png_chunk {
    char kind[5];
    const uint8_t *data;
    size_t length;    /* as the file says */
    size_t available; /* of it in the file: the rest is missing */
    size_t end;       /* where its checksum is to be; may be past the file's end */
};

struct png_file {
    const uint8_t *bytes;
    size_t n;
    uint32_t width, height;
    uint8_t depth, color; /* a legal pair; depth 0: none seen */
    bool interlaced;
    const uint8_t *palette; /* NULL: none */
    size_t palette_bytes;
    bool one_transparent;             /* tRNS makes one entry of the palette transparent, which Pillow then looks up */
    size_t data_at;                   /* of the first IDAT */
    struct orientation_source source; /* of the last chunks; those behind the data are seen by png_read_tail */
    size_t text_bytes;
    int64_t sequence;  /* of the last fcTL or fdAT; -1: none */
    uint32_t n_frames; /* that acTL promises; 0: none */
    bool has_frame;    /* fcTL in front of the data: it is the animation's first frame */
};

/* The next chunk at `at`. False: there are not eight more bytes, or they are no chunk's head. */
bool png_chunk_at(const struct png_file *f, size_t at, struct png_chunk *ret);
/* Everything up to the picture data. */
enum image_error png_read_head(const uint8_t *bytes, size_t n, struct png_file *ret, struct err *err) CHECK_RESULT;
/* Everything behind it, from the end of the IDAT that had the last row. */
enum image_error png_read_tail(struct png_file *f, size_t at, struct err *err) CHECK_RESULT;

#endif
