#include "llm_worker/generate.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llm_worker/beam.h"
#include "llm_worker/sampling.h"
#include "llm_worker/request.h"
#include "llm_worker/kv_rows.h"
#include "llm_worker/lm.h"

struct generate {
    struct lm *m;
    int queue_limit;
    int32_t forbidden_id;
    enum generate_admit admit;
    bool filling; /* GENERATE_ADMIT_EMPTY: the batch is being filled, which takes several passes for long prompts */
    struct request_list waiting, finished;
    struct request **active; /* [n_active], in order of start; at most n_sequences */
    int n_active;
    int n_live; /* sequences of the active requests */
    struct kv_rows *rows;
    struct sampling *sampling;
    struct lm_start *starts; /* [n_sequences] of the current pass */
    struct lm_token *tokens; /* [n_sequences] */
    int n_running;           /* sequences of the running pass; 0: no pass is running */
    const float *logits;     /* of that pass */
};

int generate_new(struct lm *m, int queue_limit, int32_t forbidden_id, struct generate **ret, struct err *err)
{
    struct generate *g = calloc(1, sizeof(*g));
    const size_t n = (size_t)lm_get_limits(m)->n_sequences;

    assert(queue_limit >= 1);
    if (!g)
        return err_set(err, -ENOMEM, "no memory for the sequence scheduler");
    g->m = m;
    g->queue_limit = queue_limit;
    g->forbidden_id = forbidden_id;
    g->active = calloc(n, sizeof(struct request *));
    g->starts = calloc(n, sizeof(*g->starts));
    g->tokens = calloc(n, sizeof(*g->tokens));
    g->rows = kv_rows_new(lm_get_limits(m)->n_kv_rows, (int)n);
    g->sampling = sampling_new(lm_vocab_size(m));
    if (!g->active || !g->starts || !g->tokens || !g->rows || !g->sampling) {
        generate_free(g);
        return err_set(err, -ENOMEM, "no memory for the sequence scheduler");
    }
    *ret = g;
    return 0;
}

void generate_set_admit(struct generate *g, enum generate_admit admit)
{
    g->admit = admit;
}

void generate_free(struct generate *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_active; i++)
        request_free(g->active[i]);
    (void)request_list_drop(&g->waiting, NULL);
    (void)request_list_drop(&g->finished, NULL);
    free(g->active);
    free(g->starts);
    free(g->tokens);
    kv_rows_free(g->rows);
    sampling_free(g->sampling);
    free(g);
}

/* -- checks -- */

static int check_numbers(const struct generation_options *o, struct err *err)
{
    if (o->max_new_tokens < 1)
        return err_set(err, -EINVAL, "max_new_tokens is %d, expected at least 1", o->max_new_tokens);
    if (o->min_new_tokens < 0 || o->min_new_tokens > o->max_new_tokens)
        return err_set(err, -EINVAL, "min_new_tokens is %d, expected 0 to max_new_tokens (%d)", o->min_new_tokens,
                       o->max_new_tokens);
    if (!isfinite(o->length_penalty))
        return err_set(err, -EINVAL, "length_penalty is not a finite number");
    if (o->early_stopping < EARLY_STOPPING_FALSE || o->early_stopping > EARLY_STOPPING_NEVER)
        return err_set(err, -EINVAL, "early_stopping is %d, expected false, true or never", (int)o->early_stopping);
    if (!isfinite(o->repetition_penalty) || o->repetition_penalty <= 0)
        return err_set(err, -EINVAL, "repetition_penalty is %g, expected a number above 0",
                       (double)o->repetition_penalty);
    if (o->no_repeat_ngram < 0)
        return err_set(err, -EINVAL, "no_repeat_ngram_size is %d, expected at least 0", o->no_repeat_ngram);
    if (!isfinite(o->temperature) || o->temperature <= 0)
        return err_set(err, -EINVAL, "temperature is %g, expected a number above 0", (double)o->temperature);
    if (o->top_k < 0)
        return err_set(err, -EINVAL, "top_k is %d, expected at least 0", o->top_k);
    if (!(o->top_p > 0 && o->top_p <= 1))
        return err_set(err, -EINVAL, "top_p is %g, expected a number above 0 and up to 1", (double)o->top_p);
    return 0;
}

