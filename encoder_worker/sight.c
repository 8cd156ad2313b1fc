#include "encoder_worker/sight.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A folder that may not be listed counts as not empty: files in it may still be opened. */
static bool is_empty(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *e;
    bool empty = true;

    if (!dir)
        return false;
    errno = 0;
    while (empty && (e = readdir(dir)))
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    empty = empty && errno == 0;
    (void)closedir(dir);
    return empty;
}

static bool sees(const char *root, size_t root_bytes, struct err *ret_unseen)
{
    char folder[PATH_MAX + 2];
    const char *why = NULL;
    struct stat st;

    if (root_bytes >= PATH_MAX)
        return true; /* the path is too long, here and elsewhere */
    (void)snprintf(folder, sizeof(folder), "%.*s/.", (int)root_bytes, root); /* "/.": may it be searched? */
    if (stat(folder, &st) < 0)
        why = strerror(errno);
    else if (is_empty(folder))
        why = "the folder is empty";
    if (why)
        (void)err_set(ret_unseen, -ENOENT, "%.*s (%s)", (int)root_bytes, root, why);
    return !why;
}

bool sight_check(const struct unit *u, struct err *ret_unseen)
{
    const struct row_item *last = NULL;

    for (uint32_t i = 0; i < u->n_failures; i++) {
        const struct unit_failure *f = &u->failures[i];
        const struct row_item *it = &u->work->items[f->row];

        if ((f->code != IMAGE_MISSING && f->code != IMAGE_UNREADABLE) || it->error_code[0] || !it->root_bytes)
            continue;
        if (last && last->root_bytes == it->root_bytes && memcmp(last->path, it->path, it->root_bytes) == 0)
            continue; /* looked at before */
        if (!sees((const char *)it->path, it->root_bytes, ret_unseen))
            return false;
        last = it;
    }
    return true;
}
