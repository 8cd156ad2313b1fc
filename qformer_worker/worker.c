/* worker.c - take units, run the Q-Former over their features (small units together), give the projected queries back.
 */
#include "qformer_worker/worker.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/stop.h"
#include "model/checkpoint.h"
#include "model/fingerprint.h"
#include "qformer_worker/qformer.h"
#include "tensor/device.h"
#include "wire/context.h"
#include "wire/worker_end.h"
#include "wire/worker_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct conf_key qformer_conf_table[] = {
    {"endpoint", CONF_TEXT, CONF_AT(struct qformer_conf, endpoint), "ipc:///run/blipline/broker", 1, 0,
     "the broker's endpoint"},
    {"model", CONF_TEXT, CONF_AT(struct qformer_conf, model), "", 0, 0,
     "checkpoint directory (not needed for device = null)"},
    {"device", CONF_TEXT, CONF_AT(struct qformer_conf, device), "cpu", 1, 0,
     "cpu, or null: right shapes without arithmetic"},
    {"threads", CONF_INT, CONF_AT(struct qformer_conf, threads), "1", 1, 1024, "threads of the Q-Former"},
    {"batch", CONF_INT, CONF_AT(struct qformer_conf, batch), "16", 1, 4096, "images of one forward pass"},
    {"window_items", CONF_INT, CONF_AT(struct qformer_conf, window_items), "128", 1, 65536, "items held at once"},
    {"window_bytes", CONF_SIZE, CONF_AT(struct qformer_conf, window_bytes), "4GiB", 1, 0,
     "bytes of tensors held at once"},
    {"null_shape", CONF_TEXT, CONF_AT(struct qformer_conf, null_shape), "32,2560", 1, 0,
     "device = null: queries,width of the output"},
    {"log_level", CONF_TEXT, CONF_AT(struct qformer_conf, log_level), "info", 1, 0, "err, warn, info or debug"},
    {0}};

enum { GROUP_MAX_UNITS = 64 };

struct qformer_worker {
    const struct qformer_conf *conf;
    struct checkpoint *checkpoint;
    struct ops *ops;
    struct qformer *qformer; /* NULL: device null */
    struct worker_session *session;
    uint32_t n_tokens, width;      /* P, C of what comes in */
    uint32_t n_queries, out_width; /* Q, L of what goes out */
    float *trunk;                  /* [capacity, P, C] */
    size_t capacity;               /* images */
    bool draining;
};

/* -- start and end
 * ------------------------------------------------------------------------------------------------------------------ */

static int open_model(struct qformer_worker *w, struct err *err)
{
    int rc = device_open(w->conf->device, (int)w->conf->threads, DTYPE_F32, &w->ops, err);

    if (rc == 0)
        rc = checkpoint_open(w->conf->model, &w->checkpoint, err);
    if (rc == 0)
        rc = checkpoint_check(w->checkpoint, MODEL_STAGE_QFORMER, err);
    if (rc == 0)
        rc = qformer_new(w->ops, w->checkpoint, (int)w->conf->batch, &w->qformer, err);
    if (rc < 0)
        return rc;
    w->n_tokens = (uint32_t)qformer_n_tokens(w->qformer);
    w->width = (uint32_t)qformer_image_width(w->qformer);
    w->n_queries = (uint32_t)qformer_n_queries(w->qformer);
    w->out_width = (uint32_t)qformer_language_width(w->qformer);
    if (w->out_width == 0)
        return err_set(err, -EINVAL, "%s: no language model in this checkpoint, captions need one", w->conf->model);
    return 0;
}

static int start_session(struct qformer_worker *w, struct err *err)
{
    char name[MSG_NAME_SIZE];
    struct worker_session_conf conf = {.endpoint = w->conf->endpoint,
                                       .stage = MSG_STAGE_QFORMER,
                                       .device = w->conf->device,
                                       .dtype = MSG_DTYPE_F32,
                                       .model = name,
                                       .window_items = (uint32_t)w->conf->window_items,
                                       .window_bytes = (uint64_t)w->conf->window_bytes};
    struct fingerprint fingerprint;
    int rc = 0;

    file_base_name(w->conf->model, name, sizeof(name));
    if (w->checkpoint) {
        rc = model_stage_fingerprint(w->checkpoint, MODEL_STAGE_QFORMER, &fingerprint, err);
        if (rc < 0)
            return rc;
        conf.fingerprint.n_bytes = MSG_FINGERPRINT_BYTES;
        memcpy(conf.fingerprint.bytes, fingerprint.bytes, MSG_FINGERPRINT_BYTES);
    }
    rc = wire_init(1, err);
    return rc < 0 ? rc : worker_session_start(&conf, &w->session, err);
}

