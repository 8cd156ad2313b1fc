#include "client/store_check.h"

#include "store/reader.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The folder that a new store would be made in. */
static int check_parent(const char *store, struct err *err)
{
    char parent[PATH_MAX];
    struct stat st;
    char *slash;

    if (snprintf(parent, sizeof(parent), "%s", store) >= (int)sizeof(parent))
        return err_set(err, -ENAMETOOLONG, "-o %.200s...: the path is too long", store);
    for (size_t n = strlen(parent); n > 1 && parent[n - 1] == '/'; n--)
        parent[n - 1] = '\0';
    slash = strrchr(parent, '/');
    if (slash)
        slash[slash == parent] = '\0';
    else
        (void)snprintf(parent, sizeof(parent), ".");
    if (stat(parent, &st) < 0)
        return err_set(err, -errno, "-o %s: the store cannot be made: %s: %s", store, parent, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(err, -ENOTDIR, "-o %s: the store cannot be made: %s: %s", store, parent, strerror(ENOTDIR));
    if (access(parent, W_OK | X_OK) < 0)
        return err_set(err, -errno, "-o %s: the store cannot be made: %s: %s", store, parent, strerror(errno));
    return 0;
}

/* A folder without a store: one may be made in it if it is empty, or if the making of one was cut short. */
static bool is_unfinished(const char *store)
{
    char name[PATH_MAX];
    struct stat st;

    if (snprintf(name, sizeof(name), "%s/data.mdb", store) >= (int)sizeof(name))
        return false;
    return stat(name, &st) < 0 ? errno == ENOENT : st.st_size < 2 * sysconf(_SC_PAGESIZE);
}

static int check_no_other_files(const char *store, struct err *err)
{
    DIR *d = opendir(store);
    int rc = 0;

    if (!d)
        return err_set(err, -errno, "-o %s: %s", store, strerror(errno));
    for (const struct dirent *e; rc == 0 && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, "owner") != 0 &&
            strcmp(e->d_name, "data.mdb") != 0 && strcmp(e->d_name, "lock.mdb") != 0)
            rc = err_set(err, -EINVAL, "-o %s: is a folder with other files in it (%s), not a job store", store,
                         e->d_name);
    (void)closedir(d);
    return rc;
}

int store_check(const char *store, const struct plan *p, bool *ret_there, struct err *err)
{
    struct reader *r = NULL;
    struct stat st;
    int rc;

    *ret_there = false;
    if (stat(store, &st) < 0)
        return errno == ENOENT ? check_parent(store, err) : err_set(err, -errno, "-o %s: %s", store, strerror(errno));
    if (S_ISDIR(st.st_mode) && access(store, W_OK | X_OK) < 0)
        return err_set(err, -errno, "-o %s: %s", store, strerror(errno));
    if (S_ISDIR(st.st_mode) && is_unfinished(store))
        return check_no_other_files(store, err);
    rc = reader_open(store, false, &r, err);
    if (rc == 0 && stored_job_differs(reader_meta(r), &p->recipe, p->n_nodes, p->nodes, store, err))
        rc = -EINVAL;
    reader_close(r);
    *ret_there = rc == 0;
    return rc;
}
