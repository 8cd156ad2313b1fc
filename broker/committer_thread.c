/* The committer's thread: it alone writes to the stores. Requests that arrive together share a transaction of each
 * store. */
#include "broker/committer_stores.h"

#include <assert.h>
#include <errno.h>

#include "base/clock.h"
#include "broker/committer_table.h"
#include "store/push.h"

enum { REMOVAL_LOOK_MS = 20 };

static void complete(struct committer *c, struct passage *p)
{
    int rc = p->done.rc;

    if (p->request->compared && rc == 0) {
        p->done.n_added = p->request->walk_rows.n_fresh;
        p->done.n_again = p->request->walk_rows.n_again;
        p->done.compared = p->request->counts;
    }
    if ((rc == -ENOSPC || rc == -EAGAIN) && p->done.op != COMMITTER_ENTRY && p->done.op != COMMITTER_MODEL)
        p->done.request = p->request;
    else
        committer_request_free(p->request);
    p->request = NULL;
    rc = mailbox_post(c->out, p);
    assert(rc == 0); /* as many slots as there can be requests */
    (void)rc;
}

/* -- groups -- */

static bool leaves_txn_sound(int rc)
{
    return rc == 0 || rc == -EBADMSG || rc == -EMSGSIZE || rc == -EINVAL || rc == -EALREADY || rc == -ENOENT ||
           rc == -EDQUOT;
}

/* Are the rows there that were posted before this one? */
static int wait_for_turn(const struct store *s, const struct committer_request *q, struct err *err)
{
    uint64_t next = store_next_item(s);

    if (q->first_item != COMMITTER_ANY_ITEM && q->first_item != next)
        return err_set(err, -EAGAIN, "the rows before item %llu are not there, the next item is %llu",
                       (unsigned long long)q->first_item, (unsigned long long)next);
    return 0;
}

static int put_pictures(struct store *s, const struct committer_request *q, struct err *err)
{
    const uint8_t *data = NULL;
    size_t n = 0;

    if (q->pictures)
        data = wire_tensor_frame(q->pictures, 0, &n);
    return store_push(s, q->rows.data, q->rows.size_bytes, q->n_rows, q->offset, data, n, err);
}

static int apply(struct open_store *o, const struct committer_request *q, struct committer_completion *done,
                 struct err *err)
{
    struct store *s = o->store;
    const struct store_records records = {.again = q->again,
                                          .data = q->records.data,
                                          .ends = q->ends,
                                          .n = q->n_records,
                                          .n_failed = q->n_failed,
                                          .embedding_data = q->embeddings.data,
                                          .embeddings = q->embedding_list,
                                          .n_embeddings = q->n_embeddings};
    int rc = q->op == COMMITTER_ROWS || q->op == COMMITTER_SEAL ? wait_for_turn(s, q, err) : 0;

    if (rc < 0)
        return rc;
    switch (q->op) {
    case COMMITTER_SEAL:
        rc = store_check_whole(s, q->disk_bytes, err);
        return rc < 0 ? rc : committer_walk_seal(&o->walk, s, q, err);
    case COMMITTER_COMPARE:
        return committer_walk_apply(&o->walk, s, q, &done->unit, err);
    case COMMITTER_ROWS:
        return store_append_rows(s, q->rows.data, q->rows.size_bytes, q->n_rows, err);
    case COMMITTER_SOURCES:
        return store_put_sources(s, q->rows.data, q->rows.size_bytes, q->n_rows, err);
    case COMMITTER_PUSH:
        return put_pictures(s, q, err);
    case COMMITTER_AGAIN:
        return store_again(s, q->rows.data, q->rows.size_bytes, q->n_rows, &done->unit, err);
    case COMMITTER_RETRY:
        return store_retry(s, q->unit, q->control.n_codes, q->control.codes, &done->next_unit, &done->unit, err);
    case COMMITTER_UNIT:
        if (q->n_records && q->ends[q->n_records - 1] > q->records.size_bytes)
            return err_set(err, -EINVAL, "unit %u: records end behind their buffer", q->unit);
        for (uint32_t i = 0; i < q->n_embeddings; i++)
            if ((uint64_t)q->embedding_list[i].start + q->embedding_list[i].size_bytes > q->embeddings.size_bytes)
                return err_set(err, -EINVAL, "unit %u: embeddings end behind their buffer", q->unit);
        return store_put_unit(s, q->unit, &records, err);
    case COMMITTER_ATTEMPTS:
        return store_put_attempts(s, q->unit, q->attempts, q->parts.data, (uint32_t)q->parts.size_bytes, err);
    case COMMITTER_OPEN:
    case COMMITTER_FIND:
    case COMMITTER_LOAD:
    case COMMITTER_ENTRY:
    case COMMITTER_LIST:
    case COMMITTER_MODEL:
    case COMMITTER_CLOSE:
        break;
    }
    return err_set(err, -EINVAL, "no such operation: %d", (int)q->op);
}

