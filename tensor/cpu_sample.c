#include "tensor/cpu.h"
#include "tensor/cpu_select.h"

#include <assert.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* From logits to tokens as sampler.c defines it, but without sorting the vocabulary: one pass takes the maximum of
 * every few dozen logits, of which the k-th largest bounds the k-th largest logit from below, and only what lies above
 * that is looked at. Penalties and bans touch few ids: those are taken out of the candidates and put back with their
 * own values, so that the row need not be copied unless it is sampled from. */

enum {
    COARSE = 64, /* vectors that share a maximum in each lane; FINE where many candidates are wanted */
    FINE = 8,
    SUM_BLOCK = 1024, /* weights added up at a time while drawing */
    BUCKETS = 1024    /* of values, for top_p */
};

/* Scratch of one thread. */
struct choosing {
    const struct cpu_kernels *kernels;
    const struct ops_sample_row *row;
    const float *logits; /* [vocab] */
    int64_t vocab, n_maxima;
    double log_sum;
    bool all_finite;                  /* what find_maxima looked at */
    float *maxima, *maxima_sorted;    /* [most_maxima] */
    float *scores, *weights;          /* [vocab] when sampling */
    int32_t *ids;                     /* [vocab] */
    struct cpu_candidate *candidates; /* [vocab] */
    int64_t n_candidates;
    uint64_t *taken; /* a bit for each id, all 0 between rows */
};

static int64_t most_maxima(int64_t vocab)
{
    return vocab / FINE + 2 * CPU_LANES;
}

static size_t choosing_bytes(int64_t vocab)
{
    const int64_t bytes = 2 * most_maxima(vocab) * 4 + vocab * (4 + 4 + 4 + (int64_t)sizeof(struct cpu_candidate)) +
                          (vocab / 64 + 1) * 8 + 64 * 8;

    return (size_t)cpu_round_up(bytes, 64);
}

static void *carve(unsigned char **at, int64_t bytes)
{
    void *p = *at;

    *at += cpu_round_up(bytes, 64);
    return p;
}

static struct choosing choosing_init(const struct ops_cpu *c, int64_t vocab, unsigned char *memory)
{
    struct choosing s = {.kernels = c->kernels, .vocab = vocab};

    s.maxima = carve(&memory, most_maxima(vocab) * 4);
    s.maxima_sorted = carve(&memory, most_maxima(vocab) * 4);
    s.scores = carve(&memory, vocab * 4);
    s.weights = carve(&memory, vocab * 4);
    s.ids = carve(&memory, vocab * 4);
    s.candidates = carve(&memory, vocab * (int64_t)sizeof(struct cpu_candidate));
    s.taken = carve(&memory, (vocab / 64 + 1) * 8);
    memset(s.taken, 0, (size_t)(vocab / 64 + 1) * 8);
    return s;
}

/* -- candidates -- */

/* Every lane's maximum over a chunk, as fine as `n_wanted` asks for; the largest of all. */
static float find_maxima(struct choosing *s, const float *x, int64_t n_wanted)
{
    const int chunk = n_wanted * 2 * COARSE <= s->vocab ? COARSE : FINE;
    float max = -HUGE_VALF;

    s->n_maxima = s->kernels->lane_maxima(x, s->vocab, chunk, s->maxima, &s->all_finite);
    for (int64_t i = 0; i < s->n_maxima; i++)
        max = s->maxima[i] > max ? s->maxima[i] : max;
    return max;
}

static void add_candidate(struct choosing *s, int32_t id, float value)
{
    s->candidates[s->n_candidates++] = (struct cpu_candidate){.value = value, .id = id};
}

