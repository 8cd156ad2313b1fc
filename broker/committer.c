#include "broker/committer_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { REQUEST_OVERHEAD_BYTES = 1024 };

/* -- requests -- */

struct committer_request *committer_request_new(enum committer_op op, uint64_t job, uint64_t tag)
{
    struct committer_request *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->op = op;
    r->job = job;
    r->tag = tag;
    r->first_item = COMMITTER_ANY_ITEM;
    return r;
}

static void model_free(struct committer_model *m)
{
    if (!m)
        return;
    model_contents_release(&m->files);
    free(m);
}

void committer_request_free(struct committer_request *r)
{
    if (!r)
        return;
    free(r->path);
    free(r->meta);
    free(r->begin);
    free(r->entry);
    model_free(r->model);
    buf_release(&r->walk_rows.fresh);
    buf_release(&r->walk_rows.again);
    free(r->again);
    buf_release(&r->parts);
    buf_release(&r->rows);
    wire_tensor_free(r->pictures);
    buf_release(&r->records);
    free(r->ends);
    buf_release(&r->embeddings);
    free(r->embedding_list);
    free(r);
}

static void passage_free(void *message)
{
    struct passage *p = message;

    if (!p)
        return;
    committer_request_free(p->request);
    committer_request_free(p->done.request);
    units_read_free(p->done.load);
    buf_release(&p->done.found);
    free(p->done.entry);
    model_free(p->done.model);
    free(p);
}

void committer_completion_free(struct committer_completion *done)
{
    passage_free(done);
}

int committer_post(struct committer *c, struct committer_request **r)
{
    const struct committer_request *q = *r;
    uint64_t bytes = REQUEST_OVERHEAD_BYTES + q->parts.capacity_bytes + q->rows.capacity_bytes +
                     q->records.capacity_bytes + sizeof(uint32_t) * (uint64_t)q->n_records +
                     (q->pictures ? wire_tensor_size_bytes(q->pictures) : 0) + q->embeddings.capacity_bytes +
                     sizeof(struct store_embedding) * (uint64_t)q->n_embeddings;
    struct passage *p;
    int rc;

    if (q->model && (q->model->read || q->model->has_files))
        bytes += model_file_bytes(&q->model->model);
    if (c->n_waiting == c->conf.max_requests || (c->n_waiting && c->bytes_waiting + bytes > c->conf.max_bytes))
        return -EAGAIN;
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->done =
        (struct committer_completion){.op = q->op, .job = q->job, .tag = q->tag, .unit = q->unit, .text = p->err.text};
    p->request = *r;
    p->bytes = bytes;
    rc = mailbox_post(c->in, p);
    if (rc < 0) {
        p->request = NULL;
        passage_free(p);
        return rc;
    }
    *r = NULL;
    c->n_waiting++;
    c->bytes_waiting += bytes;
    return 0;
}

static struct committer_completion *taken(struct committer *c, struct passage *p)
{
    if (!p)
        return NULL;
    c->n_waiting--;
    c->bytes_waiting -= p->bytes;
    return &p->done;
}

struct committer_completion *committer_take(struct committer *c)
{
    return taken(c, mailbox_take(c->out));
}

int committer_fd(const struct committer *c)
{
    return mailbox_fd(c->out);
}

/* -- start, finish -- */

static void release(struct committer *c)
{
    mailbox_free(c->in, passage_free);
    mailbox_free(c->out, passage_free);
    free(c->stores);
    free(c->group);
    free(c);
}

int committer_start(const struct committer_conf *conf, struct committer **ret, struct err *err)
{
    struct committer *c = calloc(1, sizeof(*c));
    int rc;

    if (!c)
        return err_set(err, -ENOMEM, "committer: out of memory");
    c->conf = *conf;
    c->conf.max_requests = conf->max_requests ? conf->max_requests : 4096;
    c->conf.max_bytes = conf->max_bytes ? conf->max_bytes : (uint64_t)128 << 20;
    c->conf.group_ms = conf->group_ms ? conf->group_ms : 10;
    c->conf.group_requests = conf->group_requests ? conf->group_requests : 1024;
    c->conf.group_bytes = conf->group_bytes ? conf->group_bytes : (uint64_t)16 << 20;
    c->group = calloc(c->conf.group_requests, sizeof(struct passage *));
    rc = c->group ? mailbox_new(c->conf.max_requests, &c->in) : -ENOMEM;
    if (rc == 0)
        rc = mailbox_new(c->conf.max_requests, &c->out);
    if (rc == 0)
        rc = -pthread_create(&c->thread, NULL, committer_main, c);
    if (rc < 0) {
        if (c->in)
            mailbox_free(c->in, NULL);
        if (c->out)
            mailbox_free(c->out, NULL);
        free(c->group);
        free(c);
        return err_set(err, rc, "committer: cannot start: %s", strerror(-rc));
    }
    *ret = c;
    return 0;
}

void committer_finish(struct committer *c)
{
    atomic_store(&c->finishing, true);
    mailbox_close(c->in);
}

void committer_free(struct committer *c)
{
    if (!c)
        return;
    committer_finish(c);
    (void)pthread_join(c->thread, NULL);
    release(c);
}
