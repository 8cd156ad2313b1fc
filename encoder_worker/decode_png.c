/* decode_png.c - PNG: png_chunks.c reads the chunks as Pillow does, libspng decodes the image data.
 *
 * libspng refuses files that Pillow accepts (the last bytes missing, wrong data checksums, unusual palette lengths,
 * more than a few hundred texts), and accepts files that Pillow refuses. So it gets a clean PNG stream generated on
 * the fly: header, palette and image data. */
#include "encoder_worker/decode_formats.h"
#include "encoder_worker/png_chunks.h"

#include <errno.h>
#include <string.h>

#include <spng.h>
#include <zlib.h>

enum { HEAD_BYTES = 8 + 25 + 12 + 768, CHUNK_HEAD_BYTES = 8, CHECKSUM_BYTES = 4 };

/* The stream that libspng reads, made of spans. */
struct reader {
    const struct png_file *file;
    const uint8_t *span;
    size_t left;
    enum { AT_DATA, AT_CHECKSUM, AT_CHUNK, AT_END } next;
    struct png_chunk chunk; /* the current data chunk */
    size_t next_at;         /* of the next chunk in the file */
    uint8_t head[HEAD_BYTES];
};

static uint8_t *put(uint8_t *at, const void *bytes, size_t n)
{
    memcpy(at, bytes, n);
    return at + n;
}

static uint8_t *put_be32(uint8_t *at, uint32_t v)
{
    const uint8_t bytes[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};

    return put(at, bytes, 4);
}

static uint8_t *put_checksum(uint8_t *at, const uint8_t *kind)
{
    return put_be32(at, (uint32_t)crc32_z(0, kind, (size_t)(at - kind)));
}

static uint8_t *put_chunk_head(uint8_t *at, size_t n, const char *kind)
{
    return put(put_be32(at, (uint32_t)n), kind, 4);
}

/* Writes as many entries as the depth allows; missing ones are black, as in Pillow. */
static uint8_t *put_palette(uint8_t *at, const struct png_file *f)
{
    const size_t n = (size_t)1 << f->depth, n_file = f->palette_bytes / 3;
    uint8_t *kind = at + 4;

    at = put_chunk_head(at, n * 3, "PLTE");
    for (size_t i = 0; i < n; i++, at += 3) {
        memset(at, 0, 3);
        if (i < n_file)
            memcpy(at, f->palette + 3 * i, 3);
    }
    return put_checksum(at, kind);
}

static void reader_init(struct reader *r, const struct png_file *f)
{
    const uint8_t kind[5] = {f->depth, f->color, 0, 0, f->interlaced};
    uint8_t *at = put(r->head, "\x89PNG\r\n\x1a\n", 8);

    at = put_be32(put_be32(put_chunk_head(at, 13, "IHDR"), f->width), f->height);
    at = put_checksum(put(at, kind, sizeof(kind)), r->head + 12);
    if (f->color == 3)
        at = put_palette(at, f);
    r->file = f;
    r->span = r->head;
    r->left = (size_t)(at - r->head);
    r->next = AT_CHUNK;
    r->next_at = f->data_at;
}

/* Finds the next non-empty chunk of image data; false if there is none. */
static bool next_data(struct reader *r)
{
    struct png_chunk c;

    while (png_chunk_at(r->file, r->next_at, &c) && memcmp(c.kind, "IDAT", 4) == 0) {
        r->chunk = c;
        r->next_at = c.end + CHECKSUM_BYTES;
        if (c.available)
            return true;
    }
    return false;
}

/* Data cut off by the end of the file becomes a shorter chunk. Pillow ignores the checksums of image data, so
 * libspng is told to do so from the first of them on; told earlier, it would ignore zlib's own checksum too. */
static int next_span(struct reader *r, spng_ctx *ctx)
{
    switch (r->next) {
    case AT_DATA:
        r->span = r->chunk.data;
        r->left = r->chunk.available;
        r->next = AT_CHECKSUM;
        return 0;
    case AT_CHECKSUM:
        r->span = r->head;
        r->left = CHECKSUM_BYTES;
        r->next = AT_CHUNK;
        return spng_set_crc_action(ctx, SPNG_CRC_USE, SPNG_CRC_USE);
    case AT_CHUNK: {
        const bool is_data = next_data(r);

        r->span = r->head;
        r->left = CHUNK_HEAD_BYTES;
        (void)put_chunk_head(r->head, is_data ? r->chunk.available : 0, is_data ? "IDAT" : "IEND");
        r->next = is_data ? AT_DATA : AT_END;
        return 0;
    }
    default:
        return SPNG_IO_EOF;
    }
}

