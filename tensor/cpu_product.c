#include "tensor/cpu_product.h"

#include "tensor/host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK_ROWS = 96,     /* with CPU_PRODUCT_DEPTH of K: a fifth of a 512 KiB second-level cache */
    LEAST_ROWS = 48,     /* fewer would re-read the panels too often */
    BLOCK_COLUMNS = 512, /* the partial sums of a block: two fifths of it */
    PIECES = 3,          /* per thread, if there is enough work */
    CACHE_BYTES = 1 << 19
};

/* Below this, handing a piece over costs more than it saves. */
static const double piece_flop = 5e5;

struct cpu_panels {
    int64_t n, k;
    float *values; /* [panel][K][columns of a panel] */
    float *bias;   /* of whole panels; zeros if there is none */
};

struct packing {
    const struct ops_cpu *cpu;
    const struct cpu_panels *to;
    const float *weight;
};

static void pack_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct packing *p = arg;
    const int64_t width = p->cpu->kernels->panel, k = p->to->k;

    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t left = p->to->n - i * width;

        p->cpu->kernels->pack_panel(p->weight + i * width * k, k, (int)(left < width ? left : width), k,
                                    p->to->values + i * width * k);
    }
}

int cpu_panels_new(struct ops_cpu *c, int64_t n, int64_t k, const float *weight, const float *bias,
                   struct cpu_panels **ret, struct err *err)
{
    const int64_t whole = cpu_round_up(n, c->kernels->panel);
    struct cpu_panels *w = calloc(1, sizeof(*w));
    int64_t values;

    if (w && !__builtin_mul_overflow(whole, k, &values) && values <= (int64_t)(PTRDIFF_MAX / sizeof(float))) {
        w->n = n;
        w->k = k;
        w->values = host_alloc_aligned((size_t)values * sizeof(float));
        w->bias = host_alloc_aligned((size_t)whole * sizeof(float));
    }
    if (!w || !w->values || !w->bias) {
        cpu_panels_free(w);
        return err_set(err, -ENOMEM, "weight [%lld, %lld]: out of memory", (long long)n, (long long)k);
    }
    memset(w->bias, 0, (size_t)whole * sizeof(float));
    if (bias)
        memcpy(w->bias, bias, (size_t)n * sizeof(float));
    cpu_share(c, 8.0 * (double)n * (double)k, whole / c->kernels->panel, 0, pack_some,
              &(struct packing){.cpu = c, .to = w, .weight = weight});
    *ret = w;
    return 0;
}

void cpu_panels_free(struct cpu_panels *w)
{
    if (!w)
        return;
    free(w->values);
    free(w->bias);
    free(w);
}

/* A product cut into blocks, ordered by columns so that a large matrix is read from memory once. */
struct cut {
    const struct ops_cpu *cpu;
    struct cpu_product product;
    int64_t n_rows, block_rows, n_row_blocks;
    int64_t n_panels, block_panels;
    float *scratch;
    int64_t scratch_floats; /* per thread */
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static void cut_init(struct cut *c, int64_t n_rows, double flop, int n_threads)
{
    const int64_t width = c->cpu->kernels->panel;
    int64_t n_pieces = (int64_t)(flop / piece_flop), n_column_blocks;

    if (n_pieces > (int64_t)PIECES * n_threads)
        n_pieces = (int64_t)PIECES * n_threads;
    c->n_rows = n_rows;
    c->n_row_blocks = ceil_div(n_rows, BLOCK_ROWS);
    if (n_threads > 1 && c->n_row_blocks < n_pieces)
        c->n_row_blocks = n_pieces < ceil_div(n_rows, LEAST_ROWS) ? n_pieces : ceil_div(n_rows, LEAST_ROWS);
    c->block_rows = cpu_round_up(ceil_div(n_rows, c->n_row_blocks), CPU_TILE_ROWS);
    c->n_row_blocks = ceil_div(n_rows, c->block_rows);
    c->n_panels = ceil_div(c->product.n, width);
    n_column_blocks = ceil_div(c->n_panels, BLOCK_COLUMNS / width);
    if (n_threads > 1 && n_column_blocks * c->n_row_blocks < n_pieces)
        n_column_blocks = ceil_div(n_pieces, c->n_row_blocks);
    c->block_panels = ceil_div(c->n_panels, n_column_blocks);
    c->scratch_floats = c->block_rows * (c->block_panels * width + CPU_PRODUCT_LD);
}

static void multiply_some(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct cut *c = arg;

    for (int64_t i = begin; i < end; i++) {
        struct cpu_product_block b = {.first_row = i % c->n_row_blocks * c->block_rows,
                                      .n_rows = c->block_rows,
                                      .first_panel = i / c->n_row_blocks * c->block_panels,
                                      .n_panels = c->block_panels};

        if (b.n_rows > c->n_rows - b.first_row)
            b.n_rows = c->n_rows - b.first_row;
        if (b.n_panels > c->n_panels - b.first_panel)
            b.n_panels = c->n_panels - b.first_panel;
        c->cpu->kernels->product(&c->product, &b, c->scratch + thread * c->scratch_floats);
    }
}

int cpu_product_run(struct ops_cpu *o, const struct cpu_panels *w, const struct ops_linear_args *a)
{
    const double flop = 2.0 * (double)a->n_rows * (double)w->n * (double)w->k;
    struct cut c = {.cpu = o,
                    .product = {.x = a->x,
                                .panels = w->values,
                                .bias = w->bias,
                                .residual = a->residual,
                                .y = a->y,
                                .ld_x = a->ld_x,
                                .ld_residual = a->ld_residual,
                                .ld_y = a->ld_y,
                                .n = w->n,
                                .k = w->k,
                                .act = (int)a->act,
                                .from_memory = w->n * w->k > CACHE_BYTES / (int64_t)sizeof(float)}};
    void *scratch;

    cut_init(&c, a->n_rows, flop, cpu_threads_for(o, flop));
    if (cpu_scratch(o, (size_t)(c.scratch_floats * o->n_threads) * sizeof(float), &scratch) < 0)
        return -ENOMEM;
    c.scratch = scratch;
    cpu_share(o, flop, c.n_row_blocks * ceil_div(c.n_panels, c.block_panels), 1, multiply_some, &c);
    return 0;
}
