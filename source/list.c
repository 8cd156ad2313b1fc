/* A text file with one image path per line, read as a stream. */
#include "source/lines.h"
#include "source/source_kinds.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct source_list {
    struct source source; /* first */
    struct lines lines;
    bool examine;
    char path[PATH_MAX];
    char key[32]; /* of a line that is not a path */
    struct err problem;
};

/* A line that names no image still becomes an item; `problem` holds the reason. */
static void take_bad_line(struct source_list *l, enum image_error code, const char *why, struct source_item *ret)
{
    (void)snprintf(l->key, sizeof(l->key), "line %" PRIu64, l->lines.number);
    (void)err_set(&l->problem, -EILSEQ, "%.100s, line %" PRIu64 ": %s", l->lines.name, l->lines.number, why);
    *ret = (struct source_item){
        .key = l->key, .key_bytes = strlen(l->key), .path = "", .problem_code = code, .problem = l->problem.text};
}

static int list_next(struct source *s, struct source_item *ret, struct err *err)
{
    struct source_list *l = (struct source_list *)s;
    char *line;
    size_t n;

    do {
        int rc = lines_next(&l->lines, err);

        if (rc <= 0)
            return rc;
        if (l->lines.has_nul)
            return err_set(err, -EINVAL, "%s, line %" PRIu64 ": contains a NUL byte; is this a list of paths?",
                           l->lines.name, l->lines.number);
        line = l->lines.line;
        n = l->lines.bytes;
        n -= line[n - 1] == '\n';
        n -= n && line[n - 1] == '\r';
        line[n] = '\0';
    } while (n == 0);
    if (lines_is_url(line))
        take_bad_line(l, IMAGE_URL, "pictures are not downloaded; download them first", ret);
    else if (source_join(l->lines.base, line, l->path) < 0)
        take_bad_line(l, IMAGE_BAD_ROW, "longer than any path", ret);
    else
        *ret = (struct source_item){.key = line, .key_bytes = n, .path = l->path, .path_bytes = strlen(l->path)};
    if (l->examine && ret->path_bytes)
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
    lines_close(&((struct source_list *)s)->lines);
    free(s);
}

int source_list_open(const char *arg, const struct source_columns *wanted, bool examine, struct source **ret,
                     struct err *err)
{
    struct source_list *l = calloc(1, sizeof(*l));
    const char *path = arg + 1;
    int rc;

    if (!l)
        return err_set(err, -ENOMEM, "%.300s: no memory", arg);
    l->source.next = list_next;
    l->source.free = list_free;
    l->examine = examine;
    rc = source_table_refused(path, err);
    if (rc == 0)
        rc = lines_open(&l->lines, path, err);
    if (rc == 0 && source_is_table(path, &l->lines)) {
        rc = source_table_open(path, &l->lines, wanted, examine, ret, err); /* which takes ownership of the lines */
        free(l);
        return rc;
    }
    if (rc < 0) {
        list_free(&l->source);
        return rc;
    }
    *ret = &l->source;
    return 0;
}
