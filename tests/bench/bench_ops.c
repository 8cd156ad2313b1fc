#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tensor/cpu_matmul.h"
#include "tensor/ops.h"
#include "tests/bench/fma_peak.h"
#include "tests/bench/products.h"

/* Operators of the CPU back end beside the bare products of the same shapes, in f32 and in bf16 where the CPU has it.
 * bench_ops [THREADS] [SECTION], SECTION: demo, decode, busy, large, beams, sample, types. */

static struct ops *ops;
static int n_threads;

static void check(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "bench_ops: %s failed: %d\n", what, rc);
        exit(EXIT_FAILURE);
    }
}

static void *values_of(enum dtype dtype, int64_t n)
{
    const size_t element = dtype_size_bytes(dtype);
    void *p;

    check(ops->f->alloc(ops, (size_t)n * element, &p), "alloc");
    for (int64_t i = 0; i < n; i++) {
        const float value = sinf((float)(i % 1000));

        tensor_from_f32((unsigned char *)p + (size_t)i * element, dtype, &value, 1);
    }
    return p;
}

static void *values(int64_t n)
{
    return values_of(ops->act_dtype, n);
}

/* The i-th activation. */
static void *at(void *p, int64_t i)
{
    return (unsigned char *)p + i * (int64_t)dtype_size_bytes(ops->act_dtype);
}

/* Medians of the operator, its bare products and, where the operators don't multiply with it, oneDNN, in turn; returns
 * the operator's time. */
static double compare_line(const char *what, const char *shape, double flop, struct bench_turn operator,
                           struct bench_product * product, struct bench_product *onednn)
{
    struct bench_turn turns[BENCH_TURNS] = {operator};
    int n = 1, peak_at = 0, product_at = 0, onednn_at = 0;

    if (ops->act_dtype == DTYPE_F32 && bench_fma_flop(n_threads) > 0)
        turns[peak_at = n++] = (struct bench_turn){.run = bench_fma_run, .context = &n_threads};
    if (product)
        turns[product_at = n++] = (struct bench_turn){.run = bench_product_run, .context = product};
    if (onednn)
        turns[onednn_at = n++] = (struct bench_turn){.run = bench_product_run, .context = onednn};
    bench_in_turn(turns, n);
    printf("%-10s %-26s %10.1f us %8.1f GFLOP/s", what, shape, turns[0].ns / 1e3, flop / turns[0].ns);
    if (peak_at) {
        const double peak = bench_fma_flop(n_threads) / turns[peak_at].ns;

        printf(" %3.0f %% of %.0f", 100 * flop / turns[0].ns / peak, peak);
    }
    if (product_at)
        printf("  product %3.0f %%", 100 * turns[product_at].ns / turns[0].ns);
    if (onednn_at)
        printf("  oneDNN %10.1f us, %5.2f x", turns[onednn_at].ns / 1e3, turns[onednn_at].ns / turns[0].ns);
    printf("\n");
    return turns[0].ns;
}

static void run_linear(void *context)
{
    check(ops->f->linear(ops, context), "linear");
}

static void run_norm(void *context)
{
    check(ops->f->norm(ops, context), "norm");
}

static void run_attention(void *context)
{
    check(ops->f->attention(ops, context), "attention");
}

static void run_decode(void *context)
{
    check(ops->f->decode_attention(ops, context), "decode_attention");
}

static void run_gate(void *context)
{
    check(ops->f->gate(ops, context), "gate");
}

static void run_sample(void *context)
{
    check(ops->f->sample(ops, context), "sample");
}

