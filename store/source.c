/* source.c - the named sources of a store's items. */
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store/store_state.h"

/* A program without sources would misread relative paths: raise the version so that it refuses the store. */
static int raise_version(struct store *s, struct err *err)
{
    int rc;

    if (s->meta.schema_version == STORED_SCHEMA_VERSION)
        return 0;
    s->meta.schema_version = STORED_SCHEMA_VERSION; /* the loop's thread does not read it */
    buf_clear(&s->row);
    rc = stored_job_meta_encode(&s->meta, &s->row);
    if (rc < 0)
        return err_set(err, rc, "%s: cannot encode meta \"job\"", s->path);
    return store_put(s, s->env.meta, "job", 3, s->row.data, s->row.size_bytes, 0, err);
}

static int put_source(struct store *s, const struct row_source *source, struct err *err)
{
    char key[ENV_SOURCE_KEY_BYTES + 1];
    struct row_source before;
    MDB_val v;
    int rc = env_read_source(&s->env, s->txn, &s->memory, source->number, &before, err);

    if (rc == -ENOENT && source->number > 1)
        rc = env_read_source(&s->env, s->txn, &s->memory, source->number - 1, &before, err);
    else if (rc == 0 && strcmp(before.name, source->name) != 0)
        return err_set(err, -EINVAL, "source %" PRIu32 " is %s, not %s", source->number, before.name, source->name);
    if (rc == -ENOENT && source->number > 1)
        return err_set(err, -EINVAL, "source %" PRIu32 ": there is none before it", source->number);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    buf_clear(&s->row);
    rc = stored_source_encode(source, &s->row);
    if (rc < 0)
        return err_set(err, rc, "source %" PRIu32 ": cannot be encoded", source->number);
    env_source_key(source->number, key);
    rc = env_get(s->txn, s->env.meta, key, ENV_SOURCE_KEY_BYTES, &v, err);
    if (rc == 0 && v.mv_size == s->row.size_bytes && memcmp(v.mv_data, s->row.data, v.mv_size) == 0)
        return 0;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    return store_put(s, s->env.meta, key, ENV_SOURCE_KEY_BYTES, s->row.data, s->row.size_bytes, 0, err);
}

int store_put_sources(struct store *s, const void *rows, size_t size_bytes, uint32_t n_rows, struct err *err)
{
    const struct row_frame frame = {.data = rows, .size_bytes = size_bytes};
    struct row_source source;
    struct row_cursor c;
    int rc = raise_version(s, err);

    row_cursor_init(&c, &frame, 1, n_rows);
    while (rc == 0 && (rc = row_cursor_next_source(&c, &source, err)) > 0)
        rc = put_source(s, &source, err);
    row_cursor_release(&c);
    return rc;
}

int store_check_source(struct store *s, uint32_t number, uint32_t *last, struct err *err)
{
    struct row_memory memory = {0};
    struct row_source source;
    int rc;

    if (number == 0 || number == *last)
        return 0;
    rc = env_read_source(&s->env, s->txn, &memory, number, &source, err);
    row_memory_release(&memory);
    if (rc == -ENOENT)
        return err_set(err, -EINVAL, "an item of source %" PRIu32 ", which is not there", number);
    *last = number;
    return rc;
}