static int check_options(const struct generate *g, const struct generate_request *r, struct err *err)
{
    const struct generation_options *o = &r->options;
    const int vocab = lm_vocab_size(g->m);
    int n_best;

    if (o->n_beams < 1 || o->n_beams > GENERATION_MAX_BEAMS)
        return err_set(err, -EINVAL, "num_beams is %d, expected 1 to %d", o->n_beams, GENERATION_MAX_BEAMS);
    if (o->n_return < 1 || o->n_return > GENERATION_MAX_RETURN)
        return err_set(err, -EINVAL, "num_return_sequences is %d, expected 1 to %d", o->n_return,
                       GENERATION_MAX_RETURN);
    if (o->sample && o->n_beams > 1)
        return err_set(err, -EINVAL, "do_sample with num_beams %d is not supported; use num_beams 1", o->n_beams);
    if (!o->sample && o->n_return > o->n_beams)
        return err_set(err, -EINVAL, "num_return_sequences is %d, but num_beams is %d; num_beams must not be smaller",
                       o->n_return, o->n_beams);
    n_best = o->n_beams > 1 ? beam_n_best_of(o->n_beams, r->n_eos) : 1;
    if (n_best > vocab)
        return err_set(err, -EINVAL, "num_beams is %d, which needs a vocabulary of %d tokens; the model has %d",
                       o->n_beams, n_best, vocab);
    return check_numbers(o, err);
}

static int check_prompt(const struct generate *g, const struct generate_request *r, struct err *err)
{
    const int vocab = lm_vocab_size(g->m);

    for (int i = 0; i < r->n_prompt; i++) {
        if (r->prompt[i] < 0 || r->prompt[i] >= vocab)
            return err_set(err, -EINVAL, "token %d of the prompt is %d, but the model has 0 to %d", i, r->prompt[i],
                           vocab - 1);
        if (r->prompt[i] == g->forbidden_id)
            return err_set(err, -EINVAL, "token %d of the prompt is the image token (%d), which stands for the picture",
                           i, r->prompt[i]);
    }
    return 0;
}

/* Checks the request as a whole; lm_check_lengths checks a single sequence. */
static int check_room(const struct generate *g, const struct generate_request *r, struct err *err)
{
    const struct lm_limits *limits = lm_get_limits(g->m);
    const int n = request_n_sequences(&r->options), n_new = r->options.max_new_tokens;
    int64_t n_rows;
    int rc = lm_check_lengths(g->m, r->n_image_rows, r->n_prompt, n_new, err);

    if (rc < 0)
        return rc;
    if (n > limits->n_sequences)
        return err_set(err, -E2BIG, "%d beams or samples, but the limit is %d sequences at a time", n,
                       limits->n_sequences);
    n_rows = request_n_kv_rows(g->m, r);
    if (n_rows > limits->n_kv_rows)
        return err_set(err, -E2BIG,
                       "%d beams or samples with %d image rows, a prompt of %d tokens and %d new tokens take %lld rows "
                       "of the cache, which has %d",
                       n, r->n_image_rows, r->n_prompt, n_new, (long long)n_rows, limits->n_kv_rows);
    return 0;
}

int generate_check(const struct generate *g, const struct generate_request *r, struct err *err)
{
    int rc;

    if (r->n_image_rows < 0 || r->n_prompt < 1)
        return err_set(err, -EINVAL, "%d image rows and a prompt of %d tokens: a prompt needs at least 1",
                       r->n_image_rows, r->n_prompt);
    if (r->n_eos < 0 || r->n_eos > GENERATE_MAX_EOS)
        return err_set(err, -EINVAL, "%d end-of-sequence ids, expected at most %d", r->n_eos, GENERATE_MAX_EOS);
    rc = check_options(g, r, err);
    if (rc == 0)
        rc = check_room(g, r, err);
    return rc < 0 ? rc : check_prompt(g, r, err);
}

