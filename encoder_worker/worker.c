/* worker.c - take units, keep the pool busy ahead, run the ViT over what is decoded, give results back in order of
 * arrival. */
#include "encoder_worker/worker.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/stop.h"
#include "encoder_worker/pool.h"
#include "encoder_worker/unit.h"
#include "encoder_worker/vit.h"
#include "model/checkpoint.h"
#include "model/fingerprint.h"
#include "tensor/device.h"
#include "wire/context.h"
#include "wire/worker_end.h"
#include "wire/worker_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct conf_key encoder_conf_table[] = {
    {"endpoint", CONF_TEXT, CONF_AT(struct encoder_conf, endpoint), "ipc:///run/blipline/broker", 1, 0,
     "the broker's endpoint"},
    {"model", CONF_TEXT, CONF_AT(struct encoder_conf, model), "", 0, 0,
     "checkpoint directory (not needed for device = null)"},
    {"device", CONF_TEXT, CONF_AT(struct encoder_conf, device), "cpu", 1, 0,
     "cpu, or null: right shapes without arithmetic"},
    {"threads", CONF_INT, CONF_AT(struct encoder_conf, threads), "2", 1, 1024, "threads of the image encoder"},
    {"decode_threads", CONF_INT, CONF_AT(struct encoder_conf, decode_threads), "1", 1, 256,
     "threads that fetch and decode ahead"},
    {"batch", CONF_INT, CONF_AT(struct encoder_conf, batch), "16", 1, 4096, "images of one forward pass"},
    {"window_items", CONF_INT, CONF_AT(struct encoder_conf, window_items), "128", 1, 65536, "items held at once"},
    {"window_bytes", CONF_SIZE, CONF_AT(struct encoder_conf, window_bytes), "4GiB", 1, 0,
     "bytes of results held at once"},
    {"max_file_bytes", CONF_SIZE, CONF_AT(struct encoder_conf, max_file_bytes), "256MiB", 1, 0, "largest picture file"},
    {"max_pixels", CONF_INT, CONF_AT(struct encoder_conf, max_pixels), "89478485", 1, 0, "most pixels of a picture"},
    {"max_dimension", CONF_INT, CONF_AT(struct encoder_conf, max_dimension), "65500", 1, 1 << 20,
     "longest side of a picture, pixels"},
    {"null_shape", CONF_TEXT, CONF_AT(struct encoder_conf, null_shape), "257,1408", 1, 0,
     "device = null: tokens,width of the output"},
    {"log_level", CONF_TEXT, CONF_AT(struct encoder_conf, log_level), "info", 1, 0, "err, warn, info or debug"},
    {0}};

struct encoder_worker {
    const struct encoder_conf *conf;
    struct checkpoint *checkpoint;
    struct ops *ops;
    struct vit *vit; /* NULL: device null */
    struct pool *pool;
    struct worker_session *session;
    uint32_t n_tokens, width;
    size_t image_bytes;
    uint8_t *staging; /* [batch, S, S, 3] */
    struct unit *first, **end;
    uint32_t items_held;
    uint64_t serial;
    bool draining;
};

/* -- start and end
 * ------------------------------------------------------------------------------------------------------------------ */

static int open_model(struct encoder_worker *w, struct err *err)
{
    struct pool_conf pool = {.n_threads = (int)w->conf->decode_threads,
                             .capacity = (int)w->conf->window_items + MSG_MAX_UNIT_ITEMS,
                             .limits = {.max_file_bytes = (size_t)w->conf->max_file_bytes,
                                        .max_pixels = (uint64_t)w->conf->max_pixels,
                                        .max_dimension = (uint32_t)w->conf->max_dimension}};
    int rc = device_open(w->conf->device, (int)w->conf->threads, DTYPE_F32, &w->ops, err);

    if (rc == 0)
        rc = checkpoint_open(w->conf->model, &w->checkpoint, err);
    if (rc == 0)
        rc = checkpoint_check(w->checkpoint, MODEL_STAGE_ENCODER, err);
    if (rc == 0)
        rc = vit_new(w->ops, w->checkpoint, (int)w->conf->batch, &w->vit, err);
    if (rc < 0)
        return rc;
    w->n_tokens = (uint32_t)vit_n_tokens(w->vit);
    w->width = (uint32_t)vit_width(w->vit);
    pool.size_px = (uint32_t)vit_image_size(w->vit);
    w->image_bytes = (size_t)pool.size_px * pool.size_px * 3;
    w->staging = malloc((size_t)w->conf->batch * w->image_bytes);
    if (!w->staging)
        return err_set(err, -ENOMEM, "no memory for %lld images", (long long)w->conf->batch);
    return pool_new(&pool, &w->pool, err);
}

