#include "wire/model_files.h"

#include "wire/tensor.h"

#include <errno.h>

int model_files_message(const struct model *m, const struct model_contents *c, struct wire_message **ret,
                        struct err *err)
{
    struct wire_message *message;
    int rc = wire_message_new(MSG_MODEL_FILES, &message);

    if (rc < 0)
        return err_set(err, rc, "no memory for a message");
    wire_message_envelope(message)->model_ref.model = m->id;
    for (uint32_t i = 0; rc == 0 && i < m->n_files; i++) {
        const uint32_t size = m->files[i].size_bytes;
        struct wire_tensor *t = NULL;

        rc = wire_tensor_new(DTYPE_U8, &size, 1, c->files[i].data, NULL, NULL, &t, err);
        if (rc == 0 && (rc = wire_message_add_tensor(message, t)) < 0)
            rc = err_set(err, rc, "no memory for a file");
        wire_tensor_free(t);
    }
    if (rc < 0)
        wire_message_free(message);
    else
        *ret = message;
    return rc;
}

static int copy(const struct wire_tensor *t, struct buf *ret)
{
    int rc = 0;

    for (uint32_t k = 0; rc == 0 && k < wire_tensor_n_frames(t); k++) {
        size_t n;
        const uint8_t *frame = wire_tensor_frame(t, k, &n);

        rc = buf_append(ret, frame, n);
    }
    return rc;
}

int model_files_take(const struct wire_message *message, const struct model *m, struct model_contents *ret,
                     struct err *err)
{
    int rc = 0;

    if (wire_message_n_tensors(message) != m->n_files)
        return err_set(err, -EBADMSG, "model %s: %u files, not %u", m->name, wire_message_n_tensors(message),
                       m->n_files);
    for (uint32_t i = 0; rc == 0 && i < m->n_files; i++)
        rc = copy(wire_message_tensor(message, i), &ret->files[i]);
    rc = rc < 0 ? err_set(err, rc, "model %s: no memory for its files", m->name) : model_contents_check(m, ret, err);
    if (rc < 0)
        model_contents_release(ret);
    return rc;
}
