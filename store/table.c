#include "store/env.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int env_open_tables(struct env *e, MDB_txn *txn, bool create, const char *path, struct err *err)
{
    const struct {
        const char *name;
        unsigned flags;
        MDB_dbi *dbi;
    } tables[] = {
        {"meta", 0, &e->meta},
        {"manifest", 0, &e->manifest},
        {"units", 0, &e->units},
        {"items", 0, &e->items},
        {"keys", MDB_DUPSORT | MDB_DUPFIXED, &e->keys},
    };

    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        int rc = mdb_dbi_open(txn, tables[i].name, tables[i].flags | (create ? MDB_CREATE : 0), tables[i].dbi);

        if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE)
            return err_set(err, -EINVAL, "%s: is an LMDB environment, but not a job store: it has no table \"%s\"",
                           path, tables[i].name);
        if (rc != 0)
            return err_set(err, env_errno(rc), "%s: table \"%s\": %s", path, tables[i].name, mdb_strerror(rc));
    }
    return 0;
}

int env_open_embeddings(struct env *e, MDB_txn *txn, bool create, const struct msg_recipe *recipe, const char *path,
                        struct err *err)
{
    for (uint32_t i = 0; i < recipe->n_embeddings; i++) {
        const enum msg_embedding kind = recipe->embeddings[i].kind;
        const char *name = msg_embedding_name(kind);
        int rc = mdb_dbi_open(txn, name, create ? MDB_CREATE : 0, &e->embeddings[kind].dbi);

        if (rc == MDB_NOTFOUND || rc == MDB_INCOMPATIBLE)
            return err_set(err, -EBADMSG, "%s: its recipe asks for embeddings \"%s\", and there is no such table", path,
                           name);
        if (rc != 0)
            return err_set(err, env_errno(rc), "%s: table \"%s\": %s", path, name, mdb_strerror(rc));
        e->embeddings[kind].open = true;
    }
    return 0;
}

int env_begin_read(struct env *e, MDB_txn **ret, struct err *err)
{
    int rc;

    *ret = NULL;
    rc = env_map_begin_read(e, ret);
    return rc == 0 ? 0 : err_set(err, env_errno(rc), "cannot read the job store: %s", mdb_strerror(rc));
}

int env_get(MDB_txn *txn, MDB_dbi table, const void *key, size_t key_bytes, MDB_val *ret, struct err *err)
{
    MDB_val k = {.mv_size = key_bytes, .mv_data = (void *)(uintptr_t)key};
    int rc = mdb_get(txn, table, &k, ret);

    if (rc == 0 || rc == MDB_NOTFOUND)
        return env_errno(rc);
    return err_set(err, env_errno(rc), "cannot read the job store: %s", mdb_strerror(rc));
}

/* Callers do not distinguish kinds of damage. */
static int damaged(int rc)
{
    return rc == -EILSEQ || rc == -EMSGSIZE ? -EBADMSG : rc;
}

int env_decode_meta(const MDB_val *v, const char *path, struct stored_job_meta *ret, struct err *err)
{
    int rc = stored_job_meta_decode(v->mv_data, v->mv_size, ret, err);

    if (rc < 0)
        return err_prefix(err, damaged(rc), "%s: meta \"job\"", path);
    if (ret->schema_version < STORED_OLDEST_VERSION || ret->schema_version > STORED_SCHEMA_VERSION)
        return err_set(err, -EPROTONOSUPPORT,
                       "%s: store of schema version %" PRIu32 "; this program knows versions %d to %d", path,
                       ret->schema_version, STORED_OLDEST_VERSION, STORED_SCHEMA_VERSION);
    return 0;
}

int env_read_meta(const struct env *e, MDB_txn *txn, const char *path, struct stored_job_meta *ret, struct err *err)
{
    MDB_val v;
    int rc = env_get(txn, e->meta, "job", 3, &v, err);

    if (rc == -ENOENT)
        return err_set(err, -EINVAL, "%s: is not a job store: meta \"job\" is missing", path);
    return rc < 0 ? err_prefix(err, rc, "%s", path) : env_decode_meta(&v, path, ret, err);
}

int env_decode_counters(const MDB_val *v, struct stored_job_counters *ret, struct err *err)
{
    int rc = v ? stored_job_counters_decode(v->mv_data, v->mv_size, ret, err) : err_set(err, -EBADMSG, "is missing");

    return rc < 0 ? err_prefix(err, damaged(rc), "meta \"counters\"") : 0;
}

int env_read_counters(const struct env *e, MDB_txn *txn, struct stored_job_counters *ret, struct err *err)
{
    MDB_val v;
    int rc = env_get(txn, e->meta, "counters", 8, &v, err);

    return rc < 0 && rc != -ENOENT ? rc : env_decode_counters(rc == 0 ? &v : NULL, ret, err);
}