static int start_session(struct encoder_worker *w, struct err *err)
{
    char name[MSG_NAME_SIZE];
    struct worker_session_conf conf = {.endpoint = w->conf->endpoint,
                                       .stage = MSG_STAGE_ENCODE,
                                       .device = w->conf->device,
                                       .dtype = MSG_DTYPE_F32,
                                       .model = name,
                                       .window_items = (uint32_t)w->conf->window_items,
                                       .window_bytes = (uint64_t)w->conf->window_bytes};
    struct fingerprint fingerprint;
    int rc = 0;

    file_base_name(w->conf->model, name, sizeof(name));
    if (w->checkpoint) {
        rc = model_stage_fingerprint(w->checkpoint, MODEL_STAGE_ENCODER, &fingerprint, err);
        if (rc < 0)
            return rc;
        conf.fingerprint.n_bytes = MSG_FINGERPRINT_BYTES;
        memcpy(conf.fingerprint.bytes, fingerprint.bytes, MSG_FINGERPRINT_BYTES);
    }
    rc = wire_init(1, err);
    return rc < 0 ? rc : worker_session_start(&conf, &w->session, err);
}

int encoder_worker_new(const struct encoder_conf *conf, struct encoder_worker **ret, struct err *err)
{
    struct encoder_worker *w = calloc(1, sizeof(*w));
    int rc;

    if (!w)
        return err_set(err, -ENOMEM, "no memory");
    w->conf = conf;
    w->end = &w->first;
    if (strcmp(conf->device, "null") == 0) {
        if (sscanf(conf->null_shape, "%u,%u", &w->n_tokens, &w->width) != 2 || w->n_tokens == 0 || w->width == 0 ||
            w->n_tokens > 65536 || w->width > 65536)
            rc = err_set(err, -EINVAL, "null_shape = %s: two numbers \"tokens,width\" are wanted", conf->null_shape);
        else
            rc = 0;
    } else {
        rc = open_model(w, err);
    }
    if (rc == 0)
        rc = start_session(w, err);
    if (rc < 0) {
        encoder_worker_free(w);
        return rc;
    }
    log_info("event=ready device=%s model=%s threads=%lld decode_threads=%lld batch=%lld", conf->device, conf->model,
             (long long)conf->threads, (long long)conf->decode_threads, (long long)conf->batch);
    *ret = w;
    return 0;
}

void encoder_worker_free(struct encoder_worker *w)
{
    if (!w)
        return;
    pool_free(w->pool);
    while (w->first) {
        struct unit *u = w->first;

        w->first = u->next;
        encoder_unit_free(u);
    }
    worker_session_stop(&w->session);
    wire_exit();
    vit_free(w->vit);
    checkpoint_free(w->checkpoint);
    ops_free(w->ops);
    free(w->staging);
    free(w);
}

/* -- giving back
 * --------------------------------------------------------------------------------------------------------------------
 */

/* The broker that leased it is gone: giving it back sends nothing. */
static void drop_stale(struct encoder_worker *w, struct worker_work **work)
{
    if (worker_session_return(w->session, work) < 0)
        log_debug("event=stale_work_dropped");
}

static void send_failure(struct encoder_worker *w, struct unit *u, const char *code, const char *text)
{
    log_warn("event=unit_failed unit=%u code=%s reason=\"%s\"", u->work->lease.unit, code, text);
    if (worker_session_failure(w->session, &u->work, code, text) < 0)
        log_warn("event=failure_not_sent the lease will expire instead");
}

static int fill_result(struct encoder_worker *w, struct unit *u, struct worker_result *result, struct err *err)
{
    const uint32_t shape[3] = {u->n_ok, w->n_tokens, w->width};
    int rc = encoder_unit_rows(u, &result->rows);

    if (rc < 0)
        return err_set(err, rc, "cannot write the rows: %s", strerror(-rc));
    result->n_rows = u->work->n_items;
    result->timing = (struct msg_timing){.compute_ns = (uint64_t)u->compute_ns,
                                         .decode_ns = (uint64_t)u->decode_ns,
                                         .resize_ns = (uint64_t)u->resize_ns,
                                         .wait_ns = (uint64_t)(u->started_ns - u->work->received_ns)};
    if (u->n_ok == 0)
        return 0;
    rc = wire_tensor_new(MSG_DTYPE_F32, shape, 3, u->features, free, u->features, &result->tensors[0], err);
    if (rc < 0)
        return rc;
    u->features = NULL;
    result->n_tensors = 1;
    return 0;
}