int qformer_worker_new(const struct qformer_conf *conf, struct qformer_worker **ret, struct err *err)
{
    struct qformer_worker *w = calloc(1, sizeof(*w));
    int rc = 0;

    if (!w)
        return err_set(err, -ENOMEM, "no memory");
    w->conf = conf;
    if (strcmp(conf->device, "null") != 0)
        rc = open_model(w, err);
    else if (sscanf(conf->null_shape, "%u,%u", &w->n_queries, &w->out_width) != 2 || w->n_queries == 0 ||
             w->out_width == 0 || w->n_queries > 65536 || w->out_width > 65536)
        rc = err_set(err, -EINVAL, "null_shape = %s: two numbers \"queries,width\" are wanted", conf->null_shape);
    if (rc == 0)
        rc = start_session(w, err);
    if (rc < 0) {
        qformer_worker_free(w);
        return rc;
    }
    log_info("event=ready device=%s model=%s threads=%lld batch=%lld", conf->device, conf->model,
             (long long)conf->threads, (long long)conf->batch);
    *ret = w;
    return 0;
}

void qformer_worker_free(struct qformer_worker *w)
{
    if (!w)
        return;
    worker_session_stop(&w->session);
    wire_exit();
    qformer_free(w->qformer);
    checkpoint_free(w->checkpoint);
    ops_free(w->ops);
    free(w->trunk);
    free(w);
}

/* -- a group of units that are computed together
 * ------------------------------------------------------------------------------------ */

struct group {
    int n;
    size_t n_images;
    struct worker_work *works[GROUP_MAX_UNITS];
    int64_t started_ns;
};

/* The broker that leased it is gone: giving it back sends nothing. */
static void drop_stale(struct qformer_worker *w, struct worker_work **work)
{
    if (worker_session_return(w->session, work) < 0)
        log_debug("event=stale_work_dropped");
}

static void fail_work(struct qformer_worker *w, struct worker_work **work, const char *code, const char *text)
{
    log_warn("event=unit_failed unit=%u code=%s reason=\"%s\"", (*work)->lease.unit, code, text);
    if (worker_session_failure(w->session, work, code, text) < 0)
        log_warn("event=failure_not_sent the lease will expire instead");
}

static int reserve_trunk(struct qformer_worker *w, size_t n_images)
{
    float *p;

    if (n_images <= w->capacity)
        return 0;
    p = realloc(w->trunk, n_images * w->n_tokens * w->width * sizeof(float));
    if (!p)
        return -ENOMEM;
    w->trunk = p;
    w->capacity = n_images;
    return 0;
}

/* Verify the unit's features and place them behind the group's. A unit that is not as it should be is given back as
 * failed. */
static void group_add(struct qformer_worker *w, struct group *g, struct worker_work *work)
{
    const uint32_t shape[3] = {work->n_items, w->n_tokens, w->width};
    const size_t one = (size_t)w->n_tokens * w->width;
    struct err err = {""};
    int rc;

    if (worker_work_stale(work)) {
        drop_stale(w, &work);
        return;
    }
    if (work->n_tensors != 1) {
        fail_work(w, &work, "bad_tensor", "one tensor of image features is wanted");
        return;
    }
    if (w->qformer) {
        rc = reserve_trunk(w, g->n_images + work->n_items);
        if (rc < 0) {
            fail_work(w, &work, "memory", "no memory for the unit's features");
            return;
        }
        rc = wire_tensor_gather(work->tensors[0], MSG_DTYPE_F32, shape, 3, w->trunk + g->n_images * one,
                                work->n_items * one * sizeof(float), &err);
        if (rc < 0) {
            fail_work(w, &work, "bad_tensor", err.text);
            return;
        }
    }
    g->n_images += work->n_items;
    g->works[g->n++] = work;
}

