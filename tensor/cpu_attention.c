#include "tensor/cpu.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

#include "tensor/cpu_simd.h"

/* Attention of one head of one sequence at a time, on one core, its keys and values packed into the second-level cache:
 *
 *   keys    as [panel][D][64]: 64 keys side by side, so that q K^T is a product of rows with a panel;
 *   values  as [panel][keys][64]: 64 columns of D side by side;
 *   queries in blocks of BLOCK_ROWS, already scaled, whose scores stay in the first- and second-level cache.
 *
 * Both products are the same kernel: TILE_ROWS rows times a panel, sums in registers (24 of AVX-512's 32). One or two
 * queries (a decode step) would not earn back the packing and read keys and values where they are.
 * Which rows share a block never changes a sum, so a row's result does not depend on its neighbours. */

enum {
    TILE_ROWS = 6,
    PANEL_VECTORS = 4,
    PANEL = PANEL_VECTORS * CPU_LANES,
    BLOCK_ROWS = 4 * TILE_ROWS,
    INNER = 64,     /* rows of a panel kept in the first-level cache while the tiles of a block pass over it */
    DIRECT_ROWS = 2 /* so few queries are answered without packing */
};

/* Scratch of one thread, in floats. */
struct workspace {
    float *keys, *values, *query, *score, *out;
    int64_t ld_score, ld_out;
};

/* One head of one sequence; rows at this head's columns. */
struct head {
    const float *q, *k, *v, *bias; /* bias: row of the first query in the sequence */
    float *out;
    int64_t ld_q, ld_k, ld_v, ld_out, ld_bias;
    int n_keys, n_keys_first; /* all, and those the first query of the sequence sees */
    int head_dim;
    bool causal;
    float scale;
};

struct attention_kernels {
    /* Query rows first .. first+n-1 of the sequence. */
    void (*packed)(const struct head *h, int first, int n, const struct workspace *w);
    void (*direct)(const struct head *h, int row, const struct workspace *w);
};

static inline int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static inline int keys_seen(const struct head *h, int row)
{
    return h->causal ? h->n_keys_first + row : h->n_keys;
}