static int reader_read(spng_ctx *ctx, void *user, void *to, size_t n)
{
    struct reader *r = user;
    uint8_t *at = to;

    while (n > 0) {
        size_t some = n < r->left ? n : r->left;

        at = put(at, r->span, some);
        r->span += some;
        r->left -= some;
        n -= some;
        if (n > 0 && r->left == 0 && next_span(r, ctx) != 0)
            return SPNG_IO_EOF;
    }
    return 0;
}

static enum image_error fail(int rc, struct err *err)
{
    (void)err_set(err, -EBADMSG, "PNG: %s", spng_strerror(rc));
    switch (rc) {
    case SPNG_EMEM:
        return IMAGE_NO_MEMORY;
    case SPNG_IO_EOF:
    case SPNG_EOF:
    case SPNG_EIDAT_TOO_SHORT:
        (void)err_set(err, -EBADMSG, "PNG: the picture data ends before the last row");
        return IMAGE_TRUNCATED;
    default:
        return IMAGE_CORRUPT;
    }
}

/* Expands 16-bit grey, which is at the end of the picture's memory, to RGB. Pillow clips values above 255 to white. */
static void spread_grey16(struct picture *p, bool high_byte)
{
    const size_t n = (size_t)p->width * p->height;
    const uint8_t *from = p->rgb + n;

    for (size_t i = 0; i < n; i++) {
        uint16_t v;

        memcpy(&v, from + 2 * i, 2);
        memset(p->rgb + 3 * i, high_byte ? v >> 8 : v < 255 ? v : 255, 3);
    }
}

static enum image_error decompress(spng_ctx *ctx, struct reader *r, bool grey16_high_byte, struct picture *p,
                                   struct err *err)
{
    const bool grey16 = r->file->color == 0 && r->file->depth == 16;
    const size_t n_pixels = (size_t)p->width * p->height;
    const int format = grey16 ? SPNG_FMT_PNG : SPNG_FMT_RGB8;
    size_t size;
    int rc = spng_set_png_stream(ctx, reader_read, r);

    if (rc == 0)
        rc = spng_decoded_image_size(ctx, format, &size);
    if (rc == 0 && size != n_pixels * (grey16 ? 2 : 3))
        rc = SPNG_EBUFSIZ;
    /* without SPNG_DECODE_TRNS alpha and tRNS are dropped and samples keep their upper 8 bits */
    if (rc == 0)
        rc = spng_decode_image(ctx, p->rgb + (grey16 ? n_pixels : 0), size, format, 0);
    if (rc)
        return fail(rc, err);
    if (grey16)
        spread_grey16(p, grey16_high_byte);
    return IMAGE_OK;
}

/* Checks that Pillow makes when it decodes the pixels. */
static enum image_error check_palette(const struct png_file *f, struct err *err)
{
    const bool wrong = f->palette_bytes / 3 > 256 || (!f->palette && f->one_transparent);

    if (f->color != 3 || !wrong)
        return IMAGE_OK;
    (void)err_set(err, -EBADMSG,
                  f->palette ? "PNG: the palette has more than 256 entries" : "PNG: there is no palette");
    return IMAGE_CORRUPT;
}

enum image_error decode_png(const uint8_t *bytes, size_t n, const struct decode_options *options, struct picture *ret,
                            struct err *err)
{
    struct reader reader = {0};
    struct png_file file;
    enum image_error code = png_read_head(bytes, n, &file, err), size;
    spng_ctx *ctx;

    if (code == IMAGE_OK && file.depth == 0) {
        (void)err_set(err, -EBADMSG, "PNG: the header is missing, or has an invalid color type and depth");
        return IMAGE_CORRUPT;
    }
    size = file.depth ? decode_check_size(file.width, file.height, options, err) : IMAGE_OK;
    if (size != IMAGE_OK) /* report this reason first */
        return size;
    if (code == IMAGE_OK)
        code = decode_size_picture(ret, file.width, file.height, options, err);
    if (code != IMAGE_OK)
        return code;
    ctx = spng_ctx_new(0);
    if (!ctx) {
        (void)err_set(err, -ENOMEM, "PNG: no memory for the decoder");
        return IMAGE_NO_MEMORY;
    }
    reader_init(&reader, &file);
    code = decompress(ctx, &reader, options->grey16_high_byte, ret, err);
    spng_ctx_free(ctx);
    if (code == IMAGE_OK)
        code = png_read_tail(&file, reader.chunk.end + CHECKSUM_BYTES, err);
    if (code == IMAGE_OK)
        code = check_palette(&file, err);
    ret->orientation = orientation_of(&file.source);
    return code;
}
