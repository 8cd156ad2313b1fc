#include "broker/committer_walk.h"

#include <errno.h>

void committer_walk_end(struct committer_walk *w)
{
    compare_close(w->compare);
    w->compare = NULL;
    w->n_applied = w->n_committed = w->n_compared;
}

static int compare(struct committer_walk *w, struct store *s, struct committer_request *q, struct err *err)
{
    int rc = 0;

    if (q->begin) {
        committer_walk_end(w);
        rc = compare_attach(s, q->begin, &w->compare, err);
    } else if (!w->compare) {
        rc = err_set(err, -EINVAL, "rows to be compared that belong to no walk; the first rows of a walk begin it");
    }
    if (rc == 0)
        rc = compare_rows(w->compare, q->rows.data, q->rows.size_bytes, q->n_rows, &q->walk_rows, err);
    if (rc < 0) {
        committer_walk_end(w);
        return rc;
    }
    q->counts = *compare_counts(w->compare);
    q->turn = w->n_compared++;
    buf_release(&q->rows);
    return 0;
}

int committer_walk_compare(struct committer_walk *w, struct store *s, struct committer_request *q, struct err *err)
{
    int rc = 0;

    if (q->compared)
        return 0;
    if (q->op == COMMITTER_SEAL)
        q->turn = w->n_compared;
    else if (q->op == COMMITTER_COMPARE)
        rc = compare(w, s, q, err);
    q->compared = rc == 0;
    return rc;
}

int committer_walk_apply(struct committer_walk *w, struct store *s, const struct committer_request *q,
                         uint32_t *ret_unit, struct err *err)
{
    const struct compared_rows *rows = &q->walk_rows;
    int rc = 0;

    if (q->turn < w->n_applied)
        return err_set(err, -EINVAL, "the walk of these rows has ended");
    if (q->turn > w->n_applied)
        return err_set(err, -EAGAIN, "earlier rows of the walk are not there");
    *ret_unit = UINT32_MAX;
    if (rows->n_again)
        rc = store_again(s, rows->again.data, rows->again.size_bytes, rows->n_again, ret_unit, err);
    if (rc == 0 && rows->n_fresh)
        rc = store_append_rows(s, rows->fresh.data, rows->fresh.size_bytes, rows->n_fresh, err);
    if (rc == 0)
        w->n_applied++;
    else if (rc == -EINVAL || rc == -EMSGSIZE || rc == -EBADMSG)
        committer_walk_end(w);
    return rc;
}

int committer_walk_seal(struct committer_walk *w, struct store *s, const struct committer_request *q, struct err *err)
{
    int rc = q->turn > w->n_applied ? err_set(err, -EAGAIN, "rows of the walk are not there") : store_seal(s, err);

    if (rc == 0) {
        compare_close(w->compare);
        w->compare = NULL;
    }
    return rc;
}

void committer_walk_committed(struct committer_walk *w)
{
    w->n_committed = w->n_applied;
}

void committer_walk_undo(struct committer_walk *w)
{
    w->n_applied = w->n_committed;
}
