/* jobs.c - jobs as clients see them: open, import, seal, progress. The store is the only truth about a job. */
#include "broker/shell.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/options.h"
#include "store/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Of rows without an answer; the protocol says so. */
enum { MAX_UNANSWERED = 4, MAX_UNANSWERED_BYTES = 64 << 20, MAX_UNANSWERED_BYTES_OF_ALL = 1 << 30 };

struct broker_job *broker_job_find(struct broker *b, uint64_t id)
{
    for (struct broker_job *j = b->jobs; j; j = j->next)
        if (j->id == id)
            return j;
    return NULL;
}

static void holders_free(struct broker_holder *h)
{
    for (struct broker_holder *next; h; h = next) {
        next = h->next;
        free(h);
    }
}

static void job_free(struct broker *b, struct broker_job *job)
{
    holders_free(job->holders);
    holders_free(job->closers);
    free(job->reopen);
    broker_units_free(b, job);
    free(job);
}

static void job_remove(struct broker *b, struct broker_job *job)
{
    struct broker_job **link = &b->jobs;

    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    job_free(b, job);
}

void broker_jobs_free(struct broker *b)
{
    while (b->jobs)
        job_remove(b, b->jobs);
    broker_requests_free(b);
}

/* -- who has it open -- */

static int add_holder(struct broker_holder **list, uint64_t peer, uint64_t seq)
{
    struct broker_holder *h;

    for (h = *list; h; h = h->next)
        if (h->peer == peer && h->seq == seq)
            return 0;
    h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    *h = (struct broker_holder){.next = *list, .peer = peer, .seq = seq};
    *list = h;
    return 0;
}

static void remove_holder(struct broker_holder **list, uint64_t peer)
{
    while (*list && (*list)->peer != peer)
        list = &(*list)->next;
    if (*list) {
        struct broker_holder *h = *list;

        *list = h->next;
        free(h);
    }
}

/* -- closing -- */

static void begin_close(struct broker *b, struct broker_job *job)
{
    if (job->phase != BROKER_JOB_OPEN)
        return;
    job->phase = BROKER_JOB_CLOSING;
    broker_feed_later(b, &(struct core_event){.type = CORE_EVENT_JOB_CLOSE, .job = job->id});
}

void broker_job_ended(struct broker *b, struct broker_job *job)
{
    if (!job->holders)
        begin_close(b, job);
}

static bool has_ended(const struct broker *b, const struct broker_job *job)
{
    const enum core_job_state state = core_job_state_get(b->core, job->id);

    return state == CORE_JOB_STOPPED || state == CORE_JOB_PAUSED || state == CORE_JOB_DONE || state == CORE_JOB_FAILED;
}

void broker_job_fail(struct broker *b, struct broker_job *job, const char *fmt, ...)
{
    va_list ap;

    if (job->phase != BROKER_JOB_OPEN || job->failed[0])
        return;
    va_start(ap, fmt);
    (void)vsnprintf(job->failed, sizeof(job->failed), fmt, ap);
    va_end(ap);
    log_err("event=job_failed job=%llu store=\"%s\" msg=\"%s\"", (unsigned long long)job->id, job->open.path,
            job->failed);
    broker_feed_later(b, &(struct core_event){.type = CORE_EVENT_JOB_FAILED, .job = job->id});
    broker_job_ended(b, job);
}

void broker_job_block(struct broker *b, struct broker_job *job, const char *text)
{
    if (core_job_state_get(b->core, job->id) != CORE_JOB_BLOCKED)
        log_warn("event=disk_full job=%llu msg=\"%s; goes on when there is room\"", (unsigned long long)job->id, text);
    (void)msg_text_set(job->blocked, sizeof(job->blocked), text);
    broker_requests_retry(b);
}

void broker_jobs_let_go(struct broker *b, uint64_t peer)
{
    for (struct broker_job *job = b->jobs; job; job = job->next) {
        remove_holder(&job->holders, peer);
        if (has_ended(b, job))
            broker_job_ended(b, job);
    }
}

static void answer_closed(struct broker *b, uint64_t job, uint64_t peer, uint64_t seq)
{
    struct msg m;

    msg_init(&m, MSG_JOB_CLOSE);
    m.seq = seq;
    m.job_ref.job = job;
    broker_send(b, peer, &m);
}

