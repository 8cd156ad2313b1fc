#include "llm_worker/choice.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "llm_worker/beam.h"
#include "llm_worker/history.h"
#include "llm_worker/philox.h"
#include "tensor/ops.h"

struct entry {
    int logits_row;
    size_t seen, banned; /* in ids */
    size_t found;        /* in found_ids, values, logprobs */
    bool none;
};

struct choice {
    int vocab;
    struct history *history;
    int n, n_max;
    struct entry *entries;       /* [n_max] */
    struct ops_choose_row *rows; /* [n_max] the operator's, pointers filled in when all are there */
    size_t n_ids, n_ids_max;
    int32_t *ids; /* [n_ids_max] histories and what came of them */
    size_t n_found, n_found_max;
    int32_t *found_ids; /* [n_found_max] */
    float *values, *logprobs;
};

struct choice *choice_new(int vocab)
{
    struct choice *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->vocab = vocab;
    c->history = history_new(vocab);
    if (!c->history) {
        free(c);
        return NULL;
    }
    return c;
}

void choice_free(struct choice *c)
{
    if (!c)
        return;
    history_free(c->history);
    free(c->entries);
    free(c->rows);
    free(c->ids);
    free(c->found_ids);
    free(c->values);
    free(c->logprobs);
    free(c);
}

void choice_clear(struct choice *c)
{
    c->n = 0;
    c->n_ids = 0;
    c->n_found = 0;
}

static int grow(void *array, size_t n, size_t size)
{
    void **at = array;
    void *bigger = reallocarray(*at, n, size);

    if (!bigger)
        return -ENOMEM;
    *at = bigger;
    return 0;
}

/* Room for one more entry, n_found results and n_ids ids. */
static int reserve(struct choice *c, size_t n_found, size_t n_ids)
{
    if (c->n == c->n_max) {
        const int n = 2 * c->n_max + 64;

        if (grow(&c->entries, (size_t)n, sizeof(*c->entries)) < 0 || grow(&c->rows, (size_t)n, sizeof(*c->rows)) < 0)
            return -ENOMEM;
        c->n_max = n;
    }
    if (c->n_found + n_found > c->n_found_max) {
        const size_t n = 2 * (c->n_found + n_found);

        if (grow(&c->found_ids, n, sizeof(*c->found_ids)) < 0 || grow(&c->values, n, sizeof(*c->values)) < 0 ||
            grow(&c->logprobs, n, sizeof(*c->logprobs)) < 0)
            return -ENOMEM;
        c->n_found_max = n;
    }
    if (c->n_ids + n_ids > c->n_ids_max) {
        const size_t n = 2 * (c->n_ids + n_ids);

        if (grow(&c->ids, n, sizeof(*c->ids)) < 0)
            return -ENOMEM;
        c->n_ids_max = n;
    }
    return 0;
}

/* The ids that are penalised and those that are forbidden; the history itself is only in the way of the next ones. */
static void look_back(struct choice *c, const struct group *g, int strand, struct entry *e, struct ops_choose_row *row)
{
    const struct generation_options *o = &g->options;
    const size_t n_history = (size_t)(g->n_head + g->n_new);
    int32_t *seen = c->ids + c->n_ids, *banned = seen, *history = banned;
    int n = 0;

    if (o->repetition_penalty != 1 || o->no_repeat_ngram > 0) {
        /* behind what will be written: at most n_history seen ones, as many banned ones and the ends of sequence */
        history = seen + 2 * n_history + (size_t)g->n_eos;
        n = group_history(g, strand, history);
    }
    e->seen = c->n_ids;
    if (o->repetition_penalty != 1) {
        row->repetition_penalty = o->repetition_penalty;
        row->n_seen = history_seen(c->history, history, n, seen);
        banned += row->n_seen;
    }
    e->banned = e->seen + (size_t)row->n_seen;
    row->n_banned = history_banned(c->history, history, n, o->no_repeat_ngram, g->eos,
                                   g->n_new < o->min_new_tokens ? g->n_eos : 0, banned);
    c->n_ids = e->banned + (size_t)row->n_banned;
}

int choice_add(struct choice *c, const struct group *g, int strand, int logits_row)
{
    const struct generation_options *o = &g->options;
    const int n_best = g->beam ? beam_n_best(g->beam) : 1;
    struct ops_choose_row row = {
        .log_softmax = g->beam != NULL,
        .sample = o->sample,
        .n_best = n_best,
        .repetition_penalty = 1,
        .temperature = o->temperature,
        .top_k = o->top_k,
        .top_p = o->top_p,
    };
    struct entry e = {.logits_row = logits_row, .found = c->n_found};

    if (reserve(c, (size_t)n_best, 3 * (size_t)(g->n_head + g->n_new) + (size_t)g->n_eos) < 0)
        return -ENOMEM;
    if (o->sample)
        row.uniform = philox_uniform(g->key, (uint32_t)g->n_new, (uint32_t)strand);
    look_back(c, g, strand, &e, &row);
    c->n_found += (size_t)n_best;
    c->entries[c->n] = e;
    c->rows[c->n] = row;
    return c->n++;
}

static int choose(const struct choice *c, struct ops *o, const float *logits, int first, int n)
{
    return o->f->choose(o, &(struct ops_choose_args){
                               .n_rows = n,
                               .vocab = c->vocab,
                               .logits = logits + (int64_t)c->entries[first].logits_row * c->vocab,
                               .ld = c->vocab,
                               .rows = c->rows + first,
                           });
}

/* One of these rows has nothing finite left: find out which, so that the others do not suffer. */
static int choose_each(struct choice *c, struct ops *o, const float *logits, int first, int n)
{
    for (int i = first; i < first + n; i++) {
        const struct ops_choose_row *row = &c->rows[i];
        int rc = choose(c, o, logits, i, 1);

        if (rc < 0 && rc != -EDOM)
            return rc;
        c->entries[i].none = rc == -EDOM;
        for (int k = 0; c->entries[i].none && k < row->n_best; k++) {
            row->ret_ids[k] = k;
            row->ret_values[k] = row->ret_logprobs[k] = -HUGE_VALF;
        }
    }
    return 0;
}

int choice_run(struct choice *c, struct ops *o, const float *logits)
{
    int n, rc = 0;

    for (int i = 0; i < c->n; i++) {
        const struct entry *e = &c->entries[i];
        struct ops_choose_row *row = &c->rows[i];

        row->seen = c->ids + e->seen;
        row->banned = c->ids + e->banned;
        row->ret_ids = c->found_ids + e->found;
        row->ret_values = c->values + e->found;
        row->ret_logprobs = c->logprobs + e->found;
    }
    for (int i = 0; rc == 0 && i < c->n; i += n) {
        for (n = 1; i + n < c->n && c->entries[i + n].logits_row == c->entries[i].logits_row + n; n++)
            ;
        rc = choose(c, o, logits, i, n);
        if (rc == -EDOM)
            rc = choose_each(c, o, logits, i, n);
    }
    return rc;
}

struct group_choice choice_get(const struct choice *c, int entry)
{
    const struct entry *e = &c->entries[entry];

    return (struct group_choice){c->found_ids + e->found, c->values + e->found, c->logprobs + e->found, e->none};
}
