#include "tests/unit/verdict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

/* From memory of exactly n bytes, so that a sanitizer sees a read behind the end. */
static enum image_error describe(const uint8_t *bytes, size_t n, bool turned, char *ret, struct err *err)
{
    struct decode_options options = DECODE_OPTIONS_DEFAULT;
    uint8_t *copy = malloc(n + !n);
    enum image_error code;
    struct picture p;

    if (!copy)
        abort();
    memcpy(copy, bytes, n);
    options.exif_orientation = turned;
    picture_init(&p, NULL);
    code = decode_picture(copy, n, &options, &p, err);
    free(copy);
    if (code == IMAGE_OK)
        (void)snprintf(ret, VERDICT_SIZE / 2, "%u %u %08lx", p.width, p.height,
                       crc32_z(0, p.rgb, (size_t)p.width * p.height * 3));
    picture_release(&p);
    return code;
}

void verdict(const uint8_t *bytes, size_t n, char ret[VERDICT_SIZE], struct err *err)
{
    char turned[VERDICT_SIZE / 2] = "";

    if (describe(bytes, n, false, ret, err) != IMAGE_OK || describe(bytes, n, true, turned, err) != IMAGE_OK)
        (void)snprintf(ret, VERDICT_SIZE, "refused");
    else if (strcmp(ret, turned) != 0)
        (void)snprintf(ret + strlen(ret), VERDICT_SIZE - strlen(ret), " turned %s", turned);
}
