/* jobs_open.c - JOB_OPEN: the store is opened, then the core takes the job on. */
#include "broker/jobs.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/options.h"
#include "broker/graph.h"
#include "broker/jobs_retry.h"
#include "broker/jobs_table.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An estimate of the bytes that the rows of an item of this node take, used until there are results: embeddings of the
 * published models' sizes, captions of one sentence. */
static uint64_t row_bytes_of(const struct msg_recipe *r, const struct msg_node *node)
{
    enum { CAPTION_BYTES = 256 };
    static const uint32_t numbers[] = {[MSG_EMBEDDING_QUERY] = 32 * 768,
                                       [MSG_EMBEDDING_ITC] = 32 * 256,
                                       [MSG_EMBEDDING_ITC_TEXT] = 4 * 256,
                                       [MSG_EMBEDDING_CLS] = 1408};
    uint64_t n = 0;

    if (node->stage == STAGE_LLM || (node->tasks & MSG_TASK_SCORE))
        n +=
            (uint64_t)CAPTION_BYTES * (r->n_prompts ? r->n_prompts : 1) * (r->decode.n_return ? r->decode.n_return : 1);
    for (uint32_t i = 0; i < r->n_embeddings; i++) {
        const struct msg_embedding_spec *e = &r->embeddings[i];

        if (node->tasks & msg_embedding_task(e->kind))
            n += numbers[e->kind] * dtype_size_bytes(e->dtype) / (e->first_row ? 32 : 1);
    }
    return n;
}

static void nodes_to_core(const struct msg_job_open *open, struct core_node *ret)
{
    for (uint32_t i = 0; i < open->n_nodes; i++)
        ret[i] = (struct core_node){.stage = open->nodes[i].stage,
                                    .needs = open->nodes[i].needs,
                                    .fingerprint = open->nodes[i].fingerprint,
                                    .out_bytes = open->nodes[i].out_bytes,
                                    .row_bytes = row_bytes_of(&open->recipe, &open->nodes[i])};
}

static bool refuse_if_different(struct jobs *jobs, uint64_t peer, uint64_t seq, const struct msg_job_open *open,
                                const struct stored_job_meta *meta)
{
    struct err err;
    enum msg_reason reason = stored_job_differs(meta, &open->recipe, open->n_nodes, open->nodes, open->path, &err);

    if (reason)
        answer_refuse_recipe(jobs->answers, peer, seq, reason, &meta->recipe, err.text);
    return reason != 0;
}

static bool refuse_if_cancelled(struct jobs *jobs, uint64_t peer, uint64_t seq, const struct broker_job *job)
{
    if (broker_job_is_cancelled(job))
        answer_refuse(jobs->answers, peer, seq, MSG_REASON_NOT_ALLOWED, "job %llu was cancelled",
                      (unsigned long long)job->id);
    return broker_job_is_cancelled(job);
}

static void answer_opened(struct jobs *jobs, const struct broker_job *job, uint64_t peer, uint64_t seq)
{
    struct peer *p = peers_find(jobs->peers, peer);
    struct msg m;

    if (p)
        p->rows_refused = false; /* it is told how many items there are */

    msg_init(&m, MSG_JOB_OPENED);
    m.seq = seq;
    m.job_opened = (struct msg_job_opened){.job = job->id,
                                           .n_items = job->next_item,
                                           .n_done = job->counters.n_done,
                                           .n_again = job->counters.n_again,
                                           .n_redone = job->counters.n_redone,
                                           .n_units = job->counters.n_units};
    answer_send(jobs->answers, peer, &m);
}

/* Open it once it is closed. */
static void open_later(struct jobs *jobs, struct broker_job *job, uint64_t peer, const struct msg *m)
{
    if (job->reopen) {
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_BUSY, "%s: is being closed; try again", job->open.path);
        return;
    }
    job->reopen = malloc(sizeof(*job->reopen));
    if (job->reopen)
        *job->reopen = (struct job_reopen){peer, *m};
    else
        driver_fail(jobs->driver, -ENOMEM, "no memory for a job");
}

