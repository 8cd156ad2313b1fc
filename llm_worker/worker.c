/* worker.c - take units, feed their images to the sequence scheduler, give a unit back when its last caption is done.
 */
#include "llm_worker/worker.h"

#include "base/clock.h"
#include "llm_worker/caption.h"
#include "llm_worker/generate.h"
#include "llm_worker/lm.h"
#include "llm_worker/unit.h"
#include "model/tokenizer.h"
#include "worker/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct conf_key llm_conf_table[] = {
    WORKER_CONF_KEYS(struct llm_conf, "1", "64", "256"),
    {"positions", CONF_INT, CONF_AT(struct llm_conf, positions), "512", 0, 1 << 20,
     "most positions of a sequence (queries, prompt and new tokens; sizes the KV cache); 0: all that the model has"},
    {0}};

enum { LLM_DEFAULT_POSITIONS = 512 };

struct llm_worker {
    struct worker common;
    const struct llm_conf *conf;
    struct tokenizer *tokenizer;
    struct lm *lm; /* NULL: device null */
    struct generate *generate;
    uint32_t n_queries, width; /* Q, L of what comes in */
    struct unit *first, **end;
    uint64_t serial;
    struct msg_recipe prompt_recipe; /* whose prompt prompt_ids is */
    struct token_ids prompt_ids;
};

/* -- start and end -- */

static int open_model(struct llm_worker *w, struct err *err)
{
    struct lm_limits limits = {.n_sequences = (int)w->conf->common.batch};
    int64_t positions = w->conf->positions;
    int rc = worker_open(&w->common, MODEL_STAGE_LLM, err);

    if (rc == 0)
        rc = tokenizer_load(w->common.checkpoint->tokenizer_path, &w->tokenizer, err);
    if (rc < 0)
        return rc;
    if (w->common.checkpoint->config.lm == CONFIG_LM_NONE)
        return err_set(err, -ENOTSUP, "%s: the checkpoint has no language model", w->conf->common.model);
    if (w->common.checkpoint->config.lm == CONFIG_LM_OPT &&
        (positions == 0 || positions > w->common.checkpoint->config.opt.max_positions))
        positions = w->common.checkpoint->config.opt.max_positions;
    if (positions == 0)
        positions = LLM_DEFAULT_POSITIONS; /* T5 knows no limit */
    if (positions > INT32_MAX / 2 / limits.n_sequences)
        return err_set(err, -EINVAL, "batch %d with %lld positions: the cache would be too large", limits.n_sequences,
                       (long long)positions);
    limits.n_kv_rows = limits.n_sequences * (int)positions;
    limits.max_rows = limits.n_sequences + (int)positions;
    rc = lm_open(w->common.ops, w->common.checkpoint, &limits, &w->lm, err);
    if (rc < 0)
        return rc;
    w->n_queries = (uint32_t)w->common.checkpoint->config.n_queries;
    w->width = (uint32_t)lm_width(w->lm);
    return generate_new(w->lm, (int)w->conf->common.batch, w->common.checkpoint->config.image_token, &w->generate, err);
}

int llm_worker_start(const void *conf, void **ret, struct err *err)
{
    struct llm_worker *w = calloc(1, sizeof(*w));
    int rc = 0;

    if (!w)
        return err_set(err, -ENOMEM, "no memory");
    w->conf = conf;
    w->common.conf = &w->conf->common;
    w->end = &w->first;
    if (!worker_is_null(&w->common))
        rc = open_model(w, err);
    if (rc == 0)
        rc = worker_start(&w->common, MODEL_STAGE_LLM, err);
    if (rc < 0) {
        llm_worker_free(w);
        return rc;
    }
    *ret = w;
    return 0;
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
    token_ids_release(&w->prompt_ids);
    free(w);
}

/* -- units -- */

/* Take the unit off the list and forget its sequences. `work` has been given back. */
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
        (void)generate_cancel(w->generate, u->serial << 16 | i); /* those that are done are not there any more */
    if (code)
        worker_fail_unit(&w->common, &u->work, code, text);
    else
        worker_return_unit(&w->common, &u->work);
    remove_unit(w, u);
}

