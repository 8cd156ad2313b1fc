/* A text file that names one picture a line. It is read as a stream, a line at a time. */
#include "source/source_kinds.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct source_list {
    struct source source; /* first */
    FILE *file;
    bool examine;
    uint64_t line_number;
    char base[PATH_MAX]; /* folder that relative lines start from */
    char name[256];      /* for messages */
    char line[PATH_MAX + 2];
    char path[PATH_MAX];
};

/* One line into l->line without its end. 1, 0 at the end of the file, negative. Memory stays bounded whatever the line
 * is. */
static int read_line(struct source_list *l, struct err *err)
{
    size_t n = 0;
    bool has_nul = false;
    int c;

    l->line_number++;
    while ((c = getc_unlocked(l->file)) != EOF && c != '\n') {
        if (n > PATH_MAX)
            return err_set(err, -ENAMETOOLONG, "%s, line %" PRIu64 ": longer than any path (%d bytes)", l->name,
                           l->line_number, PATH_MAX - 1);
        has_nul |= c == '\0';
        l->line[n++] = (char)c;
    }
    if (c == EOF && ferror(l->file)) {
        int rc = -errno;

        return err_set(err, rc ? rc : -EIO, "%s, line %" PRIu64 ": cannot read: %s", l->name, l->line_number,
                       strerror(-rc));
    }
    if (c == EOF && n == 0)
        return 0;
    if (has_nul)
        return err_set(err, -EINVAL, "%s, line %" PRIu64 ": holds a NUL byte, is this a list of paths?", l->name,
                       l->line_number);
    if (n && l->line[n - 1] == '\r')
        n--;
    l->line[n] = '\0';
    return 1;
}

static int list_next(struct source *s, struct source_item *ret, struct err *err)
{
    struct source_list *l = (struct source_list *)s;
    int rc;

    do {
        rc = read_line(l, err);
        if (rc <= 0)
            return rc;
    } while (!l->line[0]);
    rc = source_join(l->base, l->line, l->path);
    if (rc < 0)
        return err_set(err, rc, "%s, line %" PRIu64 ": the path would be longer than %d bytes", l->name, l->line_number,
                       PATH_MAX - 1);
    *ret = (struct source_item){
        .key = l->line, .key_bytes = strlen(l->line), .path = l->path, .path_bytes = strlen(l->path)};
    if (l->examine)
        source_examine(ret);
    return 1;
}

void source_examine(struct source_item *item)
{
    struct stat st;

    if (stat(item->path, &st) < 0)
        return;
    item->size_bytes = (uint64_t)st.st_size;
    item->mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
}

static void list_free(struct source *s)
{
    struct source_list *l = (struct source_list *)s;

    if (l->file && l->file != stdin)
        (void)fclose(l->file);
    free(l);
}

int source_list_file(const char *path, FILE **ret_file, char *ret_base, struct err *err)
{
    struct stat st;
    FILE *file;
    char *slash;
    int rc = source_absolute(path, ret_base, err);

    if (rc < 0)
        return rc;
    slash = strrchr(ret_base, '/');
    slash[slash == ret_base] = '\0'; /* keep the slash of the root */
    file = fopen(path, "re");        /* a pipe is welcome: <(find ...) */
    if (!file) {
        rc = -errno;
        return err_set(err, rc, "%.300s: cannot open the list: %s", path, strerror(-rc));
    }
    if (fstat(fileno(file), &st) == 0 && S_ISDIR(st.st_mode)) {
        (void)fclose(file);
        return err_set(err, -EISDIR, "%.300s: is a folder, a list of paths is wanted after @", path);
    }
    *ret_file = file;
    return 0;
}

int source_list_open(const char *arg, const struct source_columns *wanted, bool examine, struct source **ret,
                     struct err *err)
{
    struct source_list *l;
    const char *path = arg + 1;
    int rc;

    if (source_is_table(path))
        return source_table_open(path, wanted, examine, ret, err);
    l = calloc(1, sizeof(*l));
    if (!l)
        return err_set(err, -ENOMEM, "%.300s: no memory", arg);
    l->source.next = list_next;
    l->source.free = list_free;
    l->examine = examine;
    if (strcmp(path, "-") == 0) {
        (void)snprintf(l->name, sizeof(l->name), "standard input");
        l->file = stdin;
        rc = source_absolute(".", l->base, err);
    } else {
        (void)snprintf(l->name, sizeof(l->name), "%s", path);
        rc = source_list_file(path, &l->file, l->base, err);
    }
    if (rc < 0) {
        list_free(&l->source);
        return rc;
    }
    *ret = &l->source;
    return 0;
}