static double linear(const char *what, int64_t m, int64_t n, int64_t k, enum ops_act act, bool residual)
{
    void *x = values(m * k), *y = values(m * n), *w = values(n * k), *b = values_of(DTYPE_F32, n);
    struct tensor weight = {.dtype = ops->act_dtype, .n_dims = 2, .shape = {n, k}, .data = w};
    struct tensor bias = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {n}, .data = b};
    struct bench_product *product, *onednn;
    struct ops_weight *packed;
    struct err err;
    char shape[64];
    double ns;

    check(ops->f->weight_new(ops, &(struct ops_weight_part){&weight, &bias}, 1, 0, &packed, &err), "weight");
    struct ops_linear_args a = {
        .weight = packed, .n_rows = m, .x = x, .ld_x = k, .y = y, .ld_y = n, .act = act, .ld_residual = n};
    a.residual = residual ? y : NULL;
    (void)snprintf(shape, sizeof(shape), "%lld x %lld x %lld%s", (long long)m, (long long)n, (long long)k,
                   act == OPS_ACT_GELU_ERF ? " gelu"
                   : act == OPS_ACT_RELU   ? " relu"
                   : residual              ? " +res"
                                           : "");
    product = bench_product_new(ops->act_dtype, n_threads, m, n, k);
    onednn = cpu_matmul_is_fast() ? NULL : bench_onednn_new(n_threads, m, n, k, act, residual);
    ns = compare_line(what, shape, 2.0 * (double)m * (double)n * (double)k,
                      (struct bench_turn){.run = run_linear, .context = &a}, product, onednn);
    bench_product_free(product);
    if (onednn)
        bench_product_free(onednn);
    ops->f->weight_free(ops, packed);
    ops->f->release(ops, x);
    ops->f->release(ops, y);
    ops->f->release(ops, w);
    ops->f->release(ops, b);
    return ns;
}

static double norm(int64_t rows, int64_t width)
{
    void *x = values(rows * width), *y = values(rows * width), *g = values_of(DTYPE_F32, width);
    struct tensor t = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {width}, .data = g};
    struct ops_norm_args a = {
        .n_rows = rows, .width = width, .x = x, .ld_x = width, .y = y, .ld_y = width, .eps = 1e-6f};
    struct ops_vector *v;
    struct err err;
    char shape[64];
    double ns;

    check(ops->f->vector_new(ops, &t, &v, &err), "vector");
    a.gamma = a.beta = v;
    ns = bench_best_ns(run_norm, &a);
    (void)snprintf(shape, sizeof(shape), "%lld x %lld", (long long)rows, (long long)width);
    printf("%-10s %-26s %10.1f us %8.1f GB/s\n", "norm", shape, ns / 1e3,
           2.0 * (double)dtype_size_bytes(ops->act_dtype) * (double)rows * (double)width / ns);
    ops->f->vector_free(ops, v);
    ops->f->release(ops, x);
    ops->f->release(ops, y);
    ops->f->release(ops, g);
    return ns;
}

static double attention(int n_seqs, int heads, int d, int q, int kv, bool causal)
{
    int64_t width = (int64_t)heads * d, ld = q == kv ? 3 * width : width;
    void *x = values(n_seqs * q * ld), *k = q == kv ? at(x, width) : values(2 * n_seqs * kv * ld);
    void *v = q == kv ? at(x, 2 * width) : at(k, n_seqs * kv * ld), *out = values(n_seqs * q * width);
    int32_t *lengths = calloc(4 * (size_t)n_seqs, sizeof(*lengths));
    struct ops_attention_args a = {.n_seqs = n_seqs,
                                   .n_heads = heads,
                                   .head_dim = d,
                                   .scale = 1 / sqrtf((float)d),
                                   .causal = causal,
                                   .q = x,
                                   .k = k,
                                   .v = v,
                                   .ld_q = ld,
                                   .ld_k = ld,
                                   .ld_v = ld,
                                   .out = out,
                                   .ld_out = width};
    char shape[64];
    double ns;

    check(lengths ? 0 : -1, "calloc");
    for (int s = 0; s < n_seqs; s++) {
        lengths[s] = s * q;
        lengths[n_seqs + s] = q;
        lengths[2 * n_seqs + s] = s * kv;
        lengths[3 * n_seqs + s] = kv;
    }
    a.q_start = lengths;
    a.q_len = lengths + n_seqs;
    a.kv_start = lengths + 2 * (int64_t)n_seqs;
    a.kv_len = lengths + 3 * (int64_t)n_seqs;
    (void)snprintf(shape, sizeof(shape), "%d x %d x (%d, %d, %d)%s", n_seqs, heads, q, kv, d, causal ? " causal" : "");
    ns = compare_line("attention", shape, 4.0 * n_seqs * heads * d * q * kv,
                      (struct bench_turn){.run = run_attention, .context = &a}, NULL, NULL);
    ops->f->release(ops, x);
    if (q != kv)
        ops->f->release(ops, k);
    ops->f->release(ops, out);
    free(lengths);
    return ns;
}