/* At least the n_wanted largest of x, and all that are within `margin` of the last of them; order undefined. */
static void find_candidates(struct choosing *s, const float *x, int64_t n_wanted, float margin)
{
    const int64_t lanes = s->kernels->lanes;
    const int64_t chunk = lanes * (n_wanted * 2 * COARSE <= s->vocab ? COARSE : FINE);
    float least = -HUGE_VALF;

    s->n_candidates = 0;
    if (n_wanted <= s->n_maxima) {
        memcpy(s->maxima_sorted, s->maxima, (size_t)s->n_maxima * sizeof(float));
        least = cpu_kth_largest(s->maxima_sorted, s->n_maxima, n_wanted) - margin;
    }
    if (!(least > -HUGE_VALF)) {
        for (int64_t i = 0; i < s->vocab; i++)
            add_candidate(s, (int32_t)i, x[i]);
        return;
    }
    for (int64_t m = 0; m < s->n_maxima; m++) {
        const int64_t first = m / lanes * chunk, end = s->vocab - first < chunk ? s->vocab : first + chunk;

        if (s->maxima[m] >= least)
            for (int64_t i = first + m % lanes; i < end; i += lanes)
                if (x[i] >= least)
                    add_candidate(s, (int32_t)i, x[i]);
    }
}

static uint64_t bit_of(int32_t id)
{
    return 1ull << ((uint32_t)id % 64);
}

/* Whether it was free before. */
static bool take(struct choosing *s, int32_t id)
{
    uint64_t *word;
    bool was_free;

    assert(id >= 0 && id < s->vocab);
    word = &s->taken[id / 64];
    was_free = !(*word & bit_of(id));
    *word |= bit_of(id);
    return was_free;
}

static void give_back(struct choosing *s)
{
    for (int i = 0; i < s->row->n_banned; i++)
        s->taken[s->row->banned[i] / 64] = 0;
    for (int i = 0; i < s->row->n_seen; i++)
        s->taken[s->row->seen[i] / 64] = 0;
}

/* What comes before bans and temperature. */
static float score_of(const struct choosing *s, int32_t id, bool seen)
{
    float x = s->row->log_softmax ? (float)(s->logits[id] - s->log_sum) : s->logits[id];

    if (seen)
        x = x < 0 ? x * s->row->repetition_penalty : x / s->row->repetition_penalty;
    return x;
}

/* The candidates' logits become scores; banned and seen ids get theirs, whether they were candidates or not. */
static void score_candidates(struct choosing *s)
{
    const struct ops_sample_row *row = s->row;
    int64_t n = s->n_candidates;

    for (int i = 0; i < row->n_banned; i++)
        (void)take(s, row->banned[i]);
    for (int i = 0; i < row->n_seen; i++)
        (void)take(s, row->seen[i]);
    s->n_candidates = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t id = s->candidates[i].id;

        if (!(s->taken[id / 64] & bit_of(id)))
            add_candidate(s, id, score_of(s, id, false));
    }
    give_back(s);
    for (int i = 0; i < row->n_banned; i++)
        if (take(s, row->banned[i]))
            add_candidate(s, row->banned[i], -HUGE_VALF);
    for (int i = 0; i < row->n_seen; i++)
        if (take(s, row->seen[i]))
            add_candidate(s, row->seen[i], score_of(s, row->seen[i], true));
    give_back(s);
}

static int sample_best(struct choosing *s)
{
    const struct ops_sample_row *row = s->row;
    int64_t n_wanted = (int64_t)row->n_best + row->n_seen + row->n_banned;
    float max, margin = 0;

    n_wanted = n_wanted < s->vocab ? n_wanted : s->vocab;
    max = find_maxima(s, s->logits, n_wanted);
    if (!s->all_finite)
        return -EDOM;
    s->log_sum = max + log(s->kernels->sum_exp(s->logits, s->vocab, max));
    if (row->log_softmax) /* logits that differ by less may become equal */
        margin = 4 * FLT_EPSILON * (fabsf(max) + (float)fabs(s->log_sum) + 16);
    find_candidates(s, s->logits, n_wanted, margin);
    score_candidates(s);
    cpu_select_best(s->candidates, s->n_candidates, row->n_best);
    if (!isfinite(s->candidates[0].value))
        return -EDOM;
    for (int i = 0; i < row->n_best; i++) {
        row->ret_ids[i] = s->candidates[i].id;
        row->ret_values[i] = s->candidates[i].value;
        row->ret_logprobs[i] = (float)(s->logits[s->candidates[i].id] - s->log_sum);
    }
    return 0;
}

/* -- sampling -- */

