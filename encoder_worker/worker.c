/* worker.c - take units, keep the pool busy ahead, run the ViT over what is decoded, give results back in order of
 * arrival. */
#include "encoder_worker/worker.h"

#include "base/clock.h"
#include "encoder_worker/pool.h"
#include "encoder_worker/unit.h"
#include "encoder_worker/vit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct conf_key encoder_conf_table[] = {
    WORKER_CONF_KEYS(struct encoder_conf, "2", "on a CPU 16, on a GPU 256"),
    {"decode_threads", CONF_INT, CONF_AT(struct encoder_conf, decode_threads), "1", 1, 256,
     "threads that fetch and decode ahead"},
    {"max_file_bytes", CONF_SIZE, CONF_AT(struct encoder_conf, max_file_bytes), "256MiB", 1, 0, "largest picture file"},
    {"max_pixels", CONF_INT, CONF_AT(struct encoder_conf, max_pixels), "89478485", 1, 0, "most pixels of a picture"},
    {"max_dimension", CONF_INT, CONF_AT(struct encoder_conf, max_dimension), "65500", 1, 1 << 20,
     "longest side of a picture, pixels"},
    {"null_shape", CONF_TEXT, CONF_AT(struct encoder_conf, null_shape), "257,1408", 1, 0,
     "device = null: tokens,width of the output"},
    {0}};

struct encoder_worker {
    struct worker common;
    const struct encoder_conf *conf;
    struct vit *vit; /* NULL: device null */
    struct pool *pool;
    uint32_t n_tokens, width;
    size_t image_bytes;
    uint8_t *staging; /* [batch, S, S, 3] */
    struct unit *first, **end;
    uint32_t items_held;
    uint64_t serial;
};

/* -- start and end -- */

static int open_model(struct encoder_worker *w, struct err *err)
{
    struct pool_conf pool = {.n_threads = (int)w->conf->decode_threads,
                             .capacity = (int)worker_window_items(&w->common) + MSG_MAX_UNIT_ITEMS,
                             .limits = {.max_file_bytes = (size_t)w->conf->max_file_bytes,
                                        .max_pixels = (uint64_t)w->conf->max_pixels,
                                        .max_dimension = (uint32_t)w->conf->max_dimension}};
    int rc = worker_open(&w->common, err);

    if (rc == 0)
        rc = vit_new(w->common.ops, w->common.checkpoint, w->common.batch, &w->vit, err);
    if (rc < 0)
        return rc;
    w->n_tokens = (uint32_t)vit_n_tokens(w->vit);
    w->width = (uint32_t)vit_width(w->vit);
    pool.size_px = (uint32_t)vit_image_size(w->vit);
    w->image_bytes = (size_t)pool.size_px * pool.size_px * 3;
    w->staging = malloc((size_t)w->common.batch * w->image_bytes);
    if (!w->staging)
        return err_set(err, -ENOMEM, "no memory for %d images", w->common.batch);
    return pool_new(&pool, &w->pool, err);
}

int encoder_worker_start(const void *conf, void **ret, struct err *err)
{
    struct encoder_worker *w = calloc(1, sizeof(*w));
    int rc;

    if (!w)
        return err_set(err, -ENOMEM, "no memory");
    w->conf = conf;
    worker_init(&w->common, &w->conf->common, MODEL_STAGE_ENCODER);
    w->end = &w->first;
    if (worker_is_null(&w->common))
        rc = worker_null_shape(w->conf->null_shape, &w->n_tokens, &w->width, err);
    else
        rc = open_model(w, err);
    if (rc == 0)
        rc = worker_start(&w->common, err);
    if (rc < 0) {
        rc = worker_explain(&w->common, rc, err);
        encoder_worker_free(w);
        return rc;
    }
    *ret = w;
    return 0;
}

void encoder_worker_free(void *daemon)
{
    struct encoder_worker *w = daemon;

    if (!w)
        return;
    pool_free(w->pool);
    while (w->first) {
        struct unit *u = w->first;

        w->first = u->next;
        encoder_unit_free(u);
    }
    vit_free(w->vit);
    worker_release(&w->common);
    free(w->staging);
    free(w);
}

/* -- giving back -- */

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

    worker_session_count(w->common.session, u->work->n_items, u->n_failures, 0, (uint64_t)u->compute_ns, 0);
    buf_init(&result.rows, MSG_MAX_ROW_FRAME_BYTES);
    rc = fill_result(w, u, &result, &err);
    if (rc == 0) {
        worker_send_result(&w->common, &u->work, &result);
    } else {
        buf_release(&result.rows);
        worker_fail_unit(&w->common, &u->work, "result", err.text);
    }
}

