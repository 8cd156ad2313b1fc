/* Random requests over a model that is a table of numbers, against a plain and slow version of the rules (MODEL.md
 * "Decoding", written as transformers' generate has them): K * V continuations, whole sequences copied about.
 *
 * This file brings its own lm.h, which keeps in each row of the cache the token that was written there, and looks the
 * history up by the rows that it is given: a wrong or overwritten row is another history, so other tokens. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>

#include "llm_worker/generate.h"
#include "llm_worker/lm.h"
#include "llm_worker/philox.h"
#include "tensor/ops.h"
#include "tests/unit/fixture.h"

enum {
    VOCAB = 48,
    IMAGE_ID = VOCAB - 1,
    START_ID = 3,
    WIDTH = 2,
    MAX_IMAGE_ROWS = 3,
    MAX_PROMPT = 6,
    MAX_NEW = 12,
    MAX_K = 7,
    MAX_HEAD = 1 + MAX_IMAGE_ROWS + MAX_PROMPT,
    N_REQUESTS = 60,
    N_ROUNDS = 25,
    NOTHING = -1 /* in a row of the cache */
};

/* -- the model -- */

struct lm {
    struct lm_limits limits;
    struct ops *o;
    bool encoder_decoder;
    int32_t *kv;      /* [n_kv_rows] token, or picture + prompt of a prefix' first row */
    uint64_t *prefix; /* [n_kv_rows] */
    float *logits;    /* [n_sequences, VOCAB] */
    int most_rows, n_passes;
};

static uint64_t hash(uint64_t h, uint64_t value)
{
    uint64_t state = h ^ (value + 1) * 0x9e3779b97f4a7c15U;

    return fixture_random(&state);
}

/* Picture and prompt in one number. */
static uint64_t hash_prompt(float picture, int n, const int32_t *ids)
{
    uint64_t h = hash(7, (uint64_t)picture);

    for (int i = 0; i < n; i++)
        h = hash(h, (uint64_t)ids[i]);
    return h;
}

/* Ids 0 to 2 end sequences in these tests, and come often. */
static void table(uint64_t prompt, int n, const int32_t *ids, float *ret)
{
    uint64_t h = prompt;

    for (int i = 0; i < n; i++)
        h = hash(h, (uint64_t)ids[i]);
    for (int i = 0; i < VOCAB; i++)
        ret[i] = ((float)(hash(h, (uint64_t)i) >> 40) / 0x1p24F - 0.5F) * 8 + (i < 3 ? 1.5F : 0);
}

int lm_open(struct ops *o, const struct checkpoint *c, const struct lm_limits *limits, struct lm **ret, struct err *err)
{
    struct lm *m = calloc(1, sizeof(*m));

    (void)c;
    (void)err;
    assert_non_null(m);
    m->o = o;
    m->limits = *limits;
    m->kv = calloc((size_t)limits->n_kv_rows, sizeof(*m->kv));
    m->prefix = calloc((size_t)limits->n_kv_rows, sizeof(*m->prefix));
    m->logits = calloc((size_t)limits->n_sequences * VOCAB, sizeof(*m->logits));
    assert_true(m->kv && m->prefix && m->logits);
    *ret = m;
    return 0;
}

void lm_free(struct lm *m)
{
    free(m->kv);
    free(m->prefix);
    free(m->logits);
    free(m);
}

int lm_width(const struct lm *m)
{
    (void)m;
    return WIDTH;
}

int lm_vocab_size(const struct lm *m)
{
    (void)m;
    return VOCAB;
}

const struct lm_limits *lm_get_limits(const struct lm *m)
{
    return &m->limits;
}

size_t lm_kv_bytes(const struct lm *m)
{
    (void)m;
    return 0;
}

struct ops *lm_ops(const struct lm *m)
{
    return m->o;
}

bool lm_is_encoder_decoder(const struct lm *m)
{
    return m->encoder_decoder;
}

int32_t lm_start_id(const struct lm *m)
{
    return m->encoder_decoder ? START_ID : -1;
}

int lm_prefix_rows(const struct lm *m, int n_image_rows, int n_ids)
{
    (void)m;
    return n_image_rows + n_ids;
}

