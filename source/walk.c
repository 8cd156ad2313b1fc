/* A folder as a source, depth first. Each folder is read and sorted when it is entered.
 *
 * Folder names are compared with a trailing '/', so that items come in bytewise order of their paths and their
 * numbering does not depend on the file system. No descriptor stays open between calls. */
#include "source/source_kinds.h"

#include "base/grow.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"

/* One folder on the way down. An entry is its name, with '/' at the end for a folder, and a NUL. */
struct level {
    struct buf names;
    size_t *offsets;
    size_t n, next;
    size_t path_bytes; /* of this folder in walk.path, with the trailing slash */
};

struct source_walk {
    struct source source; /* first */
    struct level *levels;
    size_t n_levels, capacity;
    size_t root_bytes; /* length of the prefix of path before the key */
    char path[PATH_MAX];
};

static bool is_picture_name(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp"};
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && i < sizeof(endings) / sizeof(endings[0]); i++)
        if (strcasecmp(dot, endings[i]) == 0)
            return true;
    return false;
}

static void note_problem(struct source_walk *w, const char *what, int code)
{
    if (!w->source.skipped.first_problem.text[0])
        (void)err_set(&w->source.skipped.first_problem, code, "%s: %s", what, w->path + w->root_bytes);
}

/* All names are in one block, which qsort_r passes to the comparison. */
static int compare_names(const void *a, const void *b, void *names)
{
    const char *base = names;

    return strcmp(base + *(const size_t *)a, base + *(const size_t *)b); /* strcmp compares unsigned bytes */
}

static const struct {
    const char *name, *words;
} kinds[SOURCE_N_KINDS] = {
    [SOURCE_OTHER_NAMES] = {"other_names", "other names"},
    [SOURCE_HIDDEN] = {"hidden", "hidden names"},
    [SOURCE_DANGLING_LINKS] = {"dangling_links", "dangling links"},
    [SOURCE_LOOPING_LINKS] = {"looping_links", "link loops"},
    [SOURCE_LINKED_FOLDERS] = {"linked_folders", "linked folders"},
    [SOURCE_PIPES] = {"pipes", "pipes or sockets"},
    [SOURCE_DEVICES] = {"devices", "devices"},
    [SOURCE_UNREADABLE_LINKS] = {"unreadable_links", "links that cannot be followed"},
    [SOURCE_LONG_PATHS] = {"long_paths", "paths that are too long"},
    [SOURCE_UNREADABLE_FOLDERS] = {"unreadable_folders", "folders that cannot be read"},
};

const char *source_kind_name(enum source_kind kind)
{
    return kinds[kind].name;
}

const char *source_kind_words(enum source_kind kind)
{
    return kinds[kind].words;
}

enum { ENTRY_FILE = SOURCE_N_KINDS, ENTRY_FOLDER, ENTRY_GONE };

/* Maps the mode to an ENTRY_ constant, or to the kind that is skipped. */
static int entry_of(mode_t mode)
{
    if (S_ISREG(mode))
        return ENTRY_FILE;
    if (S_ISDIR(mode))
        return ENTRY_FOLDER;
    return S_ISFIFO(mode) || S_ISSOCK(mode) ? SOURCE_PIPES : SOURCE_DEVICES;
}

static int linked_entry(struct source_walk *w, int folder_fd, const char *name)
{
    struct stat st;
    int kind;

    if (fstatat(folder_fd, name, &st, 0) == 0) {
        kind = entry_of(st.st_mode);
        return kind == ENTRY_FOLDER ? SOURCE_LINKED_FOLDERS : kind;
    }
    if (errno == ENOENT || errno == ENOTDIR)
        return SOURCE_DANGLING_LINKS;
    if (errno == ELOOP)
        return SOURCE_LOOPING_LINKS;
    note_problem(w, "a link that cannot be followed, in the folder", -errno);
    return SOURCE_UNREADABLE_LINKS;
}

