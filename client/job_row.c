#include "client/job_row.h"

#include "console/answer.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { USUAL_PRIORITY = 100 }; /* broker/core_jobs.c has the same */

int job_number_parse(const char *text, uint64_t *ret, struct err *err)
{
    if (text[0] && text[strspn(text, "0123456789")] == '\0') {
        errno = 0;
        *ret = strtoull(text, NULL, 10);
        if (errno == 0 && *ret > 0 && *ret <= INT64_MAX)
            return 0;
    }
    return err_set(err, -EDOM, "%.40s is not the number of a job (1, 2, ...)", text);
}

uint32_t job_row_priority(const struct stored_job_entry *e)
{
    return e->priority ? e->priority : USUAL_PRIORITY;
}

char *job_row_age(int64_t then_ms, int64_t now_ms, char ret[PROGRESS_DURATION_SIZE])
{
    if (then_ms > 0 && then_ms <= now_ms)
        return progress_duration(now_ms - then_ms, ret);
    (void)snprintf(ret, PROGRESS_DURATION_SIZE, "%s", then_ms > now_ms && then_ms - now_ms < 60000 ? "0s" : "?");
    return ret;
}

/* Of a job that is not open at the broker. */
static const char *closed_state(const struct stored_job_entry *e)
{
    if (e->ended_ms)
        return "done";
    if (e->wanted == STORED_WANTED_PAUSED)
        return "paused";
    if (e->text[0])
        return "failed";
    return e->sealed ? "starting" : "incomplete";
}

const char *job_row_state(const struct stored_job_entry *e)
{
    const bool is_open = e->state != 0, works = e->state == MSG_JOB_RUNNING || e->state == MSG_JOB_IMPORTING;

    if (e->wanted == STORED_WANTED_REMOVED)
        return "removing";
    if (e->wanted == STORED_WANTED_CANCELLED)
        return "cancelled";
    if (!is_open)
        return closed_state(e);
    if (works && e->wanted == STORED_WANTED_PAUSED)
        return "pausing";
    switch (e->state) {
    case MSG_JOB_IMPORTING:
        return "importing";
    case MSG_JOB_RUNNING:
        return e->text[0] ? "waiting" : "running";
    case MSG_JOB_DONE:
        return "done";
    case MSG_JOB_BLOCKED:
        return "blocked";
    case MSG_JOB_FAILED:
        return "failed";
    case MSG_JOB_PAUSED:
        return "paused";
    case MSG_JOB_CANCELLED:
        return "cancelled";
    case MSG_JOB_STOPPED:
        break;
    }
    return e->wanted == STORED_WANTED_PAUSED ? "paused" : "incomplete";
}

static json_t *time_json(int64_t ms)
{
    return ms ? json_integer((json_int_t)ms) : json_null();
}

struct json_t *job_row_json(const struct stored_job_entry *e)
{
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:b, s:o, s:o}", "job",
                     (json_int_t)e->job, "name", answer_text_or_null(e->name), "owner", answer_text_or_null(e->owner),
                     "recipe", answer_text_or_null(e->recipe), "model", answer_text_or_null(e->model), "state",
                     job_row_state(e), "text", answer_text_or_null(e->text), "priority",
                     (json_int_t)(job_row_priority(e)), "items", (json_int_t)e->n_items, "done", (json_int_t)e->n_done,
                     "failed", (json_int_t)e->n_failed, "to_do_again", (json_int_t)e->n_again, "sealed", e->sealed,
                     "created_ms", time_json(e->created_ms), "ended_ms", time_json(e->ended_ms));
}