/* The whole row as it is sampled from: scores / temperature. */
static void warp_scores(struct choosing *s)
{
    const struct ops_sample_row *row = s->row;
    const float *x = s->logits, temperature = row->temperature;
    const double shift = s->log_sum;
    float *to = s->scores;

    if (row->log_softmax)
        for (int64_t i = 0; i < s->vocab; i++)
            to[i] = (float)(x[i] - shift) / temperature;
    else
        for (int64_t i = 0; i < s->vocab; i++)
            to[i] = x[i] / temperature;
    for (int i = 0; i < row->n_seen; i++)
        to[row->seen[i]] = score_of(s, row->seen[i], true) / temperature;
    for (int i = 0; i < row->n_banned; i++)
        to[row->banned[i]] = -HUGE_VALF;
}

static int compare_ids(const void *left, const void *right)
{
    const struct cpu_candidate *a = left, *b = right;

    return a->id < b->id ? -1 : a->id > b->id;
}

/* The ids that top_k leaves, or top_p may leave, ascending; returns how many. */
static int64_t find_ids(struct choosing *s, float max)
{
    const struct ops_sample_row *row = s->row;
    int64_t n = 0;
    float least;

    if (row->top_k > 0 && row->top_k < s->vocab) {
        find_candidates(s, s->scores, row->top_k, 0);
        cpu_select_best(s->candidates, s->n_candidates, row->top_k);
        least = s->candidates[row->top_k - 1].value;
        for (int64_t i = 0; i < s->n_candidates; i++)
            if (s->candidates[i].value >= least)
                s->candidates[n++] = s->candidates[i];
        qsort(s->candidates, (size_t)n, sizeof(*s->candidates), compare_ids);
        for (int64_t i = 0; i < n; i++)
            s->ids[i] = s->candidates[i].id;
        return n;
    }
    /* All that lie below this have less than 1 - top_p together. */
    least = max - 1 - logf((float)s->vocab / (1 - row->top_p));
    for (int64_t i = 0; i < s->vocab; i++) {
        s->ids[n] = (int32_t)i;
        n += s->scores[i] >= least;
    }
    return n;
}

static double sum_weights(const float *weights, int64_t n)
{
    const int64_t whole = n / 8 * 8;
    double sum[8] = {0}, rest = 0;

    for (int64_t i = 0; i < whole; i += 8)
        for (int j = 0; j < 8; j++)
            sum[j] += (double)weights[i + j];
    for (int64_t i = whole; i < n; i++)
        rest += (double)weights[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])) + rest;
}

/* The first place at which the sum of weights passes uniform * sum. */
static int64_t draw(const float *weights, int64_t n, double sum, float uniform)
{
    const double wanted = (double)uniform * sum;
    int64_t found = 0, i = 0;
    double passed = 0;

    for (; i + SUM_BLOCK < n; i += SUM_BLOCK) {
        double block = sum_weights(weights + i, SUM_BLOCK);

        if (passed + block > wanted)
            break;
        passed += block;
    }
    for (; i < n && passed <= wanted; i++)
        if (weights[i] > 0) {
            passed += (double)weights[i];
            found = i;
        }
    return found;
}

static int bucket_of(float value, float max, float buckets_per_unit)
{
    const float bucket = (max - value) * buckets_per_unit;

    return bucket < BUCKETS - 1 ? (int)bucket : BUCKETS - 1;
}

/* The last id, largest value first, that top_p keeps. Values are gathered in buckets, of which only the one where the
 * mass is reached is looked into. */
static struct cpu_candidate find_nucleus_end(struct choosing *s, int64_t n, float max, float least, double mass)
{
    const float per_unit = max > least ? (BUCKETS - 1) / (max - least) : 1;
    double sums[BUCKETS] = {0}, above = 0;
    int last = 0;

    for (int64_t i = 0; i < n; i++)
        sums[bucket_of(s->scores[s->ids[i]], max, per_unit)] += (double)s->weights[i];
    for (int b = 0; b < BUCKETS; b++) {
        if (!(sums[b] > 0))
            continue;
        if (above >= mass)
            break;
        above += sums[b];
        last = b;
    }
    s->n_candidates = 0;
    for (int64_t i = 0; i < n; i++) {
        const float value = s->scores[s->ids[i]];

        if (bucket_of(value, max, per_unit) == last)
            s->candidates[s->n_candidates++] =
                (struct cpu_candidate){.value = value, .weight = s->weights[i], .id = s->ids[i]};
    }
    return cpu_nucleus_end(s->candidates, s->n_candidates, mass - (above - sums[last]));
}

