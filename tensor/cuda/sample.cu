/* sample.cu - from logits to tokens as defined in tensor/sampler.c, with a block of 512 threads per row.
 *
 * A first pass over the row computes log(sum(e^logit)) and the best logit of each thread. With n_best = 1 that is
 * enough. Otherwise the k-th of the threads' bests is a lower bound for the k-th of all, so a second pass lists the
 * ids not below it, few more than k, and sorts them. If they do not fit in the list (k > 512, or adversarial
 * logits), find_bound computes the exact bound. Sampling: sample_draw.cuh. Seen and banned ids have a bit each in
 * shared memory (vocabularies above 2^18: in device memory), so that no row is copied. Options and lists of all rows
 * are uploaded as one array, and the results are downloaded as one; sample waits for them. Bound: memory or L2, with
 * one (greedy) or two reads of the logits, up to five when sampling: 200 kB per row of 50304, 51 MB for 256 rows, 17
 * us per read at 3 TB/s; plus the latency of two transfers. */

#include <stdlib.h>

#include "tensor/cuda/sample_row.cuh"
#include "tensor/cuda/sample_draw.cuh"

enum {
    MOST_SHARED_MARKS = 1 << 18, /* ids whose two bits each are in shared memory */
    PIECE_BYTES = 256,
};

/* For n_best = 1 without log-softmax, which could make two logits equal. */
static __device__ bool pick_first(const struct choosing *c, const struct scanned *r, struct sample_result *result)
{
    const ordered best = join_max(c, best_of_thread(c, r));
    const float value = score_in(best);

    if (best == 0 || !isfinite(value))
        return false;
    if (threadIdx.x == 0)
        put_result(c, result, id_of(c, best), value);
    return true;
}

/* A bound with at least k scores at or above it: the k-th of the threads' best. */
static __device__ ordered lower_bound(const struct choosing *c, const struct scanned *r, int k)
{
    if (k > SAMPLE_THREADS)
        return 0;
    __syncthreads();
    c->s->list[threadIdx.x] = r->best_id < 0 ? 0 : order_of(c, r->best_id, score_of(c, r->best_id, r->best));
    sort_down(c->s->list, SAMPLE_THREADS);
    return c->s->list[k - 1];
}

template <int VEC>
static __device__ bool pick_best(const struct sample_job *j, const struct choosing *c, const struct scanned *r,
                                 struct sample_result *results)
{
    const int k = c->d->n_best;
    ordered *list = k > SAMPLE_LIST ? j->spill + blockIdx.x * j->spill_length : c->s->list;
    ordered bound = lower_bound(c, r, k);
    int n = SAMPLE_LIST + 1;

    if (k <= SAMPLE_LIST)
        n = list_scores<VEC>(c, list, SAMPLE_LIST, [&](ordered number, float) { return number >= bound; });
    if (n > SAMPLE_LIST) {
        bound = find_bound<VEC>(c, (mass)k, [](ordered, float) { return (mass)1; });
        n = list_scores<VEC>(c, list, k, [&](ordered number, float) { return number >= bound; });
    }
    sort_down(list, n);
    if (!isfinite(score_in(list[0])))
        return false;
    for (int i = (int)threadIdx.x; i < k; i += SAMPLE_THREADS)
        put_result(c, &results[i], id_of(c, list[i]), score_in(list[i]));
    return true;
}

static __device__ struct choosing row_of_block(const struct sample_job *j)
{
    const struct sample_desc *d = &j->rows[blockIdx.x];
    struct choosing c = {};

    c.s = cuda_shared<struct sample_shared>();
    c.d = d;
    c.logits = j->logits + blockIdx.x * j->ld;
    c.vocab = j->vocab;
    while ((int64_t)c.id_bits + 1 < c.vocab)
        c.id_bits = 2 * c.id_bits + 1;
    c.seen = j->lists + d->first_seen;
    c.banned = c.seen + d->n_seen;
    return c;
}

