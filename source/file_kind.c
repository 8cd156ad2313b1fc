#include "source/file_kind.h"

#include <string.h>
#include <strings.h>

enum { LOOK_BYTES = 512 };

/* The first match counts. */
static const struct magic {
    const char *bytes;
    const char *kind;    /* the unsupported kind; NULL: distinguished below */
    const char *no_list; /* why it is not a list, with the cure; NULL: decided by its lines */
    uint16_t at;
    uint8_t n;
    bool holds_files; /* it may hold images, so the cure is given for an image too */
} magics[] = {
#define MAGIC(text, offset, name, ...)                                                \
    {                                                                                 \
        .bytes = text, .n = sizeof(text) - 1, .at = offset, .kind = name, __VA_ARGS__ \
    }
    MAGIC("ustar", 257, "a tar archive", .holds_files = true,
          .no_list = "is a tar archive; unpack it (mkdir DIR && tar -xf FILE -C DIR) and give the folder"),
    MAGIC("\x89PNG", 0, "a PNG picture that was damaged by a transfer as text",
          .no_list = "is a PNG picture; give it without the @"),
    MAGIC("GIF8", 0, "a GIF picture", .no_list = "is a GIF picture, not a list"),
    MAGIC("ftypavif", 4, "an AVIF picture"),
    MAGIC("ftypavis", 4, "an AVIF animation"),
    MAGIC("ftyphe", 4, "a HEIC picture"),
    MAGIC("ftypmif1", 4, "a HEIF picture"),
    MAGIC("ftypmsf1", 4, "a HEIF picture"),
    MAGIC("ftypcrx ", 4, "a Canon raw picture"),
    MAGIC("ftypqt", 4, "a QuickTime film"),
    MAGIC("ftyp3g", 4, "a 3GP film"),
    MAGIC("ftyp", 4, "an MP4 film"),
    MAGIC("moov", 4, "a QuickTime film"),
    MAGIC("mdat", 4, "a QuickTime film"),
    MAGIC("FUJIFILM", 0, "a Fujifilm raw picture"),
    MAGIC("II*\0\x10\0\0\0CR", 0, "a Canon raw picture"),
    MAGIC("II*\0", 0, "a TIFF picture"),
    MAGIC("MM\0*", 0, "a TIFF picture"),
    MAGIC("II+\0", 0, "a TIFF picture"),
    MAGIC("MM\0+", 0, "a TIFF picture"),
    MAGIC("BM", 0, "a BMP picture"),
    MAGIC("\0\0\1\0", 0, "an ICO picture"),
    MAGIC("\0\0\2\0", 0, "a CUR picture"),
    MAGIC("icns", 0, "an ICNS picture"),
    MAGIC("8BPS", 0, "a Photoshop (PSD) picture"),
    MAGIC("\xff\x0a", 0, "a JPEG XL picture"),
    MAGIC("\0\0\0\x0cJXL \r\n\x87\n", 0, "a JPEG XL picture"),
    MAGIC("\0\0\0\x0cjP  \r\n\x87\n", 0, "a JPEG 2000 picture"),
    MAGIC("\xff\x4f\xff\x51", 0, "a JPEG 2000 picture"),
    MAGIC("gimp xcf", 0, "a GIMP (XCF) picture"),
    MAGIC("qoif", 0, "a QOI picture"),
    MAGIC("DDS ", 0, "a DDS picture"),
    MAGIC("#?RADIANCE", 0, "a Radiance HDR picture"),
    MAGIC("v/1\x01", 0, "an OpenEXR picture"),
    MAGIC("SIMPLE  =", 0, "a FITS picture"),
    MAGIC("\x8aMNG\r\n\x1a\n", 0, "an MNG animation"),
    MAGIC("AT&TFORM", 0, "a DjVu document"),
    MAGIC("DICM", 128, "a DICOM picture"),
    MAGIC("%PDF-", 0, "a PDF document"),
    MAGIC("%!PS", 0, "a PostScript document"),
    MAGIC("\xc5\xd0\xd3\xc6", 0, "an EPS document"),
    MAGIC("{\\rtf", 0, "an RTF document"),
    MAGIC("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0, "an Office document"),
    MAGIC("PAR1", 0, "a Parquet table", .holds_files = true,
          .no_list = "is a Parquet file; write its rows as JSONL, whose path names a picture (Python: "
                     "pandas.read_parquet(FILE).to_json(LIST, orient='records', lines=True)), and give @LIST"),
    MAGIC("SQLite format 3\0", 0, "an SQLite database"),
    MAGIC("\x89HDF\r\n\x1a\n", 0, "an HDF5 file"),
    MAGIC("\x93NUMPY", 0, "a NumPy array"),
    MAGIC("PK\3\4", 0, "a zip archive", .holds_files = true,
          .no_list = "is a ZIP archive; unpack it (unzip -d DIR FILE) and give the folder"),
    MAGIC("PK\5\6", 0, "an empty zip archive"),
    MAGIC("\x1f\x8b", 0, "gzip-compressed", .holds_files = true,
          .no_list = "is compressed with gzip; unpack an archive (.tar.gz) and give the folder; give a list as "
                     "@<(zcat FILE)"),
    MAGIC("BZh", 0, "bzip2-compressed", .holds_files = true,
          .no_list = "is compressed with bzip2; unpack it first (a list: @<(bzcat FILE))"),
    MAGIC("\3757zXZ\0", 0, "xz-compressed", .holds_files = true,
          .no_list = "is compressed with xz; unpack it first (a list: @<(xzcat FILE))"),
    MAGIC("\x28\xb5\x2f\xfd", 0, "zstd-compressed", .holds_files = true,
          .no_list = "is compressed with zstd; unpack it first (a list: @<(zstdcat FILE))"),
    MAGIC("7z\xbc\xaf\x27\x1c", 0, "a 7z archive", .holds_files = true,
          .no_list = "is a 7z archive; unpack it and give the folder"),
    MAGIC("Rar!\x1a\7", 0, "a RAR archive"),
    MAGIC("\x1a\x45\xdf\xa3", 0, "a Matroska or WebM film"),
    MAGIC("\0\0\1\xba", 0, "an MPEG film"),
    MAGIC("\0\0\1\xb3", 0, "an MPEG film"),
    MAGIC("FLV\1", 0, "a Flash film"),
    MAGIC("ID3", 0, "an MP3 sound"),
    MAGIC("OggS", 0, "an Ogg sound or film"),
    MAGIC("fLaC", 0, "a FLAC sound"),
    MAGIC("\177ELF", 0, "a program"),
    MAGIC("MZ", 0, "a Windows program"),
    MAGIC("version https://git-lfs", 0, "a Git LFS pointer, not the picture itself",
          .no_list = "is a Git LFS pointer, not the file itself; get the file with git lfs pull"),
    MAGIC("ARROW1", 0, NULL, .holds_files = true,
          .no_list = "is an Arrow file; write its rows as JSONL, whose path names a picture, and give @LIST"),
    MAGIC("\xff\xfe\0\0", 0, NULL, .no_list = "is text in UTF-32; make it UTF-8: iconv -f utf-32 -t utf-8 FILE"),
    MAGIC("\xff\xfe", 0, NULL, .no_list = "is text in UTF-16; make it UTF-8: iconv -f utf-16 -t utf-8 FILE"),
    MAGIC("\xfe\xff", 0, NULL, .no_list = "is text in UTF-16; make it UTF-8: iconv -f utf-16 -t utf-8 FILE"),
    MAGIC("\xff\xd8\xff", 0, NULL, .no_list = "is a JPEG picture; give it without the @"),
    MAGIC("RIFF", 0, NULL, .no_list = "is a picture or sound (RIFF), not a list; give a picture without the @"),
    MAGIC("<!DOCTYPE", 0, NULL, .no_list = "is an HTML page, no list: did a download go wrong?"),
    MAGIC("<html", 0, NULL, .no_list = "is an HTML page, no list: did a download go wrong?"),
#undef MAGIC
};

static bool fits(const struct magic *m, const void *bytes, size_t n)
{
    return n >= (size_t)m->at + m->n && memcmp((const char *)bytes + m->at, m->bytes, m->n) == 0;
}

/* Skips a byte order mark and white space. */
static const char *skip_blank(const char *text)
{
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0)
        text += 3;
    return text + strspn(text, " \t\r\n");
}

