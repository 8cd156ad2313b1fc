/* encoder_worker.c - takes units, keeps the pool busy, runs the ViT over decoded images, returns results in order of
 * arrival. */
#include "encoder_worker/encoder_worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "encoder_worker/null_encoder.h"
#include "encoder_worker/pool.h"
#include "encoder_worker/encoder_unit.h"
#include "encoder_worker/sight.h"
#include "encoder_worker/vit.h"
#include "model/fingerprint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct conf_key encoder_conf_table[] = {
    WORKER_CONF_KEYS(struct encoder_conf, "2", "on a CPU 16, on a GPU 256"),
    {"decode_threads", CONF_INT, CONF_AT(struct encoder_conf, decode_threads), "1", 1, 256,
     "pictures fetched and decoded at once, each by its own process"},
    {"decode_time", CONF_DURATION, CONF_AT(struct encoder_conf, decode_time), "10s", 1000, 3600000,
     "limit per picture: CPU time, or time without progress"},
    {"decode_memory", CONF_SIZE, CONF_AT(struct encoder_conf, decode_memory), "0", 0, 1LL << 50,
     "memory limit per decoder process; 0: 1 GiB plus 16 bytes for each of max_pixels"},
    {"max_file_bytes", CONF_SIZE, CONF_AT(struct encoder_conf, max_file_bytes), "1GiB", 1, 0, "largest picture file"},
    {"max_pixels", CONF_INT, CONF_AT(struct encoder_conf, max_pixels), "178956970", 1, 0, "most pixels of a picture"},
    {"exif_orientation", CONF_BOOL, CONF_AT(struct encoder_conf, exif_orientation), "no", 0, 0,
     "rotate pictures by their EXIF orientation"},
    {"grey16_high_byte", CONF_BOOL, CONF_AT(struct encoder_conf, grey16_high_byte), "no", 0, 0,
     "16-bit grey: take the upper byte (no: clip values above 255 to white, as Pillow does)"},
    {"null_shape", CONF_TEXT, CONF_AT(struct encoder_conf, null_shape), "257,1408", 1, 0,
     "device = null: tokens,width of the output"},
    {0}};

enum {
    MAX_BATCHES = 2,                                    /* one is computed while the next is queued on the device */
    MAX_DIRECT_PARTS = OPS_MAX_DOWNLOADS / MAX_BATCHES, /* per batch, each with its own download */
};

/* The images of one unit in a batch, adjacent. */
struct part {
    struct unit *unit;
    char *to; /* where they go in the unit's features */
    int n;
};

/* A batch in the model. The units of its parts and their features stay valid until it has been downloaded. */
struct batch {
    int n, n_parts;     /* n 0: free */
    struct part *parts; /* [batch] */
    uint64_t ticket;    /* of the last download */
    void *landing;      /* [batch, P, C] for the whole batch if it has many parts; allocated when needed */
    bool lands_apart;   /* features are downloaded to `landing` first */
    int64_t started_ns;
};

struct encoder_worker {
    struct worker common; /* first */
    const struct encoder_conf *conf;
    struct vit *vit; /* NULL: device null */
    struct pool *pool;
    uint32_t n_tokens, width;
    size_t image_bytes;
    uint8_t *staging; /* [batch, S, S, 3] */
    struct unit *first, **end;
    struct batch batches[MAX_BATCHES]; /* the first n_batches are running, in order */
    int n_batches;
    int64_t landed_ns; /* when the last batch was downloaded */
    uint64_t serial;
    uint64_t unseen_job; /* whose pictures could not be seen, as was last logged; and which */
    struct err unseen;
};

_Static_assert((int)WORKER_MAX_WINDOW_ITEMS + (int)MSG_MAX_UNIT_ITEMS <= (int)POOL_MAX_CAPACITY &&
                   4 * (int)WORKER_MAX_BATCH <= (int)WORKER_MAX_WINDOW_ITEMS &&
                   (int)WORKER_MAX_WINDOW_ITEMS <= (int)MSG_MAX_ROWS,
               "so that a worker with this configuration can start");

/* -- start and end -- */