template <int VEC> static __global__ void __launch_bounds__(SAMPLE_THREADS) sample_rows(const struct sample_job j)
{
    struct choosing c = row_of_block(&j);
    struct sample_result *results = j.results + c.d->first_best;
    struct scanned r;
    bool ok;

    mark_lists(&j, &c);
    r = scan_logits<VEC>(&c);
    if (isnan(c.log_sum))
        ok = false;
    else if (c.d->sample)
        ok = draw_one<VEC>(&c, &r, results);
    else if (c.d->n_best == 1 && !c.d->log_softmax)
        ok = pick_first(&c, &r, results);
    else
        ok = pick_best<VEC>(&j, &c, &r, results);
    if (threadIdx.x == 0)
        j.failed[blockIdx.x] = !ok;
}

/* -- the host's side -- */

/* The sizes of a call's transfers: up, the options of each row and all lists; down, one word per row and all
 * results. */
struct sizes {
    int64_t n_listed, n_results;
    int most_best;
    size_t up_bytes, down_bytes;
};

static size_t round_up(size_t n)
{
    return (n + PIECE_BYTES - 1) / PIECE_BYTES * PIECE_BYTES;
}

static struct sizes size_up(const struct ops_sample_args *a)
{
    struct sizes s = {};

    for (int64_t r = 0; r < a->n_rows; r++) {
        const struct ops_sample_row *row = &a->rows[r];

        assert(row->n_best >= 1 && row->n_best <= a->vocab && (!row->sample || row->n_best == 1));
        s.n_listed += row->n_seen + row->n_banned;
        s.n_results += row->n_best;
        s.most_best = row->n_best > s.most_best ? row->n_best : s.most_best;
    }
    assert(s.n_listed <= INT32_MAX && s.n_results <= INT32_MAX);
    s.up_bytes = (size_t)a->n_rows * sizeof(struct sample_desc) + (size_t)s.n_listed * sizeof(int32_t);
    s.down_bytes = (size_t)a->n_rows * sizeof(int32_t) + (size_t)s.n_results * sizeof(struct sample_result);
    return s;
}

/* Page-locked memory, kept for later calls. */
static int host_room(struct cuda_ops *o, size_t n_bytes, unsigned char **ret)
{
    if (n_bytes > o->sample_bytes) {
        void *p = realloc(o->sample_memory, n_bytes);

        if (!p)
            return -ENOMEM;
        o->sample_memory = p;
        o->sample_bytes = n_bytes;
    }
    *ret = (unsigned char *)o->sample_memory;
    return 0;
}

static int32_t *append_ids(int32_t *to, const int32_t *ids, int n, int64_t vocab)
{
    for (int i = 0; i < n; i++) {
        assert(ids[i] >= 0 && ids[i] < vocab);
        *to++ = ids[i];
    }
    return to;
}

static void write_descs(const struct ops_sample_args *a, unsigned char *up)
{
    struct sample_desc *d = (struct sample_desc *)up;
    int32_t *lists = (int32_t *)(d + a->n_rows), *end = lists, first_best = 0;

    for (int64_t r = 0; r < a->n_rows; r++) {
        const struct ops_sample_row *row = &a->rows[r];

        d[r] = {row->log_softmax,
                row->sample,
                row->n_best,
                row->top_k,
                row->n_seen,
                row->n_banned,
                (int32_t)(end - lists),
                first_best,
                row->repetition_penalty,
                row->temperature,
                row->top_p,
                row->uniform};
        end = append_ids(end, row->seen, row->n_seen, a->vocab);
        end = append_ids(end, row->banned, row->n_banned, a->vocab);
        first_best += row->n_best;
    }
}

/* Fills in the device memory of the job. */
static int place(struct cuda_ops *o, const struct ops_sample_args *a, const struct sizes *s, const void *d_up,
                 struct sample_job *j)
{
    const size_t down_bytes = round_up(s->down_bytes);
    size_t marks_bytes = 0, spill_bytes = 0;
    unsigned char *d;
    void *scratch;
    int rc;