/* Put one request into its store's transaction. What becomes of it is told when the group is committed. < 0: the
 * transaction is lost. */
static int put(struct committer *c, struct open_store *o, struct passage *p)
{
    size_t before;
    int rc = 0;

    p->err.text[0] = '\0';
    if (!store_in_txn(o->store))
        rc = store_begin(o->store, &p->err);
    if (rc < 0)
        return rc;
    before = store_txn_bytes(o->store);
    rc = committer_walk_compare(&o->walk, o->store, p->request, &p->err);
    if (rc == 0)
        rc = apply(o, p->request, &p->done, &p->err);
    if (rc != -EAGAIN && !leaves_txn_sound(rc))
        return rc;
    c->group_bytes +=
        store_txn_bytes(o->store) - before + (p->request->pictures ? wire_tensor_size_bytes(p->request->pictures) : 0);
    p->done.rc = rc;
    return 0;
}

static void undo(struct open_store *o)
{
    store_abort(o->store);
    committer_walk_undo(&o->walk);
}

/* The store's transaction has outgrown the map: all requests of the group go into another one, for which more is
 * mapped. */
static int put_again(struct committer *c, size_t store, struct err *err)
{
    struct open_store *o = &c->stores[store];
    int rc;

    do {
        undo(o);
        rc = 0;
        for (uint32_t i = 0; rc == 0 && i < c->n_group; i++)
            if (c->group[i]->store == store && (rc = put(c, o, c->group[i])) < 0)
                *err = c->group[i]->err;
    } while (rc == -ENOBUFS);
    return rc;
}

static int call_put(const struct committer_call *call)
{
    struct open_store *o = call->store;
    int rc = put(call->c, o, call->passage);

    if (rc < 0)
        o->group_err = call->passage->err;
    return rc == -ENOBUFS ? put_again(call->c, call->passage->store, &o->group_err) : rc;
}

static void join_group(struct committer *c, struct passage *p)
{
    struct open_store *o;
    int rc;

    c->group[c->n_group++] = p;
    p->store = committer_store_find(c, p->request->job);
    if (p->store == SIZE_MAX) {
        p->done.rc = err_set(&p->err, -EBADF, "job %llu has no store open", (unsigned long long)p->request->job);
        return;
    }
    o = &c->stores[p->store];
    if (o->group_rc < 0)
        return; /* the store's transaction is lost already, this one shares its fate */
    rc = committer_store_guarded(c, o, p, call_put, &o->group_err);
    if (rc < 0) {
        undo(o);
        o->group_rc = rc;
    }
}

static int call_commit(const struct committer_call *call)
{
    struct open_store *o = call->store;
    int rc;

    do
        rc = store_commit(o->store, &o->group_err);
    while (rc == -ENOBUFS && (rc = put_again(call->c, (size_t)(o - call->c->stores), &o->group_err)) == 0);
    return rc;
}