int lm_start_rows(const struct lm *m)
{
    return m->encoder_decoder;
}

int lm_pass_rows(const struct lm *m, int n_image_rows, int n_ids)
{
    return n_image_rows + n_ids + lm_start_rows(m);
}

int lm_check_lengths(const struct lm *m, int n_image_rows, int n_ids, int n_new, struct err *err)
{
    (void)n_new;
    if (lm_pass_rows(m, n_image_rows, n_ids) > m->limits.max_rows)
        return err_set(err, -E2BIG, "too long");
    return 0;
}

static void start(struct lm *m, const struct lm_start *s, float *logits)
{
    const int n = s->n_image_rows + s->n_ids;

    assert_true(s->prefix_row >= 0 && s->prefix_row + n <= m->limits.n_kv_rows);
    for (int i = 0; i < n; i++) {
        m->kv[s->prefix_row + i] = NOTHING;
        m->prefix[s->prefix_row + i] = 0;
    }
    m->prefix[s->prefix_row] = hash_prompt(s->n_image_rows ? ((const float *)s->image_rows)[0] : 0, s->n_ids, s->ids);
    if (m->encoder_decoder)
        m->kv[s->first_row] = START_ID;
    table(m->prefix[s->prefix_row], m->encoder_decoder, &m->kv[s->first_row], logits);
}

static void next(struct lm *m, const struct lm_token *t, float *logits)
{
    int32_t ids[MAX_NEW + 1];

    assert_true(t->n_tail >= 1 && t->n_tail <= MAX_NEW + 1);
    assert_true(m->prefix[t->prefix_row] != 0); /* nobody else has written there */
    m->kv[t->tail[t->n_tail - 1]] = t->id;
    m->prefix[t->tail[t->n_tail - 1]] = 0;
    for (int i = 0; i < t->n_tail; i++) {
        ids[i] = m->kv[t->tail[i]];
        assert_int_not_equal(ids[i], NOTHING);
    }
    table(m->prefix[t->prefix_row], t->n_tail, ids, logits);
}

int lm_forward(struct lm *m, int n_starts, const struct lm_start *starts, int n_tokens, const struct lm_token *tokens,
               const float **ret_logits)
{
    int n_rows = n_tokens;

    assert_true(n_starts + n_tokens >= 1 && n_starts + n_tokens <= m->limits.n_sequences);
    for (int i = 0; i < n_starts; i++) {
        n_rows += lm_pass_rows(m, starts[i].n_image_rows, starts[i].n_ids);
        start(m, &starts[i], m->logits + (size_t)i * VOCAB);
    }
    for (int i = 0; i < n_tokens; i++) {
        for (int k = 0; k + 1 < i; k++) /* those of a prefix follow one another */
            assert_true(tokens[k].prefix_row != tokens[i].prefix_row ||
                        tokens[i - 1].prefix_row == tokens[k].prefix_row);
        next(m, &tokens[i], m->logits + (size_t)(n_starts + i) * VOCAB);
    }
    assert_true(n_rows <= m->limits.max_rows);
    m->most_rows = n_rows > m->most_rows ? n_rows : m->most_rows;
    m->n_passes++;
    *ret_logits = m->logits;
    return 0;
}

/* -- requests -- */

struct job {
    float image_rows[MAX_IMAGE_ROWS * WIDTH];
    int32_t prompt[MAX_PROMPT], eos[3];
    struct generate_request request;
    struct generate_result got;
};

static int below(uint64_t *seed, int n)
{
    return (int)(fixture_random(seed) % (uint64_t)n);
}

