#include "llm_worker/sampling.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "llm_worker/beam.h"
#include "llm_worker/penalties.h"
#include "llm_worker/philox.h"
#include "tensor/ops.h"

struct entry {
    int logits_row;
    size_t seen, banned; /* in ids */
    size_t found;        /* in found_ids, values, logprobs */
    bool none;
};

struct sampling {
    int vocab;
    struct penalties *penalties;
    int n, n_max;
    struct entry *entries;       /* [n_max] */
    struct ops_sample_row *rows; /* [n_max] the operator's rows; pointers are filled in at the end */
    size_t n_ids, n_ids_max;
    int32_t *ids; /* [n_ids_max] ids so far, then seen and banned ids */
    size_t n_found, n_found_max;
    int32_t *found_ids; /* [n_found_max] */
    float *values, *logprobs;
};

struct sampling *sampling_new(int vocab)
{
    struct sampling *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->vocab = vocab;
    s->penalties = penalties_new(vocab);
    if (!s->penalties) {
        free(s);
        return NULL;
    }
    return s;
}

void sampling_free(struct sampling *s)
{
    if (!s)
        return;
    penalties_free(s->penalties);
    free(s->entries);
    free(s->rows);
    free(s->ids);
    free(s->found_ids);
    free(s->values);
    free(s->logprobs);
    free(s);
}

void sampling_clear(struct sampling *s)
{
    s->n = 0;
    s->n_ids = 0;
    s->n_found = 0;
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

/* Reserves room for one more entry, n_found results and n_ids ids. */
static int reserve(struct sampling *s, size_t n_found, size_t n_ids)
{
    if (s->n == s->n_max) {
        const int n = 2 * s->n_max + 64;

        if (grow(&s->entries, (size_t)n, sizeof(*s->entries)) < 0 || grow(&s->rows, (size_t)n, sizeof(*s->rows)) < 0)
            return -ENOMEM;
        s->n_max = n;
    }
    if (s->n_found + n_found > s->n_found_max) {
        const size_t n = 2 * (s->n_found + n_found);

        if (grow(&s->found_ids, n, sizeof(*s->found_ids)) < 0 || grow(&s->values, n, sizeof(*s->values)) < 0 ||
            grow(&s->logprobs, n, sizeof(*s->logprobs)) < 0)
            return -ENOMEM;
        s->n_found_max = n;
    }
    if (s->n_ids + n_ids > s->n_ids_max) {
        const size_t n = 2 * (s->n_ids + n_ids);

        if (grow(&s->ids, n, sizeof(*s->ids)) < 0)
            return -ENOMEM;
        s->n_ids_max = n;
    }
    return 0;
}

/* Adds the ids to penalise and to ban; the ids so far are kept only temporarily. */
static void look_back(struct sampling *s, const struct request *q, int sequence, struct entry *e,
                      struct ops_sample_row *row)
{
    const struct generation_options *o = &q->options;
    const size_t n_past = (size_t)(q->n_head + q->n_new);
    int32_t *seen = s->ids + s->n_ids, *banned = seen, *past = banned;
    int n = 0;

    if (o->repetition_penalty != 1 || o->no_repeat_ngram > 0) {
        /* after the space for results: at most n_past seen ids, n_past banned ids and the end-of-sequence ids */
        past = seen + 2 * n_past + (size_t)q->n_eos;
        n = request_ids(q, sequence, past);
    }
    e->seen = s->n_ids;
    if (o->repetition_penalty != 1) {
        row->repetition_penalty = o->repetition_penalty;
        row->n_seen = penalties_seen(s->penalties, past, n, seen);
        banned += row->n_seen;
    }
    e->banned = e->seen + (size_t)row->n_seen;
    row->n_banned = penalties_banned(s->penalties, past, n, o->no_repeat_ngram, q->eos,
                                     q->n_new < o->min_new_tokens ? q->n_eos : 0, banned);
    s->n_ids = e->banned + (size_t)row->n_banned;
}

int sampling_add(struct sampling *s, const struct request *q, int sequence, int logits_row)
{
    const struct generation_options *o = &q->options;
    const int n_best = q->beam ? beam_n_best(q->beam) : 1;
    struct ops_sample_row row = {
        .log_softmax = q->beam != NULL,
        .sample = o->sample,
        .n_best = n_best,
        .repetition_penalty = 1,
        .temperature = o->temperature,
        .top_k = o->top_k,
        .top_p = o->top_p,
    };
    struct entry e = {.logits_row = logits_row, .found = s->n_found};

    if (reserve(s, (size_t)n_best, 3 * (size_t)(q->n_head + q->n_new) + (size_t)q->n_eos) < 0)
        return -ENOMEM;
    if (o->sample)
        row.uniform = philox_uniform(q->key, (uint32_t)q->n_new, (uint32_t)sequence);
    look_back(s, q, sequence, &e, &row);
    s->n_found += (size_t)n_best;
    s->entries[s->n] = e;
    s->rows[s->n] = row;
    return s->n++;
}

static int sample_rows(const struct sampling *s, struct ops *o, const float *logits, int first, int n)
{
    return o->f->sample(o, &(struct ops_sample_args){
                               .n_rows = n,
                               .vocab = s->vocab,
                               .logits = logits + (int64_t)s->entries[first].logits_row * s->vocab,
                               .ld = s->vocab,
                               .rows = s->rows + first,
                           });
}

/* One of these rows has no finite value: runs them one by one to find it, so that the others succeed. */
static int sample_each(struct sampling *s, struct ops *o, const float *logits, int first, int n)
{
    for (int i = first; i < first + n; i++) {
        const struct ops_sample_row *row = &s->rows[i];
        int rc = sample_rows(s, o, logits, i, 1);

        if (rc < 0 && rc != -EDOM)
            return rc;
        s->entries[i].none = rc == -EDOM;
        for (int k = 0; s->entries[i].none && k < row->n_best; k++) {
            row->ret_ids[k] = k;
            row->ret_values[k] = row->ret_logprobs[k] = -HUGE_VALF;
        }
    }
    return 0;
}

int sampling_run(struct sampling *s, struct ops *o, const float *logits)
{
    int n, rc = 0;

    for (int i = 0; i < s->n; i++) {
        const struct entry *e = &s->entries[i];
        struct ops_sample_row *row = &s->rows[i];

        row->seen = s->ids + e->seen;
        row->banned = s->ids + e->banned;
        row->ret_ids = s->found_ids + e->found;
        row->ret_values = s->values + e->found;
        row->ret_logprobs = s->logprobs + e->found;
    }
    for (int i = 0; rc == 0 && i < s->n; i += n) {
        for (n = 1; i + n < s->n && s->entries[i + n].logits_row == s->entries[i].logits_row + n; n++)
            ;
        rc = sample_rows(s, o, logits, i, n);
        if (rc == -EDOM)
            rc = sample_each(s, o, logits, i, n);
    }
    return rc;
}

struct sampling_result sampling_get(const struct sampling *s, int entry)
{
    const struct entry *e = &s->entries[entry];

    return (struct sampling_result){s->found_ids + e->found, s->values + e->found, s->logprobs + e->found, e->none};
}
