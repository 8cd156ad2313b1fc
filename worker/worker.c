#include "worker/worker.h"

#include "base/file.h"
#include "base/log.h"
#include "base/stop.h"
#include "model/fingerprint.h"
#include "tensor/device.h"
#include "wire/context.h"
#include "wire/worker_end.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { GOODBYE_MS = 10000 };

bool worker_is_null(const struct worker *w)
{
    return strcmp(w->conf->device, "null") == 0;
}

int worker_dtype(const struct worker_conf *conf, enum dtype *ret, struct err *err)
{
    enum dtype dtype = DTYPE_F32;

    if (dtype_parse(conf->dtype, &dtype) < 0 || (dtype != DTYPE_F32 && dtype != DTYPE_BF16))
        return err_set(err, -EINVAL, "dtype = %s: fp32 or bf16 is wanted", conf->dtype);
    *ret = dtype;
    return 0;
}

int worker_open(struct worker *w, enum model_stage stage, struct err *err)
{
    enum dtype dtype = DTYPE_F32;
    int rc = worker_dtype(w->conf, &dtype, err);

    if (rc == 0)
        rc = device_open(
            &(struct device_conf){
                .device = w->conf->device, .n_threads = (int)w->conf->threads, .act_dtype = dtype, .memory_share = 1},
            &w->ops, err);
    if (rc == 0)
        rc = checkpoint_open(w->conf->model, &w->checkpoint, err);
    if (rc == 0)
        rc = checkpoint_check(w->checkpoint, stage, err);
    return rc;
}

static enum msg_stage wire_stage(enum model_stage stage)
{
    switch (stage) {
    case MODEL_STAGE_ENCODER:
        return MSG_STAGE_ENCODE;
    case MODEL_STAGE_QFORMER:
        return MSG_STAGE_QFORMER;
    default:
        return MSG_STAGE_LLM;
    }
}

static void note_alive(void *session)
{
    worker_session_progress(session);
}

int worker_start(struct worker *w, enum model_stage stage, struct err *err)
{
    char name[MSG_NAME_SIZE];
    struct worker_session_conf conf = {.endpoint = w->conf->endpoint,
                                       .stage = wire_stage(stage),
                                       .device = w->conf->device,
                                       .model = name,
                                       .window_items = (uint32_t)w->conf->window_items,
                                       .window_bytes = (uint64_t)w->conf->window_bytes};
    struct fingerprint fingerprint;
    enum dtype dtype = DTYPE_F32;
    int rc = worker_dtype(w->conf, &dtype, err);

    if (rc < 0)
        return rc;
    conf.dtype = (enum msg_dtype)dtype; /* the numbers agree */
    file_base_name(w->conf->model, name, sizeof(name));
    if (w->checkpoint) {
        rc = model_stage_fingerprint(w->checkpoint, stage, dtype, &fingerprint, err);
        if (rc < 0)
            return rc;
        conf.fingerprint.n_bytes = MSG_FINGERPRINT_BYTES;
        memcpy(conf.fingerprint.bytes, fingerprint.bytes, MSG_FINGERPRINT_BYTES);
    }
    rc = wire_init(1, err);
    if (rc == 0)
        rc = worker_session_start(&conf, &w->session, err);
    if (rc == 0 && w->ops) {
        w->ops->alive = note_alive;
        w->ops->alive_arg = w->session;
    }
    if (rc == 0)
        log_info("event=ready stage=%s device=%s dtype=%s model=%s threads=%lld batch=%lld", msg_stage_name(conf.stage),
                 w->conf->device, msg_dtype_word(conf.dtype), name, (long long)w->conf->threads,
                 (long long)w->conf->batch);
    return rc;
}

void worker_release(struct worker *w)
{
    worker_session_stop(&w->session);
    wire_exit();
    checkpoint_free(w->checkpoint);
    ops_free(w->ops);
    w->checkpoint = NULL;
    w->ops = NULL;
}

void worker_check_stop(struct worker *w)
{
    if (w->draining || !stop_requested())
        return;
    w->draining = true;
    log_info("event=draining");
    worker_session_drain(w->session);
}

void worker_fail_unit(struct worker *w, struct worker_work **work, const char *code, const char *text)
{
    log_warn("event=unit_failed unit=%u code=%s reason=\"%s\"", (*work)->lease.unit, code, text);
    if (worker_session_failure(w->session, work, code, text) < 0)
        log_warn("event=failure_not_sent the lease will expire instead");
}

void worker_return_unit(struct worker *w, struct worker_work **work)
{
    if (worker_session_return(w->session, work) < 0)
        log_warn("event=return_not_sent the lease will expire instead");
}

void worker_send_result(struct worker *w, struct worker_work **work, struct worker_result *result)
{
    struct err err = {""};

    if (worker_session_result(w->session, work, result, &err) < 0)
        log_warn("event=result_not_sent reason=\"%s\" the lease will expire", err.text);
}

int worker_end(struct worker *w, struct err *err)
{
    return worker_session_end(w->session, GOODBYE_MS, err);
}

int worker_null_shape(const char *text, uint32_t *ret_rows, uint32_t *ret_width, struct err *err)
{
    unsigned rows, width;

    if (sscanf(text, "%u,%u", &rows, &width) != 2 || rows == 0 || width == 0 || rows > 65536 || width > 65536)
        return err_set(err, -EINVAL, "null_shape = %s: two numbers \"rows,width\" are wanted", text);
    *ret_rows = rows;
    *ret_width = width;
    return 0;
}