static void job_make(struct job *j, uint64_t tag, uint64_t *seed)
{
    static const float length_penalties[] = {1, 0, -1, 2, 0.5F, -2.5F},
                       repetition_penalties[] = {1, 1, 1.3F, 2.5F, 0.7F};
    struct generation_options *o = &j->request.options;

    *j = (struct job){.request = {.tag = tag,
                                  .image_rows = j->image_rows,
                                  .image_dtype = DTYPE_F32,
                                  .n_image_rows = below(seed, MAX_IMAGE_ROWS + 1),
                                  .prompt = j->prompt,
                                  .n_prompt = 1 + below(seed, MAX_PROMPT),
                                  .options = generation_options_default(),
                                  .key = fixture_random(seed),
                                  .eos = j->eos,
                                  .n_eos = below(seed, 4)}};
    for (int i = 0; i < MAX_IMAGE_ROWS * WIDTH; i++)
        j->image_rows[i] = (float)below(seed, 1000);
    for (int i = 0; i < MAX_PROMPT; i++)
        j->prompt[i] = below(seed, IMAGE_ID);
    for (int i = 0; i < 3; i++)
        j->eos[i] = i;
    o->max_new_tokens = 1 + below(seed, MAX_NEW);
    o->min_new_tokens = below(seed, 3) ? 0 : below(seed, o->max_new_tokens + 1);
    o->repetition_penalty = repetition_penalties[below(seed, 5)];
    o->no_repeat_ngram = below(seed, 2) ? 0 : below(seed, 4);
    if (below(seed, 4) == 0)
        return;
    if (below(seed, 3) == 0) {
        o->sample = true;
        o->n_return = 1 + below(seed, MAX_K);
        o->temperature = 0.3F + (float)below(seed, 20) / 10;
        o->top_k = below(seed, 2) ? 0 : 1 + below(seed, 2 * VOCAB);
        o->top_p = below(seed, 2) ? 1 : 0.05F + (float)below(seed, 19) / 20;
        return;
    }
    o->n_beams = 2 + below(seed, MAX_K - 1);
    o->n_return = 1 + below(seed, o->n_beams);
    o->length_penalty = length_penalties[below(seed, 6)];
    o->early_stopping = (enum early_stopping)below(seed, 3);
}

/* -- the rules, slowly -- */

struct line {
    int n;
    int32_t ids[MAX_NEW];
    float sum; /* beams: score */
    double logprob;
    bool finished;
};

static bool is_eos(const struct job *j, int32_t id)
{
    for (int i = 0; i < j->request.n_eos; i++)
        if (j->eos[i] == id)
            return true;
    return false;
}

static int slow_history(const struct lm *m, const struct job *j, const struct line *l, int32_t *ret)
{
    int n = 0;

    if (m->encoder_decoder)
        ret[n++] = START_ID;
    for (int i = 0; !m->encoder_decoder && i < j->request.n_image_rows; i++)
        ret[n++] = IMAGE_ID;
    for (int i = 0; !m->encoder_decoder && i < j->request.n_prompt; i++)
        ret[n++] = j->prompt[i];
    for (int i = 0; i < l->n; i++)
        ret[n++] = l->ids[i];
    return n;
}

/* What may come after the line: processed scores, and the model's log-softmax. */
static void slow_scores(const struct lm *m, const struct job *j, const struct line *l, float *ret, double *ret_logprobs)
{
    const struct generation_options *o = &j->request.options;
    int32_t history[MAX_HEAD + MAX_NEW], ids[1 + MAX_NEW] = {START_ID};
    const int n = slow_history(m, j, l, history), ngram = o->no_repeat_ngram;
    double max = -HUGE_VAL, sum = 0;
    float logits[VOCAB];

    memcpy(ids + m->encoder_decoder, l->ids, (size_t)l->n * sizeof(*ids));
    table(hash_prompt(j->request.n_image_rows ? j->image_rows[0] : 0, j->request.n_prompt, j->prompt),
          l->n + m->encoder_decoder, ids, logits);
    for (int i = 0; i < VOCAB; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)logits[i] - max);
    for (int i = 0; i < VOCAB; i++) {
        bool seen = false;

        ret_logprobs[i] = (double)logits[i] - (max + log(sum));
        ret[i] = o->n_beams > 1 ? (float)ret_logprobs[i] : logits[i];
        for (int k = 0; k < n; k++)
            seen |= history[k] == i;
        if (seen && o->repetition_penalty != 1)
            ret[i] = ret[i] < 0 ? ret[i] * o->repetition_penalty : ret[i] / o->repetition_penalty;
    }
    for (int i = 0; ngram > 0 && i + ngram <= n; i++) {
        bool same = true;

        for (int k = 0; k < ngram - 1; k++)
            same &= history[i + k] == history[n - (ngram - 1) + k];
        if (same)
            ret[history[i + ngram - 1]] = -HUGE_VALF;
    }
    for (int i = 0; l->n < o->min_new_tokens && i < j->request.n_eos; i++)
        ret[j->eos[i]] = -HUGE_VALF;
}