/* Enough for every image within max_pixels: a progressive four-colour JPEG takes 11 bytes per pixel. */
static int64_t auto_memory(int64_t max_pixels)
{
    int64_t bytes;

    return __builtin_mul_overflow(max_pixels, 16, &bytes) || bytes > 1LL << 50 ? 1LL << 50 : bytes + (1LL << 30);
}

static int open_model(struct encoder_worker *w, struct err *err)
{
    const int64_t memory = w->conf->decode_memory;
    struct pool_conf pool = {.n_threads = (int)w->conf->decode_threads,
                             .capacity = (int)worker_window_items(&w->common) + MSG_MAX_UNIT_ITEMS,
                             .options = {.max_file_bytes = (size_t)w->conf->max_file_bytes,
                                         .max_pixels = (uint64_t)w->conf->max_pixels,
                                         .exif_orientation = w->conf->exif_orientation,
                                         .grey16_high_byte = w->conf->grey16_high_byte},
                             .memory_bytes = (uint64_t)(memory ? memory : auto_memory(w->conf->max_pixels)),
                             .time_ms = w->conf->decode_time};
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
    for (int i = 0; i < MAX_BATCHES; i++)
        w->batches[i].parts = calloc((size_t)w->common.batch, sizeof(struct part));
    if (!w->staging || !w->batches[0].parts || !w->batches[1].parts)
        return err_set(err, -ENOMEM, "no memory for %d images", w->common.batch);
    return pool_new(&pool, &w->pool, err);
}

int encoder_worker_open(const void *conf, void **ret, struct err *err)
{
    struct encoder_worker *w = calloc(1, sizeof(*w));

    if (!w)
        return err_set(err, -ENOMEM, "no memory");
    *ret = w;
    w->conf = conf;
    worker_init(&w->common, &w->conf->common, STAGE_ENCODE);
    w->common.settings = (w->conf->exif_orientation ? MODEL_EXIF_ORIENTATION : 0) |
                         (w->conf->grey16_high_byte ? MODEL_GREY16_HIGH_BYTE : 0);
    w->end = &w->first;
    return worker_is_null(&w->common) ? worker_null_shape(w->conf->null_shape, &w->n_tokens, &w->width, err)
                                      : open_model(w, err);
}

void encoder_worker_free(void *daemon)
{
    struct encoder_worker *w = daemon;

    if (!w)
        return;
    for (int i = 0; i < w->n_batches; i++) /* running downloads still write to the units' features */
        (void)w->common.ops->f->download_wait(w->common.ops, w->batches[i].ticket);
    for (int i = 0; i < MAX_BATCHES; i++) {
        free(w->batches[i].parts);
        free(w->batches[i].landing);
    }
    pool_stop(w->pool); /* its threads read pictures of the units */
    while (w->first) {
        struct unit *u = w->first;

        w->first = u->next;
        encoder_unit_free(u);
    }
    pool_free(w->pool);
    vit_free(w->vit);
    worker_release(&w->common);
    free(w->staging);
    free(w);
}

/* -- results -- */

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
    rc = wire_tensor_new(worker_tensor_dtype(&w->common), shape, 3, u->features, free, u->features, &result->tensors[0],
                         err);
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

    worker_session_count(w->common.session,
                         u->work->n_items - u->n_computed); /* the others were counted when they were downloaded */
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

/* Submits items to the pool in order of arrival while it has room. */
static void submit_items(struct encoder_worker *w)
{
    for (struct unit *u = w->first; u && encoder_unit_submit(u, w->pool); u = u->next)
        ;
}

static int take_units(struct encoder_worker *w, int64_t timeout_ms)
{
    struct worker_work *work = NULL;
    struct err err = {""};
    struct unit *u;
    int rc;

    while ((rc = worker_session_take(w->common.session, timeout_ms, &work)) == 1) {
        timeout_ms = 0;
        const int made = encoder_unit_new(&work, ++w->serial, &u, &err);

        if (made < 0) {
            worker_fail_unit(&w->common, &work, made == -ENOMEM ? "memory" : "bad_tensor", err.text);
            timeout_ms = 0;
            continue;
        }
        *w->end = u;
        w->end = &u->next;
    }
    submit_items(w);
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
}

