#include "tensor/cpu.h"
#include "tensor/sampler.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>

/* From logits to tokens as sampler.c defines it, but without sorting the vocabulary. One pass takes the maximum of
 * every few dozen logits, and only groups whose maximum beats the worst of the best so far are looked into. Ids with a
 * penalty or a ban are few: they are left out at first and offered with their own scores afterwards, so that a row is
 * copied only when it is sampled from. */

enum { DRAW_BLOCK = 1024 /* weights added up at a time while drawing */ };

enum listed { LISTED_NOT, LISTED_SEEN, LISTED_BANNED };

/* A score and what decides among equal scores, as one number; the larger comes first. 0: none. */
typedef uint64_t rank;

/* Scratch of one thread. */
struct sampling {
    const struct cpu_kernels *kernels;
    const struct ops_sample_row *row;
    const float *logits; /* [vocab] */
    int64_t vocab, n_maxima;
    double log_sum;
    float *maxima;           /* of the logits, or of the scores when sampling */
    float *scores, *weights; /* [vocab], when sampling; weight: e^(score - the largest) */
    rank *best;              /* a heap, the worst on top */
    unsigned char *listed;   /* [vocab] of enum listed, all LISTED_NOT between rows */
};

static int64_t most_maxima(int64_t vocab)
{
    return vocab / CPU_MAXIMA_VECTORS + CPU_LANES;
}

static size_t sampling_bytes(int64_t vocab)
{
    return (size_t)cpu_round_up(most_maxima(vocab) * 4 + vocab * (8 + 4 + 4 + 1), 64);
}

static struct sampling sampling_init(const struct cpu_kernels *kernels, int64_t vocab, unsigned char *memory)
{
    struct sampling s = {.kernels = kernels, .vocab = vocab, .best = (rank *)memory};

    s.scores = (void *)(s.best + vocab);
    s.weights = s.scores + vocab;
    s.maxima = s.weights + vocab;
    s.listed = (unsigned char *)(s.maxima + most_maxima(vocab));
    memset(s.listed, LISTED_NOT, (size_t)vocab);
    return s;
}

/* -- the best -- */

static rank rank_of(float score, uint32_t tie)
{
    const float x = score + 0.0f; /* -0 and 0 are equal */
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    bits ^= (0 - (bits >> 31)) | 0x80000000u; /* no branch: it would be unpredictable */
    return (rank)bits << 32 | tie;
}

/* NaN for none. */
static float score_in(rank r)
{
    uint32_t bits = (uint32_t)(r >> 32);
    float score;

    bits = bits >> 31 ? bits & 0x7fffffffu : ~bits;
    memcpy(&score, &bits, sizeof(score));
    return score;
}

/* Replaces the worst of the n best if r is better. */
static void offer(rank *best, int n, rank r)
{
    int i = 0;

    if (r <= best[0])
        return;
    for (int child = 1; child < n; i = child, child = 2 * i + 1) {
        child += child + 1 < n && best[child + 1] < best[child];
        if (r <= best[child])
            break;
        best[i] = best[child];
    }
    best[i] = r;
}

/* Returns the largest of x. */
static float find_maxima(struct sampling *s, const float *x, bool *ret_all_finite)
{
    float max = -HUGE_VALF;

    s->n_maxima = s->kernels->lane_maxima(x, s->vocab, s->maxima, ret_all_finite);
    for (int64_t i = 0; i < s->n_maxima; i++)
        max = s->maxima[i] > max ? s->maxima[i] : max;
    return max;
}

/* The n best of the ids in no list. x: what the maxima are of. */
static void find_best(struct sampling *s, const float *x, bool log_softmax, int n)
{
    const int64_t lanes = s->kernels->lanes, chunk = lanes * CPU_MAXIMA_VECTORS;
    const float *max = s->maxima;

    memset(s->best, 0, (size_t)n * sizeof(*s->best));
    for (int64_t first = 0; first < s->vocab; first += chunk) {
        const int64_t end = s->vocab - first < chunk ? s->vocab : first + chunk;

        for (int64_t begin = first; begin < first + lanes; begin++) {
            if (sampler_score(log_softmax, *max++, s->log_sum) < score_in(s->best[0]))
                continue;
            for (int64_t i = begin; i < end; i += lanes)
                if (s->listed[i] == LISTED_NOT)
                    offer(s->best, n, rank_of(sampler_score(log_softmax, x[i], s->log_sum), ~(uint32_t)i));
        }
    }
}

