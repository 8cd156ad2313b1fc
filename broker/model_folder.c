#include "broker/model_folder.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_VALUE_BYTES = 64 * 1024 };

static int path_of(const char *models, const char *hex, const char *file, char ret[PATH_MAX], struct err *err)
{
    if (snprintf(ret, PATH_MAX, "%s/%s%s", models, hex, file) < PATH_MAX)
        return 0;
    return err_set(err, -ENAMETOOLONG, "%s: path too long", models);
}

int model_folder_write(const char *models, const struct model *m, const struct model_contents *contents,
                       struct err *err)
{
    char hex[FINGERPRINT_HEX_SIZE], folder[PATH_MAX], path[PATH_MAX];
    struct buf value;
    int rc = path_of(models, fingerprint_to_hex(&m->id, hex), "", folder, err);

    buf_init(&value, MAX_VALUE_BYTES);
    if (rc == 0)
        rc = path_of(models, hex, "/model", path, err);
    if (rc == 0)
        rc = file_make_folder(folder, err);
    if (rc == 0 && contents)
        rc = model_contents_write(folder, m, contents, err);
    if (rc == 0 && (rc = stored_model_encode(m, &value)) < 0)
        rc = err_set(err, rc, "%s: cannot be written", path);
    if (rc == 0)
        rc = file_write_atomic(path, value.data, value.size_bytes, err);
    if (rc == 0)
        rc = file_sync_folder_of(folder, err);
    buf_release(&value);
    return rc;
}

int model_folder_read(const char *models, const struct model *m, struct model_contents *ret, struct err *err)
{
    char hex[FINGERPRINT_HEX_SIZE], folder[PATH_MAX];
    int rc = path_of(models, fingerprint_to_hex(&m->id, hex), "", folder, err);

    return rc < 0 ? rc : model_contents_read(folder, m, ret, err);
}

/* 1: it is there; 0: its writing was cut off. */
static int read_model(const char *models, const char *hex, struct model *ret, struct err *err)
{
    char path[PATH_MAX], id[FINGERPRINT_HEX_SIZE];
    struct row_memory memory = {0};
    struct buf value = {0};
    int rc = path_of(models, hex, "/model", path, err);

    if (rc == 0)
        rc = file_read(path, MAX_VALUE_BYTES, &value, err);
    if (rc == 0 && (rc = stored_model_decode(&memory, value.data, value.size_bytes, ret, err)) < 0)
        rc = err_prefix(err, rc, "%s", path);
    if (rc == 0 && strcmp(fingerprint_to_hex(&ret->id, id), hex) != 0)
        rc = err_set(err, -EBADMSG, "%s: is about model %s", path, id);
    row_memory_release(&memory);
    buf_release(&value);
    return rc == -ENOENT ? 0 : rc < 0 ? rc : 1;
}

int model_folder_list(const char *models, void (*found)(void *arg, const struct model *m),
                      void (*skipped)(const char *why), void *arg, struct err *err)
{
    static struct model m; /* large for a stack */
    int rc = file_make_folder(models, err);
    DIR *d = rc < 0 ? NULL : opendir(models);

    if (rc == 0 && !d)
        rc = err_set(err, -errno, "%s: cannot list the folder: %s", models, strerror(errno));
    for (const struct dirent *e; d && (e = readdir(d));) {
        struct err why = {""};
        int one;

        if (strlen(e->d_name) != FINGERPRINT_HEX_SIZE - 1)
            continue;
        one = read_model(models, e->d_name, &m, &why);
        if (one > 0)
            found(arg, &m);
        else if (one < 0)
            skipped(why.text);
    }
    if (d)
        (void)closedir(d);
    return rc;
}
