/* Any bytes decode to a picture within the limits or to a reason, and a picture can be resized. */
#include "encoder_worker/decode.h"
#include "encoder_worker/resize.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct decode_options options = {
        .max_file_bytes = 1 << 20, .max_pixels = 1 << 20, .exif_orientation = true};
    static uint8_t out[16 * 16 * 3];
    static struct picture p;
    static struct resize *r;
    struct err err = {""};
    enum image_error code;

    if (!r && resize_new(&r) < 0)
        return 0;
    code = decode_picture(data, n, &options, &p, &err);
    if (code == IMAGE_OK) {
        if ((uint64_t)p.width * p.height > options.max_pixels ||
            resize_rgb(r, p.rgb, p.width, p.height, out, 16, 16) < 0)
            abort();
    } else if (p.width || p.height || !err.text[0]) {
        abort();
    }
    return 0;
}
