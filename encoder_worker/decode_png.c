#include "encoder_worker/decode_formats.h"

#include <errno.h>

#include <spng.h>

/* What compressed text and colour profiles may unpack to: none of it is used. */
#define MAX_CHUNK_BYTES ((size_t)16 << 20)
#define MAX_CHUNKS_BYTES ((size_t)32 << 20)

static enum image_error fail(int rc, struct err *err)
{
    (void)err_set(err, -EBADMSG, "PNG: %s", spng_strerror(rc));
    switch (rc) {
    case SPNG_EMEM:
        return IMAGE_NO_MEMORY;
    case SPNG_EUSER_WIDTH:
    case SPNG_EUSER_HEIGHT:
        return IMAGE_TOO_MANY_PIXELS;
    case SPNG_IO_EOF:
    case SPNG_EOF:
    case SPNG_EIDAT_TOO_SHORT:
        return IMAGE_TRUNCATED;
    default:
        return IMAGE_CORRUPT;
    }
}

static enum image_error decompress(spng_ctx *ctx, const uint8_t *bytes, size_t n, const struct decode_limits *limits,
                                   struct picture *p, struct err *err)
{
    struct spng_ihdr header;
    enum image_error code;
    size_t size;
    int rc = spng_set_image_limits(ctx, limits->max_dimension, limits->max_dimension);

    if (rc == 0)
        rc = spng_set_chunk_limits(ctx, MAX_CHUNK_BYTES, MAX_CHUNKS_BYTES);
    if (rc == 0)
        rc = spng_set_crc_action(ctx, SPNG_CRC_ERROR,
                                 SPNG_CRC_DISCARD); /* no chunk that may be dropped changes a pixel */
    if (rc == 0)
        rc = spng_set_png_buffer(ctx, bytes, n);
    if (rc == 0)
        rc = spng_get_ihdr(ctx, &header);
    if (rc)
        return fail(rc, err);
    code = decode_size_picture(p, header.width, header.height, limits, err);
    if (code != IMAGE_OK)
        return code;
    rc = spng_decoded_image_size(ctx, SPNG_FMT_RGB8, &size);
    if (rc)
        return fail(rc, err);
    if (size != (size_t)p->width * p->height * 3) {
        (void)err_set(err, -EBADMSG, "PNG: the decoder wants %zu bytes for %ux%u pixels", size, p->width, p->height);
        return IMAGE_CORRUPT;
    }
    /* without SPNG_DECODE_TRNS alpha and tRNS are dropped, and samples are reduced to their upper 8 bits */
    rc = spng_decode_image(ctx, p->rgb, size, SPNG_FMT_RGB8, 0);
    return rc ? fail(rc, err) : IMAGE_OK;
}

enum image_error decode_png(const uint8_t *bytes, size_t n, const struct decode_limits *limits, struct picture *ret,
                            struct err *err)
{
    spng_ctx *ctx = spng_ctx_new(0);
    enum image_error code;

    if (!ctx) {
        (void)err_set(err, -ENOMEM, "PNG: no memory for the decoder");
        return IMAGE_NO_MEMORY;
    }
    code = decompress(ctx, bytes, n, limits, ret, err);
    spng_ctx_free(ctx);
    return code;
}
