/* worker.c - take units, run the Q-Former over their features (small units together), give the projected queries back.
 */
#include "qformer_worker/worker.h"

#include "base/clock.h"
#include "qformer_worker/qformer.h"
#include "worker/gather.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct conf_key qformer_conf_table[] = {WORKER_CONF_KEYS(struct qformer_conf, "1", "16", "128"),
                                              {"null_shape", CONF_TEXT, CONF_AT(struct qformer_conf, null_shape),
                                               "32,2560", 1, 0, "device = null: queries,width of the output"},
                                              {0}};

enum { GROUP_MAX_UNITS = 64 };

struct qformer_worker {
    struct worker common;
    const struct qformer_conf *conf;
    struct qformer *qformer;       /* NULL: device null */
    uint32_t n_tokens, width;      /* P, C of what comes in */
    uint32_t n_queries, out_width; /* Q, L of what goes out */
    float *trunk;                  /* [capacity, P, C] */
    size_t capacity;               /* images */
};

/* -- start and end -- */

static int open_model(struct qformer_worker *w, struct err *err)
{
    int rc = worker_open(&w->common, MODEL_STAGE_QFORMER, err);

    if (rc == 0)
        rc = qformer_new(w->common.ops, w->common.checkpoint, (int)w->conf->common.batch, &w->qformer, err);
    if (rc < 0)
        return rc;
    w->n_tokens = (uint32_t)qformer_n_tokens(w->qformer);
    w->width = (uint32_t)qformer_image_width(w->qformer);
    w->n_queries = (uint32_t)qformer_n_queries(w->qformer);
    w->out_width = (uint32_t)qformer_language_width(w->qformer);
    if (w->out_width == 0)
        return err_set(err, -EINVAL, "%s: no language model in this checkpoint, captions need one",
                       w->conf->common.model);
    return 0;
}

int qformer_worker_start(const void *conf, void **ret, struct err *err)
{
    struct qformer_worker *w = calloc(1, sizeof(*w));
    int rc;

    if (!w)
        return err_set(err, -ENOMEM, "no memory");
    w->conf = conf;
    w->common.conf = &w->conf->common;
    if (worker_is_null(&w->common))
        rc = worker_null_shape(w->conf->null_shape, &w->n_queries, &w->out_width, err);
    else
        rc = open_model(w, err);
    if (rc == 0)
        rc = worker_start(&w->common, MODEL_STAGE_QFORMER, err);
    if (rc < 0) {
        qformer_worker_free(w);
        return rc;
    }
    *ret = w;
    return 0;
}

void qformer_worker_free(void *daemon)
{
    struct qformer_worker *w = daemon;

    if (!w)
        return;
    qformer_free(w->qformer);
    worker_release(&w->common);
    free(w->trunk);
    free(w);
}

/* -- a group of units that are computed together -- */

struct group {
    int n;
    size_t n_images;
    struct worker_work *works[GROUP_MAX_UNITS];
    int64_t started_ns;
};

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
        worker_return_unit(&w->common, &work);
        return;
    }
    if (work->n_tensors != 1) {
        worker_fail_unit(&w->common, &work, "bad_tensor", "one tensor of image features is wanted");
        return;
    }
    if (w->qformer) {
        rc = reserve_trunk(w, g->n_images + work->n_items);
        if (rc < 0) {
            worker_fail_unit(&w->common, &work, "memory", "no memory for the unit's features");
            return;
        }
        rc = worker_gather_f32(work, 0, 3, shape, w->trunk + g->n_images * one, &err);
        if (rc < 0) {
            worker_fail_unit(&w->common, &work, "bad_tensor", err.text);
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

    while (g->n < GROUP_MAX_UNITS && g->n_images < (size_t)w->conf->common.batch) {
        rc = worker_session_take(w->common.session, g->n ? 0 : timeout_ms, &work);
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
        worker_fail_unit(&w->common, work, "result", err.text);
        return;
    }
    result.n_tensors = 1;
    worker_session_count(w->common.session, result.n_rows, 0, 0, timing->compute_ns, 0);
    worker_send_result(&w->common, work, &result);
}

static int group_compute(struct qformer_worker *w, struct group *g, float *out, struct err *err)
{
    const size_t one_in = (size_t)w->n_tokens * w->width, one_out = (size_t)w->n_queries * w->out_width;

    for (size_t i = 0; w->qformer && i < g->n_images;) {
        const size_t left = g->n_images - i;
        const int n = (int)(left < (size_t)w->conf->common.batch ? left : (size_t)w->conf->common.batch);
        int rc = qformer_forward(w->qformer, n, w->trunk + i * one_in, false,
                                 &(struct qformer_out){.projected = out + i * one_out});

        if (rc < 0)
            return err_set(err, rc, "the Q-Former failed: %s", strerror(-rc));
        worker_session_progress(w->common.session);
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
            worker_fail_unit(&w->common, &g->works[i], "memory", "no memory for the unit's queries");
        at += n;
    }
    free(out);
    return rc;
}

int qformer_worker_run(void *daemon, struct err *err)
{
    struct qformer_worker *w = daemon;

    for (;;) {
        struct group g = {0};
        int rc, ended;

        worker_check_stop(&w->common);
        ended = group_take(w, &g, 200);
        if (ended < 0 && ended != -EPIPE)
            return err_set(err, ended, "cannot take work: %s", strerror(-ended));
        g.started_ns = clock_mono_ns();
        rc = g.n ? group_run(w, &g, err) : 0;
        if (rc < 0)
            return rc;
        if (ended == -EPIPE && g.n == 0)
            return worker_end(&w->common, err);
    }
}