int generate_submit(struct generate *g, const struct generate_request *r, struct err *err)
{
    struct request *request;
    int rc = generate_check(g, r, err);

    if (rc < 0)
        return rc;
    if (g->waiting.n >= g->queue_limit)
        return err_set(err, -EAGAIN, "%d requests are waiting", g->waiting.n);
    request = request_new(g->m, r, g->forbidden_id);
    if (!request)
        return err_set(err, -ENOMEM, "no memory for a request of %d image rows", r->n_image_rows);
    request_list_push(&g->waiting, request);
    return 0;
}

/* -- a step -- */

/* Starts the first waiting request if there are sequences and cache rows for it. Returns 1, 0 or -ENOMEM. */
static int start_first(struct generate *g)
{
    struct request *request = g->waiting.first;
    int first;

    if (g->n_live + request->n_sequences > lm_get_limits(g->m)->n_sequences)
        return 0;
    first = kv_rows_take(g->rows, request->n_kv_rows);
    if (first < 0)
        return 0;
    if (request_start(request, first) < 0) {
        kv_rows_give(g->rows, first);
        return -ENOMEM;
    }
    g->active[g->n_active++] = request_list_pop(&g->waiting);
    g->n_live += request->n_live;
    return 1;
}

/* Starts waiting requests in order while the pass has room; a large one that waits for room is not overtaken.
 * Returns how many start, or -ENOMEM. */
static int start_waiting(struct generate *g)
{
    const int max_rows = lm_get_limits(g->m)->max_rows, n_live = g->n_live;
    int n_prompt_rows = 0, n = 0, rc = 1;

    if (g->admit == GENERATE_ADMIT_EMPTY && g->n_active > 0 && !g->filling)
        return 0;
    while (g->waiting.first) {
        n_prompt_rows += lm_pass_rows(g->m, g->waiting.first->n_image_rows, g->waiting.first->n_prompt);
        if (n_live + n_prompt_rows > max_rows || (n > 0 && n_prompt_rows > GENERATE_PROMPT_ROWS))
            break;
        rc = start_first(g);
        if (rc <= 0)
            break;
        n++;
    }
    g->filling = g->waiting.first && rc == 1; /* the pass is full but the batch is not */
    return rc < 0 ? rc : n;
}

static int add_entry(struct generate *g, struct request *request, int sequence, int logits_row)
{
    const int entry = sampling_add(g->sampling, request, sequence, logits_row);

    if (entry < 0)
        return entry;
    request->entries[sequence] = entry;
    return 0;
}

/* Adds sampling entries for the last n_starts active requests, which start: all sequences of a request share one row
 * of logits. `sequence` 0: the first sequence of each. */
static int want_first(struct generate *g, int n_starts, int sequence)
{
    struct request *const *starting = g->active + g->n_active - n_starts;
    int rc = 0;

    for (int i = 0; rc == 0 && i < n_starts; i++) {
        struct request *request = starting[i];

        if (sequence >= request->n_sequences)
            continue;
        if (request->beam && sequence > 0)
            request->entries[sequence] = request->entries[0]; /* beam search uses one entry */
        else
            rc = add_entry(g, request, sequence, i);
    }
    return rc;
}

static int want_next(struct generate *g, int n_starts)
{
    const int n_running = g->n_active - n_starts;
    int n_tokens = 0, rc;

    for (int i = 0; i < n_running; i++) {
        struct request *request = g->active[i];
        const int n = request_next(request, g->tokens + n_tokens);

        for (int k = 0; k < n; k++) {
            rc = add_entry(g, request, request_live(request, k), n_starts + n_tokens + k);
            if (rc < 0)
                return rc;
        }
        n_tokens += n;
    }
    return n_tokens;
}

/* Builds the pass: starts, then the newest token of every running sequence; and the sampling entries, in the order
 * of logits rows where possible. Returns the number of tokens, or -ENOMEM. */
