/* llm_worker.c - takes units, submits their prompts to the scheduler (generate.h), sends a unit's result after its
 * last caption. */
#include "llm_worker/llm_worker.h"

#include "base/clock.h"
#include "base/log.h"
#include "llm_worker/generate.h"
#include "llm_worker/lm.h"
#include "llm_worker/llm_unit.h"
#include "model/config_tokenizer.h"
#include "worker/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct conf_key llm_conf_table[] = {
    WORKER_CONF_KEYS(struct llm_conf, "1", "on a CPU 64, on a GPU what its memory holds, up to 512"),
    {"positions", CONF_INT, CONF_AT(struct llm_conf, positions), "512", 0, 1 << 20,
     "most positions of a sequence (queries, prompt and new tokens); 0: the model's limit. The KV cache has batch "
     "x "
     "positions rows, on a GPU at most 9/10 of the memory left after the weights; a row takes layers x 2 x "
     "width values, and a request one for each position of its prompt and for each new token of each beam or sample"},
    {"admit", CONF_TEXT, CONF_AT(struct llm_conf, admit), "all", 1, 0,
     "all: prompts join running ones as soon as there is room; empty: only when nothing runs (static batches, for "
     "comparison)"},
    {0}};

enum {
    LLM_DEFAULT_POSITIONS = 512,
    LLM_MOST_SEQUENCES = 512, /* for batch = 0 on a GPU: beyond this, throughput hardly grows */
    SEQUENCES_PER_IMAGE = 5,  /* beams of one image */
    LOGITS_SHARE = 16,        /* logits take at most 1/LOGITS_SHARE of a device's free memory */
};

struct llm_worker {
    struct worker common; /* first */
    const struct llm_conf *conf;
    struct tokenizer *tokenizer;
    struct lm *lm; /* NULL: device null */
    struct generate *generate;
    uint32_t n_queries, width; /* Q, L of the input */
    struct unit *first, **end;
    uint32_t serial; /* of the last unit; there are never 2^32 at once */
};

/* -- start and end -- */

static int parse_admit(const char *text, enum generate_admit *ret, struct err *err)
{
    if (strcmp(text, "all") != 0 && strcmp(text, "empty") != 0)
        return err_set(err, -EINVAL, "admit = %s: expected all or empty", text);
    *ret = strcmp(text, "all") == 0 ? GENERATE_ADMIT_ALL : GENERATE_ADMIT_EMPTY;
    return 0;
}

int llm_worker_check(const void *conf, struct err *err)
{
    const struct llm_conf *c = conf;
    enum generate_admit admit;

    return parse_admit(c->admit, &admit, err);
}

/* The most positions of a sequence. */
static int64_t positions_of(const struct llm_worker *w)
{
    const struct config *c = &w->common.checkpoint->config;

    if (c->lm == CONFIG_LM_OPT && (w->conf->positions == 0 || w->conf->positions > c->opt.max_positions))
        return c->opt.max_positions;
    return w->conf->positions ? w->conf->positions : LLM_DEFAULT_POSITIONS; /* T5 has no limit */
}

/* Chooses the limits; a device may have memory for fewer rows of the cache. */
static int choose_limits(const struct llm_worker *w, int64_t batch, struct lm_limits *ret, struct err *err)
{
    const int64_t positions = positions_of(w), vocab = w->common.checkpoint->config.lm_vocab_size;
    const bool fits_itself = w->common.ops->f->memory;
    int64_t n_sequences = SEQUENCES_PER_IMAGE * batch, n_prompt_rows = positions;

    if (positions > INT32_MAX / 2 / batch)
        return err_set(err, -EINVAL, "batch %lld with %lld positions: the cache would be too large", (long long)batch,
                       (long long)positions);
    if (fits_itself) {
        const int64_t most = (int64_t)(w->common.device_bytes / LOGITS_SHARE / sizeof(float)) / vocab;

        n_sequences = n_sequences > most ? most : n_sequences;
        n_prompt_rows = positions > GENERATE_PROMPT_ROWS ? positions : GENERATE_PROMPT_ROWS;
    }
    if (n_sequences < GENERATION_MAX_BEAMS)
        n_sequences = GENERATION_MAX_BEAMS;
    *ret = (struct lm_limits){.n_sequences = (int)n_sequences,
                              .n_kv_rows = (int)(batch * positions),
                              .max_rows = (int)(n_sequences + n_prompt_rows),
                              .least_kv_rows = fits_itself ? (int)positions : 0};
    return 0;
}