static int32_t slow_largest(const float *scores)
{
    int32_t best = 0;

    for (int i = 1; i < VOCAB; i++)
        if (scores[i] > scores[best])
            best = i;
    return best;
}

/* Temperature, then top_k, then top_p on what is left, then the first id at which the sum passes the number drawn. */
static int32_t slow_draw(const struct job *j, int sample, int step, const float *scores)
{
    const struct generation_options *o = &j->request.options;
    const uint32_t counter[4] = {(uint32_t)step, (uint32_t)sample, 0, 0};
    const uint32_t key[2] = {(uint32_t)j->request.key, (uint32_t)(j->request.key >> 32)};
    double p[VOCAB], sum = 0, passed = 0;
    uint32_t words[4];
    int32_t id = 0;
    float u;

    for (int i = 0; i < VOCAB; i++) {
        int n_above = 0;

        for (int k = 0; k < VOCAB; k++)
            n_above += scores[k] > scores[i];
        p[i] = o->top_k && n_above >= o->top_k ? 0 : exp((double)(scores[i] / o->temperature));
        sum += p[i];
    }
    if (o->top_p < 1) {
        double kept[VOCAB], kept_sum = 0;

        for (int i = 0; i < VOCAB; i++) {
            double above = 0;

            for (int k = 0; k < VOCAB; k++)
                above += p[k] > p[i] ? p[k] : 0;
            kept[i] = above < (double)o->top_p * sum ? p[i] : 0;
            kept_sum += kept[i];
        }
        memcpy(p, kept, sizeof(p));
        sum = kept_sum;
    }
    philox_block(counter, key, words);
    u = (float)(words[0] >> 8) / 0x1p24F;
    for (int i = 0; i < VOCAB && passed <= (double)u * sum; i++)
        if (p[i] > 0) {
            passed += p[i];
            id = i;
        }
    return id;
}

static void slow_line(const struct lm *m, const struct job *j, int sample, struct line *l)
{
    float scores[VOCAB];
    double logprobs[VOCAB];

    *l = (struct line){0};
    while (l->n < j->request.options.max_new_tokens && !l->finished) {
        int32_t id;

        slow_scores(m, j, l, scores, logprobs);
        id = j->request.options.sample ? slow_draw(j, sample, l->n, scores) : slow_largest(scores);
        l->ids[l->n++] = id;
        l->logprob += logprobs[id];
        l->finished = is_eos(j, id);
    }
}

struct pick {
    float sum, value;
    double logprob;
    int beam;
    int32_t id;
};

static int compare_picks(const void *left, const void *right)
{
    const struct pick *a = left, *b = right;

    if (a->sum != b->sum)
        return a->sum > b->sum ? -1 : 1;
    if (a->beam != b->beam)
        return a->beam - b->beam;
    if (a->value != b->value)
        return a->value > b->value ? -1 : 1;
    return a->id - b->id;
}

/* Keep the k with the largest sums, the earlier one on ties. */
static void keep_best(struct line *lines, int n, int k)
{
    for (int i = 1; i < n; i++)
        for (int at = i; at > 0 && lines[at].sum > lines[at - 1].sum; at--) {
            const struct line swap = lines[at];

            lines[at] = lines[at - 1];
            lines[at - 1] = swap;
        }
    (void)k;
}

/* All continuations of all beams, best first. */
static void slow_continue(const struct lm *m, const struct job *j, const struct line *running, struct pick *ret)
{
    const int k = j->request.options.n_beams;

    for (int b = 0; b < k; b++) {
        float scores[VOCAB];
        double logprobs[VOCAB];

        slow_scores(m, j, &running[b], scores, logprobs);
        for (int i = 0; i < VOCAB; i++)
            ret[b * VOCAB + i] = (struct pick){running[b].sum + scores[i], scores[i], logprobs[i], b, i};
    }
    qsort(ret, (size_t)(k * VOCAB), sizeof(*ret), compare_picks);
}

