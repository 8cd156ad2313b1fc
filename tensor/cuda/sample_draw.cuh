/* sample_draw.cuh - draws one id of a row: temperature, top_k, top_p, softmax.
 *
 * Scores are counted in buckets of equal width below the largest one, with number and weight per bucket. The bound of
 * top_k or top_p is in one bucket; only that one is listed and sorted. The remaining weights are summed by stretches of
 * ids, and the stretch in which the sum exceeds `uniform` is searched. The row is read two to five times. A score more
 * than SAMPLE_RANGE below the largest has less than 2^-41 of its probability and counts as 0.
 * Who may call: sample.cu. Units, Memory, Errors: as sample_row.cuh. */
#ifndef BLIPLINE_TENSOR_CUDA_SAMPLE_DRAW_CUH
#define BLIPLINE_TENSOR_CUDA_SAMPLE_DRAW_CUH

#include "tensor/cuda/sample_row.cuh"

enum { SAMPLE_REST = SAMPLE_LIST - 1 /* the bucket of scores without weight */ };

#define SAMPLE_RANGE 29.0f
#define SAMPLE_ONE 0x1p40f /* the weight of the largest score */

static __device__ __forceinline__ mass weight_of(const struct choosing *c, float score)
{
    const float below = c->max - score;

    return below <= SAMPLE_RANGE ? (mass)(expf(-below) * SAMPLE_ONE) : 0;
}

static __device__ __forceinline__ int bucket_of(const struct choosing *c, float score)
{
    const float below = c->max - score, bucket = below * c->per_unit;

    if (!(below <= SAMPLE_RANGE))
        return SAMPLE_REST;
    return bucket < SAMPLE_REST - 1 ? (int)bucket : SAMPLE_REST - 1;
}

template <int VEC> static __device__ void fill_buckets(const struct choosing *c, bool with_counts)
{
    struct sample_shared *s = c->s;

    for (int i = (int)threadIdx.x; i < SAMPLE_LIST; i += SAMPLE_THREADS) {
        s->masses[i] = {0, 0};
        s->counts[i] = 0;
    }
    __syncthreads();
    each_pack<VEC>(c, [&](int id, const piece<float, VEC> &x, int n) {
        for (int i = 0; i < VEC && i < n; i++) {
            const float score = score_of(c, id + i, x.v[i]);
            const int bucket = bucket_of(c, score);

            if (bucket == SAMPLE_REST)
                continue;
            if (with_counts)
                atomicAdd(&s->counts[bucket], 1u);
            tally_add(&s->masses[bucket], weight_of(c, score));
        }
    });
    __syncthreads();
}

/* The total weight of the buckets before this one. */
static __device__ mass mass_before(const struct choosing *c, int bucket)
{
    mass sum = 0;

    for (int i = (int)threadIdx.x; i < bucket; i += SAMPLE_THREADS)
        sum += tally_mass(&c->s->masses[i]);
    return join_sum(c, sum);
}

/* Lists and sorts a bucket if it fits; returns its number of scores. */
template <int VEC> static __device__ int list_bucket(const struct choosing *c, int bucket)
{
    const int n = list_scores<VEC>(c, c->s->list, SAMPLE_LIST,
                                   [&](ordered, float score) { return bucket_of(c, score) == bucket; });

    if (n <= SAMPLE_LIST)
        sort_down(c->s->list, n);
    return n;
}

/* top_k: the lowest score that is kept, with all that equal the k-th; *ret_mass: their weight. */
template <int VEC> static __device__ ordered bound_of_top_k(const struct choosing *c, mass *ret_mass)
{
    struct sample_shared *s = c->s;
    const mass k = (mass)c->d->top_k;
    const struct sample_found f = find_first(c, SAMPLE_REST, k, [&](int i) { return (mass)s->counts[i]; });
    ordered bound;
    mass sum = 0;
    int n;

    if (f.before + s->counts[f.at] < k) { /* the k-th has no weight: keep all scores with weight */
        *ret_mass = mass_before(c, SAMPLE_REST);
        return 0;
    }
    n = list_bucket<VEC>(c, f.at);
    if (n <= SAMPLE_LIST)
        bound = s->list[k - f.before - 1];
    else
        bound =
            find_bound<VEC>(c, k - f.before, [&](ordered, float score) { return (mass)(bucket_of(c, score) == f.at); });
    bound = bound >> 32 << 32;
    if (n <= SAMPLE_LIST)
        for (int i = (int)threadIdx.x; i < n; i += SAMPLE_THREADS)
            sum += s->list[i] >= bound ? weight_of(c, score_in(s->list[i])) : 0;
    else
        each_pack<VEC>(c, [&](int id, const piece<float, VEC> &x, int n_here) {
            for (int i = 0; i < VEC && i < n_here; i++) {
                const float score = score_of(c, id + i, x.v[i]);

                if (bucket_of(c, score) == f.at && order_of(c, id + i, score) >= bound)
                    sum += weight_of(c, score);
            }
        });
    sum = join_sum(c, sum);
    *ret_mass = mass_before(c, f.at) + sum;
    return bound;
}