static int open_lm(struct llm_worker *w, struct err *err)
{
    const int64_t batch = w->common.batch ? w->common.batch : LLM_MOST_SEQUENCES;
    const struct lm_limits *got;
    struct lm_limits limits;
    int rc = choose_limits(w, batch, &limits, err);

    if (rc == 0)
        rc = lm_open(w->common.ops, w->common.checkpoint, &limits, &w->lm, err);
    if (rc < 0)
        return rc;
    got = lm_get_limits(w->lm);
    if (w->common.batch == 0)
        w->common.batch = (int)(got->n_kv_rows / positions_of(w));
    log_info("event=cache kv_rows=%d of=%d bytes=%zu sequences=%d positions=%lld batch=%d", got->n_kv_rows,
             limits.n_kv_rows, lm_kv_bytes(w->lm), got->n_sequences, (long long)positions_of(w), w->common.batch);
    return 0;
}

static int open_model(struct llm_worker *w, struct err *err)
{
    enum generate_admit admit = GENERATE_ADMIT_ALL;
    int rc = parse_admit(w->conf->admit, &admit, err);

    if (rc == 0)
        rc = worker_open(&w->common, err);
    if (rc == 0)
        rc = config_tokenizer_load(&w->common.checkpoint->config, w->common.checkpoint->tokenizer_path, &w->tokenizer,
                                   err);
    if (rc < 0)
        return rc;
    if (w->common.checkpoint->config.lm == CONFIG_LM_NONE)
        return err_set(err, -ENOTSUP, "%s: the checkpoint has no language model", w->conf->common.model);
    rc = open_lm(w, err);
    if (rc < 0)
        return rc;
    w->n_queries = (uint32_t)w->common.checkpoint->config.n_queries;
    w->width = (uint32_t)lm_width(w->lm);
    rc = generate_new(w->lm, w->common.batch, w->common.checkpoint->config.image_token, &w->generate, err);
    if (rc == 0)
        generate_set_admit(w->generate, admit);
    return rc;
}

int llm_worker_open(const void *conf, void **ret, struct err *err)
{
    struct llm_worker *w = calloc(1, sizeof(*w));

    if (!w)
        return err_set(err, -ENOMEM, "no memory");
    *ret = w;
    w->conf = conf;
    worker_init(&w->common, &w->conf->common, STAGE_LLM);
    w->end = &w->first;
    return worker_is_null(&w->common) ? 0 : open_model(w, err);
}

void llm_worker_free(void *daemon)
{
    struct llm_worker *w = daemon;

    if (!w)
        return;
    while (w->first) {
        struct unit *u = w->first;

        w->first = u->next;
        llm_unit_free(u);
    }
    generate_free(w->generate);
    lm_free(w->lm);
    tokenizer_free(w->tokenizer);
    worker_release(&w->common);
    free(w);
}

/* -- units -- */

/* Removes the unit and its requests. `work` must have been returned. */
static void remove_unit(struct llm_worker *w, struct unit *u)
{
    struct unit **link = &w->first;

    while (*link != u)
        link = &(*link)->next;
    *link = u->next;
    if (!u->next)
        w->end = link;
    llm_unit_free(u);
}

static void abandon_unit(struct llm_worker *w, struct unit *u, const char *code, const char *text)
{
    for (uint32_t i = 0; w->generate && i < u->n_submitted; i++)
        (void)generate_cancel(w->generate, llm_unit_tag(u, i)); /* finished ones no longer exist */
    if (code)
        worker_fail_unit(&w->common, &u->work, code, text);
    else
        worker_return_unit(&w->common, &u->work);
    remove_unit(w, u);
}

