/* jobs_open.c - JOB_OPEN: the store is opened, then the core takes the job on. */
#include "broker/jobs.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/options.h"
#include "broker/graph.h"
#include "store/store.h"

#include <errno.h>
#include <limits.h>
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
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_STORE, "%s: is being closed; try again", job->open.path);
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
    const enum core_job_state state = core_job_state_get(jobs->driver->core, job->id);

    if (job->phase == BROKER_JOB_OPENING) {
        answer_refuse(jobs->answers, peer, m->seq, MSG_REASON_STORE, "%s: is being opened; try again", job->open.path);
    } else if (job->phase == BROKER_JOB_CLOSING || state == CORE_JOB_FAILED) {
        broker_job_begin_close(jobs, job);
        open_later(jobs, job, peer, m);
    } else if (m->job_open.job) { /* only to look at it */
        broker_job_hold(jobs, job, peer);
        answer_opened(jobs, job, peer, m->seq);
    } else if (!refuse_if_different(jobs, peer, m->seq, &m->job_open, store_info(job->store))) {
        if (state == CORE_JOB_STOPPING || state == CORE_JOB_STOPPED || state == CORE_JOB_PAUSED)
            (void)driver_feed(jobs->driver, &(struct core_event){.type = CORE_EVENT_JOB_START, .job = job->id});
        if (job->entry && job->entry->wanted != STORED_WANTED_RUN)
            broker_job_record(jobs, job, STORED_WANTED_RUN, 0, "");
        job->failures = (struct failures){0};
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

/* The job of the table that `m` means, and where its store is; a new submission gets the next number. 0: refused. */
static uint64_t find_in_table(struct jobs *jobs, const struct peer *p, const struct msg *m, char path[MSG_PATH_SIZE])
{
    const struct msg_job_open *open = &m->job_open;
    const struct submission *known = open->job
                                         ? submissions_by_job(&jobs->submissions, open->job)
                                         : submissions_by_token(&jobs->submissions, p->name, open->submission.token);
    const uint64_t job = known ? known->job : jobs->last_id + 1;
    struct err err = {""};
    char full[PATH_MAX];

    if (!open->job && !open->submission.given)
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_NOT_ALLOWED,
                      "this broker keeps its jobs in its own directory (state_dir), and opens no other stores");
    else if (open->job && (!known || (p->role != MSG_ROLE_ADMIN && strcmp(known->owner, p->name) != 0)))
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_UNKNOWN_JOB, "there is no job %llu",
                      (unsigned long long)open->job);
    else if (job_table_store_path(jobs->table, job, full, &err) < 0 || !msg_text_set(path, MSG_PATH_SIZE, full))
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_STORE, "the path of state_dir is too long");
    else
        return job;
    return 0;
}

static struct stored_job_entry entry_of(uint64_t job, const char *owner, const struct msg_job_open *open)
{
    struct stored_job_entry e = {.job = job,
                                 .has_token = true,
                                 .priority = open->priority,
                                 .max_failures = open->max_failures,
                                 .max_failed_per_mille = open->max_failed_per_mille,
                                 .created_ms = clock_wall_ms()};

    memcpy(e.token, open->submission.token, sizeof(e.token));
    (void)msg_text_set(e.name, sizeof(e.name), open->submission.name);
    (void)msg_text_set(e.owner, sizeof(e.owner), owner);
    (void)msg_text_set(e.recipe, sizeof(e.recipe), open->recipe.name);
    return e;
}