/* A ViT forward from its operators: where the time goes. */
static void vit(int64_t batch, int64_t tokens, int64_t width, int heads, int64_t mlp)
{
    int64_t rows = batch * tokens;
    double products, attend, other;

    printf("\nViT width %lld, batch %lld\n", (long long)width, (long long)batch);
    products = linear("qkv", rows, 3 * width, width, OPS_ACT_NONE, false);
    products += linear("projection", rows, width, width, OPS_ACT_NONE, true);
    products += linear("fc1", rows, mlp, width, OPS_ACT_GELU_ERF, false);
    products += linear("fc2", rows, width, mlp, OPS_ACT_NONE, true);
    attend = attention((int)batch, heads, (int)(width / heads), (int)tokens, (int)tokens, false);
    other = 2 * norm(rows, width);
    printf("layer: linear %.1f %%, attention %.1f %%, norms %.1f %%\n", 100 * products / (products + attend + other),
           100 * attend / (products + attend + other), 100 * other / (products + attend + other));
}

static void decode(int rows)
{
    printf("\ndecode step of the demo OPT, %d sequences\n", rows);
    (void)linear("qkv", rows, 576, 192, OPS_ACT_NONE, false);
    (void)linear("out", rows, 192, 192, OPS_ACT_NONE, true);
    (void)linear("fc1", rows, 768, 192, OPS_ACT_RELU, false);
    (void)linear("fc2", rows, 192, 768, OPS_ACT_NONE, true);
    (void)linear("logits", rows, 1216, 192, OPS_ACT_NONE, false);
    (void)attention(rows, 3, 64, 1, 33, true);
    (void)norm(rows, 192);
}

/* Decode attention of `images` groups of `beams` rows; beams 1 beside attention() over the same keys. */
static void decode_attention(int images, int beams, int heads, int d, int prefix, int tail)
{
    enum { MOST = 256 };
    const int n_rows = images * beams, n_keys = prefix + tail;
    const int64_t width = (int64_t)heads * d, n_cache = (int64_t)n_rows * n_keys;
    void *q = values(n_rows * width), *k = values(n_cache * width), *v = values(n_cache * width);
    void *out = values(n_rows * width);
    int32_t prefix_start[MOST], prefix_len[MOST], tail_start[MOST], tail_len[MOST], *tails;
    struct ops_decode_attention_args a = {.n_rows = n_rows,
                                          .n_heads = heads,
                                          .head_dim = d,
                                          .scale = 1 / sqrtf((float)d),
                                          .q = q,
                                          .ld_q = width,
                                          .k = k,
                                          .v = v,
                                          .ld_kv = width,
                                          .prefix_start = prefix_start,
                                          .prefix_len = prefix_len,
                                          .tail_start = tail_start,
                                          .tail_len = tail_len,
                                          .out = out,
                                          .ld_out = width};
    const double bytes =
        2.0 * (double)dtype_size_bytes(ops->act_dtype) * images * (prefix + beams * tail) * (double)width;
    double ns;

    check(n_rows <= MOST ? 0 : -1, "decode_attention rows");
    tails = calloc((size_t)n_rows * (size_t)tail, sizeof(*tails));
    check(tails ? 0 : -1, "calloc");
    for (int r = 0; r < n_rows; r++) {
        prefix_start[r] = r / beams * beams * n_keys;
        prefix_len[r] = prefix;
        tail_start[r] = r * tail;
        tail_len[r] = tail;
        for (int j = 0; j < tail; j++)
            tails[r * tail + j] = beams == 1 ? r * n_keys + prefix + j
                                             : r / beams * beams * n_keys + prefix + j * beams + (r + j / 4) % beams;
    }
    a.tail = tails;
    ns = bench_best_ns(run_decode, &a);
    printf("%-10s %d x %d rows, %d heads of %d, %d + %d keys %10.1f us %8.1f GB/s of keys and values\n", "decode",
           images, beams, heads, d, prefix, tail, ns / 1e3, bytes / ns);
    ops->f->release(ops, q);
    ops->f->release(ops, k);
    ops->f->release(ops, v);
    ops->f->release(ops, out);
    free(tails);
    if (beams == 1)
        (void)attention(n_rows, heads, d, 1, n_keys, true);
}

static void beams(void)
{
    printf("\ndecode attention\n");
    decode_attention(64, 1, 3, 64, 33, 12);
    decode_attention(13, 5, 3, 64, 33, 12);
    decode_attention(64, 1, 32, 80, 40, 20);
    decode_attention(13, 5, 32, 80, 40, 20);
    decode_attention(13, 5, 32, 80, 80, 30);
}