static int lay_pass(struct generate *g, int n_starts)
{
    struct request *const *starting = g->active + g->n_active - n_starts;
    int n_tokens, n_more = 1, rc;

    sampling_clear(g->sampling);
    for (int i = 0; i < n_starts; i++) {
        g->starts[i] = request_first(starting[i]);
        n_more = starting[i]->n_sequences > n_more ? starting[i]->n_sequences : n_more;
    }
    rc = want_first(g, n_starts, 0);
    if (rc < 0)
        return rc;
    n_tokens = want_next(g, n_starts);
    if (n_tokens < 0)
        return n_tokens;
    for (int sequence = 1; rc == 0 && sequence < n_more; sequence++) /* the same sequence of each request, adjacent */
        rc = want_first(g, n_starts, sequence);
    return rc < 0 ? rc : n_tokens;
}

/* Moves a finished request out of the active ones. */
static void leave(struct generate *g, struct request *request)
{
    kv_rows_give(g->rows, request->kv_first);
    request_list_push(&g->finished, request);
}

static void drop(struct generate *g, struct request *request)
{
    kv_rows_give(g->rows, request->kv_first);
    request_free(request);
}

/* Appends the sampled tokens to their sequences. */
static void advance(struct generate *g)
{
    struct sampling_result
        sampled[GENERATION_MAX_BEAMS > GENERATION_MAX_RETURN ? GENERATION_MAX_BEAMS : GENERATION_MAX_RETURN];
    int n_kept = 0;

    g->n_live = 0;
    for (int i = 0; i < g->n_active; i++) {
        struct request *request = g->active[i];

        if (request->cancelled) {
            drop(g, request);
            continue;
        }
        for (int s = 0; s < request->n_sequences; s++)
            sampled[s] = sampling_get(g->sampling, request->entries[s]);
        if (request_advance(request, sampled)) {
            leave(g, request);
            continue;
        }
        g->active[n_kept++] = request;
        g->n_live += request->n_live;
    }
    g->n_active = n_kept;
}

int generate_step_begin(struct generate *g)
{
    int n_starts, n_tokens, rc;

    assert(g->n_running == 0);
    n_starts = start_waiting(g);
    if (n_starts < 0 || g->n_active == 0)
        return n_starts;
    if ((rc = n_tokens = lay_pass(g, n_starts)) < 0 ||
        (rc = lm_forward(g->m, n_starts, g->starts, n_tokens, g->tokens, &g->logits)) < 0)
        return rc;
    g->n_running = n_starts + n_tokens;
    return g->n_running;
}

int generate_step_end(struct generate *g)
{
    const int n = g->n_running;
    int rc = n ? sampling_run(g->sampling, lm_ops(g->m), g->logits) : 0;

    g->n_running = 0;
    if (rc < 0)
        return rc;
    if (n)
        advance(g);
    return n;
}

int generate_step(struct generate *g)
{
    int rc = generate_step_begin(g);

    return rc > 0 ? generate_step_end(g) : rc;
}

/* -- results -- */

int generate_take(struct generate *g, struct generate_result *ret)
{
    int rc;

    if (!g->finished.first)
        return 0;
    rc = request_result(g->finished.first, ret);
    if (rc < 0)
        return rc;
    request_free(request_list_pop(&g->finished));
    return 1;
}

void generate_result_release(struct generate_result *r)
{
    free(r->sequences);
    r->sequences = NULL;
    r->n_sequences = 0;
}

int generate_cancel(struct generate *g, uint64_t tag)
{
    int n = request_list_drop(&g->waiting, &tag) + request_list_drop(&g->finished, &tag), n_kept = 0;

    for (int i = 0; i < g->n_active; i++) {
        struct request *request = g->active[i];

        if (request->tag != tag || g->n_running > 0) { /* the running pass uses it */
            g->active[n_kept++] = request;
            n += request->tag == tag && !request->cancelled;
            request->cancelled |= request->tag == tag;
            continue;
        }
        g->n_live -= request->n_live;
        drop(g, request);
        n++;
    }
    g->n_active = n_kept;
    return n;
}

int generate_room(const struct generate *g)
{
    return g->queue_limit - g->waiting.n;
}