/* top_p of this weight: an id is kept if those before it do not reach it. */
template <int VEC> static __device__ ordered bound_of_top_p(const struct choosing *c, mass sum)
{
    struct sample_shared *s = c->s;
    const double wanted = ceil((double)c->d->top_p * (double)sum);
    const mass target = wanted >= 1 ? (mass)wanted : 1;
    const struct sample_found f = find_first(c, SAMPLE_REST, target, [&](int i) { return tally_mass(&s->masses[i]); });
    const int n = list_bucket<VEC>(c, f.at);

    if (n > SAMPLE_LIST)
        return find_bound<VEC>(c, target - f.before, [&](ordered, float score) {
            return bucket_of(c, score) == f.at ? weight_of(c, score) : 0;
        });
    return s->list[find_first(c, n, target - f.before, [&](int i) { return weight_of(c, score_in(s->list[i])); }).at];
}

/* Sums the kept weights by stretches of `stretch` ids (a multiple of what a warp reads at once); returns the total. */
template <int VEC> static __device__ mass sum_stretches(const struct choosing *c, ordered bound, int stretch)
{
    struct sample_shared *s = c->s;
    mass all = 0;

    for (int i = (int)threadIdx.x; i < SAMPLE_LIST; i += SAMPLE_THREADS)
        s->sums[i] = {0, 0};
    __syncthreads();
    each_pack<VEC>(c, [&](int id, const piece<float, VEC> &x, int n) {
        mass sum = 0;

        for (int i = 0; i < VEC && i < n; i++) {
            const float score = score_of(c, id + i, x.v[i]);

            sum += order_of(c, id + i, score) >= bound ? weight_of(c, score) : 0;
        }
        all += sum;
        for (int i = CUDA_WARP / 2; i > 0; i /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, i);
        if (threadIdx.x % CUDA_WARP == 0 && sum != 0)
            tally_add(&s->sums[id / stretch], sum);
    });
    return join_sum(c, all);
}

/* The first id at which the sum of weights exceeds uniform * total. */
template <int VEC> static __device__ int draw_id(const struct choosing *c, ordered bound, mass *ret_all)
{
    const int read = CUDA_WARP * 4, stretch = read * (1 + (c->vocab - 1) / (read * SAMPLE_LIST));
    struct sample_shared *s = c->s;
    const mass all = sum_stretches<VEC>(c, bound, stretch);
    const mass passed = (mass)((double)c->d->uniform * (double)all), target = passed < all ? passed + 1 : all;
    struct sample_found f = find_first(c, SAMPLE_LIST, target, [&](int i) { return tally_mass(&s->sums[i]); });
    mass wanted = target - f.before;
    int64_t first = (int64_t)f.at * stretch;

    *ret_all = all;
    for (;; first += SAMPLE_LIST) { /* once, unless the vocabulary has more than 2^20 ids */
        mass sum = 0;

        for (int i = (int)threadIdx.x; i < SAMPLE_LIST; i += SAMPLE_THREADS) {
            const int id = (int)(first + i);
            const float score = first + i < c->vocab ? score_of(c, id, c->logits[id]) : -INFINITY;
            const mass here = order_of(c, id, score) >= bound ? weight_of(c, score) : 0;

            s->masses[i] = {(unsigned)here, (unsigned)(here >> 32)};
            sum += here;
        }
        sum = join_sum(c, sum);
        if (sum >= wanted || first + SAMPLE_LIST >= c->vocab)
            break;
        wanted -= sum;
    }
    f = find_first(c, SAMPLE_LIST, wanted, [&](int i) { return tally_mass(&s->masses[i]); });
    return (int)(first + f.at);
}

/* False if there is nothing finite to draw from. */
template <int VEC>
static __device__ bool draw_one(struct choosing *c, const struct scanned *r, struct sample_result *result)
{
    const ordered best = join_max(c, best_of_thread(c, r));
    const float least = -join_max(c, -r->least);
    const bool top_k = c->d->top_k > 0 && c->d->top_k < c->vocab, top_p = c->d->top_p < 1;
    float range;
    ordered bound = 0;
    mass all;
    int id;

    c->max = score_in(best);
    if (best == 0 || !isfinite(c->max))
        return false;
    range =
        c->max - unlisted_score(c, least) / c->d->temperature; /* only an estimate of where the buckets should end */
    range = range > 0 ? fminf(range, SAMPLE_RANGE) : 1;
    c->per_unit = (SAMPLE_REST - 1) / range;
    if (top_k || top_p) {
        fill_buckets<VEC>(c, top_k);
        if (top_k)
            bound = bound_of_top_k<VEC>(c, &all);
        else
            all = mass_before(c, SAMPLE_REST);
        if (top_p)
            bound = bound_of_top_p<VEC>(c, all);
    }
    id = draw_id<VEC>(c, bound, &all);
    if (threadIdx.x == 0) {
        const float score = score_of(c, id, c->logits[id]);

        put_result(c, result, id, (float)((double)(expf(score - c->max) * SAMPLE_ONE) / (double)all));
    }
    return true;
}

#endif
