/* fleet_json.c - what a broker has connected and open, as JSON. */
#include "client/fleet_view.h"

#include "base/dtype.h"
#include "client/bottleneck.h"
#include "console/answer.h"

#include <jansson.h>

static json_t *seconds(uint64_t ms)
{
    return json_real((double)ms / 1000);
}

/* Also of items per 1000 seconds. */
static json_t *thousandths(uint64_t n)
{
    return json_real((double)n / 1000);
}

static json_t *type_json(enum dtype dtype)
{
    return dtype ? json_string(dtype_word(dtype)) : json_null();
}

static json_t *broker_json(const struct msg_fleet *t, const char *endpoint)
{
    return json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "endpoint", answer_text(endpoint),
                     "uptime_s", seconds(t->uptime_ms), "memory_bytes", (json_int_t)t->memory_bytes, "tensor_bytes",
                     (json_int_t)t->tensor_bytes, "tensor_limit", (json_int_t)t->tensor_limit, "row_bytes",
                     (json_int_t)t->row_bytes, "row_limit", (json_int_t)t->row_limit, "workers",
                     (json_int_t)t->n_workers, "jobs", (json_int_t)t->n_jobs, "other_jobs",
                     (json_int_t)t->n_other_jobs);
}

static json_t *stage_json(const struct row_fleet_stage *s)
{
    return json_pack("{s:s, s:o, s:o, s:I, s:I, s:o, s:I, s:I, s:o}", "stage", stage_name(s->stage), "model",
                     answer_text_or_null(s->model), "dtype", type_json(s->dtype), "workers", (json_int_t)s->n_workers,
                     "able", (json_int_t)s->n_able, "busy", thousandths(s->busy_per_mille), "units_waiting",
                     (json_int_t)s->units_ready, "units_leased", (json_int_t)s->units_leased, "items_per_s",
                     thousandths(s->rate));
}

static json_t *bottleneck_json(const struct row_fleet_stage *s)
{
    char text[BOTTLENECK_TEXT_SIZE];

    return json_pack("{s:s, s:o, s:o, s:o}", "stage", stage_name(s->stage), "model", answer_text_or_null(s->model),
                     "dtype", type_json(s->dtype), "text", answer_text(bottleneck_text(s, text)));
}

static json_t *job_json(const struct row_fleet_job *j)
{
    json_t *stages = json_array();
    const int64_t eta_s = fleet_view_eta_s(j);

    for (uint32_t i = 0; i < j->n_stages; i++)
        (void)json_array_append_new(stages, json_pack("{s:s, s:I, s:I}", "stage", stage_name(j->stages[i].stage),
                                                      "units_waiting", (json_int_t)j->stages[i].ready, "units_leased",
                                                      (json_int_t)j->stages[i].leased));
    return json_pack("{s:I, s:o, s:o, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "job", (json_int_t)j->job,
                     "name", answer_text_or_null(j->name), "owner", answer_text_or_null(j->owner), "state",
                     fleet_view_job_state(j), "text", answer_text_or_null(j->text), "priority", (json_int_t)j->priority,
                     "items", (json_int_t)j->n_items, "done", (json_int_t)j->n_done, "failed", (json_int_t)j->n_failed,
                     "to_do_again", (json_int_t)j->n_again, "items_per_s", thousandths(j->rate), "eta_s",
                     eta_s < 0 ? json_null() : json_integer(eta_s), "stages", stages);
}

static json_t *worker_json(const struct row_fleet_worker *w)
{
    return json_pack(
        "{s:o, s:I, s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:o}", "host",
        answer_text_or_null(w->host), "pid", (json_int_t)w->pid, "stage", stage_name(w->stage), "model",
        answer_text_or_null(w->model), "dtype", type_json(w->dtype), "device", answer_text_or_null(w->device), "state",
        msg_worker_state_name(w->state), "state_s", seconds(w->state_ms), "reason", answer_text_or_null(w->text),
        "failures_in_row", (json_int_t)w->n_bad, "items", (json_int_t)w->n_items, "items_per_s", thousandths(w->rate),
        "busy", thousandths(w->busy_per_mille), "leases", (json_int_t)w->n_leases, "held_items",
        (json_int_t)w->held_items, "window_items", (json_int_t)w->window_items, "held_bytes", (json_int_t)w->held_bytes,
        "window_bytes", (json_int_t)w->window_bytes, "heard_s", seconds(w->heard_ms));
}

struct json_t *fleet_view_json(const struct client_fleet *f, const char *endpoint)
{
    json_t *bottlenecks = json_array(), *stages = json_array(), *jobs = json_array(), *workers = json_array();

    for (size_t i = 0; i < f->n_stages; i++) {
        (void)json_array_append_new(stages, stage_json(&f->stages[i]));
        if (bottleneck_is(f->stages, f->n_stages, i))
            (void)json_array_append_new(bottlenecks, bottleneck_json(&f->stages[i]));
    }
    for (size_t i = 0; i < f->n_jobs; i++)
        (void)json_array_append_new(jobs, job_json(&f->jobs[i]));
    for (size_t i = 0; i < f->n_workers; i++)
        (void)json_array_append_new(workers, worker_json(&f->workers[i]));
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "broker", broker_json(&f->totals, endpoint), "bottlenecks",
                     bottlenecks, "stages", stages, "jobs", jobs, "workers", workers);
}
