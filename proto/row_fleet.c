#include "proto/row_fleet.h"

#include <errno.h>

#include "proto/row_pb.h"

enum { PER_MILLE = 1000 };

const char *msg_worker_state_name(enum msg_worker_state state)
{
    static const char *const names[] = {[MSG_WORKER_IDLE] = "idle",
                                        [MSG_WORKER_WORKING] = "working",
                                        [MSG_WORKER_BENCHED] = "benched",
                                        [MSG_WORKER_DRAINING] = "draining",
                                        [MSG_WORKER_SILENT] = "silent"};

    return state >= MSG_WORKER_IDLE && state <= MSG_WORKER_SILENT ? names[state] : "?";
}

static bool is_stage(enum stage s)
{
    return s >= STAGE_ENCODE && s <= STAGE_LLM;
}

/* -- stages -- */

static int check_stage(const struct row_fleet_stage *r, struct err *err)
{
    if (!is_stage(r->stage))
        return err_set(err, -EBADMSG, "unknown stage %d", (int)r->stage);
    if (r->n_able > r->n_workers || r->busy_per_mille > PER_MILLE)
        return err_set(err, -EBADMSG, "stage %s: the numbers contradict each other", stage_name(r->stage));
    return 0;
}

int row_fleet_stage_append(struct buf *frame, const struct row_fleet_stage *r)
{
    Blipline__FleetStage pb = BLIPLINE__FLEET_STAGE__INIT;

    if (check_stage(r, NULL) < 0)
        return -EINVAL;
    pb.stage = (Blipline__Stage)r->stage;
    pb.dtype = (Blipline__DType)r->dtype;
    pb.model = msg_text_to_pb(r->model);
    pb.workers = r->n_workers;
    pb.able = r->n_able;
    pb.units_ready = r->units_ready;
    pb.units_leased = r->units_leased;
    pb.rate = r->rate;
    pb.busy_per_mille = r->busy_per_mille;
    pb.capacity = r->capacity;
    pb.fingerprint = msg_fingerprint_to_pb(&r->fingerprint);
    return row_append_pb(frame, &pb.base);
}

int row_cursor_next_fleet_stage(struct row_cursor *c, struct row_fleet_stage *ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    const Blipline__FleetStage *from;
    int rc = row_cursor_next_pb(c, &blipline__fleet_stage__descriptor, &row, err);

    if (rc <= 0 || !row)
        return rc;
    from = (const Blipline__FleetStage *)(const void *)row;
    *ret = (struct row_fleet_stage){.stage = (enum stage)from->stage,
                                    .dtype = (enum dtype)from->dtype,
                                    .n_workers = from->workers,
                                    .n_able = from->able,
                                    .units_ready = from->units_ready,
                                    .units_leased = from->units_leased,
                                    .rate = from->rate,
                                    .busy_per_mille = from->busy_per_mille,
                                    .capacity = from->capacity};
    rc = TEXT_FROM_PB(ret->model, from->model, "model", err);
    if (rc == 0)
        rc = msg_fingerprint_from_pb(&from->fingerprint, &ret->fingerprint, err);
    if (rc == 0)
        rc = check_stage(ret, err);
    return rc < 0 ? rc : 1;
}

/* -- workers -- */

static int check_worker(const struct row_fleet_worker *r, struct err *err)
{
    if (!is_stage(r->stage))
        return err_set(err, -EBADMSG, "worker %llu: unknown stage %d", (unsigned long long)r->number, (int)r->stage);
    if (r->number == 0 || r->state < MSG_WORKER_IDLE || r->state > MSG_WORKER_SILENT || r->busy_per_mille > PER_MILLE)
        return err_set(err, -EBADMSG, "worker %llu: a field is out of range", (unsigned long long)r->number);
    return 0;
}

int row_fleet_worker_append(struct buf *frame, const struct row_fleet_worker *r)
{
    Blipline__FleetWorker pb = BLIPLINE__FLEET_WORKER__INIT;

    if (check_worker(r, NULL) < 0)
        return -EINVAL;
    pb.number = r->number;
    pb.host = msg_text_to_pb(r->host);
    pb.pid = r->pid;
    pb.stage = (Blipline__Stage)r->stage;
    pb.device = msg_text_to_pb(r->device);
    pb.dtype = (Blipline__DType)r->dtype;
    pb.model = msg_text_to_pb(r->model);
    pb.state = (Blipline__FleetWorker__State)r->state;
    pb.state_ms = r->state_ms;
    pb.text = msg_text_to_pb(r->text);
    pb.n_bad = r->n_bad;
    pb.n_items = r->n_items;
    pb.rate = r->rate;
    pb.busy_per_mille = r->busy_per_mille;
    pb.leases = r->n_leases;
    pb.held_items = r->held_items;
    pb.window_items = r->window_items;
    pb.held_bytes = r->held_bytes;
    pb.window_bytes = r->window_bytes;
    pb.heard_ms = r->heard_ms;
    return row_append_pb(frame, &pb.base);
}