static int look_at_entry(struct source_walk *w, int folder_fd, const struct dirent *e)
{
    struct stat st;

    if (e->d_type == DT_LNK)
        return linked_entry(w, folder_fd, e->d_name);
    if (e->d_type != DT_UNKNOWN)
        return entry_of(DTTOIF(e->d_type));
    if (fstatat(folder_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return ENTRY_GONE;
    return S_ISLNK(st.st_mode) ? linked_entry(w, folder_fd, e->d_name) : entry_of(st.st_mode);
}

/* Keeps the entry or counts why it is skipped. */
static int take_entry(struct source_walk *w, struct level *l, int folder_fd, const struct dirent *e)
{
    uint64_t *skipped = w->source.skipped.n;
    bool is_folder;
    int rc, entry;

    if (e->d_name[0] == '.') {
        skipped[SOURCE_HIDDEN] += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
        return 0;
    }
    entry = look_at_entry(w, folder_fd, e);
    if (entry == ENTRY_GONE)
        return 0; /* removed since the folder was read */
    is_folder = entry == ENTRY_FOLDER;
    if (entry == ENTRY_FILE && !is_picture_name(e->d_name))
        entry = SOURCE_OTHER_NAMES;
    if (entry < SOURCE_N_KINDS) {
        skipped[entry]++;
        return 0;
    }
    if (l->path_bytes + strlen(e->d_name) + is_folder >= PATH_MAX) {
        skipped[SOURCE_LONG_PATHS]++;
        note_problem(w, "some names make a path that is too long, in the folder", -ENAMETOOLONG);
        return 0;
    }
    rc = buf_append(&l->names, e->d_name, strlen(e->d_name));
    if (rc == 0)
        rc = buf_append(&l->names, is_folder ? "/" : "", is_folder ? 2 : 1);
    l->n += rc == 0;
    return rc;
}

static int sort_level(struct level *l)
{
    size_t at = 0;

    if (l->n == 0)
        return 0;
    l->offsets = malloc(l->n * sizeof(*l->offsets));
    if (!l->offsets)
        return -ENOMEM;
    for (size_t i = 0; i < l->n; i++) {
        l->offsets[i] = at;
        at += strlen((const char *)l->names.data + at) + 1;
    }
    qsort_r(l->offsets, l->n, sizeof(*l->offsets), compare_names, l->names.data);
    return 0;
}

static void level_release(struct level *l)
{
    buf_release(&l->names);
    free(l->offsets);
    *l = (struct level){0};
}

/* Reads the folder w->path into *l. -ENOMEM ends the walk; other failures skip the folder. */
static int level_read(struct source_walk *w, struct level *l)
{
    int rc = 0, fd = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct dirent *e;
    DIR *d;

    if (fd < 0)
        return -errno;
    d = fdopendir(fd);
    if (!d) {
        rc = -errno;
        (void)close(fd);
        return rc;
    }
    while (rc == 0) {
        errno = 0;
        e = readdir(d);
        if (!e) {
            rc = -errno;
            break;
        }
        rc = take_entry(w, l, fd, e);
    }
    (void)closedir(d);
    return rc < 0 ? rc : sort_level(l);
}

/* Enters the folder w->path, which ends in a slash. On failure nothing is entered. */
static int push(struct source_walk *w)
{
    struct level l = {.path_bytes = strlen(w->path)};
    int rc;

    buf_init(&l.names, 0);
    if (grow_array(&w->levels, &w->capacity, w->n_levels, sizeof(*w->levels), 16) < 0)
        return -ENOMEM;
    rc = level_read(w, &l);
    if (rc < 0) {
        level_release(&l);
        return rc;
    }
    w->levels[w->n_levels++] = l;
    return 0;
}

/* Returns 1 if w->path is a file (*ret_st), 0 if it entered a folder or the name is skipped. */
static int visit(struct source_walk *w, struct stat *ret_st, struct err *err)
{
    int rc;

    if (w->path[strlen(w->path) - 1] != '/') {
        if (stat(w->path, ret_st) == 0)
            return S_ISREG(ret_st->st_mode);
        *ret_st = (struct stat){0};
        return errno != ENOENT; /* ENOENT: removed since its folder was read; otherwise it becomes an item that fails */
    }
    rc = push(w);
    if (rc == -ENOMEM)
        return err_set(err, rc, "%.300s: no memory for the names of this folder", w->path);
    if (rc == -ENOENT)
        return 0;
    if (rc < 0) {
        w->source.skipped.n[rc == -ENAMETOOLONG ? SOURCE_LONG_PATHS : SOURCE_UNREADABLE_FOLDERS]++;
        note_problem(w, rc == -ENAMETOOLONG ? "a path that is too long" : strerror(-rc), rc);
    }
    return 0;
}

static int walk_next(struct source *s, struct source_item *ret, struct err *err)
{
    struct source_walk *w = (struct source_walk *)s;
    struct stat st;

    while (w->n_levels) {
        struct level *l = &w->levels[w->n_levels - 1];
        const char *name;
        int rc;

        if (l->next == l->n) {
            level_release(l);
            w->n_levels--;
            continue;
        }
        name = (const char *)l->names.data + l->offsets[l->next++];
        memcpy(w->path + l->path_bytes, name, strlen(name) + 1); /* take_entry has checked the length */
        rc = visit(w, &st, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            continue;
        *ret = (struct source_item){.key = w->path + w->root_bytes,
                                    .key_bytes = strlen(w->path + w->root_bytes),
                                    .path = w->path,
                                    .path_bytes = strlen(w->path),
                                    .size_bytes = (uint64_t)st.st_size,
                                    .mtime_ns = st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec};
        return 1;
    }
    return 0;
}

static void walk_free(struct source *s)
{
    struct source_walk *w = (struct source_walk *)s;

    for (size_t i = 0; i < w->n_levels; i++)
        level_release(&w->levels[i]);
    free(w->levels);
    free(w);
}

int source_walk_open(const char *path, const char *arg, struct source **ret, struct err *err)
{
    struct source_walk *w = calloc(1, sizeof(*w));
    size_t n = strlen(path);
    int rc = 0;

    if (!w)
        return err_set(err, -ENOMEM, "%.300s: no memory", arg);
    w->source.next = walk_next;
    w->source.free = walk_free;
    w->source.skipped.is_walk = true;
    if (n + 2 > sizeof(w->path))
        rc = -ENAMETOOLONG;
    if (rc == 0) {
        memcpy(w->path, path, n + 1);
        if (w->path[n - 1] != '/')
            memcpy(w->path + n, "/", 2);
        w->root_bytes = strlen(w->path);
        rc = push(w);
    }
    if (rc < 0) {
        walk_free(&w->source);
        return err_set(err, rc, "%.300s: cannot read the folder: %s", arg, strerror(-rc));
    }
    *ret = &w->source;
    return 0;
}
