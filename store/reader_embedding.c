/* reader_embedding.c - the embeddings of a store's items. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store/reader_remote.h"
#include "store/reader_state.h"

static int check_kind(const struct reader *r, enum msg_embedding kind, struct err *err)
{
    for (uint32_t i = 0; i < r->meta.recipe.n_embeddings; i++)
        if (r->meta.recipe.embeddings[i].kind == kind)
            return 0;
    return err_set(err, -EINVAL, "%s: has no embeddings \"%s\": its recipe did not ask for them", r->path,
                   msg_embedding_name(kind));
}

static int decode(struct reader *r, enum msg_embedding kind, uint64_t item, const MDB_val *v, struct row_embedding *ret,
                  struct err *err)
{
    int rc = stored_embedding_decode(&r->embedding_memory, v->mv_data, v->mv_size, ret, err);

    if (rc < 0)
        return err_prefix(err, rc == -ENOMEM ? rc : -EBADMSG, "%s: item %" PRIu64 ": embedding %s", r->path, item,
                          msg_embedding_name(kind));
    if (ret->kind != kind)
        return err_set(err, -EBADMSG, "%s: item %" PRIu64 ": embedding %s says it is %s", r->path, item,
                       msg_embedding_name(kind), msg_embedding_name(ret->kind));
    return 1;
}

static int read_embedding(struct reader *r, enum msg_embedding kind, uint64_t item, struct row_embedding *ret,
                          struct err *err)
{
    uint8_t key[8];
    MDB_val v;
    int rc = reader_begin(r, err);

    if (rc < 0)
        return rc;
    env_put_be64(key, item);
    rc = env_get(r->txn, r->env.embeddings[kind].dbi, key, 8, &v, err);
    if (rc == 0)
        rc = decode(r, kind, item, &v, ret, err);
    else if (rc == -ENOENT)
        rc = 0;
    reader_end(r);
    return rc;
}

int reader_embedding(struct reader *r, enum msg_embedding kind, uint64_t item, struct row_embedding *ret,
                     struct err *err)
{
    MDB_val v;
    int rc = check_kind(r, kind, err);

    if (rc < 0)
        return rc;
    if (!r->remote)
        return read_embedding(r, kind, item, ret, err);
    rc = remote_embedding(r, kind, item, &v, err);
    return rc <= 0 ? rc : decode(r, kind, item, &v, ret, err);
}

static int add_values(MDB_cursor *c, uint64_t *item, size_t max_bytes, struct buf *rows, uint32_t *n_rows)
{
    uint8_t key[8];
    MDB_val k = {.mv_size = 8, .mv_data = key}, v;
    int rc;

    env_put_be64(key, *item);
    *item = UINT64_MAX;
    for (rc = mdb_cursor_get(c, &k, &v, MDB_SET_RANGE); rc == 0; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT)) {
        const uint64_t number = k.mv_size == 8 ? env_get_be64(k.mv_data) : UINT64_MAX;

        if (rows->size_bytes && rows->size_bytes + v.mv_size > max_bytes) {
            *item = number;
            return 0;
        }
        if (v.mv_size > STORED_MAX_BYTES)
            return -EBADMSG;
        rc = row_value_append(
            rows,
            &(struct row_value){
                .table = ROW_VALUE_EMBEDDING, .number = number, .data = v.mv_data, .size_bytes = v.mv_size},
            n_rows);
        if (rc < 0)
            return rc;
    }
    return rc == MDB_NOTFOUND ? 0 : env_errno(rc);
}

int reader_embedding_values(struct reader *r, enum msg_embedding kind, uint64_t *item, size_t max_bytes,
                            struct buf *rows, uint32_t *n_rows, struct err *err)
{
    MDB_cursor *c;
    int rc = check_kind(r, kind, err);

    if (rc == 0)
        rc = reader_begin(r, err);
    if (rc < 0)
        return rc;
    rc = env_errno(mdb_cursor_open(r->txn, r->env.embeddings[kind].dbi, &c));
    if (rc == 0) {
        rc = add_values(c, item, max_bytes, rows, n_rows);
        mdb_cursor_close(c);
    }
    reader_end(r);
    return rc < 0 ? err_set(err, rc, "%s: embedding %s: %s", r->path, msg_embedding_name(kind), strerror(-rc)) : 0;
}

int reader_count_embeddings(struct reader *r, enum msg_embedding kind, uint64_t *ret, struct err *err)
{
    MDB_stat st;
    int rc = check_kind(r, kind, err);

    if (rc == 0 && r->remote)
        return remote_count_embeddings(r, kind, ret, err);
    if (rc == 0)
        rc = reader_begin(r, err);
    if (rc < 0)
        return rc;
    rc = mdb_stat(r->txn, r->env.embeddings[kind].dbi, &st);
    reader_end(r);
    if (rc != 0)
        return err_set(err, env_errno(rc), "%s: %s: %s", r->path, msg_embedding_name(kind), mdb_strerror(rc));
    *ret = st.ms_entries;
    return 0;
}