static void finish_unit(struct encoder_worker *w, struct unit *u)
{
    struct worker_result result = {0};
    struct err err = {""};
    int rc;

    worker_session_count(w->session, u->work->n_items, u->n_failures, 0, (uint64_t)u->compute_ns, 0);
    buf_init(&result.rows, MSG_MAX_ROW_FRAME_BYTES);
    rc = fill_result(w, u, &result, &err);
    if (rc == 0) {
        rc = worker_session_result(w->session, &u->work, &result, &err);
        if (rc < 0)
            log_warn("event=result_not_sent reason=\"%s\" the lease will expire", err.text);
    } else {
        buf_release(&result.rows);
        send_failure(w, u, "result", err.text);
    }
}

/* -- taking and computing
 * ----------------------------------------------------------------------------------------------------------- */

static void submit_items(struct encoder_worker *w, struct unit *u)
{
    for (uint32_t i = 0; i < u->work->n_items; i++) {
        const struct row_item *item = &u->work->items[i];
        int rc = pool_submit(w->pool, u->serial << 16 | i, (const char *)item->path, item->path_bytes,
                             u->pixels + i * w->image_bytes);

        if (rc < 0) {
            struct pool_result bad = {.code = IMAGE_UNREADABLE};

            (void)err_set(&bad.message, rc, "cannot be asked for: %s", strerror(-rc));
            encoder_unit_note(u, i, &bad);
        }
    }
}

static int take_units(struct encoder_worker *w, int64_t timeout_ms)
{
    struct worker_work *work = NULL;
    struct unit *u;
    int rc;

    while ((rc = worker_session_take(w->session, timeout_ms, &work)) == 1) {
        timeout_ms = 0;
        if (encoder_unit_new(&work, ++w->serial, w->image_bytes, &u) < 0) {
            log_warn("event=unit_failed unit=%u code=memory", work->lease.unit);
            if (worker_session_failure(w->session, &work, "memory", "no memory for the unit's pixels") < 0)
                log_warn("event=failure_not_sent the lease will expire instead");
            continue;
        }
        *w->end = u;
        w->end = &u->next;
        w->items_held += u->work->n_items;
        submit_items(w, u);
    }
    return rc;
}

static void remove_unit(struct encoder_worker *w, struct unit *u)
{
    struct unit **link = &w->first;

    while (*link != u)
        link = &(*link)->next;
    *link = u->next;
    if (!u->next)
        w->end = link;
    w->items_held -= u->work ? u->work->n_items : 0;
}

static struct unit *find_unit(struct encoder_worker *w, uint64_t serial)
{
    for (struct unit *u = w->first; u; u = u->next)
        if (u->serial == serial)
            return u;
    return NULL;
}

/* Note what the pool has finished; waits up to timeout_ms for the first. */
static void collect(struct encoder_worker *w, int64_t timeout_ms)
{
    struct pool_result r;

    while (pool_take(w->pool, timeout_ms, &r) == 1) {
        struct unit *u = find_unit(w, r.index >> 16);

        timeout_ms = 0;
        worker_session_progress(w->session);
        if (u)
            encoder_unit_note(u, (uint32_t)(r.index & 0xffff), &r);
    }
}

static bool decoded(const struct unit *u)
{
    return u->n_decoded == u->work->n_items;
}

/* Make room for the features when the last picture is in. False: there is nothing to compute for this unit. */
static bool prepare(const struct encoder_worker *w, struct unit *u)
{
    if (u->no_memory || u->n_ok == 0 || worker_work_stale(u->work))
        return false;
    if (!u->features)
        u->features = malloc((size_t)u->n_ok * w->n_tokens * w->width * sizeof(float));
    u->no_memory = !u->features;
    return !u->no_memory;
}