static const struct config *config_of(const struct llm_worker *w)
{
    return w->common.checkpoint ? &w->common.checkpoint->config : NULL;
}

/* Checks the input, and which prompts the model cannot process, before computing anything. */
static int prepare_unit(struct llm_worker *w, struct unit *u, const char **ret_code, struct err *err)
{
    const uint32_t shape[3] = {u->work->n_items, w->n_queries, w->width};
    int rc;

    *ret_code = "bad_tensor";
    if (u->work->n_tensors != 1)
        return err_set(err, -EBADMSG, "expected one tensor of projected queries");
    rc = worker_gather_check(u->work, 0, 3, shape, err);
    if (rc < 0)
        return rc;
    u->image_dtype = w->common.ops->act_dtype;
    u->image_rows = malloc((size_t)u->work->n_items * w->n_queries * w->width * dtype_size_bytes(u->image_dtype));
    if (!u->image_rows) {
        *ret_code = "memory";
        return err_set(err, -ENOMEM, "no memory for the unit's queries");
    }
    worker_gather(u->work, 0, 0, u->work->n_items, u->image_dtype, u->image_rows);
    for (uint32_t i = 0; rc == 0 && i < u->prompts.n; i++) {
        struct generate_request r = llm_unit_request(u, i, config_of(w), (int)w->n_queries, (int)w->width);
        struct err why = {""};
        int bad = generate_check(w->generate, &r, &why);

        if (bad < 0)
            item_error_set(&u->prompts.errors[u->prompts.prompts[i].row], bad == -E2BIG ? "long_prompt" : "prompt",
                           "%s", why.text);
    }
    return rc;
}

static int take_units(struct llm_worker *w, int64_t timeout_ms)
{
    struct worker_work *work = NULL;
    int rc;

    while ((rc = worker_session_take(w->common.session, timeout_ms, &work)) == 1) {
        const char *code = "prompt";
        struct err err = {""};
        struct unit *u;

        timeout_ms = 0;
        if (llm_unit_new(&work, ++w->serial, w->tokenizer, config_of(w), &u, &err) < 0) {
            worker_fail_unit(&w->common, &work, "prompt", err.text);
            continue;
        }
        *w->end = u;
        w->end = &u->next;
        if (w->lm && prepare_unit(w, u, &code, &err) < 0)
            abandon_unit(w, u, code, err.text);
    }
    return rc;
}

/* Reports finished items, so that the broker sees the progress of a large unit. */
static void count_items(struct llm_worker *w, struct unit *u)
{
    const uint32_t n = u->prompts.n ? (uint32_t)((uint64_t)u->n_done * u->work->n_items / u->prompts.n) : 0;

    worker_session_count(w->common.session, n - u->n_counted);
    u->n_counted = n;
}

static void finish_unit(struct llm_worker *w, struct unit *u)
{
    struct worker_result result = {
        .n_rows = u->work->n_items,
        .timing = {.compute_ns = (uint64_t)u->compute_ns, .wait_ns = (uint64_t)(u->started_ns - u->work->received_ns)}};
    uint32_t n_failed = 0;
    int rc;

    buf_init(&result.rows, ROW_MAX_ROWS_BYTES);
    rc = llm_unit_rows(u, &result.rows, &n_failed);
    if (rc < 0) {
        buf_release(&result.rows);
        worker_fail_unit(&w->common, &u->work, "result", strerror(-rc));
    } else {
        worker_session_count(w->common.session, u->work->n_items - u->n_counted);
        worker_send_result(&w->common, &u->work, &result);
    }
    remove_unit(w, u);
}

