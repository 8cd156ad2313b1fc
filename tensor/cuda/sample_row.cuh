/* sample_row.cuh - reductions over a row of logits for sampling: scores, their order, sums, the largest ones.
 *
 * A block works on one row. A score and its id make one number (`ordered`); the larger comes first. No two are equal,
 * so "the k best" is a simple bound. Weights are integers (2^40 for the largest score), so that their sums do not
 * depend on the order.
 * Who may call: sample.cu and sample_draw.cuh; all threads of the block together unless stated otherwise.
 * Units: natural logarithms.
 * Memory: the block's shared memory, struct sample_shared.
 * Errors: none. */
#ifndef BLIPLINE_TENSOR_CUDA_SAMPLE_ROW_CUH
#define BLIPLINE_TENSOR_CUDA_SAMPLE_ROW_CUH

#include <float.h>
#include <math.h>
#include <string.h>

#include "tensor/cuda/rows.cuh"

enum {
    SAMPLE_THREADS = 512,
    SAMPLE_WARPS = SAMPLE_THREADS / CUDA_WARP,
    SAMPLE_LIST = 1024, /* entries sorted in shared memory; also the number of buckets and tallies */
    SAMPLE_LOADS = 4,   /* loads in flight per thread */
};

typedef unsigned long long ordered; /* score and id; 0: none */
typedef unsigned long long mass;    /* a sum of weights, or a count */

/* A mass in memory that several threads add to. */
struct tally {
    unsigned low, high;
};

/* The options of one row, from the host. */
struct sample_desc {
    int32_t log_softmax, sample, n_best, top_k, n_seen, n_banned;
    int32_t first_seen; /* index in the lists; its banned ids follow the seen ones */
    int32_t first_best; /* index in the results */
    float repetition_penalty, temperature, top_p, uniform;
};

struct sample_result {
    int32_t id;
    float value, logprob;
};

struct sample_job {
    const float *logits; /* [n_rows, ld] */
    int64_t ld;
    int vocab, mark_words; /* words of 32 marks per row; 0: no row has a list */
    const struct sample_desc *rows;
    const int32_t *lists;
    unsigned *marks; /* [n_rows, 2, mark_words]; NULL: they are in shared memory */
    ordered *spill;  /* [n_rows, spill_length] for more than SAMPLE_LIST; NULL: not needed */
    int64_t spill_length;
    int32_t *failed; /* [n_rows] */
    struct sample_result *results;
};

struct sample_found {
    int at;
    mass before;
};

struct sample_shared {
    ordered list[SAMPLE_LIST];
    struct tally masses[SAMPLE_LIST], sums[SAMPLE_LIST];
    unsigned counts[SAMPLE_LIST];
    double slots[SAMPLE_WARPS]; /* of join */
    mass segments[CUDA_WARP];   /* of find_first */
    struct sample_found found;
    int n_listed;
    unsigned marks[1]; /* [2, mark_words] */
};

/* Every thread's view of its row. */
struct choosing {
    struct sample_shared *s;
    const struct sample_desc *d;
    const float *logits;
    int vocab;
    unsigned id_bits; /* all bits that an id can have */
    const int32_t *seen, *banned;
    const unsigned *seen_marks, *banned_marks; /* NULL: the row has no lists */
    double log_sum;
    float max, per_unit; /* sampling: the largest score; buckets per unit */
};

/* -- the block -- */

/* f over all threads' x, in a fixed order; f commutes. */
template <typename T, typename F> static __device__ T join(const struct choosing *c, T x, F f)
{
    T *slots = (T *)c->s->slots;

    for (int i = CUDA_WARP / 2; i > 0; i /= 2)
        x = f(x, __shfl_xor_sync(0xffffffffu, x, i));
    __syncthreads();
    if (threadIdx.x % CUDA_WARP == 0)
        slots[threadIdx.x / CUDA_WARP] = x;
    __syncthreads();
    x = slots[0];
    for (int i = 1; i < SAMPLE_WARPS; i++)
        x = f(x, slots[i]);
    return x;
}
template <typename T> static __device__ T join_sum(const struct choosing *c, T x)
{
    return join(c, x, [](T a, T b) { return a + b; });
}
template <typename T> static __device__ T join_max(const struct choosing *c, T x)
{
    return join(c, x, [](T a, T b) { return a > b ? a : b; });
}

