#include "encoder_worker/png_chunks.h"

#include "encoder_worker/decode_formats.h"

#include <errno.h>
#include <string.h>

#include <zlib.h>

/* Pillow's limits on compressed text and profiles: of one of them uncompressed, and of all text together. */
#define MAX_UNPACKED_BYTES ((size_t)1 << 20)
#define MAX_TEXT_BYTES ((size_t)64 << 20)

enum { HEAD_BYTES = 8, CHECKSUM_BYTES = 4 };

static bool is_name_letter(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool png_chunk_at(const struct png_file *f, size_t at, struct png_chunk *ret)
{
    if (at > f->n || f->n - at < HEAD_BYTES)
        return false;
    memcpy(ret->kind, f->bytes + at + 4, 4);
    ret->kind[4] = '\0';
    for (int i = 0; i < 4; i++)
        if (!is_name_letter((uint8_t)ret->kind[i]))
            return false;
    ret->length = decode_be32(f->bytes + at);
    at += HEAD_BYTES;
    ret->data = f->bytes + at;
    ret->available = ret->length < f->n - at ? ret->length : f->n - at;
    ret->end = at + ret->length;
    return true;
}

static bool is(const struct png_chunk *c, const char *kind)
{
    return memcmp(c->kind, kind, 4) == 0;
}

static enum image_error bad(const struct png_chunk *c, const char *what, struct err *err)
{
    (void)err_set(err, -EBADMSG, "PNG: chunk %s %s", c->kind, what);
    return IMAGE_CORRUPT;
}

/* -- text and profiles -- */

/* The uncompressed size of a zlib stream, 0 if it is damaged. False if it is above the limit. */
static bool unpacked_bytes(const uint8_t *bytes, size_t n, size_t *ret)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)n};
    uint8_t out[16384];
    int rc = inflateInit(&z);

    *ret = 0;
    if (rc != Z_OK)
        return true;
    while (rc == Z_OK && z.total_out < MAX_UNPACKED_BYTES) {
        z.next_out = out;
        z.avail_out = sizeof(out);
        rc = inflate(&z, Z_SYNC_FLUSH);
    }
    if (rc >= 0 || rc == Z_BUF_ERROR)
        *ret = z.total_out;
    (void)inflateEnd(&z);
    return rc != Z_OK || z.avail_in == 0;
}

static enum image_error count_text(struct png_file *f, const struct png_chunk *c, size_t n, struct err *err)
{
    f->text_bytes += n;
    return f->text_bytes > MAX_TEXT_BYTES ? bad(c, "is more text than the limit of 64 MiB", err) : IMAGE_OK;
}

/* A name, a NUL, then a method and compressed bytes. A profile may lack the name but not the method. */
static enum image_error take_packed(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    const uint8_t *nul = memchr(c->data, '\0', c->length);
    size_t at = nul ? (size_t)(nul - c->data) + 1 : is(c, "iCCP") ? 0 : c->length, n;

    if (at == c->length)
        return is(c, "iCCP") ? bad(c, "is cut short", err) : IMAGE_OK;
    if (c->data[at] != 0)
        return bad(c, "uses an unknown compression method", err);
    if (!unpacked_bytes(c->data + at + 1, c->length - at - 1, &n))
        return bad(c, "is larger than 1 MiB unpacked, the limit", err);
    return is(c, "iCCP") || nul == c->data ? IMAGE_OK : count_text(f, c, n, err);
}

static enum image_error take_text(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    const uint8_t *nul = memchr(c->data, '\0', c->length);

    return nul && nul > c->data ? count_text(f, c, c->length - (size_t)(nul - c->data) - 1, err) : IMAGE_OK;
}

/* A name, a compression flag, the method, a language, the translated name, the text. Damaged ones are ignored. */
static enum image_error take_international(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    const uint8_t *end = c->data + c->length, *name_end = memchr(c->data, '\0', c->length), *at = name_end;
    size_t n;

    if (!at || end - at < 3)
        return IMAGE_OK;
    at += 2;
    for (int i = 0; i < 2; i++) {
        at = memchr(at + 1, '\0', (size_t)(end - at) - 1);
        if (!at)
            return IMAGE_OK;
    }
    at++;
    n = (size_t)(end - at);
    if (name_end[1] != 0) {
        if (name_end[2] != 0)
            return IMAGE_OK;
        if (!unpacked_bytes(at, n, &n))
            return bad(c, "is larger than 1 MiB unpacked, the limit", err);
    } else if (strcmp((const char *)c->data, "XML:com.adobe.xmp") == 0) { /* the data has a NUL */
        f->source.xmp = at;
        f->source.xmp_bytes = n;
    }
    return count_text(f, c, n, err);
}

/* -- image chunks -- */

static bool is_legal(uint8_t depth, uint8_t color)
{
    static const uint8_t depths[7] = {1 | 2 | 4 | 8 | 16, 0, 8 | 16, 1 | 2 | 4 | 8, 8 | 16, 0, 8 | 16};

    return color < 7 && depth && (depth & (depth - 1)) == 0 && (depths[color] & depth);
}

/* The last header counts, unless its pixel format is invalid. */
static enum image_error take_header(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    if (c->length < 13)
        return bad(c, "is cut short", err);
    if (c->data[11])
        return bad(c, "uses an unknown filter method", err);
    f->width = decode_be32(c->data);
    f->height = decode_be32(c->data + 4);
    if (is_legal(c->data[8], c->data[9])) {
        f->depth = c->data[8];
        f->color = c->data[9];
    }
    f->interlaced |= c->data[12] != 0;
    return IMAGE_OK;
}

