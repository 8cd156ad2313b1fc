/* qformer_worker.c - takes units, runs the Q-Former over their features (small units together), returns what their
 * nodes request: projected queries, scores of texts, embeddings. */
#include "qformer_worker/qformer_worker.h"

#include "base/clock.h"
#include "model/config_tokenizer.h"
#include "qformer_worker/batch_texts.h"
#include "qformer_worker/qformer.h"
#include "qformer_worker/qformer_unit.h"
#include "worker/gather.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct conf_key qformer_conf_table[] = {WORKER_CONF_KEYS(struct qformer_conf, "1", "on a CPU 16, on a GPU 256"),
                                              {"null_shape", CONF_TEXT, CONF_AT(struct qformer_conf, null_shape),
                                               "32,2560", 1, 0, "device = null: queries,width of the output"},
                                              {0}};

enum { GROUP_MAX_UNITS = 64 };

/* Units computed together. */
struct group {
    int n;
    size_t n_images;
    struct qformer_unit *units[GROUP_MAX_UNITS];
    struct qformer_results results; /* [n_images, ...] */
    uint32_t tasks;                 /* of all units */
    bool match;                     /* a unit requests ITM */
    int64_t started_ns;
    bool downloads;  /* downloads are pending */
    uint64_t ticket; /* of the last download */
};

struct qformer_worker {
    struct worker common; /* first */
    const struct qformer_conf *conf;
    struct qformer *qformer;     /* NULL: device null */
    struct tokenizer *tokenizer; /* NULL: device null, or a checkpoint without text */
    uint32_t n_tokens;           /* P of the input */
    struct qformer_shape shape;
    struct group held; /* asynchronous device: the previous group, whose results are pending */
    int64_t landed_ns; /* when the last group was downloaded */
};

/* -- start and end -- */

/* Waits for the group's downloads, if any. */
static int settle(struct qformer_worker *w, struct group *g)
{
    const int rc = g->downloads ? w->common.ops->f->download_wait(w->common.ops, g->ticket) : 0;

    g->downloads = false;
    return rc;
}

/* Frees a group after its pending downloads, which write to its results. */
static void group_release(struct qformer_worker *w, struct group *g)
{
    (void)settle(w, g);
    for (int i = 0; i < g->n; i++)
        qformer_unit_free(g->units[i]);
    free(g->results.projected);
    free(g->results.queries);
    free(g->results.itc);
    free(g->results.cls);
    *g = (struct group){0};
}

static int open_model(struct qformer_worker *w, struct err *err)
{
    int rc = worker_open(&w->common, err);

    if (rc == 0)
        rc = qformer_new(w->common.ops, w->common.checkpoint, w->common.batch, &w->qformer, err);
    if (rc < 0)
        return rc;
    w->n_tokens = (uint32_t)qformer_n_tokens(w->qformer);
    w->shape = (struct qformer_shape){.n_queries = (uint32_t)qformer_n_queries(w->qformer),
                                      .width = (uint32_t)qformer_width(w->qformer),
                                      .out_width = (uint32_t)qformer_language_width(w->qformer),
                                      .embed_width = (uint32_t)qformer_embed_width(w->qformer),
                                      .image_width = (uint32_t)qformer_image_width(w->qformer),
                                      .max_text = qformer_max_text(w->qformer),
                                      .n_words = qformer_n_words(w->qformer)};
    if (w->shape.embed_width == 0)
        return 0;
    return config_tokenizer_load(&w->common.checkpoint->config, w->common.checkpoint->tokenizer_path, &w->tokenizer,
                                 err);
}

/* device null: small embeddings of each type. */
static int null_shape(struct qformer_worker *w, struct err *err)
{
    w->shape = (struct qformer_shape){.width = 8, .embed_width = 8, .image_width = 8, .max_text = 512};
    return worker_null_shape(w->conf->null_shape, &w->shape.n_queries, &w->shape.out_width, err);
}

int qformer_worker_open(const void *conf, void **ret, struct err *err)
{
    struct qformer_worker *w = calloc(1, sizeof(*w));

    if (!w)
        return err_set(err, -ENOMEM, "no memory");
    *ret = w;
    w->conf = conf;
    worker_init(&w->common, &w->conf->common, STAGE_QFORMER);
    return worker_is_null(&w->common) ? null_shape(w, err) : open_model(w, err);
}

void qformer_worker_free(void *daemon)
{
    struct qformer_worker *w = daemon;

    if (!w)
        return;
    group_release(w, &w->held);
    qformer_free(w->qformer);
    tokenizer_free(w->tokenizer);
    worker_release(&w->common);
    free(w);
}