/* Average time of a call, over some. */
static double mean_ns(const struct ops_linear_args *a)
{
    enum { CALLS = 3000 };
    int64_t start;

    check(ops->f->linear(ops, a), "linear");
    start = clock_mono_ns();
    for (int i = 0; i < CALLS; i++)
        check(ops->f->linear(ops, a), "linear");
    return (double)(clock_mono_ns() - start) / CALLS;
}

/* A product of a decode step, alone and beside one other process that never sleeps: means, since waiting is what
 * counts. */
static void busy_product(int64_t m, int64_t n, int64_t k)
{
    void *x = values(m * k), *y = values(m * n), *w = values(n * k);
    struct tensor weight = {.dtype = ops->act_dtype, .n_dims = 2, .shape = {n, k}, .data = w};
    struct ops_linear_args a = {.n_rows = m, .x = x, .ld_x = k, .y = y, .ld_y = n};
    struct ops_weight *packed;
    struct err err;
    double quiet, busy;
    pid_t other;

    check(ops->f->weight_new(ops, &(struct ops_weight_part){&weight, NULL}, 1, 0, &packed, &err), "weight");
    a.weight = packed;
    quiet = mean_ns(&a);
    other = fork();
    check(other, "fork");
    if (other == 0)
        for (;;)
            __asm__ volatile("");
    busy = mean_ns(&a);
    check(kill(other, SIGKILL), "kill");
    (void)waitpid(other, NULL, 0);
    printf("%-10s %lld x %lld x %-16lld quiet %8.1f us, beside a busy process %8.1f us, %.2f times\n", "product",
           (long long)m, (long long)n, (long long)k, quiet / 1e3, busy / 1e3, busy / quiet);
    ops->f->weight_free(ops, packed);
    ops->f->release(ops, x);
    ops->f->release(ops, y);
    ops->f->release(ops, w);
}

static void busy(void)
{
    printf("\ndecode products beside a busy process\n");
    busy_product(32, 576, 192);
    busy_product(64, 576, 192);
    busy_product(64, 192, 768);
}

static void time_sample(const char *what, int64_t vocab, struct ops_sample_row row, int n_masked)
{
    enum { ROWS = 64, MOST_BEST = 64 };
    static int32_t ids[ROWS][MOST_BEST], masked[1000];
    static float results[2][ROWS][MOST_BEST];
    struct ops_sample_row rows[ROWS];
    float *logits = values_of(DTYPE_F32, ROWS * vocab);
    struct ops_sample_args a = {.n_rows = ROWS, .vocab = vocab, .logits = logits, .ld = vocab, .rows = rows};
    uint32_t random = 1;
    double ns;

    for (int64_t i = 0; i < ROWS * vocab; i++) { /* sums of eight: nearly normal, as logits are */
        float sum = 0;

        for (int j = 0; j < 8; j++) {
            random = random * 1664525u + 1013904223u;
            sum += (float)(random >> 8) * 0x1p-24f;
        }
        logits[i] = (sum - 4) * 3;
    }
    for (int i = 0; i < n_masked; i++)
        masked[i] = (int32_t)((i * 7919) % vocab);
    for (int r = 0; r < ROWS; r++) {
        rows[r] = row;
        rows[r].seen = masked;
        rows[r].n_seen = n_masked;
        rows[r].uniform = (float)r / ROWS;
        rows[r].ret_ids = ids[r];
        rows[r].ret_values = results[0][r];
        rows[r].ret_logprobs = results[1][r];
    }
    ns = bench_best_ns(run_sample, &a);
    printf("%-10s %-26s %10.1f us %8.1f GB/s of logits\n", "sample", what, ns / 1e3, 4.0 * ROWS * (double)vocab / ns);
    ops->f->release(ops, logits);
}