static void open_again(struct jobs *jobs, struct broker_job *job, uint64_t peer, const struct msg *m)
{
    if (job->phase == BROKER_JOB_OPENING) {
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_BUSY, "%s: is being opened; try again", job->open.path);
    } else if (job->phase == BROKER_JOB_CLOSING || core_job_state_get(jobs->driver->core, job->id) == CORE_JOB_FAILED) {
        broker_job_begin_close(jobs, job);
        open_later(jobs, job, peer, m);
    } else if (m->job_open.job) { /* only to look at it */
        broker_job_hold(jobs, job, peer);
        answer_opened(jobs, job, peer, m->seq);
    } else if (!refuse_if_cancelled(jobs, peer, m->seq, job) &&
               !refuse_if_different(jobs, peer, m->seq, &m->job_open, store_info(job->store))) {
        (void)driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_JOB_START, .job = job->id});
        if (job->entry && job->entry->wanted != STORED_WANTED_RUN)
            broker_job_record(jobs, job, STORED_WANTED_RUN, 0, "");
        job->failures = (struct failures){0};
        jobs_retry_begin(jobs, job);
        job->sender = m->job_open.submission.given ? peer : 0;
        broker_job_hold(jobs, job, peer);
        answer_opened(jobs, job, peer, m->seq);
    }
}

/* The open job with this store: its client may have lost the connection and come back. */
static struct broker_job *find_by_path(struct jobs *jobs, const char *path)
{
    struct broker_job *job = jobs->first;

    while (job && strcmp(job->open.path, path) != 0)
        job = job->next;
    return job;
}

static struct stored_job_meta *meta_of(const struct msg_job_open *open)
{
    struct stored_job_meta *meta = calloc(1, sizeof(*meta));

    if (!meta)
        return NULL;
    meta->recipe = open->recipe;
    meta->n_nodes = open->n_nodes;
    memcpy(meta->nodes, open->nodes, sizeof(meta->nodes));
    memcpy(meta->source, open->source, sizeof(meta->source));
    meta->created_ms = clock_wall_ms();
    meta->push = open->submission.push;
    meta->unit_items = open->unit_items ? open->unit_items : JOBS_DEFAULT_UNIT_ITEMS;
    (void)msg_text_set(meta->program, sizeof(meta->program), "blipline " BLIPLINE_VERSION);
    return meta;
}

/* Refuse a job that no worker could ever do. */
static bool refuse_if_impossible(struct jobs *jobs, uint64_t peer, const struct msg *m)
{
    struct core_node nodes[CORE_MAX_NODES];
    struct err err = {""};

    nodes_to_core(&m->job_open, nodes);
    if (core_graph_check(nodes, m->job_open.n_nodes, &err) < 0)
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_BAD_MESSAGE, "the stage graph: %s", err.text);
    else if (graph_check(&m->job_open, &err) < 0)
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_RECIPE, "recipe and stage graph: %s", err.text);
    else if (m->job_open.unit_items > CORE_MAX_UNIT_ITEMS)
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_LIMIT, "units of %u items: at most %d are possible",
                      m->job_open.unit_items, CORE_MAX_UNIT_ITEMS);
    else
        return false;
    return true;
}

/* May this peer name a path, or nothing else? */
static bool refuse_path(struct jobs *jobs, const struct peer *p, const struct msg *m)
{
    if (!m->job_open.path[0])
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_NOT_ALLOWED,
                      "this broker keeps no jobs of its own (it has no state_dir)");
    else if (p->role != MSG_ROLE_ADMIN)
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_NOT_ALLOWED,
                      "%s: only an admin may name a path on the broker's machine", m->job_open.path);
    else
        return false;
    return true;
}

