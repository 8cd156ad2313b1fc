/* A single file as a source, and source_open, which chooses the kind of source. */
#include "source/source.h"

#include "source/file_kind.h"
#include "source/lines.h"
#include "source/source_kinds.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct source_one {
    struct source source; /* first */
    bool done;
    uint64_t size_bytes;
    int64_t mtime_ns;
    char path[PATH_MAX];
};

static int one_next(struct source *s, struct source_item *ret, struct err *err)
{
    struct source_one *f = (struct source_one *)s;
    const char *name = strrchr(f->path, '/') + 1; /* absolute, so there is a slash */

    (void)err;
    if (f->done)
        return 0;
    f->done = true;
    *ret = (struct source_item){.key = name,
                                .key_bytes = strlen(name),
                                .path = f->path,
                                .path_bytes = strlen(f->path),
                                .size_bytes = f->size_bytes,
                                .mtime_ns = f->mtime_ns};
    return 1;
}

static void one_free(struct source *s)
{
    free(s);
}

/* Refuses an archive right away, instead of failing it as one unreadable image. */
static int refuse_archive(const char *path, const char *arg, struct err *err)
{
    char head[LINES_HEAD_BYTES];
    FILE *file = fopen(path, "re");
    size_t n = file ? fread(head, 1, sizeof(head), file) : 0;
    const char *foreign = file_kind_foreign(head, n, false);

    if (file)
        (void)fclose(file);
    return foreign ? err_set(err, -EINVAL, "%.200s: %s (blipline help sources)", arg, foreign) : 0;
}

int source_file_open(const char *path, const char *arg, struct source **ret, struct err *err)
{
    struct source_one *f;
    struct stat st;
    int rc;

    if (stat(path, &st) < 0) {
        rc = -errno;
        return err_set(err, rc, "%.300s: %s", arg, strerror(-rc));
    }
    rc = refuse_archive(path, arg, err);
    if (rc < 0)
        return rc;
    f = calloc(1, sizeof(*f));
    if (!f)
        return err_set(err, -ENOMEM, "%.300s: no memory", arg);
    f->source.next = one_next;
    f->source.free = one_free;
    f->size_bytes = (uint64_t)st.st_size;
    f->mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec;
    (void)snprintf(f->path, sizeof(f->path), "%s", path);
    *ret = &f->source;
    return 0;
}

/* Drops empty and "." components, so that a file has one path. ".." stays, since a link may precede it. */
static void collapse(char *path)
{
    char *to = path;

    for (const char *from = path; *from;) {
        size_t n;

        from += strspn(from, "/");
        n = strcspn(from, "/");
        if (n > 0 && !(n == 1 && from[0] == '.')) {
            *to++ = '/';
            memmove(to, from, n);
            to += n;
        }
        from += n;
    }
    if (to == path)
        *to++ = '/';
    *to = '\0';
}

int source_join(const char *base, const char *name, char *ret)
{
    int n;

    if (name[0] == '/')
        n = snprintf(ret, PATH_MAX, "%s", name);
    else
        n = snprintf(ret, PATH_MAX, "%s%s%s", base, base[strlen(base) - 1] == '/' ? "" : "/", name);
    if (n >= PATH_MAX)
        return -ENAMETOOLONG;
    collapse(ret);
    return 0;
}

int source_absolute(const char *name, char *ret, struct err *err)
{
    char cwd[PATH_MAX] = "/";
    int rc;

    if (name[0] != '/' && !getcwd(cwd, sizeof(cwd))) {
        rc = -errno;
        return err_set(err, rc, "the working folder has no path: %s", strerror(-rc));
    }
    rc = source_join(cwd, name, ret);
    return rc < 0 ? err_set(err, rc, "%.300s: the path is too long", name) : 0;
}

