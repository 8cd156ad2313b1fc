#include "tensor/cpu.h"

#include <assert.h>
#include <errno.h>

/* Cuts decode attention into pieces of work, a head of some rows with the same prefix, and hands them to the threads.
 * The arithmetic is in cpu_decode_loops.h. */

/* The number of rows in the piece from `first`: rows of one prefix, at most a tile; larger groups are split evenly. */
static int rows_of_piece(const struct ops_decode_attention_args *a, int first, int *group_end)
{
    int n_left, n_pieces;

    if (first == *group_end)
        while (*group_end < a->n_rows && a->prefix_start[*group_end] == a->prefix_start[first] &&
               a->prefix_len[*group_end] == a->prefix_len[first])
            ++*group_end;
    n_left = *group_end - first;
    n_pieces = (n_left + CPU_TILE_ROWS - 1) / CPU_TILE_ROWS;
    return (n_left + n_pieces - 1) / n_pieces;
}

static void attend(const struct ops_cpu *c, const struct ops_decode_attention_args *a, int first, int n_rows, int head,
                   const struct cpu_workspace *w)
{
    const size_t element = cpu_element_bytes(c);
    const int64_t column = (int64_t)head * a->head_dim;

    c->kernels->attend_group(
        &(struct cpu_group){.q = cpu_element(a->q, first * a->ld_q + column, element),
                            .k = cpu_element(a->k, column, element),
                            .v = cpu_element(a->v, column, element),
                            .out = cpu_element_out(a->out, first * a->ld_out + column, element),
                            .bias = a->bias ? a->bias + head * (2 * a->bias_span - 1) + a->bias_span - 1 : NULL,
                            .ld_q = a->ld_q,
                            .ld_k = a->ld_kv,
                            .ld_v = a->ld_kv,
                            .ld_out = a->ld_out,
                            .n_rows = n_rows,
                            .prefix_start = a->prefix_start[first],
                            .prefix_len = a->prefix_len[first],
                            .tail = a->tail,
                            .tail_start = a->tail_start + first,
                            .tail_len = a->tail_len + first,
                            .head_dim = a->head_dim,
                            .scale = a->scale},
        w);
}

static int64_t workspace_floats(int64_t longest, int head_dim)
{
    return CPU_TILE_ROWS * (cpu_padded_row(longest) + 2 * cpu_padded_row(head_dim));
}

static struct cpu_workspace carve(float *base, int64_t longest, int head_dim)
{
    struct cpu_workspace w = {.ld_score = cpu_padded_row(longest), .ld_out = cpu_padded_row(head_dim)};

    w.query = base;
    w.out = w.query + CPU_TILE_ROWS * w.ld_out;
    w.score = w.out + CPU_TILE_ROWS * w.ld_out;
    return w;
}

struct decoding {
    const struct ops_cpu *cpu;
    const struct ops_decode_attention_args *args;
    const int32_t *piece; /* first row of each, then n_rows */
    float *scratch;
    int64_t per_thread; /* floats of scratch */
    int64_t longest;
};

static void attend_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct decoding *d = arg;
    const struct ops_decode_attention_args *a = d->args;
    const struct cpu_workspace w = carve(d->scratch + thread * d->per_thread, d->longest, a->head_dim);

    for (int64_t i = begin; i < end; i++) {
        const int32_t *piece = d->piece + i / a->n_heads;

        attend(d->cpu, a, piece[0], piece[1] - piece[0], (int)(i % a->n_heads), &w);
    }
}

int cpu_decode_attention(struct ops *o, const struct ops_decode_attention_args *a)
{
    struct ops_cpu *c = cpu_of(o);
    int64_t longest = 1, per_thread, list_bytes = cpu_round_up((int64_t)(a->n_rows + 1) * (int64_t)sizeof(int32_t), 64);
    int n_threads, n_pieces = 0, group_end = 0;
    int32_t *piece;
    /* 4 operations per value; keys that are not contiguous arrive at a sixth of a product's rate */
    double work = 0;
    void *scratch;

    for (int r = 0; r < a->n_rows; r++) {
        int64_t n_keys = (int64_t)a->prefix_len[r] + a->tail_len[r];

        assert(a->prefix_len[r] >= 0 && a->tail_len[r] >= 0 && n_keys >= 1 && (!a->bias || n_keys <= a->bias_span));
        longest = n_keys > longest ? n_keys : longest;
        work += 6 * 4.0 * (double)n_keys * a->head_dim * a->n_heads;
    }
    n_threads = cpu_threads_for(c, work);
    per_thread = workspace_floats(longest, a->head_dim);
    if (cpu_scratch(c, (size_t)list_bytes + (size_t)(per_thread * n_threads) * sizeof(float), &scratch) < 0)
        return -ENOMEM;
    piece = scratch;
    for (int r = 0; r < a->n_rows; r += rows_of_piece(a, r, &group_end))
        piece[n_pieces++] = r;
    piece[n_pieces] = a->n_rows;
    cpu_share(
        c, work, (int64_t)n_pieces * a->n_heads, 1, attend_some,
        &(struct decoding){c, a, piece, (float *)(void *)((unsigned char *)scratch + list_bytes), per_thread, longest});
    return 0;
}
