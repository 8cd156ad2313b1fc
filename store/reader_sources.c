/* reader_sources.c - the named sources of a store that is read, and the absolute paths of its items. */
#include "store/reader.h"

#include "base/grow.h"

#include <errno.h>
#include <inttypes.h>

#include "store/reader_remote.h"
#include "store/reader_state.h"

int reader_add_source(struct reader *r, struct row_memory *memory, const MDB_val *v, struct err *err)
{
    int rc;

    if (grow_array(&r->sources, &r->sources_capacity, r->n_sources, sizeof(*r->sources), 4) < 0)
        return err_set(err, -ENOMEM, "no memory for its sources");
    rc = env_decode_source(memory, v, r->n_sources + 1, &r->sources[r->n_sources], err);
    r->n_sources += rc == 0;
    return rc;
}

static int read_sources(struct reader *r, struct err *err)
{
    struct row_memory memory = {0};
    MDB_val v;
    int rc = reader_begin(r, err);

    if (rc < 0)
        return rc;
    while (rc == 0) {
        rc = env_get_source(&r->env, r->txn, r->n_sources + 1, &v, err);
        if (rc == 0)
            rc = reader_add_source(r, &memory, &v, err);
    }
    reader_end(r);
    row_memory_release(&memory);
    return rc == -ENOENT ? 0 : rc;
}

int reader_sources(struct reader *r, const struct row_source **ret, uint32_t *ret_n, struct err *err)
{
    int rc;

    r->n_sources = 0;
    rc = r->remote ? remote_sources(r, err) : read_sources(r, err);
    if (rc < 0)
        return err_prefix(err, rc, "%s", r->path);
    *ret = r->sources;
    *ret_n = r->n_sources;
    return 0;
}

const struct row_source *reader_source(const struct reader *r, uint32_t number)
{
    return number && number <= r->n_sources ? &r->sources[number - 1] : NULL;
}

int reader_move_source(struct reader *r, uint32_t number, const char *root, struct err *err)
{
    const struct row_source *sources;
    uint32_t n;
    int rc = number > r->n_sources ? reader_sources(r, &sources, &n, err) : 0;

    if (rc == 0 && (number == 0 || number > r->n_sources ||
                    !msg_text_set(r->sources[number - 1].root, sizeof(r->sources->root), root)))
        rc = err_set(err, -EINVAL, "%s: source %" PRIu32 " is not there", r->path, number);
    return rc;
}

int reader_resolve(struct reader *r, struct row_item *item, struct err *err)
{
    const struct row_source *sources;
    uint32_t n;
    int rc = 0;

    if (item->source > r->n_sources) /* load sources added since */
        rc = reader_sources(r, &sources, &n, err);
    if (rc < 0)
        return rc;
    if (item->source > r->n_sources)
        return err_set(err, -EBADMSG, "%s: item %" PRIu64 " (unit %" PRIu32 "): its source %" PRIu32 " is not there",
                       r->path, item->item, r->unit, item->source);
    rc = row_source_resolve(item->source ? &r->sources[item->source - 1] : NULL, item, &r->path_bytes);
    return rc < 0 ? err_set(err, -ENOMEM, "%s: out of memory", r->path) : 0;
}
