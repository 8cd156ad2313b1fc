#include "job/job.h"

#include "base/interrupt.h"
#include "wire/client_session.h"

#include <errno.h>
#include <stdlib.h>

void job_init(struct job *j, const char *endpoint, const struct wire_keys *keys, const struct msg_job_open *open)
{
    *j = (struct job){.endpoint = endpoint, .keys = keys, .open = *open};
    buf_init(&j->rows, MSG_MAX_ROW_FRAME_BYTES);
}

void job_disconnect(struct job *j)
{
    client_session_close(&j->session);
}

void job_release(struct job *j)
{
    job_disconnect(j);
    buf_release(&j->rows);
    free(j->sources);
}

static int find_items(void *arg, struct buf *keys, uint32_t n_keys, struct buf *ret, uint32_t *ret_n, struct err *err)
{
    struct job *j = arg;
    int rc;

    interrupt_let_in(true);
    rc = client_session_find_items(j->session, j->opened.job, keys, n_keys, ret, ret_n, err);
    interrupt_let_in(false);
    return rc;
}

static int learn_sources(struct job *j, struct err *err)
{
    struct row_frame frame;
    struct row_cursor c;
    uint32_t n = 0;
    int rc;

    buf_clear(&j->rows);
    rc = client_session_find_sources(j->session, j->opened.job, &j->rows, &n, err);
    if (rc < 0)
        return rc;
    free(j->sources);
    j->sources = calloc(n + 1, sizeof(*j->sources));
    j->known = (struct origins_known){.rows = j->sources, .find_items = find_items, .arg = j};
    frame = (struct row_frame){.data = j->rows.data, .size_bytes = j->rows.size_bytes};
    row_cursor_init(&c, &frame, n ? 1 : 0, n);
    rc = j->sources ? 1 : err_set(err, -ENOMEM, "no memory for the sources");
    while (rc > 0 && (rc = row_cursor_next_source(&c, &j->sources[j->known.n_rows], err)) > 0)
        if (j->sources[j->known.n_rows].number == j->known.n_rows + 1)
            j->known.n_rows++;
        else
            rc = err_set(err, -EBADMSG, "the broker's answer: source %u is missing", j->known.n_rows + 1);
    row_cursor_release(&c);
    return rc;
}

bool job_is_passing(int rc)
{
    return rc == -ECONNRESET || rc == -ETIMEDOUT || rc == -ESHUTDOWN;
}

int job_open(struct job *j, int64_t timeout_ms, const struct msg_recipe **ret_recipe, struct err *err)
{
    int rc = 0;

    *ret_recipe = NULL;
    interrupt_let_in(true);
    if (!j->session)
        rc = client_session_open(j->endpoint, j->keys, timeout_ms, &j->session, err);
    if (rc == 0) {
        client_session_set_timeout(j->session, JOB_PATIENCE_MS);
        rc = client_session_job_open(j->session, &j->open, &j->opened, ret_recipe, err);
        if (rc == 0 && !j->sealed)
            rc = learn_sources(j, err);
    }
    interrupt_let_in(false);
    return rc;
}

int job_sources(struct job *j, const struct feed *f, struct err *err)
{
    const struct origins *o = feed_origins(f);
    int rc;

    if (o->n_rows == 0)
        return 0;
    buf_clear(&j->rows);
    rc = origins_append(o, &j->rows);
    if (rc < 0)
        return err_set(err, rc, "the sources do not fit a message");
    interrupt_let_in(true);
    rc = client_session_sources(j->session, j->opened.job, &j->rows, o->n_rows, err);
    interrupt_let_in(false);
    return rc;
}

void job_compare(struct job *j, const struct msg_comparison *how)
{
    j->compare = how;
    j->walk_begun = false;
    j->compared = (struct msg_compared){0};
}

int job_stream(struct job *j, struct feed *f, bool *ret_more, struct err *err)
{
    uint32_t n;
    int rc = feed_next(f, &j->rows, &n, ret_more, err);

    if (rc < 0 || n == 0)
        return rc;
    interrupt_let_in(true);
    if (j->compare)
        rc = client_session_compare(j->session, j->opened.job, j->walk_begun ? NULL : j->compare, &j->rows, n, err);
    else
        rc = client_session_rows(j->session, j->opened.job, &j->rows, n, NULL, err);
    interrupt_let_in(false);
    j->walk_begun = true;
    if (j->compare)
        j->compared = *client_session_compared(j->session);
    else
        j->compared.n_new += n;
    return rc;
}

int job_seal(struct job *j, uint64_t disk_bytes, struct err *err)
{
    int rc;

    interrupt_let_in(true);
    client_session_set_timeout(j->session, JOB_PATIENCE_MS);
    rc = client_session_seal(j->session, j->opened.job, disk_bytes, &j->accepted, err);
    if (rc == 0) {
        if (!j->sealed && j->compare && j->walk_begun)
            j->compared = *client_session_compared(j->session);
        j->sealed = true;
        client_session_set_timeout(j->session, JOB_QUERY_MS);
    }
    interrupt_let_in(false);
    return rc;
}

int job_query(struct job *j, struct msg_job_progress *ret, struct err *err)
{
    return client_session_query(j->session, j->opened.job, ret, err);
}

int job_stop(struct job *j, struct err *err)
{
    struct msg_job_progress progress;

    return client_session_stop_job(j->session, j->opened.job, &progress, err);
}

int job_shutdown(struct job *j, struct err *err)
{
    client_session_set_timeout(j->session, JOB_QUERY_MS);
    return client_session_shutdown(j->session, err);
}