int source_open(const char *arg, const struct source_columns *wanted, struct source **ret, struct err *err)
{
    char path[PATH_MAX];
    struct stat st;
    int rc;

    if (arg[0] == '@')
        return source_list_open(arg, wanted, true, ret, err);
    if (!arg[0])
        return err_set(err, -EINVAL, "the source is an empty name");
    rc = source_absolute(arg, path, err);
    if (rc < 0)
        return rc;
    if (stat(path, &st) < 0) {
        rc = -errno;
        if (lines_is_url(arg))
            return err_set(err, rc,
                           "%.200s: nothing is downloaded; download the pictures first and give "
                           "their folder",
                           arg);
        return err_set(err, rc, "%.300s: %s", arg, strerror(-rc));
    }
    if (S_ISDIR(st.st_mode))
        return source_walk_open(path, arg, ret, err);
    if (S_ISREG(st.st_mode))
        return source_file_open(path, arg, ret, err);
    return err_set(err, -EINVAL, "%.300s: neither a folder nor a regular file", arg);
}

int source_next(struct source *s, struct source_item *ret, struct err *err)
{
    return s->next(s, ret, err);
}

bool source_is_read_once(const char *arg)
{
    struct stat st;

    return strcmp(arg, "@-") == 0 ||
           (arg[0] == '@' && stat(arg + 1, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode));
}

int source_root(const char *arg, char *ret, const char **ret_list, struct err *err)
{
    const bool is_list = arg[0] == '@';
    const char *name = is_list ? arg + 1 : arg;
    struct stat st;
    char *slash;
    int rc;

    *ret_list = NULL;
    if (is_list)
        *ret_list = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    if (source_is_read_once(arg))
        return source_absolute(".", ret, err);
    rc = source_absolute(name, ret, err);
    if (rc < 0 || (!is_list && stat(ret, &st) == 0 && S_ISDIR(st.st_mode)))
        return rc;
    slash = strrchr(ret, '/');
    slash[slash == ret] = '\0'; /* keep the root's slash */
    return 0;
}

const struct source_skipped *source_skipped(const struct source *s)
{
    return &s->skipped;
}

void source_free(struct source *s)
{
    if (s)
        s->free(s);
}

/* Counts the row and its wanted columns. */
static void count_row(struct source_summary *sum, const struct source_columns *wanted, const struct source_item *item)
{
    uint64_t seen = 0;

    for (uint32_t i = 0; i < item->n_fields; i++)
        for (uint32_t k = 0; k < wanted->n; k++)
            seen |= (uint64_t)(item->fields[i].name == wanted->names[k]) << k;
    for (uint32_t k = 0; k < SOURCE_MAX_COLUMNS; k++)
        sum->n_with[k] += seen >> k & 1;
    if (item->problem_code && sum->n_bad++ == 0)
        (void)err_set(&sum->first_bad, -EILSEQ, "%s", item->problem);
    sum->n_left_out += item->n_left_out;
    sum->n_urls += item->problem_code == IMAGE_URL;
    sum->n_items++;
}

int source_check(const char *arg, const struct source_columns *wanted, uint64_t max_rows, struct source_summary *ret,
                 struct err *err)
{
    struct source_summary found = {0};
    struct source *s = NULL;
    struct source_item item;
    int rc;

    if (source_is_read_once(arg)) {
        *ret = (struct source_summary){0};
        return 0;
    }
    rc = arg[0] == '@' ? source_list_open(arg, wanted, false, &s, err) : source_open(arg, wanted, &s, err);
    if (rc < 0)
        return rc;
    assert(s);
    found.is_table = s->is_table;
    while (arg[0] == '@' && (max_rows == 0 || found.n_items < max_rows) && (rc = source_next(s, &item, err)) > 0) {
        if (found.n_items == 0)
            source_table_columns(s, found.columns, sizeof(found.columns));
        count_row(&found, wanted, &item);
    }
    source_free(s);
    found.is_whole = rc == 0;
    if (rc >= 0)
        *ret = found;
    return rc < 0 ? rc : 0;
}