static struct committer_request *open_request(struct jobs *jobs, const struct broker_job *job, uint64_t peer,
                                              uint64_t seq)
{
    struct committer_request *r =
        requests_new(jobs->requests, COMMITTER_OPEN, job->id, &(struct question){.peer = peer, .seq = seq});

    if (!r)
        return NULL;
    r->path = strdup(job->open.path);
    r->create = job->open.create || job->open.submission.given;
    r->check = job->open.check;
    r->meta = r->create ? meta_of(&job->open) : NULL;
    if (!r->path || (r->create && !r->meta) || (job->open.submission.given && jobs_table_add(jobs, job, r) < 0)) {
        committer_request_free(r);
        return NULL;
    }
    return r;
}

static bool refuse_if_many_open(struct jobs *jobs, const struct peer *p, const struct msg *m)
{
    size_t n = 0;

    for (const struct broker_job *job = jobs->first; job; job = job->next)
        n += strcmp(job->owner, p->name) == 0;
    if (n >= jobs->limits.n_open)
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_LIMIT,
                      "%s has %zu jobs open, and no more may be (max_open_jobs of the broker's configuration)", p->name,
                      n);
    return n >= jobs->limits.n_open;
}

void broker_job_open(struct jobs *jobs, uint64_t peer, const struct msg *m)
{
    const struct peer *p = peers_find(jobs->peers, peer);
    struct committer_request *r;
    struct broker_job *job;
    struct msg own = *m; /* with the path */
    uint64_t id;

    if (!p)
        return;
    if (jobs->shutting_down) {
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_DRAINING, "the broker is about to end");
        return;
    }
    if (!jobs->table && refuse_path(jobs, p, m))
        return;
    id = jobs->table ? jobs_table_find(jobs, p, m, own.job_open.path) : jobs->last_id + 1;
    if (id == 0)
        return;
    job = find_by_path(jobs, own.job_open.path);
    if (job) {
        open_again(jobs, job, peer, &own);
        return;
    }
    if (refuse_if_many_open(jobs, p, m) || (!own.job_open.job && refuse_if_impossible(jobs, peer, m)))
        return;
    job = calloc(1, sizeof(*job));
    if (job) {
        job->id = job->units.job = id;
        job->open = own.job_open;
        memcpy(job->owner, p->name, sizeof(job->owner));
    }
    r = job ? open_request(jobs, job, peer, m->seq) : NULL;
    if (!r || broker_jobs_add(jobs, job) < 0) {
        committer_request_free(r);
        free(job);
        driver_fail(jobs->driver, -ENOMEM, "no memory for a job");
        return;
    }
    if (id > jobs->last_id)
        jobs->last_id = id;
    requests_post(jobs->requests, r);
}

/* The store is open: the core takes the job on. Returns what core_step did. */
static int take_on(struct jobs *jobs, struct broker_job *job, const struct committer_completion *done, bool stopped)
{
    struct core_node nodes[CORE_MAX_NODES];

    job->store = done->store;
    job->open.recipe = store_info(done->store)->recipe;
    job->counters = done->counters;
    job->next_item = done->next_item;
    job->n_pushed = done->n_pushed;
    job->phase = BROKER_JOB_OPEN;
    nodes_to_core(&job->open, nodes);
    return driver_feed(jobs->driver,
                       &(struct core_event){.type = CORE_EVENT_JOB_OPEN,
                                            .job_open = {.job = job->id,
                                                         .priority = job->open.priority,
                                                         .sealed = job->counters.sealed,
                                                         .stopped = stopped,
                                                         .max_failures = job->open.max_failures,
                                                         .max_failed_per_mille = job->open.max_failed_per_mille,
                                                         .n_nodes = job->open.n_nodes,
                                                         .nodes = nodes}});
}

static void log_opened(const struct broker_job *job, bool created)
{
    log_info("event=job_opened job=%llu store=\"%s\" items=%llu done=%llu created=%d", (unsigned long long)job->id,
             job->open.path, (unsigned long long)job->next_item, (unsigned long long)job->counters.n_done, created);
}

/* Tell the client that wants it open; or, of a job that goes on by itself, the log and the table. */
static void open_failed(struct jobs *jobs, struct broker_job *job, const struct question *q, enum msg_reason reason,
                        const char *text)
{
    if (q->peer) {
        answer_refuse(jobs->answers, q->peer, q->seq, reason, "%s", text);
        return;
    }
    log_err("event=job_failed job=%llu store=\"%s\" msg=\"%s\"", (unsigned long long)job->id, job->open.path, text);
    jobs_retry_refuse(jobs, job, reason, text);
    broker_job_record(jobs, job, STORED_WANTED_RUN, 0, text);
}

