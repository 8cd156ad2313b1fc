#include "source/image_error.h"

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
};

const char *image_error_name(enum image_error code)
{
    return (unsigned)code < IMAGE_N_ERRORS ? names[code] : "unknown";
}
