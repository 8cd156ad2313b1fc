#include "source/lines.h"

#include "source/file_kind.h"
#include "source/source_kinds.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool lines_is_url(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");

    return n > 1 && strncmp(text + n, "://", 3) == 0;
}

/* Opens the file and sets the folder for relative names. */
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
        return err_set(err, -ENOENT, "%.300s: lists are not downloaded; download it first (curl -O URL)", path);
    if (!l->file) {
        rc = -errno;
        return err_set(err, rc, "%.300s: cannot open the list: %s", path, strerror(-rc));
    }
    if (fstat(fileno(l->file), &st) < 0 || S_ISDIR(st.st_mode))
        return err_set(err, -EISDIR, "%.300s: is a folder; give a list of paths after @", path);
    l->is_pipe = !S_ISREG(st.st_mode);
    if (l->is_pipe)
        return source_absolute(".", l->base, err);
    rc = source_absolute(path, l->base, err);
    if (rc < 0)
        return rc;
    slash = strrchr(l->base, '/');
    slash[slash == l->base] = '\0'; /* keep the root's slash */
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
        foreign = file_kind_foreign(l->head, l->n_head, true);
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