/* transformers' _beam_search for one picture. Its stop is looked at after each step. */
static void slow_beams(const struct lm *m, const struct job *j, struct line *done)
{
    enum { MOST = 4 * MAX_K };
    const struct generation_options *o = &j->request.options;
    const int k = o->n_beams, keep = (j->request.n_eos > 1 ? 1 + j->request.n_eos : 2) * k;
    struct line running[MAX_K] = {{0}}, top[MOST], merged[MAX_K + MOST];
    static struct pick picks[MAX_K * VOCAB];
    bool unsatisfied = true;

    for (int i = 0; i < k; i++) {
        running[i].sum = i ? -1e9F : 0;
        done[i] = (struct line){.sum = -1e9F};
    }
    for (int n = 1; n <= o->max_new_tokens; n++) {
        bool full = o->early_stopping == EARLY_STOPPING_TRUE, all_end = true, all_done = true, improves = false;
        float worst = 0;
        double length = n;

        for (int i = 0; i < k; i++)
            full &= done[i].finished;
        slow_continue(m, j, running, picks);
        for (int i = 0; i < keep; i++) {
            top[i] = running[picks[i].beam];
            top[i].ids[top[i].n++] = picks[i].id;
            top[i].sum = picks[i].sum;
            top[i].logprob += picks[i].logprob;
            top[i].finished = is_eos(j, picks[i].id) || n == o->max_new_tokens;
            all_end &= top[i].finished;
        }
        memcpy(merged, done, (size_t)k * sizeof(*done));
        for (int i = 0; i < keep; i++) {
            struct line *l = &merged[k + i];

            *l = top[i];
            l->sum /= (float)pow(n, (double)o->length_penalty);
            l->sum += full ? -1e9F : 0;
            l->sum += unsatisfied ? 0 : -1e9F;
            l->finished = top[i].finished && i < k;
            l->sum += l->finished ? 0 : -1e9F;
        }
        keep_best(merged, k + keep, k);
        memcpy(done, merged, (size_t)k * sizeof(*done));
        for (int i = 0; i < keep; i++)
            top[i].sum += top[i].finished ? -1e9F : 0;
        keep_best(top, keep, k);
        memcpy(running, top, (size_t)k * sizeof(*running));

        if (o->early_stopping == EARLY_STOPPING_NEVER && o->length_penalty > 0)
            length = o->max_new_tokens;
        for (int i = 0; i < k; i++)
            worst = done[i].sum < worst ? done[i].sum : worst;
        for (int i = 0; i < k; i++) {
            improves |=
                running[0].sum / (float)pow(length, (double)o->length_penalty) > (done[i].finished ? worst : -1e9F);
            all_done &= done[i].finished;
        }
        unsatisfied &= improves;
        if (!unsatisfied || all_end || (all_done && o->early_stopping == EARLY_STOPPING_TRUE))
            return;
    }
}

/* -- the comparison -- */

static void check(const struct lm *m, const struct job *j)
{
    const struct generation_options *o = &j->request.options;
    struct line want[MAX_K];

    assert_int_equal(j->got.n_sequences, o->n_return);
    if (o->n_beams > 1)
        slow_beams(m, j, want);
    for (int i = 0; i < o->n_return; i++) {
        const struct generate_sequence *got = &j->got.sequences[i];

        if (o->n_beams == 1)
            slow_line(m, j, i, &want[i]);
        else if (!want[i].finished) { /* nothing that could be said */
            assert_int_equal(got->n_ids, 0);
            continue;
        }
        if (got->n_ids != want[i].n || memcmp(got->ids, want[i].ids, (size_t)got->n_ids * sizeof(int32_t)) != 0)
            fail_msg("request %d, sequence %d of %d, %d beams, sampling %d: not the same tokens", (int)j->request.tag,
                     i, o->n_return, o->n_beams, o->sample);
        assert_true(fabs(got->logprob - want[i].logprob) <= 1e-5 * fmax(1, fabs(want[i].logprob)));
        if (o->n_beams > 1)
            assert_true(fabs(got->score - (double)want[i].sum) <= 1e-5 * fmax(1, fabs(got->score)));
        else
            assert_true(got->score == got->logprob);
        assert_int_equal(got->finish, got->n_ids && is_eos(j, got->ids[got->n_ids - 1]) ? GENERATE_FINISH_EOS
                                                                                        : GENERATE_FINISH_LENGTH);
    }
}

