#include "encoder_worker/decode_formats.h"

#include <errno.h>

#include <webp/decode.h>

static enum image_error fail(VP8StatusCode status, struct err *err)
{
    switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
        (void)err_set(err, -ENOMEM, "WebP: no memory to decode");
        return IMAGE_NO_MEMORY;
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
        (void)err_set(err, -EBADMSG, "WebP: the file ends before the picture does");
        return IMAGE_TRUNCATED;
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        (void)err_set(err, -ENOTSUP, "WebP: a feature that is not supported");
        return IMAGE_UNSUPPORTED;
    default:
        (void)err_set(err, -EBADMSG, "WebP: damaged (status %d)", (int)status);
        return IMAGE_CORRUPT;
    }
}

enum image_error decode_webp(const uint8_t *bytes, size_t n, const struct decode_limits *limits, struct picture *ret,
                             struct err *err)
{
    WebPDecoderConfig config;
    enum image_error code;
    VP8StatusCode status;

    if (!WebPInitDecoderConfig(&config)) {
        (void)err_set(err, -ENOTSUP, "WebP: the library is not the version this was built with");
        return IMAGE_UNSUPPORTED;
    }
    status = WebPGetFeatures(bytes, n, &config.input);
    if (status != VP8_STATUS_OK)
        return fail(status, err);
    if (config.input.has_animation) {
        (void)err_set(err, -ENOTSUP, "WebP: animated, which picture is meant?");
        return IMAGE_UNSUPPORTED;
    }
    if (config.input.width <= 0 || config.input.height <= 0)
        return fail(VP8_STATUS_BITSTREAM_ERROR, err);
    code = decode_size_picture(ret, (uint32_t)config.input.width, (uint32_t)config.input.height, limits, err);
    if (code != IMAGE_OK)
        return code;
    config.output.colorspace = MODE_RGB; /* alpha is dropped, not blended */
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = ret->rgb;
    config.output.u.RGBA.stride = config.input.width * 3;
    config.output.u.RGBA.size = (size_t)config.input.width * (size_t)config.input.height * 3;
    status = WebPDecode(bytes, n, &config);
    WebPFreeDecBuffer(&config.output);
    return status == VP8_STATUS_OK ? IMAGE_OK : fail(status, err);
}
