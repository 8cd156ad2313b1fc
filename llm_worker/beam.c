#include "llm_worker/beam.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* transformers' minus infinity: excludes a beam, but keeps an order */
static const float OUT = -1e9F;

/* The tree of ids: node (step, beam) continues beam `parent` of the previous step. */
struct node {
    int32_t id;
    int32_t parent;
};

struct continuation {
    int parent;
    int32_t id;
    bool ends;
    float sum; /* of processed log-probabilities */
    double logprob;
};

struct finished {
    bool is;
    float score;
    int n_ids, parent; /* the beam of the previous step that it continues */
    int32_t id;
    double logprob;
};

struct beam {
    struct beam_options options;
    int32_t eos[GENERATE_MAX_EOS];
    int n_best, length;
    float *sums;                 /* [n_beams] of the running beams, best first */
    double *logprobs;            /* [n_beams] */
    struct node *nodes;          /* [max_new_tokens, n_beams] */
    struct continuation *best;   /* [n_best] of a step */
    struct finished *hypotheses; /* [n_beams] best first */
    int *at;                     /* [n_beams] candidates taken so far from each beam */
};

int beam_n_best_of(int n_beams, int n_eos)
{
    return (n_eos > 1 ? 1 + n_eos : 2) * n_beams;
}

int beam_n_best(const struct beam *b)
{
    return b->n_best;
}

static void *take(char *base, size_t *used, size_t n, size_t size)
{
    void *at = base ? base + *used : NULL;

    *used += (n * size + 15) / 16 * 16;
    return at;
}

/* Places the arrays at base; with base NULL it only adds up the size. */
static size_t lay_out(struct beam *b, char *base)
{
    const size_t k = (size_t)b->options.n_beams, n_best = (size_t)b->n_best;
    size_t used = (sizeof(*b) + 15) / 16 * 16;

    b->sums = take(base, &used, k, sizeof(*b->sums));
    b->logprobs = take(base, &used, k, sizeof(*b->logprobs));
    b->at = take(base, &used, k, sizeof(*b->at));
    b->hypotheses = take(base, &used, k, sizeof(*b->hypotheses));
    b->best = take(base, &used, n_best, sizeof(*b->best));
    b->nodes = take(base, &used, k * (size_t)b->options.max_new_tokens, sizeof(*b->nodes));
    return used;
}

struct beam *beam_new(const struct beam_options *options)
{
    struct beam shape = {.options = *options, .n_best = beam_n_best_of(options->n_beams, options->n_eos)};
    char *base;

    assert(options->n_beams >= 1 && options->max_new_tokens >= 1 && options->n_eos <= GENERATE_MAX_EOS);
    base = calloc(1, lay_out(&shape, NULL));
    if (!base)
        return NULL;
    (void)lay_out(&shape, base);
    if (options->n_eos)
        memcpy(shape.eos, options->eos, (size_t)options->n_eos * sizeof(*shape.eos));
    for (int i = 0; i < options->n_beams; i++) {
        shape.sums[i] = i == 0 ? 0 : OUT; /* the first step continues one beam only */
        shape.hypotheses[i].score = OUT;
    }
    memcpy(base, &shape, sizeof(shape));
    return (struct beam *)(void *)base;
}

void beam_free(struct beam *b)
{
    free(b);
}

static bool is_eos(const struct beam *b, int32_t id)
{
    for (int i = 0; i < b->options.n_eos; i++)
        if (b->eos[i] == id)
            return true;
    return false;
}

/* Finds the best n_best continuations of all beams, best first, on ties the lower beam first. Each beam's candidates
 * are already sorted. */
static void find_best(struct beam *b, const struct beam_candidates *candidates)
{
    const int k = b->options.n_beams;

    memset(b->at, 0, (size_t)k * sizeof(*b->at));
    for (int n = 0; n < b->n_best; n++) {
        int from = -1;
        float sum = 0;

        for (int i = 0; i < k; i++) {
            float s;

            if (b->at[i] == b->n_best)
                continue;
            s = b->sums[i] + candidates[i].values[b->at[i]];
            if (from < 0 || s > sum) {
                from = i;
                sum = s;
            }
        }
        const int c = b->at[from]++;

        b->best[n] = (struct continuation){
            .parent = from,
            .id = candidates[from].ids[c],
            .ends = b->length + 1 >= b->options.max_new_tokens || is_eos(b, candidates[from].ids[c]),
            .sum = sum,
            .logprob = b->logprobs[from] + (double)candidates[from].logprobs[c],
        };
    }
}

