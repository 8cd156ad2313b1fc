#include "encoder_worker/jpeg_segments.h"

#include "encoder_worker/decode_formats.h"

#include <errno.h>
#include <stdbool.h>

enum {
    SOI = 0xd8,
    EOI = 0xd9,
    SOS = 0xda,
    RST0 = 0xd0,
    RST7 = 0xd7,
    JPG = 0xc8,
    JPG0 = 0xf0,
    JPG13 = 0xfd,
    APP0 = 0xe0
};

struct segment {
    uint8_t marker;
    const uint8_t *data;
    size_t n;
};

static bool begins(const struct segment *s, const char *word, size_t n)
{
    return s->n >= n && memcmp(s->data, word, n) == 0;
}

/* Image resources: each has a code, a name, a size and data. Pillow refuses only a segment that ends after a code. */
static bool photoshop_is_cut(const struct segment *s)
{
    size_t at = 14;

    while (s->n - at >= 6 && memcmp(s->data + at, "8BIM", 4) == 0) {
        size_t size;

        at += 6;
        if (at == s->n)
            return true;
        at += 1 + (size_t)s->data[at];
        at += at & 1;
        if (at + 4 > s->n)
            return false;
        size = decode_be32(s->data + at);
        at += 4 + size;
        at += at & 1;
        if (at > s->n)
            return false;
    }
    return false;
}

/* True if Pillow would refuse this header. */
static bool is_damaged(const struct segment *s)
{
    switch (s->marker) {
    case APP0:
        return begins(s, "JFIF", 4) && s->n < 7;
    case APP0 + 2:
        return begins(s, "ICC_PROFILE", 12) && s->n < 14;
    case APP0 + 13:
        return begins(s, "Photoshop 3.0", 14) && photoshop_is_cut(s);
    case APP0 + 14:
        return begins(s, "Adobe", 5) && s->n < 7;
    default:
        return false;
    }
}

static bool has_data(uint8_t marker)
{
    return !(marker >= RST0 && marker <= EOI) && marker != JPG && !(marker >= JPG0 && marker <= JPG13);
}

/* Returns the next marker and moves *at past it; skips fill bytes and bytes that are not a marker. 0 at the end of
 * the file. */
static uint8_t next_marker(const uint8_t *bytes, size_t n, size_t *at)
{
    for (size_t i = *at; i + 1 < n; i++) {
        if (bytes[i] != 0xff || bytes[i + 1] == 0xff || bytes[i + 1] == 0)
            continue;
        *at = i + 2;
        return bytes[i + 1];
    }
    return 0;
}

static void note_app1(const struct segment *s, struct orientation_source *ret)
{
    static const char xmp[] = "http://ns.adobe.com/xap/1.0/"; /* plus a NUL, as in the segment */

    if (begins(s, "Exif\0", 6) && !ret->exif) {
        ret->exif = s->data;
        ret->exif_bytes = s->n;
    } else if (begins(s, xmp, sizeof(xmp))) {
        ret->xmp = s->data + sizeof(xmp);
        ret->xmp_bytes = s->n - sizeof(xmp);
    }
}

static enum image_error truncated(struct err *err)
{
    (void)err_set(err, -EBADMSG, "JPEG: the file ends before the picture is complete");
    return IMAGE_TRUNCATED;
}

enum image_error jpeg_check_segments(const uint8_t *bytes, size_t n, struct orientation_source *ret_source,
                                     struct err *err)
{
    struct segment s;
    size_t at = 2;

    *ret_source = (struct orientation_source){0};
    while ((s.marker = next_marker(bytes, n, &at)) != SOS) {
        if (s.marker == 0)
            return truncated(err);
        if (s.marker < 0xc0) {
            (void)err_set(err, -EBADMSG, "JPEG: marker %02x before the picture", s.marker);
            return IMAGE_CORRUPT;
        }
        if (!has_data(s.marker))
            continue;
        if (n - at < 2)
            return truncated(err);
        s.data = bytes + at + 2;
        s.n = decode_be16(bytes + at) < 2 ? 0 : decode_be16(bytes + at) - 2;
        if (s.n > n - at - 2)
            return truncated(err);
        if (is_damaged(&s)) {
            (void)err_set(err, -EBADMSG, "JPEG: the segment of marker %02x is cut short", s.marker);
            return IMAGE_CORRUPT;
        }
        if (s.marker == APP0 + 1)
            note_app1(&s, ret_source);
        at += 2 + s.n;
    }
    return IMAGE_OK;
}