/* The store is open: is it what the client means? */
void broker_job_on_open(struct jobs *jobs, struct broker_job *job, struct committer_completion *done,
                        const struct question *q)
{
    const bool is_meant = q->peer && !job->open.job; /* the client says what it is to be */
    bool stopped;
    int rc;

    if (done->rc < 0) {
        open_failed(jobs, job, q, done->rc == -EBUSY ? MSG_REASON_BUSY : MSG_REASON_STORE, done->text);
        broker_jobs_remove(jobs, job);
        return;
    }
    if (is_meant && refuse_if_different(jobs, q->peer, q->seq, &job->open, store_info(done->store))) {
        broker_job_close_store(jobs, job);
        return;
    }
    jobs_table_take(job, done);
    if (is_meant && refuse_if_cancelled(jobs, q->peer, q->seq, job)) {
        broker_job_close_store(jobs, job);
        return;
    }
    broker_job_hold(jobs, job, q->peer);
    job->sender = is_meant && job->open.submission.given ? q->peer : 0;
    stopped = !is_meant && job->entry && job->entry->wanted != STORED_WANTED_RUN;
    rc = take_on(jobs, job, done, stopped);
    if (rc < 0) {
        open_failed(jobs, job, q, rc == -ENOSPC ? MSG_REASON_LIMIT : MSG_REASON_BAD_MESSAGE,
                    rc == -ENOSPC ? "too many jobs are open here already" : "the core takes no such job");
        broker_job_close_store(jobs, job);
        return;
    }
    if (job->entry && job->entry->text[0] && !stopped)
        broker_job_record(jobs, job, STORED_WANTED_RUN, job->entry->ended_ms, "");
    log_opened(job, done->created);
    if (q->peer)
        answer_opened(jobs, job, q->peer, q->seq);
    jobs_retry_begin(jobs, job);
    broker_job_stop_if_abandoned(jobs, job);
}

static void refuse_retry(struct jobs *jobs, struct broker_job *job)
{
    char text[MSG_TEXT_SIZE];

    (void)snprintf(text, sizeof(text), "job %llu was %s", (unsigned long long)job->id,
                   broker_job_is_cancelled(job)
                       ? "cancelled"
                       : "closed before all its failed items were marked; the rest is marked when it goes on");
    jobs_retry_refuse(jobs, job, jobs->shutting_down ? MSG_REASON_DRAINING : MSG_REASON_NOT_ALLOWED,
                      job->failed[0] ? job->failed : text);
}

/* The store is closed: a client may wait to open it again. */
void broker_job_on_closed(struct jobs *jobs, struct broker_job *job)
{
    const bool goes_on = job->resume && job->entry && job->entry->wanted == STORED_WANTED_RUN;
    const struct stored_job_entry entry = job->entry ? *job->entry : (struct stored_job_entry){0};
    const struct job_retry retry = job->retry;
    struct job_reopen *reopen = job->reopen;
    struct err err = {""};
    int rc;

    log_info("event=job_closed job=%llu store=\"%s\"", (unsigned long long)job->id, job->open.path);
    broker_job_tell_closers(jobs, job);
    if (!goes_on)
        refuse_retry(jobs, job);
    job->reopen = NULL;
    broker_jobs_remove(jobs, job);
    if (reopen)
        broker_job_open(jobs, reopen->peer, &reopen->message);
    if (goes_on && !broker_job_find(jobs, entry.job) && (rc = jobs_table_open(jobs, &entry, &err)) < 0)
        driver_fail(jobs->driver, rc, "%s", err.text);
    if (goes_on && (job = broker_job_find(jobs, entry.job))) {
        job->retry.peer = retry.peer;
        job->retry.seq = retry.seq;
    }
    free(reopen);
}