/* Called by one thread. */
static __device__ __forceinline__ void tally_add(struct tally *t, mass m)
{
    const unsigned low = (unsigned)m;
    unsigned high = (unsigned)(m >> 32);

    if (low != 0)
        high += atomicAdd(&t->low, low) > ~low; /* carry */
    if (high != 0)
        atomicAdd(&t->high, high);
}
static __device__ __forceinline__ mass tally_mass(const struct tally *t)
{
    return (mass)t->high << 32 | t->low;
}

/* The index `at` < n <= SAMPLE_LIST where the sum of get(0) .. get(at) first reaches `target` (n - 1 if never), and
 * the sum before it. */
template <typename F>
static __device__ struct sample_found find_first(const struct choosing *c, int n, mass target, F get)
{
    struct sample_shared *s = c->s;
    const int each = (n + CUDA_WARP - 1) / CUDA_WARP, thread = (int)threadIdx.x;

    __syncthreads();
    if (thread < CUDA_WARP) {
        mass sum = 0;

        for (int i = 0; i < each; i++) { /* start at different offsets, so that the lanes use different banks */
            const int at = thread * each + (i + thread) % each;

            sum += at < n ? get(at) : 0;
        }
        s->segments[thread] = sum;
    }
    __syncthreads();
    if (thread == 0) {
        struct sample_found f = {0, 0};
        int segment = 0;

        while (segment + 1 < CUDA_WARP && f.before + s->segments[segment] < target)
            f.before += s->segments[segment++];
        for (f.at = segment * each; f.at + 1 < n && f.before + get(f.at) < target; f.at++)
            f.before += get(f.at);
        s->found = f;
    }
    __syncthreads();
    return s->found;
}

/* Pads the n numbers with 0 to a power of two (x has room) and sorts them, the largest first. */
static __device__ void sort_down(ordered *x, int64_t n)
{
    int64_t size = 1;

    while (size < n)
        size *= 2;
    for (int64_t i = n + (int)threadIdx.x; i < size; i += SAMPLE_THREADS)
        x[i] = 0;
    for (int64_t run = 2; run <= size; run *= 2)
        for (int64_t apart = run / 2; apart > 0; apart /= 2) {
            __syncthreads();
            for (int64_t pair = (int)threadIdx.x; pair < size / 2; pair += SAMPLE_THREADS) {
                const int64_t i = 2 * pair - (pair & (apart - 1));
                const ordered a = x[i], b = x[i + apart];

                if ((i & run) == 0 ? a < b : a > b) {
                    x[i] = b;
                    x[i + apart] = a;
                }
            }
        }
    __syncthreads();
}

/* -- the row -- */

/* f(id, logits of id .. id + VEC - 1, how many of them there are): all threads call it equally often; a warp's ids
 * are adjacent, each thread's ascend. */
template <int VEC, typename F> static __device__ __forceinline__ void each_pack(const struct choosing *c, F f)
{
    const int64_t step = SAMPLE_THREADS * VEC;

    for (int64_t base = 0; base < c->vocab; base += step * SAMPLE_LOADS) {
        piece<float, VEC> x[SAMPLE_LOADS] = {};

        if (base + step * SAMPLE_LOADS <=
            c->vocab) { /* no branch between the loads, so that all are in flight at once */
#pragma unroll
            for (int u = 0; u < SAMPLE_LOADS; u++)
                x[u] = load_piece<float, VEC>(c->logits + base + u * step + (int)threadIdx.x * VEC);
        } else {
            for (int u = 0; u < SAMPLE_LOADS; u++)
                for (int i = 0; i < VEC; i++) {
                    const int64_t id = base + u * step + (int)threadIdx.x * VEC + i;

                    x[u].v[i] = id < c->vocab ? c->logits[id] : 0;
                }
        }
        for (int u = 0; u < SAMPLE_LOADS; u++) {
            const int64_t id = base + u * step + (int)threadIdx.x * VEC, left = c->vocab - id;

            if (base + u * step < c->vocab)
                f((int)id, x[u], left >= VEC ? VEC : left > 0 ? (int)left : 0);
        }
    }
}

