/* png_chunks.h - the chunks of a PNG file, accepted and refused as by Pillow.
 *
 * Pillow checks only the checksums of chunks before the image data, requires every chunk after it to be complete, and
 * parses those that it knows. The same is done here, so that the same files are accepted; the decoder gets only a clean
 * header, the palette and the data. Used by decode_png.c only, from any thread.
 * Units: bytes.
 * Memory: points into the file.
 * Errors: an image_error, with text in `err`. */
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
    size_t length;    /* as stated in the file */
    size_t available; /* bytes present in the file */
    size_t end;       /* where its checksum should be; may be past the end of the file */
};

struct png_file {
    const uint8_t *bytes;
    size_t n;
    uint32_t width, height;
    uint8_t depth, color; /* a valid pair; depth 0: no header seen */
    bool interlaced;
    const uint8_t *palette; /* NULL: none */
    size_t palette_bytes;
    bool one_transparent;             /* tRNS makes exactly one palette entry transparent */
    size_t data_at;                   /* offset of the first IDAT */
    struct orientation_source source; /* of the last such chunks; png_read_tail adds those after the data */
    size_t text_bytes;
    int64_t sequence;  /* of the last fcTL or fdAT; -1: none */
    uint32_t n_frames; /* as stated by acTL; 0: none */
    bool has_frame;    /* fcTL before the data: the data is the animation's first frame */
};

/* Reads the chunk header at `at`. False if fewer than eight bytes are left or they are not a chunk header. */
bool png_chunk_at(const struct png_file *f, size_t at, struct png_chunk *ret);
/* Reads everything before the image data. */
enum image_error png_read_head(const uint8_t *bytes, size_t n, struct png_file *ret, struct err *err) CHECK_RESULT;
/* Reads everything after it, from the end of the IDAT with the last row. */
enum image_error png_read_tail(struct png_file *f, size_t at, struct err *err) CHECK_RESULT;

#endif
