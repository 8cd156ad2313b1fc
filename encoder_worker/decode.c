#include "encoder_worker/decode.h"

#include "base/conf.h"
#include "encoder_worker/decode_formats.h"
#include "encoder_worker/orientation.h"
#include "source/file_kind.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The memory of an image above this size is freed after the next, smaller one, so that one huge image does not pin
 * memory in each process. */
#define KEEP_BYTES ((size_t)64 << 20)
#define GIANT_BYTES ((size_t)256 << 20)

void picture_init(struct picture *p, const struct picture_turn *turn)
{
    *p = (struct picture){.turn = turn ? *turn : (struct picture_turn){0}};
}

void picture_release(struct picture *p)
{
    picture_done(p);
    free(p->rgb);
    *p = (struct picture){0};
}

void picture_done(struct picture *p)
{
    if (!p->is_giant)
        return;
    free(p->rgb);
    p->rgb = NULL;
    p->capacity_bytes = 0;
    p->is_giant = false;
}

enum image_error decode_check_size(uint32_t width, uint32_t height, const struct decode_options *options,
                                   struct err *err)
{
    if (width == 0 || height == 0) {
        (void)err_set(err, -EBADMSG, "the header says %" PRIu32 "x%" PRIu32 " pixels", width, height);
        return IMAGE_CORRUPT;
    }
    if ((uint64_t)width * height > options->max_pixels || (uint64_t)width * height > SIZE_MAX / 3) {
        (void)err_set(err, -EFBIG, "%" PRIu32 "x%" PRIu32 " pixels; --max-pixels is %" PRIu64, width, height,
                      options->max_pixels);
        return IMAGE_TOO_MANY_PIXELS;
    }
    if (width > DECODE_MAX_DIMENSION || height > DECODE_MAX_DIMENSION) {
        (void)err_set(err, -EFBIG, "%" PRIu32 "x%" PRIu32 " pixels; the limit is %u per side", width, height,
                      DECODE_MAX_DIMENSION);
        return IMAGE_TOO_MANY_PIXELS;
    }
    return IMAGE_OK;
}

enum image_error decode_size_picture(struct picture *p, uint32_t width, uint32_t height,
                                     const struct decode_options *options, struct err *err)
{
    enum image_error code = decode_check_size(width, height, options, err);
    size_t need = (size_t)width * height * 3;

    if (code != IMAGE_OK)
        return code;
    if (need > GIANT_BYTES && p->turn.wait && !p->is_giant) {
        p->turn.wait(p->turn.arg);
        p->is_giant = true;
    }
    if (need > p->capacity_bytes || (p->capacity_bytes > KEEP_BYTES && need < p->capacity_bytes / 2)) {
        free(p->rgb);
        p->capacity_bytes = 0;
        p->rgb = malloc(need);
        if (!p->rgb) {
            (void)err_set(err, -ENOMEM, "no memory for %" PRIu32 "x%" PRIu32 " pixels", width, height);
            return IMAGE_NO_MEMORY;
        }
        p->capacity_bytes = need;
    }
    p->width = width;
    p->height = height;
    return IMAGE_OK;
}

enum image_error decode_picture(const uint8_t *bytes, size_t n, const struct decode_options *options,
                                struct picture *ret, struct err *err)
{
    char limit[CONF_SIZE_TEXT];
    enum image_error code;

    ret->width = ret->height = 0;
    ret->orientation = 1;
    if (n == 0) {
        (void)err_set(err, -ENODATA, "the file is empty");
        return IMAGE_EMPTY;
    }
    if (n > options->max_file_bytes) {
        (void)err_set(err, -EFBIG, "the file is larger than --max-file-size, which is %s",
                      conf_size_text(options->max_file_bytes, limit));
        return IMAGE_TOO_LARGE;
    }
    if (n >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0)
        code = decode_jpeg(bytes, n, options, ret, err);
    else if (n >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0)
        code = decode_png(bytes, n, options, ret, err);
    else if (n >= 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBP", 4) == 0)
        code = decode_webp(bytes, n, options, ret, err);
    else {
        (void)err_set(err, -EBADMSG, "the file is %s; only JPEG, PNG and WebP are supported", file_kind(bytes, n));
        code = IMAGE_UNKNOWN_FORMAT;
    }
    if (code == IMAGE_OK && options->exif_orientation)
        code = orientation_apply(ret, ret->orientation, err);
    if (code != IMAGE_OK)
        ret->width = ret->height = 0;
    return code;
}