static __device__ __forceinline__ bool is_marked(const unsigned *marks, int id)
{
    return marks[id / 32] >> (id % 32) & 1;
}
static __device__ __forceinline__ bool is_listed(const struct choosing *c, int id)
{
    return c->seen_marks && (is_marked(c->seen_marks, id) || is_marked(c->banned_marks, id));
}

static __device__ __forceinline__ float unlisted_score(const struct choosing *c, float logit)
{
    return c->d->log_softmax ? (float)((double)logit - c->log_sum) : logit;
}

/* The processed score; when sampling, divided by the temperature. */
static __device__ __forceinline__ float score_of(const struct choosing *c, int id, float logit)
{
    float x = unlisted_score(c, logit);

    if (c->seen_marks) {
        if (is_marked(c->seen_marks, id))
            x = x < 0 ? x * c->d->repetition_penalty : x / c->d->repetition_penalty;
        if (is_marked(c->banned_marks, id))
            x = -INFINITY;
    }
    return c->d->sample ? x / c->d->temperature : x;
}

/* The largest score first; among equals the lowest id, but when sampling the highest, as top_p requires. */
static __device__ __forceinline__ ordered order_of(const struct choosing *c, int id, float score)
{
    const float x = score == 0 ? 0 : score; /* -0 and 0 are equal */
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (ordered)bits << 32 | (c->d->sample ? (unsigned)id : ~(unsigned)id & c->id_bits);
}
static __device__ __forceinline__ int id_of(const struct choosing *c, ordered x)
{
    return (int)(c->d->sample ? (unsigned)x : ~(unsigned)x & c->id_bits);
}
static __device__ __forceinline__ float score_in(ordered x)
{
    uint32_t bits = (uint32_t)(x >> 32);
    float score;

    bits = bits >> 31 ? bits & 0x7fffffffu : ~bits;
    memcpy(&score, &bits, sizeof(score));
    return score;
}

static __device__ void mark_lists(const struct sample_job *j, struct choosing *c)
{
    unsigned *marks = j->marks ? j->marks + blockIdx.x * (int64_t)(2 * j->mark_words) : c->s->marks;

    c->seen_marks = c->banned_marks = NULL;
    if (c->d->n_seen == 0 && c->d->n_banned == 0)
        return;
    for (int i = (int)threadIdx.x; i < 2 * j->mark_words; i += SAMPLE_THREADS)
        marks[i] = 0;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < c->d->n_seen; i += SAMPLE_THREADS)
        atomicOr(&marks[c->seen[i] / 32], 1u << (c->seen[i] % 32));
    for (int i = (int)threadIdx.x; i < c->d->n_banned; i += SAMPLE_THREADS)
        atomicOr(&marks[j->mark_words + c->banned[i] / 32], 1u << (c->banned[i] % 32));
    __syncthreads();
    c->seen_marks = marks;
    c->banned_marks = marks + j->mark_words;
}

/* Results of a thread's scan over ids that are in no list: the id with the largest logit, the lowest among equals;
 * and the smallest finite logit. */
struct scanned {
    int best_id; /* -1: none above -inf */
    float best, least;
};

/* One pass over the row: computes c->log_sum and `scanned`. The sum is relative to the largest logit so far; groups
 * of four are added in f32, the groups in double. A logit that is not finite makes it NaN. */