/* The prompt of the unit's recipe in w->prompt_ids; most units have the prompt of the one before. */
static int encode_prompt(struct llm_worker *w, const struct msg_recipe *recipe, struct err *err)
{
    struct token_ids ids = {0};
    int rc;

    if (w->prompt_ids.n && recipe->n_prompts == w->prompt_recipe.n_prompts &&
        strcmp(recipe->prompts[0], w->prompt_recipe.prompts[0]) == 0)
        return 0;
    rc = caption_prompt_ids(w->tokenizer, &w->common.checkpoint->config, recipe, &ids, err);
    if (rc < 0) {
        token_ids_release(&ids);
        return rc;
    }
    token_ids_release(&w->prompt_ids);
    w->prompt_ids = ids;
    w->prompt_recipe = *recipe;
    return 0;
}

static struct generate_request request_of(const struct llm_worker *w, const struct unit *u, uint32_t row)
{
    const struct config *c = &w->common.checkpoint->config;
    struct generate_options options = generate_options_default();

    options.max_new_tokens = (int)u->work->recipe.decode.max_new_tokens;
    return (struct generate_request){.tag = u->serial << 16 | row,
                                     .image_rows = u->image_rows + (size_t)row * w->n_queries * w->width,
                                     .n_image_rows = (int)w->n_queries,
                                     .prompt = w->prompt_ids.ids,
                                     .n_prompt = (int)w->prompt_ids.n,
                                     .options = options,
                                     .eos = c->eos,
                                     .n_eos = c->n_eos};
}

/* Verify what came and check that the model can do it, before any of it is computed. */
static int prepare_unit(struct llm_worker *w, struct unit *u, const char **ret_code, struct err *err)
{
    const uint32_t shape[3] = {u->work->n_items, w->n_queries, w->width};
    const size_t bytes = (size_t)u->work->n_items * w->n_queries * w->width * sizeof(float);
    struct generate_request r;
    int rc;

    *ret_code = "bad_tensor";
    if (u->work->n_tensors != 1)
        return err_set(err, -EBADMSG, "one tensor of projected queries is wanted");
    u->image_rows = malloc(bytes);
    if (!u->image_rows) {
        *ret_code = "memory";
        return err_set(err, -ENOMEM, "no memory for the unit's queries");
    }
    rc = worker_gather_f32(u->work, 0, 3, shape, u->image_rows, err);
    if (rc < 0)
        return rc;
    *ret_code = "prompt";
    rc = encode_prompt(w, &u->work->recipe, err);
    if (rc < 0)
        return rc;
    r = request_of(w, u, 0);
    return generate_check(w->generate, &r, err);
}

static int take_units(struct llm_worker *w, int64_t timeout_ms)
{
    struct worker_work *work = NULL;
    int rc;

    while ((rc = worker_session_take(w->common.session, timeout_ms, &work)) == 1) {
        const char *code;
        struct err err = {""};
        struct unit *u;

        timeout_ms = 0;
        if (llm_unit_new(&work, ++w->serial, &u) < 0) {
            worker_fail_unit(&w->common, &work, "memory", "no memory for the unit");
            continue;
        }
        *w->end = u;
        w->end = &u->next;
        if (w->lm && prepare_unit(w, u, &code, &err) < 0)
            abandon_unit(w, u, code, err.text);
    }
    return rc;
}

/* Hand waiting images to the scheduler while it has room, oldest unit first. */
static int submit_images(struct llm_worker *w, struct err *err)
{
    struct unit *next;

    for (struct unit *u = w->first; u && generate_room(w->generate) > 0; u = next) {
        int rc = 0;

        next = u->next;
        if (u->n_submitted == u->work->n_items)
            continue;
        if (worker_work_stale(u->work)) {
            abandon_unit(w, u, NULL, NULL);
            continue;
        }
        rc = encode_prompt(w, &u->work->recipe, err);
        while (rc == 0 && u->n_submitted < u->work->n_items && generate_room(w->generate) > 0) {
            struct generate_request r = request_of(w, u, u->n_submitted);

            rc = generate_submit(w->generate, &r, err);
            u->n_submitted += rc == 0;
        }
        if (rc < 0)
            return rc;
        if (u->n_submitted == u->work->n_items) {
            free(u->image_rows);
            u->image_rows = NULL;
        }
    }
    return 0;
}