void broker_on_closed(struct broker *b, struct broker_job *job)
{
    struct broker_reopen *reopen = job->reopen;

    log_info("event=job_closed job=%llu store=\"%s\"", (unsigned long long)job->id, job->open.path);
    for (const struct broker_holder *h = job->closers; h; h = h->next)
        answer_closed(b, job->id, h->peer, h->seq);
    job->reopen = NULL;
    job_remove(b, job);
    if (reopen)
        broker_job_open(b, reopen->peer, &reopen->message);
    free(reopen);
}

/* -- JOB_OPEN -- */

/* A guess at what an item's rows of this node take until results tell: published sizes, captions of one sentence. */
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

static bool refuse_if_different(struct broker *b, uint64_t peer, uint64_t seq, const struct msg_job_open *open,
                                const struct stored_job_meta *meta)
{
    struct err err;
    enum msg_reason reason = stored_job_differs(meta, &open->recipe, open->n_nodes, open->nodes, open->path, &err);

    if (reason)
        broker_refuse(b, peer, seq, reason, "%sUse the same, or another -o", err.text);
    return reason != 0;
}

static void answer_opened(struct broker *b, const struct broker_job *job, uint64_t peer, uint64_t seq)
{
    struct broker_peer *p = core_map_get(&b->peers, peer);
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
    broker_send(b, peer, &m);
}

/* The client has it open from now on, if it is still there. */
static void hold(struct broker *b, struct broker_job *job, uint64_t peer)
{
    if (core_map_get(&b->peers, peer) && add_holder(&job->holders, peer, 0) < 0)
        broker_fail(b, -ENOMEM, "no memory for a job");
}

/* Open it once it is closed. */
static void open_later(struct broker *b, struct broker_job *job, uint64_t peer, const struct msg *m)
{
    if (job->reopen) {
        broker_refuse(b, peer, m->seq, MSG_REASON_STORE, "%s: is being closed; try again", job->open.path);
        return;
    }
    job->reopen = malloc(sizeof(*job->reopen));
    if (job->reopen)
        *job->reopen = (struct broker_reopen){peer, *m};
    else
        broker_fail(b, -ENOMEM, "no memory for a job");
}

static void open_again(struct broker *b, struct broker_job *job, uint64_t peer, const struct msg *m)
{
    const enum core_job_state state = core_job_state_get(b->core, job->id);

    if (job->phase == BROKER_JOB_OPENING) {
        broker_refuse(b, peer, m->seq, MSG_REASON_STORE, "%s: is being opened; try again", job->open.path);
    } else if (job->phase == BROKER_JOB_CLOSING || state == CORE_JOB_FAILED) {
        begin_close(b, job);
        open_later(b, job, peer, m);
    } else if (!refuse_if_different(b, peer, m->seq, &m->job_open, store_info(job->store))) {
        if (state == CORE_JOB_STOPPING || state == CORE_JOB_STOPPED || state == CORE_JOB_PAUSED)
            (void)broker_feed(b, &(struct core_event){.type = CORE_EVENT_JOB_START, .job = job->id});
        job->failures = (struct broker_failures){0};
        hold(b, job, peer);
        answer_opened(b, job, peer, m->seq);
    }
}

/* The job of this store, if there is one: of a client that lost its connection or comes back. */
static struct broker_job *find_by_path(struct broker *b, const char *path)
{
    struct broker_job *job = b->jobs;

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
    meta->unit_items = open->unit_items ? open->unit_items : BROKER_DEFAULT_UNIT_ITEMS;
    (void)msg_text_set(meta->program, sizeof(meta->program), "blipline " BLIPLINE_VERSION);
    return meta;
}

