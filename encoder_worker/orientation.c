#include "encoder_worker/orientation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TAG_ORIENTATION = 0x112, ENTRY_BYTES = 12 };

#define NOT_SAID UINT32_MAX

/* EXIF data is a TIFF file, with numbers of either byte order. */
struct tiff {
    const uint8_t *bytes;
    size_t n;
    bool big_endian;
};

static uint32_t number(const struct tiff *t, size_t at, size_t n_bytes)
{
    uint32_t v = 0;

    for (size_t i = 0; i < n_bytes && at < t->n && n_bytes <= t->n - at; i++)
        v |= (uint32_t)t->bytes[at + i] << 8 * (t->big_endian ? n_bytes - 1 - i : i);
    return v;
}

/* The first SHORT or LONG of an entry; 0 for other types. */
static uint32_t entry_value(const struct tiff *t, size_t entry)
{
    const uint32_t type = number(t, entry + 2, 2), count = number(t, entry + 4, 4);
    const size_t size = type == 3 || type == 8 ? 2 : type == 4 || type == 9 ? 4 : 0;
    const bool is_inside = (uint64_t)size * count <= 4;

    return count ? number(t, is_inside ? entry + 8 : number(t, entry + 8, 4), size) : 0;
}

static uint32_t of_exif(const uint8_t *exif, size_t n)
{
    uint32_t orientation = NOT_SAID, n_entries;
    struct tiff t;
    size_t at;

    while (n >= 6 && memcmp(exif, "Exif\0\0", 6) == 0) {
        exif += 6;
        n -= 6;
    }
    if (n < 8 || (memcmp(exif, "II", 2) != 0 && memcmp(exif, "MM", 2) != 0))
        return NOT_SAID;
    t = (struct tiff){.bytes = exif, .n = n, .big_endian = *exif == 'M'};
    if (number(&t, 2, 2) != 42)
        return NOT_SAID;
    at = number(&t, 4, 4);
    n_entries = number(&t, at, 2);
    at += 2;
    for (uint32_t i = 0; i < n_entries && at <= n && n - at >= ENTRY_BYTES; i++, at += ENTRY_BYTES)
        if (number(&t, at, 2) == TAG_ORIENTATION)
            orientation = entry_value(&t, at);
    return orientation;
}

/* tiff:Orientation="6" or <tiff:Orientation>6. */
static uint32_t of_xmp(const uint8_t *xmp, size_t n)
{
    static const char name[] = "tiff:Orientation";
    const uint8_t *at = xmp, *end = n ? xmp + n : xmp; /* NULL + 0 is undefined */

    while (n && (at = memmem(at, (size_t)(end - at), name, sizeof(name) - 1))) {
        at += sizeof(name) - 1;
        const size_t skip = end - at > 2 && memcmp(at, "=\"", 2) == 0 ? 2 : end - at > 1 && *at == '>' ? 1 : 0;

        if (skip && at[skip] >= '0' && at[skip] <= '9')
            return at[skip] - '0';
    }
    return NOT_SAID;
}

int orientation_of(const struct orientation_source *s)
{
    uint32_t orientation = of_exif(s->exif, s->exif_bytes);

    if (orientation == NOT_SAID)
        orientation = of_xmp(s->xmp, s->xmp_bytes);
    return orientation >= 1 && orientation <= 8 ? (int)orientation : 1;
}

enum image_error orientation_apply(struct picture *p, int orientation, struct err *err)
{
    const ptrdiff_t w = (ptrdiff_t)p->width, h = (ptrdiff_t)p->height;
    /* the source of the first pixel, and the distance in pixels to that of the next column and row */
    const struct {
        ptrdiff_t first, column, row;
    } steps[9] = {{0},
                  {0, 1, w},
                  {w - 1, -1, w},
                  {w * h - 1, -1, -w},
                  {(h - 1) * w, 1, -w},
                  {0, w, 1},
                  {(h - 1) * w, -w, 1},
                  {w * h - 1, -w, -1},
                  {w - 1, w, -1}},
      s = steps[orientation];
    const ptrdiff_t out_w = orientation > 4 ? h : w, out_h = orientation > 4 ? w : h;
    enum { BLOCK = 16 }; /* rows at a time, so that the source is read along its rows */
    uint8_t *out;

    if (orientation == 1)
        return IMAGE_OK;
    out = malloc((size_t)w * (size_t)h * 3);
    if (!out) {
        (void)err_set(err, -ENOMEM, "no memory to rotate %ux%u pixels", p->width, p->height);
        return IMAGE_NO_MEMORY;
    }
    for (ptrdiff_t y0 = 0; y0 < out_h; y0 += BLOCK)
        for (ptrdiff_t x = 0; x < out_w; x++)
            for (ptrdiff_t y = y0; y < y0 + BLOCK && y < out_h; y++)
                memcpy(out + (y * out_w + x) * 3, p->rgb + (s.first + x * s.column + y * s.row) * 3, 3);
    free(p->rgb);
    p->rgb = out;
    p->width = (uint32_t)out_w;
    p->height = (uint32_t)out_h;
    p->capacity_bytes = (size_t)w * (size_t)h * 3;
    return IMAGE_OK;
}