/* The best n_beams continuations that do not end continue. Those that end get the score OUT, and continue only if
 * there are no others. */
static void go_on(struct beam *b, int *ret_parents)
{
    struct node *nodes = b->nodes + (size_t)b->length * (size_t)b->options.n_beams;

    for (int i = 0; i < b->n_best; i++) { /* insertion sort: stable, and nearly all are in order */
        struct continuation c = b->best[i];
        int at = i;

        if (c.ends)
            c.sum += OUT;
        for (; at > 0 && c.sum > b->best[at - 1].sum; at--)
            b->best[at] = b->best[at - 1];
        b->best[at] = c;
    }
    for (int i = 0; i < b->options.n_beams; i++) {
        const struct continuation *c = &b->best[i];

        nodes[i] = (struct node){c->id, c->parent};
        b->sums[i] = c->sum;
        b->logprobs[i] = c->logprob;
        ret_parents[i] = c->parent;
    }
}

static bool all_finished(const struct beam *b)
{
    for (int i = 0; i < b->options.n_beams; i++)
        if (!b->hypotheses[i].is)
            return false;
    return true;
}

static float length_factor(const struct beam *b, int length)
{
    return (float)pow(length, (double)b->options.length_penalty);
}

/* Adds the continuations that end, among the first n_beams, to the best hypotheses. */
static void note_finished(struct beam *b)
{
    const int k = b->options.n_beams, n_ids = b->length + 1;
    const float factor = length_factor(b, n_ids);

    for (int i = 0; i < k; i++) {
        const struct continuation *c = &b->best[i];
        const float score = c->sum / factor;
        int at = k;

        if (!c->ends)
            continue;
        while (at > 0 && score > b->hypotheses[at - 1].score) /* on ties the earlier one stays first */
            at--;
        if (at == k)
            continue;
        memmove(b->hypotheses + at + 1, b->hypotheses + at, (size_t)(k - 1 - at) * sizeof(*b->hypotheses));
        b->hypotheses[at] = (struct finished){
            .is = true, .score = score, .n_ids = n_ids, .parent = c->parent, .id = c->id, .logprob = c->logprob};
    }
}

/* True if the best running beam could still beat the worst hypothesis. */
static bool can_improve(const struct beam *b)
{
    const int k = b->options.n_beams;
    const bool longest = b->options.early_stopping == EARLY_STOPPING_NEVER && b->options.length_penalty > 0;
    const float best = b->sums[0] / length_factor(b, longest ? b->options.max_new_tokens : b->length);
    const float worst = all_finished(b) ? b->hypotheses[k - 1].score : OUT;

    return best > worst;
}

bool beam_step(struct beam *b, const struct beam_candidates *candidates, int *ret_parents)
{
    bool all_end = true;

    assert(b->length < b->options.max_new_tokens);
    find_best(b, candidates);
    for (int i = 0; i < b->n_best; i++)
        all_end &= b->best[i].ends;
    note_finished(b);
    go_on(b, ret_parents);
    b->length++;
    return all_end || !can_improve(b) || (all_finished(b) && b->options.early_stopping == EARLY_STOPPING_TRUE);
}

static const struct node *node(const struct beam *b, int step, int beam)
{
    return b->nodes + (size_t)step * (size_t)b->options.n_beams + beam;
}

int32_t beam_last_id(const struct beam *b, int beam)
{
    return node(b, b->length - 1, beam)->id;
}

static void walk(const struct beam *b, int n, int beam, int32_t *ret)
{
    for (int step = n - 1; step >= 0; step--) {
        ret[step] = node(b, step, beam)->id;
        beam = node(b, step, beam)->parent;
    }
}

void beam_path(const struct beam *b, int beam, int32_t *ret)
{
    walk(b, b->length, beam, ret);
}

struct beam_hypothesis beam_hypothesis(const struct beam *b, int i)
{
    const struct finished *f = &b->hypotheses[i];

    return (struct beam_hypothesis){.n_ids = f->is ? f->n_ids : 0,
                                    .score = f->score,
                                    .logprob = f->logprob,
                                    .finish = f->is && is_eos(b, f->id) ? GENERATE_FINISH_EOS : GENERATE_FINISH_LENGTH};
}

void beam_hypothesis_path(const struct beam *b, int i, int32_t *ret)
{
    const struct finished *f = &b->hypotheses[i];

    if (!f->is)
        return;
    ret[f->n_ids - 1] = f->id;
    walk(b, f->n_ids - 1, f->parent, ret);
}