/* -- groups -- */

/* Checks the unit's features, which stay in the received frames until they are computed. */
static int check_trunk(struct qformer_worker *w, const struct worker_work *work, const char **ret_code, struct err *err)
{
    const uint32_t shape[3] = {work->n_items, w->n_tokens, w->shape.image_width};

    *ret_code = "bad_tensor";
    if (work->n_tensors != 1)
        return err_set(err, -EINVAL, "expected one tensor of image features");
    return w->qformer ? worker_gather_check(work, 0, 3, shape, err) : 0;
}

/* Adds a unit to the group; an invalid unit is reported as failed. */
static void group_add(struct qformer_worker *w, struct group *g, struct worker_work *work)
{
    struct qformer_unit *u = NULL;
    const char *code = "";
    struct err err = {""};
    int rc;

    if (worker_work_stale(work)) {
        worker_return_unit(&w->common, &work);
        return;
    }
    rc = check_trunk(w, work, &code, &err);
    if (rc == 0)
        rc = qformer_unit_new(&work, &w->shape, w->tokenizer, &u, &code, &err);
    if (rc < 0 || !u) {
        worker_fail_unit(&w->common, &work, code, err.text);
        return;
    }
    u->first_image = g->n_images;
    g->n_images += u->work->n_items;
    g->tasks |= u->work->tasks;
    g->match = g->match || ((u->work->tasks & MSG_TASK_SCORE) && u->work->recipe.itm);
    g->units[g->n++] = u;
}

static int group_take(struct qformer_worker *w, struct group *g, int64_t timeout_ms)
{
    struct worker_work *work;
    int rc = 0;

    while (g->n < GROUP_MAX_UNITS && g->n_images < (size_t)w->common.batch) {
        rc = worker_session_take(w->common.session, g->n ? 0 : timeout_ms, &work);
        if (rc != 1)
            return rc;
        group_add(w, g, work);
    }
    return 1;
}

/* -- compute -- */

/* Bytes of the projected queries of an image. */
static size_t projected_bytes(const struct qformer_worker *w)
{
    return (size_t)w->shape.n_queries * w->shape.out_width * dtype_size_bytes(worker_tensor_dtype(&w->common));
}

static int alloc_results(struct qformer_worker *w, struct group *g)
{
    const struct qformer_shape *s = &w->shape;
    const struct {
        uint32_t tasks;
        float **array;
        size_t one;
    } wanted[] = {
        {MSG_TASK_QUERY, &g->results.queries, (size_t)s->n_queries * s->width},
        {MSG_TASK_SCORE | MSG_TASK_ITC, &g->results.itc, (size_t)s->n_queries * s->embed_width},
        {MSG_TASK_CLS, &g->results.cls, s->image_width},
    };

    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (!(g->tasks & wanted[i].tasks))
            continue;
        *wanted[i].array = calloc(g->n_images, wanted[i].one * sizeof(float));
        if (!*wanted[i].array)
            return -ENOMEM;
    }
    if (g->tasks & MSG_TASK_PROJECT)
        g->results.projected = calloc(g->n_images, projected_bytes(w));
    return (g->tasks & MSG_TASK_PROJECT) && !g->results.projected ? -ENOMEM : 0;
}

static int alloc_texts(struct batch_texts *b, const struct group *g)
{
    size_t n = 0, n_ids = 0;

    for (int i = 0; i < g->n; i++) {
        n += g->units[i]->texts.n;
        n_ids += g->units[i]->texts.ids.n;
    }
    return batch_texts_alloc(b, n, n_ids);
}

/* Gathers the texts of images first .. first + n - 1. */
static void gather_texts(struct batch_texts *b, const struct qformer_worker *w, const struct group *g, size_t first,
                         size_t n)
{
    batch_texts_clear(b);
    for (int i = 0; i < g->n; i++) {
        struct qformer_unit *u = g->units[i];

        for (size_t k = 0; k < u->texts.n; k++) {
            struct unit_text *t = &u->texts.texts[k];
            const size_t image = u->first_image + t->row;

            if (t->has_ids && image >= first && image < first + n)
                batch_texts_add(b, (int32_t)(image - first), t, u->texts.ids.ids + t->first_id, t->n_ids,
                                u->text_embeds + k * w->shape.embed_width);
        }
    }
}

