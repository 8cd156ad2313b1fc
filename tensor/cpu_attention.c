#include "tensor/cpu.h"

#include <assert.h>
#include <errno.h>

/* Cuts attention into pieces of work, a head of a sequence or some of its query rows, and hands them to the threads.
 * The arithmetic is in cpu_attention_loops.h. */

static struct cpu_head head_of(const struct ops_attention_args *a, int s, int head, size_t element)
{
    int64_t column = (int64_t)head * a->head_dim;
    int n_before = a->causal ? a->kv_len[s] - a->q_len[s] : 0;

    return (struct cpu_head){
        .q = cpu_element(a->q, a->q_start[s] * a->ld_q + column, element),
        .k = cpu_element(a->k, a->kv_start[s] * a->ld_k + column, element),
        .v = cpu_element(a->v, a->kv_start[s] * a->ld_v + column, element),
        .bias = a->bias ? a->bias + head * (2 * a->bias_span - 1) + a->bias_span - 1 - n_before : NULL,
        .out = cpu_element_out(a->out, a->q_start[s] * a->ld_out + column, element),
        .ld_q = a->ld_q,
        .ld_k = a->ld_k,
        .ld_v = a->ld_v,
        .ld_out = a->ld_out,
        .ld_bias = -1, /* each query is one further from every key */
        .n_keys = a->kv_len[s],
        .n_keys_first = n_before + 1,
        .head_dim = a->head_dim,
        .causal = a->causal,
        .scale = a->scale,
    };
}

/* Query rows of one sequence per piece of work. Each piece repeats the packing, so a head is split only if there are
 * too few heads to keep the threads busy. */
static int rows_at_once(const struct ops_attention_args *a, int n_threads, int longest_q)
{
    int64_t n_heads = (int64_t)a->n_seqs * a->n_heads, pieces;

    if (n_threads == 1 || n_heads >= 8 * (int64_t)n_threads)
        return longest_q;
    pieces = (4 * (int64_t)n_threads + n_heads - 1) / n_heads;
    return (int)cpu_round_up((longest_q + pieces - 1) / pieces, CPU_BLOCK_ROWS);
}

/* Treats a single query as a group of new tokens without tails. */
static void attend_row(const struct ops_cpu *c, const struct cpu_head *h, int row, const struct cpu_workspace *w)
{
    const size_t element = cpu_element_bytes(c);
    const int n_keys = h->causal ? h->n_keys_first + row : h->n_keys;

    c->kernels->attend_group(&(struct cpu_group){.q = cpu_element(h->q, row * h->ld_q, element),
                                                 .k = h->k,
                                                 .v = h->v,
                                                 .out = cpu_element_out(h->out, row * h->ld_out, element),
                                                 .bias = h->bias ? h->bias + row * h->ld_bias + n_keys - 1 : NULL,
                                                 .ld_k = h->ld_k,
                                                 .ld_v = h->ld_v,
                                                 .n_rows = 1,
                                                 .prefix_len = n_keys,
                                                 .head_dim = h->head_dim,
                                                 .scale = h->scale},
                             w);
}

static void attend_piece(const struct ops_cpu *c, const struct ops_attention_args *a, int64_t head, int first,
                         int n_rows, const struct cpu_workspace *w)
{
    int s = (int)(head / a->n_heads);
    struct cpu_head h = head_of(a, s, (int)(head % a->n_heads), cpu_element_bytes(c));

    if (first >= a->q_len[s])
        return;
    if (a->q_len[s] <= CPU_DIRECT_ROWS && a->head_dim >= CPU_LANES)
        for (int r = first; r < a->q_len[s]; r++)
            attend_row(c, &h, r, w);
    else
        c->kernels->attend_packed(&h, first, a->q_len[s] - first < n_rows ? a->q_len[s] - first : n_rows, w);
}

static int64_t workspace_floats(int64_t longest_kv, int head_dim)
{
    return 2 * cpu_padded_row(longest_kv) * cpu_padded_row(head_dim) +
           CPU_BLOCK_ROWS * (cpu_padded_row(longest_kv) + 2 * cpu_padded_row(head_dim));
}

static struct cpu_workspace carve(float *base, int64_t longest_kv, int head_dim)
{
    struct cpu_workspace w = {.ld_score = cpu_padded_row(longest_kv), .ld_out = cpu_padded_row(head_dim)};

    w.keys = base;
    w.values = w.keys + w.ld_score * w.ld_out;
    w.query = w.values + w.ld_score * w.ld_out;
    w.out = w.query + CPU_BLOCK_ROWS * w.ld_out;
    w.score = w.out + CPU_BLOCK_ROWS * w.ld_out;
    return w;
}

struct attention {
    const struct ops_cpu *cpu;
    const struct ops_attention_args *args;
    float *scratch;
    int64_t per_thread; /* floats of scratch */
    int64_t n_pieces;   /* of a head */
    int n_rows;         /* of a piece */
    int longest_kv;
};

static void attend_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attention *t = arg;
    const struct cpu_workspace w = carve(t->scratch + thread * t->per_thread, t->longest_kv, t->args->head_dim);

    for (int64_t i = begin; i < end; i++)
        attend_piece(t->cpu, t->args, i / t->n_pieces, (int)(i % t->n_pieces) * t->n_rows, t->n_rows, &w);
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
        assert(!a->bias || (a->kv_len[s] <= a->bias_span && a->q_len[s] <= a->bias_span));
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
    cpu_share(c, work, n_heads * n_pieces, 1, attend_some,
              &(struct attention){c, a, scratch, per_thread, n_pieces, n_rows, longest_kv});
    return 0;
}