void broker_job_open(struct broker *b, uint64_t peer, const struct msg *m)
{
    struct core_node nodes[CORE_MAX_NODES];
    struct committer_request *r;
    struct broker_job *job;
    struct err err = {""};

    if (b->shutting_down) {
        broker_refuse(b, peer, m->seq, MSG_REASON_DRAINING, "the broker is about to end");
        return;
    }
    job = find_by_path(b, m->job_open.path);
    if (job) {
        open_again(b, job, peer, m);
        return;
    }
    nodes_to_core(&m->job_open, nodes);
    if (core_graph_check(nodes, m->job_open.n_nodes, &err) < 0) {
        broker_refuse(b, peer, m->seq, MSG_REASON_BAD_MESSAGE, "the stage graph: %s", err.text);
        return;
    }
    if (broker_check_graph(&m->job_open, &err) < 0) {
        broker_refuse(b, peer, m->seq, MSG_REASON_RECIPE, "recipe and stage graph: %s", err.text);
        return;
    }
    if (m->job_open.unit_items > CORE_MAX_UNIT_ITEMS) {
        broker_refuse(b, peer, m->seq, MSG_REASON_LIMIT, "units of %u items: at most %d are possible",
                      m->job_open.unit_items, CORE_MAX_UNIT_ITEMS);
        return;
    }
    job = calloc(1, sizeof(*job));
    if (job)
        job->id = b->next_job + 1;
    r = job ? broker_request_for(b, COMMITTER_OPEN, job, peer, m, 0) : NULL;
    if (r) {
        r->path = strdup(m->job_open.path);
        r->create = m->job_open.create;
        r->check = m->job_open.check;
        r->meta = meta_of(&m->job_open);
    }
    if (!r || !r->path || !r->meta) {
        committer_request_free(r);
        free(job);
        broker_fail(b, -ENOMEM, "no memory for a job");
        return;
    }
    b->next_job++;
    job->open = m->job_open;
    job->next = b->jobs;
    b->jobs = job;
    broker_post(b, r);
}

/* The core does not know it. */
static void close_unstarted(struct broker *b, struct broker_job *job)
{
    job->phase = BROKER_JOB_CLOSING;
    broker_post(b, committer_request_new(COMMITTER_CLOSE, job->id, 0));
}

/* The store is open: is it what the client means? Then the core takes the job on. */
void broker_on_open(struct broker *b, struct broker_job *job, const struct committer_completion *done,
                    const struct broker_question *q)
{
    struct core_node nodes[CORE_MAX_NODES];
    int rc;

    if (done->rc < 0) {
        broker_refuse(b, q->peer, q->seq, done->rc == -EBUSY ? MSG_REASON_BUSY : MSG_REASON_STORE, "%s", done->text);
        job_remove(b, job);
        return;
    }
    if (refuse_if_different(b, q->peer, q->seq, &job->open, store_info(done->store))) {
        close_unstarted(b, job);
        return;
    }
    job->store = done->store;
    job->open.recipe = store_info(done->store)->recipe;
    job->counters = done->counters;
    job->next_item = done->next_item;
    job->phase = BROKER_JOB_OPEN;
    hold(b, job, q->peer);
    nodes_to_core(&job->open, nodes);
    rc = broker_feed(b, &(struct core_event){.type = CORE_EVENT_JOB_OPEN,
                                             .job_open = {.job = job->id,
                                                          .priority = job->open.priority,
                                                          .max_failures = job->open.max_failures,
                                                          .max_failed_per_mille = job->open.max_failed_per_mille,
                                                          .n_nodes = job->open.n_nodes,
                                                          .nodes = nodes}});
    if (rc < 0) {
        broker_refuse(b, q->peer, q->seq, rc == -ENOSPC ? MSG_REASON_LIMIT : MSG_REASON_BAD_MESSAGE,
                      rc == -ENOSPC ? "%s: %d jobs are open here already" : "%s: the core takes no such job (limit %d)",
                      job->open.path, BROKER_MAX_JOBS);
        close_unstarted(b, job);
        return;
    }
    log_info("event=job_opened job=%llu store=\"%s\" items=%llu done=%llu created=%d", (unsigned long long)job->id,
             job->open.path, (unsigned long long)job->next_item, (unsigned long long)job->counters.n_done,
             done->created);
    answer_opened(b, job, q->peer, q->seq);
}

/* -- import -- */

static struct broker_job *job_or_refuse(struct broker *b, uint64_t peer, const struct msg *m)
{
    struct broker_job *job = broker_job_find(b, m->job_ref.job);

    if (job && job->phase == BROKER_JOB_OPEN)
        return job;
    broker_refuse(b, peer, m->seq, MSG_REASON_UNKNOWN_JOB, "job %llu is not open here",
                  (unsigned long long)m->job_ref.job);
    return NULL;
}

/* Rows that were sent behind refused ones, and the seal, are refused too, however long after the refusal they arrive:
 * the client may not have read it. JOB_OPEN says that it has. */