/* One forward pass over the next decoded images, of several units where they are small. Returns images computed. */
static int run_batch(struct encoder_worker *w, struct err *err)
{
    struct {
        struct unit *unit;
        float *to;
    } place[4096];
    const size_t one = (size_t)w->n_tokens * w->width;
    int n = 0, rc;
    const void *features;
    int64_t start = clock_mono_ns(), share;

    for (struct unit *u = w->first; u && n < w->conf->batch && decoded(u); u = u->next) {
        if (!prepare(w, u))
            continue;
        for (; u->next_row < u->work->n_items && n < w->conf->batch; u->next_row++) {
            if (u->failed[u->next_row])
                continue;
            memcpy(w->staging + (size_t)n * w->image_bytes, u->pixels + u->next_row * w->image_bytes, w->image_bytes);
            place[n].unit = u;
            place[n++].to = u->features + u->n_computed++ * one;
        }
    }
    if (n == 0)
        return 0;
    rc = vit_forward(w->vit, n, w->staging, &features);
    for (int i = 0, k; rc == 0 && i < n; i = k) { /* one copy for each unit's part of the batch */
        for (k = i + 1; k < n && place[k].unit == place[i].unit; k++)
            ;
        rc = w->ops->f->download_f32(w->ops, place[i].to, (const float *)features + (size_t)i * one,
                                     (size_t)(k - i) * one);
    }
    if (rc < 0)
        return err_set(err, rc, "the image encoder failed: %s", strerror(-rc));
    share = (clock_mono_ns() - start) / n;
    for (int i = 0; i < n; i++)
        place[i].unit->compute_ns += share;
    worker_session_progress(w->session);
    return n;
}

/* Units that are through leave, in order of arrival. */
static void finish_ready(struct encoder_worker *w)
{
    struct unit *next;

    for (struct unit *u = w->first; u && decoded(u); u = next) {
        const bool stale = worker_work_stale(u->work);

        next = u->next;
        if (!stale && !u->no_memory && u->n_computed < u->n_ok)
            return;
        remove_unit(w, u);
        if (stale)
            drop_stale(w, &u->work);
        else if (u->no_memory)
            send_failure(w, u, "memory", "no memory for the unit's pictures or features");
        else
            finish_unit(w, u);
        encoder_unit_free(u);
    }
}

static int run_null(struct encoder_worker *w, struct err *err)
{
    struct worker_work *work;
    int rc = worker_session_take(w->session, 200, &work);

    if (rc != 1)
        return rc;
    struct worker_result result = {.n_rows = work->n_items};
    const uint32_t shape[3] = {work->n_items, w->n_tokens, w->width};
    void *zeros = calloc((size_t)work->n_items * w->n_tokens, w->width * sizeof(float));

    buf_init(&result.rows, MSG_MAX_ROW_FRAME_BYTES);
    rc = zeros ? 0 : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < work->n_items; i++)
        rc = row_record_append(&result.rows, &(struct row_record){.item = work->items[i].item});
    if (rc == 0)
        rc = wire_tensor_new(MSG_DTYPE_F32, shape, 3, zeros, free, zeros, &result.tensors[0], err);
    if (rc < 0) {
        free(zeros);
        buf_release(&result.rows);
        return worker_session_failure(w->session, &work, "null", "null worker") < 0 ? -ENOMEM : 1;
    }
    result.n_tensors = 1;
    worker_session_count(w->session, result.n_rows, 0, 1, 0, 0);
    return worker_session_result(w->session, &work, &result, err) < 0 ? -ENOMEM : 1;
}

static int run_once(struct encoder_worker *w, struct err *err)
{
    int rc;

    if (!w->vit)
        return run_null(w, err);
    rc = take_units(w, w->first ? 0 : 200);
    if (rc < 0 && rc != -EPIPE)
        return err_set(err, rc, "cannot take work: %s", strerror(-rc));
    if (!w->first)
        return rc;
    collect(w, decoded(w->first) ? 0 : 20);
    rc = run_batch(w, err);
    if (rc < 0)
        return rc;
    finish_ready(w);
    return 1;
}

int encoder_worker_run(struct encoder_worker *w, struct err *err)
{
    for (;;) {
        int rc;

        if (stop_requested() && !w->draining) {
            w->draining = true;
            log_info("event=draining items_held=%u", w->items_held);
            worker_session_drain(w->session);
        }
        rc = run_once(w, err);
        if (rc == -EPIPE && !w->first)
            return worker_session_end(w->session, 10000, err);
        if (rc < 0 && rc != -EPIPE)
            return rc;
    }
}
