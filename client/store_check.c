#include "client/store_check.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Checks the folder of a new store. */
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

int store_check(const char *store, bool *ret_there, struct err *err)
{
    char data[PATH_MAX];
    struct stat st;

    *ret_there = false;
    if (stat(store, &st) < 0)
        return errno == ENOENT ? check_parent(store, err) : err_set(err, -errno, "-o %s: %s", store, strerror(errno));
    if (S_ISDIR(st.st_mode) && access(store, W_OK | X_OK) < 0)
        return err_set(err, -errno, "-o %s: %s", store, strerror(errno));
    *ret_there = snprintf(data, sizeof(data), "%s/data.mdb", store) < (int)sizeof(data) && access(data, F_OK) == 0;
    return 0;
}

int store_advice(const struct msg_recipe *stored, bool other_model, const struct plan *p, struct buf *ret)
{
    const char *model = stored->model[0] ? stored->model : stored->score_model;
    struct buf options;
    int rc = 0;

    buf_init(&options, 0);
    if (other_model)
        rc = buf_appendf(&options, "model, %s", model);
    else
        rc = recipe_options(stored, &p->recipe, &options);
    if (rc == 0)
        rc = buf_append(&options, "", 1);
    if (rc == 0 && other_model)
        rc = buf_appendf(ret, "Use the same %s, or another -o", (const char *)options.data);
    else if (rc == 0 && options.size_bytes > 1)
        rc = buf_appendf(ret, "Use the same (%s), or another -o", (const char *)options.data);
    else if (rc == 0)
        rc = buf_appendf(ret, "Use the same, or another -o");
    if (rc == 0)
        rc = buf_append(ret, "", 1);
    buf_release(&options);
    return rc;
}
