#include "client/store_check.h"

#include "store/folder.h"
#include "store/reader.h"

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

/* "Use the same (--beams=1), or another -o" */
static int advise(const struct stored_job_meta *meta, enum msg_reason reason, const struct plan *p, struct buf *ret)
{
    const char *model = meta->recipe.model[0] ? meta->recipe.model : meta->recipe.score_model;
    struct buf options;
    int rc = 0;

    buf_init(&options, 0);
    if (reason == MSG_REASON_MODEL)
        rc = buf_appendf(&options, "model, %s", model);
    else
        rc = recipe_options(&meta->recipe, &p->recipe, &options);
    if (rc == 0)
        rc = buf_append(&options, "", 1);
    if (rc == 0 && reason == MSG_REASON_MODEL)
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

int store_check(const char *store, bool all_pages, const struct plan *p, bool *ret_there, struct buf *ret_advice,
                struct err *err)
{
    enum msg_reason reason;
    struct reader *r = NULL;
    bool unfinished = false;
    struct stat st;
    int rc = 0;

    *ret_there = false;
    if (stat(store, &st) < 0)
        return errno == ENOENT ? check_parent(store, err) : err_set(err, -errno, "-o %s: %s", store, strerror(errno));
    if (S_ISDIR(st.st_mode) && access(store, W_OK | X_OK) < 0)
        return err_set(err, -errno, "-o %s: %s", store, strerror(errno));
    if (S_ISDIR(st.st_mode))
        rc = folder_check_unfinished(store, &unfinished, err);
    if (rc < 0 || unfinished)
        return rc;
    rc = reader_open_to_go_on(store, all_pages, &r, err);
    reason = rc == 0 ? stored_job_differs(reader_meta(r), &p->recipe, p->n_nodes, p->nodes, store, err) : 0;
    if (reason)
        rc = advise(reader_meta(r), reason, p, ret_advice) < 0 ? -ENOMEM : -EINVAL;
    reader_close(r);
    *ret_there = rc == 0;
    return rc;
}