    if (s->n_listed > 0)
        j->mark_words = (int)div_up(a->vocab, 32);
    if (s->n_listed > 0 && a->vocab > MOST_SHARED_MARKS)
        marks_bytes = round_up((size_t)a->n_rows * 2 * (size_t)j->mark_words * sizeof(unsigned));
    if (s->most_best > SAMPLE_LIST) {
        for (j->spill_length = SAMPLE_LIST; j->spill_length < s->most_best;)
            j->spill_length *= 2;
        spill_bytes = (size_t)a->n_rows * (size_t)j->spill_length * sizeof(ordered);
    }
    rc = cuda_scratch(o, CUDA_SLOT_SAMPLE, down_bytes + marks_bytes + spill_bytes, &scratch);
    if (rc < 0)
        return rc;
    d = (unsigned char *)scratch;
    j->failed = (int32_t *)d;
    j->results = (struct sample_result *)(j->failed + a->n_rows);
    j->marks = marks_bytes > 0 ? (unsigned *)(d + down_bytes) : NULL;
    j->spill = spill_bytes > 0 ? (ordered *)(d + down_bytes + marks_bytes) : NULL;
    j->rows = (const struct sample_desc *)d_up;
    j->lists = (const int32_t *)(j->rows + a->n_rows);
    return 0;
}

static int read_results(const struct ops_sample_args *a, const unsigned char *down)
{
    const int32_t *failed = (const int32_t *)down;
    const struct sample_result *from = (const struct sample_result *)(failed + a->n_rows);
    int rc = 0;

    for (int64_t r = 0; r < a->n_rows; r++) {
        const struct ops_sample_row *row = &a->rows[r];

        rc = failed[r] ? -EDOM : rc;
        for (int i = 0; i < row->n_best; i++, from++)
            if (!failed[r]) {
                row->ret_ids[i] = from->id;
                row->ret_values[i] = from->value;
                row->ret_logprobs[i] = from->logprob;
            }
    }
    return rc;
}

static int launch_sample(struct cuda_ops *o, int64_t n_rows, const struct sample_job &j)
{
    const size_t marks_bytes = j.marks ? 0 : (size_t)j.mark_words * 2 * sizeof(unsigned);
    const bool aligned = is_aligned(address_bits(j.logits) | distance_bits(j.ld, sizeof(float)), 16);

    return cuda_launch(o, aligned ? sample_rows<4> : sample_rows<1>, dim3((unsigned)n_rows), dim3(SAMPLE_THREADS),
                       sizeof(struct sample_shared) + marks_bytes, j);
}

int cuda_sample(struct ops *ops, const struct ops_sample_args *a)
{
    struct cuda_ops *o = cuda_of(ops);
    struct sample_job j = {};
    struct sizes s;
    unsigned char *host;
    const void *d_up;
    int rc;

    assert(a->vocab >= 1 && a->vocab <= a->ld && a->vocab <= INT32_MAX && a->n_rows <= INT32_MAX);
    if (a->n_rows == 0)
        return 0;
    s = size_up(a);
    rc = host_room(o, s.up_bytes + s.down_bytes, &host);
    if (rc < 0)
        return rc;
    write_descs(a, host);
    rc = cuda_stage(o, host, s.up_bytes, &d_up);
    if (rc < 0)
        return rc;
    j.logits = a->logits;
    j.ld = a->ld;
    j.vocab = (int)a->vocab;
    rc = place(o, a, &s, d_up, &j);
    if (rc == 0)
        rc = launch_sample(o, a->n_rows, j);
    if (rc == 0) /* 4-byte words of any type */
        rc = cuda_download(ops, host + s.up_bytes, DTYPE_F32, j.failed, DTYPE_F32, s.down_bytes / sizeof(float));
    return rc < 0 ? rc : read_results(a, host + s.up_bytes);
}