/* -- taking and computing -- */

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

    while ((rc = worker_session_take(w->common.session, timeout_ms, &work)) == 1) {
        timeout_ms = 0;
        if (encoder_unit_new(&work, ++w->serial, w->image_bytes, &u) < 0) {
            worker_fail_unit(&w->common, &work, "memory", "no memory for the unit's pixels");
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
        worker_session_progress(w->common.session);
        if (u)
            encoder_unit_note(u, (uint32_t)(r.index & 0xffff), &r);
    }
}

static bool decoded(const struct unit *u)
{
    return u->n_decoded == u->work->n_items;
}

/* On the way out, what no batch has touched goes back; somebody else takes it. */
static bool unwanted(const struct encoder_worker *w, const struct unit *u)
{
    return worker_work_stale(u->work) || (w->common.draining && u->next_row == 0);
}

/* Make room for the features when the last picture is in. False: there is nothing to compute for this unit. */
static bool prepare(const struct encoder_worker *w, struct unit *u)
{
    if (u->no_memory || u->n_ok == 0 || unwanted(w, u))
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
    const size_t one_bytes = one * dtype_size_bytes(w->common.ops->act_dtype);
    int n = 0, rc;
    const void *features;
    int64_t start = clock_mono_ns(), share;

    for (struct unit *u = w->first; u && n < w->common.batch && decoded(u); u = u->next) {
        if (!prepare(w, u))
            continue;
        for (; u->next_row < u->work->n_items && n < w->common.batch; u->next_row++) {
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
        rc = w->common.ops->f->download(w->common.ops, place[i].to, DTYPE_F32,
                                        (const char *)features + (size_t)i * one_bytes, w->common.ops->act_dtype,
                                        (size_t)(k - i) * one);
    }
    if (rc < 0)
        return worker_failed(&w->common, rc, "the image encoder failed", err);
    share = (clock_mono_ns() - start) / n;
    for (int i = 0; i < n; i++)
        place[i].unit->compute_ns += share;
    worker_session_progress(w->common.session);
    return n;
}

/* Units that are through leave, in order of arrival. */
static void finish_ready(struct encoder_worker *w)
{
    struct unit *next;

    for (struct unit *u = w->first; u && decoded(u); u = next) {
        const bool back = unwanted(w, u);

        next = u->next;
        if (!back && !u->no_memory && u->n_computed < u->n_ok)
            return;
        remove_unit(w, u);
        if (back)
            worker_return_unit(&w->common, &u->work);
        else if (u->no_memory)
            worker_fail_unit(&w->common, &u->work, "memory", "no memory for the unit's pictures or features");
        else
            finish_unit(w, u);
        encoder_unit_free(u);
    }
}

static int null_result(const struct encoder_worker *w, const struct worker_work *work, struct worker_result *ret,
                       struct err *err)
{
    const uint32_t shape[3] = {work->n_items, w->n_tokens, w->width};
    void *zeros = calloc((size_t)work->n_items * w->n_tokens, w->width * sizeof(float));
    int rc = zeros ? 0 : err_set(err, -ENOMEM, "no memory for zeros");

    for (uint32_t i = 0; rc == 0 && i < work->n_items; i++)
        rc = row_record_append(&ret->rows, &(struct row_record){.item = work->items[i].item});
    if (rc == 0)
        rc = wire_tensor_new(MSG_DTYPE_F32, shape, 3, zeros, free, zeros, &ret->tensors[0], err);
    if (rc != 0) {
        free(zeros);
        return rc;
    }
    ret->n_rows = work->n_items;
    ret->n_tensors = 1;
    return 0;
}

static int run_null(struct encoder_worker *w)
{
    struct worker_result result = {0};
    struct worker_work *work;
    struct err err = {""};
    int rc = worker_session_take(w->common.session, 200, &work);

    if (rc != 1)
        return rc;
    buf_init(&result.rows, MSG_MAX_ROW_FRAME_BYTES);
    if (null_result(w, work, &result, &err) < 0) {
        buf_release(&result.rows);
        worker_fail_unit(&w->common, &work, "null", err.text);
        return 1;
    }
    worker_session_count(w->common.session, result.n_rows, 0, 1, 0, 0);
    worker_send_result(&w->common, &work, &result);
    return 1;
}

static int run_once(struct encoder_worker *w, struct err *err)
{
    int rc;

    if (!w->vit)
        return run_null(w);
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

int encoder_worker_run(void *daemon, struct err *err)
{
    struct encoder_worker *w = daemon;

    for (;;) {
        int rc;

        worker_check_stop(&w->common);
        rc = run_once(w, err);
        if (rc == -EPIPE && !w->first)
            return worker_end(&w->common, err);
        if (rc < 0 && rc != -EPIPE)
            return rc;
    }
}