static void samplings(void)
{
    const struct ops_sample_row greedy = {.n_best = 1, .repetition_penalty = 1.2f};
    struct ops_sample_row beam = {.n_best = 10, .repetition_penalty = 1.2f, .log_softmax = true};
    struct ops_sample_row sample = {
        .n_best = 1, .repetition_penalty = 1.2f, .sample = true, .temperature = 0.8f, .top_k = 50, .top_p = 1};

    printf("\nchoosing, 64 rows of 50272\n");
    time_sample("greedy", 50272, greedy, 0);
    time_sample("greedy, penalty", 50272, greedy, 60);
    time_sample("10 best", 50272, beam, 0);
    time_sample("10 best, penalty", 50272, beam, 60);
    time_sample("top_k 50", 50272, sample, 0);
    sample.top_k = 0;
    time_sample("any", 50272, sample, 0);
    sample.top_p = 0.9f;
    time_sample("top_p 0.9", 50272, sample, 0);
}

static void gate(int64_t rows, int64_t width)
{
    void *x = values(rows * 2 * width), *y = values(rows * width);
    struct ops_gate_args a = {
        .n_rows = rows, .width = width, .act = OPS_ACT_GELU_TANH, .x = x, .ld_x = 2 * width, .y = y, .ld_y = width};
    double ns = bench_best_ns(run_gate, &a);

    printf("%-10s %lld x %-22lld %10.1f us %8.1f GB/s\n", "gate", (long long)rows, (long long)width, ns / 1e3,
           3.0 * (double)dtype_size_bytes(ops->act_dtype) * (double)rows * (double)width / ns);
    ops->f->release(ops, x);
    ops->f->release(ops, y);
}

static bool wanted(const char *name, const char *section)
{
    return !*section || strcmp(name, section) == 0;
}

static void sections(const char *section)
{
    static const int batches[] = {1, 8, 32}, decode_rows[] = {8, 32, 64};

    printf("\n== %s, threads %d; medians of runs in turn. %%: of what fused multiply-adds alone reach between the "
           "runs, in "
           "GFLOP/s;\n   product: what nothing but the product takes of the operator's time\n",
           dtype_name(ops->act_dtype), n_threads);
    if (wanted("demo", section))
        for (int i = 0; i < 3; i++)
            vit(batches[i], 257, 192, 3, 768);
    if (wanted("demo", section))
        (void)attention(32, 3, 64, 16, 257, false);
    if (wanted("decode", section))
        for (int i = 0; i < 3; i++)
            decode(decode_rows[i]);
    if (wanted("busy", section))
        busy();
    if (wanted("large", section)) {
        vit(2, 257, 1408, 16, 6144);
        gate(64, 5120);
        gate(1024, 5120);
    }
    if (wanted("beams", section))
        beams();
    if (wanted("sample", section) && ops->act_dtype == DTYPE_F32) /* logits are f32 in any case */
        samplings();
}

/* Both types in turn, the best of each, so that others on the machine disturb both alike. */
static void compare_types(void)
{
    static const int64_t shapes[][2] = {{4224, 1408}, {1408, 1408}, {6144, 1408}, {1408, 6144}};
    const int64_t rows = 514;
    double total[2] = {0}, flop = 0;

    for (int i = 0; i < 4; i++) {
        double best[2] = {INFINITY, INFINITY};

        for (int round = 0; round < 5; round++)
            for (int type = 0; type < 2; type++)
                best[type] = fmin(best[type], bench_product_dtype_ns(type ? DTYPE_BF16 : DTYPE_F32, n_threads, rows,
                                                                     shapes[i][0], shapes[i][1]));
        total[0] += best[0];
        total[1] += best[1];
        flop += 2.0 * (double)rows * (double)shapes[i][0] * (double)shapes[i][1];
    }
    printf("\nViT-g products: f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, %.2f times as fast\n", flop / total[0],
           flop / total[1], total[0] / total[1]);
}

int main(int argc, char **argv)
{
    const char *section = argc > 2 ? argv[2] : "";
    struct err err;

    n_threads = argc > 1 ? atoi(argv[1]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (n_threads < 1) {
        fprintf(stderr, "usage: bench_ops [THREADS] [demo|decode|busy|large|beams|sample|types]\n");
        return EXIT_FAILURE;
    }
    for (int i = 0; i < 2; i++) {
        if (ops_cpu_new(n_threads, i ? DTYPE_BF16 : DTYPE_F32, CPU_ISA_AUTO, &ops, &err) < 0) {
            printf("%s\n", err.text);
            return i ? EXIT_SUCCESS : EXIT_FAILURE;
        }
        sections(section);
        ops_free(ops);
    }
    if (wanted("types", section))
        compare_types();
    return EXIT_SUCCESS;
}