static struct unit *find_unit(struct encoder_worker *w, uint64_t serial)
{
    for (struct unit *u = w->first; u; u = u->next)
        if (u->serial == serial)
            return u;
    return NULL;
}

/* Records finished images; waits up to timeout_ms for the first. */
static void collect(struct encoder_worker *w, int64_t timeout_ms)
{
    struct pool_result r;

    if (pool_moves(w->pool))
        worker_session_progress(w->common.session);
    while (pool_take(w->pool, timeout_ms, &r) == 1) {
        struct unit *u = find_unit(w, r.index >> 16);

        timeout_ms = 0;
        worker_session_progress(w->common.session);
        if (u)
            encoder_unit_note(u, (uint32_t)(r.index & 0xffff), &r);
        else
            decoder_slot_free(r.slot);
    }
}

static bool decoded(const struct unit *u)
{
    return u->n_decoded == u->work->n_items;
}

/* While draining, a unit that no batch has started is returned to the broker. */
static bool unwanted(const struct encoder_worker *w, const struct unit *u)
{
    return worker_work_stale(u->work) || (w->common.draining && u->next_row == 0);
}

/* Bytes of the features of one image. */
static size_t feature_bytes(const struct encoder_worker *w)
{
    return (size_t)w->n_tokens * w->width * dtype_size_bytes(worker_tensor_dtype(&w->common));
}

/* Allocates the features when the last image is decoded. False if there is nothing to compute for this unit. */
static bool prepare(const struct encoder_worker *w, struct unit *u)
{
    if (u->no_memory || u->n_ok == 0 || unwanted(w, u))
        return false;
    if (!u->features)
        u->features = malloc(u->n_ok * feature_bytes(w));
    u->no_memory = !u->features;
    return !u->no_memory;
}

/* Fills a batch with the next decoded images, of several units if they are small. */
static void fill_batch(struct encoder_worker *w, struct batch *b)
{
    b->n = b->n_parts = 0;
    for (struct unit *u = w->first; u && b->n < w->common.batch && decoded(u); u = u->next) {
        struct part part = {.unit = u};

        if (!prepare(w, u))
            continue;
        part.to = u->features + u->n_given * feature_bytes(w);
        for (; u->next_row < u->work->n_items && b->n < w->common.batch; u->next_row++) {
            if (u->failed[u->next_row])
                continue;
            memcpy(w->staging + (size_t)b->n++ * w->image_bytes, u->slots[u->next_row]->pixels, w->image_bytes);
            decoder_slot_free(u->slots[u->next_row]);
            u->slots[u->next_row] = NULL;
            part.n++;
        }
        u->n_given += (uint32_t)part.n;
        if (part.n)
            b->parts[b->n_parts++] = part;
    }
}

/* Starts the downloads: each part to its unit, or, if there are more parts than downloads allowed, the whole batch
 * to `landing`. */
static int start_downloads(struct encoder_worker *w, struct batch *b, const void *features)
{
    const struct ops_funcs *f = w->common.ops->f;
    const size_t one = (size_t)w->n_tokens * w->width;
    const char *from = features;
    int rc = 0;

    b->lands_apart = b->n_parts > MAX_DIRECT_PARTS;
    if (b->lands_apart) {
        if (!b->landing && !(b->landing = malloc((size_t)w->common.batch * feature_bytes(w))))
            return -ENOMEM;
        return f->download_start(w->common.ops, b->landing, from, w->common.ops->act_dtype, (size_t)b->n * one,
                                 &b->ticket);
    }
    for (int i = 0; rc == 0 && i < b->n_parts; i++) {
        rc = f->download_start(w->common.ops, b->parts[i].to, from, w->common.ops->act_dtype,
                               (size_t)b->parts[i].n * one, &b->ticket);
        from += (size_t)b->parts[i].n * feature_bytes(w);
    }
    return rc;
}