static void mark(struct sampling *s, const int32_t *ids, int n, enum listed as)
{
    for (int i = 0; i < n; i++) {
        assert(ids[i] >= 0 && ids[i] < s->vocab);
        s->listed[ids[i]] = (unsigned char)as;
    }
}

/* Offers the ids that carry this mark, each once, and removes the mark. */
static void offer_marked(struct sampling *s, const int32_t *ids, int n, enum listed as)
{
    const struct ops_sample_row *row = s->row;

    for (int i = 0; i < n; i++) {
        const float score = sampler_score(row->log_softmax, s->logits[ids[i]], s->log_sum);

        if (s->listed[ids[i]] != as)
            continue;
        s->listed[ids[i]] = LISTED_NOT;
        offer(s->best, row->n_best,
              rank_of(as == LISTED_BANNED ? -HUGE_VALF : sampler_penalised(row, score), ~(uint32_t)ids[i]));
    }
}

/* From a heap to a list in order, the best first. */
static void sort_best(rank *best, int n)
{
    while (n-- > 0) {
        const rank worst = best[0];

        offer(best, n, best[n]);
        best[n] = worst;
    }
}

static int sample_best(struct sampling *s)
{
    const struct ops_sample_row *row = s->row;

    mark(s, row->seen, row->n_seen, LISTED_SEEN);
    mark(s, row->banned, row->n_banned, LISTED_BANNED);
    find_best(s, s->logits, row->log_softmax, row->n_best);
    offer_marked(s, row->seen, row->n_seen, LISTED_SEEN);
    offer_marked(s, row->banned, row->n_banned, LISTED_BANNED);
    sort_best(s->best, row->n_best);
    if (!isfinite(score_in(s->best[0])))
        return -EDOM;
    for (int i = 0; i < row->n_best; i++) {
        row->ret_ids[i] = (int32_t) ~(uint32_t)s->best[i];
        row->ret_values[i] = score_in(s->best[i]);
        row->ret_logprobs[i] = (float)(s->logits[row->ret_ids[i]] - s->log_sum);
    }
    return 0;
}

/* -- sampling -- */

/* Lower scores get no weight, nor do lower ids with this score. */
static void cut_weights(struct sampling *s, float least, int64_t lowest_id)
{
    for (int64_t i = 0; i < lowest_id; i++)
        s->weights[i] = s->scores[i] > least ? s->weights[i] : 0;
    for (int64_t i = lowest_id; i < s->vocab; i++)
        s->weights[i] = s->scores[i] >= least ? s->weights[i] : 0;
}

/* The weights of the ranks down to the one returned reach `mass`. The low half of a rank is its id. Each turn splits
 * the ranks at one of them and goes on with one side. */
static rank find_nucleus_end(const float *weights, rank *r, int64_t n, double mass)
{
    for (;;) {
        const rank pivot = r[n / 2];
        int64_t n_better = 0;
        double better = 0;

        r[n / 2] = r[n - 1];
        for (int64_t i = 0; i < n - 1; i++) {
            const rank here = r[i];

            r[i] = r[n_better];
            r[n_better] = here;
            n_better += here > pivot;
        }
        for (int64_t i = 0; i < n_better; i++)
            better += (double)weights[(uint32_t)r[i]];
        if (n_better > 0 && better >= mass) {
            n = n_better;
            continue;
        }
        mass -= better + (double)weights[(uint32_t)pivot];
        if (mass <= 0 || n_better == n - 1)
            return pivot;
        r += n_better;
        n -= n_better + 1;
    }
}

/* top_p. Among equals the lowest ids go first. */
static void cut_nucleus(struct sampling *s, float max, double mass)
{
    /* All that lie below this have less than 1 - top_p together. */
    const float floor = max - 1 - logf((float)s->vocab / (1 - s->row->top_p));
    int64_t n = 0;
    rank end;

    for (int64_t i = 0; i < s->vocab; i++) {
        s->best[n] = rank_of(s->scores[i], (uint32_t)i);
        n += s->scores[i] >= floor;
    }
    end = find_nucleus_end(s->weights, s->best, n, mass);
    cut_weights(s, score_in(end), (uint32_t)end);
}