/* Computes ITC and ITM of the batch's texts; their images must be loaded. */
static int score_texts(struct qformer_worker *w, const struct group *g, const struct batch_texts *b, size_t first)
{
    const struct qformer_texts texts = {b->n_computed, b->ids, b->start};
    const size_t d = w->shape.embed_width, q = w->shape.n_queries, n = (size_t)b->n_computed;
    float *embeds = malloc(n * d * sizeof(float)), *logits = malloc(n * 2 * sizeof(float));
    int rc = embeds && logits ? qformer_text(w->qformer, &texts, embeds) : -ENOMEM;

    if (rc == 0 && g->match)
        rc = qformer_match(w->qformer, &texts, b->image, logits);
    for (int i = 0; rc == 0 && i < b->n; i++) {
        const size_t at = (size_t)b->computed[i];
        struct row_caption *c = &b->texts[i]->caption;

        memcpy(b->embeds[i], embeds + at * d, d * sizeof(float));
        if (!(g->tasks & MSG_TASK_SCORE))
            continue;
        c->itc = qformer_similarity(g->results.itc + (first + (size_t)b->image[at]) * q * d, embeds + at * d, (int)q,
                                    (int)d);
        if (g->match)
            c->itm = qformer_probability(logits + 2 * at);
    }
    free(embeds);
    free(logits);
    return rc;
}

/* Loads the trunks of the group's images first .. first + n - 1 from the units' frames to the device. */
static int load_images(struct qformer_worker *w, const struct group *g, size_t first, int n)
{
    const size_t bytes = (size_t)w->n_tokens * w->shape.image_width * dtype_size_bytes(w->common.ops->act_dtype);
    void *to;
    int rc = qformer_input(w->qformer, n, &to);

    for (int i = 0; rc == 0 && i < g->n; i++) {
        const struct qformer_unit *u = g->units[i];
        const size_t end = u->first_image + u->work->n_items, last = first + (size_t)n;
        const size_t from = u->first_image > first ? u->first_image : first, until = end < last ? end : last;

        if (from < until)
            worker_gather(u->work, 0, (uint32_t)(from - u->first_image), (uint32_t)(until - from),
                          w->common.ops->act_dtype, (char *)to + (from - first) * bytes);
    }
    return rc;
}

/* Starts the download of its projected queries and waits for the previous one: at most two are pending. */
static int compute_batch(struct qformer_worker *w, struct group *g, struct batch_texts *b, size_t first, int n)
{
    const struct qformer_shape *s = &w->shape;
    const struct qformer_results *r = &g->results;
    const uint64_t before = g->ticket;
    struct qformer_out out = {
        .projected = r->projected ? (char *)r->projected + first * projected_bytes(w) : NULL,
        .projected_ticket = &g->ticket,
        .queries = r->queries ? r->queries + first * s->n_queries * s->width : NULL,
        .itc = r->itc ? r->itc + first * s->n_queries * s->embed_width : NULL,
        .cls = r->cls ? r->cls + first * s->image_width : NULL,
    };
    int rc = load_images(w, g, first, n);

    if (rc == 0)
        rc = qformer_forward(w->qformer, n, NULL, false, &out);
    if (rc == 0 && g->downloads)
        rc = w->common.ops->f->download_wait(w->common.ops, before);
    g->downloads = g->downloads || (rc == 0 && out.projected);
    if (rc < 0 || !(g->tasks & (MSG_TASK_SCORE | MSG_TASK_ITC_TEXT)))
        return rc;
    gather_texts(b, w, g, first, (size_t)n);
    return b->n ? score_texts(w, g, b, first) : 0;
}

static int group_compute(struct qformer_worker *w, struct group *g, struct err *err)
{
    struct batch_texts b = {0};
    int rc = alloc_results(w, g);

    if (rc == 0)
        rc = alloc_texts(&b, g);
    for (size_t i = 0; rc == 0 && w->qformer && i < g->n_images;) {
        const size_t left = g->n_images - i;
        const int n = (int)(left < (size_t)w->common.batch ? left : (size_t)w->common.batch);

        rc = compute_batch(w, g, &b, i, n);
        worker_session_progress(w->common.session);
        i += (size_t)n;
    }
    batch_texts_release(&b);
    return rc < 0 ? worker_failed(&w->common, rc, "the Q-Former failed", err) : 0;
}

/* -- results -- */