/* Of the ids only those that top_p leaves, with their weights; returns how many. */
static int64_t keep_nucleus(struct choosing *s, int64_t n, float max, double sum)
{
    struct cpu_candidate end;
    int64_t kept = 0;
    float least = max;

    for (int64_t i = 0; i < n; i++)
        least = s->scores[s->ids[i]] < least && s->weights[i] > 0 ? s->scores[s->ids[i]] : least;
    end = find_nucleus_end(s, n, max, least, (double)s->row->top_p * sum);
    for (int64_t i = 0; i < n; i++) {
        const struct cpu_candidate c = {.value = s->scores[s->ids[i]], .id = s->ids[i]};

        if (cpu_is_before_in_nucleus(&end, &c))
            continue;
        s->ids[kept] = s->ids[i];
        s->weights[kept++] = s->weights[i];
    }
    return kept;
}

static int sample_draw(struct choosing *s)
{
    const struct ops_sample_row *row = s->row;
    const bool top_k = row->top_k > 0 && row->top_k < s->vocab, all = !top_k && row->top_p >= 1;
    float max = find_maxima(s, s->logits, 1);
    int64_t n = s->vocab, at;
    double sum;

    if (!s->all_finite)
        return -EDOM;
    s->log_sum = max + log(s->kernels->sum_exp(s->logits, s->vocab, max));
    warp_scores(s);
    max = find_maxima(s, s->scores, top_k ? row->top_k : 1);
    if (!isfinite(max))
        return -EDOM;
    if (!all) {
        n = find_ids(s, max);
        for (int64_t i = 0; i < n; i++)
            s->weights[i] = s->scores[s->ids[i]];
    }
    s->kernels->exp(all ? s->scores : s->weights, n, max, s->weights);
    sum = top_k || all ? sum_weights(s->weights, n) : s->kernels->sum_exp(s->scores, s->vocab, max);
    if (row->top_p < 1) {
        n = keep_nucleus(s, n, max, sum);
        sum = sum_weights(s->weights, n);
    }
    at = draw(s->weights, n, sum, row->uniform);
    row->ret_ids[0] = all ? (int32_t)at : s->ids[at];
    row->ret_values[0] = (float)((double)s->weights[at] / sum);
    row->ret_logprobs[0] = (float)(s->logits[row->ret_ids[0]] - s->log_sum);
    return 0;
}

static int sample_row(struct choosing *s, const struct ops_sample_row *row, const float *logits)
{
    assert(row->n_best >= 1 && row->n_best <= s->vocab && (!row->sample || row->n_best == 1));
    s->row = row;
    s->logits = logits;
    return row->sample ? sample_draw(s) : sample_best(s);
}

struct choice {
    const struct ops_cpu *cpu;
    const struct ops_sample_args *args;
    unsigned char *scratch;
    size_t per_thread;
    _Atomic bool failed; /* a row has nothing left to choose */
};

static void sample_some(void *arg, int64_t begin, int64_t end, int thread)
{
    struct choice *t = arg;
    const struct ops_sample_args *a = t->args;
    struct choosing s = choosing_init(t->cpu, a->vocab, t->scratch + (size_t)thread * t->per_thread);

    for (int64_t r = begin; r < end; r++)
        if (sample_row(&s, &a->rows[r], a->logits + r * a->ld) < 0)
            t->failed = true;
}

int cpu_sample(struct ops *o, const struct ops_sample_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    const double work = 30.0 * (double)a->n_rows * (double)a->vocab;
    struct choice t = {.cpu = c, .args = a, .per_thread = choosing_bytes(a->vocab)};
    void *scratch;

    assert(a->vocab >= 1 && a->vocab <= a->ld && a->vocab <= INT32_MAX);
    if (cpu_scratch(c, t.per_thread * (size_t)cpu_threads_for(c, work), &scratch) < 0)
        return -ENOMEM;
    t.scratch = scratch;
    cpu_share(c, work, a->n_rows, 1, sample_some, &t);
    return t.failed ? -EDOM : 0;
}