static int commit_store(struct committer *c, struct open_store *o)
{
    int rc = committer_store_guarded(c, o, NULL, call_commit, &o->group_err);

    if (rc < 0)
        undo(o);
    else
        committer_walk_committed(&o->walk);
    return rc;
}

static void commit_group(struct committer *c)
{
    for (size_t i = 0; i < c->n_stores; i++) {
        struct open_store *o = &c->stores[i];

        if (!store_in_txn(o->store))
            continue;
        o->group_rc = commit_store(c, o);
    }
    for (uint32_t i = 0; i < c->n_group; i++) {
        struct passage *p = c->group[i];

        if (p->store != SIZE_MAX) {
            const struct open_store *o = &c->stores[p->store];

            /* done only in the transaction that is lost: not done */
            if (o->group_rc < 0 && (p->done.rc == 0 || p->done.rc == -EALREADY)) {
                p->done.rc = o->group_rc;
                p->err = o->group_err;
            }
            p->done.counters = *store_counters(o->store);
            p->done.next_item = store_next_item(o->store);
            p->done.n_pushed = store_n_pushed(o->store);
            if (p->done.op == COMMITTER_UNIT && p->done.rc == 0)
                store_push_drop(o->store, p->done.unit);
        }
        complete(c, p);
    }
    for (size_t i = 0; i < c->n_stores; i++)
        c->stores[i].group_rc = 0;
    c->n_group = 0;
    c->group_bytes = 0;
}

/* Everything that waits now, as far as one group goes. */
static void run_group(struct committer *c, struct passage *p)
{
    int64_t deadline_ms = clock_mono_ms() + c->conf.group_ms;

    for (; p; p = mailbox_take(c->in)) {
        enum committer_op op = p->request->op;

        if (committer_store_reads(p->request)) {
            p->done.rc = committer_store_read(c, p);
            complete(c, p);
            continue;
        }
        if (op == COMMITTER_ENTRY || op == COMMITTER_LIST || op == COMMITTER_MODEL) {
            p->done.rc = op == COMMITTER_ENTRY  ? committer_table_entry(c, p)
                         : op == COMMITTER_LIST ? committer_table_list(c, p)
                                                : committer_table_model(c, p);
            if (p->done.rc != COMMITTER_TABLE_LATER)
                complete(c, p);
            continue;
        }
        if (op == COMMITTER_OPEN || op == COMMITTER_CLOSE) {
            commit_group(c); /* what came before comes out before */
            p->done.rc = op == COMMITTER_OPEN ? committer_store_open(c, p) : committer_store_close(c, p);
            complete(c, p);
            deadline_ms = clock_mono_ms() + c->conf.group_ms;
            continue;
        }
        join_group(c, p);
        if (c->n_group == c->conf.group_requests || c->group_bytes >= c->conf.group_bytes ||
            clock_mono_ms() >= deadline_ms)
            break;
    }
    commit_group(c);
}

static void complete_removals(struct committer *c, bool wait)
{
    struct passage *p;

    while ((p = committer_table_removed(c, wait)))
        complete(c, p);
}

static int64_t idle_ms(const struct committer *c, bool built)
{
    const int64_t ms = built ? 0 : committer_keys_wait_ms(c);

    return c->removals.first && (ms < 0 || ms > REMOVAL_LOOK_MS) ? REMOVAL_LOOK_MS : ms;
}

void *committer_main(void *arg)
{
    struct committer *c = arg;
    bool built = false;

    for (;;) {
        struct passage *p = mailbox_take_wait(c->in, idle_ms(c, built));

        complete_removals(c, false);
        if (p) {
            run_group(c, p);
            built = true; /* look for keys to build once the mailbox is empty */
        } else if (atomic_load(&c->finishing)) {
            if (mailbox_length(c->in) == 0)
                break;
        } else {
            built = committer_keys_step(c);
        }
    }
    for (size_t i = 0; i < c->n_stores; i++)
        committer_store_finish(c, &c->stores[i]);
    c->n_stores = 0;
    complete_removals(c, true);
    mailbox_close(c->out);
    return NULL;
}
