#include "broker/committer_table.h"

#include "base/clock.h"
#include "broker/control.h"
#include "broker/model_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LOOKED_AT = 4096 }; /* rows of one LIST, so that the thread is soon back at its stores */

/* Read the row of the request's job into a new p->done.entry. 1: it is there; 0: the job has none. */
static int read_entry(struct committer *c, struct passage *p)
{
    const uint64_t job = p->request->job;
    struct stored_job_entry *e = p->done.entry = calloc(1, sizeof(*e));
    int rc = e ? job_table_next(c->conf.table, job - 1, e, &p->err) : err_set(&p->err, -ENOMEM, "out of memory");
    const bool is_another = (rc == 1 || rc == -EBADMSG) && e->job != job;

    return is_another ? 0 : rc;
}

static int no_job(uint64_t job, struct err *err)
{
    return err_set(err, -ENOENT, "there is no job %llu", (unsigned long long)job);
}

int committer_table_open(struct committer *c, struct passage *p)
{
    const struct committer_request *q = p->request;
    int rc = read_entry(c, p);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (!q->entry)
        return no_job(q->job, &p->err);
    *p->done.entry = *q->entry;
    return job_table_put(c->conf.table, p->done.entry, &p->err);
}

static int change_entry(struct committer *c, struct passage *p)
{
    const struct committer_request *q = p->request;
    int rc = read_entry(c, p);
    struct stored_job_entry *e = p->done.entry;
    char path[PATH_MAX];

    if (rc <= 0)
        return rc < 0 ? rc : no_job(q->job, &p->err);
    rc = control_apply(e, &q->control, clock_wall_ms(), &p->err);
    if (rc < 0)
        return rc;
    if (e->wanted != STORED_WANTED_REMOVED)
        return job_table_put(c->conf.table, e, &p->err);
    rc = job_table_remove_begin(c->conf.table, e, path, &p->err);
    if (rc == 0)
        rc = removals_add(&c->removals, p, path);
    return rc < 0 ? rc : COMMITTER_TABLE_LATER;
}

int committer_table_entry(struct committer *c, struct passage *p)
{
    if (!p->request->entry)
        return change_entry(c, p);
    p->done.entry = p->request->entry;
    p->request->entry = NULL;
    return job_table_put(c->conf.table, p->done.entry, &p->err);
}

struct passage *committer_table_removed(struct committer *c, bool wait)
{
    struct passage *p = removals_take(&c->removals, wait);

    if (p)
        p->done.rc = job_table_remove_end(c->conf.table, p->done.entry, p->done.rc, &p->err);
    return p;
}

int committer_table_list(struct committer *c, struct passage *p)
{
    const struct committer_request *q = p->request;
    struct stored_job_entry e = {.job = q->first_job ? q->first_job - 1 : 0};
    struct committer_completion *done = &p->done;
    int rc = 0;

    buf_init(&done->found, MSG_MAX_ROW_FRAME_BYTES);
    for (int n = 0; rc == 0; n++) {
        if (n == MAX_LOOKED_AT || done->n_found == MSG_MAX_LISTED_JOBS) {
            done->next_job = e.job + 1;
            return 0;
        }
        rc = job_table_next(c->conf.table, e.job, &e, &p->err);
        if (rc == 0)
            return 0;
        if (rc == -EBADMSG) {
            e = (struct stored_job_entry){.job = e.job};
            (void)msg_text_set(e.text, sizeof(e.text), p->err.text);
        } else if (rc < 0) {
            return rc;
        }
        rc = 0;
        if (q->of_owner && strcmp(e.owner, q->owner) != 0)
            continue;
        rc = buf_append(&done->found, &e, sizeof(e));
        done->n_found += rc == 0;
    }
    return err_set(&p->err, rc, "no memory for the list of jobs");
}

int committer_table_model(struct committer *c, struct passage *p)
{
    struct committer_model *m = p->done.model = p->request->model;

    p->request->model = NULL;
    if (m->read)
        return model_folder_read(c->conf.models, &m->model, &m->files, &p->err);
    return model_folder_write(c->conf.models, &m->model, m->has_files ? &m->files : NULL, &p->err);
}