static const char *kind_of_text(const char *text)
{
    static const struct {
        const char *begin, *kind;
    } begins[] = {
        {"<!doctype html", "an HTML page"},  {"<html", "an HTML page"},  {"<head", "an HTML page"},
        {"<body", "an HTML page"},           {"<svg", "an SVG picture"}, {"<!doctype svg", "an SVG picture"},
        {"<Error>", "an XML error message"},
    };
    const char *at = skip_blank(text);

    for (size_t i = 0; i < sizeof(begins) / sizeof(*begins); i++)
        if (strncasecmp(at, begins[i].begin, strlen(begins[i].begin)) == 0)
            return begins[i].kind;
    if (strncasecmp(at, "<?xml", 5) == 0 || strncmp(at, "<!--", 4) == 0)
        return strcasestr(at, "<svg") ? "an SVG picture" : strcasestr(at, "<html") ? "an HTML page" : "an XML document";
    return *at == '{' || *at == '[' ? "JSON text" : "a text file";
}

static bool is_text(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i] == 0x7f || (bytes[i] < ' ' && !(bytes[i] >= '\t' && bytes[i] <= '\r') && bytes[i] != 0x1b))
            return false;
    return true;
}

static bool is_zeros(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i])
            return false;
    return true;
}

const char *file_kind(const uint8_t *bytes, size_t n)
{
    char text[LOOK_BYTES + 1];
    size_t n_text = n < LOOK_BYTES ? n : LOOK_BYTES;

    if (n >= 12 && memcmp(bytes, "RIFF", 4) == 0)
        return memcmp(bytes + 8, "AVI ", 4) == 0   ? "an AVI film"
               : memcmp(bytes + 8, "WAVE", 4) == 0 ? "a WAV sound"
                                                   : "a RIFF file";
    for (size_t i = 0; i < sizeof(magics) / sizeof(*magics); i++) {
        const struct magic *m = &magics[i];

        if (m->n < 3 && is_text(bytes, n_text)) /* a text may begin with these */
            continue;
        if (m->kind && fits(m, bytes, n))
            return m->kind;
    }
    if (n >= 3 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '7' && (bytes[2] == '\n' || bytes[2] == ' '))
        return "a Netpbm (PNM) picture";
    if (is_zeros(bytes, n))
        return "nothing but zeros";
    if (memmem(bytes, n_text, "\xff\xd8\xff", 3) || memmem(bytes, n_text, "\x89PNG\r\n", 6))
        return "a picture with other bytes in front of it";
    if (!is_text(bytes, n_text))
        return "of an unknown kind";
    memcpy(text, bytes, n_text);
    text[n_text] = '\0';
    return kind_of_text(text);
}

const char *file_kind_foreign(const void *bytes, size_t n, bool is_list)
{
    for (size_t i = 0; i < sizeof(magics) / sizeof(*magics); i++)
        if (magics[i].no_list && (is_list || magics[i].holds_files) && fits(&magics[i], bytes, n))
            return magics[i].no_list;
    return NULL;
}
