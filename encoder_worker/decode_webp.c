#include "encoder_worker/decode_formats.h"
#include "encoder_worker/orientation.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

static enum image_error fail(VP8StatusCode status, struct err *err)
{
    switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
        (void)err_set(err, -ENOMEM, "WebP: no memory to decode");
        return IMAGE_NO_MEMORY;
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
        (void)err_set(err, -EBADMSG, "WebP: the file ends before the picture is complete");
        return IMAGE_TRUNCATED;
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        (void)err_set(err, -ENOTSUP, "WebP: a feature that is not supported");
        return IMAGE_UNSUPPORTED;
    default:
        (void)err_set(err, -EBADMSG, "WebP: damaged (status %d)", (int)status);
        return IMAGE_CORRUPT;
    }
}

/* Reports why the container could not be parsed. */
static enum image_error fail_container(const WebPData *file, struct err *err)
{
    WebPDemuxState state;
    WebPDemuxer *parts = WebPDemuxPartial(file, &state);
    bool damaged = state == WEBP_DEMUX_PARSE_ERROR;

    WebPDemuxDelete(parts);
    return fail(damaged ? VP8_STATUS_BITSTREAM_ERROR : VP8_STATUS_NOT_ENOUGH_DATA, err);
}

/* Decodes the first frame at its position on the canvas. The rest is black, as transparent pixels are without alpha.
 * A still image is one frame that covers the canvas. */
static enum image_error decode_frame(const WebPIterator *frame, struct picture *p, struct err *err)
{
    const size_t size = (size_t)p->width * p->height * 3, stride = (size_t)p->width * 3;
    const size_t at = (size_t)frame->y_offset * stride + (size_t)frame->x_offset * 3;
    WebPDecoderConfig config;
    VP8StatusCode status;

    if (!WebPInitDecoderConfig(&config)) {
        (void)err_set(err, -ENOTSUP, "WebP: the library is not the version this was built with");
        return IMAGE_UNSUPPORTED;
    }
    if (at >= size || stride > INT_MAX)
        return fail(VP8_STATUS_BITSTREAM_ERROR, err);
    if ((uint32_t)frame->width != p->width || (uint32_t)frame->height != p->height)
        memset(p->rgb, 0, size);
    config.output.colorspace = MODE_RGB; /* alpha is dropped, not blended */
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = p->rgb + at;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size = size - at;
    status = WebPDecode(frame->fragment.bytes, frame->fragment.size, &config);
    WebPFreeDecBuffer(&config.output);
    return status == VP8_STATUS_OK ? IMAGE_OK : fail(status, err);
}

static enum image_error decode_parts(const WebPDemuxer *parts, const struct decode_options *options,
                                     struct picture *ret, struct err *err)
{
    WebPIterator frame = {0};
    enum image_error code = decode_size_picture(ret, WebPDemuxGetI(parts, WEBP_FF_CANVAS_WIDTH),
                                                WebPDemuxGetI(parts, WEBP_FF_CANVAS_HEIGHT), options, err);

    if (code != IMAGE_OK)
        return code;
    code = WebPDemuxGetFrame(parts, 1, &frame) ? decode_frame(&frame, ret, err) : fail(VP8_STATUS_BITSTREAM_ERROR, err);
    WebPDemuxReleaseIterator(&frame);
    return code;
}

enum image_error decode_webp(const uint8_t *bytes, size_t n, const struct decode_options *options, struct picture *ret,
                             struct err *err)
{
    const WebPData file = {.bytes = bytes, .size = n};
    WebPDemuxer *parts = WebPDemux(&file);
    WebPChunkIterator exif = {0}, xmp = {0};
    struct orientation_source source = {0};
    enum image_error code;

    if (!parts)
        return fail_container(&file, err);
    code = decode_parts(parts, options, ret, err);
    if (WebPDemuxGetChunk(parts, "EXIF", 1, &exif)) {
        source.exif = exif.chunk.bytes;
        source.exif_bytes = exif.chunk.size;
    }
    if (WebPDemuxGetChunk(parts, "XMP ", 1, &xmp)) {
        source.xmp = xmp.chunk.bytes;
        source.xmp_bytes = xmp.chunk.size;
    }
    ret->orientation = orientation_of(&source);
    WebPDemuxReleaseChunkIterator(&exif);
    WebPDemuxReleaseChunkIterator(&xmp);
    WebPDemuxDelete(parts);
    return code;
}
