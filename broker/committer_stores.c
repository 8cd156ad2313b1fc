#include "broker/committer_stores.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "broker/committer_table.h"
#include "store/find.h"
#include "store/push.h"

enum {
    /* Keys of a small store are built before it is closed, so that a job of a minute needs no second visit. */
    KEYS_AT_CLOSE_STEPS = 50,
    KEYS_RETRY_MS = 10000,
};

size_t committer_store_find(const struct committer *c, uint64_t job)
{
    for (size_t i = 0; i < c->n_stores; i++)
        if (c->stores[i].job == job)
            return i;
    return SIZE_MAX;
}

static int make(void *call)
{
    return ((const struct committer_call *)call)->make(call);
}

int committer_store_guarded(struct committer *c, struct open_store *o, struct passage *p,
                            int (*function)(const struct committer_call *call), struct err *err)
{
    struct committer_call call = {c, o, p, function};

    return store_guard(o->store, store_path(o->store), make, &call, err);
}

static int call_open(const struct committer_call *call)
{
    const struct committer *c = call->c;
    const struct committer_request *q = call->passage->request;
    const struct store_options options = {.create = q->create,
                                          .check = q->check,
                                          .allow_network_fs = c->conf.allow_network_fs,
                                          .min_free_bytes = c->conf.min_free_bytes,
                                          .meta = q->meta,
                                          .seam = c->conf.seam};

    return store_open(q->path, &options, &c->stores[c->n_stores].store, &call->passage->done.created,
                      &call->passage->err);
}

int committer_store_open(struct committer *c, struct passage *p)
{
    const struct committer_request *q = p->request;
    struct open_store *stores;
    int rc;

    if (committer_store_find(c, q->job) != SIZE_MAX)
        return err_set(&p->err, -EEXIST, "job %llu has its store open", (unsigned long long)q->job);
    if (!q->path)
        return err_set(&p->err, -EINVAL, "no path");
    stores = realloc(c->stores, (c->n_stores + 1) * sizeof(*stores));
    if (!stores)
        return err_set(&p->err, -ENOMEM, "%s: out of memory", q->path);
    c->stores = stores;
    stores[c->n_stores] = (struct open_store){.job = q->job};
    rc = store_guard(NULL, q->path, make, &(struct committer_call){c, NULL, p, call_open}, &p->err);
    if (rc < 0)
        return rc;
    rc = c->conf.table ? committer_table_open(c, p) : 0;
    if (rc < 0) {
        store_close(stores[c->n_stores].store);
        return rc;
    }
    p->done.store = stores[c->n_stores].store;
    p->done.counters = *store_counters(p->done.store);
    p->done.next_item = store_next_item(p->done.store);
    p->done.n_pushed = store_n_pushed(p->done.store);
    c->n_stores++;
    return 0;
}

/* A store that cannot have its keys built is sound without. */
static int call_finish_keys(const struct committer_call *call)
{
    struct store *s = call->store->store;

    for (int i = 0; i < KEYS_AT_CLOSE_STEPS && store_keys_wanted(s); i++)
        if (store_keys_step(s, NULL) < 0)
            break;
    return 0;
}

static int call_close(const struct committer_call *call)
{
    committer_walk_end(&call->store->walk);
    store_close(call->store->store);
    return 0;
}

void committer_store_finish(struct committer *c, struct open_store *o)
{
    struct err unused;

    (void)!committer_store_guarded(c, o, NULL, call_finish_keys, &unused);
    if (committer_store_guarded(c, o, NULL, call_close, &unused) < 0)
        store_close(o->store);
}

int committer_store_close(struct committer *c, struct passage *p)
{
    const struct committer_request *q = p->request;
    size_t i = committer_store_find(c, q->job);

    if (i == SIZE_MAX)
        return err_set(&p->err, -EBADF, "job %llu has no store open", (unsigned long long)q->job);
    p->done.counters = *store_counters(c->stores[i].store);
    p->done.next_item = store_next_item(c->stores[i].store);
    committer_store_finish(c, &c->stores[i]);
    c->stores[i] = c->stores[--c->n_stores];
    return 0;
}

static int call_load(const struct committer_call *call)
{
    const struct committer_request *q = call->passage->request;

    return units_read(call->store->store, q->unit, q->max_units, q->max_bytes, &call->passage->done.load,
                      &call->passage->err);
}

static int call_find(const struct committer_call *call)
{
    const struct committer_request *q = call->passage->request;
    struct committer_completion *done = &call->passage->done;

    buf_init(&done->found, MSG_MAX_ROW_FRAME_BYTES);
    return store_find(call->store->store, q->sources, &q->rows, q->n_rows, &done->found, &done->n_found,
                      &call->passage->err);
}

static int call_wanted(const struct committer_call *call)
{
    struct committer_completion *done = &call->passage->done;

    buf_init(&done->found, MSG_MAX_ROW_FRAME_BYTES);
    done->n_pushed = store_n_pushed(call->store->store);
    return store_push_wanted(call->store->store, &done->found, &done->n_found, &call->passage->err);
}

bool committer_store_reads(const struct committer_request *q)
{
    return q->op == COMMITTER_LOAD || q->op == COMMITTER_FIND || (q->op == COMMITTER_PUSH && q->n_rows == 0);
}

int committer_store_read(struct committer *c, struct passage *p)
{
    const struct committer_request *q = p->request;
    const size_t i = committer_store_find(c, q->job);

    if (i == SIZE_MAX)
        return err_set(&p->err, -EBADF, "job %llu has no store open", (unsigned long long)q->job);
    return committer_store_guarded(c, &c->stores[i], p,
                                   q->op == COMMITTER_LOAD   ? call_load
                                   : q->op == COMMITTER_FIND ? call_find
                                                             : call_wanted,
                                   &p->err);
}

/* -- keys -- */

static int call_keys_step(const struct committer_call *call)
{
    return store_keys_step(call->store->store, NULL);
}

bool committer_keys_step(struct committer *c)
{
    struct err unused;

    for (size_t i = 0; i < c->n_stores; i++) {
        struct open_store *o = &c->stores[i];

        if (!store_keys_wanted(o->store) || clock_mono_ms() < o->keys_after_ms)
            continue;
        if (committer_store_guarded(c, o, NULL, call_keys_step, &unused) < 0)
            o->keys_after_ms = clock_mono_ms() + KEYS_RETRY_MS;
        return true;
    }
    return false;
}

int64_t committer_keys_wait_ms(const struct committer *c)
{
    for (size_t i = 0; i < c->n_stores; i++)
        if (store_keys_wanted(c->stores[i].store))
            return KEYS_RETRY_MS;
    return -1;
}