int row_cursor_next_fleet_worker(struct row_cursor *c, struct row_fleet_worker *ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    const Blipline__FleetWorker *from;
    int rc = row_cursor_next_pb(c, &blipline__fleet_worker__descriptor, &row, err);

    if (rc <= 0 || !row)
        return rc;
    from = (const Blipline__FleetWorker *)(const void *)row;
    *ret = (struct row_fleet_worker){.number = from->number,
                                     .pid = from->pid,
                                     .stage = (enum stage)from->stage,
                                     .dtype = (enum dtype)from->dtype,
                                     .state = (enum msg_worker_state)from->state,
                                     .state_ms = from->state_ms,
                                     .n_bad = from->n_bad,
                                     .n_items = from->n_items,
                                     .rate = from->rate,
                                     .busy_per_mille = from->busy_per_mille,
                                     .n_leases = from->leases,
                                     .held_items = from->held_items,
                                     .window_items = from->window_items,
                                     .held_bytes = from->held_bytes,
                                     .window_bytes = from->window_bytes,
                                     .heard_ms = from->heard_ms};
    if ((rc = TEXT_FROM_PB(ret->host, from->host, "host", err)) < 0 ||
        (rc = TEXT_FROM_PB(ret->device, from->device, "device", err)) < 0 ||
        (rc = TEXT_FROM_PB(ret->model, from->model, "model", err)) < 0 ||
        (rc = TEXT_FROM_PB(ret->text, from->text, "text", err)) < 0 || (rc = check_worker(ret, err)) < 0)
        return rc;
    return 1;
}

/* -- jobs -- */

static int check_job(const struct row_fleet_job *r, struct err *err)
{
    if (r->job == 0 || r->state < MSG_JOB_IMPORTING || r->state > MSG_JOB_CANCELLED ||
        r->wanted > STORED_WANTED_REMOVED || r->n_stages > MSG_MAX_STAGES)
        return err_set(err, -EBADMSG, "job %llu: a field is out of range", (unsigned long long)r->job);
    if (r->n_done > r->n_items || r->n_failed > r->n_done || r->n_again > r->n_done)
        return err_set(err, -EBADMSG, "job %llu: the counts contradict each other", (unsigned long long)r->job);
    for (uint32_t i = 0; i < r->n_stages; i++)
        if (!is_stage(r->stages[i].stage))
            return err_set(err, -EBADMSG, "job %llu: unknown stage %d", (unsigned long long)r->job,
                           (int)r->stages[i].stage);
    return 0;
}

int row_fleet_job_append(struct buf *frame, const struct row_fleet_job *r)
{
    Blipline__StageProgress stages[MSG_MAX_STAGES], *list[MSG_MAX_STAGES];
    Blipline__FleetJob pb = BLIPLINE__FLEET_JOB__INIT;

    if (check_job(r, NULL) < 0)
        return -EINVAL;
    pb.job = r->job;
    pb.name = msg_text_to_pb(r->name);
    pb.owner = msg_text_to_pb(r->owner);
    pb.state = (Blipline__JobProgress__State)r->state;
    pb.wanted = r->wanted;
    pb.text = msg_text_to_pb(r->text);
    pb.priority = r->priority;
    pb.n_items = r->n_items;
    pb.n_done = r->n_done;
    pb.n_failed = r->n_failed;
    pb.n_again = r->n_again;
    pb.rate = r->rate;
    for (uint32_t i = 0; i < r->n_stages; i++) {
        blipline__stage_progress__init(list[i] = &stages[i]);
        stages[i].stage = (Blipline__Stage)r->stages[i].stage;
        stages[i].units_ready = r->stages[i].ready;
        stages[i].units_leased = r->stages[i].leased;
    }
    pb.n_stages = r->n_stages;
    pb.stages = list;
    return row_append_pb(frame, &pb.base);
}

int row_cursor_next_fleet_job(struct row_cursor *c, struct row_fleet_job *ret, struct err *err)
{
    ProtobufCMessage *row = NULL;
    const Blipline__FleetJob *from;
    int rc = row_cursor_next_pb(c, &blipline__fleet_job__descriptor, &row, err);

    if (rc <= 0 || !row)
        return rc;
    from = (const Blipline__FleetJob *)(const void *)row;
    if (from->n_stages > MSG_MAX_STAGES)
        return err_set(err, -EMSGSIZE, "job %llu: %zu stages, the limit is %d", (unsigned long long)from->job,
                       from->n_stages, MSG_MAX_STAGES);
    *ret = (struct row_fleet_job){.job = from->job,
                                  .state = (enum msg_job_state)from->state,
                                  .wanted = (enum stored_wanted)from->wanted,
                                  .priority = from->priority,
                                  .n_items = from->n_items,
                                  .n_done = from->n_done,
                                  .n_failed = from->n_failed,
                                  .n_again = from->n_again,
                                  .rate = from->rate,
                                  .n_stages = (uint32_t)from->n_stages};
    for (size_t i = 0; i < from->n_stages; i++)
        ret->stages[i] = (struct row_fleet_units){(enum stage)from->stages[i]->stage, from->stages[i]->units_ready,
                                                  from->stages[i]->units_leased};
    if ((rc = TEXT_FROM_PB(ret->name, from->name, "name", err)) < 0 ||
        (rc = TEXT_FROM_PB(ret->owner, from->owner, "owner", err)) < 0 ||
        (rc = TEXT_FROM_PB(ret->text, from->text, "text", err)) < 0 || (rc = check_job(ret, err)) < 0)
        return rc;
    return 1;
}