/* Marks the scores that the recipe requests and the text has. */
static void mark_scores(struct qformer_unit *u, bool device_null)
{
    const struct msg_recipe *recipe = &u->work->recipe;

    for (size_t i = 0; i < u->texts.n && (u->work->tasks & MSG_TASK_SCORE); i++) {
        struct unit_text *t = &u->texts.texts[i];

        t->caption.has_itc = recipe->itc && (t->has_ids || device_null);
        t->caption.has_itm = recipe->itm && (t->has_ids || device_null);
        if (!t->caption.has_itc)
            t->caption.itc = 0;
        if (!t->caption.has_itm)
            t->caption.itm = 0;
    }
}

/* Makes the unit's projected queries the result's tensor. A node that projects has no texts, so no row fails here. */
static int add_tensor(const struct qformer_worker *w, const struct group *g, const struct qformer_unit *u,
                      struct worker_result *result, struct err *err)
{
    const uint32_t shape[3] = {u->work->n_items, w->shape.n_queries, w->shape.out_width};
    const char *from = (const char *)g->results.projected + u->first_image * projected_bytes(w);
    int rc = wire_tensor_new(worker_tensor_dtype(&w->common), shape, 3, from, NULL, NULL, &result->tensors[0], err);

    result->n_tensors = rc == 0;
    return rc;
}

static void send_result(struct qformer_worker *w, const struct group *g, struct qformer_unit *u,
                        const struct msg_timing *timing)
{
    struct worker_result result = {.timing = *timing, .n_rows = u->work->n_items};
    struct err err = {""};
    uint32_t n_failed = 0;
    int rc;

    mark_scores(u, !w->qformer);
    buf_init(&result.rows, ROW_MAX_ROWS_BYTES);
    rc = qformer_unit_rows(u, &w->shape, &g->results, &result.rows, &n_failed);
    if (rc == -EFBIG)
        rc = err_set(&err, rc, "the unit's embeddings are too large for a message: choose a smaller --unit");
    if (rc == 0 && (u->work->tasks & MSG_TASK_PROJECT))
        rc = n_failed ? err_set(&err, -EINVAL, "items failed at a node that projects")
                      : add_tensor(w, g, u, &result, &err);
    if (rc < 0) {
        buf_release(&result.rows);
        worker_fail_unit(&w->common, &u->work, "result", err.text[0] ? err.text : strerror(-rc));
        return;
    }
    worker_session_count(w->common.session, result.n_rows);
    worker_send_result(&w->common, &u->work, &result);
}

/* Sends the results of a computed group. */
static int group_finish(struct qformer_worker *w, struct group *g, struct err *err)
{
    int64_t began = g->started_ns > w->landed_ns ? g->started_ns : w->landed_ns, each;
    int rc = settle(w, g);

    if (rc < 0)
        return worker_failed(&w->common, rc, "the Q-Former failed", err);
    worker_session_progress(w->common.session);
    w->landed_ns = clock_mono_ns();
    each = (w->landed_ns - began) / (int64_t)g->n_images;
    for (int i = 0; i < g->n; i++) {
        struct qformer_unit *u = g->units[i];
        const struct msg_timing timing = {.compute_ns = w->qformer ? (uint64_t)each * u->work->n_items : 0,
                                          .wait_ns = (uint64_t)(g->started_ns - u->work->received_ns)};

        send_result(w, g, u, &timing);
    }
    group_release(w, g);
    return 0;
}

/* Computes the taken units, then sends the results of the previous group. */
static int group_run(struct qformer_worker *w, struct group *g, struct err *err)
{
    int rc = g->n ? group_compute(w, g, err) : 0;

    if (rc == -ENOMEM) { /* another worker may have more memory; the units are retried */
        for (int i = 0; i < g->n; i++)
            worker_fail_unit(&w->common, &g->units[i]->work, "memory", "no memory for the unit's results");
        group_release(w, g);
        rc = 0;
    }
    if (rc == 0 && w->held.n)
        rc = group_finish(w, &w->held, err);
    if (rc == 0 && g->n && !worker_is_async(&w->common))
        return group_finish(w, g, err);
    if (rc < 0)
        group_release(w, g);
    else
        w->held = *g;
    return rc;
}

int qformer_worker_run(void *daemon, struct err *err)
{
    struct qformer_worker *w = daemon;

    for (;;) {
        struct group g = {0};
        int rc, ended;

        worker_check_stop(&w->common);
        ended = group_take(w, &g, w->held.n ? 0 : 200);
        if (ended < 0 && ended != -EPIPE)
            return err_set(err, ended, "cannot take work: %s", strerror(-ended));
        g.started_ns = clock_mono_ns();
        rc = group_run(w, &g, err);
        if (rc < 0)
            return rc;
        if (ended == -EPIPE && w->held.n == 0)
            return worker_end(&w->common, err);
    }
}
