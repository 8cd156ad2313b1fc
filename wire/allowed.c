#include "wire/allowed.h"

#include "proto/rights.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The least right comes first: of a key that has several roles the first one counts. */
static const struct {
    const char *folder;
    enum msg_role role;
} roles[] = {{"workers", MSG_ROLE_WORKER}, {"clients", MSG_ROLE_CLIENT}, {"admins", MSG_ROLE_ADMIN}};

enum { N_ROLES = sizeof(roles) / sizeof(*roles) };

struct loading {
    void (*warn)(const char *text);
    struct allowed *list;
    size_t capacity;
};

/* Room for one more. */
static int reserve(struct loading *l)
{
    struct allowed *list;
    size_t n;

    if (l->list && l->list->n < l->capacity)
        return 0;
    n = l->capacity ? 2 * l->capacity : 64;
    list = realloc(l->list, sizeof(*list) + n * sizeof(list->keys[0]));
    if (!list)
        return -ENOMEM;
    if (!l->list)
        list->n = 0;
    l->list = list;
    l->capacity = n;
    return 0;
}

static void PRINTF_LIKE(2, 3) skip(const struct loading *l, const char *fmt, ...)
{
    struct err text;
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text.text, sizeof(text.text), fmt, ap);
    va_end(ap);
    l->warn(text.text);
}

static int take_file(struct loading *l, enum msg_role role, const char *path, const char *file)
{
    struct allowed_key k = {.role = role};
    const size_t n = strlen(file) - strlen(".pub");
    const struct allowed_key *same;
    char text[KEY_TEXT_SIZE];
    struct err err;

    (void)snprintf(k.name, sizeof(k.name), "%.*s", (int)(n < sizeof(k.name) ? n : 0), file);
    if (!key_name_is_valid(k.name)) {
        skip(l, "%s: skipped: \"NAME.pub\" is wanted, with 1 to 63 characters of A-Z a-z 0-9 . _ - @", path);
        return 0;
    }
    if (public_key_load(path, text, k.bytes, &err) < 0) {
        skip(l, "%s: skipped", err.text);
        return 0;
    }
    same = l->list ? allowed_find(l->list, k.bytes) : NULL;
    if (same) {
        skip(l, "%s: skipped: the key is that of %s, which counts", path, same->id);
        return 0;
    }
    if (l->list && l->list->n == ALLOWED_MAX_KEYS) {
        skip(l, "%s: skipped: there are too many keys", path);
        return 0;
    }
    (void)snprintf(k.id, sizeof(k.id), "%s %s %s", msg_role_name(role), k.name, text);
    if (reserve(l) < 0)
        return -ENOMEM;
    l->list->keys[l->list->n++] = k;
    return 0;
}

static int ends_with_pub(const struct dirent *d)
{
    const size_t n = strlen(d->d_name);

    return n > 4 && d->d_name[0] != '.' && strcmp(d->d_name + n - 4, ".pub") == 0;
}

static int take_folder(struct loading *l, enum msg_role role, const char *folder)
{
    struct dirent **files;
    char path[PATH_MAX + 300];
    struct stat st;
    int n, rc = 0;

    if (stat(folder, &st) == 0 && (st.st_mode & S_IWOTH)) {
        skip(l, "%s: skipped: all users may write there: chmod o-w %s", folder, folder);
        return 0;
    }
    n = scandir(folder, &files, ends_with_pub, alphasort);
    if (n < 0 && errno == ENOMEM)
        return -ENOMEM;
    if (n < 0 && errno != ENOENT)
        skip(l, "%s: skipped: %s", folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folder, files[i]->d_name);
        if (rc == 0)
            rc = take_file(l, role, path, files[i]->d_name);
        free(files[i]);
    }
    if (n >= 0)
        free(files);
    return rc;
}

int allowed_load(const char *folder, void (*warn)(const char *text), struct allowed **ret, struct err *err)
{
    struct loading l = {.warn = warn};
    char path[PATH_MAX];
    struct stat st;
    int rc;

    if (stat(folder, &st) < 0)
        return err_set(err, -errno, "%s: %s; it must have the folders workers, clients and admins with NAME.pub files",
                       folder, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(err, -ENOTDIR, "%s: not a folder; the allow-list is a folder", folder);
    if (st.st_mode & S_IWOTH)
        return err_set(err, -EPERM, "%s: all users may write there, and so admit themselves: chmod o-w %s", folder,
                       folder);
    rc = reserve(&l);
    for (int i = 0; rc == 0 && i < N_ROLES; i++) {
        if (snprintf(path, sizeof(path), "%s/%s", folder, roles[i].folder) >= (int)sizeof(path))
            rc = -ENAMETOOLONG;
        else
            rc = take_folder(&l, roles[i].role, path);
    }
    if (rc < 0) {
        allowed_free(l.list);
        return err_set(err, rc, "%s: %s", folder, strerror(-rc));
    }
    *ret = l.list;
    return 0;
}

struct allowed *allowed_copy(const struct allowed *a)
{
    const size_t n = sizeof(*a) + a->n * sizeof(a->keys[0]);
    struct allowed *copy = malloc(n);

    return copy ? memcpy(copy, a, n) : NULL;
}

void allowed_free(struct allowed *a)
{
    free(a);
}

const struct allowed_key *allowed_find(const struct allowed *a, const uint8_t bytes[KEY_BYTES])
{
    const struct allowed_key *found = NULL;

    for (size_t i = 0; i < a->n; i++)
        found = sodium_memcmp(a->keys[i].bytes, bytes, KEY_BYTES) == 0 ? &a->keys[i] : found;
    return found;
}

const struct allowed_key *allowed_find_id(const struct allowed *a, const char *id)
{
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->keys[i].id, id) == 0)
            return &a->keys[i];
    return NULL;
}
