/* model_message.c - the messages about models: to protobuf, and checks. */
#include "proto/model_pb.h"

#include "proto/model.h"
#include "proto/msg_pb.h"

#include <errno.h>

void model_message_to_pb(const struct msg *m, union model_message_pb *p, Blipline__Envelope *ret)
{
    const ProtobufCBinaryData model = msg_fingerprint_to_pb(&m->model_ref.model);

    switch (m->type) {
    case MSG_MODEL_OFFER:
        p->offer = (Blipline__ModelOffer)BLIPLINE__MODEL_OFFER__INIT;
        ret->model_offer = &p->offer;
        return;
    case MSG_MODEL_WANT:
        p->want = (Blipline__ModelWant)BLIPLINE__MODEL_WANT__INIT;
        p->want.model = model;
        ret->model_want = &p->want;
        return;
    case MSG_MODEL_FILES:
        p->files = (Blipline__ModelFiles)BLIPLINE__MODEL_FILES__INIT;
        p->files.model = model;
        ret->model_files = &p->files;
        return;
    case MSG_MODEL_LIST:
        p->list = (Blipline__ModelList)BLIPLINE__MODEL_LIST__INIT;
        ret->model_list = &p->list;
        return;
    case MSG_MODEL_LISTED:
        p->listed = (Blipline__ModelListed)BLIPLINE__MODEL_LISTED__INIT;
        ret->model_listed = &p->listed;
        return;
    default:
        p->get = (Blipline__ModelGet)BLIPLINE__MODEL_GET__INIT;
        p->get.model = model;
        ret->model_get = &p->get;
        return;
    }
}

/* Before any of their frames is read. */
static int check_files(const struct msg *m, struct err *err)
{
    uint64_t bytes = 0;

    if (m->n_tensors == 0 || m->n_tensors > CHECKPOINT_N_FILES)
        return err_set(err, -EBADMSG, "model_files: %u files, not 1 to %d", m->n_tensors, CHECKPOINT_N_FILES);
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        if (m->tensors[i].dtype != DTYPE_U8 || m->tensors[i].n_dims != 1)
            return err_set(err, -EBADMSG, "model_files: file %u is not a row of bytes", i);
        bytes += m->tensors[i].shape[0];
    }
    if (bytes > MODEL_MAX_BYTES)
        return err_set(err, -EMSGSIZE, "model_files: %llu bytes, the limit is %d", (unsigned long long)bytes,
                       MODEL_MAX_BYTES);
    return 0;
}

int model_message_check(const struct msg *m, struct err *err)
{
    if (m->type == MSG_MODEL_LISTED)
        return m->n_rows > MODEL_MAX_LISTED
                   ? err_set(err, -EMSGSIZE, "model_listed: %u rows, the limit is %d", m->n_rows, MODEL_MAX_LISTED)
                   : 0;
    if (m->type == MSG_MODEL_OFFER)
        return m->n_rows == 1 ? 0 : err_set(err, -EBADMSG, "model_offer: %u rows, not 1", m->n_rows);
    if (fingerprint_is_none(&m->model_ref.model))
        return err_set(err, -EBADMSG, "%s without a model", msg_type_name(m->type));
    return m->type == MSG_MODEL_FILES ? check_files(m, err) : 0;
}