static double sum_of(const float *weights, int64_t n)
{
    double sum[8] = {0}, all = 0;

    for (; n >= 8; n -= 8, weights += 8)
        for (int j = 0; j < 8; j++)
            sum[j] += (double)weights[j];
    for (int j = 0; j < 8; j++)
        all += sum[j] + (j < n ? (double)weights[j] : 0);
    return all;
}

/* The first id at which the sum of weights passes uniform * sum. */
static int32_t draw(const float *weights, int64_t n, double wanted)
{
    int64_t found = 0, i = 0;
    double passed = 0;

    for (; i + DRAW_BLOCK < n; i += DRAW_BLOCK) {
        const double block = sum_of(weights + i, DRAW_BLOCK);

        if (passed + block > wanted)
            break;
        passed += block;
    }
    for (; i < n && passed <= wanted; i++)
        if (weights[i] > 0) {
            passed += (double)weights[i];
            found = i;
        }
    return (int32_t)found;
}

static int sample_draw(struct sampling *s)
{
    const struct ops_sample_row *row = s->row;
    float max;
    bool all_finite;
    int32_t id;
    double sum;

    sampler_scores(row, s->logits, s->vocab, s->log_sum, s->scores);
    max = find_maxima(s, s->scores, &all_finite); /* not all: banned ones are not */
    if (!isfinite(max))
        return -EDOM;
    s->kernels->exp(s->scores, s->vocab, max, s->weights);
    if (row->top_k > 0 && row->top_k < s->vocab) {
        find_best(s, s->scores, false, row->top_k);
        cut_weights(s, score_in(s->best[0]), 0);
    }
    sum = sum_of(s->weights, s->vocab);
    if (row->top_p < 1) {
        cut_nucleus(s, max, (double)row->top_p * sum);
        sum = sum_of(s->weights, s->vocab);
    }
    id = draw(s->weights, s->vocab, (double)row->uniform * sum);
    row->ret_ids[0] = id;
    row->ret_values[0] = (float)((double)s->weights[id] / sum);
    row->ret_logprobs[0] = (float)(s->logits[id] - s->log_sum);
    return 0;
}

static int sample_row(struct sampling *s, const struct ops_sample_row *row, const float *logits)
{
    bool all_finite;
    float max;

    assert(row->n_best >= 1 && row->n_best <= s->vocab && (!row->sample || row->n_best == 1));
    s->row = row;
    s->logits = logits;
    max = find_maxima(s, logits, &all_finite);
    if (!all_finite)
        return -EDOM;
    s->log_sum = max + log(s->kernels->sum_exp(logits, s->vocab, max));
    return row->sample ? sample_draw(s) : sample_best(s);
}

struct rows {
    const struct ops_cpu *cpu;
    const struct ops_sample_args *args;
    unsigned char *scratch;
    size_t per_thread;
    _Atomic bool failed; /* a row is not finite, or has nothing left to choose */
};

static void sample_some(void *arg, int64_t begin, int64_t end, int thread)
{
    struct rows *t = arg;
    const struct ops_sample_args *a = t->args;
    struct sampling s = sampling_init(t->cpu->kernels, a->vocab, t->scratch + (size_t)thread * t->per_thread);

    for (int64_t r = begin; r < end; r++)
        if (sample_row(&s, &a->rows[r], a->logits + r * a->ld) < 0)
            t->failed = true;
}

int cpu_sample(struct ops *o, const struct ops_sample_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    const double work = 30.0 * (double)a->n_rows * (double)a->vocab;
    struct rows t = {.cpu = c, .args = a, .per_thread = sampling_bytes(a->vocab)};
    void *scratch;

    assert(a->vocab >= 1 && a->vocab <= a->ld && a->vocab <= INT32_MAX);
    if (cpu_scratch(c, t.per_thread * (size_t)cpu_threads_for(c, work), &scratch) < 0)
        return -ENOMEM;
    t.scratch = scratch;
    cpu_share(c, work, a->n_rows, 1, sample_some, &t);
    return t.failed ? -EDOM : 0;
}
