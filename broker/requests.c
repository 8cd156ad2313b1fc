#include "broker/requests.h"

#include <errno.h>
#include <stdlib.h>

enum { RETRY_MS = 500 };

struct waiting_request {
    struct waiting_request *next;
    struct committer_request *request;
};

void requests_init(struct requests *r, struct driver *driver, struct peers *peers)
{
    *r = (struct requests){.driver = driver, .peers = peers, .retry_at_ms = INT64_MAX};
    r->end = &r->backlog;
}

static void free_all(struct waiting_request *w)
{
    for (struct waiting_request *next; w; w = next) {
        next = w->next;
        committer_request_free(w->request);
        free(w);
    }
}

void requests_release(struct requests *r)
{
    size_t at = 0;

    free_all(r->backlog);
    free_all(r->retry);
    for (struct question *q; (q = core_map_next(&r->questions, &at));)
        free(q);
    core_map_release(&r->questions);
}

static struct waiting_request *waiting_new(struct requests *r, struct committer_request *request)
{
    struct waiting_request *w = calloc(1, sizeof(*w));

    if (w) {
        w->request = request;
        return w;
    }
    committer_request_free(request);
    driver_fail(r->driver, -ENOMEM, "no memory for the committer");
    return NULL;
}

void requests_flush(struct requests *r)
{
    while (r->backlog) {
        struct waiting_request *w = r->backlog;

        if (committer_post(r->committer, &w->request) < 0)
            return;
        r->backlog = w->next;
        if (!r->backlog)
            r->end = &r->backlog;
        free(w);
    }
}

void requests_post(struct requests *r, struct committer_request *request)
{
    struct waiting_request *w;

    if (!request) {
        driver_fail(r->driver, -ENOMEM, "no memory for the committer");
        return;
    }
    if (!r->backlog && committer_post(r->committer, &request) == 0)
        return;
    w = waiting_new(r, request);
    if (!w)
        return;
    *r->end = w;
    r->end = &w->next;
}

/* -- who waits -- */

struct committer_request *requests_new(struct requests *r, enum committer_op op, uint64_t job, const struct question *q)
{
    struct committer_request *request = committer_request_new(op, job, ++r->last_tag);
    struct peer *p = peers_find(r->peers, q->peer);
    struct question *copy = malloc(sizeof(*copy));

    if (!request || !copy || core_map_put(&r->questions, r->last_tag, copy) < 0) {
        committer_request_free(request);
        free(copy);
        return NULL;
    }
    *copy = *q;
    if (p)
        p->n_asked++;
    if (p && q->is_rows) {
        p->n_unanswered++;
        p->unanswered_bytes += q->n_bytes;
        r->unanswered_bytes += q->n_bytes;
    }
    return request;
}

const struct question *requests_question(const struct requests *r, uint64_t tag)
{
    return tag ? core_map_get(&r->questions, tag) : NULL;
}

bool requests_answered(struct requests *r, uint64_t tag, struct question *ret)
{
    struct question *q = tag ? core_map_take(&r->questions, tag) : NULL;
    struct peer *p;

    if (!q)
        return false;
    p = peers_find(r->peers, q->peer);
    if (q->is_rows)
        r->unanswered_bytes -= q->n_bytes;
    if (p)
        p->n_asked--;
    if (p && q->is_rows) {
        p->n_unanswered--;
        p->unanswered_bytes -= q->n_bytes;
    }
    *ret = *q;
    free(q);
    return true;
}

/* -- a full disk -- */

void requests_await_room(struct requests *r)
{
    if (r->retry_at_ms == INT64_MAX)
        r->retry_at_ms = r->driver->now_ms + RETRY_MS;
}

void requests_retry_later(struct requests *r, struct committer_request **request)
{
    struct waiting_request *w = waiting_new(r, *request), **link = &r->retry;

    *request = NULL;
    if (!w)
        return;
    while (*link && (w->request->op != COMMITTER_ROWS ||
                     ((*link)->request->op == COMMITTER_ROWS && (*link)->request->first_item < w->request->first_item)))
        link = &(*link)->next;
    w->next = *link;
    *link = w;
    requests_await_room(r);
}

/* Pictures from a client that has gone: when it comes back, it sends them again. */
static bool is_forsaken(const struct requests *r, const struct committer_request *request)
{
    const struct question *q = requests_question(r, request->tag);

    return request->op == COMMITTER_PUSH && q && !peers_find(r->peers, q->peer);
}

void requests_retry(struct requests *r)
{
    struct question ignored;

    r->retry_at_ms = INT64_MAX;
    while (r->retry) {
        struct waiting_request *w = r->retry;

        r->retry = w->next;
        if (is_forsaken(r, w->request)) {
            (void)requests_answered(r, w->request->tag, &ignored);
            committer_request_free(w->request);
        } else {
            requests_post(r, w->request);
        }
        free(w);
    }
}

void requests_drop(struct requests *r, uint64_t job)
{
    struct waiting_request **link = &r->retry;

    while (*link) {
        struct waiting_request *w = *link;
        struct question ignored;

        if (w->request->job != job) {
            link = &w->next;
            continue;
        }
        (void)requests_answered(r, w->request->tag, &ignored);
        *link = w->next;
        committer_request_free(w->request);
        free(w);
    }
}
