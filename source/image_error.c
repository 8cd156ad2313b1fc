#include "source/image_error.h"

#include <string.h>

static const char *const names[IMAGE_N_ERRORS] = {
    [IMAGE_OK] = "ok",
    [IMAGE_MISSING] = "missing",
    [IMAGE_UNREADABLE] = "unreadable",
    [IMAGE_EMPTY] = "empty",
    [IMAGE_TOO_LARGE] = "too_large",
    [IMAGE_UNKNOWN_FORMAT] = "unknown_format",
    [IMAGE_UNSUPPORTED] = "unsupported",
    [IMAGE_TRUNCATED] = "truncated",
    [IMAGE_CORRUPT] = "corrupt",
    [IMAGE_TOO_MANY_PIXELS] = "too_many_pixels",
    [IMAGE_NO_MEMORY] = "no_memory",
    [IMAGE_URL] = "url",
    [IMAGE_NO_PICTURE] = "no_picture",
    [IMAGE_BAD_ROW] = "bad_row",
    [IMAGE_DECODER_CRASHED] = "decoder_crashed",
    [IMAGE_DECODER_TIMEOUT] = "decoder_timeout",
    [IMAGE_DECODER_MEMORY] = "decoder_memory",
};

const char *image_error_name(enum image_error code)
{
    return (unsigned)code < IMAGE_N_ERRORS ? names[code] : "unknown";
}

enum image_error image_error_of(const char *name)
{
    for (unsigned i = 0; i < IMAGE_N_ERRORS; i++)
        if (strcmp(names[i], name) == 0)
            return (enum image_error)i;
    return IMAGE_BAD_ROW;
}