template <int VEC> static __device__ struct scanned scan_logits(struct choosing *c)
{
    struct scanned r = {-1, -INFINITY, FLT_MAX};
    float max = -FLT_MAX, max_of_all;
    double sum = 0;

    each_pack<VEC>(c, [&](int id, const piece<float, VEC> &x, int n) {
        float top = max, part = 0;

        for (int i = 0; i < VEC; i++)
            top = i < n ? fmaxf(top, x.v[i]) : top;
        if (top > max) {
            sum *= (double)expf(max - top);
            max = top;
        }
        for (int i = 0; i < VEC; i++)
            part += i < n ? expf(x.v[i] - max) + x.v[i] * 0 : 0;
        sum += (double)part;
        for (int i = 0; i < VEC; i++)
            if (i < n && x.v[i] > -INFINITY && !is_listed(c, id + i)) {
                r.least = fminf(r.least, x.v[i]);
                r.best_id = x.v[i] > r.best ? id + i : r.best_id;
                r.best = fmaxf(r.best, x.v[i]);
            }
    });
    max_of_all = join_max(c, max);
    sum = join_sum(c, sum * exp((double)max - (double)max_of_all));
    c->log_sum = (double)max_of_all + log(sum);
    return r;
}

/* The thread's best id, from the row and from the list of seen ids. */
static __device__ ordered best_of_thread(const struct choosing *c, const struct scanned *r)
{
    ordered best = r->best_id < 0 ? 0 : order_of(c, r->best_id, score_of(c, r->best_id, r->best));

    for (int i = (int)threadIdx.x; i < c->d->n_seen; i += SAMPLE_THREADS) {
        const int id = c->seen[i];
        const ordered x = order_of(c, id, score_of(c, id, c->logits[id]));

        best = x > best ? x : best;
    }
    return best;
}

/* Lists, in any order, the numbers for which is_in(number, score) is true; returns their count, which may exceed the
 * capacity. */
template <int VEC, typename F>
static __device__ int list_scores(const struct choosing *c, ordered *list, int64_t capacity, F is_in)
{
    __syncthreads();
    if (threadIdx.x == 0)
        c->s->n_listed = 0;
    __syncthreads();
    each_pack<VEC>(c, [&](int id, const piece<float, VEC> &x, int n) {
        for (int i = 0; i < VEC; i++) {
            const float score = i < n ? score_of(c, id + i, x.v[i]) : -INFINITY;
            const ordered number = order_of(c, id + i, score);

            if (i < n && is_in(number, score)) {
                const int at = atomicAdd(&c->s->n_listed, 1);

                if (at < capacity)
                    list[at] = number;
            }
        }
    });
    __syncthreads();
    return c->s->n_listed;
}

/* The largest bound for which the masses of the numbers at or above it reach `target`, found bit by bit. Reads the
 * row about 50 times; only for rows with more equal scores than the list holds. */
template <int VEC, typename F> static __device__ ordered find_bound(const struct choosing *c, mass target, F mass_of)
{
    ordered bound = 0;

    for (int bit = 63; bit >= 0; bit--) {
        const ordered higher = bound | 1ull << bit;
        mass sum = 0;

        if (bit < 32 && !(c->id_bits >> bit & 1))
            continue;
        each_pack<VEC>(c, [&](int id, const piece<float, VEC> &x, int n) {
            for (int i = 0; i < VEC && i < n; i++) {
                const float score = score_of(c, id + i, x.v[i]);
                const ordered number = order_of(c, id + i, score);

                sum += number >= higher ? mass_of(number, score) : 0;
            }
        });
        if (join_sum(c, sum) >= target)
            bound = higher;
    }
    return bound;
}

/* Called by one thread. */
static __device__ void put_result(const struct choosing *c, struct sample_result *to, int id, float value)
{
    *to = {id, value, (float)((double)c->logits[id] - c->log_sum)};
}

#endif
