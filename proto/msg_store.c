/* msg_store.c - STORE_READ and STORE_ROWS to and from protobuf. */
#include "proto/msg_pb.h"

#include <errno.h>
#include <string.h>

void msg_store_read_to_pb(const struct msg_store_read *from, Blipline__StoreRead *to)
{
    blipline__store_read__init(to);
    to->job = from->job;
    to->what = (Blipline__StoreRead__What)from->what;
    to->from = from->from;
    to->embedding = (Blipline__EmbeddingKind)from->embedding;
    to->key = (ProtobufCBinaryData){.len = from->key_bytes, .data = (uint8_t *)(uintptr_t)from->key};
}

int msg_store_read_from_pb(const Blipline__StoreRead *from, struct msg_store_read *to, struct err *err)
{
    if (from->key.len > sizeof(to->key))
        return err_set(err, -EMSGSIZE, "store_read: a key of %zu bytes, the limit is %zu", from->key.len,
                       sizeof(to->key));
    to->job = from->job;
    to->what = (enum msg_store_what)from->what;
    to->from = from->from;
    to->embedding = (enum msg_embedding)from->embedding;
    to->key_bytes = (uint32_t)from->key.len;
    if (to->key_bytes)
        memcpy(to->key, from->key.data, to->key_bytes);
    return 0;
}

int msg_store_read_check(const struct msg_store_read *r, struct err *err)
{
    const bool embeddings = r->what == MSG_STORE_EMBEDDINGS;

    if (r->job == 0 || (unsigned)r->what < MSG_STORE_SUMMARY || (unsigned)r->what > MSG_STORE_VERIFY)
        return err_set(err, -EBADMSG, "store_read: no job, or unknown what");
    if (embeddings != (r->embedding != 0) || (unsigned)r->embedding > MSG_EMBEDDING_CLS)
        return err_set(err, -EBADMSG, "store_read: unknown embedding");
    if ((r->what == MSG_STORE_FIND) != (r->key_bytes != 0) || r->key_bytes > MSG_MAX_KEY_BYTES)
        return err_set(err, -EBADMSG, "store_read: a key is missing, or does not belong there");
    return 0;
}

void msg_store_rows_to_pb(const struct msg_store_rows *from, Blipline__StoreRows *to)
{
    blipline__store_rows__init(to);
    to->job = from->job;
    to->next = from->next;
    to->n_units = from->n_units;
    to->damage = msg_text_to_pb(from->damage);
    to->more = from->more;
    to->in_progress = from->in_progress;
    to->n_problems = from->n_problems;
    to->n_seen = from->n_seen;
    to->n_items = from->n_items;
    to->disk_bytes = from->disk_bytes;
    to->n_n_embeddings = from->n_kinds;
    to->n_embeddings = (uint64_t *)(uintptr_t)from->n_embeddings;
}

int msg_store_rows_from_pb(const Blipline__StoreRows *from, struct msg_store_rows *to, struct err *err)
{
    if (from->n_n_embeddings > sizeof(to->n_embeddings) / sizeof(to->n_embeddings[0]))
        return err_set(err, -EMSGSIZE, "store_rows: %zu kinds of embeddings", from->n_n_embeddings);
    to->job = from->job;
    to->next = from->next;
    to->n_units = from->n_units;
    to->more = from->more;
    to->in_progress = from->in_progress;
    to->n_problems = from->n_problems;
    to->n_seen = from->n_seen;
    to->n_items = from->n_items;
    to->disk_bytes = from->disk_bytes;
    to->n_kinds = (uint32_t)from->n_n_embeddings;
    if (to->n_kinds)
        memcpy(to->n_embeddings, from->n_embeddings, to->n_kinds * sizeof(to->n_embeddings[0]));
    return TEXT_FROM_PB(to->damage, from->damage, "damage", err);
}
