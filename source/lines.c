#include "source/lines.h"

#include "source/source_kinds.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct foreign {
    const char *magic;
    size_t n, at;
    bool also_file; /* it may hold pictures: as a picture it is of no use either */
    const char *words;
} foreigners[] = {
    {"PAR1", 4, 0, true,
     "is a Parquet file; write its rows as JSONL, whose path names a picture (Python: "
     "pandas.read_parquet(FILE).to_json(LIST, orient='records', lines=True)), and give @LIST"},
    {"ARROW1", 6, 0, true, "is an Arrow file; write its rows as JSONL, whose path names a picture, and give @LIST"},
    {"ustar", 5, 257, true, "is a tar archive; unpack it (mkdir DIR && tar -xf FILE -C DIR) and give the folder"},
    {"PK\3\4", 4, 0, true, "is a ZIP archive; unpack it (unzip -d DIR FILE) and give the folder"},
    {"7z\xbc\xaf\x27\x1c", 6, 0, true, "is a 7z archive; unpack it and give the folder"},
    {"\x1f\x8b", 2, 0, true,
     "is packed by gzip; of an archive (.tar.gz) unpack the files and give the folder, of a list give @<(zcat FILE)"},
    {"BZh", 3, 0, true, "is packed by bzip2; unpack it first (a list: @<(bzcat FILE))"},
    {"\xfd\x37zXZ", 5, 0, true, "is packed by xz; unpack it first (a list: @<(xzcat FILE))"},
    {"\x28\xb5\x2f\xfd", 4, 0, true, "is packed by zstd; unpack it first (a list: @<(zstdcat FILE))"},
    {"version https://git-lfs", 23, 0, false,
     "is a pointer of Git LFS, not the file itself; get that with git lfs pull"},
    {"\xff\xfe\0\0", 4, 0, false, "is text in UTF-32; make it UTF-8: iconv -f utf-32 -t utf-8 FILE"},
    {"\xff\xfe", 2, 0, false, "is text in UTF-16; make it UTF-8: iconv -f utf-16 -t utf-8 FILE"},
    {"\xfe\xff", 2, 0, false, "is text in UTF-16; make it UTF-8: iconv -f utf-16 -t utf-8 FILE"},
    {"\xff\xd8\xff", 3, 0, false, "is a JPEG picture; give it without the @"},
    {"\x89PNG", 4, 0, false, "is a PNG picture; give it without the @"},
    {"RIFF", 4, 0, false, "is a picture or sound (RIFF), no list; give a picture without the @"},
    {"GIF8", 4, 0, false, "is a GIF picture, no list"},
    {"<!DOCTYPE", 9, 0, false, "is an HTML page, no list: did a download go wrong?"},
    {"<html", 5, 0, false, "is an HTML page, no list: did a download go wrong?"},
};

const char *lines_foreign(const void *head, size_t n, bool is_list)
{
    for (size_t i = 0; i < sizeof(foreigners) / sizeof(*foreigners); i++) {
        const struct foreign *f = &foreigners[i];

        if ((is_list || f->also_file) && n >= f->at + f->n && memcmp((const char *)head + f->at, f->magic, f->n) == 0)
            return f->words;
    }
    return NULL;
}

bool lines_is_url(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");

    return n > 1 && strncmp(text + n, "://", 3) == 0;
}

/* The folder that names start from, and the file. */
static int open_file(struct lines *l, const char *path, struct err *err)
{
    struct stat st;
    char *slash;
    int rc;

    if (strcmp(path, "-") == 0) {
        l->file = stdin;
        l->is_pipe = true;
        (void)snprintf(l->name, sizeof(l->name), "standard input");
        return source_absolute(".", l->base, err);
    }
    (void)snprintf(l->name, sizeof(l->name), "%s", path);
    l->file = fopen(path, "re");
    if (!l->file && lines_is_url(path))
        return err_set(err, -ENOENT, "%.300s: lists are not fetched over the network; download it first (curl -O URL)",
                       path);
    if (!l->file) {
        rc = -errno;
        return err_set(err, rc, "%.300s: cannot open the list: %s", path, strerror(-rc));
    }
    if (fstat(fileno(l->file), &st) < 0 || S_ISDIR(st.st_mode))
        return err_set(err, -EISDIR, "%.300s: is a folder, a list of paths is wanted after @", path);
    l->is_pipe = !S_ISREG(st.st_mode);
    if (l->is_pipe)
        return source_absolute(".", l->base, err);
    rc = source_absolute(path, l->base, err);
    if (rc < 0)
        return rc;
    slash = strrchr(l->base, '/');
    slash[slash == l->base] = '\0'; /* keep the slash of the root */
    return 0;
}

int lines_open(struct lines *l, const char *path, struct err *err)
{
    const char *foreign;
    int rc;

    l->file = NULL;
    l->line = NULL;
    l->n_head = l->i_head = l->bytes = l->capacity = 0;
    l->number = 0;
    l->is_pipe = false;
    rc = open_file(l, path, err);
    if (rc == 0) {
        l->n_head = fread(l->head, 1, sizeof(l->head), l->file);
        foreign = lines_foreign(l->head, l->n_head, true);
        if (foreign)
            rc = err_set(err, -EINVAL, "%.200s: %s (blipline help sources)", l->name, foreign);
        if (l->n_head >= 3 && memcmp(l->head, "\xef\xbb\xbf", 3) == 0)
            l->i_head = 3;
    }
    if (rc < 0)
        lines_close(l);
    return rc;
}

void lines_close(struct lines *l)
{
    if (l->file && l->file != stdin)
        (void)fclose(l->file);
    free(l->line);
    l->file = NULL;
    l->line = NULL;
}

char lines_first_byte(const struct lines *l)
{
    for (size_t i = l->i_head; i < l->n_head; i++)
        if (!strchr(" \t\r\n", l->head[i]) || !l->head[i])
            return l->head[i];
    return '\0';
}

static int next_byte(struct lines *l)
{
    return l->i_head < l->n_head ? (unsigned char)l->head[l->i_head++] : getc_unlocked(l->file);
}

static int grow(struct lines *l, struct err *err)
{
    size_t capacity = l->capacity ? 2 * l->capacity : 8192;
    char *line;

    if (l->capacity >= SOURCE_MAX_ROW_BYTES)
        return err_set(err, -EFBIG, "%s, line %" PRIu64 ": longer than %d MiB", l->name, l->number,
                       SOURCE_MAX_ROW_BYTES >> 20);
    line = realloc(l->line, capacity);
    if (!line)
        return err_set(err, -ENOMEM, "%s, line %" PRIu64 ": no memory for it", l->name, l->number);
    l->line = line;
    l->capacity = capacity;
    return 0;
}

int lines_next(struct lines *l, struct err *err)
{
    int c = 0, rc = 0;

    l->number++;
    l->bytes = 0;
    l->has_nul = false;
    while (rc == 0 && c != '\n' && (c = next_byte(l)) != EOF) {
        if (l->bytes + 2 > l->capacity)
            rc = grow(l, err);
        if (rc == 0)
            l->line[l->bytes++] = (char)c;
        l->has_nul |= c == '\0';
    }
    if (rc == 0 && c == EOF && ferror(l->file)) {
        int code = errno ? errno : EIO;

        rc = err_set(err, -code, "%s, line %" PRIu64 ": cannot read: %s", l->name, l->number, strerror(code));
    }
    if (rc < 0 || l->bytes == 0)
        return rc;
    l->line[l->bytes] = '\0';
    return 1;
}