static bool refuse_behind_refused(struct broker *b, const struct broker_peer *p, uint64_t seq)
{
    if (p->rows_refused)
        broker_refuse(b, p->number, seq, MSG_REASON_BAD_MESSAGE,
                      "rows that were sent before were refused; open the job again, which says how many items it has");
    return p->rows_refused;
}

static bool refuse_too_many(struct broker *b, struct broker_peer *p, uint64_t seq, uint64_t n_bytes)
{
    if (p->n_unanswered < MAX_UNANSWERED && p->unanswered_bytes + n_bytes <= MAX_UNANSWERED_BYTES &&
        b->unanswered_bytes + n_bytes <= MAX_UNANSWERED_BYTES_OF_ALL)
        return false;
    p->rows_refused = true;
    broker_refuse(b, p->number, seq, MSG_REASON_LIMIT,
                  "at most %d messages of rows may wait for their answers, with at most %d MiB in all (%d MiB of all "
                  "clients); open the job again, which says how many items it has",
                  MAX_UNANSWERED, MAX_UNANSWERED_BYTES >> 20, MAX_UNANSWERED_BYTES_OF_ALL >> 20);
    return true;
}

static bool refuse_if_failed(struct broker *b, const struct broker_job *job, uint64_t peer, uint64_t seq)
{
    if (job->failed[0])
        broker_refuse(b, peer, seq, MSG_REASON_STORE, "%s", job->failed);
    return job->failed[0] != '\0';
}

/* Of the next row that is posted, where that can be known. */
static uint64_t next_item(const struct broker_job *job)
{
    return job->n_comparing ? COMMITTER_ANY_ITEM : job->next_item;
}

void broker_job_rows(struct broker *b, uint64_t peer, struct wire_message *message)
{
    const struct msg *m = wire_message_envelope(message);
    struct broker_job *job = job_or_refuse(b, peer, m);
    const enum committer_op op = m->type == MSG_JOB_AGAIN ? COMMITTER_AGAIN
                                 : m->job_rows.sources    ? COMMITTER_SOURCES
                                 : m->job_rows.compare    ? COMMITTER_COMPARE
                                                          : COMMITTER_ROWS;
    const uint64_t n_bytes = wire_message_size_bytes(message);
    struct broker_peer *p = core_map_get(&b->peers, peer);
    struct committer_request *r;
    struct row_cursor cursor;
    int rc = 0;

    if (!job || !p || refuse_if_failed(b, job, peer, m->seq) || refuse_behind_refused(b, p, m->seq) ||
        refuse_too_many(b, p, m->seq, n_bytes))
        return;
    r = broker_request_for(b, op, job, peer, m, n_bytes);
    wire_message_rows(message, &cursor);
    for (size_t i = 0; r && rc == 0 && i < cursor.n_frames; i++)
        rc = buf_append(&r->rows, cursor.frames[i].data, cursor.frames[i].size_bytes);
    row_cursor_release(&cursor);
    if (r && rc == 0 && op == COMMITTER_COMPARE && m->job_rows.begin) {
        r->begin = malloc(sizeof(*r->begin));
        if (r->begin)
            *r->begin = m->job_rows.comparison;
        else
            rc = -ENOMEM;
    }
    if (rc < 0) {
        committer_request_free(r);
        r = NULL;
    }
    if (r)
        r->n_rows = m->n_rows;
    if (r && op == COMMITTER_ROWS) {
        r->first_item = next_item(job);
        job->next_item += m->n_rows;
    }
    job->n_comparing += r && op == COMMITTER_COMPARE;
    broker_post(b, r);
}

void broker_job_seal(struct broker *b, uint64_t peer, const struct msg *m)
{
    struct broker_job *job = job_or_refuse(b, peer, m);
    const struct broker_peer *p = core_map_get(&b->peers, peer);
    struct committer_request *r;

    if (!job || !p || refuse_if_failed(b, job, peer, m->seq) || refuse_behind_refused(b, p, m->seq))
        return;
    r = broker_request_for(b, COMMITTER_SEAL, job, peer, m, 0);
    if (r)
        r->first_item = next_item(job); /* not without the rows that are on their way */
    broker_post(b, r);
}

/* New rows: a job that was done, or sealed, is so no more. */
static void units_added(struct broker *b, struct broker_job *job)
{
    (void)broker_feed(b, &(struct core_event){.type = CORE_EVENT_UNITS_ADDED, .job = job->id});
}