/* c[rows, nv vectors] (+)= a[rows, n] * b[n, nv vectors]; rows and nv are constants where this is inlined. */
CPU_INLINE void tile(const int rows, const int nv, const float *a, int64_t ld_a, const float *b, int64_t ld_b, float *c,
                     int64_t ld_c, int64_t n, bool add)
{
    cpu_v16 sum[TILE_ROWS][PANEL_VECTORS];

#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            sum[i][j] = add ? cpu_load(c + i * ld_c + j * CPU_LANES) : cpu_set(0);
    for (int64_t k = 0; k < n; k++) {
        cpu_v16 column[PANEL_VECTORS];

#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            column[j] = cpu_load(b + k * ld_b + j * CPU_LANES);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            cpu_v16 x = cpu_set(a[i * ld_a + k]);

#pragma GCC unroll 4
            for (int j = 0; j < nv; j++)
                sum[i][j] += x * column[j];
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            cpu_store(c + i * ld_c + j * CPU_LANES, sum[i][j]);
}

/* At most `wide` vectors at once: what the registers hold. */
CPU_INLINE void tile_any(const int wide, const int rows, int nv, const float *a, int64_t ld_a, const float *b,
                         int64_t ld_b, float *c, int64_t ld_c, int64_t n, bool add)
{
    if (wide < PANEL_VECTORS) {
        for (int j = 0; j < nv; j++)
            tile(rows, 1, a, ld_a, b + j * CPU_LANES, ld_b, c + j * CPU_LANES, ld_c, n, add);
        return;
    }
    if (nv == 4)
        tile(rows, 4, a, ld_a, b, ld_b, c, ld_c, n, add);
    else if (nv == 3)
        tile(rows, 3, a, ld_a, b, ld_b, c, ld_c, n, add);
    else if (nv == 2)
        tile(rows, 2, a, ld_a, b, ld_b, c, ld_c, n, add);
    else
        tile(rows, 1, a, ld_a, b, ld_b, c, ld_c, n, add);
}

/* c[rows, columns] = a[rows, n] * panels; rows a multiple of TILE_ROWS; panel p holds [n_packed, PANEL]. */
CPU_INLINE void multiply_panels(const int wide, int rows, const float *a, int64_t ld_a, const float *panels,
                                int64_t n_packed, int64_t columns, float *c, int64_t ld_c, int64_t n)
{
    for (int64_t column = 0; column < columns; column += PANEL) {
        const float *panel = panels + column * n_packed;
        int64_t left = columns - column;
        int nv = left >= PANEL ? PANEL_VECTORS : (int)((left + CPU_LANES - 1) / CPU_LANES);

        for (int64_t k = 0; k < n; k += INNER)
            for (int r = 0; r < rows; r += TILE_ROWS)
                tile_any(wide, TILE_ROWS, nv, a + r * ld_a + k, ld_a, panel + k * PANEL, PANEL, c + r * ld_c + column,
                         ld_c, n - k < INNER ? n - k : INNER, k > 0);
    }
}

/* Sixteen keys from `k` at dimensions d .. d+15, transposed; what lies outside is 0. */
CPU_INLINE void pack_key_block(const float *k, int64_t ld_k, int n_keys, int n_dims, float *panel)
{
    cpu_v16 row[CPU_LANES] = {{0}};

    if (n_keys >= CPU_LANES && n_dims >= CPU_LANES)
        for (int i = 0; i < CPU_LANES; i++)
            row[i] = cpu_load(k + i * ld_k);
    else
        for (int i = 0; i < CPU_LANES && i < n_keys; i++)
            memcpy(&row[i], k + i * ld_k, (size_t)(n_dims < CPU_LANES ? n_dims : CPU_LANES) * sizeof(float));
    cpu_transpose(row);
    for (int d = 0; d < CPU_LANES && d < n_dims; d++)
        cpu_store(panel + d * PANEL, row[d]);
}

CPU_INLINE void pack_keys(const struct head *h, int n_keys, float *keys)
{
    for (int j = 0; j < n_keys; j += CPU_LANES) {
        float *panel = keys + (int64_t)(j / PANEL) * PANEL * h->head_dim + j % PANEL;

        for (int d = 0; d < h->head_dim; d += CPU_LANES)
            pack_key_block(h->k + j * h->ld_k + d, h->ld_k, n_keys - j, h->head_dim - d, panel + (int64_t)d * PANEL);
    }
}

CPU_INLINE void pack_values(const struct head *h, int n_keys, float *values)
{
    for (int d = 0; d < h->head_dim; d += PANEL) {
        float *panel = values + (int64_t)d * n_keys;
        int width = h->head_dim - d < PANEL ? h->head_dim - d : PANEL, j = 0;

        for (; width == PANEL && j < n_keys; j++)
            for (int i = 0; i < PANEL; i += CPU_LANES)
                cpu_store(panel + (int64_t)j * PANEL + i, cpu_load(h->v + j * h->ld_v + d + i));
        for (; j < n_keys; j++) {
            cpu_v16 last[PANEL_VECTORS] = {{0}};

            memcpy(last, h->v + j * h->ld_v + d, (size_t)width * sizeof(float));
            memcpy(panel + (int64_t)j * PANEL, last, sizeof(last));
        }
    }
}

/* score[0..n) -> e^(score + bias - max), zeros up to n_padded; returns one over their sum. */
CPU_INLINE float softmax(float *score, const float *bias, int n, int64_t n_padded)
{
    int whole = (int)round_up(n, CPU_LANES);
    cpu_v16 largest, sum = {0};

    if (bias)
        for (int j = 0; j < n; j++)
            score[j] += bias[j];
    for (int j = n; j < whole; j++)
        score[j] = -HUGE_VALF;
    largest = cpu_load(score);
    for (int j = CPU_LANES; j < whole; j += CPU_LANES)
        largest = cpu_max(cpu_load(score + j), largest);
    largest = cpu_set(cpu_max_lanes(largest));
    for (int j = 0; j < whole; j += CPU_LANES) {
        cpu_v16 e = cpu_exp_nonpositive(cpu_load(score + j) - largest);

        sum += e;
        cpu_store(score + j, e);
    }
    if (n_padded > whole)
        memset(score + whole, 0, (size_t)(n_padded - whole) * sizeof(float));
    return 1 / cpu_sum_lanes(sum);
}

CPU_INLINE void load_queries(const struct head *h, int first, int n, int n_padded, float *query)
{
    for (int i = 0; i < n; i++)
        for (int d = 0; d < h->head_dim; d++)
            query[i * h->head_dim + d] = h->q[(first + i) * h->ld_q + d] * h->scale;
    memset(query + (int64_t)n * h->head_dim, 0, (size_t)(n_padded - n) * h->head_dim * sizeof(float));
}

CPU_INLINE void attend_packed(const int wide, const struct head *h, int first, int n, const struct workspace *w)
{
    int n_packed = keys_seen(h, first + n - 1); /* later keys are seen by none of these rows */

    pack_keys(h, n_packed, w->keys);
    pack_values(h, n_packed, w->values);
    for (int r = first; r < first + n; r += BLOCK_ROWS) {
        int rows = first + n - r < BLOCK_ROWS ? first + n - r : BLOCK_ROWS;
        int padded = (int)round_up(rows, TILE_ROWS), n_keys = keys_seen(h, r + rows - 1);
        float inverse[BLOCK_ROWS];

        load_queries(h, r, rows, padded, w->query);
        multiply_panels(wide, padded, w->query, h->head_dim, w->keys, h->head_dim, n_keys, w->score, w->ld_score,
                        h->head_dim);
        for (int i = 0; i < rows; i++)
            inverse[i] = softmax(w->score + i * w->ld_score, h->bias ? h->bias + (r + i) * h->ld_bias : NULL,
                                 keys_seen(h, r + i), round_up(n_keys, CPU_LANES));
        multiply_panels(wide, padded, w->score, w->ld_score, w->values, n_packed, h->head_dim, w->out, w->ld_out,
                        n_keys);
        for (int i = 0; i < rows; i++)
            for (int d = 0; d < h->head_dim; d++)
                h->out[(r + i) * h->ld_out + d] = w->out[i * w->ld_out + d] * inverse[i];
    }
}

/* Scores of sixteen keys: partial sums of each, transposed and added. n_keys may be less; head_dim >= CPU_LANES. The
 * last vector of a row that is not a multiple ends with it; `query` has zeros where it overlaps the one before. */
CPU_INLINE cpu_v16 score_block(const float *query, const float *k, int64_t ld_k, int n_keys, int head_dim)
{
    int whole = head_dim / CPU_LANES * CPU_LANES;
    cpu_v16 part[CPU_LANES] = {{0}};

    for (int i = 0; i < CPU_LANES && i < n_keys; i++) {
        const float *row = k + i * ld_k;

        for (int d = 0; d < whole; d += CPU_LANES)
            part[i] += cpu_load(query + d) * cpu_load(row + d);
        if (whole < head_dim)
            part[i] += cpu_load(query + whole) * cpu_load(row + head_dim - CPU_LANES);
    }
    cpu_transpose(part);
    for (int n = CPU_LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            part[i] += part[i + n];
    return part[0];
}

CPU_INLINE void attend_direct(const int wide, const struct head *h, int row, const struct workspace *w)
{
    int n_keys = keys_seen(h, row), whole = h->head_dim / CPU_LANES * CPU_LANES, tail = h->head_dim - whole, d = 0;
    const float *q = h->q + row * h->ld_q;
    float *out = h->out + row * h->ld_out, inverse;

    for (int i = 0; i < whole; i++)
        w->query[i] = q[i] * h->scale;
    for (int i = 0; i < CPU_LANES; i++)
        w->query[whole + i] = tail && i >= CPU_LANES - tail ? q[h->head_dim - CPU_LANES + i] * h->scale : 0;
    for (int j = 0; j < n_keys; j += CPU_LANES)
        cpu_store(w->score + j, score_block(w->query, h->k + j * h->ld_k, h->ld_k, n_keys - j, h->head_dim));
    inverse = softmax(w->score, h->bias ? h->bias + row * h->ld_bias : NULL, n_keys, 0);
    for (; d < whole; d += PANEL)
        tile_any(wide, 1, whole - d < PANEL ? (whole - d) / CPU_LANES : PANEL_VECTORS, w->score, 0, h->v + d, h->ld_v,
                 w->out + d, 0, n_keys, false);
    if (tail) /* the columns before it come out the same again */
        tile_any(wide, 1, 1, w->score, 0, h->v + h->head_dim - CPU_LANES, h->ld_v, w->out + h->head_dim - CPU_LANES, 0,
                 n_keys, false);
    for (int i = 0; i < h->head_dim; i++)
        out[i] = w->out[i] * inverse;
}

#define ATTENTION_WRAPPERS(isa, target, wide)                                                          \
    target static void packed_##isa(const struct head *h, int first, int n, const struct workspace *w) \
    {                                                                                                  \
        attend_packed(wide, h, first, n, w);                                                           \
    }                                                                                                  \
    target static void direct_##isa(const struct head *h, int row, const struct workspace *w)          \
    {                                                                                                  \
        attend_direct(wide, h, row, w);                                                                \
    }
ATTENTION_WRAPPERS(base, , 1)
ATTENTION_WRAPPERS(avx2, CPU_TARGET_AVX2, 1)
ATTENTION_WRAPPERS(avx512, CPU_TARGET_AVX512, PANEL_VECTORS)

static const struct attention_kernels kernels[CPU_ISA_COUNT] = {
    [CPU_ISA_BASE] = {packed_base, direct_base},
    [CPU_ISA_AVX2] = {packed_avx2, direct_avx2},
    [CPU_ISA_AVX512] = {packed_avx512, direct_avx512},
};

static struct head head_of(const struct ops_attention_args *a, int s, int head)
{
    int64_t column = (int64_t)head * a->head_dim;
    int n_before = a->causal ? a->kv_len[s] - a->q_len[s] : 0;

    return (struct head){
        .q = (const float *)a->q + a->q_start[s] * a->ld_q + column,
        .k = (const float *)a->k + a->kv_start[s] * a->ld_k + column,
        .v = (const float *)a->v + a->kv_start[s] * a->ld_v + column,
        .bias = a->bias ? a->bias + (head * a->bias_rows + n_before) * a->bias_cols : NULL,
        .out = (float *)a->out + a->q_start[s] * a->ld_out + column,
        .ld_q = a->ld_q,
        .ld_k = a->ld_k,
        .ld_v = a->ld_v,
        .ld_out = a->ld_out,
        .ld_bias = a->bias_cols,
        .n_keys = a->kv_len[s],
        .n_keys_first = n_before + 1,
        .head_dim = a->head_dim,
        .causal = a->causal,
        .scale = a->scale,
    };
}

/* Rows of one sequence that one thread takes at once. Packing is repeated by each that shares a head, so heads are only
 * cut where there are too few to keep the threads busy. */
static int rows_at_once(const struct ops_attention_args *a, int n_threads, int longest_q)
{
    int64_t n_heads = (int64_t)a->n_seqs * a->n_heads, pieces;

    if (n_threads == 1 || n_heads >= 8 * (int64_t)n_threads)
        return longest_q;
    pieces = (4 * (int64_t)n_threads + n_heads - 1) / n_heads;
    return (int)round_up((longest_q + pieces - 1) / pieces, BLOCK_ROWS);
}

static void attend_piece(const struct ops_cpu *c, const struct ops_attention_args *a, int64_t head, int first,
                         int n_rows, const struct workspace *w)
{
    int s = (int)(head / a->n_heads);
    struct head h = head_of(a, s, (int)(head % a->n_heads));
    const struct attention_kernels *kernel = &kernels[c->isa];

    if (first >= a->q_len[s])
        return;
    if (a->q_len[s] <= DIRECT_ROWS && a->head_dim >= CPU_LANES)
        for (int r = first; r < a->q_len[s]; r++)
            kernel->direct(&h, r, w);
    else
        kernel->packed(&h, first, a->q_len[s] - first < n_rows ? a->q_len[s] - first : n_rows, w);
}

/* An odd number of cache lines, so that the rows of a tile fall into different sets. */
static int64_t padded_row(int64_t n)
{
    return round_up(n, PANEL) + CPU_LANES;
}

static int64_t workspace_floats(int64_t longest_kv, int head_dim)
{
    return 2 * padded_row(longest_kv) * padded_row(head_dim) +
           BLOCK_ROWS * (padded_row(longest_kv) + 2 * padded_row(head_dim));
}

static struct workspace carve(float *base, int64_t longest_kv, int head_dim)
{
    struct workspace w = {.ld_score = padded_row(longest_kv), .ld_out = padded_row(head_dim)};

    w.keys = base;
    w.values = w.keys + w.ld_score * w.ld_out;
    w.query = w.values + w.ld_score * w.ld_out;
    w.out = w.query + BLOCK_ROWS * w.ld_out;
    w.score = w.out + BLOCK_ROWS * w.ld_out;
    return w;
}

int cpu_attention(struct ops *o, const struct ops_attention_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    int longest_q = 1, longest_kv = 1, n_threads, n_rows;
    int64_t n_pieces, per_thread, n_heads = (int64_t)a->n_seqs * a->n_heads;
    double work = 0;
    void *scratch;

    for (int s = 0; s < a->n_seqs; s++) {
        assert(a->q_len[s] >= 1 && a->kv_len[s] >= 1 && (!a->causal || a->kv_len[s] >= a->q_len[s]));
        assert(!a->bias || (a->kv_len[s] <= a->bias_cols && (a->causal ? a->kv_len[s] : a->q_len[s]) <= a->bias_rows));
        longest_q = a->q_len[s] > longest_q ? a->q_len[s] : longest_q;
        longest_kv = a->kv_len[s] > longest_kv ? a->kv_len[s] : longest_kv;
        work += 4.0 * a->q_len[s] * a->kv_len[s] * a->head_dim * a->n_heads;
    }
    n_threads = cpu_threads_for(c, work);
    n_rows = rows_at_once(a, n_threads, longest_q);
    n_pieces = (longest_q + n_rows - 1) / n_rows;
    per_thread = workspace_floats(longest_kv, a->head_dim);
    if (cpu_scratch(c, (size_t)(per_thread * n_threads) * sizeof(float), &scratch) < 0)
        return -ENOMEM;
#pragma omp parallel num_threads(n_threads)
    {
        struct workspace w = carve((float *)scratch + omp_get_thread_num() * per_thread, longest_kv, a->head_dim);

#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n_heads * n_pieces; i++)
            attend_piece(c, a, i / n_pieces, (int)(i % n_pieces) * n_rows, n_rows, &w);
    }
    return 0;
}