/* One step. Once a static batch is closed (full, or nobody waited), nobody joins it. n_open: submitted, not taken. */
static void step(struct generate *g, int queue_limit, int n_open, enum generate_admit admit, bool *closed)
{
    const int n_waiting = queue_limit - generate_room(g), n_active = n_open - n_waiting;
    int n_started;

    assert_true(generate_step(g) >= 0);
    n_started = n_waiting - (queue_limit - generate_room(g));
    if (admit == GENERATE_ADMIT_EMPTY && *closed && n_active > 0)
        assert_int_equal(n_started, 0);
    *closed = (*closed && n_active > 0) || n_started == 0 || n_started == n_waiting;
}

/* In any order, at any moment, with any room. */
static void run_all(struct lm *m, struct job *jobs, enum generate_admit admit, uint64_t *seed)
{
    const int queue_limit = 1 + below(seed, N_REQUESTS);
    bool closed = false;
    struct generate *g = NULL;
    struct generate_result r;
    int order[N_REQUESTS], n_submitted = 0, n_done = 0;
    struct err err = {""};

    assert_int_equal(generate_new(m, queue_limit, IMAGE_ID, &g, &err), 0);
    generate_set_admit(g, admit);
    for (int i = 0; i < N_REQUESTS; i++) {
        const int at = below(seed, i + 1);

        order[i] = order[at];
        order[at] = i;
    }
    while (n_done < N_REQUESTS) {
        const bool in_between = admit == GENERATE_ADMIT_ALL && below(seed, 2) && generate_step_begin(g) > 0;

        while (n_submitted < N_REQUESTS && generate_room(g) > 0 && below(seed, 4)) {
            if (generate_submit(g, &jobs[order[n_submitted]].request, &err) < 0)
                fail_msg("%s", err.text);
            n_submitted++;
        }
        if (in_between)
            assert_true(generate_step_end(g) > 0);
        step(g, queue_limit, n_submitted - n_done, admit, &closed);
        for (; generate_take(g, &r) == 1; n_done++) {
            assert_null(jobs[r.tag].got.sequences);
            jobs[r.tag].got = r;
        }
    }
    assert_int_equal(generate_step(g), 0);
    generate_free(g);
}

static void test_generate_random_requests_follow_the_rules(void **state)
{
    uint64_t seed = fixture_seed("generate_random");
    static struct job jobs[N_REQUESTS];
    struct ops *o = NULL;
    struct err err = {""};

    (void)state;
    assert_int_equal(ops_ref_new(&o, &err), 0);
    for (int round = 0; round < N_ROUNDS; round++) {
        const int n_sequences = MAX_K + below(&seed, 30), prompt = MAX_IMAGE_ROWS + MAX_PROMPT + 1;
        struct lm_limits limits = {.n_sequences = n_sequences,
                                   .n_kv_rows = prompt + MAX_K * (MAX_NEW - 1) + below(&seed, 600),
                                   .max_rows = n_sequences + prompt + below(&seed, 60)};
        struct lm *m;

        assert_int_equal(lm_open(o, NULL, &limits, &m, &err), 0);
        m->encoder_decoder = round % 3 == 0;
        for (int i = 0; i < N_REQUESTS; i++)
            job_make(&jobs[i], (uint64_t)i, &seed);
        run_all(m, jobs, round % 2 ? GENERATE_ADMIT_EMPTY : GENERATE_ADMIT_ALL, &seed);
        for (int i = 0; i < N_REQUESTS; i++) {
            check(m, &jobs[i]);
            generate_result_release(&jobs[i].got);
        }
        lm_free(m);
    }
    ops_free(o);
}