void broker_on_rows(struct broker *b, struct broker_job *job, const struct committer_completion *done,
                    const struct broker_question *q)
{
    struct broker_peer *p = core_map_get(&b->peers, q->peer);
    struct msg m;

    job->n_comparing -= done->op == COMMITTER_COMPARE;
    if (done->rc == -EIO)
        broker_job_fail(b, job, "%s", done->text);
    if (done->rc < 0) {
        if (p)
            p->rows_refused = true;
        broker_refuse(b, q->peer, q->seq, done->rc == -EIO ? MSG_REASON_STORE : MSG_REASON_BAD_MESSAGE, "%s",
                      done->text);
        if (done->op != COMMITTER_ROWS || q->rows_refused != job->rows_refused)
            return; /* rows that came since have numbers already */
        job->next_item = done->next_item;
        job->rows_refused++;
        return;
    }
    msg_init(&m, MSG_JOB_ROWS_OK);
    m.seq = q->seq;
    m.job_rows_ok = (struct msg_job_rows_ok){.job = job->id,
                                             .n_items = done->next_item,
                                             .is_compared = done->op == COMMITTER_COMPARE,
                                             .compared = done->compared};
    broker_send(b, q->peer, &m);
    job->next_item += done->n_added;
    if (done->op == COMMITTER_ROWS || done->n_added)
        units_added(b, job);
    if (done->op == COMMITTER_ROWS || (done->op == COMMITTER_COMPARE && !done->n_again))
        return;
    (void)broker_feed(b, &(struct core_event){.type = CORE_EVENT_UNITS_AGAIN,
                                              .units_again = {.job = job->id, .from_unit = done->unit}});
}

void broker_on_seal(struct broker *b, struct broker_job *job, const struct committer_completion *done,
                    const struct broker_question *q)
{
    struct msg m;

    if (done->rc == -EIO)
        broker_job_fail(b, job, "%s", done->text);
    if (done->rc < 0) {
        broker_refuse(b, q->peer, q->seq, done->rc == -EAGAIN ? MSG_REASON_BAD_MESSAGE : MSG_REASON_STORE, "%s",
                      done->rc == -EAGAIN ? "not sealed: rows that were sent before were refused" : done->text);
        return;
    }
    msg_init(&m, MSG_JOB_ACCEPTED);
    m.seq = q->seq;
    m.job_accepted =
        (struct msg_job_accepted){.job = job->id, .n_items = done->counters.n_items, .n_units = done->counters.n_units};
    broker_send(b, q->peer, &m);
    units_added(b, job);
    broker_feed(b, &(struct core_event){.type = CORE_EVENT_JOB_SEALED, .job = job->id});
}

/* -- progress -- */

static void answer_progress(struct broker *b, const struct broker_job *job, uint64_t peer, uint64_t seq)
{
    struct msg m;

    msg_init(&m, MSG_JOB_PROGRESS);
    m.seq = seq;
    broker_progress(b, job, &m.job_progress);
    broker_send(b, peer, &m);
}

void broker_job_query(struct broker *b, uint64_t peer, const struct msg *m)
{
    const struct broker_job *job = job_or_refuse(b, peer, m);

    if (job)
        answer_progress(b, job, peer, m->seq);
}

void broker_job_stop(struct broker *b, uint64_t peer, const struct msg *m)
{
    const struct broker_job *job = job_or_refuse(b, peer, m);

    if (!job)
        return;
    broker_feed(b, &(struct core_event){.type = CORE_EVENT_JOB_STOP, .job = job->id});
    answer_progress(b, job, peer, m->seq);
}

void broker_job_close(struct broker *b, uint64_t peer, const struct msg *m)
{
    struct broker_job *job = broker_job_find(b, m->job_ref.job);

    if (job)
        remove_holder(&job->holders, peer);
    if (!job || job->phase == BROKER_JOB_OPENING || (job->phase == BROKER_JOB_OPEN && job->holders)) {
        answer_closed(b, m->job_ref.job, peer, m->seq); /* the others' it may be */
        return;
    }
    begin_close(b, job);
    if (add_holder(&job->closers, peer, m->seq) < 0)
        broker_fail(b, -ENOMEM, "no memory for a job");
}