/* A number in n_items of its own row. */
static int read_number(const struct env *e, MDB_txn *txn, const char *name, uint64_t *ret, struct err *err)
{
    struct stored_job_counters c;
    MDB_val v;
    int rc = env_get(txn, e->meta, name, strlen(name), &v, err);

    if (rc < 0)
        return rc;
    rc = stored_job_counters_decode(v.mv_data, v.mv_size, &c, err);
    if (rc < 0)
        return err_prefix(err, damaged(rc), "meta \"%s\"", name);
    *ret = c.n_items;
    return 0;
}

int env_read_keys_covered(const struct env *e, MDB_txn *txn, uint64_t *ret, struct err *err)
{
    int rc = read_number(e, txn, "keys", ret, err);

    if (rc == -ENOENT)
        *ret = 0;
    return rc == -ENOENT ? 0 : rc;
}

int env_read_keys_sum(const struct env *e, MDB_txn *txn, uint64_t *ret, struct err *err)
{
    return read_number(e, txn, "keys_sum", ret, err);
}

void env_source_key(uint32_t number, char ret[ENV_SOURCE_KEY_BYTES + 1])
{
    (void)snprintf(ret, ENV_SOURCE_KEY_BYTES + 1, "source:%08" PRIx32, number);
}

int env_get_source(const struct env *e, MDB_txn *txn, uint32_t number, MDB_val *ret, struct err *err)
{
    char key[ENV_SOURCE_KEY_BYTES + 1];

    env_source_key(number, key);
    return env_get(txn, e->meta, key, ENV_SOURCE_KEY_BYTES, ret, err);
}

int env_decode_source(struct row_memory *memory, const MDB_val *v, uint32_t number, struct row_source *ret,
                      struct err *err)
{
    char key[ENV_SOURCE_KEY_BYTES + 1];
    int rc = stored_source_decode(memory, v->mv_data, v->mv_size, ret, err);

    if (rc == 0 && ret->number != number)
        rc = err_set(err, -EBADMSG, "says it is source %" PRIu32, ret->number);
    env_source_key(number, key);
    return rc < 0 ? err_prefix(err, damaged(rc), "meta \"%s\"", key) : 0;
}

int env_read_source(const struct env *e, MDB_txn *txn, struct row_memory *memory, uint32_t number,
                    struct row_source *ret, struct err *err)
{
    MDB_val v;
    int rc = env_get_source(e, txn, number, &v, err);

    return rc < 0 ? rc : env_decode_source(memory, &v, number, ret, err);
}

int env_decode_unit(struct row_memory *memory, const MDB_val *v, uint32_t unit, struct stored_manifest_unit *ret,
                    struct err *err)
{
    int rc = stored_manifest_unit_decode(memory, v->mv_data, v->mv_size, ret, err);

    return rc < 0 ? err_prefix(err, damaged(rc), "unit %" PRIu32 ": manifest", unit) : 0;
}

int env_read_unit(const struct env *e, MDB_txn *txn, struct row_memory *memory, uint32_t unit,
                  struct stored_manifest_unit *ret, struct err *err)
{
    uint8_t key[4];
    MDB_val v;
    int rc;

    env_put_be32(key, unit);
    rc = env_get(txn, e->manifest, key, 4, &v, err);
    return rc < 0 ? rc : env_decode_unit(memory, &v, unit, ret, err);
}

int env_decode_state(const MDB_val *v, uint32_t unit, struct stored_unit_state *ret, struct err *err)
{
    int rc = stored_unit_state_decode(v->mv_data, v->mv_size, ret, err);

    return rc < 0 ? err_prefix(err, damaged(rc), "unit %" PRIu32 ": state", unit) : 0;
}

int env_read_state(const struct env *e, MDB_txn *txn, uint32_t unit, struct stored_unit_state *ret, struct err *err)
{
    uint8_t key[4];
    MDB_val v;
    int rc;

    env_put_be32(key, unit);
    rc = env_get(txn, e->units, key, 4, &v, err);
    if (rc == -ENOENT) {
        *ret = (struct stored_unit_state){0};
        return 0;
    }
    return rc < 0 ? rc : env_decode_state(&v, unit, ret, err);
}

int env_find_unit(const struct env *e, MDB_txn *txn, struct row_memory *memory, uint64_t item, uint32_t n_units,
                  uint32_t *ret_unit, struct err *err)
{
    uint32_t low = 0, high = n_units; /* the unit, if any, is in [low, high) */

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct stored_manifest_unit u;
        int rc = env_read_unit(e, txn, memory, middle, &u, err);

        if (rc == -ENOENT)
            return err_set(err, -EBADMSG, "unit %" PRIu32 ": its manifest row is missing", middle);
        if (rc < 0)
            return rc;
        if (item < u.first_item) {
            high = middle;
        } else if (item - u.first_item >= u.n_items) {
            low = middle + 1;
        } else {
            *ret_unit = middle;
            return 0;
        }
    }
    return -ENOENT;
}