static int group_take(struct qformer_worker *w, struct group *g, int64_t timeout_ms)
{
    struct worker_work *work;
    int rc = 0;

    while (g->n < GROUP_MAX_UNITS && g->n_images < (size_t)w->conf->batch) {
        rc = worker_session_take(w->session, g->n ? 0 : timeout_ms, &work);
        if (rc != 1)
            return rc;
        group_add(w, g, work);
    }
    return 1;
}

/* Takes `out` rows [n_items, Q, L] of this unit (copied into the tensor). */
static void send_result(struct qformer_worker *w, struct worker_work **work, const float *out,
                        const struct msg_timing *timing)
{
    const uint32_t shape[3] = {(*work)->n_items, w->n_queries, w->out_width};
    struct worker_result result = {.timing = *timing, .n_rows = (*work)->n_items};
    struct err err = {""};
    int rc = 0;

    buf_init(&result.rows, MSG_MAX_ROW_FRAME_BYTES);
    for (uint32_t i = 0; rc == 0 && i < (*work)->n_items; i++)
        rc = row_record_append(&result.rows, &(struct row_record){.item = (*work)->items[i].item});
    if (rc == 0)
        rc = wire_tensor_new(MSG_DTYPE_F32, shape, 3, out, NULL, NULL, &result.tensors[0], &err);
    if (rc < 0) {
        buf_release(&result.rows);
        fail_work(w, work, "result", err.text);
        return;
    }
    result.n_tensors = 1;
    worker_session_count(w->session, result.n_rows, 0, 0, timing->compute_ns, 0);
    rc = worker_session_result(w->session, work, &result, &err);
    if (rc < 0)
        log_warn("event=result_not_sent reason=\"%s\" the lease will expire", err.text);
}

static int group_compute(struct qformer_worker *w, struct group *g, float *out, struct err *err)
{
    const size_t one_in = (size_t)w->n_tokens * w->width, one_out = (size_t)w->n_queries * w->out_width;

    for (size_t i = 0; w->qformer && i < g->n_images;) {
        const size_t left = g->n_images - i;
        const int n = (int)(left < (size_t)w->conf->batch ? left : (size_t)w->conf->batch);
        int rc = qformer_forward(w->qformer, n, w->trunk + i * one_in, NULL, out + i * one_out);

        if (rc < 0)
            return err_set(err, rc, "the Q-Former failed: %s", strerror(-rc));
        worker_session_progress(w->session);
        i += (size_t)n;
    }
    return 0;
}

static int group_run(struct qformer_worker *w, struct group *g, struct err *err)
{
    const size_t one_out = (size_t)w->n_queries * w->out_width;
    float *out = calloc(g->n_images, one_out * sizeof(float));
    int64_t start = clock_mono_ns(), each;
    size_t at = 0;
    int rc = out ? group_compute(w, g, out, err) : 0;

    each = (clock_mono_ns() - start) / (int64_t)g->n_images;
    for (int i = 0; rc == 0 && i < g->n; i++) {
        const uint32_t n = g->works[i]->n_items;
        const struct msg_timing timing = {.compute_ns = w->qformer ? (uint64_t)each * n : 0,
                                          .wait_ns = (uint64_t)(g->started_ns - g->works[i]->received_ns)};

        if (out)
            send_result(w, &g->works[i], out + at * one_out, &timing);
        else
            fail_work(w, &g->works[i], "memory", "no memory for the unit's queries");
        at += n;
    }
    free(out);
    return rc;
}

int qformer_worker_run(struct qformer_worker *w, struct err *err)
{
    for (;;) {
        struct group g = {0};
        int rc, ended;

        if (stop_requested() && !w->draining) {
            w->draining = true;
            log_info("event=draining");
            worker_session_drain(w->session);
        }
        ended = group_take(w, &g, 200);
        if (ended < 0 && ended != -EPIPE)
            return err_set(err, ended, "cannot take work: %s", strerror(-ended));
        g.started_ns = clock_mono_ns();
        rc = g.n ? group_run(w, &g, err) : 0;
        if (rc < 0)
            return rc;
        if (ended == -EPIPE && g.n == 0)
            return worker_session_end(w->session, 10000, err);
    }
}