static bool same_result(const struct generate_result *a, const struct generate_result *b)
{
    bool same = a->n_sequences == b->n_sequences;

    for (int i = 0; same && i < a->n_sequences; i++) {
        const struct generate_sequence *x = &a->sequences[i], *y = &b->sequences[i];

        same = x->n_ids == y->n_ids && x->logprob == y->logprob && x->score == y->score && x->finish == y->finish &&
               memcmp(x->ids, y->ids, (size_t)x->n_ids * sizeof(*x->ids)) == 0;
    }
    return same;
}

/* The same requests, of random lengths: continuous batching gives what static batches give, in fewer passes. */
static void test_generate_random_continuous_equals_static(void **state)
{
    uint64_t seed = fixture_seed("generate_static");
    static struct job jobs[2][N_REQUESTS];
    const struct lm_limits limits = {.n_sequences = 12, .n_kv_rows = 400, .max_rows = 80};
    struct ops *o = NULL;
    struct err err = {""};

    (void)state;
    assert_int_equal(ops_ref_new(&o, &err), 0);
    for (int round = 0; round < 4; round++) {
        const uint64_t round_seed = seed;
        int n_passes[2];

        for (int k = 0; k < 2; k++) {
            struct lm *m;

            seed = round_seed;
            assert_int_equal(lm_open(o, NULL, &limits, &m, &err), 0);
            for (int i = 0; i < N_REQUESTS; i++)
                job_make(&jobs[k][i], (uint64_t)i, &seed);
            run_all(m, jobs[k], k ? GENERATE_ADMIT_EMPTY : GENERATE_ADMIT_ALL, &seed);
            n_passes[k] = m->n_passes;
            lm_free(m);
        }
        assert_true(n_passes[0] < n_passes[1]);
        for (int i = 0; i < N_REQUESTS; i++) {
            if (!same_result(&jobs[0][i].got, &jobs[1][i].got))
                fail_msg("round %d: request %d gives another result in a static batch", round, i);
            generate_result_release(&jobs[0][i].got);
            generate_result_release(&jobs[1][i].got);
        }
    }
    ops_free(o);
}

/* A pass takes so many rows of prompts and no more, beside a token of everybody who runs. */
static void test_generate_random_prompts_come_in_portions(void **state)
{
    enum { N = 450, PROMPT = 9, PORTION = GENERATE_PROMPT_ROWS / PROMPT };
    static const int32_t prompt[PROMPT] = {4, 5, 6, 7, 8, 9, 10, 11, 12};
    const struct lm_limits limits = {.n_sequences = N, .n_kv_rows = N * (PROMPT + 4), .max_rows = 10000};

    (void)state;
    for (enum generate_admit admit = GENERATE_ADMIT_ALL; admit <= GENERATE_ADMIT_EMPTY; admit++) {
        struct generate_request r = {.prompt = prompt, .n_prompt = PROMPT, .options = generation_options_default()};
        struct generate *g = NULL;
        struct ops *o = NULL;
        struct err err = {""};
        struct lm *m;

        r.options.max_new_tokens = 5;
        assert_int_equal(ops_ref_new(&o, &err), 0);
        assert_int_equal(lm_open(o, NULL, &limits, &m, &err), 0);
        assert_int_equal(generate_new(m, N, -1, &g, &err), 0);
        generate_set_admit(g, admit);
        for (int i = 0; i < N; i++, r.tag++)
            assert_int_equal(generate_submit(g, &r, &err), 0);
        assert_int_equal(generate_step(g), PORTION);
        assert_int_equal(generate_step(g), 2 * PORTION <= N ? 2 * PORTION : N);
        assert_int_equal(generate_room(g), 2 * PORTION <= N ? 2 * PORTION : N);
        assert_true(m->most_rows <= GENERATE_PROMPT_ROWS + N);
        generate_free(g);
        lm_free(m);
        ops_free(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_generate_random_requests_follow_the_rules),
                                       cmocka_unit_test(test_generate_random_continuous_equals_static),
                                       cmocka_unit_test(test_generate_random_prompts_come_in_portions)};

    return cmocka_run_group_tests_name("generate_random", tests, NULL, NULL);
}