static void finish_unit(struct llm_worker *w, struct unit *u)
{
    struct worker_result result = {
        .n_rows = u->work->n_items,
        .timing = {.compute_ns = (uint64_t)u->compute_ns, .wait_ns = (uint64_t)(u->started_ns - u->work->received_ns)}};
    int rc;

    buf_init(&result.rows, MSG_MAX_ROW_FRAME_BYTES);
    rc = llm_unit_rows(u, &result.rows);
    if (rc < 0) {
        buf_release(&result.rows);
        worker_fail_unit(&w->common, &u->work, "result", strerror(-rc));
    } else {
        worker_session_count(w->common.session, u->work->n_items, 0, 0, (uint64_t)u->compute_ns, 0);
        worker_send_result(&w->common, &u->work, &result);
    }
    remove_unit(w, u);
}

static struct unit *find_unit(struct llm_worker *w, uint64_t serial)
{
    for (struct unit *u = w->first; u; u = u->next)
        if (u->serial == serial)
            return u;
    return NULL;
}

static int note_result(struct llm_worker *w, struct unit *u, const struct generate_result *r, struct err *err)
{
    struct unit_caption *c = &u->captions[r->tag & 0xffff];
    const struct generate_sequence *s = r->sequences;
    int rc;

    if (r->n_sequences < 1)
        return err_set(err, -EDOM, "the language model gave no finite number for picture %llu of the unit",
                       (unsigned long long)(r->tag & 0xffff));

    c->start = u->texts.size_bytes;
    rc = caption_text(w->tokenizer, &w->common.checkpoint->config, s->ids, s->n_ids, &u->texts, err);
    if (rc < 0)
        return rc;
    c->size_bytes = u->texts.size_bytes - c->start;
    c->logprob = (float)s->logprob;
    c->tokens = (uint32_t)s->n_ids;
    u->n_done++;
    return 0;
}

/* One token for all, then collect what has finished. The step's time is shared among the active sequences' units. */
static int step(struct llm_worker *w, struct err *err)
{
    struct generate_result r;
    int64_t start = clock_mono_ns(), each;
    int n = generate_step(w->generate);

    if (n < 0)
        return err_set(err, n, "the language model failed: %s", strerror(-n));
    worker_session_progress(w->common.session);
    each = n ? (clock_mono_ns() - start) / n : 0;
    for (struct unit *u = w->first; u; u = u->next)
        u->compute_ns += each * (u->n_submitted - u->n_done);
    while (generate_take(w->generate, &r) == 1) {
        struct unit *u = find_unit(w, r.tag >> 16);
        int rc = u ? note_result(w, u, &r, err) : 0;

        generate_result_release(&r);
        if (rc < 0) {
            abandon_unit(w, u, "caption", err->text);
            continue;
        }
        if (u && u->n_done == u->work->n_items)
            finish_unit(w, u);
    }
    return 0;
}

/* device null: the words that stand in for a caption. */
static void run_null(struct llm_worker *w)
{
    static const char words[] = "null";

    while (w->first) {
        struct unit *u = w->first;

        if (buf_append(&u->texts, words, sizeof(words) - 1) < 0) {
            abandon_unit(w, u, "memory", "no memory");
            continue;
        }
        for (uint32_t i = 0; i < u->work->n_items; i++)
            u->captions[i] = (struct unit_caption){.size_bytes = sizeof(words) - 1, .tokens = 1};
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
        rc = submit_images(w, err);
        if (rc == 0 && w->first)
            rc = step(w, err);
        if (rc < 0)
            return rc;
    }
}
