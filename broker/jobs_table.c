/* jobs_table.c - the jobs of the job table: which one a client means, their rows, and how they are opened without a
 * client. */
#include "broker/jobs_table.h"

#include "base/clock.h"
#include "base/log.h"
#include "proto/rights.h"
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

/* -- which job -- */

static bool is_allowed(const struct peer *p, const struct msg *m, const struct submission *known)
{
    return known && (msg_right(p->role, m->type) == MSG_RIGHT_ALL || strcmp(known->owner, p->name) == 0);
}

bool jobs_table_refuse(struct jobs *jobs, const struct peer *p, const struct msg *m, uint64_t job)
{
    const struct submission *known = submissions_by_job(&jobs->submissions, job);

    if (!jobs->table)
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_NOT_ALLOWED,
                      "this broker keeps no jobs of its own (it has no state_dir)");
    else if (job && !is_allowed(p, m, known))
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_UNKNOWN_JOB, "there is no job %" PRIu64, job);
    else if (known && known->removing)
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_BUSY, "job %" PRIu64 " is being removed; try again",
                      job);
    else
        return false;
    return true;
}

uint64_t jobs_table_find(struct jobs *jobs, const struct peer *p, const struct msg *m, char path[MSG_PATH_SIZE])
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
    else if (jobs_table_refuse(jobs, p, m, open->job ? open->job : known ? known->job : 0))
        return 0;
    else if (!known && submissions_count(&jobs->submissions, p->name) >= jobs->limits.n_jobs)
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_LIMIT,
                      "%s has %zu jobs, and no more are kept (max_jobs of the broker's configuration); blipline rm "
                      "removes some",
                      p->name, jobs->limits.n_jobs);
    else if (job_table_store_path(jobs->table, job, full, &err) < 0 || !msg_text_set(path, MSG_PATH_SIZE, full))
        answer_refuse(jobs->answers, p->number, m->seq, MSG_REASON_STORE, "the path of state_dir is too long");
    else
        return job;
    return 0;
}

uint64_t jobs_disk_room(const struct jobs *jobs)
{
    const uint64_t least = jobs->limits.min_free_bytes;
    char path[PATH_MAX], *slash;
    struct statvfs fs;
    uint64_t n_free;

    if (!jobs->table || job_table_store_path(jobs->table, 1, path, NULL) < 0 || !(slash = strrchr(path, '/')))
        return 0;
    *slash = '\0';
    if (statvfs(path, &fs) < 0)
        return 0;
    n_free = fs.f_blocks ? (uint64_t)fs.f_bavail * fs.f_frsize : UINT64_MAX; /* some filesystems report none */
    return n_free > least ? n_free - least : 0;
}

/* -- rows -- */

static struct stored_job_entry entry_of(uint64_t job, const char *owner, const struct msg_job_open *open)
{
    struct stored_job_entry e = {.job = job,
                                 .has_token = true,
                                 .push = open->submission.push,
                                 .priority = open->priority,
                                 .max_failures = open->max_failures,
                                 .max_failed_per_mille = open->max_failed_per_mille,
                                 .created_ms = clock_wall_ms()};

    memcpy(e.token, open->submission.token, sizeof(e.token));
    (void)msg_text_set(e.name, sizeof(e.name), open->submission.name);
    (void)msg_text_set(e.owner, sizeof(e.owner), owner);
    (void)msg_text_set(e.recipe, sizeof(e.recipe), open->recipe.name);
    stored_job_entry_set_model(&e, open->n_nodes, open->nodes);
    return e;
}

int jobs_table_add(struct jobs *jobs, const struct broker_job *job, struct committer_request *r)
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

/* What the job's row says of it. */
static void follow_entry(struct broker_job *job)
{
    const struct stored_job_entry *e = job->entry;

    (void)msg_text_set(job->owner, sizeof(job->owner), e->owner);
    job->open.priority = e->priority;
    job->open.max_failures = e->max_failures;
    job->open.max_failed_per_mille = e->max_failed_per_mille;
}

void jobs_table_take(struct broker_job *job, struct committer_completion *done)
{
    const struct stored_job_meta *meta = store_info(done->store);

    if (!done->entry)
        return;
    free(job->entry);
    job->entry = done->entry;
    done->entry = NULL;
    follow_entry(job);
    job->open.n_nodes = meta->n_nodes;
    memcpy(job->open.nodes, meta->nodes, sizeof(job->open.nodes));
    memcpy(job->open.source, meta->source, sizeof(job->open.source));
}

/* -- without a client -- */

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
    follow_entry(job);
    (void)msg_text_set(job->open.path, sizeof(job->open.path), path);
    return job;
}

int jobs_table_open(struct jobs *jobs, const struct stored_job_entry *entry, struct err *err)
{
    struct committer_request *r;
    struct broker_job *job;
    char path[PATH_MAX];
    int rc = job_table_store_path(jobs->table, entry->job, path, err);

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
                 (rc = jobs_table_open(jobs, &entry, err)) < 0)
            return rc;
    }
    return 0;
}