/* Starts a forward pass over the next decoded images. Returns their number. */
static int start_batch(struct encoder_worker *w, struct err *err)
{
    struct batch *b = &w->batches[w->n_batches];
    const void *features;
    int rc;

    b->started_ns = clock_mono_ns();
    fill_batch(w, b);
    if (b->n == 0)
        return 0;
    rc = vit_forward(w->vit, b->n, w->staging, &features);
    if (rc == 0)
        rc = start_downloads(w, b, features);
    if (rc < 0)
        return worker_failed(&w->common, rc, "the image encoder failed", err);
    w->n_batches++;
    return b->n;
}

/* Waits for the oldest batch and stores its features in the units. */
static int land_batch(struct encoder_worker *w, struct err *err)
{
    struct batch b = w->batches[0];
    const char *from = b.landing;
    int64_t began = b.started_ns > w->landed_ns ? b.started_ns : w->landed_ns, share;
    int rc = w->common.ops->f->download_wait(w->common.ops, b.ticket);

    if (rc < 0)
        return worker_failed(&w->common, rc, "the image encoder failed", err);
    worker_session_progress(w->common.session);
    worker_session_count(w->common.session, (uint64_t)b.n);
    w->landed_ns = clock_mono_ns();
    share = (w->landed_ns - began) / b.n;
    for (int i = 0; i < b.n_parts; i++) {
        const struct part *p = &b.parts[i];
        const size_t bytes = (size_t)p->n * feature_bytes(w);

        if (b.lands_apart)
            memcpy(p->to, from, bytes);
        from += b.lands_apart ? bytes : 0;
        p->unit->n_computed += (uint32_t)p->n;
        p->unit->compute_ns += share * p->n;
    }
    w->batches[0] = w->batches[1]; /* swaps their memory */
    w->batches[1] = b;
    w->n_batches--;
    return 0;
}

/* Keeps an asynchronous device one batch ahead, without delaying finished results to wait for more work. */
static int run_batches(struct encoder_worker *w, struct err *err)
{
    int n = w->n_batches < MAX_BATCHES ? start_batch(w, err) : 0;

    if (n < 0)
        return n;
    if (w->n_batches == MAX_BATCHES || (w->n_batches > 0 && (n == 0 || !worker_is_async(&w->common))))
        return land_batch(w, err);
    return 0;
}

/* Returns a unit whose pictures cannot be seen here, so that another worker gets it. */
static void return_unseen(struct encoder_worker *w, struct unit *u, const struct err *unseen)
{
    const uint64_t job = u->work->lease.job;

    if (job != w->unseen_job || strcmp(unseen->text, w->unseen.text) != 0)
        log_warn("event=unseen job=%llu msg=\"cannot see %s; the units of this job go back to the broker\"",
                 (unsigned long long)job, unseen->text);
    w->unseen_job = job;
    w->unseen = *unseen;
    if (worker_session_return(w->common.session, &u->work, unseen->text) < 0)
        log_warn("event=return_not_sent msg=\"the lease will expire instead\"");
}

/* Sends the results of finished units in order of arrival. */
static void finish_ready(struct encoder_worker *w)
{
    struct err unseen = {""};
    struct unit *next;

    for (struct unit *u = w->first; u && decoded(u); u = next) {
        const bool back = unwanted(w, u);

        next = u->next;
        if (u->n_computed < u->n_given || (!back && !u->no_memory && u->n_computed < u->n_ok))
            return; /* wait for the batch that holds some of its images, even if the unit fails */
        remove_unit(w, u);
        if (back)
            worker_return_unit(&w->common, &u->work);
        else if (u->no_memory)
            worker_fail_unit(&w->common, &u->work, "memory", "no memory for the unit's pictures or features");
        else if (!sight_check(u, &unseen))
            return_unseen(w, u, &unseen);
        else
            finish_unit(w, u);
        encoder_unit_free(u);
    }
}

static int run_once(struct encoder_worker *w, struct err *err)
{
    int rc;

    if (!w->vit)
        return null_run(&w->common, w->n_tokens, w->width);
    rc = take_units(w, w->first ? 0 : 200);
    if (rc < 0 && rc != -EPIPE)
        return err_set(err, rc, "cannot take work: %s", strerror(-rc));
    if (!w->first)
        return rc;
    collect(w, decoded(w->first) || w->n_batches > 0 ? 0 : 20);
    rc = run_batches(w, err);
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