/* Submits waiting prompts while the scheduler has room, oldest unit first. */
static int submit_prompts(struct llm_worker *w, struct err *err)
{
    struct unit *next;

    for (struct unit *u = w->first; u && generate_room(w->generate) > 0; u = next) {
        int rc = 0;

        next = u->next;
        if (u->n_submitted == u->prompts.n && !llm_unit_is_done(u))
            continue;
        if (worker_work_stale(u->work)) {
            abandon_unit(w, u, NULL, NULL);
            continue;
        }
        while (rc == 0 && u->n_submitted < u->prompts.n && generate_room(w->generate) > 0) {
            struct generate_request r =
                llm_unit_request(u, u->n_submitted, config_of(w), (int)w->n_queries, (int)w->width);

            if (llm_unit_skips(u, u->n_submitted))
                u->n_done++;
            else
                rc = generate_submit(w->generate, &r, err);
            u->n_submitted += rc == 0;
        }
        if (rc < 0)
            return rc;
        if (u->n_submitted == u->prompts.n) {
            free(u->image_rows);
            u->image_rows = NULL;
        }
        if (llm_unit_is_done(u)) /* all items have failed */
            finish_unit(w, u);
    }
    return 0;
}

static struct unit *find_unit(struct llm_worker *w, uint64_t serial)
{
    for (struct unit *u = w->first; u; u = u->next)
        if (u->serial == serial)
            return u;
    return NULL;
}

/* Divides the step's time among the running prompts. */
static void share_time(struct llm_worker *w, int64_t elapsed_ns)
{
    uint64_t n = 0;

    for (const struct unit *u = w->first; u; u = u->next)
        n += u->n_submitted - u->n_done;
    for (struct unit *u = w->first; u && n > 0; u = u->next)
        u->compute_ns += elapsed_ns * (int64_t)(u->n_submitted - u->n_done) / (int64_t)n;
}

/* Collects finished captions. */
static void collect(struct llm_worker *w)
{
    struct generate_result r;

    while (generate_take(w->generate, &r) == 1) {
        struct unit *u = find_unit(w, llm_unit_serial(r.tag));
        struct err err = {""};
        int rc = u ? llm_unit_note(u, llm_unit_prompt(r.tag), &r, w->tokenizer, config_of(w), &err) : 0;

        generate_result_release(&r);
        if (rc < 0) {
            abandon_unit(w, u, "caption", err.text);
            continue;
        }
        if (u)
            count_items(w, u);
        if (u && llm_unit_is_done(u))
            finish_unit(w, u);
    }
}

/* Handles finished captions and new units while the device works. */
static int prepare_next(struct llm_worker *w, struct err *err)
{
    int rc;

    collect(w);
    rc = take_units(w, 0);
    if (rc < 0 && rc != -EPIPE)
        return err_set(err, rc, "cannot take work: %s", strerror(-rc));
    return submit_prompts(w, err);
}

/* Generates one token for each sequence. An asynchronous device starts the next forward pass before the captions of
 * the last one are collected. */
static int step(struct llm_worker *w, struct err *err)
{
    int64_t start = clock_mono_ns();
    int n = generate_step_begin(w->generate), rc = 0;

    if (n > 0 && worker_is_async(&w->common))
        rc = prepare_next(w, err);
    if (rc < 0)
        return rc;
    if (n > 0)
        n = generate_step_end(w->generate);
    if (n < 0)
        return worker_failed(&w->common, n, "the language model failed", err);
    worker_session_progress(w->common.session);
    share_time(w, clock_mono_ns() - start);
    if (n == 0 || !worker_is_async(&w->common))
        collect(w);
    return 0;
}

static void run_null(struct llm_worker *w)
{
    while (w->first) {
        struct unit *u = w->first;

        if (llm_unit_note_null(u) < 0)
            abandon_unit(w, u, "memory", "no memory");
        else
            finish_unit(w, u);
    }
}

int llm_worker_run(void *daemon, struct err *err)
{
    struct llm_worker *w = daemon;

    for (;;) {
        int rc, ended;

        worker_check_stop(&w->common);
        ended = take_units(w, w->first ? 0 : 200);
        if (ended < 0 && ended != -EPIPE)
            return err_set(err, ended, "cannot take work: %s", strerror(-ended));
        if (!w->first && ended == -EPIPE)
            return worker_end(&w->common, err);
        if (!w->lm) {
            run_null(w);
            continue;
        }
        rc = submit_prompts(w, err);
        if (rc == 0 && w->first)
            rc = step(w, err);
        if (rc < 0)
            return rc;
    }
}