/* For a submission: the row, and the same in the meta of its store. */
static int add_entry(struct jobs *jobs, const struct broker_job *job, struct committer_request *r)
{
    struct stored_job_entry *e = r->entry = malloc(sizeof(*e));

    if (!e || !r->meta)
        return -ENOMEM;
    *e = entry_of(job->id, job->owner, &job->open);
    r->meta->has_token = true;
    memcpy(r->meta->token, e->token, sizeof(r->meta->token));
    memcpy(r->meta->name, e->name, sizeof(r->meta->name));
    memcpy(r->meta->owner, e->owner, sizeof(r->meta->owner));
    return submissions_by_job(&jobs->submissions, job->id) ? 0 : submissions_add(&jobs->submissions, e);
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
    if (!r->path || (r->create && !r->meta) || (job->open.submission.given && add_entry(jobs, job, r) < 0)) {
        committer_request_free(r);
        return NULL;
    }
    return r;
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
    id = jobs->table ? find_in_table(jobs, p, m, own.job_open.path) : jobs->last_id + 1;
    if (id == 0)
        return;
    job = find_by_path(jobs, own.job_open.path);
    if (job) {
        open_again(jobs, job, peer, &own);
        return;
    }
    if (!own.job_open.job && refuse_if_impossible(jobs, peer, m))
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

/* What the table and the store say of a job of the table. */
static void take_entry(struct broker_job *job, struct committer_completion *done)
{
    const struct stored_job_meta *meta = store_info(done->store);

    if (!done->entry)
        return;
    free(job->entry);
    job->entry = done->entry;
    done->entry = NULL;
    (void)msg_text_set(job->owner, sizeof(job->owner), job->entry->owner);
    job->open.priority = job->entry->priority;
    job->open.max_failures = job->entry->max_failures;
    job->open.max_failed_per_mille = job->entry->max_failed_per_mille;
    job->open.n_nodes = meta->n_nodes;
    memcpy(job->open.nodes, meta->nodes, sizeof(job->open.nodes));
    memcpy(job->open.source, meta->source, sizeof(job->open.source));
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
    take_entry(job, done);
    broker_job_hold(jobs, job, q->peer);
    stopped = !is_meant && job->entry && job->entry->wanted == STORED_WANTED_PAUSED;
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
    broker_job_stop_if_abandoned(jobs, job);
}

/* -- the jobs of the table -- */

static struct broker_job *job_of_entry(const struct stored_job_entry *entry, const char *path)
{
    struct broker_job *job = calloc(1, sizeof(*job));

    if (!job)
        return NULL;
    job->entry = malloc(sizeof(*job->entry));
    if (!job->entry) {
        free(job);
        return NULL;
    }
    *job->entry = *entry;
    job->id = job->units.job = entry->job;
    (void)msg_text_set(job->owner, sizeof(job->owner), entry->owner);
    job->open.priority = entry->priority;
    job->open.max_failures = entry->max_failures;
    job->open.max_failed_per_mille = entry->max_failed_per_mille;
    (void)msg_text_set(job->open.path, sizeof(job->open.path), path);
    return job;
}

static int resume(struct jobs *jobs, const struct job_table *table, const struct stored_job_entry *entry,
                  struct err *err)
{
    struct committer_request *r;
    struct broker_job *job;
    char path[PATH_MAX];
    int rc = job_table_store_path(table, entry->job, path, err);

    if (rc < 0)
        return rc;
    if (strlen(path) >= sizeof(job->open.path))
        return err_set(err, -ENAMETOOLONG, "%s: path too long; choose a shorter state_dir", path);
    job = job_of_entry(entry, path);
    r = requests_new(jobs->requests, COMMITTER_OPEN, entry->job, &(struct question){.peer = 0});
    if (r)
        r->path = strdup(path);
    if (!job || !r || !r->path || broker_jobs_add(jobs, job) < 0) {
        committer_request_free(r);
        if (job)
            free(job->entry);
        free(job);
        return err_set(err, -ENOMEM, "no memory for job %llu", (unsigned long long)entry->job);
    }
    requests_post(jobs->requests, r);
    return 0;
}

int broker_jobs_resume(struct jobs *jobs, struct job_table *table, struct err *err)
{
    struct stored_job_entry entry = {0};
    int rc;

    jobs->table = table;
    jobs->last_id = job_table_last(table);
    while ((rc = job_table_next(table, entry.job, &entry, err)) != 0) {
        if (rc == -EBADMSG)
            log_err("event=job_failed job=%llu msg=\"%s\"", (unsigned long long)entry.job, err->text);
        else if (rc < 0 || (rc = submissions_add(&jobs->submissions, &entry)) < 0)
            return rc;
        else if (entry.ended_ms == 0 && entry.wanted == STORED_WANTED_RUN &&
                 (rc = resume(jobs, table, &entry, err)) < 0)
            return rc;
    }
    return 0;
}

/* The store is closed: a client may wait to open it again. */
void broker_job_on_closed(struct jobs *jobs, struct broker_job *job)
{
    struct job_reopen *reopen = job->reopen;

    log_info("event=job_closed job=%llu store=\"%s\"", (unsigned long long)job->id, job->open.path);
    broker_job_tell_closers(jobs, job);
    job->reopen = NULL;
    broker_jobs_remove(jobs, job);
    if (reopen)
        broker_job_open(jobs, reopen->peer, &reopen->message);
    free(reopen);
}