static enum image_error take_palette(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    (void)err;
    if (f->color == 3) {
        f->palette = c->data;
        f->palette_bytes = c->length;
    }
    return IMAGE_OK;
}

static enum image_error take_transparency(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    size_t want = f->depth == 0 ? 0 : f->color == 0 ? 2 : f->color == 2 ? 6 : 0, n_zero = 0, n_full = 0;

    for (size_t i = 0; i < c->length; i++) {
        n_zero += c->data[i] == 0;
        n_full += c->data[i] == 255;
    }
    f->one_transparent = f->color == 3 && n_zero == 1 && n_zero + n_full == c->length;
    return c->length < want ? bad(c, "is cut short", err) : IMAGE_OK;
}

static enum image_error take_exif(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    (void)err;
    f->source.exif = c->data;
    f->source.exif_bytes = c->length;
    return IMAGE_OK;
}

static enum image_error take_chromaticities(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    (void)f;
    return c->length % 4 ? bad(c, "is cut short", err) : IMAGE_OK;
}

/* -- animation -- */

static enum image_error take_frame_count(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    uint32_t n = decode_be32(c->data);

    (void)err;
    if (f->n_frames) /* a second acTL: the file is read as a still image */
        f->n_frames = 0;
    else if (n <= 0x80000000U)
        f->n_frames = n;
    return IMAGE_OK;
}

static enum image_error next_in_sequence(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    if ((int64_t)decode_be32(c->data) != f->sequence + 1)
        return bad(c, "is out of sequence", err);
    f->sequence++;
    return IMAGE_OK;
}

static enum image_error take_frame(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    uint64_t w = decode_be32(c->data + 4), h = decode_be32(c->data + 8), x = decode_be32(c->data + 12),
             y = decode_be32(c->data + 16);
    enum image_error code = next_in_sequence(f, c, err);

    if (code != IMAGE_OK)
        return code;
    if (x + w > f->width || y + h > f->height)
        return bad(c, "has a frame that is larger than the picture", err);
    if (!f->data_at && (w != f->width || h != f->height))
        return bad(c, "has a first frame that is smaller than the picture", err);
    return IMAGE_OK;
}

static enum image_error take_frame_data(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    return f->sequence < 0 ? bad(c, "belongs to no frame", err) : next_in_sequence(f, c, err);
}

/* Reads the chunks that Pillow reads; others may contain anything. */
static enum image_error take(struct png_file *f, const struct png_chunk *c, struct err *err)
{
    static const struct {
        const char *kind;
        size_t min_bytes;
        enum image_error (*take)(struct png_file *, const struct png_chunk *, struct err *);
    } known[] = {
        {"IHDR", 13, take_header},
        {"PLTE", 0, take_palette},
        {"tRNS", 0, take_transparency},
        {"gAMA", 4, NULL},
        {"cHRM", 0, take_chromaticities},
        {"sRGB", 1, NULL},
        {"pHYs", 9, NULL},
        {"iCCP", 1, take_packed},
        {"tEXt", 0, take_text},
        {"zTXt", 0, take_packed},
        {"iTXt", 0, take_international},
        {"eXIf", 0, take_exif},
        {"acTL", 8, take_frame_count},
        {"fcTL", 26, take_frame},
        {"fdAT", 4, take_frame_data},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (!is(c, known[i].kind))
            continue;
        if (c->length < known[i].min_bytes)
            return bad(c, "is cut short", err);
        return known[i].take ? known[i].take(f, c, err) : IMAGE_OK;
    }
    return IMAGE_OK;
}

static enum image_error truncated(struct err *err)
{
    (void)err_set(err, -EBADMSG, "PNG: the file ends before the picture is complete");
    return IMAGE_TRUNCATED;
}

static enum image_error check_sum(const struct png_file *f, const struct png_chunk *c, struct err *err)
{
    if (c->end > f->n || f->n - c->end < CHECKSUM_BYTES)
        return truncated(err);
    if (decode_be32(f->bytes + c->end) != crc32_z(0, c->data - 4, c->length + 4))
        return bad(c, "does not match its checksum", err);
    return IMAGE_OK;
}

enum image_error png_read_head(const uint8_t *bytes, size_t n, struct png_file *ret, struct err *err)
{
    struct png_chunk c;
    size_t at = 8;

    *ret = (struct png_file){.bytes = bytes, .n = n, .sequence = -1};
    for (; png_chunk_at(ret, at, &c); at = c.end + CHECKSUM_BYTES) {
        enum image_error code;

        if (is(&c, "IDAT")) {
            ret->data_at = at;
            return IMAGE_OK;
        }
        if (is(&c, "IEND") || is(&c, "fdAT"))
            return bad(&c, "comes before the picture", err);
        code = c.available < c.length ? truncated(err) : take(ret, &c, err);
        if (code == IMAGE_OK)
            code = check_sum(ret, &c, err);
        if (code != IMAGE_OK)
            return code;
        ret->has_frame |= is(&c, "fcTL");
    }
    if (n < at + HEAD_BYTES)
        return truncated(err);
    (void)err_set(err, -EBADMSG, "PNG: there is no chunk at byte %zu", at);
    return IMAGE_CORRUPT;
}

enum image_error png_read_tail(struct png_file *f, size_t at, struct err *err)
{
    const bool animated = f->n_frames && f->n_frames + !f->has_frame > 1;
    struct png_chunk c;

    for (; png_chunk_at(f, at, &c); at = c.end + CHECKSUM_BYTES) {
        enum image_error code;

        if (is(&c, "IEND") || (animated && is(&c, "fcTL")))
            return IMAGE_OK;
        code = c.available < c.length ? truncated(err) : take(f, &c, err);
        if (code != IMAGE_OK)
            return code;
    }
    return IMAGE_OK;
}
