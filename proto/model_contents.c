#include "proto/model_contents.h"

#include "base/file.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

void model_contents_release(struct model_contents *c)
{
    for (int i = 0; i < CHECKPOINT_N_FILES; i++)
        buf_release(&c->files[i]);
}

int model_contents_check(const struct model *m, const struct model_contents *c, struct err *err)
{
    for (uint32_t i = 0; i < m->n_files; i++) {
        const struct fingerprint hash = model_hash(c->files[i].data, c->files[i].size_bytes);

        if (c->files[i].size_bytes != m->files[i].size_bytes || !fingerprint_equal(&hash, &m->files[i].hash))
            return err_set(err, -EBADMSG, "model %s: these are not the bytes of its %s", m->name,
                           checkpoint_file_name(m->files[i].file));
    }
    return 0;
}

static int path_of(const char *folder, enum checkpoint_file file, char ret[PATH_MAX], struct err *err)
{
    if (snprintf(ret, PATH_MAX, "%s/%s", folder, checkpoint_file_name(file)) < PATH_MAX)
        return 0;
    return err_set(err, -ENAMETOOLONG, "%s: path too long", folder);
}

static int read_file(const char *folder, enum checkpoint_file file, struct buf *ret, struct err *err)
{
    char path[PATH_MAX];
    int rc = path_of(folder, file, path, err);

    return rc < 0 ? rc : file_read(path, MODEL_MAX_BYTES, ret, err);
}

int model_contents_describe(const char *folder, struct model *m, struct err *err)
{
    m->n_files = 0;
    for (int i = CHECKPOINT_CONFIG; i <= CHECKPOINT_N_FILES; i++) {
        struct buf text = {0};
        int rc = read_file(folder, (enum checkpoint_file)i, &text, err);

        if (rc == 0 && text.size_bytes)
            m->files[m->n_files++] = (struct model_file){.file = (enum checkpoint_file)i,
                                                         .size_bytes = (uint32_t)text.size_bytes,
                                                         .hash = model_hash(text.data, text.size_bytes)};
        buf_release(&text);
        if (rc < 0 && rc != -ENOENT)
            return rc;
    }
    m->id = model_id(m);
    return 0;
}

int model_contents_read(const char *folder, const struct model *m, struct model_contents *ret, struct err *err)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < m->n_files; i++)
        rc = read_file(folder, m->files[i].file, &ret->files[i], err);
    if (rc == 0)
        rc = model_contents_check(m, ret, err);
    if (rc < 0)
        model_contents_release(ret);
    return rc;
}

int model_contents_write(const char *folder, const struct model *m, const struct model_contents *c, struct err *err)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < m->n_files; i++) {
        char path[PATH_MAX];

        rc = path_of(folder, m->files[i].file, path, err);
        if (rc == 0)
            rc = file_write_atomic(path, c->files[i].data, c->files[i].size_bytes, err);
    }
    return rc;
}
